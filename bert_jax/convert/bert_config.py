"""The settings of a BERT elsewhere, config.json of transformers and bert_config.json of Google, to ours and back."""

import dataclasses
import re
import warnings
from collections.abc import Mapping

from bert_jax.convert import foreign
from bert_jax.convert.names import some
from bert_jax.errors import ConfigError
from bert_jax.model.encoder import ENCODERS
from bert_jax.model.settings import Model
from input_pipeline import storage
from input_pipeline.errors import DataError

MOST = 2**31  # of any size


@dataclasses.dataclass(frozen=True)
class BertConfig:
  """What decides the model; the defaults are those of transformers' BertConfig, and so those of BERT-base uncased."""
  vocab_size: int = 30522
  hidden_size: int = 768
  num_hidden_layers: int = 12
  num_attention_heads: int = 12
  intermediate_size: int = 3072
  max_position_embeddings: int = 512
  type_vocab_size: int = 2
  hidden_act: str = 'gelu'
  hidden_dropout_prob: float = 0.1
  attention_probs_dropout_prob: float = 0.1
  initializer_range: float = 0.02
  layer_norm_eps: float = 1e-12
  is_decoder: bool = False
  model_type: str = 'bert'
  architectures: tuple[str, ...] | None = None
  id2label: dict | None = None
  problem_type: str | None = None


FIELDS = {  # settings.Model: BertConfig
    'vocab_size': 'vocab_size', 'hidden_size': 'hidden_size', 'layers': 'num_hidden_layers',
    'heads': 'num_attention_heads', 'intermediate_size': 'intermediate_size',
    'max_positions': 'max_position_embeddings', 'type_vocab_size': 'type_vocab_size',
    'hidden_dropout': 'hidden_dropout_prob', 'attention_dropout': 'attention_probs_dropout_prob',
    'initializer_range': 'initializer_range', 'layer_norm_epsilon': 'layer_norm_eps', 'causal': 'is_decoder'}
# Theirs is the right one of what we call gelu_tanh; the first name of each of ours is what an export says.
ACTIVATIONS = {'gelu_pytorch_tanh': 'gelu_tanh', 'gelu_new': 'gelu_tanh', 'gelu_python_tanh': 'gelu_tanh',
               'gelu': 'gelu', 'gelu_python': 'gelu'}
# What would make another model of it, where it is there: any import must be so.
FIXED = {'position_embedding_type': ('absolute',), 'add_cross_attention': (False,), 'tie_word_embeddings': (True,),
         'is_encoder_decoder': (False,), 'pruned_heads': ({}, None), 'quantization_config': (None,),
         'problem_type': (None, 'single_label_classification', 'regression')}
# What changes nothing of what a model computes: how it was trained or is called, and what goes with texts it writes.
IDLE = frozenset('''
_name_or_path _num_labels architectures attn_implementation bos_token_id chunk_size_feed_forward classifier_dropout
decoder_start_token_id directionality do_sample dtype early_stopping eos_token_id eos_token_ids finetuning_task
gradient_checkpointing label2id language length_penalty max_length min_length name num_beams num_labels
num_return_sequences output_attentions output_hidden_states output_past pad_token_id pooler_fc_size
pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type repetition_penalty return_dict
task_specific_params temperature tokenizer_class top_k top_p torch_dtype torchscript transformers_version
use_bfloat16 use_cache'''.split())


def read(path: storage.Path, defaults: Mapping = {}) -> BertConfig:
  """What a file says; a warning names what it says besides. Raises DataError, by the name of what ours cannot be."""
  fields = foreign.read_object(path)
  for name, allowed in FIXED.items():
    if name in fields and fields[name] not in allowed:
      raise DataError(f'{path} has {name} {fields[name]!r:.60}: wanted {" or ".join(map(repr, allowed))}')
  config = foreign.typed(BertConfig, defaults | fields, path)
  strange = sorted(fields.keys() - BertConfig.__dataclass_fields__.keys() - FIXED.keys() - IDLE)
  if strange:
    warnings.warn(f'{path} says {some(strange, 9)}, which bert_jax does not know: it is left out', stacklevel=2)
  return config


def to_model(config: BertConfig, path: storage.Path, types: Mapping[str, str], activations: Mapping[str, str]) -> Model:
  """Our settings. `types`: {their name of an architecture: ours}. Raises DataError where ours cannot be it."""
  if config.model_type not in types:
    raise DataError(f'{path} has model_type {config.model_type!r:.60}: wanted {" or ".join(map(repr, types))}')
  if config.hidden_act not in activations:
    raise DataError(f'{path} has hidden_act {config.hidden_act!r:.60}: wanted one of {", ".join(activations)}')
  values = {ours: getattr(config, theirs) for ours, theirs in FIELDS.items()}
  for ours, value in values.items():
    if isinstance(value, int) and value >= MOST:
      raise DataError(f'{path} has {FIELDS[ours]} {str(value):.30}: wanted a whole number below {MOST:,}')
  try:
    return Model(architecture=types[config.model_type], activation=activations[config.hidden_act], **values)
  except ConfigError as error:
    said = re.sub(r'\bmodel\.(\w+)', lambda name: FIELDS.get(name[1], name[0]), str(error))
    raise DataError(f'{path} is no model: {said}') from error


def types_of(format: str) -> dict[str, str]:
  """{what the format calls an architecture: what we do}."""
  return {kind.TYPES[format]: name for name, kind in reversed(ENCODERS.items())
          if format in getattr(kind, 'TYPES', {})}


def fields_of(model: Model) -> dict[str, object]:
  """The sizes and rates of our model, by their names."""
  return {theirs: getattr(model, ours) for ours, theirs in FIELDS.items()}


def labels_of(config: BertConfig, count: int, path: storage.Path) -> tuple[str, ...]:
  """The names of a classifier's `count` classes; () where it gives one number. Raises DataError."""
  if not count:
    raise DataError(f'the classifier beside {path} has no class: wanted one at least')
  if count == 1:
    return ()
  names = {str(i): f'LABEL_{i}' for i in range(count)} if config.id2label is None else config.id2label
  labels = tuple(names.get(str(i)) for i in range(count))
  if len(names) != count or not all(isinstance(label, str) for label in labels):
    raise DataError(f'{path} has id2label {str(names):.60}: wanted a name for each of the {count} classes of its '
                    'weights, from 0')
  return labels  # type: ignore[return-value]

"""Hugging Face directories of BERT: written with the heads that a run has, read with whatever heads they have.

Their kernels are [out in], ours [in out]; each of their layers has its own tensors, ours are stacks [L ...] (names.py).
"""

import dataclasses
import json
import math
from collections.abc import Mapping

import numpy as np
import safetensors.numpy

from bert_jax.checkpoint import Loaded
from bert_jax.convert import card as card_lib, directory as directory_lib, names, tokenizer_files
from bert_jax.convert.card import ModelCard
from bert_jax.convert.names import some
from bert_jax.convert.weights import WEIGHTS, read_json, read_tensors
from bert_jax.errors import ConfigError, require
from bert_jax.model.build import Heads, encoder_class
from bert_jax.model.encoder import ENCODERS
from bert_jax.model.settings import Model
from bert_jax.objectives import OBJECTIVES, PRETRAINING_HEADS, Objective
from input_pipeline import storage
from input_pipeline.errors import DataError

KIND = 'huggingface'
FORMAT = names.Format(KIND, '.', {'kernel': 'weight', 'scale': 'weight', 'embedding': 'weight', 'bias': 'bias'},
                      ('kernel',))
CONFIG, README = 'config.json', 'README.md'

# One tensor under two names: the first is a copy, which some checkpoints store beside the second, or in its place.
TIED = {'cls.predictions.decoder.weight': 'bert.embeddings.word_embeddings.weight',
        'cls.predictions.decoder.bias': 'cls.predictions.bias'}

FIELDS = {  # settings.Model: BertConfig
    'vocab_size': 'vocab_size', 'hidden_size': 'hidden_size', 'layers': 'num_hidden_layers',
    'heads': 'num_attention_heads', 'intermediate_size': 'intermediate_size',
    'max_positions': 'max_position_embeddings', 'type_vocab_size': 'type_vocab_size',
    'hidden_dropout': 'hidden_dropout_prob', 'attention_dropout': 'attention_probs_dropout_prob',
    'initializer_range': 'initializer_range', 'layer_norm_epsilon': 'layer_norm_eps', 'causal': 'is_decoder'}
# Theirs is the right one of what we call gelu_tanh; the first name of each of ours is what an export says.
ACTIVATIONS = {'gelu_pytorch_tanh': 'gelu_tanh', 'gelu_new': 'gelu_tanh', 'gelu_python_tanh': 'gelu_tanh',
               'gelu': 'gelu', 'gelu_python': 'gelu'}
# What our encoder is, and any import must be.
FIXED = {'position_embedding_type': 'absolute', 'add_cross_attention': False, 'tie_word_embeddings': True}


def export_checkpoint(directory: storage.PathLike, loaded: Loaded, card: ModelCard | None = None,
                      overwrite: bool = False) -> storage.Path:
  """Writes a directory for transformers' AutoModel and AutoTokenizer, whole or not at all. Returns its path.

  Its class is that of `loaded.objective`: BertForPreTraining, BertForSequenceClassification … Raises ConfigError where
  `directory` exists (see directory.write) or the vocabulary is not the model's, DataError where the vocabulary cannot
  be used.
  """
  directory_lib.check(directory, KIND, overwrite)
  vocabulary, model = loaded.tokenizer(), loaded.model
  require(len(vocabulary.tokens) == model.vocab_size,
          f'the vocabulary has {len(vocabulary.tokens)} tokens and model.vocab_size is {model.vocab_size}: name the '
          'vocabulary that the model was trained with')
  tensors = to_tensors(model, loaded.objective.heads, loaded.params)
  check_finite(tensors, 'the checkpoint')
  encode = lambda value: (json.dumps(value, indent=2, sort_keys=True) + '\n').encode()
  path = storage.path(directory)
  title = path.parent.name if path.name == 'export' else path.name  # runs/sample/export is the export of `sample`
  card = dataclasses.replace(card or ModelCard(), architecture=architecture(loaded.objective))
  text = card_lib.readme(card, model, loaded.objective, title or 'BERT', vocabulary.kind, vocabulary.lower_case,
                         sum(x.size for x in tensors.values()))
  return directory_lib.write(directory, KIND, {
      CONFIG: encode(to_config(model, vocabulary.pad_id, loaded.objective, card.labels)),
      WEIGHTS: safetensors.numpy.save(tensors, {'format': 'pt'}),
      README: text.encode(),
      **tokenizer_files.files(vocabulary, model.max_positions)}, overwrite)


def architecture(objective: Objective) -> str:
  """The class of transformers that has the objective's heads; that of the encoder where none is known."""
  return objective.huggingface or ('BertForPreTraining' if set(objective.heads) == set(PRETRAINING_HEADS)
                                   else 'BertModel')


def model_type(model: Model) -> str:
  """What transformers calls the model's architecture. Raises ConfigError where it has no name there."""
  kind = encoder_class(model)
  name = getattr(kind, 'TYPES', {}).get(KIND)
  if name is None:
    raise ConfigError(f'{kind.__name__} has no name in the format {KIND}: add one to {kind.__name__}.TYPES')
  return name


def to_config(model: Model, pad_id: int, objective: Objective, labels: tuple[str, ...] = ()) -> dict:
  """The fields of transformers' BertConfig. Raises ConfigError where it has none for a setting."""
  require(not model.right_to_left, 'transformers has no BERT that reads from right to left (model.right_to_left): it '
          'would compute something else; use `bert-jax features` and `score` on the run itself')
  activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == model.activation)
  fields = FIXED | {theirs: getattr(model, ours) for ours, theirs in FIELDS.items()} | {
      'model_type': model_type(model), 'architectures': [architecture(objective)],
      'hidden_act': activation, 'pad_token_id': pad_id, 'torch_dtype': 'float32'}
  if architecture(objective) != 'BertForSequenceClassification':
    return fields
  shown = labels or ('LABEL_0',)  # one number
  return fields | {'id2label': {str(i): label for i, label in enumerate(shown)},
                   'label2id': {label: i for i, label in enumerate(shown)},
                   'problem_type': 'single_label_classification' if labels else 'regression'}


def to_tensors(model: Model, heads: Heads, params) -> dict[str, np.ndarray]:
  """{their name: float32 array} of the parameters of a model with these heads."""
  return names.to_tensors(params, names.entries(model, heads, FORMAT))

# ---------------------------------------------------------------- the way back


def is_export(path: storage.PathLike) -> bool:
  """Whether `path` is a Hugging Face directory, ours or another's: a config.json that names a model type."""
  try:
    return 'model_type' in json.loads((storage.path(path) / CONFIG).read_text())
  except (OSError, ValueError, TypeError, RecursionError):
    return False


def read(directory: storage.PathLike, heads: Heads | None = None) -> Loaded:
  """The checkpoint of a Hugging Face BERT: BertForPreTraining, BertForMaskedLM, BertModel, or with a task's head.

  `heads`: those to read, pretraining's by default. Of a head that the directory lacks, or that it has in another size
  than was asked for, `params` has None in place of each array, and `fresh` the names. Other heads are left out. Raises
  DataError.
  """
  directory = storage.path(directory)
  directory_lib.verify(directory, sorted(set(directory_lib.read_marker(directory).get('files', ())) - {README}))
  model = from_config(read_json(directory / CONFIG), directory)
  objective = (next(objective for objective in OBJECTIVES.values() if objective.causal == model.causal) if heads is None
               else Objective({}, heads))
  found = read_tensors(directory)
  if model.layers > len(found):
    raise DataError(f'{directory}/{CONFIG} has num_hidden_layers {model.layers}, and the weights are {len(found)} '
                    'tensors: fetch or export it again')
  table = names.entries(model, objective.heads, FORMAT)
  tensors = canonical(found, table)
  check_tied(tensors, directory)
  fresh = missing_heads(tensors, table, directory)
  if heads is not None:
    fresh |= other_heads(tensors, table)
  check_strange(tensors, table, directory)
  check_finite({name: tensors[name] for entry in table if entry.head not in fresh for name in entry.theirs}, directory)
  arrays = names.from_tensors(tensors, [entry for entry in table if entry.head not in fresh], directory)
  return Loaded(model, objective, names.tree(arrays, model, objective.heads), lambda: tokenizer_files.load(directory),
                fresh=tuple(entry.name for entry in table if entry.head in fresh))


def missing_heads(tensors: Mapping[str, np.ndarray], table: list[names.Entry], directory: storage.Path) -> set[str]:
  """The heads of which nothing is there. Raises DataError where some of a head is, or any of the encoder lacks."""
  lacks = lambda entries: [theirs for entry in entries for theirs in entry.theirs if theirs not in tensors]
  heads = {entry.head: [other for other in table if other.head == entry.head] for entry in table}
  fresh = set()
  for head, entries in heads.items():
    missing = lacks(entries)
    if missing and (head == 'encoder' or len(missing) < sum(len(entry.theirs) for entry in entries)):
      raise DataError(f'{directory} lacks {some(missing)}: wanted all weights of the {head} that {CONFIG} describes')
    fresh |= {head} if missing else set()
  return fresh


def other_heads(tensors: Mapping[str, np.ndarray], table: list[names.Entry]) -> set[str]:
  """The heads that are there in another size than was asked for: a classifier of other classes is another head."""
  return {entry.head for entry in table for theirs in entry.theirs
          if entry.head != 'encoder' and theirs in tensors and tensors[theirs].shape != entry.their_shape}


def check_finite(tensors: Mapping[str, np.ndarray], where: storage.PathLike) -> None:
  """Raises DataError where a weight is no number."""
  strange = [name for name, value in tensors.items() if not np.isfinite(value).all()]
  if strange:
    raise DataError(f'{where}: {some(strange)} hold values that are not finite: wanted another checkpoint')


def check_strange(tensors: Mapping[str, np.ndarray], table: list[names.Entry], directory: storage.Path) -> None:
  """Raises DataError for a weight that stands among the encoder's and is not one of them."""
  wanted = {theirs for entry in table for theirs in entry.theirs}
  rooms = {'.'.join(theirs.split('.')[:2]) + '.' for entry in table if entry.head == 'encoder'
           for theirs in entry.theirs}
  strange = sorted(name for name, value in tensors.items() if name not in wanted and name.startswith(tuple(rooms))
                   and not name.endswith(('.position_ids', '.token_type_ids')))  # buffers of old versions: 0, 1, 2 …
  if strange:
    raise DataError(f'{directory} holds {some(strange)}, and its {CONFIG} describes a BERT without them')


def canonical(tensors: Mapping[str, np.ndarray], table: list[names.Entry]) -> dict[str, np.ndarray]:
  """Tensors by the names that a class with heads has today: with 'bert.' before, and LayerNorm's weight and bias."""
  wanted = {theirs for entry in table for theirs in entry.theirs}
  prefix = next(theirs for entry in table if entry.head == 'encoder' for theirs in entry.theirs).split('.')[0] + '.'
  rooms = {name.split('.')[1] for name in wanted if name.startswith(prefix)}  # embeddings, encoder, pooler
  bare = not any(name.startswith(prefix) for name in tensors)
  renamed = {}
  for name, value in tensors.items():
    theirs = f'{prefix}{name}' if bare and name.split('.')[0] in rooms else name
    renamed[theirs.replace('LayerNorm.gamma', 'LayerNorm.weight').replace('LayerNorm.beta', 'LayerNorm.bias')] = value
  return renamed


def check_tied(tensors: dict[str, np.ndarray], directory: storage.PathLike) -> None:
  """Drops the copies that some checkpoints store of tied tensors. Raises DataError where they are not copies."""
  for copy, original in TIED.items():
    if copy in tensors and not np.array_equal(tensors[copy], tensors.setdefault(original, tensors[copy])):
      raise DataError(f'{directory}: {copy} differs from {original}; wanted a model whose decoder is its word '
                      'embeddings')
    tensors.pop(copy, None)


def from_config(fields: Mapping, directory: storage.PathLike) -> Model:
  """The model of a BertConfig. Raises DataError where ours cannot be it."""
  path = f'{directory}/{CONFIG}'
  known = {getattr(kind, 'TYPES', {}).get(KIND): name for name, kind in reversed(ENCODERS.items())}
  known.pop(None, None)  # of architectures that the format does not know
  said = fields.get('model_type', 'bert')
  if not isinstance(said, str) or said not in known:
    raise DataError(f'{path} has model_type {said!r}: wanted {" or ".join(map(repr, known))}')
  for name, wanted in FIXED.items():
    if (found := fields.get(name, wanted)) != wanted:
      raise DataError(f'{path} has {name} {found!r}: wanted {wanted!r}, as BERT has')
  if fields.get('quantization_config') is not None:
    raise DataError(f'{path} has a quantization_config: quantized weights cannot be read; wanted float32, float16 or '
                    'bfloat16')
  activation = fields.get('hidden_act', 'gelu')
  if not isinstance(activation, str) or activation not in ACTIVATIONS:
    raise DataError(f'{path} has hidden_act {activation!r}: wanted one of {", ".join(ACTIVATIONS)}')
  # A field that is absent has BertConfig's default, which is BERT-base uncased, as ours is.
  values = {ours: _value(fields[theirs], theirs, ours, path) for ours, theirs in FIELDS.items() if theirs in fields}
  try:
    return Model(architecture=known[said], activation=ACTIVATIONS[activation], **values)
  except ConfigError as error:
    raise DataError(f'{path} is no model: {error}') from error


def _value(value, theirs: str, ours: str, path: str):
  """A field of config.json, if it is of the kind that our setting is. Raises DataError."""
  kind = type(getattr(Model, ours))
  fits = {bool: lambda: isinstance(value, bool), int: lambda: type(value) is int and 1 <= value < 2**31,
          float: lambda: type(value) in (int, float) and math.isfinite(value) and value >= 0}
  wanted = {bool: 'true or false', int: 'a whole number of at least 1', float: 'a number of at least 0'}
  if not fits[kind]():
    raise DataError(f'{path} is no model: {theirs} is {value!r}; wanted {wanted[kind]}')
  return kind(value)

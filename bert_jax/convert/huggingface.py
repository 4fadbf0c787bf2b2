"""Hugging Face directories of BERT: written with both pretraining heads, read with whatever heads they have.

L layers, D hidden, F feed-forward, V vocabulary. Their kernels are [out in], ours [in out]; our layers are stacks [L ...].
"""

import functools
import json
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from bert_jax import config as cfg
from bert_jax.convert import card as card_lib, directory as directory_lib, tokenizer_files
from bert_jax.convert.card import ModelCard
from bert_jax.model import bert as model_lib
from bert_jax.parallel import mesh
from input_pipeline.vocabulary.tokenizer import Tokenizer

KIND = 'huggingface'
CONFIG, WEIGHTS, INDEX, README = 'config.json', 'model.safetensors', 'model.safetensors.index.json', 'README.md'

MODULES = {
    'word_embeddings': 'bert.embeddings.word_embeddings',
    'position_embeddings': 'bert.embeddings.position_embeddings',
    'token_type_embeddings': 'bert.embeddings.token_type_embeddings',
    'embeddings_norm': 'bert.embeddings.LayerNorm',
    'blocks/query': 'bert.encoder.layer.{}.attention.self.query',
    'blocks/key': 'bert.encoder.layer.{}.attention.self.key',
    'blocks/value': 'bert.encoder.layer.{}.attention.self.value',
    'blocks/attention_output': 'bert.encoder.layer.{}.attention.output.dense',
    'blocks/attention_norm': 'bert.encoder.layer.{}.attention.output.LayerNorm',
    'blocks/intermediate': 'bert.encoder.layer.{}.intermediate.dense',
    'blocks/output': 'bert.encoder.layer.{}.output.dense',
    'blocks/output_norm': 'bert.encoder.layer.{}.output.LayerNorm',
    'pooler': 'bert.pooler.dense',
    'transform': 'cls.predictions.transform.dense',
    'transform_norm': 'cls.predictions.transform.LayerNorm',
    'next_sentence': 'cls.seq_relationship',
}
LEAVES = {'kernel': 'weight', 'scale': 'weight', 'embedding': 'weight', 'bias': 'bias'}
MLM_BIAS, DECODER_BIAS = 'cls.predictions.bias', 'cls.predictions.decoder.bias'
TABLE, DECODER = 'bert.embeddings.word_embeddings.weight', 'cls.predictions.decoder.weight'  # one tensor, the decoder is not stored
HEADS = ('cls.', 'bert.pooler.')  # what a checkpoint may lack

FIELDS = {  # config.Model: BertConfig
    'vocab_size': 'vocab_size', 'hidden_size': 'hidden_size', 'layers': 'num_hidden_layers', 'heads': 'num_attention_heads',
    'intermediate_size': 'intermediate_size', 'max_positions': 'max_position_embeddings', 'type_vocab_size': 'type_vocab_size',
    'hidden_dropout': 'hidden_dropout_prob', 'attention_dropout': 'attention_probs_dropout_prob',
    'initializer_range': 'initializer_range', 'layer_norm_epsilon': 'layer_norm_eps', 'causal': 'is_decoder'}
# Theirs is the right one of what we call gelu_tanh; the first name of each of ours is what an export says.
ACTIVATIONS = {'gelu_pytorch_tanh': 'gelu_tanh', 'gelu_new': 'gelu_tanh', 'gelu_python_tanh': 'gelu_tanh',
               'gelu': 'gelu', 'gelu_python': 'gelu'}
FIXED = {'model_type': 'bert', 'position_embedding_type': 'absolute', 'add_cross_attention': False,
         'tie_word_embeddings': True}  # what our encoder is, and any import must be


def export_checkpoint(directory: epath.PathLike, model: cfg.Model, params, vocabulary: epath.PathLike | Tokenizer, card: ModelCard,
                      overwrite: bool = False) -> epath.Path:
  """Writes a directory for transformers' BertForPreTraining and AutoTokenizer, whole or not at all. Returns its path.

  `params` is the tree of model.build; `vocabulary` a tokenizer, or a directory or file of one. Raises ConfigError where `directory`
  exists (see directory.write) or the vocabulary is not the model's, DataError where the vocabulary cannot be used.
  """
  directory_lib.check(directory, KIND, overwrite)
  if not isinstance(vocabulary, Tokenizer):
    vocabulary = tokenizer_files.load(vocabulary)
  cfg.require(len(vocabulary.tokens) == model.vocab_size,
              f'the vocabulary has {len(vocabulary.tokens)} tokens and model.vocab_size is {model.vocab_size}: name the vocabulary '
              'that the model was trained with')
  tensors = to_tensors(params)
  encode = lambda value: (json.dumps(value, indent=2, sort_keys=True) + '\n').encode()
  path = epath.Path(directory)
  title = path.parent.name if path.name == 'export' else path.name  # runs/sample/export is the export of `sample`
  text = card_lib.readme(card, model, title or 'BERT', vocabulary.kind, vocabulary.lower_case,
                         sum(x.size for x in tensors.values()))
  return directory_lib.write(directory, KIND, {
      CONFIG: encode(to_config(model, vocabulary.pad_id)),
      WEIGHTS: safetensors.numpy.save(tensors, {'format': 'pt'}),
      README: text.encode(),
      **tokenizer_files.files(vocabulary, model.max_positions)}, overwrite)


def to_config(model: cfg.Model, pad_id: int) -> dict:
  """The fields of transformers' BertConfig."""
  activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == model.activation)
  return FIXED | {theirs: getattr(model, ours) for ours, theirs in FIELDS.items()} | {
      'architectures': ['BertForPreTraining'], 'hidden_act': activation, 'pad_token_id': pad_id, 'torch_dtype': 'float32'}


def to_tensors(params) -> dict[str, np.ndarray]:
  """{their name: float32 array} of a tree of parameters."""
  tensors = {}
  for path, leaf in jax.tree.leaves_with_path(params):
    name = mesh.path_name(path)
    values = np.asarray(leaf, np.float32)
    if name.endswith('kernel'):
      values = values.swapaxes(-1, -2)
    for layer, value in enumerate(values if name.startswith('blocks/') else [values]):
      tensors[their_name(name, layer)] = np.ascontiguousarray(value)
  return tensors


def their_name(name: str, layer: int = 0) -> str:
  """'bert.encoder.layer.3.output.dense.weight' for 'blocks/output/kernel' and layer 3."""
  if name == 'mlm_bias':
    return MLM_BIAS
  module, _, leaf = name.rpartition('/')
  return f'{MODULES[module].format(layer)}.{LEAVES[leaf]}'

# ---------------------------------------------------------------- the way back


def is_export(path: epath.PathLike) -> bool:
  """Whether `path` is a Hugging Face directory, ours or another's: a config.json that names a model type."""
  try:
    return 'model_type' in json.loads((epath.Path(path) / CONFIG).read_text())
  except (OSError, ValueError, TypeError):
    return False


def import_checkpoint(directory: epath.PathLike, new_heads: bool = False, seed: int = 0):  # -> (config.Model, params)
  """The model and parameters of a Hugging Face BERT: BertForPreTraining, BertForMaskedLM, BertModel, or with a task's head.

  Heads that it lacks are an error, or initialised from `seed` where `new_heads`; heads of other tasks are left out. Parameters are
  float32 and come as the tree of model.build. Raises DataError.
  """
  directory = epath.Path(directory)
  model = from_config(_read_json(directory / CONFIG), directory)
  tensors = {canonical_name(name): value for name, value in read_tensors(directory).items()}
  check_tied(tensors, directory)
  build = functools.partial(model_lib.build, model, jax.random.key(seed))
  template = jax.eval_shape(build)[1]
  wanted = {their_name(mesh.path_name(path), layer) for path, _ in jax.tree.leaves_with_path(template) for layer in range(model.layers)}
  missing = sorted(wanted - set(tensors))
  if any(not name.startswith(HEADS) for name in missing):
    raise cfg.DataError(f'{directory} lacks {_some(name for name in missing if not name.startswith(HEADS))}: wanted the weights of a BERT '
                        f'of {model.layers} layers, as its {CONFIG} says')
  if missing and not new_heads:
    raise cfg.DataError(f'{directory} has no weights for {_some(missing)}: pass --new-heads to start those afresh, or name a checkpoint of '
                        'BertForPreTraining')
  strange = sorted(name for name in set(tensors) - wanted if name.startswith(('bert.embeddings.', 'bert.encoder.')))
  if strange:
    raise cfg.DataError(f'{directory} holds {_some(strange)}, and its {CONFIG} is of a BERT of {model.layers} layers without them')
  lacking = lambda tree: {name: leaf for path, leaf in jax.tree.leaves_with_path(tree)
                          if their_name(name := mesh.path_name(path)) in missing}
  heads = jax.jit(lambda: lacking(build()[1]))() if missing else {}
  return model, jax.tree.map_with_path(functools.partial(_leaf, directory, model, tensors, heads), template)


def _leaf(directory: epath.Path, model: cfg.Model, tensors: Mapping[str, np.ndarray], heads: Mapping[str, jax.Array], path, leaf):
  """One of our arrays, of the shape of `leaf`, from their tensors or the fresh heads."""
  name = mesh.path_name(path)
  stacked = name.startswith('blocks/')
  names = [their_name(name, layer) for layer in range(model.layers if stacked else 1)]
  if name in heads:
    return heads[name]
  shape = leaf.shape[stacked:]
  shape = shape[::-1] if name.endswith('kernel') else shape
  values = []
  for theirs in names:
    value = tensors[theirs]
    if value.shape != shape:
      raise cfg.DataError(f'{directory}: {theirs} has the shape {value.shape}, its {CONFIG} makes it {shape}')
    if not jnp.issubdtype(value.dtype, jnp.floating):
      raise cfg.DataError(f'{directory}: {theirs} is {value.dtype}; wanted float32, float16 or bfloat16: quantized weights cannot be read')
    values.append((value.T if name.endswith('kernel') else value).astype(np.float32))
  return jnp.asarray(np.stack(values) if stacked else values[0])


def from_config(fields: Mapping, directory: epath.PathLike) -> cfg.Model:
  """The model of a BertConfig. Raises DataError where ours cannot be it."""
  for name, wanted in FIXED.items():
    if (found := fields.get(name, wanted)) != wanted:
      raise cfg.DataError(f'{directory}/{CONFIG} has {name} {found!r}: wanted {wanted!r}, as BERT has')
  activation = fields.get('hidden_act', 'gelu')
  if activation not in ACTIVATIONS:
    raise cfg.DataError(f'{directory}/{CONFIG} has hidden_act {activation!r}: wanted one of {", ".join(ACTIVATIONS)}')
  # A field that is absent has BertConfig's default, which is BERT-base uncased, as ours is.
  try:
    return cfg.Model(activation=ACTIVATIONS[activation], **{ours: fields[theirs] for ours, theirs in FIELDS.items() if theirs in fields})
  except (cfg.ConfigError, TypeError) as error:
    raise cfg.DataError(f'{directory}/{CONFIG} is no model: {error}') from error


def canonical_name(name: str) -> str:
  """A tensor's name as BertForPreTraining has it today: with the prefix 'bert.', and LayerNorm's weight and bias."""
  if name.startswith(('embeddings.', 'encoder.', 'pooler.')):
    name = f'bert.{name}'
  if name == 'bert.embeddings.position_ids':  # a buffer of old versions: 0, 1, 2 …
    return 'position_ids'
  return name.replace('LayerNorm.gamma', 'LayerNorm.weight').replace('LayerNorm.beta', 'LayerNorm.bias')


def check_tied(tensors: dict[str, np.ndarray], directory: epath.PathLike) -> None:
  """Drops the copies that some checkpoints store of tied tensors. Raises DataError where they are not copies."""
  if MLM_BIAS not in tensors and DECODER_BIAS in tensors:
    tensors[MLM_BIAS] = tensors[DECODER_BIAS]
  for copy, original in ((DECODER, TABLE), (DECODER_BIAS, MLM_BIAS)):
    if copy in tensors and original in tensors and not np.array_equal(tensors[copy], tensors[original]):
      raise cfg.DataError(f'{directory}: {copy} differs from {original}; wanted a model whose decoder is its word embeddings')
    tensors.pop(copy, None)


def read_tensors(directory: epath.Path) -> dict[str, np.ndarray]:
  """The tensors of model.safetensors, or of the shards that an index names. Raises DataError; never opens a pickle."""
  if (directory / WEIGHTS).exists():
    names = [WEIGHTS]
  elif (directory / INDEX).exists():
    names = sorted(set(_read_json(directory / INDEX).get('weight_map', {}).values()))
  else:
    pickled = ', '.join(sorted(path.name for path in directory.glob('*.bin')))
    raise cfg.DataError(f'{directory} has no {WEIGHTS}' + (f', only {pickled}: that is a pickle, which can run code as it is read; have '
                        'transformers write it anew with save_pretrained(…, safe_serialization=True)' if pickled else ''))
  types = {'F32': np.float32, 'F16': np.float16, 'BF16': jnp.bfloat16, 'F64': np.float64}
  tensors = {}
  for name in names:
    try:
      entries = safetensors.deserialize((directory / name).read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
      raise cfg.DataError(f'{directory / name} cannot be read ({error}): fetch or export it again') from error
    for key, entry in entries:  # other types are buffers: kept as bytes, refused where a weight is wanted
      tensors[key] = (np.frombuffer(entry['data'], types[entry['dtype']]).reshape(entry['shape']) if entry['dtype'] in types
                      else np.frombuffer(entry['data'], np.uint8))
  return tensors


def _read_json(path: epath.Path) -> dict:
  try:
    return dict(json.loads(path.read_text()))
  except (OSError, ValueError, TypeError) as error:
    raise cfg.DataError(f'{path} cannot be read ({type(error).__name__}: {error}): wanted a Hugging Face directory of a BERT') from error


def _some(names) -> str:
  names = list(names)
  return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')

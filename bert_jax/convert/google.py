"""Checkpoints of google-research/bert: the variables of TensorFlow 1 beside bert_config.json and vocab.txt, in and out.

Hugging Face's names were made from these, so they come from those by rule. Kernels are [in out] here; matrices that are
called output_weights are [out in]. Optimizer slots are skipped.
"""

import dataclasses
import functools
import re
import tempfile
from collections.abc import Mapping

import numpy as np

from bert_jax.checkpoint import Loaded
from bert_jax.convert import (
    assemble,
    bert_config,
    directory as directory_lib,
    foreign,
    huggingface,
    names,
    tokenizer_files,
)
from bert_jax.convert.card import ModelCard
from bert_jax.convert.names import Entry
from bert_jax.errors import require
from bert_jax.model.build import Heads
from bert_jax.model.heads import Classes, Ends, Pooler
from bert_jax.model.settings import Model
from bert_jax.objectives import PRETRAINING_HEADS
from input_pipeline import records, storage
from input_pipeline.errors import DataError

KIND = 'tf1'
CONFIG, WEIGHTS = 'bert_config.json', 'bert_model.ckpt'
INDEX = '.index'  # what a checkpoint of TensorFlow has beside its .data-00000-of-00001
# The classes of transformers whose heads are made by run_pretraining.py, run_classifier.py and run_squad.py.
CLASSES = ('BertModel', 'BertForPreTraining', 'BertForMaskedLM', 'BertForNextSentencePrediction',
           'BertForSequenceClassification', 'BertForQuestionAnswering')
SLOTS = 'adam_m', 'adam_v', 'global_step'  # of the optimizer
ACTIVATIONS = {'gelu': 'gelu_tanh'}  # modeling.py gelu, since 2019; exact in the code of 2018
DEFAULTS = {'type_vocab_size': 16}  # modeling.py BertConfig
FIXED = {'layer_norm_eps': 1e-12, 'is_decoder': False, 'model_type': 'bert'}  # of the code, in no file

RULES = (  # from transformers' names to Google's, with dots for slashes
    (r'\.layer\.(\d+)\.', r'.layer_\1.'), (r'LayerNorm\.weight$', 'LayerNorm.gamma'),
    (r'LayerNorm\.bias$', 'LayerNorm.beta'), (r'_embeddings\.weight$', '_embeddings'),
    (r'^(cls\.predictions)\.bias$', r'\1.output_bias'), (r'^(cls\.seq_relationship)\.weight$', r'\1.output_weights'),
    (r'^(cls\.seq_relationship)\.bias$', r'\1.output_bias'), (r'^classifier\.weight$', 'output_weights'),
    (r'^classifier\.bias$', 'output_bias'), (r'^qa_outputs\.weight$', 'cls.squad.output_weights'),
    (r'^qa_outputs\.bias$', 'cls.squad.output_bias'), (r'\.weight$', '.kernel'))


def variable(name: str) -> str:
  """Google's name of what transformers calls `name`."""
  for pattern, theirs in RULES:
    name = re.sub(pattern, theirs, name)
  return name.replace('.', '/')


def entries(model: Model, heads: Heads, named: bool = True) -> list[Entry]:
  """Every parameter of a model with these heads, in Google's names, as names.entries has them."""
  found = []
  for entry in names.entries(model, heads, huggingface.FORMAT, named):
    theirs = tuple(map(variable, entry.theirs))
    found.append(dataclasses.replace(entry, theirs=theirs,
                                     transposed=entry.transposed and theirs[0].endswith('output_weights')))
  return found

# ---------------------------------------------------------------- in


def prefix_of(path: storage.Path) -> storage.Path | None:
  """The checkpoint that `path` begins, or that is the only one in the directory; None where there is none."""
  if (path.parent / f'{path.name}{INDEX}').exists():
    return path
  found = list(path.glob(f'*{INDEX}')) if (path / CONFIG).exists() else []
  return path / found[0].name.removesuffix(INDEX) if len(found) == 1 else None


def read(path: storage.PathLike, heads: Heads | None = None) -> Loaded:
  """The checkpoint of a prefix such as DIR/bert_model.ckpt, or of the directory of one.

  `heads` as assemble.loaded has them. Raises DataError.
  """
  prefix = prefix_of(storage.path(path))
  if prefix is None:
    raise DataError(f'{path} is no checkpoint of TensorFlow: wanted the prefix of one, as DIR/{WEIGHTS}')
  directory = prefix.parent
  foreign.check_files(directory)
  directory_lib.verify(directory, directory_lib.read_marker(directory).get('files', ()))
  config = dataclasses.replace(bert_config.read(directory / CONFIG, DEFAULTS), **FIXED)
  model = bert_config.to_model(config, directory / CONFIG, {'bert': 'bert'}, ACTIVATIONS)
  with storage.on_disk(directory, f'{prefix.name}.*') as folder:
    reader = open_reader(folder / prefix.name)
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()
              if not name.split('/')[-1].startswith(SLOTS)}
    task, labels = task_of(config, shapes, directory)
    found = assemble.Foreign(prefix, CONFIG, model, {name: np.zeros(0) for name in shapes},
                             lambda heads: entries(model, heads, named=False), '/',
                             lambda: tokenizer_files.load(directory), task, labels)
    assemble.check_size(found)
    known = found.entries({**PRETRAINING_HEADS, **task, **(heads or {})})
    wanted = {name: entry.their_shape for entry in known for name in entry.theirs}
    stand_in = functools.partial(np.broadcast_to, np.float32(0))  # where only the shape is looked at
    tensors = {name: values_of(reader, name, prefix) if wanted.get(name) == shape else stand_in(shape)
               for name, shape in shapes.items()}
  made = assemble.loaded(dataclasses.replace(found, tensors=tensors), heads)
  return huggingface.with_told(made, huggingface.told_of(directory), heads)


def task_of(config: bert_config.BertConfig, shapes: Mapping[str, tuple[int, ...]],
            directory: storage.Path) -> tuple[Heads, tuple[str, ...]]:
  """The head that run_squad.py or run_classifier.py makes, what it reads, and its labels."""
  if 'cls/squad/output_weights' in shapes:
    return {'ends': Ends}, ()
  shape = shapes.get('output_weights', ())
  if len(shape) != 2:
    return {}, ()
  head = functools.partial(Classes, count=shape[0])
  return {'pooler': Pooler, 'classifier': head}, bert_config.labels_of(config, shape[0], directory / CONFIG)


def open_reader(prefix: storage.Path):
  """TensorFlow's reader of a local checkpoint. Raises DataError."""
  import tensorflow as tf
  try:
    return tf.train.load_checkpoint(str(prefix))
  except Exception as error:  # TensorFlow's reader raises many kinds
    raise DataError(f'{prefix} cannot be read ({str(error):.200}): fetch it again') from error


def values_of(reader, name: str, prefix: storage.Path) -> np.ndarray:
  """The values of one variable. Raises DataError."""
  try:
    return reader.get_tensor(name)
  except Exception as error:  # TensorFlow's reader raises many kinds
    raise DataError(f'{prefix}: {name} cannot be read ({str(error):.200}): fetch it again') from error

# ---------------------------------------------------------------- out


def export_checkpoint(directory: storage.PathLike, loaded: Loaded, overwrite: bool = False,
                      verify: directory_lib.Verify | None = None, card: ModelCard | None = None) -> storage.Path:
  """Writes a directory that run_pretraining.py, run_classifier.py and run_squad.py begin with. Returns its path.

  Raises ConfigError where `directory` exists (see directory.write), the vocabulary is not the model's, or Google's code
  cannot compute the model; DataError where the vocabulary is not WordPiece; and as `verify` does.
  """
  import tensorflow as tf
  directory_lib.check(directory, KIND, overwrite)
  model, vocabulary = loaded.model, loaded.tokenizer()
  huggingface.check_vocabulary(loaded)
  require(vocabulary.kind == 'wordpiece', f'the vocabulary is {vocabulary.kind}: Google\'s code reads WordPiece')
  kind = huggingface.architecture(loaded.objective)
  require(kind in CLASSES, f'Google\'s code has no head as {kind} has: wanted one of {", ".join(CLASSES)}')
  config = bert_config.fields_of(model) | {'model_type': model.architecture}
  for name, wanted in FIXED.items():
    require(config.pop(name) == wanted, f'the model has another {name} than {wanted}, which is fixed in Google\'s code')
  require(not model.right_to_left, 'Google\'s code does not read from right to left (model.right_to_left)')
  activation = next((theirs for theirs, ours in ACTIVATIONS.items() if ours == model.activation), None)
  require(activation is not None, f'model.activation is {model.activation}: Google\'s code computes '
          f'{", ".join(ACTIVATIONS.values())} only, so that its results would differ')
  tensors = names.to_tensors(loaded.params, entries(model, loaded.objective.heads))
  assemble.check_finite(tensors, 'the checkpoint')
  with tempfile.TemporaryDirectory() as folder:
    prefix = storage.path(folder) / WEIGHTS
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=list(tensors), shape_and_slices=[''] * len(tensors),
                      tensors=[tf.constant(value) for value in tensors.values()])
    files = {path.name: path.read_bytes() for path in prefix.parent.iterdir()}
  files |= {CONFIG: huggingface.encode(config | {'hidden_act': activation}), records.VOCABULARY: vocabulary.vocab_txt,
            tokenizer_files.SETTINGS: huggingface.encode({'do_lower_case': vocabulary.lower_case}),
            **huggingface.told_files(card)}
  return directory_lib.write(directory, KIND, files, overwrite, verify)

"""What a fine-tuning run takes from the checkpoint that it begins with: model, vocabulary, weights."""

import dataclasses

import jax

from bert_jax import config as cfg, run_directory
from bert_jax.errors import ConfigError, require
from bert_jax.objectives import PRETRAINING_HEADS
from bert_jax.parallel.mesh import path_name
from bert_jax.tasks.settings import Finetune
from bert_jax.tasks.table import TASKS
from input_pipeline import records, storage
from input_pipeline.vocabulary.tokenizer import Tokenizer

UNTRAINED = 'untrained:'  # before a checkpoint: its model and vocabulary, with initial weights
# What a fine-tuning run says of the encoder; all else is the checkpoint's.
OWN_FIELDS = ('hidden_dropout', 'attention_dropout', 'dtype', 'attention', 'remat', 'unroll', 'plain')


@dataclasses.dataclass(frozen=True)
class Source:
  """What a run takes from the checkpoint that it begins with, or from its own directory."""
  model: cfg.Model
  vocabulary: records.Vocabulary
  tokenizer: Tokenizer
  files: dict[str, bytes]  # of the vocabulary


def trained(path: storage.PathLike) -> tuple[storage.PathLike, bool]:
  """(the checkpoint that is named, whether only its model and vocabulary are wanted: untrained:C)."""
  return (path[len(UNTRAINED):], True) if isinstance(path, str) and path.startswith(UNTRAINED) else (path, False)


def source_of(checkpoint_path: storage.PathLike | None, run_dir: storage.PathLike) -> Source:
  """Of the run that is there, or of the checkpoint. Raises ConfigError."""
  from input_pipeline.vocabulary import tokenizer as tokenizer_lib
  if run_directory.run_of(run_dir):
    record = run_directory.read(run_dir)
    tokenizer = tokenizer_lib.of(run_dir, record.vocabulary)
    return Source(record.config.model, record.vocabulary, tokenizer, run_directory.vocabulary_files(run_dir))
  if checkpoint_path is None:
    raise ConfigError(f'{run_dir} is no run to go on with: name the checkpoint to begin with, --checkpoint C')
  from bert_jax.convert import exchange
  loaded = exchange.load(trained(checkpoint_path)[0])
  tokenizer = loaded.tokenizer()
  return Source(loaded.model, tokenizer.record, tokenizer, tokenizer.files)


def settings_for(config: Finetune, model: cfg.Model, examples: list) -> Finetune:
  """`config` with what checkpoint and training examples decide: the encoder's shape, the labels.

  Dropout, dtype and how it is computed stay as `config.model` says. Raises ConfigError, DataError.
  """
  own = config.model
  model = dataclasses.replace(model, **{name: getattr(own, name) for name in OWN_FIELDS})
  require(config.batch.max_length <= model.max_positions,
          f'batch.max_length {config.batch.max_length} is more than the {model.max_positions} positions of the '
          'checkpoint: lower --batch.max-length')
  config = dataclasses.replace(config, model=model, labels=TASKS[config.task].labels(examples))
  wanted = config.learns.causal
  require(model.causal == wanted,
          f'the task {config.task} wants model.causal {wanted}, the checkpoint has {model.causal}: '
          f'name one that reads {"from left to right" if wanted else "from both sides"}')
  return config


def without_other_classes(initial, config: Finetune):
  """`initial` without the task's own heads, where they were trained for another task or for other labels."""
  of = initial and initial.record and initial.record.config
  if not isinstance(of, Finetune) or (of.task, of.labels) == (config.task, config.labels):
    return initial
  own = set(config.learns.heads) - set(PRETRAINING_HEADS)
  belongs = lambda path: path_name(path).split('/')[0] in own
  params = jax.tree.map_with_path(lambda path, leaf: None if belongs(path) else leaf, initial.params)
  names = tuple(path_name(path) for path, _ in jax.tree.leaves_with_path(initial.params) if belongs(path))
  return dataclasses.replace(initial, params=params, fresh=tuple(dict.fromkeys((*initial.fresh, *names))))

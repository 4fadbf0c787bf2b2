"""Fine-tuning, wired as train.py wires pretraining: a task's examples, an encoder's weights, the same program and loop.

DATA holds train.jsonl and validation.jsonl. B examples of a batch.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import numpy as np

from bert_jax import (
    checkpoint,
    config as cfg,
    distributed,
    evaluate as held_out,
    loop,
    program as program_lib,
    run_directory,
    train,
)
from bert_jax.errors import ConfigError, require
from bert_jax.model.attention import choose_implementation
from bert_jax.objectives import PRETRAINING_HEADS
from bert_jax.parallel import mesh as mesh_lib
from bert_jax.parallel.mesh import path_name
from bert_jax.tasks.settings import Finetune
from bert_jax.tasks.table import TASKS
from input_pipeline import records, storage

TRAIN_FILE, VALIDATION_FILE = 'train.jsonl', 'validation.jsonl'
# What a fine-tuning run says of the encoder; all else is the checkpoint's.
OWN_FIELDS = ('hidden_dropout', 'attention_dropout', 'dtype', 'attention', 'remat', 'unroll', 'plain')


@dataclasses.dataclass(frozen=True)
class Examples:
  """The examples of a split, and the batch of a step: a function of (examples, seed, step)."""
  items: list
  encode: Callable[[list], dict[str, np.ndarray]]
  seed: int

  def order(self, epoch: int) -> np.ndarray:  # -> [examples]
    """The examples of an epoch, each once, in an order of its own."""
    return np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(len(self.items))

  def batch(self, step: int, size: int, index: int = 0, parts: int = 1) -> dict[str, np.ndarray]:
    """This process' rows of the batch of `step`: epochs follow each other without a gap."""
    local = size // parts
    first = step * size + index * local
    places = [divmod(place, len(self.items)) for place in range(first, first + local)]
    orders = {epoch: self.order(epoch) for epoch in {epoch for epoch, _ in places}}
    return self.encode([self.items[orders[epoch][place]] for epoch, place in places])

  def once(self, size: int, index: int = 0, parts: int = 1) -> Iterator[dict[str, np.ndarray]]:
    """Every example once, in order; the last batch is filled up with rows of weight 0."""
    local = size // parts
    for start in range(0, len(self.items), size):
      mine = self.items[start + index * local:start + (index + 1) * local]
      batch = self.encode(mine or self.items[:1])
      rows = len(mine)
      padding = lambda array, rows=rows: np.zeros((local - rows, *array.shape[1:]), array.dtype)
      yield {name: np.concatenate([array[:rows], padding(array)]) for name, array in batch.items()}


def settings_for(config: Finetune, model: cfg.Model, data_dir: storage.PathLike) -> Finetune:
  """`config` with what checkpoint and data decide: the encoder's shape, the labels, the steps that the epochs take.

  Dropout, dtype and how it is computed stay as `config.model` says. Raises ConfigError, DataError.
  """
  require(config.task in TASKS, f'there is no task {config.task!r}: wanted one of {", ".join(TASKS)}')
  task, own = TASKS[config.task], config.model
  examples = task.read(file_of(data_dir, TRAIN_FILE))
  steps = max(-(-config.epochs * len(examples) // config.batch.size), 1)
  model = dataclasses.replace(model, **{name: getattr(own, name) for name in OWN_FIELDS})
  require(config.batch.max_length <= model.max_positions,
          f'batch.max_length {config.batch.max_length} is more than the {model.max_positions} positions of the '
          'checkpoint: lower --batch.max-length')
  run = dataclasses.replace(config.run, steps=steps)
  config = dataclasses.replace(config, model=model, labels=task.labels(examples), run=run)
  wanted = config.learns.causal
  require(model.causal == wanted,
          f'the task {config.task} wants model.causal {wanted}, the checkpoint has {model.causal}: '
          f'name one that reads {"from left to right" if wanted else "from both sides"}')
  return config


def file_of(data_dir: storage.PathLike, name: str) -> storage.Path:
  path = storage.path(data_dir) / name
  require(path.exists(), f'{data_dir} has no {name}: wanted a directory with {TRAIN_FILE} and {VALIDATION_FILE}')
  return path


def open_examples(config: Finetune, data_dir: storage.PathLike, name: str, tokenizer) -> Examples:
  """The examples of DATA/`name`. Raises ConfigError, DataError."""
  task = TASKS[config.task]
  encode = lambda items: task.encode(items, tokenizer, config.batch.max_length, config.labels)
  return Examples(task.read(file_of(data_dir, name)), encode, config.batch.seed)


def finetune(config: Finetune, data_dir: storage.PathLike, run_dir: storage.PathLike,
             checkpoint_path: storage.PathLike | None = None, *, devices=None, progress: bool = True,
             stop: Callable[[int], bool] | None = None) -> tuple[train.Result, dict[str, float]]:
  """Fine-tunes a checkpoint on DATA/train.jsonl, or goes on where `run_dir` stopped.

  Returns how it ended, and the figures on DATA/validation.jsonl. `checkpoint_path` may be left out where `run_dir` is
  there already. Raises ConfigError, DataError, CheckpointError, NonFiniteError.
  """
  storage.probe(run_dir, '--run-dir', checkpoints=True)
  model, vocabulary, tokenizer, files = source_of(checkpoint_path, run_dir)
  config = settings_for(config, model, data_dir)
  program = program_lib.on(config, program_lib.mesh_of(config, devices))
  choose_implementation(config.model, program_lib.place_of(program.mesh), config.batch.max_length)
  examples, validation = (open_examples(config, data_dir, name, tokenizer) for name in (TRAIN_FILE, VALIDATION_FILE))
  decides = [hashlib.sha256(file_of(data_dir, TRAIN_FILE).read_bytes()).hexdigest(), vocabulary.sha256,
             dataclasses.asdict(config.batch)]
  fingerprint = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
  distributed.agree(cfg.flat(config) | {'the vocabulary': vocabulary.sha256, 'the examples': fingerprint})
  load = lambda path, step: without_other_classes(train.initial_from(path, step, program, vocabulary), config)
  initial = None if checkpoint_path is None or run_directory.run_of(run_dir) else load(checkpoint_path, None)
  record = run_directory.Record(config, str(data_dir), vocabulary, train.origin_of(checkpoint_path, initial))
  size, (index, parts) = config.batch.size, mesh_lib.process_slice(program.mesh)

  def batches(step: int) -> Generator[loop.HostBatch, None, None]:
    for at in range(step, config.run.steps):
      yield examples.batch(at, size, index, parts)

  def evaluate(state, step: int) -> dict[str, float]:
    return held_out.figures(program, state.params, validation.once(size, index, parts))

  tokens = dataclasses.replace(cfg.BatchConfig(), size=size, sequence_length=config.batch.max_length)
  what = [f'{config.run.steps:,} steps of {size} examples: {config.epochs} epochs of {len(examples.items):,}'
          + (f', classes {", ".join(config.labels)}' if config.labels else '')]
  training = train.Training(run_dir, record, files, program, fingerprint, batches, train.count_tokens, evaluate,
                            lambda step: program.flops_per_step(tokens), what, load)
  result = training.run(initial, progress, stop)
  figures = evaluate(result.state, result.step) | {'examples': len(validation.items), 'step': result.step}
  if result.reason != 'signal':
    distributed.in_turn(lambda: held_out.write(run_dir, figures))
  return result, figures


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


def source_of(checkpoint_path: storage.PathLike | None, run_dir: storage.PathLike):
  """(settings, records.Vocabulary, tokenizer, vocabulary files) of the run that is there, or of the checkpoint.

  Raises ConfigError.
  """
  from input_pipeline.vocabulary import tokenizer as tokenizer_lib
  if run_directory.run_of(run_dir):
    record = run_directory.read(run_dir)
    tokenizer = tokenizer_lib.load(run_dir, record.vocabulary.lower_case, record.vocabulary.rules)
    return record.config.model, record.vocabulary, tokenizer, run_directory.vocabulary_files(run_dir)
  if checkpoint_path is None:
    raise ConfigError(f'{run_dir} is no run to go on with: name the checkpoint to begin with, --checkpoint C')
  from bert_jax.convert import exchange
  loaded = exchange.load(checkpoint_path)
  tokenizer = loaded.tokenizer()
  files = {records.VOCABULARY: tokenizer.vocab_txt}
  if tokenizer.kind == 'sentencepiece':
    files[records.SENTENCEPIECE] = tokenizer.model
  return loaded.model, tokenizer.record, tokenizer, files


def evaluate(run_dir: storage.PathLike, data_dir: storage.PathLike | None = None, step: int | None = None,
             progress: bool = True) -> dict[str, float]:
  """The figures of a fine-tuned run's newest checkpoint, or of `step`, on DATA/validation.jsonl.

  Also written to RUN/evaluation.json. Raises ConfigError, DataError, CheckpointError.
  """
  storage.probe(run_directory.run_of(run_dir) or run_dir, 'the run')
  loaded: Any = checkpoint.load(run_dir, step)  # of a run: it has a record and a step
  config, data_dir = loaded.record.config, data_dir or loaded.record.data
  examples = open_examples(config, data_dir, VALIDATION_FILE, loaded.tokenizer())
  program = program_lib.on_one_device(config)
  size = config.batch.size
  found = held_out.figures(program, loaded.params, examples.once(size), count=-(-len(examples.items) // size),
                           progress=progress)
  found |= {'examples': len(examples.items), 'step': loaded.step}
  held_out.write(run_dir, found)
  return found

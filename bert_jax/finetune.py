"""Fine-tuning, wired as train.py wires pretraining: a task's examples, an encoder's weights, the same program and loop.

B rows of a batch.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
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
from bert_jax.tasks import splits
from bert_jax.tasks.batches import Batches
from bert_jax.tasks.settings import Finetune
from bert_jax.tasks.table import TASKS
from bert_jax.tasks.task import Answer, Encoding, Row, Task
from input_pipeline import records, storage
from input_pipeline.errors import DataError

# What a fine-tuning run says of the encoder; all else is the checkpoint's.
OWN_FIELDS = ('hidden_dropout', 'attention_dropout', 'dtype', 'attention', 'remat', 'unroll', 'plain')


@dataclasses.dataclass(frozen=True)
class Split:
  """The examples of a split as rows, with all that makes answers and figures of what a model says of them."""
  task: Task
  examples: Sequence[Any]
  rows: Sequence[Row]
  encoding: Encoding

  def batches(self, config: Finetune, index: int = 0, parts: int = 1) -> Batches:
    """Its rows as batches, of which this process has part `index` of `parts`."""
    return Batches(self.rows, config.batch.size, config.batch.max_length, config.batch.seed,
                   self.encoding.tokenizer.pad_id, index, parts)

  def answers(self, program: program_lib.Program, params, config: Finetune,
              progress: bool = False) -> tuple[list[Answer], dict[str, float]]:
    """An answer for each example, and the figures of the objective over all rows."""
    batches = self.batches(config, *mesh_lib.process_slice(program.mesh))
    outputs: list[Any] = [None] * len(self.rows)
    members: list[np.ndarray] = []

    def local() -> Iterator[dict[str, np.ndarray]]:
      for numbers, batch in batches.once():
        members.append(numbers)
        yield batch

    def keep(kept) -> None:
      for place, number in enumerate(members.pop(0)):
        outputs[number] = jax.tree.map(lambda x, place=place: x[place], kept)

    count = -(-len(self.rows) // config.batch.size)
    figures = held_out.figures(program, params, local(), count=count, keep=keep, progress=progress)
    return self.task.answers(self.examples, self.rows, outputs, self.encoding), figures

  def figures(self, program: program_lib.Program, params, config: Finetune, progress: bool = False) -> dict[str, float]:
    """The official figures beside those of the objective."""
    answers, figures = self.answers(program, params, config, progress)
    return figures | self.task.metrics(self.examples, answers)


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


def read(config: Finetune, data_dir: storage.PathLike, split: str) -> list[Any]:
  """The examples of a split of DATA. Raises ConfigError, DataError."""
  files = config.files
  own = {'train': (files.train, files.train_examples), 'validation': (files.validation, files.validation_examples)}
  return splits.read(TASKS[config.task], data_dir, split, config.own, *own.get(split, ()))


def split_of(config: Finetune, examples: list[Any], tokenizer, training: bool = False) -> Split:
  """These examples as rows. Raises DataError."""
  task = TASKS[config.task]
  encoding = Encoding(tokenizer, config.batch.max_length, config.labels, config.own, training)
  rows = task.rows(examples, encoding)
  if not rows:
    raise DataError(f'none of the {len(examples)} examples gives a row to read: wanted one at least')
  return Split(task, examples, rows, encoding)


def finetune(config: Finetune, data_dir: storage.PathLike, run_dir: storage.PathLike,
             checkpoint_path: storage.PathLike | None = None, *, devices=None, progress: bool = True,
             stop: Callable[[int], bool] | None = None) -> tuple[train.Result, dict[str, float]]:
  """Fine-tunes a checkpoint on the training split of DATA, or goes on where `run_dir` stopped.

  Returns how it ended, and the figures on the validation split. `checkpoint_path` may be left out where `run_dir` is
  there already. Raises ConfigError, DataError, CheckpointError, NonFiniteError.
  """
  storage.probe(run_dir, '--run-dir', checkpoints=True)
  model, vocabulary, tokenizer, files = source_of(checkpoint_path, run_dir)
  examples = read(config, data_dir, 'train')
  config = settings_for(config, model, examples)
  training = split_of(config, examples, tokenizer, training=True)
  validation = split_of(config, read(config, data_dir, 'validation'), tokenizer)
  steps = max(-(-config.epochs * len(training.rows) // config.batch.size), 1)
  config = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=steps))
  program = program_lib.on(config, program_lib.mesh_of(config, devices))
  choose_implementation(config.model, program_lib.place_of(program.mesh), config.batch.max_length)
  fingerprint = fingerprint_of(training.rows, config, vocabulary)
  distributed.agree(cfg.flat(config) | {'the vocabulary': vocabulary.sha256, 'the examples': fingerprint})
  load = lambda path, step: without_other_classes(train.initial_from(path, step, program, vocabulary), config)
  initial = None if checkpoint_path is None or run_directory.run_of(run_dir) else load(checkpoint_path, None)
  record = run_directory.Record(config, str(data_dir), vocabulary, train.origin_of(checkpoint_path, initial))
  train_batches = training.batches(config, *mesh_lib.process_slice(program.mesh))

  def batches(step: int) -> Generator[loop.HostBatch, None, None]:
    for at in range(step, config.run.steps):
      yield train_batches.batch(at)

  def evaluate(state, step: int) -> dict[str, float]:
    return validation.figures(program, state.params, config)

  tokens = dataclasses.replace(cfg.BatchConfig(), size=config.batch.size, sequence_length=config.batch.max_length)
  what = [f'{config.run.steps:,} steps of {config.batch.size} rows: {config.epochs} epochs of {len(training.rows):,}'
          + (f', classes {", ".join(config.labels)}' if config.labels else '')]
  work = train.Training(run_dir, record, files, program, fingerprint, batches, train.count_tokens, evaluate,
                        lambda step: program.flops_per_step(tokens), what, load)
  result = work.run(initial, progress, stop)
  figures = evaluate(result.state, result.step) | {'examples': len(validation.examples), 'step': result.step}
  if result.reason != 'signal':
    distributed.in_turn(lambda: held_out.write(run_dir, figures))
  return result, figures


def fingerprint_of(rows: Sequence[Row], config: Finetune, vocabulary: records.Vocabulary) -> str:
  """SHA-256 of all that decides the batches."""
  found = hashlib.sha256(json.dumps([vocabulary.sha256, dataclasses.asdict(config.batch)]).encode())
  for row in rows:
    found.update(row.input_ids.tobytes())
    for value in row.token_targets.values():
      found.update(value.tobytes())
    for value in row.targets.values():
      found.update(np.asarray(value).tobytes())
  return found.hexdigest()


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
    tokenizer = tokenizer_lib.load(run_dir, record.vocabulary.lower_case)
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
  """The figures of a fine-tuned run's newest checkpoint, or of `step`, on the validation split of its data or of DATA.

  Also written to RUN/evaluation.json. Raises ConfigError, DataError, CheckpointError.
  """
  storage.probe(run_directory.run_of(run_dir) or run_dir, 'the run')
  loaded: Any = checkpoint.load(run_dir, step)  # of a run: it has a record and a step
  config, data_dir = loaded.record.config, data_dir or loaded.record.data
  validation = split_of(config, read(config, data_dir, 'validation'), loaded.tokenizer())
  program = program_lib.on_one_device(config)
  found = validation.figures(program, loaded.params, config, progress)
  found |= {'examples': len(validation.examples), 'step': loaded.step}
  held_out.write(run_dir, found)
  return found

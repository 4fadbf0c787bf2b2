"""Fine-tuning, wired as train.py wires pretraining: a task's examples, an encoder's weights, the same program and loop.

B rows of a batch.
"""

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Generator
from typing import Any

import jax
import numpy as np

from bert_jax import (
    beginning,
    checkpoint,
    choices,
    config as cfg,
    distributed,
    evaluate as held_out,
    examples as examples_lib,
    loop,
    program as program_lib,
    rewind,
    run_directory,
    selftest,
    trackers,
    train,
    training,
)
from bert_jax.convert import card
from bert_jax.errors import ConfigError, require
from bert_jax.examples import Answered, Split
from bert_jax.model.attention import choose_implementation
from bert_jax.parallel import mesh as mesh_lib
from bert_jax.tasks.settings import Finetune
from input_pipeline import storage
from input_pipeline.errors import DataError


@dataclasses.dataclass(frozen=True)
class Tuned(training.Result):
  """How a run ended, and what its best checkpoint says of the validation split."""
  run_dir: storage.PathLike
  split: Split
  answered: Answered | None  # None: it was asked to stop
  examples_per_second: float | None  # of training, without compiling and evaluating; None: too few steps were made


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """A task's rows and the program, which the runs of several seeds, learning rates, epochs and sizes share."""
  config: Finetune
  data: storage.PathLike
  source: beginning.Source
  fingerprint: str  # of the examples
  training: Split
  held_out: dict[str, Split]
  program: program_lib.Program
  checkpoint: storage.PathLike | None
  chosen: tuple[str, ...] = ()  # lines on what was left to choose

  @functools.cached_property
  def initial(self):
    """The checkpoint's parameters."""
    if self.checkpoint is None:
      raise ConfigError('no checkpoint was named to begin with: wanted --checkpoint C')
    return self.load(self.checkpoint)

  @functools.cached_property
  def lengths(self) -> tuple[int, ...]:
    """What rows are padded to, in training."""
    return self.training.batches(self.config).lengths

  def load(self, path: storage.PathLike, step: int | None = None, _: str | None = None):
    """The parameters that a checkpoint has for the program, an exchange.Initial."""
    where, untrained = run_directory.trained(path)
    found = training.initial_from(where, step, self.program, self.source.vocabulary)
    if not untrained:
      return beginning.without_other_classes(found, self.config)
    none = jax.tree.map(lambda leaf: None, found.params)
    return dataclasses.replace(found, params=none, fresh=('all of them',))

  def origin(self, initial) -> run_directory.Origin | None:
    """Where the weights are from."""
    if self.checkpoint is None:
      return None
    where, untrained = run_directory.trained(self.checkpoint)
    origin = training.origin_of(where, initial)
    if origin is None or not untrained:
      return origin
    return dataclasses.replace(origin, checkpoint=run_directory.UNTRAINED + origin.checkpoint)


def prepare(config: Finetune, data_dir: storage.PathLike, checkpoint_path: storage.PathLike | None,
            run_dir: storage.PathLike, devices=None) -> Job:
  """The rows of DATA for a checkpoint, or for the run that is in `run_dir`. Nothing is written, compiled or computed.

  Raises ConfigError, DataError, CheckpointError.
  """
  source = beginning.source_of(checkpoint_path, run_dir)
  examples = examples_lib.read(config, data_dir, 'train')
  settled = choices.settle(beginning.settings_for(config, source.model, examples), devices, run_dir)
  config = settled.config
  training = examples_lib.split_of(config, examples, source.tokenizer, training=True)
  validation = examples_lib.held_out_splits(config, data_dir, source.tokenizer)
  program = program_lib.on(config, program_lib.mesh_of(config, devices))
  fingerprint = examples_lib.fingerprint(
      {'train': examples} | {name: split.examples for name, split in validation.items()})
  job = Job(config, data_dir, source, fingerprint, training, validation, program, checkpoint_path,
            settled.lines)
  for length in job.lengths:
    choose_implementation(config.model, program_lib.place_of(program.mesh), length)
  config, proof = selftest.proven(config, program.mesh, job.lengths)
  if config is not job.config:
    job = dataclasses.replace(job, config=config, program=program_lib.on(config, program.mesh))
  return dataclasses.replace(job, chosen=(*job.chosen, *proof))


def finetune(config: Finetune, data_dir: storage.PathLike, run_dir: storage.PathLike,
             checkpoint_path: storage.PathLike | None = None, *, devices=None, progress: bool = True,
             stop: Callable[[int], bool] | None = None,
             log_to: str | None = None) -> tuple[Tuned, dict[str, float]]:
  """Fine-tunes a checkpoint on the training split of DATA, or goes on where `run_dir` stopped.

  Returns how it ended, and the figures of the best checkpoint on the validation split. `checkpoint_path` may be left
  out where `run_dir` is there already. `log_to`: a key of trackers.TRACKERS, who is told of each line of the log too.
  Raises ConfigError, DataError, CheckpointError, NonFiniteError.
  """
  trackers.require(log_to)
  storage.probe(run_dir, '--run-dir', checkpoints=True)
  job = prepare(config, data_dir, checkpoint_path, run_dir, devices)
  return run(job, job.config, run_dir, progress=progress, stop=stop, log_to=log_to)


def run(job: Job, config: Finetune, run_dir: storage.PathLike, *, progress: bool = True,
        stop: Callable[[int], bool] | None = None, log_to: str | None = None) -> tuple[Tuned, dict[str, float]]:
  """One run of a job, in its own directory. `config`: the job's with other learning rate, epochs, size or seeds."""
  batches = job.training.batches(config, job.lengths, *mesh_lib.process_slice(job.program.mesh))
  config = config.of_length(batches.steps)
  program = job.program.at_pace(config.optimizer, config.run.steps, config.run.seed)
  decides = job.training.fingerprint, job.source.vocabulary.sha256, dataclasses.asdict(config.batch)
  fingerprint = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
  distributed.agree(cfg.flat(config) | {'the vocabulary': job.source.vocabulary.sha256, 'the examples': fingerprint})
  goes_on = run_directory.run_of(run_dir)
  require(bool(goes_on or job.checkpoint), f'{run_dir} is no run to go on with: name the checkpoint to begin with, '
          '--checkpoint C')
  initial = None if goes_on else job.initial
  for line in job.chosen if progress else ():
    training.print_once(f'bert-jax: {line}')
  data = storage.absolute(job.data) if storage.path(job.data).exists() else job.data  # or tfds:NAME
  record = run_directory.Record(config, str(data), job.source.vocabulary, job.origin(initial), text_of(job),
                                job.fingerprint, begun=None if goes_on else run_directory.Begun(config.task).here())
  speed, best = Speed(), list[Any]()

  def steps(first: int, left_out: rewind.Ranges) -> Generator[loop.HostBatch, None, None]:
    for step in range(first, config.run.steps):
      number = rewind.number(step, 0, left_out)
      batch = batches.batch(number)
      speed.mark(len(batches.members(number)), batch['input_ids'].shape)
      yield batch

  def evaluate(state, step: int, stopped: Callable[[], bool]) -> dict[str, float]:
    speed.pause()
    answered, figures = examples_lib.answer_all(job.held_out, program, state.params, config, job.lengths,
                                                stopped=stopped)
    if not best or figures[config.best] > best[1][config.best]:
      best[:] = answered, figures, step
    return figures

  tokens = int(np.mean([batches.length(batches.members(step)) for step in range(batches.steps)]))
  flops = program.flops_per_step(dataclasses.replace(cfg.BatchConfig(), size=config.batch.size, sequence_length=tokens))
  what = [f'{config.run.steps:,} steps of {config.batch.size} rows of {", ".join(map(str, batches.lengths))}: '
          f'{config.epochs} epochs of {len(job.training.rows):,} rows'
          + (f', classes {", ".join(config.labels)}' if config.labels else '')]
  run_of = training.Training(run_dir, record, job.source.files, program, fingerprint, steps, train.count_tokens,
                             evaluate, lambda step: flops, what, job.load, config.best, log_to=log_to)
  result = run_of.run(initial, progress, stop)
  answered, figures = None, {}
  if result.reason != 'signal':
    known = best and result.best and best[2] == result.best[0]
    answered, figures, step = best if known else of_best(job, config, run_dir)
    figures = figures | {'examples': len(job.held_out['validation'].examples), 'step': step}
    copied = examples_lib.copies(job.held_out['validation'], job.training)
    distributed.in_turn(lambda: held_out.write(run_dir, figures, copied))
  own = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
  return Tuned(**own, run_dir=run_dir, split=job.held_out['validation'], answered=answered,
               examples_per_second=speed.rate()), figures


def text_of(job: Job) -> str:
  """One sentence on what a run learns from."""
  name = storage.path(job.data).name or str(job.data)
  return f'Task: {job.config.task}, on {len(job.training.examples):,} examples of {card.code(name)}.'


def of_best(job: Job, config: Finetune, run_dir: storage.PathLike) -> tuple[Answered, dict[str, float], int]:
  """What the best checkpoint of a run that is done says of the validation split, its figures, and its step."""
  loaded: Any = checkpoint.load(run_dir)
  shardings = jax.tree.map(lambda x: x.sharding, job.program.abstract.params)
  params = jax.tree.map(lambda x, sharding: jax.device_put(np.asarray(x), sharding), loaded.params, shardings)
  answered, figures = examples_lib.answer_all(job.held_out, job.program, params, config, job.lengths)
  return answered, figures, loaded.step


class Speed:
  """Examples a second of training: seconds between one batch's being asked for and the next one's, where no evaluation
  and no length that must be compiled came between. Meanwhile the loop takes the step before the first of the two."""

  def __init__(self):
    self.shapes: set[tuple] = set()
    self.asked: list[tuple[int, bool]] = []  # of the last two batches: rows, whether the length is compiled
    self.rows, self.seconds, self.since = 0, 0.0, 0.0

  def mark(self, rows: int, shape: tuple) -> None:
    """A batch is asked for."""
    now = time.perf_counter()
    if len(self.asked) == 2 and self.asked[0][1] and self.since:
      self.rows, self.seconds = self.rows + self.asked[0][0], self.seconds + now - self.since
    self.asked, self.since = [*self.asked[-1:], (rows, shape in self.shapes)], now
    self.shapes.add(shape)

  def pause(self) -> None:
    self.since = 0.0

  def rate(self) -> float | None:
    return self.rows / self.seconds if self.seconds else None


def evaluate(run_dir: storage.PathLike, data_dir: storage.PathLike | None = None, step: int | None = None,
             progress: bool = True) -> dict[str, float]:
  """The official figures of a fine-tuned run's best checkpoint, or of `step`, on the validation split of its data or of
  DATA, or on all of one file.

  Also written to RUN/evaluation.json. Raises ConfigError, DataError, CheckpointError.
  """
  storage.probe(run_directory.run_of(run_dir) or run_dir, 'the run')
  loaded: Any = checkpoint.load(run_dir, step)  # of a run: it has a record and a step
  config, own, tokenizer = loaded.record.config, str(loaded.record.data), loaded.tokenizer()
  if data_dir is not None and str(data_dir) != own and examples_lib.is_file(data_dir):
    found = examples_lib.of_file(config, data_dir, tokenizer)
  else:
    found = examples_lib.held_out_splits(config, data_dir or own, tokenizer)
  program = program_lib.on_one_device(config)
  _, figures = examples_lib.answer_all(found, program, loaded.params, config, progress=progress)
  figures |= {'examples': len(found['validation'].examples), 'step': loaded.step}
  held_out.write(run_dir, figures, copies_of(loaded.record, found['validation'], tokenizer))
  return figures


def copies_of(record: run_directory.Record, found: Split, tokenizer) -> float | None:
  """The share of the rows of a split that a run learnt from; None where its examples are no more what they were, by
  their fingerprint, or not there, so that they cannot be compared."""
  config: Any = record.config
  try:
    own = examples_lib.all_of(config, record.data)
  except (ConfigError, DataError, OSError):
    return None
  if examples_lib.fingerprint(own) != record.shards:
    return None
  return examples_lib.copies(found, examples_lib.split_of(config, own['train'], tokenizer, training=True))

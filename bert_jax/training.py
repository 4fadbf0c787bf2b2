"""A run of any kind in its directory: restored or begun, looped, saved. What pretraining and fine-tuning share."""

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax import (
    arrays,
    checkpoint,
    chips,
    compiled,
    config as cfg,
    distributed,
    early_stop,
    finite,
    health,
    loop,
    memory,
    metrics,
    program as program_lib,
    recheck,
    replicas,
    rewind,
    run_directory,
    trackers,
    watchdog,
)
from bert_jax.errors import DamageError, DriftError, NonFiniteError
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline import locking, storage


@dataclasses.dataclass(frozen=True)
class Result:
  """How a call of `train` ended."""
  step: int
  resumed_from: int | None  # None: it began at step 0
  reason: str  # 'steps', 'minutes', or 'signal'
  state: program_lib.TrainState
  best: tuple[int, float] | None  # the step whose evaluation was best, and its figure


def initial_from(path: storage.PathLike, step: int | None, program: program_lib.Program, vocabulary, tokens=None,
                 longer: str | None = None):
  """The parameters that a checkpoint has for this program, of `step` where it is a run, by default the newest.

  `vocabulary`: records.Vocabulary of the data, which must be the checkpoint's, or extend it where `tokens` and `longer`
  are given as to exchange.initial_parameters. Raises ConfigError, DataError, CheckpointError.
  """
  from bert_jax.convert import exchange
  run_dir = run_directory.run_of(path)
  if step is not None and run_dir is not None:
    path = run_dir / run_directory.CHECKPOINTS / str(step)
  return exchange.initial_parameters(path, program.model, program.objective.heads, vocabulary, tokens, longer)


def origin_of(checkpoint_path: storage.PathLike | None, initial, longer: str | None = None
              ) -> run_directory.Origin | None:
  if checkpoint_path is None:
    return None
  path = os.fspath(storage.normal(storage.absolute(checkpoint_path)))  # the same however it is spelled
  return run_directory.Origin(path, initial and initial.step, tuple(initial.fresh) if initial else (), longer,
                              initial.untrained if initial else ())


@dataclasses.dataclass(frozen=True)
class Training:
  """A run of any kind in its directory: restored or begun, looped, saved."""
  run_dir: storage.PathLike
  record: run_directory.Record
  vocabulary_files: dict[str, bytes]
  program: program_lib.Program
  fingerprint: str  # of all that decides the batches
  batches: Callable[[int, rewind.Ranges], Generator[loop.HostBatch, None, None]]
  count: Callable[[loop.HostBatch], dict[str, float]]
  evaluate: Callable[[program_lib.TrainState, int, Callable[[], bool]], dict[str, float]]
  flops_per_step: Callable[[int], float]
  what: list[str]  # lines that say what a new run will do
  load: Callable[[storage.PathLike, int | None, str | None], Any]
  """(checkpoint, its step or None for the newest, Origin.longer_positions) -> the parameters to begin with, an
  exchange.Initial."""
  best: str | None = None
  """The figure of an evaluation, more is better, by which one checkpoint is kept beside the newest."""
  back: rewind.Rewind | None = None
  warnings: Sequence[str] = ()  # about a new run
  earlier: Sequence[str] = ()  # `fingerprint` of the run before it was extended
  strange: Callable[[int, Mapping[str, float]], Iterable[str]] | None = None
  """As metrics.Recorder's."""
  log_to: str | None = None
  """Who else is told of each line of the log: a key of trackers.TRACKERS."""

  def run(self, initial, progress: bool, stop: Callable[[int], bool] | None) -> Result:
    settings, say = self.record.config.run, print_once if progress else lambda *_: None
    recheck.check(settings.recheck_every, self.program.mesh)
    there = distributed.in_turn(lambda: run_directory.check(self.run_dir, self.record))
    distributed.agree({'the run that is there': there})  # until all have looked, none writes
    with (watchdog.Watchdog(60 * settings.hang_minutes) as dog, locked(self.run_dir) as lock,
          checkpoint.manager(self.run_dir, settings.keep_checkpoints) as checkpoints):
      record = distributed.in_turn(lambda: run_directory.open_run(self.run_dir, self.record, self.vocabulary_files))
      restored = checkpoint.restore(checkpoints, self.program.abstract, self.back)
      distributed.agree({'the step to resume from': restored and restored[1].step})
      if restored is None:
        distributed.in_turn(lambda: require_none_lost(self.run_dir, settings.checkpoint_every))
      state, meta = restored or self.begin(initial, record, say)
      if restored:
        require_same_data(meta, (self.fingerprint, *self.earlier), self.run_dir, self.record.data)
        say(f'{self.run_dir}: resuming from step {meta.step:,} of {settings.steps:,} '
            f'({meta.minutes:.1f} minutes of training so far)')
        for first, end in meta.left_out:
          say(f'  without the batches {first:,} to {end - 1:,}')
      mesh = self.program.mesh
      peak = chips.peak(mesh.devices.flat[0].device_kind)
      rates = metrics.Rates(self.flops_per_step, peak and peak * mesh.devices.size, mesh_lib.process_slice(mesh)[1])
      recorder = metrics.Recorder(
          self.run_dir, self.program.objective, step=meta.step, steps=settings.steps, log_every=settings.log_every,
          minutes=meta.minutes, window=meta.window, unsent=meta.unsent, rates=rates,
          skipped=int(jax.device_get(state.skipped)), progress=progress, max_minutes=settings.max_minutes,
          strange=self.strange, follower=self.follower(record), rewinds=isinstance(record.config, cfg.Config))

      name = self.best or ''
      found = metrics.best(self.run_dir, name, meta.step, meta.unsent) if name else None
      checkpoints.pinned = found and found[0]

      def better(figures: dict[str, float], step: int) -> bool:
        nonlocal found
        if not figures[name] > (found[1] if found else -math.inf):
          return False
        found = step, figures[name]
        checkpoints.pinned = step
        return True

      left_out, rewinds = meta.left_out, meta.rewinds

      def save(state, step):
        replicas.compare({'params': state.params, 'opt_state': state.opt_state}, mesh)
        meta = checkpoint.Meta(step, recorder.clock.minutes(), recorder.window.sums, self.fingerprint,
                               tuple(recorder.unsent()), left_out, rewinds)
        checkpoint.save(checkpoints, state, meta)
        compiled.publish()  # what evaluations compiled

      def unsaved(step: int) -> bool:
        lock.check()
        alone = jax.process_count() == 1  # several ask where a line of the log is due, as one waits for the other
        return (alone or step % settings.log_every == 0) and checkpoint.failed(checkpoints)

      def finish(state, step) -> None:
        dog.beat(watchdog.LONG)
        if checkpoint.failed(checkpoints, wait=True):
          save(state, step)
        checkpoint.finish(checkpoints)

      def tell(line: str) -> None:
        if recorder.progress.show:
          recorder.progress.tell(line)

      needed = list[int | None]()  # of a step, as compiled

      def is_compiled(of_step: int | None, seconds: float) -> None:
        needed.append(of_step)
        compiled.publish()
        tell(f'  compiled in {seconds:.1f} s')
        for line in health.of_memory(of_step, mesh.devices.flat[0]):
          tell(line)

      def began() -> None:
        if told := compiled.first_step():
          tell(f'  {told}')

      def finish_all(state, step) -> None:
        finish(state, step)
        recorder.ending = 'signal'
        recorder.close()
        say(ending('signal', step))

      def ending(reason, step) -> str:
        why = ENDINGS['signal before' if reason == 'signal' and step == meta.step else reason]
        return f'{self.run_dir}: stopped at step {step:,}: ' + why.format(run=settings)

      work = loop.Work(lambda step: self.batches(step, left_out), self.count, self.evaluate, save, finish_all, unsaved,
                       dog.beat, lambda: tell('  compiling …'), is_compiled, began, settings.checkpoint_every,
                       settings.evaluate_every, settings.recheck_every, better if name else None,
                       self.owes_figures(meta, restored is not None))
      stopper = loop.Stopper(settings.steps, recorder, max_minutes=settings.max_minutes, asked=stop)
      moderate = arrays.finite(arrays.tree_of(state), finite.MODERATE)
      program = self.program if moderate else dataclasses.replace(self.program, guarded=True)
      fits = memory.of_steps(record.config, mesh.devices.flat[0], lambda: needed[-1] if needed else None)
      with telling_what_stands(checkpoints), contextlib.closing(recorder), stopper, fits:
        state, step, reason = loop.run(program, state, meta.step, work, recorder, stopper)
        require_learnt(recorder.skipped, step, reason)
        recorder.ending = reason
      finish(state, step)
      if reason != 'signal':
        early_stop.again()
    for told, values in recorder.diagnostics.items():
      say(f'{told.replace("_", " ")}s of the last line of the log\n' + metrics.layer_table(values))
    say(ending(reason, step))
    return Result(step, meta.step if restored else None, reason, state, found)

  def follower(self, record: run_directory.Record) -> trackers.Follower | None:
    """Who is told of the run, by process 0 of it."""
    if self.log_to is None or not distributed.is_first():
      return None
    begun = record.begun or run_directory.Begun()
    settings = cfg.flat(record.config) | {'recipe': begun.recipe, 'data': record.data,
                                          'vocabulary.sha256': record.vocabulary.sha256}
    folder = os.fspath(storage.absolute(self.run_dir)) if storage.is_local(self.run_dir) else None
    name = os.fspath(storage.normal(self.run_dir))
    return trackers.Follower(self.log_to, trackers.Followed(
        run_directory.fingerprints(self.run_dir)[run_directory.CONFIG][:trackers.ID_LETTERS],
        name[-trackers.NAME_LETTERS:], settings, folder))

  def owes_figures(self, meta: checkpoint.Meta, restored: bool) -> bool:
    """Whether an evaluation was due at the step at hand, for which a signal, or kill -9, left no time."""
    every = self.record.config.run.evaluate_every
    if not (restored and every and meta.step and meta.step % every == 0):
      return False
    there = lambda: any((line['step'], line['kind']) == (meta.step, metrics.VALIDATION)
                        for line in (*meta.unsent, *metrics.read(self.run_dir)))
    return distributed.process_0_says(distributed.is_first() and not there())

  def begin(self, initial, record: run_directory.Record, say) -> tuple[program_lib.TrainState, checkpoint.Meta]:
    """The state of step 0, and what it is said to be."""
    if initial is None and record.origin is not None:  # it was begun, and nothing was saved since
      initial = self.load(record.origin.checkpoint, record.origin.step, record.origin.longer_positions)
    mesh = ' x '.join(f'{axis} {size}' for axis, size in self.program.mesh.shape.items())
    say(f'{self.run_dir}: starting; mesh {mesh}')
    for line in self.what:
      say(f'  {line}')
    for line in self.warnings:
      say(f'bert-jax: {line}')
    if initial is None:
      return self.program.init(), checkpoint.Meta(0, 0.0, {}, self.fingerprint)
    step = '' if initial.step is None else f', step {initial.step:,}'
    fresh = f'; initialised here, as it lacks them: {", ".join(initial.fresh)}' if initial.fresh else ''
    say(f'  weights from {record.origin and record.origin.checkpoint}{step}{fresh}')
    for line in initial.changes:
      say(f'  {line}')
    params = with_initial_values(initial.params, self.program)
    return self.program.init(params), checkpoint.Meta(0, 0.0, {}, self.fingerprint)


@contextlib.contextmanager
def locked(run_dir: storage.PathLike) -> Iterator[locking.Lock]:
  """Keeps other runs out of a run's directory; the processes of this one are one owner. Raises LockError."""
  lock = locking.Lock(storage.absolute(run_dir) / run_directory.LOCK)
  distributed.in_turn(lambda: lock.acquire() if distributed.is_first() else None)
  try:
    with early_stop.releasing(lock.release):
      yield lock
  finally:
    lock.release()


@contextlib.contextmanager
def telling_what_stands(checkpoints: checkpoint.Checkpoints) -> Iterator[None]:
  """A run that ends as it is not finite says which checkpoint is."""
  try:
    yield
  except NonFiniteError as error:
    raise NonFiniteError(f'{error}; {checkpoints.standing()}' if distributed.is_first() else str(error)) from error


def require_none_lost(run_dir: storage.PathLike, every: int) -> None:
  """Raises DamageError where a run has no checkpoint, and its log goes on after two were due.

  Where a disk is not there, a run must not begin again, and lose its log too. One that was ended before its first
  checkpoint was whole may.
  """
  last = max((line['step'] for line in metrics.read(run_dir)), default=0)
  if every and last > 2 * every:
    folder = storage.absolute(run_dir) / run_directory.CHECKPOINTS
    raise DamageError(f'{folder} has no checkpoint, and the log of the run goes to step {last:,}: bring them back (is '
                      f'their disk there?), or move {run_directory.LOG} away too to begin at step 0')


def require_learnt(skipped: int, step: int, reason: str) -> None:
  """Raises NonFiniteError where a run is at its end, and more than half of its steps changed nothing."""
  if reason == 'steps' and 2 * skipped > step:
    raise NonFiniteError(f'{skipped:,} of the {step:,} steps changed nothing, as their loss, their gradient or what '
                         f'came of them was not finite: {metrics.REMEDY}')


def with_initial_values(params, program: program_lib.Program):
  """A tree of host arrays with initial values in place of what is None."""
  if all(leaf is not None for leaf in jax.tree.leaves(params, is_leaf=lambda leaf: leaf is None)):
    return params
  choose = lambda given, fresh: fresh if given is None else np.asarray(given)
  return jax.tree.map(choose, params, program.initial_parameters(), is_leaf=lambda leaf: leaf is None)


def require_same_data(meta: checkpoint.Meta, fingerprints: Sequence[str], run_dir, data_dir) -> None:
  if meta.data_fingerprint not in fingerprints:
    raise DriftError(f'{run_dir} was trained on other data than {data_dir} holds now: '
                     'name its own --data, or another --run-dir')


ENDINGS = {'steps': 'all {run.steps:,} steps are done', 'minutes': 'run.max_minutes {run.max_minutes} are used up',
           'signal': 'asked to stop; saved, run the same command to go on',
           'signal before': 'asked to stop, and there is nothing new to save: run the same command to go on'}


def print_once(*parts) -> None:
  if jax.process_index() == 0:
    print(*parts, file=sys.stderr, flush=True)

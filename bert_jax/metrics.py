"""What a run reports: sums that travel and means taken last, to console, JSON lines and TensorBoard."""

import collections
import contextlib
import dataclasses
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from bert_jax import board, object_log, optimizer, run_directory, trackers
from bert_jax.errors import NonFiniteError
from bert_jax.objectives import Objective
from bert_jax.progress import PROBE, Progress, held_out_text, probes_text, progress_text
from input_pipeline import foreign, storage

MOST_SKIPPED = 20  # non-finite steps in a row that end a run
REMEDY = 'lower optimizer.peak_learning_rate, or raise optimizer.epsilon where it is less than 1e-8'
SPIKE = 6.0  # standard deviations of the losses before it, above which a line's loss is told
LEAST_DEVIATION = 0.05  # nats: less is no noise, but a loss that stands still
SPIKE_LINES = 50  # of the log that it is compared with, ten at least
VALIDATION = 'validation'  # the kind of a line of held-out figures
TIME = 'time'  # of a line of the log: seconds since 1970, by the clock of the machine
COUNTS = 'counts'  # where a window keeps what is no term's


class Window:
  """Sums since the last line of the log, as plain numbers. A checkpoint has them, so resuming changes no line."""

  def __init__(self, sums: Mapping[str, Mapping[str, float]] | None = None):
    self.sums = {name: dict(values) for name, values in (sums or {}).items()}

  def add(self, terms: Mapping[str, Mapping], counts: Mapping[str, float]) -> None:
    """One step's sums of every term, and what was counted of its batch."""
    for name, values in {COUNTS: {'steps': 1.0} | dict(counts), **terms}.items():
      mine = self.sums.setdefault(name, {})
      for key, value in values.items():
        mine[key] = mine.get(key, 0.0) + float(value)

  def of_terms(self) -> dict[str, dict[str, float]]:
    return {name: values for name, values in self.sums.items() if name != COUNTS}

  def count(self, name: str) -> float:
    return self.sums.get(COUNTS, {}).get(name, 0.0)


@dataclasses.dataclass(frozen=True)
class Rates:
  """What the rates of a line of the log are taken from."""
  flops_per_step: Callable[[int], float]  # step -> FLOP of the steps around it
  peak: float | None  # FLOP/s of all devices; None where it is not known
  processes: int  # that feed rows: counts are of one of them


class Recorder:
  """All that a run writes down on its way: lines of the log, the bar; and the end of a run that no longer learns."""

  def __init__(self, run_dir: storage.PathLike, objective: Objective, *, step: int, steps: int, log_every: int,
               minutes: float = 0.0, window: Mapping | None = None, unsent: Iterable[dict] = (), rates: Rates,
               skipped: int = 0, progress: bool = True, max_minutes: float | None = None,
               strange: Callable[[int, Mapping[str, float]], Iterable[str]] | None = None,
               follower: trackers.Follower | None = None, rewinds: bool = True):
    """`strange`: (step, figures of a line) -> sentences about what is unlike other runs. `follower`: of process 0.
    `rewinds`: whether the run's command can go back and leave batches out."""
    first = jax.process_index() == 0
    self.strange, self.rewinds = strange, rewinds
    self.objective, self.steps, self.log_every = objective, steps, log_every
    self.rates, self.max_minutes = rates, max_minutes
    self.window, self.clock = Window(window), Clock(minutes, step)
    self.writer = Writer(run_dir, step, unsent, follower) if first else None
    self.ending = 'failed'  # until it is known: as trackers.Tracker.close has it
    self.progress = Progress(step, steps, progress and first)
    self.skipped, self.skipped_in_row = skipped, 0  # steps that changed nothing, those before a resumption included
    self.losses: collections.deque[float] = collections.deque(maxlen=SPIKE_LINES)
    self.diagnostics: dict[str, dict[str, float]] = {}
    self.probed = ''  # what the last probes found

  def due(self, step: int) -> bool:
    """Whether a line of the log is due after `step`."""
    return step % self.log_every == 0 or step == self.steps

  def step(self, report: dict, counts: Mapping[str, float], step: int) -> None:
    """Reads a step's figures from the devices, which waits for it, and logs where a line is due.

    Raises NonFiniteError where too many steps in a row were not finite.
    """
    diagnostics, report = report['diagnostics'], jax.device_get(report | {'diagnostics': {}})
    skipped = int(report['skipped'])
    self.skipped_in_row = self.skipped_in_row + 1 if skipped > self.skipped else 0
    if skipped > self.skipped and self.writer:
      self.progress.tell(f'bert-jax: step {step:,} changed nothing, as its loss, its gradient or what came of them was '
                         f'not finite; {skipped:,} such steps so far')
    self.skipped = skipped
    if self.skipped_in_row >= MOST_SKIPPED:
      raise NonFiniteError(f'{MOST_SKIPPED} steps in a row, up to step {step}, changed nothing, as their loss, their '
                           f'gradient or what came of them was not finite: {REMEDY}')
    self.window.add(report['terms'], counts)
    if self.due(step):
      scalars = self.objective.figures(self.window.of_terms()) | {
          'learning_rate': float(report['learning_rate']), 'gradient_norm': float(report['gradient_norm']),
          'skipped_steps': skipped}
      self._tell_of_a_spike(step, scalars['loss'])
      for sentence in self.strange(step, scalars) if self.strange and self.writer else ():
        self.progress.tell(f'bert-jax: {sentence}')
      self._line(step, scalars, diagnostics)

  def _tell_of_a_spike(self, step: int, loss: float) -> None:
    before = np.array(self.losses)
    self.losses.append(loss)
    if not self.writer or len(before) < SPIKE_LINES // 5:
      return
    if loss > before.mean() + SPIKE * max(before.std(), LEAST_DEVIATION):
      first = max(step - self.log_every, 0)
      remedy = (f'--rewind-to a checkpoint before step {first} and --skip-steps {first}:{step} go on without these '
                'batches') if self.rewinds else f'begin another run: {REMEDY}'
      self.progress.tell(
          f'bert-jax: the loss of steps {first:,} to {step - 1:,} is {loss:.3f}, far above the {before.mean():.3f} '
          f'before: where it does not come back, {remedy}')

  def _line(self, step: int, scalars: dict[str, float], diagnostics) -> None:
    tokens = self.window.count('tokens') * self.rates.processes
    rates = self.clock.rates(step, tokens, self.rates.flops_per_step(step), self.rates.peak)
    self.clock.mark(step)
    self.window = Window()
    if self.writer:
      self.writer.write(step, 'train', scalars | rates | {'minutes': self.clock.minutes()})
      self.diagnostics = {kind: optimizer.by_layer(values) for kind, values in jax.device_get(diagnostics).items()}
      for kind, values in self.diagnostics.items():
        self.writer.write(step, kind, values)
    minutes_left = self.max_minutes and self.max_minutes - self.clock.minutes()
    self.progress.update(step, progress_text(scalars | rates) + self.probed, rates['steps_per_second'], minutes_left)

  def evaluated(self, step: int, figures: dict[str, float]) -> None:
    """Held-out figures after `step`, which are told; those of probes in each line from here on."""
    probed = {name: value for name, value in figures.items() if name.startswith(PROBE)}
    self.probed = probes_text(probed) or self.probed
    if self.writer:
      self.writer.write(step, VALIDATION, figures)
    if self.progress.show:
      self.progress.tell(f'step {step:,}/{self.steps:,}  {held_out_text(figures)}')

  def unsent(self) -> list[dict]:
    """Lines of the log that only this process has."""
    return self.writer.unsent() if self.writer else []

  def close(self) -> None:
    self.progress.close()
    if self.writer:
      self.writer.close(self.ending)


def layer_table(values: Mapping[str, float]) -> str:
  """A line for each parameter, with a column for each layer, of {'encoder/blocks/0/query/kernel': 0.21 …}."""
  lines: dict[str, list[float]] = {}
  for name, value in values.items():
    lines.setdefault(re.sub(r'/\d+/', '/*/', name), []).append(value)
  width = max(map(len, lines), default=0)
  text = lambda row: ' '.join(f'{value:7.3f}' for value in row)
  return '\n'.join(f'  {name:<{width}}  {text(row)}' for name, row in lines.items())


class Writer:
  """Scalars to RUN/metrics.jsonl and, where tensorboardX is installed, to RUN/tensorboard.

  Lines after `step`, of a run that was cut off, are dropped; the old file stays until the new one is whole, and what in
  it is no line of ours stays too. Lines that a full disk does not take wait; a checkpoint keeps them. `unsent`: those
  that one kept. In a bucket the log is object_log's. `follower`: who else is told of each line.
  """

  def __init__(self, run_dir: storage.PathLike, step: int, unsent: Iterable[dict] = (),
               follower: trackers.Follower | None = None):
    run_dir, self._follower = storage.path(run_dir), follower
    self._file: Any = None
    self._board: board.Board | None = None
    self._waiting: list[dict] = []  # lines that the file has not taken
    self._told = False
    self._objects: object_log.ObjectLog | None = None
    unsent = list(unsent)
    lines = read(run_dir) if storage.is_local(run_dir) else of_file(run_dir)
    kept = [line for line in (object_log.merged([*unsent, *lines]) if unsent else lines) if line['step'] <= step]
    if not storage.is_local(run_dir):
      self._objects = object_log.ObjectLog(run_dir, step, kept)
      return
    path, segments = run_dir / run_directory.LOG, run_dir / run_directory.SEGMENTS
    text = text_of(path) if path.exists() else None
    if kept != lines or segments.exists() or text is None or not text.endswith('\n'):
      foreign = object_log.foreign(text or '')
      if foreign:
        print(f'bert-jax: {path}: {len(foreign)} lines are none of ours, the first {foreign[0]!r:.60}: they stand at '
              'its beginning now', file=sys.stderr, flush=True)
      whole = ''.join(f'{line}\n' for line in foreign) + object_log.encode(kept)
      storage.write_whole(path, whole.encode(errors='surrogateescape'))
      storage.remove_tree(segments)  # of a run that was in a bucket
    self._file = path.open('ab', buffering=0)  # type: ignore[call-arg]  # a disk's: this is no run in a bucket
    self._size = self._file.tell()
    self._board = board.Board(str(run_dir / run_directory.BOARD), step)

  def write(self, step: int, kind: str, scalars: Mapping[str, float]) -> None:
    """One line of `kind`: train, validation, or what an optimizer tells (trust_ratio)."""
    now = round(time.time(), 3)
    line = {'step': step, 'kind': kind, TIME: now} | dict(scalars)
    if self._follower:
      self._follower.write(step, kind, scalars, now)
    if self._objects:
      self._objects.write(line)
      return
    self._waiting.append(line)
    self._append()
    if self._board:
      self._board.write(step, kind, scalars)

  def _append(self) -> None:
    """Adds the lines that wait to the file, all or none; where it takes none, that is told once."""
    data = memoryview(object_log.encode(self._waiting).encode())
    try:
      while data:
        data = data[self._file.write(data):]
      self._size = self._file.tell()
      self._waiting, self._told = [], False
    except OSError as error:
      with contextlib.suppress(OSError):
        self._file.truncate(self._size)
      if not self._told:
        print(f'bert-jax: {self._file.name} cannot be written ({error.strerror}): training goes on, and its lines wait',
              file=sys.stderr, flush=True)
      self._told = True

  def unsent(self) -> list[dict]:
    """The lines that a checkpoint has to keep."""
    return self._objects.unsent() if self._objects else list(self._waiting)

  def close(self, ending: str = 'failed') -> None:
    """`ending`: how the run did, as trackers.Tracker.close has it."""
    if self._objects:
      self._objects.close()
    if self._file:
      if self._waiting:
        self._append()
      if self._waiting:
        print(f'bert-jax: {len(self._waiting)} lines of the log did not reach {self._file.name}', file=sys.stderr)
      self._file.close()
    if self._board:
      self._board.close()
    if self._follower:
      self._follower.close(ending)


def read(run_dir: storage.PathLike) -> list[dict]:
  """The lines of RUN/metrics.jsonl, and of the segments of a run in a bucket; a line that was cut off is none."""
  lines, segments = of_file(run_dir), object_log.read(storage.path(run_dir) / run_directory.SEGMENTS)
  return object_log.merged([*lines, *segments]) if segments else lines


def text_of(path: storage.Path) -> str:
  """What a file holds, also where a byte of it is damaged. Raises DataError where it is none."""
  foreign.check_kind(path)
  return path.read_bytes().decode(errors='surrogateescape')


def of_file(run_dir: storage.PathLike) -> list[dict]:
  """The lines of RUN/metrics.jsonl; none where it is missing."""
  try:
    return object_log.decode(text_of(storage.path(run_dir) / run_directory.LOG))
  except FileNotFoundError:
    return []


def best(run_dir: storage.PathLike, name: str, until: int | None = None,
         unsent: Iterable[dict] = ()) -> tuple[int, float] | None:
  """(step, value) of the evaluation up to step `until` with the highest figure of that name, the first of several.

  `unsent`: lines that are not in the log yet.
  """
  found = [(line['step'], line[name]) for line in object_log.merged([*unsent, *read(run_dir)])
           if line['kind'] == VALIDATION and name in line and line[name] == line[name]  # not a number is not the best
           and (until is None or line['step'] <= until)]
  return max(found, key=lambda at: at[1], default=None)


class Clock:
  """Seconds of a run, steps a second of late, and the share of the time that the loop waited for data."""

  def __init__(self, minutes: float, step: int):
    self.before, self.start = minutes, time.monotonic()
    self.mark(step)

  def mark(self, step: int) -> None:
    """Begins a new measurement at `step`."""
    self.since, self.step, self.waited = time.monotonic(), step, 0.0
    self.left_out, self.steps_left_out = 0.0, 0

  def leave_out(self, seconds: float) -> None:
    """Leaves a step out of the measurement at hand that took so long, as it was compiled: the rates, and the time left
    by them, are those of other steps, where there are any."""
    self.left_out, self.steps_left_out = self.left_out + seconds, self.steps_left_out + 1

  def minutes(self) -> float:
    return self.before + (time.monotonic() - self.start) / 60

  def rates(self, step: int, tokens: float, flops_per_step: float, peak: float | None) -> dict[str, float]:
    """Since the last mark: tokens_per_second (real), steps_per_second, data_stall_share, and mfu if `peak` is known."""
    seconds, every = time.monotonic() - self.since, step - self.step
    steps = every - self.steps_left_out
    seconds, steps = (seconds - self.left_out, steps) if steps > 0 else (seconds, every)
    seconds, tokens = max(seconds, 1e-9), tokens * steps / max(every, 1)
    rates = {'tokens_per_second': tokens / seconds, 'steps_per_second': steps / seconds,
             'data_stall_share': self.waited / seconds}
    return rates | ({'mfu': steps * flops_per_step / seconds / peak} if peak else {})


def add_sums(total: dict[str, dict[str, float]],
        sums: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, float]]:
  """`total` with the sums of one more batch added."""
  return {term: {name: total.get(term, {}).get(name, 0.0) + float(value) for name, value in values.items()}
          for term, values in sums.items()}

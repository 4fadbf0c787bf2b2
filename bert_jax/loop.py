"""The loop that every training shares: batches in, figures and checkpoints out. It knows no objective and no task."""

import contextlib
import dataclasses
import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from bert_jax import distributed, early_stop, recheck
from bert_jax.errors import STOPPED
from bert_jax.metrics import Recorder
from bert_jax.parallel import mesh as mesh_lib
from bert_jax.program import Program, TrainState
from bert_jax.watchdog import LONG

HostBatch = Mapping[str, np.ndarray]  # {name: [rows ...]}: this process' rows of a batch
WAIT_SECONDS = 10.0  # for a save, after which it is told


@dataclasses.dataclass(frozen=True)
class Work:
  """What the loop is given beside the program."""
  batches: Callable[[int], Generator[HostBatch, None, None]]
  """The step at hand -> this process' batches from there on."""
  count: Callable[[HostBatch], dict[str, float]]
  """What to count of a batch: {'tokens': real tokens}."""
  evaluate: Callable[[TrainState, int, Callable[[], bool]], dict[str, float]]
  """(state, step, stopped) -> held-out figures. Asks `stopped` after each batch, on all processes, and raises Stopped
  where it says so."""
  save: Callable[[TrainState, int], None]
  """(state, step): begins a checkpoint; asked for only where there is something new."""
  finish: Callable[[TrainState, int], None]
  """(state, step): waits until all is saved and logged; only where the process ends then."""
  unsaved: Callable[[int], bool]
  """Asked after each step, which it is given: whether a checkpoint failed, so that this step is to be saved."""
  alive: Callable[[float], None]
  """Told before each step, with how many times the usual the next one may take."""
  compiles: Callable[[], None]
  """Called before a step is compiled, for each shape of batches."""
  compiled: Callable[[int | None, float], None]
  """Told then the bytes of a device that the step takes, where they are known, and the seconds that it took."""
  began: Callable[[], None]
  """Called when the first step is done."""
  checkpoint_every: int
  evaluate_every: int  # 0: never
  recheck_every: int  # 0: never
  better: Callable[[dict[str, float], int], bool] | None = None
  """(figures, step) -> whether they are the best so far, so that this step is to be saved; with it the last step is
  evaluated too."""
  unevaluated: bool = False  # whether figures are due of the state that it begins with


def run(program: Program, state: TrainState, step: int, work: Work, recorder: Recorder,
        stopper: 'Stopper') -> tuple[TrainState, int, str]:
  """Steps from `step` on until `stopper` has a reason; returns the state, its step and the reason.

  The reasons are steps, minutes and signal. The host reads the figures of step n - 1 while step n runs. Nothing moves
  between host and devices but what says so (transfer guard), except to save. Where one process waits for data,
  compiles or evaluates, a signal is answered at once: see early_stop. Raises NonFiniteError, and what `work` raises.
  """
  train_step = program.train_step  # made out here: its key goes to the devices
  saved, pending = step, None
  compiled: set[tuple] = set()  # the shapes of batches so far
  begin = 0.0  # of a step that is compiled
  every = lambda steps: bool(steps) and step % steps == 0

  def end() -> int:
    """Saves as it stands, while this thread rests."""
    work.alive(LONG)
    if pending:
      recorder.step(*pending)
    if step > saved:
      work.save(state, step)
    work.finish(state, step)
    return STOPPED

  def rest():
    return early_stop.at_rest(end) if jax.process_count() == 1 else contextlib.nullcontext()

  def compiling():
    return early_stop.at_rest(end) if jax.process_count() == 1 else early_stop.at_common_rest(step, end)

  def told() -> bool:
    """Evaluates and logs; whether the figures are the best so far."""
    with rest():
      figures = work.evaluate(state, step, stopper.asked_now)
    recorder.evaluated(step, figures)
    return work.better is not None and work.better(figures, step)

  reason = stopper.reason(step)
  if work.unevaluated and reason != 'signal':
    work.alive(LONG)
    try:
      with jax.transfer_guard('disallow'):
        told()
    except early_stop.Stopped:
      reason = 'signal'
  if reason:
    return state, step, reason
  with contextlib.closing(work.batches(step)) as host_batches, jax.transfer_guard('disallow'):
    recorder.clock.mark(step)
    for batch, counts in device_batches(host_batches, program, work.count, recorder, rest):
      shape = tuple(array.shape for array in batch.values())
      work.alive(1.0 if shape in compiled else LONG)
      if shape not in compiled:
        work.compiles()
        begin = time.monotonic()
        with compiling():
          needed = program.compile_step(state, batch)
          work.compiled(needed, time.monotonic() - begin)
      if work.recheck_every and (step + 1) % work.recheck_every == 0:
        state, report = recheck.step(program, state, batch, step + 1)
      else:
        state, report = train_step(state, batch)
      if shape not in compiled:
        jax.block_until_ready(report)
        recorder.clock.leave_out(time.monotonic() - begin)
      if not compiled:
        work.began()
      compiled.add(shape)
      if pending:
        recorder.step(*pending)
      step += 1
      pending = report, counts, step
      reason = stopper.reason(step)
      save = work.unsaved(step) or bool(reason) or every(work.checkpoint_every)
      evaluate = every(work.evaluate_every) or bool(work.better and reason and reason != 'signal')
      if save or evaluate:
        work.alive(LONG)
        recorder.step(*pending)
        pending = None
      # Held-out figures come first, so that a run that goes on from the checkpoint has them; a signal leaves no time.
      if evaluate and reason != 'signal':
        try:
          save |= told()
        except early_stop.Stopped:
          reason, save = 'signal', True
      if save and step > saved:
        with jax.transfer_guard('allow'):
          tell_of_waiting(work.save, state, step)
        saved = step
      if reason:
        return state, step, reason
  raise RuntimeError('the data ended before the steps did')


def tell_of_waiting(save: Callable[[TrainState, int], None], state: TrainState, step: int) -> None:
  """Saves; says so where the save before it was still on its way, and training waited."""
  begin = time.monotonic()
  save(state, step)
  if (seconds := time.monotonic() - begin) > WAIT_SECONDS and distributed.is_first():
    print(f'bert-jax: storage is slow: training waited {seconds:.0f} s at step {step} for the save before it: raise '
          '--run.checkpoint-every where this happens often', file=sys.stderr, flush=True)


def device_batches(batches: Iterator[HostBatch], program: Program, count: Callable, recorder: Recorder,
                   rest: Callable[[], contextlib.AbstractContextManager]) -> Iterator[tuple]:
  """(batch on the devices, counts of this process' rows), each sent while the one before it is worked on.

  `rest`: what this thread waits for data in.
  """
  ahead = None
  while True:
    start = time.monotonic()
    with rest():
      batch = next(batches, None)
    recorder.clock.waited += time.monotonic() - start
    following = None if batch is None else (
        mesh_lib.put_batch(batch, program.mesh, program.microbatches), count(batch))
    if ahead:
      yield ahead
    if following is None:
      return
    ahead = following


class Stopper:
  """When a run ends: its steps are done, its minutes are used up, or a signal or `asked(step)` asks for it.

  As a context manager it hears SIGTERM and Ctrl-C, so that the run ends after the step at hand, saved; a second Ctrl-C
  ends it at once. Of several processes the first to hear of a signal tells the others: JAX's own handler of SIGTERM
  does that, and must stay.
  """

  def __init__(self, steps: int, recorder: Recorder, *, max_minutes: float | None = None,
               asked: Callable[[int], bool] | None = None):
    self.steps, self.recorder, self.max_minutes, self.asked = steps, recorder, max_minutes, asked
    self.first: int | None = None  # the step at which it was first asked
    self.heard, self.calls = threading.Event(), itertools.count(1)
    self.handlers: dict[int, Any] = {}

  def reason(self, step: int) -> str | None:
    """Why the run ends after `step`; every process asks after every step."""
    if self.first is None:
      self.first = step
    elif step > self.first:
      early_stop.over()
    self.asked_now()  # on every step, whatever else is the case: it is said once
    if self.asked and self.asked(step):
      self.heard.set()
    if step >= self.steps:
      return 'steps'
    if self.out_of_time(step):
      return 'minutes'
    return 'signal' if self.heard.is_set() else None

  def asked_now(self) -> bool:
    """Whether a signal has come, alike on all processes, which ask equally often."""
    if distributed.asked_to_stop(next(self.calls)):
      self.heard.set()
    return self.heard.is_set()

  def out_of_time(self, step: int) -> bool:
    """Whether max_minutes are used up, by the clock of process 0.

    Several processes ask only where a line of the log is due: they wait for the answer.
    """
    if self.max_minutes is None or jax.process_count() > 1 and step != self.first and step % self.recorder.log_every:
      return False
    return distributed.process_0_says(self.recorder.clock.minutes() >= self.max_minutes)

  def __enter__(self) -> 'Stopper':
    if threading.current_thread() is not threading.main_thread():
      return self
    several = jax.process_count() > 1
    interrupted = threading.Event()

    def ask(number, frame):
      if interrupted.is_set() and number == signal.SIGINT:
        raise KeyboardInterrupt
      interrupted.set()
      if several:
        signal.raise_signal(signal.SIGTERM)
      else:
        self.heard.set()

    numbers = [signal.SIGINT] if several else [signal.SIGTERM, signal.SIGINT]
    self.handlers = {number: signal.signal(number, ask) for number in numbers}
    return self

  def __exit__(self, *_) -> None:
    for number, handler in self.handlers.items():
      signal.signal(number, handler)
    self.handlers = {}

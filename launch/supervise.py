"""Runs a training command again after what a restart may mend, until it is done or gets no further.

kill -9, a lost peer, storage that failed, a process that was stuck: the same command goes on from the last sound
checkpoint. A bug, a wrong setting, a loss that is not finite come again, and are not tried again; nor is anything that
three restarts in a row did not bring one step further.

Machines come and go too, and what starts this on the next ones (launch/) says the how manieth start it is. RUN/ATTEMPTS
says at which start the newest step was new: so each process of a start finds by itself how many were fruitless.
"""

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from bert_jax.errors import FINAL, GAVE_UP, HUNG, STOPPED, UNSAVED, CheckpointError, PeerError

FRUITLESS = 3  # restarts in a row without a new checkpoint, after which it ends
WAIT_SECONDS = 5.0  # before the first restart; twice as long before each further one without a new checkpoint
LONGEST_WAIT = 300.0
ATTEMPTS = 'attempts.json'
FORWARDED = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
MEANINGS = {CheckpointError.exit_code: 'storage failed', PeerError.exit_code: 'another process of the run failed',
            HUNG: 'it was stuck'}


class Supervisor:
  """One command and its restarts.

  `run_dir`: where its checkpoints are; `attempt`: how often a launcher has started this before.
  """

  def __init__(self, argv: Sequence[str], run_dir: str, fruitless: int = FRUITLESS, wait_seconds: float = WAIT_SECONDS,
               attempt: int = 0):
    self.argv, self.run_dir, self.most, self.wait_seconds = list(argv), run_dir, fruitless, wait_seconds
    self.attempt = attempt
    self.child: subprocess.Popen | None = None
    self.asked = threading.Event()

  def run(self) -> int:
    """The exit code of the last try; GAVE_UP where it might be tried again, and nothing comes of it."""
    before: dict[int, Any] = {number: signal.signal(number, self._forward) for number in FORWARDED}
    try:
      return self._run()
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)

  def _run(self) -> int:
    restarts, step = 0, newest_step(self.run_dir)
    fruitless = fruitless_before(self.run_dir, self.attempt, step)
    if fruitless > self.most:
      return self._give_up(f'this is start {self.attempt + 1}', step)
    while True:
      self.child = subprocess.Popen([sys.executable, '-P', '-m', 'bert_jax_command', *self.argv])
      code = self.child.wait()
      code = 128 - code if code < 0 else code  # as shells say a signal
      if self.asked.is_set() or code in (0, STOPPED, UNSAVED, *FINAL):
        return code
      now = newest_step(self.run_dir)
      fruitless = 0 if (now or 0) > (step or 0) else fruitless + 1
      step, restarts = now, restarts + 1
      what = f'ended with {code}' + (f' ({MEANINGS[code]})' if code in MEANINGS else '')
      if fruitless > self.most:
        return self._give_up(what, step)
      seconds = min(self.wait_seconds * 2**max(fruitless - 1, 0), LONGEST_WAIT) * random.uniform(0.8, 1.2)
      say(f'{what}; {saved(step)}; starting again in {seconds:.0f} s (restart {restarts}, {fruitless} of at most '
          f'{self.most} without a new checkpoint)')
      if self.asked.wait(seconds):
        return STOPPED if step is not None else UNSAVED

  def _give_up(self, what: str, step: int | None) -> int:
    say(f'{what}; {saved(step)}; {self.most} restarts brought nothing new: giving up; where machines are taken away '
        'sooner than it saves, lower --run.checkpoint-every')
    return GAVE_UP

  def _forward(self, number: int, frame) -> None:
    """What this process is told, the command is told."""
    if number in (signal.SIGTERM, signal.SIGINT):
      self.asked.set()
    if self.child is not None and self.child.poll() is None:
      self.child.send_signal(number)


def newest_step(run_dir: str) -> int | None:
  """The newest step that is saved whole; None where there is none, or it cannot be found out now."""
  from bert_jax import run_directory, steps
  from input_pipeline import storage
  try:
    path = storage.path(run_dir)
    found = steps.look(path, run_directory.fingerprints(path))
  except Exception:  # storage that fails is why it is asked
    return None
  return max((step.number for step in found if step.usable), default=None)


def fruitless_before(run_dir: str, attempt: int, step: int | None) -> int:
  """How many starts in a row before `attempt` (from 0) brought no new checkpoint; `step`: the newest.

  All processes of a start find the same, in whatever order they ask. 0 where the storage does not say.
  """
  from bert_jax import run_directory
  from input_pipeline import storage
  try:
    path = storage.path(run_dir)
    if run_directory.run_of(path) is None:  # no start came so far as to make it
      return attempt
    first = first_attempt(path / ATTEMPTS, step)
    if first is None or first > attempt:  # the launcher's job is another one
      storage.write_whole(path / ATTEMPTS, json.dumps({'step': step, 'attempt': attempt}) + '\n')
      first = attempt
    return attempt - first
  except Exception:  # storage that fails: the command will say so
    return 0


def first_attempt(path, step: int | None) -> int | None:
  """The start at which `step` was the newest first; None where that is not known."""
  try:
    found = json.loads(path.read_text())
    return int(found['attempt']) if found['step'] == step else None
  except (FileNotFoundError, ValueError, TypeError, KeyError):
    return None


def saved(step: int | None) -> str:
  return 'nothing is saved' if step is None else f'step {step:,} is saved'


def say(text: str) -> None:
  print(f'bert-jax supervise: {text}', file=sys.stderr, flush=True)

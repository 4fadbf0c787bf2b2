"""Runs a training command again after what a restart may mend, until it is done or gets no further.

kill -9, a lost peer, storage that failed, a process that was stuck: the same command goes on from the last sound
checkpoint. A bug, a wrong setting, a loss that is not finite come again, and are not tried again; nor is anything that
three restarts in a row did not bring one step further.
"""

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from bert_jax.errors import FINAL, HUNG, STOPPED, UNSAVED, CheckpointError, PeerError

FRUITLESS = 3  # restarts in a row without a new checkpoint, after which it ends
WAIT_SECONDS = 5.0  # before the first restart; twice as long before each further one without a new checkpoint
LONGEST_WAIT = 300.0
FORWARDED = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
MEANINGS = {CheckpointError.exit_code: 'storage failed', PeerError.exit_code: 'another process of the run failed',
            HUNG: 'it was stuck'}


class Supervisor:
  """One command and its restarts. `run_dir`: where its checkpoints are."""

  def __init__(self, argv: Sequence[str], run_dir: str, fruitless: int = FRUITLESS, wait_seconds: float = WAIT_SECONDS):
    self.argv, self.run_dir, self.most, self.wait_seconds = list(argv), run_dir, fruitless, wait_seconds
    self.child: subprocess.Popen | None = None
    self.asked = threading.Event()

  def run(self) -> int:
    """The exit code of the last try."""
    before: dict[int, Any] = {number: signal.signal(number, self._forward) for number in FORWARDED}
    try:
      return self._run()
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)

  def _run(self) -> int:
    fruitless, restarts, step = 0, 0, newest_step(self.run_dir)
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
      saved = 'nothing is saved' if step is None else f'step {step:,} is saved'
      if fruitless > self.most:
        say(f'{what}; {saved}; {self.most} restarts brought nothing new: giving up')
        return code
      seconds = min(self.wait_seconds * 2**max(fruitless - 1, 0), LONGEST_WAIT) * random.uniform(0.8, 1.2)
      say(f'{what}; {saved}; starting again in {seconds:.0f} s (restart {restarts}, {fruitless} of at most {self.most} '
          'without a new checkpoint)')
      if self.asked.wait(seconds):
        return STOPPED if step is not None else UNSAVED

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


def say(text: str) -> None:
  print(f'bert-jax supervise: {text}', file=sys.stderr, flush=True)

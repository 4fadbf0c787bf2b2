"""Ends a process that is alive and stuck: no launcher starts again what does not end, and its peers wait for it.

A thread looks at the time of the last beat. Where nothing of Python runs any more, because compiled code holds the
interpreter's lock, an alarm of the kernel ends the process; that one the thread sets again as long as it runs.
"""

import faulthandler
import os
import signal
import sys
import threading
import time

from bert_jax.errors import HUNG

LONG = 4.0  # times the usual deadline: for what may take long by itself (compiling, restoring, evaluating, saving)
LOOKS = 20  # at the clock, in one deadline
STDERR = 2  # the descriptor: a notebook's sys.stderr has none
GRACE = 2.0  # times the deadline: when the alarm ends what the thread could not


class Watchdog:
  """As a context manager: from `beat` to `beat`, and to the end, no more than `seconds` may pass; 0: it never bites.

  What is stuck ends with the stacks of all threads on stderr and the exit code HUNG; where the interpreter itself is
  stuck, by SIGALRM.
  """

  def __init__(self, seconds: float, what: str = 'run.hang_minutes'):
    self.seconds, self.what = seconds, what
    self.deadline, self.allowed = float('inf'), seconds
    self.over = threading.Event()
    self.thread = threading.Thread(target=self._watch, name='watchdog', daemon=True)

  def beat(self, times: float = 1.0) -> None:
    """The process is alive, and will be heard of again within `times` the usual."""
    if self.seconds:
      self.allowed = self.seconds * times
      self.deadline = time.monotonic() + self.allowed

  def __enter__(self) -> 'Watchdog':
    if self.seconds:
      self.beat(LONG)
      faulthandler.register(signal.SIGALRM, STDERR, all_threads=True, chain=True)
      self.thread.start()
    return self

  def __exit__(self, *_) -> None:
    if self.seconds:
      self.over.set()
      self.thread.join()
      signal.setitimer(signal.ITIMER_REAL, 0)
      faulthandler.unregister(signal.SIGALRM)

  def _watch(self) -> None:
    while True:
      signal.setitimer(signal.ITIMER_REAL, self.allowed * GRACE)
      if self.over.wait(min(self.seconds / LOOKS, 1.0)):
        return
      if time.monotonic() > self.deadline:
        print(f'bert-jax: nothing has happened for {self.allowed:,.0f} s: this process is stuck, and ends, so that it '
              f'can be started again; where it was only slow, raise --{self.what.replace("_", "-")}', file=sys.stderr,
              flush=True)
        faulthandler.dump_traceback(STDERR, all_threads=True)
        os._exit(HUNG)

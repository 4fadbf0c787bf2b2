"""A SIGTERM while there is nothing new to save: the process ends at once, whatever its main thread is doing.

Python runs a handler between two lines of Python, and a compilation can take minutes; but the kernel's signal is
written to a descriptor at once, and a thread reads there. Signals are the process', so what is known of them here is.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from bert_jax.errors import UNSAVED

RELEASE_SECONDS = 3.0  # that storage has to let go of a lock

_listening, _nothing_new, _heard = threading.Event(), threading.Event(), threading.Event()
_held: list[Callable[[], object]] = []


def begin() -> None:
  """From here until `over`, SIGTERM ends the process with UNSAVED. Call it in the main thread, once."""
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  _listening.set()
  _nothing_new.set()
  signal.signal(signal.SIGTERM, lambda *_: None)  # what is to be done, the thread does
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  threading.Thread(target=_listen, args=(reader,), name='early stop', daemon=True).start()


def over() -> None:
  """There is something to save from now on, and who saves it listens to signals."""
  _nothing_new.clear()


def again() -> None:
  """All is saved: as after `begin`, if that was called. A signal since the last listener left is not forgotten."""
  if _listening.is_set():
    _nothing_new.set()
    if _heard.is_set():
      _end()


@contextlib.contextmanager
def releasing(release: Callable[[], object]) -> Iterator[None]:
  """Calls `release` too where the process is ended inside."""
  _held.append(release)
  try:
    yield
  finally:
    _held.remove(release)


def _listen(reader: int) -> None:
  while heard := os.read(reader, 1):
    if heard[0] == signal.SIGTERM:
      _heard.set()
      if _nothing_new.is_set():
        _end()


def _end() -> None:
  print('bert-jax: asked to stop, and there is nothing new to save: run the same command to go on', file=sys.stderr,
        flush=True)
  for release in list(_held):
    thread = threading.Thread(target=release, daemon=True)
    thread.start()
    thread.join(RELEASE_SECONDS)
  os._exit(UNSAVED)

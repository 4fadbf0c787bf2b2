"""A SIGTERM while the main thread may be busy for minutes: the process ends at once, with what is new saved.

Python runs a handler between two lines of Python, and a compilation can take minutes; but the kernel's signal is
written to a descriptor at once, and a thread reads there. Where there is nothing new to save it ends the process. Where
the main thread only waits, compiles or evaluates, and changes nothing, it saves first. Signals are the process', so
what is known of them here is.
"""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

from bert_jax.errors import UNSAVED

RELEASE_SECONDS = 3.0  # that storage has to let go of a lock
NOTHING_NEW = -1  # in place of a step

_listening, _nothing_new, _heard = threading.Event(), threading.Event(), threading.Event()
_held: list[Callable[[], object]] = []
_at_rest: Callable[[], int] | None = None  # what saves while the main thread changes nothing
_common: tuple[int, Callable[[], int]] | None = None  # the same where all processes of a run do so, at this step
_change = threading.Lock()  # of these; who ends the process keeps it
_writer = -1  # the descriptor at whose other end the thread reads


class Stopped(Exception):
  """Work was left in the middle, as a signal came; it is to be done again."""


def begin() -> None:
  """From here until `over`, SIGTERM ends the process with UNSAVED. Call it in the main thread, once."""
  global _writer
  reader, _writer = os.pipe()
  os.set_blocking(_writer, False)
  _listening.set()
  _nothing_new.set()
  signal.signal(signal.SIGTERM, lambda *_: None)  # what is to be done, the thread does
  signal.set_wakeup_fd(_writer, warn_on_full_buffer=False)
  threading.Thread(target=_listen, args=(reader,), name='early stop', daemon=True).start()


def over() -> None:
  """There is something to save from now on, and who saves it listens to signals."""
  if _nothing_new.is_set():
    with _change:
      _nothing_new.clear()


def again() -> None:
  """All is saved: as after `begin`, if that was called. A signal since the last listener left is not forgotten."""
  if _listening.is_set():
    _nothing_new.set()
    if _heard.is_set():
      _end()


@contextlib.contextmanager
def at_rest(end: Callable[[], int]) -> Iterator[None]:
  """Inside, this thread changes nothing of a run: after `begin` a signal is answered by another one, which calls `end`
  and ends the process with the exit code that it gives."""
  global _at_rest
  with _change:
    _at_rest = end
  if _listening.is_set() and _heard.is_set():  # just before
    os.write(_writer, bytes([signal.SIGTERM]))
  try:
    yield
  finally:
    with _change:  # which comes no more where the process is about to end
      _at_rest = None


@contextlib.contextmanager
def at_common_rest(step: int, end: Callable[[], int]) -> Iterator[None]:
  """As `at_rest`, for one of several processes, which all come to the same place: they leave it together, see
  stop_together. `step`: of the state at hand."""
  global _common
  with _change:
    _common = step, end
  try:
    yield
  finally:
    with _change:
      _common = None


def leave_if(agree: Callable[[int], bool], farewell: Callable[[], None]) -> bool:
  """Whether the main thread rests, of one of several processes; it does until `agree(step)` has said whether all do.

  Where that is so the process ends, saved where there is something new; `farewell` is called just before. The step is
  NOTHING_NEW where nothing is.
  """
  with _change:
    if _nothing_new.is_set():
      step, end = NOTHING_NEW, _say_nothing_new
    elif _common is not None:
      step, end = _common
    else:
      return False
    if agree(step):
      code = _code_of(end)
      farewell()
      _leave(code)
  return True


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
    if heard[0] in (signal.SIGTERM, signal.SIGINT):
      with _change:
        if _at_rest is not None:
          _leave(_code_of(_at_rest))


def _end() -> None:
  _leave(_say_nothing_new())


def _say_nothing_new() -> int:
  print('bert-jax: asked to stop, and there is nothing new to save: run the same command to go on', file=sys.stderr,
        flush=True)
  return UNSAVED


def _code_of(end: Callable[[], int]) -> int:
  try:
    return end()
  except Exception as error:
    if (code := getattr(error, 'exit_code', None)) is None:
      traceback.print_exc()
      return 1
    print(f'bert-jax: {error}', file=sys.stderr)
    return code


def _leave(code: int) -> None:
  for release in list(_held):
    thread = threading.Thread(target=release, daemon=True)
    thread.start()
    thread.join(RELEASE_SECONDS)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)

"""Faults that a process brings on itself, for tests: `prepare` of children.Child.

`proof`: a file that is written in the moment before, by which the fault is proved.
"""

import contextlib
import gc
import io
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable

import jax

from bert_jax import arrays, evaluate, manifest, program, run_directory, train, watchdog
from tests.without import Without

FOREVER = 10**6
HANG_SECONDS = 4.0


def each_step(action: Callable[[int], None]) -> None:
  """In training, whenever a step is done."""
  inner = train.train

  def outer(*args, stop=None, **settings):
    def asked(step: int) -> bool:
      action(step)
      return bool(stop and stop(step))
    return inner(*args, **settings, stop=asked)

  train.train = outer


def at_step(step: int, action: Callable[[], None], proof: str) -> None:
  """When a step is done; once in the life of the file."""
  def act(at: int) -> None:
    if at == step and not os.path.exists(proof):
      pathlib.Path(proof).touch()
      action()

  each_step(act)


def before(owner, name: str, action: Callable[[], None], proof: str, call: int = 1) -> None:
  """Before the given call of a function, once."""
  inner, calls = getattr(owner, name), []

  def outer(*args, **settings):
    calls.append(1)
    if len(calls) == call and not os.path.exists(proof):
      pathlib.Path(proof).touch()
      action()
    return inner(*args, **settings)

  setattr(owner, name, outer)


def hang() -> None:
  """Stuck for ever. The watchdog, which was patient until here with a slow machine, has HANG_SECONDS left."""
  for dog in [found for found in gc.get_objects() if isinstance(found, watchdog.Watchdog)]:
    dog.allowed, dog.deadline = HANG_SECONDS, time.monotonic() + HANG_SECONDS
  time.sleep(FOREVER)


def fail() -> None:
  raise RuntimeError('made to fail')


def full() -> None:
  raise OSError(28, 'No space left on device', '/the/disk')


def told_to_stop() -> None:
  os.kill(os.getpid(), signal.SIGTERM)


def told_twice() -> None:
  for _ in range(2):
    told_to_stop()
    time.sleep(0.1)


def in_a_save(action: Callable[[], None], proof: str, call: int = 1) -> None:
  before(manifest, 'take', action, proof, call)


def in_all_saves(action: Callable[[], None], proof: str) -> None:
  """From the first one of this process on, if `proof` is not there yet."""
  if os.path.exists(proof):
    return

  def take(directory):
    pathlib.Path(proof).touch()
    action()

  manifest.take = take


def in_an_evaluation(action: Callable[[], None], proof: str) -> None:
  """An evaluation on the way."""
  inner = evaluate.on_the_way

  def outer(*args, **settings):
    found = inner(*args, **settings)

    def evaluated(state, step, stopped):
      if not os.path.exists(proof):
        pathlib.Path(proof).touch()
        action()
      return found(state, step, stopped)
    return evaluated

  evaluate.on_the_way = outer


def in_a_restore(action: Callable[[], None], proof: str) -> None:
  before(arrays, 'read_arrays', action, proof)


def slow_compilation(seconds: float, proof: str, call: int = 1) -> None:
  """Compiling a step takes its time, in which the interpreter is free."""
  before(program.Program, 'compile_step', lambda: time.sleep(seconds), proof, call)


def slow_removals(seconds: float, proof: str) -> None:
  """Each file of a folder that is removed takes its time."""
  inner = os.unlink

  def unlink(name, *, dir_fd=None):
    if dir_fd is not None:  # of a whole tree
      pathlib.Path(proof).touch()
      time.sleep(seconds)
    return inner(name, dir_fd=dir_fd)

  os.unlink = unlink


def clock_jumps(step: int, seconds: float, proof: str) -> None:
  """The clock of the wall, not the one that only goes on, as when somebody sets it."""
  begin, real = [0.0], time.time
  time.time = lambda: real() + begin[0]

  def jump():
    begin[0] = seconds
  at_step(step, jump, proof)


def with_cache(directory: str) -> None:
  """A compile cache of its own, in which everything is kept."""
  jax.config.update('jax_compilation_cache_dir', directory)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def slow_steps(seconds: float) -> None:
  each_step(lambda step: time.sleep(seconds))


def count_steps(path: str) -> None:
  """A byte in a file for each step that is done."""
  def count(step: int) -> None:
    with open(path, 'ab') as file:
      file.write(b'.')

  each_step(count)


def slow_start(seconds: float, proof: str) -> None:
  """It looks at the run's directory late."""
  before(run_directory, 'check', lambda: time.sleep(seconds), proof)


def slow_saves(seconds: float) -> None:
  inner = manifest.take

  def take(directory):
    time.sleep(seconds)
    return inner(directory)

  manifest.take = take


def another_version(version: str) -> None:
  manifest.version = lambda: version


def both(first: Callable[[], None] | None, second: Callable[[], None]) -> None:
  if first is not None:
    first()
  second()


def fill(path: str, leave: int = 0) -> None:
  """Takes the room of the disk that a file is on, but for some bytes."""
  found = os.statvfs(os.path.dirname(path))
  with open(path, 'wb', buffering=0) as file:
    with contextlib.suppress(OSError):
      for _ in range((found.f_bavail * found.f_frsize - leave) // 4096 if leave else FOREVER):
        file.write(bytes(4096))


def without(*modules: str) -> None:
  """As on a machine that lacks them."""
  sys.meta_path[:] = [Without(finder, set(modules)) for finder in sys.meta_path]


def streams(condition: str, errors: str) -> None:
  """Standard streams as a command finds them that a shell has started in one of the CONDITIONS of test_streams.py; what
  it can say on standard error goes to the file `errors`."""
  os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
  shut = {'output closed': (1,), 'errors closed': (2,), 'all closed': (0, 1, 2)}.get(condition, ())
  for descriptor in shut:
    os.close(descriptor)
  if condition.endswith('full'):
    os.dup2(os.open('/dev/full', os.O_WRONLY), {'output full': 1, 'errors full': 2}[condition])
  if condition == 'reader gone':
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)
  encoding = 'ascii' if condition in ('ascii', 'no UTF-8') else 'utf-8'
  for name, descriptor, lacking in (('stdout', 1, 'strict'), ('stderr', 2, 'backslashreplace')):
    stream = None if descriptor in shut else io.TextIOWrapper(
        open(descriptor, 'wb', closefd=False), encoding, lacking, line_buffering=descriptor == 2)
    setattr(sys, name, stream)
    setattr(sys, f'__{name}__', stream)

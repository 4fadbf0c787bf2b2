"""Work in one process or many, by one `submit`."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from input_pipeline import records

# What workers import; first what makes sure that it is ours.
PRELOAD = ('bert_jax_command', 'input_pipeline.prepare.corpus', 'google_crc32c', 'pyarrow', 'sentencex', 'tokenizers')


@contextlib.contextmanager
def pool(workers: int) -> Iterator[Callable[..., concurrent.futures.Future]]:
  """A `submit` like an executor's: to processes, or, for one worker, called on the spot.

  Raises DataError where a process dies.
  """
  if workers == 1:
    yield now
    return
  with concurrent.futures.ProcessPoolExecutor(workers, context()) as executor:
    try:
      yield executor.submit
    except concurrent.futures.process.BrokenProcessPool as error:
      raise records.DataError(f'a worker died, perhaps for want of memory; lower --workers (now {workers})') from error
    finally:
      executor.shutdown(cancel_futures=True)


def context() -> multiprocessing.context.BaseContext:
  """How workers start: forked, where that can be, from a process that has imported all and done nothing.

  A fork of this process would copy the threads of the libraries in an unknown state, and each process that is spawned
  imports all again.
  """
  if 'forkserver' not in multiprocessing.get_all_start_methods():
    return multiprocessing.get_context('spawn')
  chosen = multiprocessing.get_context('forkserver')
  chosen.set_forkserver_preload([*PRELOAD])
  return chosen


def begin(workers: int) -> None:
  """Starts what workers are forked from, whose imports then go on beside this process' own."""
  if workers > 1 and context().get_start_method() == 'forkserver':
    import multiprocessing.forkserver  # not there on Windows
    multiprocessing.forkserver.ensure_running()


def now(function: Callable, *arguments) -> concurrent.futures.Future:
  future = concurrent.futures.Future()
  future.set_result(function(*arguments))
  return future


def in_order(calls: Iterable[tuple], submit: Callable, workers: int) -> Iterator[Any]:
  """The results of calls, each (function, argument …), in their order; few of them wait."""
  waiting, ahead = collections.deque(), 2 * workers if workers > 1 else 0
  for call in calls:
    waiting.append(submit(*call))
    while len(waiting) > ahead:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()

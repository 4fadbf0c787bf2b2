"""Work in one process or many, behind one `submit`."""

import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence

from input_pipeline import records


@contextlib.contextmanager
def pool(workers: int, preload: Sequence[str] = ()) -> Iterator[Callable[..., concurrent.futures.Future]]:
  """A `submit` like an executor's: to processes, or, for one worker, called on the spot. Raises DataError where a process dies.

  The processes have imported the modules `preload` when they start.
  """
  if workers == 1:
    yield now
    return
  with concurrent.futures.ProcessPoolExecutor(workers, _context(preload)) as executor:
    try:
      yield executor.submit
    except concurrent.futures.process.BrokenProcessPool as error:
      raise records.DataError(f'a worker died, perhaps for want of memory; lower --workers (now {workers})') from error
    finally:
      executor.shutdown(cancel_futures=True)


def _context(preload: Sequence[str]) -> multiprocessing.context.BaseContext:
  """Forked where that can be, from a process that has imported all and done nothing: a fork of this one would copy the threads of the
  libraries in an unknown state, and each process that is spawned imports all anew."""
  if 'forkserver' not in multiprocessing.get_all_start_methods():
    return multiprocessing.get_context('spawn')
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload([*preload])
  return context


def now(function: Callable, *arguments) -> concurrent.futures.Future:
  future = concurrent.futures.Future()
  future.set_result(function(*arguments))
  return future

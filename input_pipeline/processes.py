"""Work in one process or many, behind one `submit`."""

import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Callable, Iterator

from input_pipeline import records


@contextlib.contextmanager
def pool(workers: int) -> Iterator[Callable[..., concurrent.futures.Future]]:
  """A `submit` like an executor's: to processes, or, for one worker, called on the spot. Raises DataError where a process dies."""
  if workers == 1:
    yield now
    return
  # Spawned, as a fork would copy the threads of the libraries in an unknown state.
  with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context('spawn')) as executor:
    try:
      yield executor.submit
    except concurrent.futures.process.BrokenProcessPool as error:
      raise records.DataError(f'a worker died, perhaps for want of memory; lower --workers (now {workers})') from error
    finally:
      executor.shutdown(cancel_futures=True)


def now(function: Callable, *arguments) -> concurrent.futures.Future:
  future = concurrent.futures.Future()
  future.set_result(function(*arguments))
  return future

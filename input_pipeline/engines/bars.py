"""Bars of progress, of whatever engine."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

TEXT, SHARDS = 'B', 'shard'  # their units
_PERIOD = 10  # seconds from one look to the next


def bar(what: str, unit: str, total: float | None, progress: bool):
  """`total`: None where it is not known; a rough one may be passed."""
  from tqdm import tqdm
  return tqdm(desc=what, unit=unit, unit_scale=unit == TEXT, total=total, disable=None if progress else True,
              mininterval=1)


@contextlib.contextmanager
def shards(progress: bool) -> Iterator[Callable[[int, int], None]]:
  """What is to be called with how many there are, and of how many."""
  with contextlib.ExitStack() as opened:
    made: list[Any] = []  # when there is something to be shown

    def told(done: int, of: int) -> None:
      if not made:
        made.append(opened.enter_context(bar('shards', SHARDS, of, progress)))
      made[0].update(done - made[0].n)

    yield told


@contextlib.contextmanager
def watched(count: Callable[[], int], of: int, progress: bool) -> Iterator[None]:
  """Meanwhile shows how many there are by looking, where whoever makes them tells nothing."""
  ended = threading.Event()

  def look(told: Callable[[int, int], None]) -> None:
    while not ended.wait(_PERIOD):
      with contextlib.suppress(Exception):  # of a storage that fails the work tells
        told(count(), of)

  with shards(progress) as told:
    thread = threading.Thread(target=look, args=(told,), daemon=True)
    thread.start()
    try:
      yield
    finally:
      ended.set()
      thread.join()
    told(count(), of)

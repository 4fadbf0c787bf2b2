"""Training steps timed in turns, alike for this program and its peers. Imports neither's library."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

LEAST = 3  # steps of a turn, however long they take


def spread(values: list[float]) -> dict[str, float]:
  return {'median': statistics.median(values), 'min': min(values), 'max': max(values)}


@dataclasses.dataclass(frozen=True)
class Turn:
  """Some steps, one after the other."""
  seconds: list[float]  # of each step
  tokens: int  # real ones, in all steps
  sequences: int

  @property
  def tokens_per_second(self) -> float:
    return self.tokens / sum(self.seconds)


def take(launch: Callable[[int], Any], finish: Callable[[Any], object], content: Sequence[tuple[int, int]],
         seconds: float, ahead: bool, least: int = LEAST) -> Turn:
  """Runs steps for about `seconds`, `least` of them or more, after one that is not counted.

  That first one finds cold caches, as another had its turn. `launch` starts the step with that batch and `finish` waits
  for it. `content`: tokens and sequences of each batch; the batches come round and round. `ahead`: start a step before
  waiting for the one before it, as training does where the device works by itself.
  """
  start = lambda nth: launch(nth % len(content))
  finish(start(0))
  times: list[float] = []
  begin = last = time.perf_counter()
  pending, more = start(1), True
  while more:
    nth = len(times) + 2
    more = nth <= least or time.perf_counter() - begin < seconds
    following = start(nth) if more and ahead else None
    finish(pending)
    now = time.perf_counter()
    times.append(now - last)
    last = now
    if more:
      pending = following if ahead else start(nth)
  done = [content[nth % len(content)] for nth in range(1, len(times) + 1)]
  return Turn(times, sum(tokens for tokens, _ in done), sum(sequences for _, sequences in done))

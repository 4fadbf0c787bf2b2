"""Going back in a run: to a step before the loss went wrong, and on without the batches after which it did.

Batches are counted from 0 as the steps that first read them. Those in `left_out` are read by none: the step at hand has
the next one. So what a step reads is a function of its number and of what was left out, which every checkpoint says.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from bert_jax.errors import require

Ranges = tuple[tuple[int, int], ...]  # (first, last + 1), disjoint, rising


@dataclasses.dataclass(frozen=True)
class Rewind:
  """What was asked for: back to `step`, and on without the batches of the steps in `skip`."""
  step: int
  skip: tuple[int, int] | None = None
  begin: int = 0  # of the phase that these steps are in

  @property
  def key(self) -> list[int]:
    """By which a checkpoint says that it was done: started again by a launcher, a run goes back once."""
    return [self.step, *(self.skip or (self.step, self.step))]

  def left_out(self, before: Sequence[Sequence[int]]) -> Ranges:
    """What is left out after it; `before`: as a checkpoint has it."""
    ranges = tuple((first, end) for first, end in before)
    return with_more(ranges, self.skip, self.begin) if self.skip else ranges


def parse(step: int | None, skip: str | None) -> Rewind | None:
  """What --rewind-to and --skip-steps ask for. Raises ConfigError."""
  require(skip is None or step is not None, '--skip-steps goes with --rewind-to: name the step to go back to')
  if step is None:
    return None
  require(step >= 0, f'--rewind-to is {step}: wanted a step with a checkpoint')
  if skip is None:
    return Rewind(step)
  first, colon, last = skip.partition(':')
  good = colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)
  require(bool(good), f'--skip-steps is {skip!r}: wanted FIRST:END, as in 390:410 for the batches of steps 390 to 409')
  require(int(first) >= step, f'--skip-steps {skip} begins before --rewind-to {step}, whose parameters have learnt '
          'from it: go back further')
  return Rewind(step, (int(first), int(last)))


def number(step: int, begin: int, left_out: Ranges) -> int:
  """The batch that `step` (from 0) reads, in a phase whose first step is `begin`."""
  for first, end in left_out:
    if begin <= first <= step:
      step += end - first
  return step


def spans(step: int, last: int, begin: int, left_out: Ranges) -> Iterator[tuple[int, int]]:
  """(first, end) of the batches that the steps `step` … `last` - 1 of that phase read, in order."""
  while step < last:
    first = number(step, begin, left_out)
    gap = min((start for start, _ in left_out if start > first), default=None)
    count = last - step if gap is None else min(last - step, gap - first)
    yield first, first + count
    step += count


def with_more(left_out: Ranges, skip: tuple[int, int], begin: int) -> Ranges:
  """`left_out` and the batches that the steps of `skip` read until now, in a phase whose first step is `begin`."""
  more = sorted({number(step, begin, left_out) for step in range(*skip)})
  every = sorted({batch for first, end in left_out for batch in range(first, end)} | set(more))
  found: list[list[int]] = []
  for batch in every:
    if found and found[-1][1] == batch:
      found[-1][1] += 1
    else:
      found.append([batch, batch + 1])
  return tuple((first, end) for first, end in found)

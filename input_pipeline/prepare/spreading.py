"""Pieces on their way from runs to shards where no machine holds them all: in rounds, each to a few ranges of keys.

A *cell* is a range of keys that one worker merges in memory: a shard, or a part of a large one. With a fan of 3 and 9
cells there are two rounds; what a round gives is small enough to be sent, and large enough to be worth it:
  runs        -> cells 0-2, 3-5, 6-8        of some runs at once
  cells 0-2   -> cell 0, cell 1, cell 2     of some of the blocks that came of the runs
A *block* is pieces in one or more parts, each sorted by key.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from input_pipeline.prepare import columns, spill
from input_pipeline.prepare.columns import Pieces
from input_pipeline.prepare.spill import Decisions

Block = tuple[Pieces, ...]
Range = tuple[int, int]  # of keys: [low, high)


@dataclasses.dataclass(frozen=True)
class Cells:
  """The ranges of keys of a split, in order."""
  split: int  # TRAIN or VALIDATION
  shards: int
  of_a_shard: int  # cells
  ranges: tuple[Range, ...]

  def of_shard(self, number: int) -> tuple[Range, ...]:
    return self.ranges[number * self.of_a_shard:(number + 1) * self.of_a_shard]


def cells(split: int, shards: int, of_a_shard: int) -> Cells:
  return Cells(split, shards, of_a_shard, tuple(cell for shard in spill.key_ranges(shards)
                                                for cell in spill.key_ranges(of_a_shard, *shard)))


def slices(ranges: Sequence[Range], fan: int) -> list[Sequence[Range]]:
  """The ranges in at most `fan` parts, each of which is one in the next round."""
  parts = min(fan, len(ranges))
  return [ranges[len(ranges) * i // parts:len(ranges) * (i + 1) // parts] for i in range(parts)]


def whole(ranges: Sequence[Range]) -> Range:
  """The range of ranges that follow each other."""
  return ranges[0][0], ranges[-1][1]


def select(runs: Sequence[spill.Run], decisions: Sequence[Decisions], split: int, ranges: Sequence[Range]
           ) -> list[Block]:
  """What of some runs belongs to a split, a block for each range."""
  return [tuple(spill.select(run, own, split, *cell) for run, own in zip(runs, decisions)) for cell in ranges]


def spread(blocks: Sequence[Block], ranges: Sequence[Range]) -> list[Block]:
  """What of some blocks is in each range."""
  return [(merged(blocks, cell),) for cell in ranges]


def merged(blocks: Sequence[Block], cell: Range) -> Pieces:
  return columns.merge([columns.between(part, *cell) for block in blocks for part in block])


def in_parts(blocks: Sequence[Block], cell: Range, most_tokens: int) -> Iterator[Pieces]:
  """What of some blocks is in a range, merged part by part."""
  tokens = sum(int(part.tokens.sum()) for block in blocks for part in block)
  for part in spill.key_ranges(max(1, -(-tokens // most_tokens)), *cell):
    yield merged(blocks, part)

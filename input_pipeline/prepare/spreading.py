"""Pieces on their way from runs to shards where no machine holds them all: in rounds, each to a few ranges of keys.

A *cell* is a range of keys that one worker merges in memory: a shard, or a part of a large one. With a fan of 3 and 9
cells there are two rounds; what a round gives is small enough to be sent, and large enough to be worth it:
  runs        -> cells 0-2, 3-5, 6-8        of some runs at once
  cells 0-2   -> cell 0, cell 1, cell 2     of some of the blocks that came of the runs
A *block* is pieces in one or more parts, each sorted by key.

Where what comes together passes through files or a shuffle by keys there are two rounds, or one. Each run straight to
each cell costs by their product: 4 billion for a million runs and 26,500 shards. Or *bundles* of runs meet in *slices*
of cells, and then each slice of a bundle is cut into its cells. Four runs, six cells, two bundles, three slices:
  runs 0-1, 2-3   ->   cells 0-1 | 2-3 | 4-5 of 0-1 and of 2-3   ->   cell 0 of 0-1 and of 2-3, cell 1 …
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

from input_pipeline.prepare import columns, spill
from input_pipeline.prepare.columns import Pieces
from input_pipeline.prepare.spill import Decisions

Block = tuple[Pieces, ...]
Range = tuple[int, int]  # of keys: [low, high)
Item = TypeVar('Item')
VALUE = 16 << 20  # bytes of a slice of a bundle
LEAST = 16 << 10  # bytes of a run in a cell; less than that cost more by itself than copied once more with others


@dataclasses.dataclass(frozen=True)
class Rounds:
  """By what runs come to their cells in two rounds."""
  slices: int
  bundles: int


def rounds(runs: int, bytes: float, cells: int) -> Rounds | None:
  """The two rounds of so many runs, of so many bytes together, to so many cells; None where one is cheaper."""
  if bytes >= LEAST * runs * cells:
    return None
  # `slices` parts of each run, and `cells` of each bundle: their sum is smallest where both are as many
  slices = max(1, min(cells, round(math.sqrt(bytes * cells / VALUE / max(1, runs)))))
  return Rounds(slices, max(1, min(runs, math.ceil(bytes / VALUE / slices))))


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


def rounds_of(cells: int, most: int) -> int:
  """How many rounds lead to so many cells where each has a fan of at most `most`."""
  rounds = 1
  while most**rounds < cells:
    rounds += 1
  return rounds


def fan(cells: int, most: int) -> int:
  """The smallest fan that needs no more rounds than `most`: what a round gives is as large as it can be."""
  rounds = rounds_of(cells, most)
  return next(fan for fan in range(1, most + 1) if fan**rounds >= cells)


def slices(ranges: Sequence[Item], fan: int) -> list[Sequence[Item]]:
  """The ranges, or what else stands in a row, in at most `fan` parts, each of which is one in the next round."""
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

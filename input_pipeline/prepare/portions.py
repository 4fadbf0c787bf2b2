"""A shard that is larger than what is merged at once, in portions: ranges of its keys, each sorted into a file.

  keys of a shard 0-7, in two portions   ->   0-3 sorted, 4-7 sorted   ->   read one after the other, the shard
So a machine holds one portion, and a few parts of it as they are merged, whatever --shards asks for.
"""

import dataclasses
import functools
import math
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from input_pipeline import storage
from input_pipeline.prepare import columns, spill
from input_pipeline.prepare.columns import Pieces

TOKENS = 1 << 24  # of a portion, and of a shard unless --shards asks for fewer: 34 MB
PART_TOKENS = 1 << 22  # copied as they are merged


@dataclasses.dataclass(frozen=True)
class Shards:
  """Those of a split."""
  split: int
  shards: int
  tokens: int  # in all


@dataclasses.dataclass(frozen=True, order=True)
class Portion:
  """Which part of which shard."""
  split: int
  shard: int
  shards: int
  number: int = 0
  of: int = 1

  def bounds(self) -> tuple[int, int]:
    """Its keys, [low, high)."""
    shard = _range(self.shard, self.shards, 0, 2**64)
    return _range(self.number, self.of, *shard)


def _range(number: int, count: int, low: int, high: int) -> tuple[int, int]:
  return low + (high - low) * number // count, low + (high - low) * (number + 1) // count


def count(tokens: float, each: int) -> int:
  """In how many ranges of keys there are at most about `each` of so many tokens: keys are hashes, spread evenly."""
  return max(1, math.ceil(tokens / each))


@functools.lru_cache(maxsize=4)
def of_split(own: Shards) -> tuple[Portion, ...]:
  """All portions of a split, in the order of their keys."""
  portions = count(own.tokens / own.shards, TOKENS)
  return tuple(Portion(own.split, shard, own.shards, number, portions)
               for shard in range(own.shards) for number in range(portions))


def whole(portions: Sequence[Portion]) -> tuple[int, int]:
  """The range of keys of portions that follow each other."""
  return portions[0].bounds()[0], portions[-1].bounds()[1]


def merged(many: list[Pieces], portion: Portion) -> Iterator[Pieces]:
  """Pieces of a portion, each sorted, as one sorted row, part by part."""
  parts = count(sum(int(one.tokens.sum(dtype=np.int64)) for one in many), PART_TOKENS)
  for low, high in spill.key_ranges(parts, *portion.bounds()):
    yield columns.merge([columns.between(one, low, high) for one in many])


def put(many: list[Pieces], portion: Portion, folder: storage.Path) -> None:
  """Merges a portion into a file, whose name is its own."""
  pieces = columns.join([*merged(many, portion)])
  with tempfile.TemporaryDirectory() as local:
    file = pathlib.Path(local) / _name(portion)
    spill.write(file, spill.of_pieces(pieces), {})
    storage.put(file, folder / file.name)


def read(portions: list[Portion], folder: storage.Path) -> Iterator[Pieces]:
  """The portions of a shard that were put into files, in order, part by part."""
  for portion in sorted(portions):
    with tempfile.TemporaryDirectory() as local:
      file = pathlib.Path(local) / _name(portion)
      storage.copy(folder / file.name, storage.path(str(file)))
      pieces = spill.read(file).pieces
      yield from merged([pieces], portion)


def _name(portion: Portion) -> str:
  return f'{spill.SPLITS[portion.split]}-{portion.shard:05d}-{portion.number:05d}.portion'

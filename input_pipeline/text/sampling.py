"""A sample of documents by a hash of each: the same ones whatever their order, their files, and who reads them.

Every document has a key, a hash of its id and its text. The sample are those with the smallest keys; so two passes over
the text tell which they are, and each document by itself whether it is one. Three documents:
  keys of a chunk 7 2 9, of another 4 2 8   ->   the smallest of all that differ: 2 4 7   ->   documents below 8
"""

import dataclasses
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from input_pipeline import records
from input_pipeline.text import document, reading, sources

MOST = 1 << 23  # documents that are drawn: their keys are 64 MiB, which one process holds
_HELD = 1 << 20  # keys more than those that are wanted, before the largest go


def key(one: document.Document, seed: int) -> int:
  """64 bits. The same id and text are the same document, which is drawn once, however often it is there."""
  return int.from_bytes(document.digest(one, seed, person=b'sample'), 'little')


def keys(chunk: sources.Chunk, limit: int, seed: int) -> np.ndarray:  # -> [K] uint64
  """The smallest keys, at most `limit`, of the documents that a chunk's weight takes. Raises DataError."""
  taken, _ = sources.taken(sources.parse(chunk).documents, chunk.weight)
  return smallest([np.array([key(one, seed) for one, _ in taken], '<u8')], limit)


@dataclasses.dataclass(frozen=True)
class Sized:
  """The smallest keys of some text."""
  keys: np.ndarray  # [K] uint64
  size: int  # bytes of the text


def sized_keys(chunk: sources.Chunk, place: reading.Place, limit: int, seed: int) -> Sized:
  return Sized(keys(chunk, limit, seed), chunk.size())


def smallest_sized(many: Iterable[Sized]) -> Sized:
  """Of a section, which is read by one process."""
  found = [*many]
  return Sized(np.unique(np.concatenate([np.zeros(0, '<u8'), *(one.keys for one in found)])),
               sum(one.size for one in found))


def smallest(parts: Iterable[np.ndarray], limit: int) -> np.ndarray:  # [K] … -> [K] uint64
  """The smallest of all that differ, sorted, at most `limit`: of parts, or of what this gave for each."""
  kept = Smallest(limit)
  for part in parts:
    kept.add(part)
  return kept.found()


class Smallest:
  """The smallest keys of parts, as they come; `below`: those that are not below it are none of them, if it is known."""

  def __init__(self, limit: int):
    self.limit, self.held, self.size = limit, [np.zeros(0, '<u8')], 0
    self.below: int | None = None

  def add(self, part: np.ndarray) -> None:  # [K] uint64
    self.held.append(less(part, self.below))
    self.size += len(self.held[-1])
    if self.size > self.limit + _HELD:
      self.held = [self.found()]
      self.size = len(self.held[0])
      self.below = int(self.held[0][-1]) if self.size == self.limit else None

  def found(self) -> np.ndarray:  # -> [K] uint64
    return np.unique(np.concatenate(self.held))[:self.limit]


def less(keys: np.ndarray, below: int | None) -> np.ndarray:  # [K] -> [K]
  return keys if below is None else keys[keys < np.uint64(below)]


def below(found: np.ndarray, limit: int) -> int:  # [K] -> -
  """Documents whose keys are below this are the sample: exactly `limit` that differ, or all where there are fewer."""
  return int(found[-1]) + 1 if len(found) == limit else 2**64


def check(limit: int | None, first: int | None, parts: list[sources.Part]) -> None:
  """Raises DataError for settings that do not go together, or do not go with this input."""
  if limit is not None and first is not None:
    raise records.DataError('--limit draws from all documents and --first takes the first ones: leave one of them out')
  if limit is not None and (once := sources.read_once(parts)):
    raise records.DataError(
        f'--limit reads the text twice, and --input {once[0]} can be read only once: write it to a file, or take its '
        'first documents, by --first')


def documents(parts: list[sources.Part], limit: int | None, first: int | None,
              seed: int) -> Iterator[document.Document]:
  """The documents of a mix as often as its weights say, one after the other: all, a sample, or the first ones.

  Raises DataError.
  """
  check(limit, first, parts)
  bound = 2**64
  if limit is not None:
    bound = below(smallest((keys(chunk, limit, seed) for chunk in sources.chunks(parts)), limit), limit)
  seen = 0
  for chunk in sources.chunks(parts):
    for one, often in sources.taken(sources.parse(chunk).documents, chunk.weight)[0]:
      if limit is None or key(one, seed) < bound:
        yield from [one] * often
        seen += 1
      if seen == first:
        return


def drawn(parts: list[sources.Part], bound: int | None, seed: int) -> Iterator[document.Document]:
  """The documents of a mix whose keys are below a bound, or all, as often as its weights say. Raises DataError."""
  for chunk in sources.chunks(parts):
    for one, often in sources.taken(sources.parse(chunk).documents, chunk.weight)[0]:
      if bound is None or key(one, seed) < bound:
        yield from [one] * often


def lines(found: Iterable[document.Document], seed: int, most: int | None = None,
          cost: Callable[[str], int] = lambda line: 1) -> Iterator[str]:
  """The lines of documents, in their order: of all, or of those with the smallest keys whose lines cost at most `most`
  together."""
  parted = ((one, [line for line in one.text.split('\n') if line.strip()]) for one in found)
  if most is None:
    for _, own in parted:
      yield from own
    return
  entry, bound, costs = struct.Struct('<QI'), 2**64, _Costs(most)
  with tempfile.TemporaryFile() as spool:  # of those that may be chosen; reading them again is slower
    for one, own in parted:
      if own and (number := key(one, seed)) < bound:
        data = '\n'.join(own).encode('utf-8', 'surrogatepass')
        spool.write(entry.pack(number, len(data)) + data)
        bound = costs.bound_with(number, sum(map(cost, own)))
    bound = costs.bound()
    spool.seek(0)
    while head := spool.read(entry.size):
      number, size = entry.unpack(head)
      data = spool.read(size)
      if number < bound:
        yield from data.decode('utf-8', 'surrogatepass').split('\n')


class _Costs:
  """What documents cost, of those whose keys are the smallest; how small a key must be, of what was seen so far."""

  def __init__(self, most: int):
    self.most, self.so_far = most, 2**64
    self.keys: list[int] = []
    self.costs: list[int] = []
    self.new = 0  # that came after the bound was found

  def bound_with(self, number: int, cost: int) -> int:
    self.keys.append(number)
    self.costs.append(cost)
    self.new += cost
    return self.bound() if self.new > self.most else self.so_far

  def bound(self) -> int:
    """Keys below this cost at most `most` together; the smallest key is always one of them."""
    keys, costs = np.array(self.keys, '<u8'), np.array(self.costs, np.int64)
    order = np.argsort(keys, kind='stable')
    beyond = np.flatnonzero(np.cumsum(costs[order]) > self.most)
    if len(beyond):
      self.so_far = max(int(keys[order[beyond[0]]]), int(keys[order[0]]) + 1)
      kept = keys < np.uint64(self.so_far)
      self.keys, self.costs = keys[kept].tolist(), costs[kept].tolist()
    self.new = 0
    return self.so_far

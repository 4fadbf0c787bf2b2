"""Text as it is read on Ray: sources are read by some workers, and what is read is worked on by others."""

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from input_pipeline.engines import ray_tasks
from input_pipeline.text import files, sources

_AHEAD = 2  # raw documents, by how many tasks' worth reading is ahead
_TASKS = 4  # for each CPU, at least, where there is text enough


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What bounds a task that maps, or merges."""
  chunk: int  # bytes of raw text, sources.CHUNK_BYTES
  section: int  # bytes of a large file, sources.SECTION_BYTES
  text: int = 16 << 20  # bytes of raw text that are mapped at once, at most
  value: int = 32 << 20  # bytes of values that are merged at once


def run_bytes(chunk_bytes: int, most: int, size: int) -> int:
  """Of the text that a task works on, of so much in all."""
  return max(chunk_bytes, min(most, size // (_TASKS * ray_tasks.cpus())))


def raw(parts: Sequence[sources.Part], chunk_bytes: int, section_bytes: int, most: int
        ) -> Iterator[tuple[tuple[int, int], object]]:
  """((batch, number), reference to raw documents, [sources.Chunk] of about `most` bytes at most), as they are read;
  several sources are read beside each other."""
  import ray
  target = run_bytes(chunk_bytes, most, sum(part.stamp.bytes for part in parts))
  # no CPU: a reader waits, most of its time, until what it read is made into runs, which needs one
  split = ray_tasks.task(_split, num_cpus=0, num_returns='streaming', scheduling_strategy='SPREAD',
                          _generator_backpressure_num_objects=_AHEAD)
  batches = enumerate(_batches(sources.divided(parts, section_bytes), target))
  readers: collections.deque = collections.deque()  # (batch, numbers, reader), that which waits longest first
  while True:
    for batch, some in itertools.islice(batches, max(0, ray_tasks.cpus() - len(readers))):
      readers.append((batch, itertools.count(), split.remote(some, chunk_bytes, target)))
    if not readers:
      return
    [ready], _ = ray.wait([reader for *_, reader in readers], fetch_local=False)
    place = next(place for place, (*_, reader) in enumerate(readers) if reader is ready)
    batch, numbers, reader = readers[place]
    del readers[place]
    try:
      raw = next(reader)
    except StopIteration:
      continue
    readers.append((batch, numbers, reader))
    yield (batch, next(numbers)), raw


def _batches(parts: Sequence[sources.Part], target: int) -> Iterator[list[sources.Part]]:
  """Sources that one worker reads: small ones together."""
  batch: list[sources.Part] = []
  size = 0
  for part in parts:
    if batch and (size + part.stamp.bytes > target or part.weight != batch[0].weight):
      yield batch
      batch, size = [], 0
    batch.append(part)
    size += part.stamp.bytes
  if batch:
    yield batch


def _split(parts: list[sources.Part], chunk_bytes: int, target: int) -> Iterator[list[sources.Chunk]]:
  """The chunks of some sources, about `target` bytes of text at once; fewer where documents are taken many times."""
  most = max(1, int(target / max(1, parts[0].weight)))
  held: list[sources.Chunk] = []
  size = 0
  for chunk in sources.chunks(parts, min(chunk_bytes, most)):
    length = sum(one.content.size() if isinstance(one.content, files.RawDocuments) else chunk_bytes
                 for one in (chunk, *chunk.more))
    if held and size + length > most:
      yield held
      held, size = [], 0
    held.append(chunk)
    size += length
  if held:
    yield held

"""Text to runs, on Ray: sources are read by some workers, and what is read is made into runs by others."""

import collections
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from input_pipeline.prepare import deciding, ray_tasks, spill, stages
from input_pipeline.prepare.ray_tasks import Made, Plan, Sizes, Tell
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import files, sampling, sources

_AHEAD = 2  # raw documents, by how many tasks' worth reading is ahead
_TASKS = 4  # for each CPU, at least, where there is text enough


def all_runs(tell: Tell, plan: Plan) -> list[Made]:
  """The runs of a mix, in its order."""
  import ray
  target = run_bytes(plan.sizes, sum(part.stamp.bytes for part in plan.parts))
  below = _below(tell, plan, target)
  vocabulary = ray.put(plan.vocabulary)
  make = ray_tasks.task(_make_runs, num_returns=3)
  asked = ((place, make.remote(raw, plan.settings, vocabulary, below)) for place, raw in _raw(plan, target))
  found, done, documents = {}, 0, 0
  for place, (table, run), (counts, bytes) in ray_tasks.flow(asked):
    found[place] = Made(table, run, counts, bytes, counts['documents'])
    done += counts['bytes']
    documents += counts['documents']
    tell('text → pieces', done, plan.text, documents)
  return [found[place] for place in sorted(found)]


def run_bytes(sizes: Sizes, size: int) -> int:
  """Of the text of a run, of so much in all."""
  return max(sizes.chunk, min(sizes.run, size // (_TASKS * ray_tasks.cpus())))


def _below(tell: Tell, plan: Plan, target: int) -> int | None:
  """The bound of the keys of documents that --limit draws."""
  if plan.settings.limit is None:
    return None
  smallest, task, done = sampling.Smallest(plan.settings.limit), ray_tasks.task(_keys), 0
  # each is told what is known by then, so that few keys come here
  asked = ((place, task.remote(raw, plan.settings, smallest.below)) for place, raw in _raw(plan, target))
  for _, _, (keys, bytes) in ray_tasks.flow(asked):
    smallest.add(keys)
    done += bytes
    tell('drawing documents', done, plan.text, 0)
  return sampling.below(smallest.found(), plan.settings.limit)


def _raw(plan: Plan, target: int) -> Iterator[tuple[tuple[int, int], object]]:
  """((batch, number), reference to raw documents), as they are read; several sources are read beside each other."""
  import ray
  # no CPU: a reader waits, most of its time, until what it read is made into runs, which needs one
  split = ray_tasks.task(_split, num_cpus=0, num_returns='streaming', scheduling_strategy='SPREAD',
                _generator_backpressure_num_objects=_AHEAD)
  batches = enumerate(_batches(sources.divided(plan.parts, plan.sizes.section), target))
  readers: collections.deque = collections.deque()  # (batch, numbers, reader), that which waits longest first
  while True:
    for batch, parts in itertools.islice(batches, max(0, ray_tasks.cpus() - len(readers))):
      readers.append((batch, itertools.count(), split.remote(parts, plan.sizes.chunk, target)))
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
  batch, size = [], 0
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
  held, size = [], 0
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


def _keys(raw: list[sources.Chunk], settings: Prepare, below: int | None) -> tuple[np.ndarray, int]:
  keys = sampling.smallest((stages.smallest_keys(chunk, settings) for chunk in raw), settings.limit or sampling.MOST)
  return sampling.less(keys, below), sum(chunk.size() for chunk in raw)


def _make_runs(raw: list[sources.Chunk], settings: Prepare, vocabulary: stages.Sent, below: int | None
               ) -> tuple[deciding.Table, spill.Run, tuple[collections.Counter, int]]:
  counts, made = collections.Counter(), []
  for chunk in raw:
    run, own = stages.make_run(chunk, settings, stages.unpacked(vocabulary), below)
    made.append(run)
    counts.update(own)
  run = spill.join(made)
  return deciding.table(run), run, (counts, spill.size(run))

"""Text to runs, on Ray: sources are read by some workers, and what is read is made into runs by others."""

import collections
from collections.abc import Iterator

import numpy as np

from input_pipeline.engines import ray_reading, ray_tasks
from input_pipeline.engines.ray_tasks import Tell
from input_pipeline.prepare import deciding, spill, stages
from input_pipeline.prepare.ray_plan import Made, Plan
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import sampling, sources


def all_runs(tell: Tell, plan: Plan) -> list[Made]:
  """The runs of a mix, in its order."""
  import ray
  below = _below(tell, plan)
  vocabulary = ray.put(plan.vocabulary)
  make = ray_tasks.task(_make_runs, num_returns=3)
  asked = ((place, make.remote(raw, plan.settings, vocabulary, below)) for place, raw in _raw(plan))
  found, done, documents = {}, 0, 0
  for place, (table, run), (counts, bytes) in ray_tasks.flow(asked):
    found[place] = Made(table, run, counts, bytes, counts['documents'])
    done += counts['bytes']
    documents += counts['documents']
    tell('text → pieces', done, plan.text, documents)
  return [found[place] for place in sorted(found)]


def _raw(plan: Plan) -> Iterator[tuple[tuple[int, int], object]]:
  return ray_reading.raw(plan.parts, plan.sizes.chunk, plan.sizes.section, plan.sizes.run)


def _below(tell: Tell, plan: Plan) -> int | None:
  """The bound of the keys of documents that --limit draws."""
  if plan.settings.limit is None:
    return None
  smallest, task, done = sampling.Smallest(plan.settings.limit), ray_tasks.task(_keys), 0
  # each is told what is known by then, so that few keys come here
  asked = ((place, task.remote(raw, plan.settings, smallest.below)) for place, raw in _raw(plan))
  for _, _, (keys, bytes) in ray_tasks.flow(asked):
    smallest.add(keys)
    done += bytes
    tell('drawing documents', done, plan.text, 0)
  return sampling.below(smallest.found(), plan.settings.limit)


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
  table, run = deciding.table(run), spill.without_signatures(run)
  return table, run, (counts, spill.size(run))

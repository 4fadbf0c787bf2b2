"""Tasks of Ray: what bounds them, and some in flight at once."""

import collections
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from input_pipeline.prepare import portions, stages
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import sources

_IN_FLIGHT = 2  # tasks for each CPU that are asked for at once
_PERIOD = 10  # seconds for which the size of the cluster is believed
Tell = Callable[..., None]  # (stage, done, total, documents), of ray_jobs.py


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What bounds the memory of a worker, a value that is sent, and how many of them there are."""
  chunk: int  # bytes of raw text, sources.CHUNK_BYTES
  section: int  # bytes of a large file, sources.SECTION_BYTES
  run: int = 16 << 20  # bytes of raw text of a run
  value: int = 32 << 20  # bytes of what is worked on at once: of runs, tables, blocks
  fan: int = 48  # ranges of keys of a round, at most
  least: int = 256 << 10  # bytes of what is sent where that is much: the driver has references, and holds what is small
  part_tokens: int = portions.PART_TOKENS  # merged at once for a shard


@dataclasses.dataclass(frozen=True)
class Plan:
  """A job as it travels."""
  settings: Prepare
  parts: tuple[sources.Part, ...]
  vocabulary: stages.Sent
  unknown_id: int
  shared: str
  sizes: Sizes
  text: int | None = None  # bytes of all, about, where that is known


@dataclasses.dataclass(frozen=True)
class Made:
  """A run that a worker made; its values are elsewhere."""
  table: object
  run: object
  counts: collections.Counter
  bytes: int
  documents: int


def task(function: Callable, **options):
  import ray
  return ray.remote(**{'num_cpus': 1} | options)(function)


def cpus() -> int:
  """Of the cluster as it is now: one that grows when it has much to do gets more."""
  return _cpus_in(int(time.monotonic() // _PERIOD))


@functools.lru_cache(maxsize=1)
def _cpus_in(period: int) -> int:
  import ray
  return max(1, int(ray.cluster_resources().get('CPU', 1)))


def wanted() -> int:
  """Tasks that are to be in flight, or as many parts as work is worth to be cut into."""
  return _IN_FLIGHT * cpus()


def flow(jobs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, list, Any]]:
  """(key, references, small result) of tasks as they end. `jobs` are asked for as there is room: (key, the references
  that the task gives, the last of which is of the small result; or that one)."""
  import ray
  asked, waiting = iter(jobs), {}
  while True:
    while len(waiting) < wanted() and (job := next(asked, None)) is not None:
      key, refs = job[0], job[1] if isinstance(job[1], list) else [job[1]]
      waiting[refs[-1]] = key, refs[:-1]
    if not waiting:
      return
    [done], _ = ray.wait(list(waiting))
    key, refs = waiting.pop(done)
    yield key, refs, ray.get(done)


def in_order(jobs: Iterable[tuple[Any, Any]]) -> list[tuple[list, Any]]:
  """(references, small result) of all tasks, by their keys."""
  found = {key: (refs, small) for key, refs, small in flow(jobs)}
  return [found[key] for key in sorted(found)]

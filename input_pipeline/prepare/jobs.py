"""What an engine is given, and what it is."""

import collections
import dataclasses
import pathlib
from collections.abc import Callable

from input_pipeline import records, storage
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import sources
from input_pipeline.vocabulary import tokenizer


@dataclasses.dataclass(frozen=True)
class Job:
  """What an engine works on, and where."""
  settings: Prepare
  parts: list[sources.Part]  # the mix of `settings.input`
  vocabulary: tokenizer.Tokenizer
  workplace: pathlib.Path  # of this machine; what a killed job of the same work left is in it
  data: pathlib.Path  # where shards are published from, on this machine
  shared: storage.Path  # a folder of this job only, to be made, that every machine of the output sees
  arguments: tuple[str, ...] = ()  # the engine's own, as they stand after --
  progress: bool = True


@dataclasses.dataclass(frozen=True)
class Engine:
  """A way to do the work."""
  # Leaves shards in `data`; of an output in a bucket, perhaps in `shared`. Raises DataError, EngineError.
  make_shards: Callable[[Job], tuple[dict[str, records.Split], collections.Counter]]
  # Looks at what stands after --, before anything else is done. Raises DataError.
  check: Callable[[tuple[str, ...]], None]


def bring(job: Job, written: dict[str, records.Split]) -> None:
  """Moves shards that workers wrote into `shared` to `data`, where both are on a disk."""
  if storage.is_local(job.shared):
    for split in written.values():
      for shard in split.shards:
        storage.move(job.shared / shard.file, job.data / shard.file)

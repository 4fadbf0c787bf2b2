"""A job of `prepare` on Ray as it travels, and what bounds its tasks."""

import collections
import dataclasses

from input_pipeline.prepare import portions, stages
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import sources


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

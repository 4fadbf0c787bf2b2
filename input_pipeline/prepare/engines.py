"""The engines that schedule the stages of `prepare` (stages.py), by the name that --engine takes.

An engine is one file with an ENGINE in it, and one line here; what it is built on is imported when it is asked for.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from input_pipeline import records, storage

if TYPE_CHECKING:
  import collections

  from input_pipeline.prepare.settings import Prepare
  from input_pipeline.text import sources
  from input_pipeline.vocabulary import tokenizer


@dataclasses.dataclass(frozen=True)
class Job:
  """What an engine works on, and where."""
  settings: 'Prepare'
  parts: list['sources.Part']  # the mix of `settings.input`
  vocabulary: 'tokenizer.Tokenizer'
  workplace: pathlib.Path  # of this machine; what a killed job of the same work left is in it
  data: pathlib.Path  # where shards are published from, on this machine
  shared: storage.Path  # a folder of this job only, to be made, that every machine of the output sees
  arguments: tuple[str, ...] = ()  # the engine's own, as they stand after --
  progress: bool = True


@dataclasses.dataclass(frozen=True)
class Engine:
  """A way to do the work."""
  # Leaves shards in `data`; where that is not on the storage of the output, perhaps in `shared`. Raises DataError.
  make_shards: Callable[[Job], tuple[dict[str, records.Split], 'collections.Counter']]
  # Looks at what stands after --, before anything else is done. Raises DataError.
  check: Callable[[tuple[str, ...]], None]
  cannot: tuple[str, ...] = ()  # the settings that it must leave as they are


def _processes() -> Engine:
  from input_pipeline.prepare import on_processes
  return on_processes.ENGINE


def _beam() -> Engine:
  from input_pipeline.prepare import on_beam
  return on_beam.ENGINE


ENGINES: dict[str, Callable[[], Engine]] = {'processes': _processes, 'beam': _beam}

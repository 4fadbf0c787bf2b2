"""What is gathered of text, or of other inputs: each is mapped to a value, and values are merged, in any order.

It is all that an engine needs to know to count words or to look at shards. Both functions are of modules, perhaps with
some arguments bound (functools.partial), so that they can be sent; what they give is the same on any machine.
  map     a chunk of documents, or another input      -> a value
  merge   values, some or all, in whatever order      -> one value of the same kind
  divide  a value, a number                           -> so many values that merge to it, by hashes of what is in it
A value that grows with the corpus is divided, so that each part stays below 64 MB on its way.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from input_pipeline import records
from input_pipeline.engines import amounts, names
from input_pipeline.text import files, sources


def whole(value: Any, parts: int) -> list[Any]:
  """For a value that does not grow with the corpus."""
  return [value]


@dataclasses.dataclass(frozen=True)
class Gathering:
  """What is to be done."""
  title: str  # of a bar: 'text → words'
  map: Callable[[Any], Any]
  merge: Callable[[Iterable[Any]], Any]
  divide: Callable[[Any, int], Sequence[Any]] = whole
  parts: int = 1  # that it is divided into on the way
  kinds: tuple[type, ...] = ()  # the records that values are made of, which may be files on the way (packing.py)


@dataclasses.dataclass(frozen=True)
class Job:
  """For whom, and where."""
  engine: str
  beside: str  # a path that workers and driver share, beside which they may write for as long as it takes
  called: str  # what the user calls it: '--output vocab.txt'
  arguments: tuple[str, ...] = ()  # the engine's own, as they stand after --
  workers: int = 1
  progress: bool = True
  stored: tuple[tuple[str, int], ...] = ()  # (path, bytes) of files that workers must see, beside the text


# What is gathered of the chunks of a mix, or of other inputs, in parts: each is merged, in no order.
Gather = Callable[[Gathering, list[sources.Part] | list[Any]], list[Any]]


@dataclasses.dataclass(frozen=True)
class Engine:
  """A way to do the work."""
  # In which it is looked at once whether workers can do it. Raises DataError, EngineError. (job, text that is read)
  session: Callable[[Job, list[sources.Part]], AbstractContextManager[Gather]]
  # Looks at what stands after --, before anything else is done. Raises DataError.
  check: Callable[[tuple[str, ...]], None]


def is_text(inputs: Sequence[Any]) -> bool:
  """Whether these are sources, whose chunks are what is mapped."""
  return bool(inputs) and isinstance(inputs[0], sources.Part)


def refuse_what_is_read_once(parts: list[sources.Part]) -> None:
  """Raises DataError for standard input and pipes, which other machines do not have."""
  if once := sources.read_once(parts):
    raise records.DataError(f'--input {once[0]} can be read only once, and here: write it to a file, or use --engine '
                            f'{names.HERE}')


def plan(work: Gathering, inputs: Sequence[Any], memory: int, more: str) -> str | None:
  """What is told before the work; None where it cannot be told. `memory`: bytes of a worker."""
  needs = f'a worker needs about {amounts.words(memory)} of memory; {more}'
  if not is_text(inputs):
    return f'plan: {work.title}: {len(inputs):,} tasks; {needs}'
  size = amounts.text_bytes(inputs)
  if size is None:
    return None
  chunks = max(1, -(-size // sources.CHUNK_BYTES))
  return (f'plan: {work.title}: about {amounts.words(size)} of text in {chunks:,} chunk{"s" * (chunks != 1)}, merged '
          f'in {work.parts:,} part{"s" * (work.parts != 1)}; {needs}')


def tell(sentence: str | None) -> None:
  if sentence is not None:
    files.tell(sentence)

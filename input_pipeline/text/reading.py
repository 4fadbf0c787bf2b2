"""The chunks of a mix, worked on by one process or many: a section of a large file is read where it is worked on, other
text here.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from input_pipeline import processes
from input_pipeline.text import sources

Place = tuple[int, int]  # (group, number): in the order of the mix


def groups(parts: list[sources.Part]) -> list[list[sources.Part]]:
  """The mix in its order: sections of large files, each by itself, and what else stands between them."""
  found: list[list[sources.Part]] = []
  for part in sources.divided(parts, sources.SECTION_BYTES):
    if found and not sources.is_section(part) and not sources.is_section(found[-1][0]):
      found[-1].append(part)
    else:
      found.append([part])
  return found


def each(groups: list[list[sources.Part]], submit: Callable, workers: int, function: Callable[..., Any],
         merge: Callable[[Iterable[Any]], Any], *arguments) -> Iterator[Any]:
  """What function(chunk, its place, *arguments) gives, in order; of a section, what `merge` makes of all of it.

  Both are functions of modules, and `submit` is of `processes.pool`.
  """
  def calls() -> Iterator[tuple]:
    for number, group in enumerate(groups):
      if sources.is_section(group[0]):
        yield _of_section, group, number, sources.CHUNK_BYTES, function, merge, arguments
      else:
        for place, chunk in _placed(group, number, sources.CHUNK_BYTES):
          yield function, chunk, place, *arguments

  return processes.in_order(calls(), submit, workers)


def _placed(group: list[sources.Part], number: int, chunk_bytes: int) -> Iterator[tuple[Place, sources.Chunk]]:
  for place, chunk in enumerate(sources.chunks(group, chunk_bytes)):
    yield (number, place), chunk


def _of_section(group: list[sources.Part], number: int, chunk_bytes: int, function: Callable, merge: Callable,
                arguments: tuple) -> Any:
  return merge(function(chunk, place, *arguments) for place, chunk in _placed(group, number, chunk_bytes))

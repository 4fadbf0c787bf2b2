"""What is gathered by one process of this machine, or by many."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from input_pipeline import processes, records
from input_pipeline.engines import amounts, bars, gathering, names
from input_pipeline.engines.gathering import Gather, Gathering, Job
from input_pipeline.text import reading, sources

Sized = tuple[Any, int]  # a value, and how much was read for it


@contextlib.contextmanager
def session(job: Job, parts: list[sources.Part]) -> Iterator[Gather]:
  with processes.pool(job.workers) as submit:
    yield functools.partial(_gather, job, submit)


def _gather(job: Job, submit: Callable, work: Gathering, inputs: list) -> list[Any]:
  text = gathering.is_text(inputs)
  total = amounts.text_bytes(inputs) if text and job.progress else len(inputs)
  with bars.bar(work.title, bars.TEXT if text else bars.SHARDS, total, job.progress) as bar:
    if text:
      found = reading.each(reading.groups(inputs), submit, job.workers, _of_chunk,
                           functools.partial(_together, merge=work.merge), work.map)
    else:
      found = processes.in_order(((_of_input, one, work.map) for one in inputs), submit, job.workers)
    return [work.merge(_told(found, bar))]


def _of_chunk(chunk: sources.Chunk, place: reading.Place, map: Callable) -> Sized:
  return map(chunk), chunk.size()


def _of_input(one: Any, map: Callable) -> Sized:
  return map(one), 1


def _together(many: Iterable[Sized], merge: Callable) -> Sized:
  """Of a section, which is read by one process."""
  size = 0

  def values() -> Iterator[Any]:
    nonlocal size
    for value, own in many:
      size += own
      yield value

  merged = merge(values())
  return merged, size


def _told(found: Iterable[Sized], bar: Any) -> Iterator[Any]:
  for value, size in found:
    bar.update(size)
    yield value


def check(arguments: tuple[str, ...]) -> None:
  if arguments:
    raise records.DataError(f'there is {arguments[0]} after --: processes of this machine take no flags of their own; '
                            f'name an engine that does (--engine {[*names.ENGINES][1]}), or leave -- out')


ENGINE = gathering.Engine(session, check)

"""What is gathered on Ray: tasks map, others merge what they gave, level by level; values go from worker to worker.

  map     some chunks, about 16 MB of text, or an input  -> a value
  divide  values, 32 MB of them                          -> merged, in parts
  merge   values of a part, 32 MB of them                -> merged, until there is one
The driver has references, and in the end a value of each part.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterator
from typing import Any

from input_pipeline.engines import amounts, gathering, packing, probing, ray_jobs, ray_reading, ray_tasks
from input_pipeline.engines.gathering import Gather, Gathering, Job
from input_pipeline.engines.ray_reading import Sizes
from input_pipeline.engines.ray_tasks import Tell
from input_pipeline.text import sources

MEMORY = 340 << 20  # bytes that a worker takes


@contextlib.contextmanager
def session(job: Job, parts: list[sources.Part]) -> Iterator[Gather]:
  gathering.refuse_what_is_read_once(parts)
  question = probing.ask(None, job.called, job.engine, list(map(sources.absolute, parts)), job.stored)
  yield functools.partial(_gather, job, question)


def _gather(job: Job, question: probing.Question, work: Gathering, inputs: list) -> list[Any]:
  text = gathering.is_text(inputs)
  plan = gathering.plan(work, inputs, MEMORY, 'values go from worker to worker') if job.progress else None
  total = (amounts.text_bytes(inputs) if text else len(inputs)) if job.progress else None
  return ray_jobs.run(_drive, ray_jobs.options(job.arguments), job.progress, question, work,
                      list(map(sources.absolute, inputs)) if text else inputs, plan, total,
                      Sizes(sources.CHUNK_BYTES, sources.SECTION_BYTES))


def _drive(tell: Tell, question: probing.Question, work: Gathering, inputs: list, plan: str | None, total: int | None,
           sizes: Sizes) -> list[Any]:
  nodes = ray_tasks.ask_nodes(tell, question)
  if plan is not None:
    tell(f'{plan}, {ray_tasks.cpus():,} CPUs of {nodes:,} nodes', 0, 0)
  return ray_tasks.led(tell, _work, work, inputs, total, sizes)


def _work(tell: Tell, work: Gathering, inputs: list, total: int | None, sizes: Sizes) -> list[Any]:
  """References to the merged value of each part."""
  import ray
  text, sent = gathering.is_text(inputs), ray.put(work)
  each = (raw for _, raw in ray_reading.raw(inputs, sizes.chunk, sizes.section, sizes.text)) if text else iter(inputs)
  map_one, divide = ray_tasks.task(_map, num_returns=2), ray_tasks.task(_divide, num_returns=work.parts + 1)
  waiting: list[tuple[int, Any]] = []  # (bytes, reference) of values that are to be divided
  parts: list[list[tuple[int, Any]]] = [[] for _ in range(work.parts)]

  def divided(least: int) -> Iterator[tuple[bool, list]]:
    """(False, the references of parts) of what waits, where it is so many bytes."""
    while waiting and sum(size for size, _ in waiting) >= least:
      bundle = next(ray_tasks.bundles(waiting, sizes.value))
      del waiting[:len(bundle)]
      yield False, divide.remote(sent, *(ref for _, ref in bundle))

  def asked() -> Iterator[tuple[bool, list]]:
    for one in each:
      yield True, map_one.remote(sent, one, text)
      yield from divided(sizes.value)

  done = 0
  for maps, refs, small in itertools.chain(ray_tasks.flow(asked()), ray_tasks.flow(divided(0))):
    if maps:
      size, read = small
      waiting.append((size, refs[0]))
      done += read
      tell(work.title, done, total or None, 0 if text else None)
    else:
      for part, ref, size in zip(parts, refs, small):
        part.append((size, ref))
  return [ref for part in parts for ref in _merged(sent, part, sizes)]


def _merged(sent: Any, part: list[tuple[int, Any]], sizes: Sizes) -> list[Any]:
  """A reference to what all values of a part are together, or none."""
  task = ray_tasks.task(_merge, num_returns=2)
  while len(part) > 1:
    several: list[list[tuple[int, Any]]] = []
    alone: list[list[tuple[int, Any]]] = []
    for bundle in _several(part, sizes.value):
      (several if len(bundle) > 1 else alone).append(bundle)
    part = [(size, ref) for [ref], size in ray_tasks.in_order(
        (number, task.remote(sent, *(ref for _, ref in bundle))) for number, bundle in enumerate(several))]
    part += [one for [one] in alone]
  return [ref for _, ref in part]


def _several(sized: list[tuple[int, Any]], most: int) -> Iterator[list[tuple[int, Any]]]:
  """Of at most so many bytes, but of two at least; perhaps the last is alone."""
  bundle: list[tuple[int, Any]] = []
  for one in sized:
    if len(bundle) > 1 and sum(size for size, _ in bundle) + one[0] > most:
      yield bundle
      bundle = []
    bundle.append(one)
  yield bundle


def _map(work: Gathering, one: Any, text: bool) -> tuple[Any, tuple[int, int]]:
  """A value; (its bytes, how much was read)."""
  value = work.merge(map(work.map, one)) if text else work.map(one)
  return value, (packing.size(value), sum(chunk.size() for chunk in one) if text else 1)


def _divide(work: Gathering, *values: Any) -> tuple:
  found = list(work.divide(work.merge(values), work.parts))
  return *found, list(map(packing.size, found))


def _merge(work: Gathering, *values: Any) -> tuple[Any, int]:
  merged = work.merge(values)
  return merged, packing.size(merged)


def check(arguments: tuple[str, ...]) -> None:
  ray_jobs.options(arguments)


ENGINE = gathering.Engine(session, check)

"""What is gathered on Apache Beam: values meet by the number of their part, and are merged as they come.

Workers write each merged part into a folder that the driver shares: a pipeline gives nothing back.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from input_pipeline import storage
from input_pipeline.engines import bars, beam_jobs, beam_reading, gathering, packing, probing, staging
from input_pipeline.engines.gathering import Gather, Gathering, Job
from input_pipeline.text import sources

MEMORY = 450 << 20  # bytes that a worker takes
_BUFFER = 32  # values that wait until they are merged: a merge copies what it has
_FILES = 'part-*'


@contextlib.contextmanager
def session(job: Job, parts: list[sources.Part]) -> Iterator[Gather]:
  gathering.refuse_what_is_read_once(parts)
  options = beam_jobs.options(job.arguments)
  with (staging.workplace(job.beside, {'gathers': job.called}) as workplace,
        staging.beside(job.beside, workplace) as shared):
    beam_jobs.ask(probing.ask(shared, job.called, job.engine, list(map(sources.absolute, parts)), job.stored), options)
    yield functools.partial(_gather, job, options, shared)


def _gather(job: Job, options: Any, shared: storage.Path, work: Gathering, inputs: list) -> list[Any]:
  folder = shared / 'gathered'
  storage.make_folder(folder)
  if job.progress:
    gathering.tell(gathering.plan(work, inputs, MEMORY, 'values are shuffled once'))
  if gathering.is_text(inputs):
    inputs = list(map(sources.absolute, inputs))
  with bars.watched(lambda: len(storage.files_in(folder, _FILES)), work.parts, job.progress):
    beam_jobs.run(functools.partial(_build, work=work, inputs=inputs, folder=str(folder)), options)
  found = [packing.unpack(data, work.kinds) for data in storage.read_all(storage.files_in(folder, _FILES))]
  storage.remove_tree(folder)
  return found


def _build(pipeline, work: Gathering, inputs: list, folder: str) -> None:
  import apache_beam as beam
  from apache_beam.transforms.core import CallableWrapperCombineFn
  if gathering.is_text(inputs):
    each = beam_reading.chunks(pipeline, inputs) | 'without names' >> beam.Values()
  else:
    each = pipeline | 'inputs' >> beam.Create(inputs) | 'spread' >> beam.Reshuffle()
  _ = (each
       | 'map' >> beam.FlatMap(_mapped, work)
       | 'merge' >> beam.CombinePerKey(CallableWrapperCombineFn(work.merge, _BUFFER))
       | 'write' >> beam.Map(_write, folder))


def _mapped(one: Any, work: Gathering) -> Iterator[tuple[int, Any]]:
  yield from enumerate(work.divide(work.map(one), work.parts))


def _write(merged: tuple[int, Any], folder: str) -> None:
  number, value = merged
  storage.write_whole(storage.path(folder) / f'{_FILES[:-1]}{number:08d}', packing.pack(value))


def check(arguments: tuple[str, ...]) -> None:
  beam_jobs.options(arguments)


ENGINE = gathering.Engine(session, check)

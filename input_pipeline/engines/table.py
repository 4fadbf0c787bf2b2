"""The engines by their names: who gathers what is counted, or looked at."""

import contextlib
from collections.abc import Iterator

from input_pipeline.engines import gathering, on_beam, on_processes, on_ray
from input_pipeline.text import sources

# By the names of names.py, which says what each cannot.
ENGINES: dict[str, gathering.Engine] = {
    'processes': on_processes.ENGINE, 'beam': on_beam.ENGINE, 'ray': on_ray.ENGINE}


@contextlib.contextmanager
def session(job: gathering.Job, parts: list[sources.Part]) -> Iterator[gathering.Gather]:
  """In which something is gathered, perhaps several times. Raises DataError, EngineError."""
  with ENGINES[job.engine].session(job, parts) as gather:
    yield gather

"""The stages of `prepare` in one process or many: runs are files, which every process sees."""

import collections
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from input_pipeline import processes, records
from input_pipeline.engines import bars, on_processes
from input_pipeline.prepare import (
  forecast,
  jobs,
  original_masks,
  original_pairs,
  pieces,
  portions,
  publishing,
  spill,
  splits,
  stages,
)
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import files, reading, sampling, sources

MEMORY = 400 << 20  # bytes that a process takes, measured
_WORDS = 'words'  # the folder by which workers tell each other the ids of words


def make_shards(job: jobs.Job) -> tuple[dict[str, records.Split], collections.Counter]:
  """Writes the shards of a mix into `data`. Runs that an interrupted process left in the workplace are used."""
  settings, runs = job.settings, job.workplace / 'runs'
  runs.mkdir(exist_ok=True)
  publishing.empty(job.workplace / _WORDS)
  expected = forecast.of(job)
  if expected is not None:
    files.tell(_plan(expected, settings.workers))
  with processes.pool(settings.workers) as submit:
    counts = _make_runs(settings, job.parts, runs, submit, job.progress, expected)
    paths = sorted(runs.glob('*.run'))
    decisions = splits.decide(paths, settings, counts)
    if settings.masks != records.DYNAMIC:
      paths, decisions = original_masks.make_runs(paths, decisions, settings, job.vocabulary,
                                                  publishing.empty(job.workplace / 'pairs'))
    elif settings.pairs == 'google':
      paths, decisions = original_pairs.make_runs(
          paths, decisions, settings.sequence_length - pieces.SPECIAL_TOKENS, settings.short_piece_share, settings.seed,
          settings.dupe_factor, publishing.empty(job.workplace / 'pairs'), submit)
    with bars.shards(job.progress) as told:
      return splits.write(settings, job.vocabulary.unk_id, paths, decisions, job.data,
                          publishing.empty(job.workplace / 'slices'), submit, told), counts


def _plan(expected: forecast.Forecast, workers: int) -> str:
  chunks, rounds = expected.chunks(), expected.rounds(expected.chunks(), portions.PART_TOKENS)
  tasks = chunks + (rounds.bundles if rounds else 0) + sum(expected.shards.values())
  way = f'of disk beside the output{", twice," if rounds else ""} on the way (--workers {workers})'
  return forecast.sentence(expected, chunks, tasks, MEMORY, way)


ENGINE = jobs.Engine(make_shards, on_processes.check)


def _make_runs(settings: Prepare, parts: list[sources.Part], runs: pathlib.Path, submit: Callable,
               progress: bool, expected: forecast.Forecast | None) -> collections.Counter:
  total = None if expected is None else round(expected.text)
  counts: collections.Counter = collections.Counter()
  if settings.first is None:
    groups = reading.groups(parts)
    below = _below(settings, groups, submit, progress, total)
    made = reading.each(groups, submit, settings.workers, _make_run, _sum, runs, settings, below, None)
  else:
    made = _make_first_runs(settings, parts, runs, submit, counts)
  with bars.bar('text → pieces', bars.TEXT, total, progress) as bar:
    for done in made:
      counts.update(done)
      bar.update(done['bytes'])
      bar.set_postfix(documents=counts['documents'], refresh=False)
  return counts


def _make_first_runs(settings: Prepare, parts: list[sources.Part], runs: pathlib.Path, submit: Callable,
                     counts: collections.Counter) -> Iterator[collections.Counter]:
  """The first documents are counted one by one, in their order, and nothing is read after them."""
  assert settings.first
  for number, chunk in enumerate(sources.chunks(parts, sources.CHUNK_BYTES)):
    if not (left := settings.first - counts['documents']):
      return
    yield submit(_make_run, chunk, (0, number), runs, settings, None, left).result()


def _sum(many: Iterable[collections.Counter]) -> collections.Counter:
  total: collections.Counter = collections.Counter()
  for one in many:
    total.update(one)
  return total


def _below(settings: Prepare, groups: list[list[sources.Part]], submit: Callable, progress: bool,
           total: int | None) -> int | None:
  """The bound of the keys of documents that --limit draws."""
  if settings.limit is None:
    return None
  with bars.bar('drawing documents', bars.TEXT, total, progress) as bar:
    found = reading.each(groups, submit, settings.workers, sampling.sized_keys, sampling.smallest_sized, settings.limit,
                         settings.seed)
    return sampling.below(sampling.smallest(_told(found, bar), settings.limit), settings.limit)


def _told(found: Iterable[sampling.Sized], bar) -> Iterator[np.ndarray]:
  for one in found:
    bar.update(one.size)
    yield one.keys


def _make_run(chunk: sources.Chunk, place: reading.Place, runs: pathlib.Path, settings: Prepare, below: int | None,
              first: int | None) -> collections.Counter:
  """Writes the run of a chunk, and gives the counts of what the chunk held.

  A run that is there already is not made again.
  """
  path = runs / '{:08d}-{:08d}.run'.format(*place)
  if path.exists():
    return collections.Counter(spill.read_counts(path))
  vocabulary = stages.load_vocabulary(settings.vocabulary, settings.lower_case, settings.rules)
  if settings.workers > 1 and vocabulary.cache is not None:
    vocabulary.cache.exchange(path.parents[1] / _WORDS)
  run, counts = stages.make_run(chunk, settings, vocabulary, below, first)
  spill.write(path, run, counts)
  return counts

"""The stages of `prepare` in one process or many: runs are files, which every process sees."""

import collections
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from input_pipeline import records
from input_pipeline.prepare import (
  jobs,
  original_masks,
  original_pairs,
  pieces,
  processes,
  publishing,
  spill,
  splits,
  stages,
)
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import sampling, sources

_WORDS = 'words'  # the folder by which workers tell each other the ids of words


def make_shards(job: jobs.Job) -> tuple[dict[str, records.Split], collections.Counter]:
  """Writes the shards of a mix into `data`. Runs that an interrupted process left in the workplace are used."""
  settings, runs = job.settings, job.workplace / 'runs'
  runs.mkdir(exist_ok=True)
  publishing.empty(job.workplace / _WORDS)
  with processes.pool(settings.workers) as submit:
    counts = _make_runs(settings, job.parts, runs, submit, job.progress)
    paths = sorted(runs.glob('*.run'))
    decisions = splits.decide(paths, settings, counts)
    if settings.masks != records.DYNAMIC:
      paths, decisions = original_masks.make_runs(paths, decisions, settings, job.vocabulary,
                                                  publishing.empty(job.workplace / 'pairs'))
    elif settings.pairs == 'google':
      paths, decisions = original_pairs.make_runs(
          paths, decisions, settings.sequence_length - pieces.SPECIAL_TOKENS, settings.short_piece_share, settings.seed,
          settings.dupe_factor, publishing.empty(job.workplace / 'pairs'), submit)
    return splits.write(settings, job.vocabulary.unk_id, paths, decisions, job.data, submit), counts


def _check(arguments: tuple[str, ...]) -> None:
  if arguments:
    raise records.DataError(f'there is {arguments[0]} after --: processes of this machine take no flags of their own; '
                            'name an engine that does (--engine beam), or leave -- out')


ENGINE = jobs.Engine(make_shards, _check)


def _make_runs(settings: Prepare, parts: list[sources.Part], runs: pathlib.Path, submit: Callable,
               progress: bool) -> collections.Counter:
  """A section of a large file is read where it is made into runs; other text here. The first documents are counted one
  by one, in their order, and nothing is read after them."""
  counts = collections.Counter()
  groups = _groups(parts) if settings.first is None else [parts]
  below = _below(settings, groups, submit, progress)

  def calls() -> Iterator[tuple]:
    for place, group in enumerate(groups):
      if sources.is_section(group[0]):
        yield _make_runs_of, group, runs, place, settings, below
        continue
      for number, chunk in enumerate(sources.chunks(group, sources.CHUNK_BYTES)):
        first = None if settings.first is None else settings.first - counts['documents']
        if first == 0:
          return
        yield _make_run, chunk, _name(runs, place, number), settings, below, first

  with _bar('text → pieces', progress) as bar:
    for done in _each(calls(), submit, 1 if settings.first else settings.workers):
      counts.update(done)
      bar.update(done['bytes'])
      bar.set_postfix(documents=counts['documents'], refresh=False)
  return counts


def _groups(parts: list[sources.Part]) -> list[list[sources.Part]]:
  """The mix in its order: sections of large files, each by itself, and what else stands between them."""
  groups: list[list[sources.Part]] = []
  for part in sources.divided(parts, sources.SECTION_BYTES):
    if groups and not sources.is_section(part) and not sources.is_section(groups[-1][0]):
      groups[-1].append(part)
    else:
      groups.append([part])
  return groups


def _name(runs: pathlib.Path, place: int, number: int) -> pathlib.Path:
  return runs / f'{place:08d}-{number:08d}.run'


def _below(settings: Prepare, groups: list[list[sources.Part]], submit: Callable, progress: bool) -> int | None:
  """The bound of the keys of documents that --limit draws."""
  if settings.limit is None:
    return None

  def calls() -> Iterator[tuple]:
    for group in groups:
      if sources.is_section(group[0]):
        yield _keys_of, group, settings
      else:
        yield from ((_keys, chunk, settings) for chunk in sources.chunks(group, sources.CHUNK_BYTES))

  with _bar('drawing documents', progress) as bar:

    def found() -> Iterator[np.ndarray]:
      for keys, size in _each(calls(), submit, settings.workers):
        bar.update(size)
        yield keys

    return sampling.below(sampling.smallest(found(), settings.limit), settings.limit)


def _each(calls: Iterable[tuple], submit: Callable, workers: int) -> Iterator:
  """The results of calls, each (function, argument …), in their order; few of them wait."""
  waiting, ahead = collections.deque(), 2 * workers if workers > 1 else 0
  for call in calls:
    waiting.append(submit(*call))
    while len(waiting) > ahead:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()


def _bar(what: str, progress: bool):
  from tqdm import tqdm
  return tqdm(unit='B', unit_scale=True, desc=what, disable=None if progress else True, mininterval=1)


def _keys(chunk: sources.Chunk, settings: Prepare) -> tuple[np.ndarray, int]:
  return stages.smallest_keys(chunk, settings), chunk.size()


def _keys_of(section: list[sources.Part], settings: Prepare) -> tuple[np.ndarray, int]:
  assert settings.limit
  found = [_keys(chunk, settings) for chunk in sources.chunks(section, sources.CHUNK_BYTES)]
  return sampling.smallest((keys for keys, _ in found), settings.limit), sum(size for _, size in found)


def _make_runs_of(section: list[sources.Part], runs: pathlib.Path, place: int, settings: Prepare,
                  below: int | None) -> collections.Counter:
  counts: collections.Counter = collections.Counter()
  for number, chunk in enumerate(sources.chunks(section, sources.CHUNK_BYTES)):
    counts.update(_make_run(chunk, _name(runs, place, number), settings, below, None))
  return counts


def _make_run(chunk: sources.Chunk, path: pathlib.Path, settings: Prepare, below: int | None,
              first: int | None) -> collections.Counter:
  """Writes the run of a chunk, and gives the counts of what the chunk held.

  A run that is there already is not made again.
  """
  if path.exists():
    return collections.Counter(spill.read_counts(path))
  vocabulary = stages.load_vocabulary(settings.vocabulary, settings.lower_case, settings.rules)
  if settings.workers > 1 and vocabulary.cache is not None:
    vocabulary.cache.exchange(path.parents[1] / _WORDS)
  run, counts = stages.make_run(chunk, settings, vocabulary, below, first)
  spill.write(path, run, counts)
  return counts

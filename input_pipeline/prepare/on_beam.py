"""The stages of `prepare` on Apache Beam: the same functions and the same shards, byte for byte, on many machines.

Chunks become runs; of documents with one text only the first is kept on the way to where they meet; a join by the run's
name brings each run the places of those that stay; side inputs, a few numbers each, tell the threshold of the split and
the number of shards; the pieces of a portion of a shard meet by its number and are merged, perhaps after those of
bundles of runs met by slices of portions (spreading.py). A run's name is its place in the input, so that names sort as
the files of on_processes.py do.
"""

import collections
import dataclasses
import functools
import itertools
import json
from collections.abc import Iterable, Iterator

import numpy as np

from input_pipeline import records, storage
from input_pipeline.engines import bars, beam_jobs, beam_reading, gathering, probing
from input_pipeline.prepare import beam_near, beam_spreading, deciding, forecast, jobs, portions, spill, splits, stages
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import files, sampling, sources
from input_pipeline.vocabulary import tokenizer

MEMORY = 450 << 20  # bytes that a worker takes, measured
_COUNTS = 'counts.json'
_RUNS, _BYTES = 'runs.count', 'runs.bytes'  # of all runs, beside their counts
# (rank, content, run, place, whether it has pieces). Ranks are bytes, as Beam's integers are signed; the highest comes
# first, so that bytes sort as the numbers do: 258 is 00…00 01 02.
Document = tuple[bytes, bytes, str, int, bool]


@dataclasses.dataclass(frozen=True)
class NamedRun:
  name: str
  run: spill.Run
  counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Met:
  """A run, and what was decided of its documents far away; each by its place in the run."""
  named: NamedRun
  kept: tuple[int, ...]  # of documents with one text the first of all
  renamed: tuple[int, ...]
  near: tuple[int, ...] | None = None  # near-duplicates; None: nobody looked for them


def make_shards(job: jobs.Job) -> tuple[dict[str, records.Split], collections.Counter]:
  """Writes the shards of a mix into `data`; of an output in a bucket into `shared`, which every machine can reach."""
  gathering.refuse_what_is_read_once(job.parts)
  options = beam_jobs.options(job.arguments)
  parts = list(map(sources.absolute, job.parts))
  question = probing.ask(job.shared, f'--output {job.settings.output}', job.settings.engine, parts)
  beam_jobs.ask(question, options)
  storage.make_folder(job.shared / beam_spreading.RESULTS)
  build = functools.partial(_build, settings=job.settings, parts=parts, vocabulary=job.vocabulary,
                            shared=str(job.shared))
  expected = forecast.of(job)
  if expected is not None:
    files.tell(_plan(expected))
  results = job.shared / beam_spreading.RESULTS
  with bars.watched(lambda: len(beam_spreading.written(results)), sum(expected.shards.values()) if expected else 0,
                    job.progress and expected is not None):
    beam_jobs.run(build, options)
  found = _read_results(job.shared / beam_spreading.RESULTS)
  jobs.bring(job, found[0])
  return found


def _plan(expected: forecast.Forecast) -> str:
  runs, cells = expected.chunks(), expected.cells(portions.TOKENS)
  rounds = expected.rounds(runs, portions.TOKENS)
  groups = cells + (rounds.slices * rounds.bundles if rounds else 0)
  sent = runs * rounds.slices + rounds.bundles * cells if rounds else runs * cells
  return forecast.sentence(expected, runs, runs + groups, MEMORY, f'that are shuffled {"four" if rounds else "three"} '
                           f'times, in the end in {sent:,} elements')


def _build(pipeline, settings: Prepare, parts: list[sources.Part], vocabulary: tokenizer.Tokenizer,
           shared: str) -> None:
  import apache_beam as beam
  chunks = beam_reading.chunks(pipeline, parts)
  below = None
  if settings.limit is not None:
    smallest_of = functools.partial(sampling.smallest, limit=settings.limit)
    below = beam.pvalue.AsSingleton(chunks
                                    | 'keys' >> beam.Map(_keys, settings)
                                    | 'smallest keys' >> beam.CombineGlobally(smallest_of)
                                    | 'below' >> beam.Map(_below, settings.limit))
  runs = (chunks
          | 'make runs' >> beam.Map(_run, settings, stages.sent(vocabulary), below)
          | 'keep runs' >> beam.Reshuffle())
  first = (runs
           | 'documents' >> beam.FlatMap(_documents)
           | 'first of a text' >> beam.CombinePerKey(min)
           | 'without the text' >> beam.Values())
  same_id = first | 'with pieces' >> beam.FlatMap(_by_id) | 'by id' >> beam.GroupByKey()
  # where each run meets what is decided of its documents
  decided = {'kept': first | 'kept' >> beam.Map(_place), 'renamed': same_id | 'renamed' >> beam.FlatMap(_renamed)}
  if settings.near_duplicates is not None:
    decided['near'] = beam_near.find(runs, decided, settings.near_duplicates)
  met = ({'run': runs | 'by name' >> beam.Map(_by_name), **decided}
         | 'to their runs' >> beam.CoGroupByKey()
         | 'met' >> beam.Map(_met))
  if settings.near_duplicates is None:
    ranks = same_id | 'ranks' >> beam.FlatMap(_ranks) | 'distinct' >> beam.Distinct()
    smallest = beam.pvalue.AsSingleton(ranks | 'smallest' >> beam.combiners.Top.Smallest(2))
    documents = beam.pvalue.AsSingleton(ranks | 'count' >> beam.combiners.Count.Globally())
  else:
    left = met | 'left' >> beam.Map(_left) | 'all left' >> beam.CombineGlobally(deciding.together)
    smallest = beam.pvalue.AsSingleton(left | 'smallest' >> beam.Map(_smallest))
    documents = beam.pvalue.AsSingleton(left | 'count' >> beam.Map(lambda found: found.documents))
  totals = (met
            | 'totals' >> beam.Map(_totals, settings, smallest, documents)
            | 'sum' >> beam.CombineGlobally(_sum))
  _ = totals | 'write counts' >> beam.Map(_write_counts, settings, documents, shared)
  selected = met | 'select' >> beam.FlatMap(
      _selections, settings, smallest, documents, beam.pvalue.AsSingleton(totals)).with_outputs(
          beam_spreading.SLICED, main=beam_spreading.PORTION)
  of_slices = (selected[beam_spreading.SLICED]
               | 'by slice' >> beam.GroupByKey()
               | 'to portions' >> beam.FlatMap(beam_spreading.cut))
  written = ((selected[beam_spreading.PORTION], of_slices)
             | 'all portions' >> beam.Flatten()
             | 'by portion' >> beam.GroupByKey()
             | 'merge' >> beam.FlatMap(beam_spreading.merge, vocabulary.unk_id, shared))
  _ = (written
       | 'by shard' >> beam.GroupByKey()
       | 'join portions' >> beam.Map(beam_spreading.join, vocabulary.unk_id, shared))


def _keys(named: tuple[str, sources.Chunk], settings: Prepare) -> np.ndarray:
  return stages.smallest_keys(named[1], settings)


def _below(keys: np.ndarray, limit: int) -> bytes:
  """The bound of the keys of documents that are drawn; bytes for the same reason as those of ranks."""
  return sampling.below(keys, limit).to_bytes(9, 'big')


def _run(named: tuple[str, sources.Chunk], settings: Prepare, vocabulary: stages.Sent, below: bytes | None) -> NamedRun:
  name, chunk = named
  run, counts = stages.make_run(chunk, settings, stages.unpacked(vocabulary),
                                None if below is None else int.from_bytes(below, 'big'))
  return NamedRun(name, run, dict(counts))


def _documents(named: NamedRun) -> Iterator[tuple[bytes, Document]]:
  """(text, …) of the documents that may be the first with their text."""
  used = spill.has_pieces(named.run)
  for place in splits.firsts(named.run).tolist():
    rank, content = (int(numbers[place]).to_bytes(8, 'big') for numbers in (named.run.ranks, named.run.contents))
    yield named.run.texts[place].tobytes(), (rank, content, named.name, place, bool(used[place]))


def _by_id(document: Document) -> Iterator[tuple[bytes, tuple[bytes, str, int]]]:
  """(rank, (content, run, place)) of one that has pieces."""
  rank, content, name, place, used = document
  if used:
    yield rank, (content, name, place)


def _place(document: Document) -> tuple[str, int]:
  _, _, name, place, _ = document
  return name, place


def _several(group: tuple[bytes, Iterable[tuple]]) -> Iterator[tuple[bool, tuple]]:
  """(whether there are others, one) of each of a group, which is never held whole."""
  own = iter(group[1])
  first, second = next(own), next(own, None)
  yield second is not None, first
  if second is not None:
    yield from ((True, one) for one in itertools.chain([second], own))


def _renamed(group: tuple[bytes, Iterable[tuple]]) -> Iterator[tuple[str, int]]:
  """(run, place) of the documents with one id, where there are several."""
  yield from ((name, place) for several, (_, name, place) in _several(group) if several)


def _ranks(group: tuple[bytes, Iterable[tuple]]) -> Iterator[bytes]:
  """The rank by which each document with one id is placed in a split."""
  yield from (content if several else group[0] for several, (content, _, _) in _several(group))


def _met(found: tuple[str, dict[str, Iterable]]) -> Met:
  _, given = found
  [named] = given['run']
  near = tuple(place for places in given['near'] for place in places) if 'near' in given else None
  return Met(named, tuple(given['kept']), tuple(given['renamed']), near)


def _by_name(named: NamedRun) -> tuple[str, NamedRun]:
  return named.name, dataclasses.replace(named, run=spill.without_signatures(named.run))


def _marks(met: Met) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # -> bool [D], bool [D], [D] uint64
  """Of the documents of a run which stay, which go by their content; and the rank of each."""
  run = met.named.run
  kept, of_content = np.zeros((2, len(run.ranks)), bool)
  kept[list(met.kept)] = True
  kept[list(met.near or ())] = False
  of_content[list(met.renamed)] = True
  return kept, of_content, np.where(of_content, run.contents, run.ranks)


def _left(met: Met) -> deciding.Found:
  kept, _, ranks = _marks(met)
  return deciding.found_of(ranks[kept & spill.has_pieces(met.named.run)])


def _smallest(found: deciding.Found) -> list[bytes]:
  return [rank.to_bytes(8, 'big') for rank in found.smallest]


def _decisions(met: Met, settings: Prepare, smallest: list[bytes], documents: int) -> spill.Decisions:
  below = splits.threshold([int.from_bytes(rank, 'big') for rank in sorted(smallest)], documents,
                           settings.validation_share)
  kept, of_content, ranks = _marks(met)
  return spill.Decisions(splits.assign(ranks, ~kept, below), of_content)


def _totals(met: Met, settings: Prepare, smallest: list[bytes], documents: int) -> dict[str, int]:
  """What a run adds to the counts, and to each split."""
  named, decisions = met.named, _decisions(met, settings, smallest, documents)
  totals = splits.totals_of([named.run], [decisions])
  dropped = decisions.splits == spill.DROPPED
  near = {} if met.near is None else {'near_duplicates': len(set(met.near))}
  return named.counts | near | {
      _RUNS: 1, _BYTES: spill.size(named.run),
      'duplicates': len(dropped) - len(met.kept), 'documents': named.counts.get('documents', 0) - int(dropped.sum()),
      'repeated_ids': int(decisions.renamed.sum()),
      'without_pieces': int((~dropped & ~spill.has_pieces(named.run)).sum())} | {
      _name(name, field): value for split, name in spill.SPLITS.items()
      for field, value in dataclasses.asdict(totals[split]).items()}


def _name(split: str, field: str) -> str:
  return f'{split}.{field}'


def _sum(many: Iterable[dict[str, int]]) -> dict[str, int]:
  total = collections.Counter()
  for one in many:
    total.update(one)
  return dict(total)


def _selections(met: Met, settings: Prepare, smallest: list[bytes], documents: int, totals: dict[str, int]) -> Iterator:
  """What beam_spreading.select gives of each split."""
  decisions = _decisions(met, settings, smallest, documents)
  tokens = {split: _total(totals, name).tokens for split, name in spill.SPLITS.items()}
  for split, shards in splits.shard_counts(settings, tokens[spill.TRAIN]).items():
    share = tokens[split] / max(1, sum(tokens.values()))
    yield from beam_spreading.select(met.named.name, met.named.run, decisions, portions.Shards(
        split, shards, tokens[split]), totals[_RUNS], totals[_BYTES] * share)


def _write_counts(totals: dict[str, int], settings: Prepare, documents: int, shared: str) -> None:
  splits.check_documents(documents, settings, totals)
  splits.check_totals(settings, {split: _total(totals, name) for split, name in spill.SPLITS.items()})
  storage.write_whole(storage.path(shared) / beam_spreading.RESULTS / _COUNTS, json.dumps(totals))


def _total(totals: dict[str, int], name: str) -> splits.Total:
  return splits.Total(**{field.name: totals[_name(name, field.name)] for field in dataclasses.fields(splits.Total)})


def _read_results(directory: storage.Path) -> tuple[dict[str, records.Split], collections.Counter]:
  totals = json.loads((directory / _COUNTS).read_text())
  written = beam_spreading.read_results(directory, {name: _total(totals, name) for name in spill.SPLITS.values()})
  ours = {_RUNS, _BYTES} | {_name(name, field.name) for name in spill.SPLITS.values()
                            for field in dataclasses.fields(splits.Total)}
  return written, collections.Counter({name: value for name, value in totals.items() if name not in ours})


def _check(arguments: tuple[str, ...]) -> None:
  beam_jobs.options(arguments)


ENGINE = jobs.Engine(make_shards, _check)

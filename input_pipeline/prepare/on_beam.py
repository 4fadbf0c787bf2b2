"""The stages of `prepare` on Apache Beam: the same functions and the same shards, byte for byte, on many machines.

Chunks become runs; of documents with one text only the first is kept on the way to where they meet; a join by the run's
name brings each run the places of those that stay; side inputs, a few numbers each, tell the threshold of the split and
the number of shards; the pieces of a portion of a shard meet by its number and are merged. A run's name is its place in
the input, so that names sort as the files of on_processes.py do.
"""

import collections
import dataclasses
import functools
import itertools
import json
import pathlib
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np

from input_pipeline import records, storage
from input_pipeline.prepare import beam_jobs, jobs, portions, probing, spill, splits, stages, writing
from input_pipeline.prepare.columns import Pieces
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import sampling, sources
from input_pipeline.vocabulary import tokenizer

_RESULTS = 'results'
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


def make_shards(job: jobs.Job) -> tuple[dict[str, records.Split], collections.Counter]:
  """Writes the shards of a mix into `data`; of an output in a bucket into `shared`, which every machine can reach."""
  jobs.refuse_what_is_read_once(job)
  options = beam_jobs.options(job.arguments)
  parts = list(map(sources.absolute, job.parts))
  question = probing.ask(job.shared, job.settings.output, job.settings.engine, parts)
  beam_jobs.run(functools.partial(_probe, question=question), options)
  probing.check_answered(question)
  storage.make_folder(job.shared / _RESULTS)
  build = functools.partial(_build, settings=job.settings, parts=parts, vocabulary=job.vocabulary,
                            shared=str(job.shared))
  beam_jobs.run(build, options)
  found = _read_results(job.shared / _RESULTS)
  jobs.bring(job, found[0])
  return found


def _probe(pipeline, question: probing.Question) -> None:
  import apache_beam as beam
  _ = pipeline | 'ask' >> beam.Create([question]) | 'to a worker' >> beam.Reshuffle() | 'answer' >> beam.Map(
      probing.answer)


def _build(pipeline, settings: Prepare, parts: list[sources.Part], vocabulary: tokenizer.Tokenizer,
           shared: str) -> None:
  import apache_beam as beam
  chunks = (pipeline
            | 'sources' >> beam.Create(list(enumerate(parts)))
            | 'spread sources' >> beam.Reshuffle()
            | 'sections' >> beam.FlatMap(_sections, sources.SECTION_BYTES)
            | 'spread sections' >> beam.Reshuffle()
            | 'split' >> beam.FlatMap(_chunks, sources.CHUNK_BYTES)
            | 'spread chunks' >> beam.Reshuffle())  # also keeps each run from being made twice
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
  met = ({'run': runs | 'by name' >> beam.Map(lambda named: (named.name, named)),
          'kept': first | 'kept' >> beam.Map(_place),
          'renamed': same_id | 'renamed' >> beam.FlatMap(_renamed)}
         | 'to their runs' >> beam.CoGroupByKey()
         | 'met' >> beam.Map(_met))
  ranks = same_id | 'ranks' >> beam.FlatMap(_ranks) | 'distinct' >> beam.Distinct()
  smallest = beam.pvalue.AsSingleton(ranks | 'smallest' >> beam.combiners.Top.Smallest(2))
  documents = beam.pvalue.AsSingleton(ranks | 'count' >> beam.combiners.Count.Globally())
  totals = (met
            | 'totals' >> beam.Map(_totals, settings, smallest, documents)
            | 'sum' >> beam.CombineGlobally(_sum))
  _ = totals | 'write counts' >> beam.Map(_write_counts, settings, documents, shared)
  written = (met
             | 'to portions' >> beam.FlatMap(_selections, settings, smallest, documents,
                                             beam.pvalue.AsSingleton(totals))
             | 'by portion' >> beam.GroupByKey()
             | 'merge' >> beam.FlatMap(_merge, vocabulary.unk_id, shared))
  _ = (written
       | 'by shard' >> beam.GroupByKey()
       | 'join portions' >> beam.Map(_join, vocabulary.unk_id, shared))


def _sections(numbered: tuple[int, sources.Part], section_bytes: int) -> Iterator[tuple[str, sources.Part]]:
  """(its place in the input, part) for every part of a source that one worker reads."""
  place, whole = numbered
  for number, part in enumerate(sources.divided([whole], section_bytes)):
    yield f'{place:08d}-{number:08d}', part


def _chunks(placed: tuple[str, sources.Part], chunk_bytes: int) -> Iterator[tuple[str, sources.Chunk]]:
  """(the name of the run that it will be, chunk) for every chunk of a part."""
  place, part = placed
  for number, chunk in enumerate(sources.chunks([part], chunk_bytes)):
    yield f'{place}-{number:08d}', chunk


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
  return Met(named, tuple(given['kept']), tuple(given['renamed']))


def _decisions(met: Met, settings: Prepare, smallest: list[bytes], documents: int) -> spill.Decisions:
  named = met.named
  below = splits.threshold([int.from_bytes(rank, 'big') for rank in sorted(smallest)], documents,
                           settings.validation_share)
  kept, of_content = np.zeros((2, len(named.run.ranks)), bool)
  kept[list(met.kept)] = True
  of_content[list(met.renamed)] = True
  ranks = np.where(of_content, named.run.contents, named.run.ranks)
  return spill.Decisions(splits.assign(ranks, ~kept, below), of_content)


def _totals(met: Met, settings: Prepare, smallest: list[bytes], documents: int) -> dict[str, int]:
  """What a run adds to the counts, and to each split."""
  named, decisions = met.named, _decisions(met, settings, smallest, documents)
  totals = splits.totals_of([named.run], [decisions])
  dropped = decisions.splits == spill.DROPPED
  return named.counts | {
      'duplicates': int(dropped.sum()), 'documents': named.counts.get('documents', 0) - int(dropped.sum()),
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


def _selections(met: Met, settings: Prepare, smallest: list[bytes], documents: int,
                totals: dict[str, int]) -> Iterator[tuple[tuple[int, ...], Pieces]]:
  """(portion, its pieces in this run)."""
  named, decisions = met.named, _decisions(met, settings, smallest, documents)
  for split, count in splits.shard_counts(settings, totals.get('train.tokens', 0)).items():
    for portion in portions.of_split(split, count, _total(totals, spill.SPLITS[split]).tokens):
      found = spill.select(named.run, decisions, split, *portion.bounds())
      if len(found.keys):
        yield dataclasses.astuple(portion), found


def _merge(group: tuple[tuple[int, ...], Iterable[Pieces]], unknown_id: int,
           shared: str) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
  """Writes a portion: the shard, where it is the only one, or else a file of its own, of which ((split, shard, shards),
  portion) tells."""
  portion, many = portions.Portion(*group[0]), list(group[1])
  if portion.of == 1:
    _write_shard(portion, portions.merged(many, portion), unknown_id, shared)
    return
  portions.put(many, portion, storage.path(shared))
  yield group[0][:3], group[0]


def _join(group: tuple[tuple[int, ...], Iterable[tuple[int, ...]]], unknown_id: int, shared: str) -> None:
  """Writes a shard of the portions that were written."""
  own = [portions.Portion(*one) for one in group[1]]
  _write_shard(own[0], portions.read(own, storage.path(shared)), unknown_id, shared)


def _write_shard(one: portions.Portion, parts: Iterable[Pieces], unknown_id: int, shared: str) -> None:
  """The shard that a portion is of."""
  split, number, count = spill.SPLITS[one.split], one.shard, one.shards
  name = records.shard_name(split, number, count)
  with tempfile.TemporaryDirectory() as folder:
    local = pathlib.Path(folder) / name
    shard, more = writing.write_shard(local, parts, unknown_id)
    storage.put(local, storage.path(shared) / name)
  result = {'split': split, 'number': number, 'count': count, 'shard': dataclasses.asdict(shard), 'more': more}
  storage.write_whole(storage.path(shared) / _RESULTS / f'{name}.json', json.dumps(result))


def _write_counts(totals: dict[str, int], settings: Prepare, documents: int, shared: str) -> None:
  splits.check_documents(documents, settings, totals)
  splits.check_totals(settings, {split: _total(totals, name) for split, name in spill.SPLITS.items()})
  storage.write_whole(storage.path(shared) / _RESULTS / 'counts.json', json.dumps(totals))


def _total(totals: dict[str, int], name: str) -> splits.Total:
  return splits.Total(**{field.name: totals[_name(name, field.name)] for field in dataclasses.fields(splits.Total)})


def _read_results(directory: storage.Path) -> tuple[dict[str, records.Split], collections.Counter]:
  totals = json.loads((directory / 'counts.json').read_text())
  results = list(map(json.loads, storage.read_all(storage.files_in(directory, f'{records.DATASET_NAME}-*.json'))))
  written = {}
  for name in spill.SPLITS.values():
    found = {result['number']: (records.Shard(**result['shard']), result['more']) for result in results
             if result['split'] == name}
    if found:
      count = next(result['count'] for result in results if result['split'] == name)
      nothing = [(records.Shard(records.shard_name(name, number, count), 0, 0, 0, 0, ''),
                  {'sentences': 0, 'unknown_tokens': 0})
                 for number in range(count)]
      written[name] = splits.split_of(_total(totals, name).documents,
                                      [found.get(number, nothing[number]) for number in range(count)])
  of_splits = {_name(name, field.name) for name in spill.SPLITS.values() for field in dataclasses.fields(splits.Total)}
  return written, collections.Counter({name: value for name, value in totals.items() if name not in of_splits})


def _check(arguments: tuple[str, ...]) -> None:
  beam_jobs.options(arguments)


ENGINE = jobs.Engine(make_shards, _check)

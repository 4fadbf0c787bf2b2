"""`prepare` on Apache Beam: the same pure functions and the same shards, byte for byte, on any number of machines.

Chunks become runs; a side input names the duplicates, another the threshold of the split and the number of shards; the pieces of
a shard meet by its number and are merged in memory (a shard is 34 MB, unless --shards asks for fewer).
"""

import collections
import dataclasses
import json
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
from etils import epath

from input_pipeline import records
from input_pipeline.prepare import corpus, publishing, spill, splits, writing
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import sources
from input_pipeline.vocabulary import tokenizer

_RESULTS = 'results'


def prepare(settings: Prepare) -> records.Manifest:
  """What corpus.prepare does, by `settings.beam_runner`. Raises DataError."""
  try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError as error:
    raise records.DataError(f"--beam-runner needs Apache Beam ({error}): pip install 'bert_jax[beam]'") from error
  if settings.pairs != 'dynamic' or settings.limit is not None or settings.near_duplicates is not None:
    raise records.DataError('--beam-runner cannot do --pairs google, --limit or --near-duplicates: leave them out, or use --workers')
  vocabulary = tokenizer.load(settings.vocabulary, settings.lower_case)
  described = corpus.described(settings, vocabulary)
  if (finished := publishing.finished(settings.output, described, vocabulary.sha256, settings.overwrite)) is not None:
    return finished
  with publishing.workplace(settings.output, {'beam': True} | described) as workplace:
    data = publishing.empty(workplace / 'data')
    shared = data if publishing.is_local(settings.output) else epath.Path(settings.output)  # where every machine can write
    (epath.Path(shared) / _RESULTS).mkdir(parents=True, exist_ok=True)
    try:
      with beam.Pipeline(options=PipelineOptions([f'--runner={settings.beam_runner}', *settings.beam_arguments])) as pipeline:
        _build(pipeline, settings, len(vocabulary.tokens), vocabulary.unk_id, str(shared))
    except Exception as error:  # a runner raises it as it was with its own words behind, or quoted in an error of its own
      found = re.search(r'DataError: ([^\n]*)', f'{type(error).__name__}: {error}')
      if not found:
        raise
      raise records.DataError(found[1].partition(' [while running')[0]) from error
    written, counts = _read_results(epath.Path(shared) / _RESULTS)
    return corpus.finish(settings, vocabulary, written, counts, described, data)


def _build(pipeline, settings: Prepare, vocabulary_size: int, unknown_id: int, shared: str) -> None:
  import apache_beam as beam
  inputs = [(str(path), part.weight) for part in sources.mixture(settings.input) for path in sources.files(part.source)]
  inputs += [(part.source, part.weight) for part in sources.mixture(settings.input) if part.source.startswith(sources.TFDS)]
  runs = (pipeline
          | 'files' >> beam.Create(inputs)
          | 'spread files' >> beam.Reshuffle()
          | 'split' >> beam.FlatMap(_chunks, settings)
          | 'spread chunks' >> beam.Reshuffle()  # also keeps each run from being made twice
          | 'make runs' >> beam.Map(_run, settings, vocabulary_size)
          | 'keep runs' >> beam.Reshuffle())
  same_text = runs | 'documents' >> beam.FlatMap(_documents) | 'by text' >> beam.GroupByKey()
  duplicates = beam.pvalue.AsDict(same_text | 'duplicates' >> beam.FlatMap(_later) | 'by run' >> beam.GroupByKey())
  ranks = same_text | 'ranks' >> beam.FlatMap(_first_rank) | 'distinct' >> beam.Distinct()
  smallest = beam.pvalue.AsSingleton(ranks | 'smallest' >> beam.combiners.Top.Smallest(2))
  documents = beam.pvalue.AsSingleton(ranks | 'count' >> beam.combiners.Count.Globally())
  totals = (runs
            | 'totals' >> beam.Map(_totals, settings, duplicates, smallest, documents)
            | 'sum' >> beam.CombineGlobally(_sum))
  _ = totals | 'write counts' >> beam.Map(_write_counts, settings, documents, shared)
  _ = (runs
       | 'to shards' >> beam.FlatMap(_selections, settings, duplicates, smallest, documents, beam.pvalue.AsSingleton(totals))
       | 'by shard' >> beam.GroupByKey()
       | 'write shards' >> beam.Map(_write_shard, unknown_id, shared))


def _chunks(source: tuple[str, float], settings: Prepare) -> Iterator[tuple[str, sources.Chunk]]:
  """(a name of its own, chunk) for every chunk of a file."""
  name, weight = source
  if name.startswith(sources.TFDS):
    found = sources.tfds_chunks(sources.Weighted(name, weight), corpus.CHUNK_BYTES)
  else:
    found = sources.file_chunks(epath.Path(name), settings.format, corpus.CHUNK_BYTES, weight)
  for number, chunk in enumerate(found):
    yield f'{name} {weight} {number}', chunk


def _run(named: tuple[str, sources.Chunk], settings: Prepare, vocabulary_size: int) -> tuple[str, spill.Run, dict[str, int]]:
  name, chunk = named
  made, counts = corpus.make_pieces(chunk, settings)
  return name, corpus.join(made, vocabulary_size), dict(counts)


def _documents(named: tuple[str, spill.Run, dict]) -> Iterator[tuple[bytes, tuple[bytes, str, int, bool]]]:
  """(text, (rank, run, place, whether it has pieces)) of every document; ranks as bytes, as Beam's integers are signed."""
  name, run, _ = named
  used = splits.used(run)
  for place, (text, rank) in enumerate(zip(run.document_texts.reshape(-1, 2), run.document_ranks.astype('>u8'))):
    yield text.tobytes(), (rank.tobytes(), name, place, bool(used[place]))


def _later(group: tuple[bytes, Iterable[tuple]]) -> Iterator[tuple[str, int]]:
  """(run, place) of all but the first of the documents with one text."""
  yield from ((name, place) for _, name, place, _ in sorted(group[1])[1:])


def _first_rank(group: tuple[bytes, Iterable[tuple]]) -> Iterator[bytes]:
  rank, _, _, used = min(group[1])
  if used:
    yield rank


def _fates(named: tuple[str, spill.Run, dict], settings: Prepare, duplicates, smallest: list[bytes], documents: int) -> np.ndarray:
  name, run, _ = named
  below = splits.threshold([int.from_bytes(rank, 'big') for rank in sorted(smallest)], documents, settings.validation_share)
  fates = np.where(run.document_ranks < below, spill.VALIDATION, spill.TRAIN).astype(np.uint8)
  fates[list(duplicates.get(name, ()))] = spill.DROPPED
  return fates


def _totals(named, settings: Prepare, duplicates, smallest: list[bytes], documents: int) -> dict[str, int]:
  """What a run adds to the counts, and to each split."""
  fates = _fates(named, settings, duplicates, smallest, documents)
  totals = splits.totals_of([named[1]], [fates])
  dropped = int((fates == spill.DROPPED).sum())
  return named[2] | {'duplicates': dropped, 'documents': named[2].get('documents', 0) - dropped} | {
      f'{name}.{field}': value for fate, name in spill.SPLITS.items() for field, value in dataclasses.asdict(totals[fate]).items()}


def _sum(many: Iterable[dict[str, int]]) -> dict[str, int]:
  total = collections.Counter()
  for one in many:
    total.update(one)
  return dict(total)


def _selections(named, settings: Prepare, duplicates, smallest: list[bytes], documents: int,
                totals: dict[str, int]) -> Iterator[tuple[tuple[str, int, int], spill.Selection]]:
  """((split, shard, shards), its pieces in this run)."""
  fates = _fates(named, settings, duplicates, smallest, documents)
  for fate, count in splits.shard_counts(settings, totals.get('train.tokens', 0)).items():
    for shard, bounds in enumerate(spill.key_ranges(count)):
      found = spill.select(named[1], fates, fate, *bounds)
      if len(found.keys):
        yield (spill.SPLITS[fate], shard, count), found


def _write_shard(group: tuple[tuple[str, int, int], Iterable[spill.Selection]], unknown_id: int, shared: str) -> None:
  (split, number, count), selections = group
  name = records.shard_name(split, number, count)
  with tempfile.TemporaryDirectory() as folder:
    local = pathlib.Path(folder) / name
    shard, more = writing.write_shard(local, [spill.merge(list(selections))], unknown_id, static=False)
    epath.Path(local).copy(epath.Path(shared) / name, overwrite=True)
  result = {'split': split, 'number': number, 'count': count, 'shard': dataclasses.asdict(shard), 'more': more}
  (epath.Path(shared) / _RESULTS / f'{name}.json').write_text(json.dumps(result))


def _write_counts(totals: dict[str, int], settings: Prepare, documents: int, shared: str) -> None:
  splits.check_documents(documents, settings, totals)
  (epath.Path(shared) / _RESULTS / 'counts.json').write_text(json.dumps(totals))


def _read_results(directory: epath.Path) -> tuple[dict[str, records.Split], collections.Counter]:
  totals = json.loads((directory / 'counts.json').read_text())
  results = [json.loads(path.read_text()) for path in directory.glob('pieces-*.json')]
  directory.rmtree()
  written = {}
  for name in spill.SPLITS.values():
    found = sorted((result for result in results if result['split'] == name), key=lambda result: result['number'])
    if found and len(found) < found[0]['count']:
      raise records.DataError(f'--shards: {found[0]["count"] - len(found)} of {found[0]["count"]} shards would be empty; lower --shards')
    if found:
      written[name] = splits.split_of(
          totals[f'{name}.documents'], [(records.Shard(**result['shard']), result['more']) for result in found])
  return written, collections.Counter({name: value for name, value in totals.items() if '.' not in name})

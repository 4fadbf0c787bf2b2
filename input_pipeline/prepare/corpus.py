"""Documents → pieces → shuffled, counted, checksummed shards: `prepare`, above the engine that does the work.

Each chunk of documents becomes one sorted run (stages.make_run, a pure function that runs anywhere); when all are made,
duplicates and the split are decided from hashes only, and every shard is merged from its range of keys. So the shards
are the same, byte for byte, for any number of workers or machines, in any order.
"""

import collections
import dataclasses
from collections.abc import Sequence

from input_pipeline import counts as counts_lib, records, storage
from input_pipeline.engines import staging, versions
from input_pipeline.prepare import jobs, on_beam, on_processes, on_ray, publishing, spill, tfds_layout
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import sampling, sources, transforms
from input_pipeline.vocabulary import tokenizer

# settings that leave the data as it is
_ELSEWHERE = ('output', 'workers', 'overwrite', 'vocabulary', 'engine')
# By the names of engines.py, which says what each cannot.
ENGINES: dict[str, jobs.Engine] = {
    'processes': on_processes.ENGINE, 'beam': on_beam.ENGINE, 'ray': on_ray.ENGINE}


def prepare(settings: Prepare, progress: bool = True, arguments: Sequence[str] = ()) -> records.Manifest:
  """Makes the shards of `settings.input` in `settings.output`, or finds them already made.

  `arguments`: the engine's own, as they stand after -- on a command line. Raises DataError, StorageError or LockError,
  then nothing is left.
  """
  with storage.named_errors(f'--output {settings.output}'), transforms.told():
    return _prepare(settings, progress, tuple(arguments))


def _prepare(settings: Prepare, progress: bool, arguments: tuple[str, ...]) -> records.Manifest:
  engine = ENGINES[settings.engine]
  engine.check(arguments)
  vocabulary = tokenizer.load(settings.vocabulary, settings.lower_case, settings.rules)
  parts = sources.mixture(settings.input, settings.format, settings.reading)
  sources.tell_repeats(parts)
  sampling.check(settings.limit, settings.first, parts)
  if settings.pairs == 'google' and any(part.weight != 1 for part in parts):
    raise records.DataError(
        "--input with weights and --pairs google do not go together: the original pairs every document alike; "
        "leave the weights out, or use --pairs dynamic")
  description = described(settings, parts, vocabulary)
  once = sources.read_once(parts)
  if once and not settings.overwrite and not storage.is_empty(storage.path(settings.output)):
    raise records.DataError(
        f'--output {settings.output} exists, and whether it is of the same text as --input {once[0]}, which is read '
        'once, cannot be told: name another directory, or pass --overwrite')
  find = lambda: publishing.finished(settings.output, description, vocabulary.sha256, settings.overwrite)
  if (finished := find()) is not None:
    return finished
  storage.probe(settings.output, '--output')
  identity = description | {
      'vocabulary': vocabulary.sha256, 'sources': [dataclasses.asdict(part.stamp) for part in parts],
      'chunk_bytes': sources.CHUNK_BYTES, 'section_bytes': sources.SECTION_BYTES, 'packages': versions.packages(),
      'engine': settings.engine, 'runs': spill.VERSION}
  with (staging.workplace(settings.output, identity) as workplace,
        staging.beside(settings.output, workplace) as shared):
    if not storage.is_local(settings.output) and (finished := find()) is not None:
      return finished  # by the job that this one waited for
    job = jobs.Job(settings, parts, vocabulary, workplace, publishing.empty(workplace / 'data'), shared, arguments,
                      progress)
    written, counts = engine.make_shards(job)
    return _finish(job, written, counts, description)


def described(settings: Prepare, parts: list[sources.Part], vocabulary: tokenizer.Tokenizer) -> dict:
  """The settings that decide what the shards hold, for the manifest: the same ones make the same data."""
  chosen = {name: value for name, value in dataclasses.asdict(settings).items() if name not in _ELSEWHERE}
  for name, default in {'words': 'none', 'rules': records.LIBRARY, 'masks': records.DYNAMIC, 'first': None}.items():
    if chosen[name] == default:
      del chosen[name]  # data from before there was this setting is the same data
  if settings.limit is not None:
    chosen['limit'] = f'{settings.limit} by their hash'  # the number alone is that of the first documents, once
  usual = dataclasses.asdict(type(settings.reading)())
  chosen |= {name: value for name, value in chosen.pop('reading').items() if value != usual[name]}  # likewise
  if transform := next((part.transform for part in parts if part.transform), None):
    chosen['transform'] = f'{transform.name} {transform.fingerprint()}'
  if contents := [part.stamp.content for part in parts if part.stamp.content]:
    chosen['contents'] = contents
  if files := sources.content(parts):
    chosen[publishing.FILES] = files
  chosen['input'] = ','.join(sources.names(settings.input))
  return chosen | {'lower_case': vocabulary.lower_case, 'input_bytes': sum(part.stamp.bytes for part in parts)}


def _finish(job: jobs.Job, written: dict[str, records.Split], counts: collections.Counter,
            description: dict) -> records.Manifest:
  """Adds to the shards what describes them, the manifest last, and puts it all in its place."""
  settings, data = job.settings, job.data
  for name, content in job.vocabulary.files.items():
    (data / name).write_bytes(content)
  manifest = records.Manifest(
      sequence_length=settings.sequence_length, pairs=settings.pairs, vocabulary=job.vocabulary.record, splits=written,
      settings=description, counts=counts_lib.for_manifest(counts), packages=versions.packages(), words=settings.words,
      masks=settings.masks)
  if (documents := counts_lib.documents(manifest)) and documents.unexplained:
    raise RuntimeError(f'a bug of `bert-jax prepare`: of {documents.read:,} documents {documents.unexplained:,} are in '
                       f'no split and were not counted as dropped: {manifest.counts}')
  tfds_layout.write(data, manifest)
  records.write_manifest(data, manifest)
  publishing.publish(data, job.shared, settings.output, settings.overwrite)
  return manifest

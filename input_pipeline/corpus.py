"""Documents → pieces → shuffled, counted, checksummed shards: `prepare`, in one process or many.

Each chunk of documents becomes one sorted run on disk (`make_run`, a pure function that runs anywhere); when all are made, duplicates
and the split are decided from hashes alone, and every shard is merged from its range of keys. So the shards are the same, byte for
byte, for any number of workers, in any order.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import math
import multiprocessing
import pathlib
from collections.abc import Iterator

import numpy as np

from input_pipeline import pieces, publishing, records, sources, spill, tokenizer, writing
from input_pipeline.settings import Prepare

CHUNK_BYTES = 2 << 20  # of raw text that a worker gets at once
_SHARD_TOKENS = 1 << 24  # of a shard, where --shards does not say: 34 MB
_ALONE_TOKENS = 1 << 28  # up to here one process writes all shards: each that writes must import TensorFlow first
_PART_TOKENS = 1 << 22  # merged in memory at once
_PACKAGES = ('numpy', 'tokenizers', 'sentencepiece', 'sentencex', 'mwparserfromhell', 'tensorflow-cpu', 'tensorflow', 'tensorflow-datasets')


def prepare(settings: Prepare, progress: bool = True) -> records.Manifest:
  """Makes the shards of `settings.input` in `settings.output`, or finds them already made. Raises DataError, then nothing is left."""
  vocabulary = tokenizer.load(settings.vocabulary, settings.lower_case)
  described = _described(settings, vocabulary)
  if (finished := publishing.finished(settings.output, described, vocabulary.sha256, settings.overwrite)) is not None:
    return finished
  with publishing.workplace(settings.output) as workplace:
    runs = workplace / 'runs'
    runs.mkdir()
    with _pool(settings.workers) as submit:
      counts = _make_runs(settings, runs, submit, progress)
      paths = sorted(runs.iterdir())
      fates = decide(paths, settings, counts)
      data = workplace / 'data'
      data.mkdir()
      splits = _write_splits(settings, vocabulary, paths, fates, data, submit)
    for name, content in ((records.VOCABULARY, vocabulary.vocab_txt), (records.SENTENCEPIECE, vocabulary.model)):
      if content is not None:
        (data / name).write_bytes(content)
    writing.write_tfds_metadata(data, splits, records.id_dtype(len(vocabulary.tokens)))
    manifest = records.Manifest(
        sequence_length=settings.sequence_length, pairs='dynamic', vocabulary=vocabulary.record, splits=splits, settings=described,
        counts=dict(sorted(counts.items())), packages=_packages())
    records.write_manifest(data, manifest)
    publishing.publish(data, settings.output, settings.overwrite)
  return manifest


def _described(settings: Prepare, vocabulary: tokenizer.Tokenizer) -> dict:
  """The settings that decide what the shards hold, for the manifest: the same ones make the same data."""
  elsewhere = ('output', 'workers', 'overwrite', 'vocabulary')
  described = {name: value for name, value in dataclasses.asdict(settings).items() if name not in elsewhere}
  files = sources.files(settings.input)
  return described | {'lower_case': vocabulary.lower_case, 'input_bytes': sum(file.stat().length for file in files)}


def _packages() -> dict[str, str]:
  versions = {}
  for name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[name] = importlib.metadata.version(name)
  return versions

# ---------------------------------------------------------------- runs


def make_run(chunk: sources.Chunk, path: pathlib.Path, settings: Prepare, limit: int | None = None) -> collections.Counter:
  """The run of a chunk's documents; gives the counts of what the chunk held."""
  vocabulary = _vocabulary(settings.vocabulary, settings.lower_case)
  parsed = sources.parse(chunk)
  documents, counts = parsed.documents[:limit], parsed.counts
  cut = pieces.Cut(settings.sequence_length, settings.language, settings.short_piece_share, settings.seed)
  made = [pieces.of_document(document, vocabulary, cut) for document in documents]
  counts['documents'] = len(documents)
  counts['text_bytes'] = sum(len(document.text.encode('utf-8', 'surrogatepass')) for document in documents)
  counts['dropped_tokens'] = sum(one.dropped_tokens for one in made)
  counts['without_pieces'] = sum(not len(one.keys) for one in made)
  if documents:
    dtype = records.id_dtype(len(vocabulary.tokens))
    joined = {name: np.concatenate([getattr(one, name) for one in made])
              for name in ('keys', 'piece_sentences', 'sentence_lengths', 'input_ids')}
    joined['input_ids'] = joined['input_ids'].astype(dtype)
    spill.write(path, spill.order(spill.Run(
        document_texts=np.frombuffer(b''.join(map(_text_hash, documents)), '<u8'),
        document_ranks=np.array([_rank(document.id) for document in documents], '<u8'),
        document_numbers=np.array([records.document_number(document.id) for document in documents], '<i4'),
        piece_documents=np.repeat(np.arange(len(made), dtype='<i4'), [len(one.keys) for one in made]),
        piece_tokens=np.zeros(0, '<u2'), **joined)))
  return counts


@functools.lru_cache(maxsize=2)
def _vocabulary(path: str, lower_case: bool | None) -> tokenizer.Tokenizer:
  return tokenizer.load(path, lower_case)  # once a process, so that its cache of words warms up


def _text_hash(document) -> bytes:
  return hashlib.blake2b(document.text.encode('utf-8', 'surrogatepass'), digest_size=16).digest()


def _rank(document_id: str) -> int:
  """Where a document stands between 0 and 2^64 for the split; neither the seed nor other documents move it."""
  return int.from_bytes(hashlib.sha256(b'split ' + document_id.encode('utf-8', 'surrogatepass')).digest()[:8], 'big')


def _make_runs(settings: Prepare, runs: pathlib.Path, submit, progress: bool) -> collections.Counter:
  from tqdm import tqdm
  counts, waiting = collections.Counter(), collections.deque()
  ahead = 2 * settings.workers if settings.workers > 1 else 0
  with tqdm(unit='B', unit_scale=True, desc='text → pieces', disable=None if progress else True, mininterval=1) as bar:

    def collect():
      done = waiting.popleft().result()
      counts.update(done)
      bar.update(done['bytes'])
      bar.set_postfix(documents=counts['documents'], refresh=False)

    for number, chunk in enumerate(sources.chunks(settings.input, settings.format, CHUNK_BYTES)):
      limit = None if settings.limit is None else settings.limit - counts['documents']
      waiting.append(submit(make_run, chunk, runs / f'{number:08d}.run', settings, limit))
      while len(waiting) > (ahead if settings.limit is None else 0):  # a limit is counted chunk by chunk
        collect()
      if settings.limit is not None and counts['documents'] >= settings.limit:
        break
    while waiting:
      collect()
  return counts

# ---------------------------------------------------------------- what becomes of each document


def decide(paths: list[pathlib.Path], settings: Prepare, counts: collections.Counter) -> list[np.ndarray]:
  """TRAIN, VALIDATION or DROPPED for each document of each run [D]; counts them. Raises DataError.

  Of documents with the same text the one with the smallest rank stays. Validation holds the documents whose rank is below the share,
  and at least the two smallest, or one of three: a rule of ids alone, so that a document moves only in a tiny corpus.
  """
  loaded = [spill.read(path) for path in paths]
  ranks = np.concatenate([run.document_ranks for run in loaded]) if loaded else np.zeros(0, '<u8')
  texts = np.concatenate([run.document_texts for run in loaded]).reshape(-1, 2) if loaded else np.zeros((0, 2), '<u8')
  used = [np.bincount(run.piece_documents, minlength=len(run.document_ranks)) > 0 for run in loaded]
  order = np.lexsort((ranks, texts[:, 0], texts[:, 1]))
  same = (texts[order[1:]] == texts[order[:-1]]).all(1)
  fates = np.full(len(ranks), spill.TRAIN, np.uint8)
  fates[order[1:][same]] = spill.DROPPED
  counts['duplicates'] = int(same.sum())
  counts['documents'] -= counts['duplicates']
  usable = (fates != spill.DROPPED) & np.concatenate([np.zeros(0, bool), *used])
  distinct = np.unique(ranks[usable])
  if len(distinct) < 2:
    held = f'{len(distinct)} document{"s" * (len(distinct) != 1)} with text'
    dropped = ', '.join(f'{counts[name]:,} {name.replace("_", " ")}' for name in DROPS if counts[name])
    raise records.DataError(f'--input {settings.input} holds {held}{" (" + dropped + ")" if dropped else ""}: wanted at least 2, because '
                            'a next-sentence negative comes from another document; in plain text a blank line ends a document')
  share = int(settings.validation_share * 2**64)
  least = 0 if not settings.validation_share or len(distinct) == 2 else 1 if len(distinct) == 3 else 2
  threshold = max(share, int(distinct[least - 1]) + 1 if least else 0)
  if threshold:
    fates[(fates != spill.DROPPED) & (ranks <= np.uint64(threshold - 1))] = spill.VALIDATION
  counts['validation_documents'] = int((fates[usable] == spill.VALIDATION).sum())
  counts['train_documents'] = int((fates[usable] == spill.TRAIN).sum())
  return np.split(fates, np.cumsum([len(run.document_ranks) for run in loaded])[:-1])


DROPS = ('redirects', 'other_namespaces', 'other_models', 'empty', 'without_pieces', 'duplicates')

# ---------------------------------------------------------------- shards


def _write_splits(settings: Prepare, vocabulary, paths, fates, data: pathlib.Path, submit) -> dict[str, records.Split]:
  totals = _totals(paths, fates)
  shards = settings.shards or max(1, math.ceil(totals[spill.TRAIN].tokens / _SHARD_TOKENS))
  numbers = {'train': (spill.TRAIN, shards), 'validation': (spill.VALIDATION, max(1, math.ceil(shards * settings.validation_share)))}
  submit = submit if sum(total.tokens for total in totals) > _ALONE_TOKENS else _now
  splits = {}
  for name, (fate, count) in numbers.items():
    total = totals[fate]
    if not total.pieces:
      continue
    if total.pieces < count:
      raise records.DataError(f'--shards {shards}: the {name} split has {total.pieces} pieces for {count} files; lower --shards')
    parts = max(1, math.ceil(total.tokens / count / _PART_TOKENS))
    jobs = [submit(_write_shard, data / records.shard_name(name, i, count), paths, fates, fate, bounds, parts, vocabulary.unk_id)
            for i, bounds in enumerate(spill.key_ranges(count))]
    done = [job.result() for job in jobs]
    written = tuple(shard for shard, _ in done)
    if empty := [shard.file for shard in written if not shard.pieces]:
      raise records.DataError(f'--shards {shards}: {len(empty)} of the {count} shards of {name} would be empty, with '
                              f'{sum(shard.pieces for shard in written)} pieces in all; lower --shards')
    splits[name] = records.Split(
        documents=total.documents, pieces=sum(shard.pieces for shard in written), tokens=sum(shard.tokens for shard in written),
        sentences=sum(more['sentences'] for _, more in done), unknown_tokens=sum(more['unknown_tokens'] for _, more in done),
        shards=written)
  return splits


def _totals(paths: list[pathlib.Path], fates: list[np.ndarray]) -> list['_Total']:
  """What TRAIN, VALIDATION and DROPPED hold."""
  sums = np.zeros((3, 3), np.int64)
  for path, fate in zip(paths, fates):
    run = spill.read(path)
    of_piece = fate[run.piece_documents]
    used = np.bincount(run.piece_documents, minlength=len(fate)) > 0
    sums += np.array([np.bincount(fate[used], minlength=3), np.bincount(of_piece, minlength=3),
                      np.bincount(of_piece, run.piece_tokens, 3)], np.int64)
  return [_Total(*map(int, column)) for column in sums.T]


def _write_shard(path, runs, fates, fate, bounds, parts, unknown_id):
  def merged() -> Iterator[spill.Selection]:
    for low, high in spill.key_ranges(parts, *bounds):
      yield spill.merge([spill.select(spill.read(run), run_fates, fate, low, high) for run, run_fates in zip(runs, fates)])
  return writing.write_shard(path, merged(), unknown_id)


@contextlib.contextmanager
def _pool(workers: int):
  """A `submit` like an executor's: to processes, or, for one worker, called on the spot."""
  if workers == 1:
    yield _now
    return
  with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context('spawn')) as executor:
    try:
      yield executor.submit
    except concurrent.futures.process.BrokenProcessPool as error:
      raise records.DataError(f'a worker died, perhaps for want of memory; lower --workers (now {workers})') from error
    finally:
      executor.shutdown(cancel_futures=True)


def _now(function, *arguments) -> concurrent.futures.Future:
  future = concurrent.futures.Future()
  future.set_result(function(*arguments))
  return future


@dataclasses.dataclass(frozen=True)
class _Total:
  documents: int
  pieces: int
  tokens: int

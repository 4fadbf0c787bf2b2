"""Documents → pieces → shuffled, counted, checksummed shards: `prepare`, in one process or many.

Each chunk of documents becomes one sorted run on disk (`make_run`, a pure function that runs anywhere); when all are made, duplicates
and the split are decided from hashes alone, and every shard is merged from its range of keys. So the shards are the same, byte for
byte, for any number of workers, in any order.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import pathlib

import numpy as np

from input_pipeline import records
from input_pipeline.prepare import near_duplicates, original_pairs, pieces, processes, publishing, spill, splits, tfds_layout
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import sources
from input_pipeline.vocabulary import tokenizer

CHUNK_BYTES = 2 << 20  # of raw text that a worker gets at once
_WORDS = 'words'  # the directory by which workers tell each other the ids of words
_NO_SIGNATURE = np.zeros(0, '<u4')
_PACKAGES = ('numpy', 'tokenizers', 'sentencepiece', 'sentencex', 'jieba', 'mwparserfromhell', 'tensorflow-datasets')


def prepare(settings: Prepare, progress: bool = True) -> records.Manifest:
  """Makes the shards of `settings.input` in `settings.output`, or finds them already made. Raises DataError, then nothing is left."""
  if settings.beam_runner is not None:
    from input_pipeline.prepare import on_beam
    return on_beam.prepare(settings)
  vocabulary = tokenizer.load(settings.vocabulary, settings.lower_case)
  if settings.pairs == 'google' and any(part.weight != 1 for part in sources.mixture(settings.input)):
    raise records.DataError("--input with weights and --pairs google do not go together: the original pairs every document alike; "
                            "leave the weights out, or use --pairs dynamic")
  description = described(settings, vocabulary)
  if (finished := publishing.finished(settings.output, description, vocabulary.sha256, settings.overwrite)) is not None:
    return finished
  identity = description | {
      'vocabulary': vocabulary.sha256, 'files': _stamps(settings), 'chunk_bytes': CHUNK_BYTES, 'packages': _packages()}
  with publishing.workplace(settings.output, identity) as workplace:
    runs = workplace / 'runs'
    runs.mkdir(exist_ok=True)
    publishing.empty(workplace / _WORDS)
    with processes.pool(settings.workers) as submit:
      counts = _make_runs(settings, runs, submit, progress)
      paths = sorted(runs.glob('*.run'))
      fates = splits.decide(paths, settings, counts)
      if settings.pairs == 'google':
        paths, fates = original_pairs.make_runs(
            paths, fates, settings.sequence_length - pieces.SPECIAL_TOKENS, settings.short_piece_share, settings.seed,
            settings.dupe_factor, publishing.empty(workplace / 'pairs'), submit)
      data = publishing.empty(workplace / 'data')
      written = splits.write(settings, vocabulary.unk_id, paths, fates, data, submit)
    return finish(settings, vocabulary, written, counts, description, data)


def finish(settings: Prepare, vocabulary: tokenizer.Tokenizer, written: dict[str, records.Split], counts: collections.Counter,
           description: dict, data: pathlib.Path) -> records.Manifest:
  """Adds to the shards in `data` what describes them, the manifest last, and puts it all in its place."""
  for name, content in ((records.VOCABULARY, vocabulary.vocab_txt), (records.SENTENCEPIECE, vocabulary.model)):
    if content is not None:
      (data / name).write_bytes(content)
  tfds_layout.write(data, written, records.id_dtype(len(vocabulary.tokens)), settings.pairs == 'google', settings.words != 'none')
  manifest = records.Manifest(
      sequence_length=settings.sequence_length, pairs=settings.pairs, vocabulary=vocabulary.record, splits=written, settings=description,
      counts=dict(sorted(counts.items())), packages=_packages(),
      words=settings.words)
  records.write_manifest(data, manifest)
  publishing.publish(data, settings.output, settings.overwrite)
  return manifest


def described(settings: Prepare, vocabulary: tokenizer.Tokenizer) -> dict:
  """The settings that decide what the shards hold, for the manifest: the same ones make the same data."""
  elsewhere = ('output', 'workers', 'overwrite', 'vocabulary', 'beam_runner', 'beam_arguments')
  chosen = {name: value for name, value in dataclasses.asdict(settings).items() if name not in elsewhere}
  if settings.words == 'none':
    del chosen['words']  # data from before there was this setting is the same data
  return chosen | {'lower_case': vocabulary.lower_case, 'input_bytes': sum(size for _, size, _ in _stamps(settings))}


def _stamps(settings: Prepare) -> list[tuple[str, int, int]]:
  """Name, size and time of every file of the input: they tell whether what a killed run left can be used."""
  found = [(file, file.stat()) for source in sources.mixture(settings.input) for file in sources.files(source.source)]
  return [(str(file), stat.length, int(stat.mtime)) for file, stat in found]


def _packages() -> dict[str, str]:
  versions = {}
  for name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[name] = importlib.metadata.version(name)
  return versions

# ---------------------------------------------------------------- runs


def make_run(chunk: sources.Chunk, path: pathlib.Path, settings: Prepare, limit: int | None = None) -> collections.Counter:
  """The run of a chunk's documents; gives the counts of what the chunk held. A run that is there already is not made again."""
  if path.exists():
    return collections.Counter(spill.read_counts(path))
  vocabulary = _vocabulary(settings.vocabulary, settings.lower_case)
  if settings.workers > 1 and vocabulary.words is not None:
    vocabulary.words.exchange(path.parents[1] / _WORDS)
  made, counts = make_pieces(chunk, settings, limit)
  spill.write(path, join(made, len(vocabulary.tokens)), counts)
  return counts


def make_pieces(chunk: sources.Chunk, settings: Prepare, limit: int | None = None) -> tuple[list['Made'], collections.Counter]:
  """The pieces of every document of a chunk that has some, and what the chunk held. A pure function."""
  vocabulary = _vocabulary(settings.vocabulary, settings.lower_case)
  parsed = sources.parse(chunk)
  counts = parsed.counts
  cut = pieces.Cut(settings.sequence_length, settings.language, settings.short_piece_share, settings.seed, settings.words)
  documents = parsed.documents[:limit]
  copies = [pieces.copies(document, chunk.weight) for document in documents]
  taken = [document for document, times in zip(documents, copies) if times]
  if len(taken) < len(documents):
    counts['left_out'] = len(documents) - len(taken)
  made = []
  for document, times, encoded in zip(taken, filter(None, copies), pieces.encode(taken, vocabulary, cut)):
    if settings.pairs == 'google':
      many = [pieces.whole_document(document, encoded, cut)]
    else:
      many = [pieces.of_document(document, encoded, vocabulary, cut, copy) for copy in range(times)]
    counts['text_bytes'] += len(document.text.encode('utf-8', 'surrogatepass'))
    counts['dropped_tokens'] += sum(one.dropped_tokens for one in many)
    counts['without_pieces'] += not len(many[0].keys)
    signature = near_duplicates.signature(many[0].input_ids) if settings.near_duplicates is not None else _NO_SIGNATURE
    made.append(Made(_text_hash(document), _rank(document.id), records.document_number(document.id), signature, pieces.join(many)))
  counts['documents'] = len(made)
  return made, counts


def join(made: list['Made'], vocabulary_size: int) -> spill.Run:
  """The pieces of documents as one run, sorted by key."""
  def column(name: str, dtype) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *(getattr(one.pieces, name) for one in made)]).astype(dtype)

  keys = column('keys', '<u8')
  return spill.order(spill.Run(
      document_texts=np.frombuffer(b''.join(one.text_hash for one in made), '<u8'),
      document_ranks=np.array([one.rank for one in made], '<u8'),
      document_numbers=np.array([one.number for one in made], '<i4'),
      document_signatures=np.concatenate([_NO_SIGNATURE, *(one.signature for one in made)]),
      piece_documents=np.repeat(np.arange(len(made), dtype='<i4'), [len(one.pieces.keys) for one in made]),
      piece_tokens=np.zeros(0, '<u4'), keys=keys, piece_labels=np.zeros(len(keys), 'u1'),
      piece_sentences=column('piece_sentences', '<u4'),
      sentence_lengths=column('sentence_lengths', '<u4'), input_ids=column('input_ids', records.id_dtype(vocabulary_size)),
      word_starts=column('word_starts', bool)))


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


@dataclasses.dataclass(frozen=True)
class Made:
  """A document, ready for the shuffle."""
  text_hash: bytes  # 128 bits: documents with the same text share them
  rank: int  # 64 bits of a hash of the id
  number: int  # records.document_number
  signature: np.ndarray  # [64] uint32, or empty
  pieces: pieces.Pieces

"""What `prepare` does, as pure functions that run anywhere; an engine only schedules them.

engines.py names the engines, each a file; corpus.py calls one.
  chunks       the input        -> raw documents, about 2 MB at once            text/sources.py
  keys         a chunk          -> of each document, with --limit only          text/sampling.py
  make_run     a chunk          -> its pieces, sorted by their keys             here
  decide       hashes of them   -> train, validation or dropped, each document  splits.py
  select       a run, one shard -> the pieces of the run that belong to it      spill.py
  write_shard  what was selected, merged -> one file                            columns.py, writing.py
"""

import collections
import dataclasses
import functools
import hashlib
import pathlib
import tempfile

import numpy as np

from input_pipeline import records
from input_pipeline.prepare import columns, near_duplicates, pieces, spill
from input_pipeline.prepare.settings import Prepare
from input_pipeline.text import formats, sampling, sources
from input_pipeline.vocabulary import tokenizer


@dataclasses.dataclass(frozen=True)
class Sent:
  """A vocabulary by its bytes, for machines that do not see its file."""
  files: tuple[tuple[str, bytes], ...]  # (name, content)
  record: records.Vocabulary


def smallest_keys(chunk: sources.Chunk, settings: Prepare) -> np.ndarray:  # -> [K] uint64
  """With --limit, of the documents of a chunk: what tells, of all chunks together, which ones are drawn."""
  return sampling.keys(chunk, settings.limit or sampling.MOST, settings.seed)


def sent(vocabulary: tokenizer.Tokenizer) -> Sent:
  return Sent(tuple(vocabulary.files.items()), vocabulary.record)


def make_run(chunk: sources.Chunk, settings: Prepare, vocabulary: tokenizer.Tokenizer, below: int | None = None,
             first: int | None = None) -> tuple[spill.Run, collections.Counter]:
  """The pieces of the documents of a chunk, and the counts of what the chunk held.

  `below`: only of documents whose key of a sample is below this; `first`: only of the first, so many.
  """
  parsed = sources.parse(chunk)
  counts = parsed.counts
  rules = pieces.Rules(settings.sequence_length, settings.language, settings.short_piece_share, settings.seed,
                       settings.words, settings.reading.lines)
  weighted, left_out = sources.taken(parsed.documents, chunk.weight)
  drawn = [(document, often) for document, often in weighted
           if below is None or sampling.key(document, settings.seed) < below]
  counts.update({name: count for name, count in {
      'left_out': left_out, 'beyond_limit': len(weighted) - len(drawn), 'beyond_first': len(drawn) - len(drawn[:first])
  }.items() if count})
  drawn = drawn[:first]
  taken, times = [document for document, _ in drawn], [often for _, often in drawn]
  made, hashes, signatures = [], [], []
  for document, often, encoded in zip(taken, times, pieces.encode(taken, vocabulary, rules)):
    if settings.pairs == 'google':
      copies = [pieces.undivided(document, encoded, rules)]
    else:
      copies = [pieces.of_document(document, encoded, vocabulary, rules, copy) for copy in range(often)]
    made.append(columns.join(copies))
    counts['text_bytes'] += len(_bytes(document.text))
    counts['tokens'] += len(encoded.input_ids)
    counts['unknown_tokens'] += int(np.count_nonzero(encoded.input_ids == vocabulary.unk_id))
    counts['dropped_tokens'] += len(copies) * len(encoded.input_ids) - int(made[-1].tokens.sum())
    if settings.near_duplicates is not None:
      signatures.append(near_duplicates.signature(copies[0]['input_ids']))
    hashes.append(hashlib.blake2b(encoded.input_ids.astype('<i4').tobytes(), digest_size=16).digest())
  counts['documents'] = len(taken)
  return _run(taken, made, hashes, signatures, settings, vocabulary), counts


def _run(documents: list[formats.Document], made: list[columns.Pieces], hashes: list[bytes],
         signatures: list[np.ndarray], settings: Prepare, vocabulary: tokenizer.Tokenizer) -> spill.Run:
  ids = records.id_dtype(len(vocabulary.tokens))
  width = near_duplicates.HASHES if settings.near_duplicates is not None else 0
  nothing = columns.empty([*records.columns_of(settings)], ids)
  return spill.order(spill.Run(
      texts=np.frombuffer(b''.join(hashes), '<u8').reshape(-1, 2),
      ranks=np.array([_rank(document.id) for document in documents], '<u8'),
      contents=np.array([pieces.document_key(document, seed=0) for document in documents], '<u8'),
      signatures=np.array(signatures, '<u4').reshape(len(documents), width),
      documents=np.repeat(np.arange(len(made), dtype='<i4'), [len(one.keys) for one in made]),
      pieces=columns.cast(columns.join([nothing, *made]), ids)))


@functools.lru_cache(maxsize=2)
def load_vocabulary(path: str, lower_case: bool | None, rules: str) -> tokenizer.Tokenizer:
  return tokenizer.load(path, lower_case, rules)  # once a process, so that its cache of words warms up


@functools.lru_cache(maxsize=2)
def unpacked(vocabulary: Sent) -> tokenizer.Tokenizer:
  with tempfile.TemporaryDirectory() as folder:
    for name, content in vocabulary.files:
      (pathlib.Path(folder) / name).write_bytes(content)
    return tokenizer.of(folder, vocabulary.record)


def _rank(document_id: str) -> int:
  """Where a document stands between 0 and 2^64 for the split; neither the seed nor other documents move it."""
  return int.from_bytes(hashlib.sha256(b'split ' + _bytes(document_id)).digest()[:8], 'big')


def _bytes(text: str) -> bytes:
  return text.encode('utf-8', 'surrogatepass')

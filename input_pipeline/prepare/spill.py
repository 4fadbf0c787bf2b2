"""The corpus-wide shuffle in bounded memory: sorted runs of pieces on disk, merged by key range.

Every piece has a 64-bit key, a hash; the order of the corpus is the order of the keys. So it depends neither on who made a run nor
on how many there are. A *run* holds what one chunk of documents gave, sorted by key; a shard is one range of keys of all runs.
Letters: D documents of a run, N its pieces, S its sentences, T its tokens.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from input_pipeline.vocabulary.word_cache import ranges

TRAIN, VALIDATION, DROPPED = 0, 1, 2  # what becomes of a document
SPLITS = {TRAIN: 'train', VALIDATION: 'validation'}
_HEADER = 4096  # bytes of JSON before the columns
_ALIGN = 64


def write(path: pathlib.Path, run: 'Run', counts: dict[str, int]) -> None:
  """Atomically: a run that is there is whole. `counts` says what the chunk held that it was made of."""
  columns, offset, data = {}, _HEADER, []
  for field in dataclasses.fields(run):
    array = np.ascontiguousarray(getattr(run, field.name))
    columns[field.name] = (array.dtype.str, len(array), offset)
    padding = -array.nbytes % _ALIGN
    data += [array.tobytes(), bytes(padding)]
    offset += array.nbytes + padding
  temporary = path.with_suffix('.tmp')
  temporary.write_bytes(json.dumps({'columns': columns, 'counts': counts}).encode().ljust(_HEADER) + b''.join(data))
  os.replace(temporary, path)


def read(path: pathlib.Path) -> 'Run':
  """The columns of a run, mapped from the file rather than read."""
  data = np.memmap(path, np.uint8, 'r').view(np.ndarray)  # whose slices cost a fifth of a memmap's
  columns = json.loads(data[:_HEADER].tobytes())['columns']
  return Run(**{name: data[offset:offset + count * np.dtype(dtype).itemsize].view(dtype)
                for name, (dtype, count, offset) in columns.items()})


def read_counts(path: pathlib.Path) -> dict[str, int]:
  with path.open('rb') as file:
    return json.loads(file.read(_HEADER))['counts']


def order(run: 'Run') -> 'Run':
  """The same run, sorted by key."""
  by_key = np.argsort(run.keys, kind='stable')
  tokens_of = np.add.reduceat(run.sentence_lengths, _starts(run.piece_sentences), dtype=np.int64) if len(by_key) else _EMPTY
  sentences = ranges(_starts(run.piece_sentences)[by_key], run.piece_sentences[by_key])
  tokens = ranges(_starts(tokens_of)[by_key], tokens_of[by_key])
  return dataclasses.replace(
      run, keys=run.keys[by_key], piece_documents=run.piece_documents[by_key], piece_sentences=run.piece_sentences[by_key],
      piece_tokens=tokens_of[by_key].astype('<u4'), piece_labels=run.piece_labels[by_key],
      sentence_lengths=run.sentence_lengths[sentences], input_ids=run.input_ids[tokens], word_starts=_pick(run.word_starts, tokens))


def select(run: 'Run', fates: np.ndarray, fate: int, low: int, high: int) -> 'Selection':
  """The pieces of the documents with this fate (TRAIN or VALIDATION) whose keys are in [low, high)."""
  first = int(np.searchsorted(run.keys, np.uint64(low)))
  last = len(run.keys) if high >= 2**64 else int(np.searchsorted(run.keys, np.uint64(high)))
  before = slice(0, first)
  inside = slice(first, last)
  sentence, token = run.piece_sentences[before].sum(dtype=np.int64), run.piece_tokens[before].sum(dtype=np.int64)
  counts, sizes = run.piece_sentences[inside], run.piece_tokens[inside]
  documents = run.piece_documents[inside]
  kept = fates[documents] == fate
  kept_sentences, kept_tokens = np.repeat(kept, counts), np.repeat(kept, sizes)
  return Selection(
      keys=run.keys[inside][kept], document_ids=run.document_numbers[documents[kept]],
      piece_sentences=counts[kept], piece_tokens=sizes[kept], labels=run.piece_labels[inside][kept],
      sentence_lengths=run.sentence_lengths[sentence:sentence + len(kept_sentences)][kept_sentences],
      input_ids=run.input_ids[token:token + len(kept_tokens)][kept_tokens],
      word_starts=_pick(run.word_starts[token:token + len(kept_tokens)], kept_tokens))


def merge(selections: list['Selection']) -> 'Selection':
  """All of them as one, sorted by key; equal keys, less likely than a damaged disk, by document."""
  both = concatenate(selections)
  which = np.lexsort((both.document_ids, both.keys))
  sentences = ranges(_starts(both.piece_sentences)[which], both.piece_sentences[which])
  tokens = ranges(_starts(both.piece_tokens)[which], both.piece_tokens[which])
  return Selection(
      keys=both.keys[which], document_ids=both.document_ids[which], piece_sentences=both.piece_sentences[which],
      piece_tokens=both.piece_tokens[which], labels=both.labels[which],
      sentence_lengths=both.sentence_lengths[sentences], input_ids=both.input_ids[tokens], word_starts=_pick(both.word_starts, tokens))


def concatenate(selections: list['Selection']) -> 'Selection':
  return Selection(**{field.name: np.concatenate([getattr(s, field.name) for s in selections]) for field in dataclasses.fields(Selection)})


def cut(pieces: 'Selection', start: int, end: int) -> 'Selection':
  """Pieces start … end-1."""
  sentence, token = (int(lengths[:start].sum(dtype=np.int64)) for lengths in (pieces.piece_sentences, pieces.piece_tokens))
  sentences, tokens = (int(lengths[start:end].sum(dtype=np.int64)) for lengths in (pieces.piece_sentences, pieces.piece_tokens))
  return Selection(
      keys=pieces.keys[start:end], document_ids=pieces.document_ids[start:end], piece_sentences=pieces.piece_sentences[start:end],
      piece_tokens=pieces.piece_tokens[start:end], labels=pieces.labels[start:end],
      sentence_lengths=pieces.sentence_lengths[sentence:sentence + sentences],
      input_ids=pieces.input_ids[token:token + tokens], word_starts=pieces.word_starts[token:token + tokens])


def key_ranges(count: int, low: int = 0, high: int = 2**64) -> Iterator[tuple[int, int]]:
  """[low, high) in `count` equal parts."""
  for i in range(count):
    yield low + (high - low) * i // count, low + (high - low) * (i + 1) // count


def _pick(column: np.ndarray, which: np.ndarray) -> np.ndarray:
  """column[which], of a column that is empty where nobody asked for it."""
  return column[which] if len(column) else column


def _starts(lengths: np.ndarray) -> np.ndarray:
  return np.cumsum(lengths, dtype=np.int64) - lengths


_EMPTY = np.zeros(0, np.int64)


@dataclasses.dataclass(frozen=True)
class Run:
  """What one chunk of documents gave. Documents that are dropped later, as duplicates, are still in it."""
  document_texts: np.ndarray  # [2 D] uint64, 128 bits of a hash of the text: duplicates share them
  document_ranks: np.ndarray  # [D] uint64, a hash of the id: splits train from validation, and ranks duplicates
  document_numbers: np.ndarray  # [D] int32, records.document_number
  document_signatures: np.ndarray  # [64 D] uint32, near_duplicates.signature; empty where it is not asked for
  keys: np.ndarray  # [N] uint64
  piece_documents: np.ndarray  # [N] int32, index of the document in this run
  piece_sentences: np.ndarray  # [N] uint32; a piece can be a whole document here
  piece_tokens: np.ndarray  # [N] uint32
  piece_labels: np.ndarray  # [N] uint8, of static pairs
  sentence_lengths: np.ndarray  # [S] uint32
  input_ids: np.ndarray  # [T] uint16 or int32
  word_starts: np.ndarray  # [T] bool; empty where it is not asked for


@dataclasses.dataclass(frozen=True)
class Selection:
  """Pieces in the order of their keys."""
  keys: np.ndarray
  document_ids: np.ndarray
  piece_sentences: np.ndarray
  piece_tokens: np.ndarray
  labels: np.ndarray
  sentence_lengths: np.ndarray
  input_ids: np.ndarray
  word_starts: np.ndarray

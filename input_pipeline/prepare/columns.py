"""Pieces as columns of NumPy: taken, cut, joined and sorted, every column of records.COLUMNS by the same few lines.

Three pieces of 1, 2 and 1 sentences, of which 2 and 0 are taken:
  piece_sentences   [1 2 1]               one for each piece:     places 2, 0      -> [1 1]
  sentence_lengths  [2 | 1 3 | 1]         one for each sentence:  places 3 | 0     -> [1 | 2]
  input_ids         [a b | c d e f | g]   one for each token:     places 6 | 0 1   -> [g | a b]
Letters: N pieces, S their sentences, T their tokens, K the pieces that are wanted.
"""

import dataclasses

import numpy as np

from input_pipeline import records
from input_pipeline.records import COLUMNS
from input_pipeline.vocabulary.word_cache import ranges


@dataclasses.dataclass(frozen=True)
class Pieces:
  """Pieces in some order. Columns are wider than in shards: a "piece" may be a whole document, and bits are bools."""
  keys: np.ndarray  # [N] uint64: their order after the shuffle
  tokens: np.ndarray  # [N] tokens of each
  columns: dict[str, np.ndarray]  # by the names of COLUMNS; of those that not all data has, only what was asked for

  def __getitem__(self, name: str) -> np.ndarray:
    return self.columns[name]


def dtype_of(name: str, ids: np.dtype) -> np.dtype:
  """The type of a column here, where `ids` is that of the tokens."""
  column = COLUMNS[name]
  if column.bits:
    return np.dtype(bool)
  return np.dtype({None: ids, '<u2': '<u4'}.get(column.dtype, column.dtype))


def stored(name: str, values: np.ndarray) -> np.ndarray:
  """A column as it stands in the shards."""
  column = COLUMNS[name]
  if column.bits:
    return np.packbits(values)
  return values if column.dtype is None else values.astype(column.dtype)


def block_of(pieces: Pieces) -> records.Block:
  return records.Block(**{name: stored(name, values) for name, values in pieces.columns.items()})


def join(many: list[Pieces]) -> Pieces:
  """All of them, one after the other; at least one. Those that are empty may lack columns that others have."""
  many = [one for one in many if len(one.keys)] or many[:1]
  if len(many) == 1:
    return many[0]
  concatenate = lambda get: np.concatenate([get(one) for one in many])
  return Pieces(concatenate(lambda one: one.keys), concatenate(lambda one: one.tokens),
                {name: concatenate(lambda one, name=name: one[name]) for name in many[0].columns})


def empty(names: list[str], ids: np.dtype) -> Pieces:
  return Pieces(np.zeros(0, '<u8'), np.zeros(0, '<u4'), {name: np.zeros(0, dtype_of(name, ids)) for name in names})


def cast(pieces: Pieces, ids: np.dtype) -> Pieces:
  return Pieces(pieces.keys.astype('<u8', copy=False), pieces.tokens.astype('<u4', copy=False),
                {name: values.astype(dtype_of(name, ids), copy=False) for name, values in pieces.columns.items()})


def take(pieces: Pieces, which: np.ndarray) -> Pieces:  # -, [K] -> -
  """Pieces `which`, in that order."""
  places = {'piece': which,
            'sentence': ranges(_starts(pieces['piece_sentences'])[which], pieces['piece_sentences'][which]),
            'token': ranges(_starts(pieces.tokens)[which], pieces.tokens[which])}
  return _at(pieces, places)


def keep(pieces: Pieces, kept: np.ndarray) -> Pieces:  # -, bool [N] -> -
  """The pieces that are `kept`, in the order that they have."""
  return _at(pieces, {'piece': kept, 'sentence': np.repeat(kept, pieces['piece_sentences']),
                      'token': np.repeat(kept, pieces.tokens)})


def cut(pieces: Pieces, start: int, end: int) -> Pieces:
  """Pieces start … end-1, not copied."""
  def span(lengths: np.ndarray) -> slice:
    before = int(lengths[:start].sum(dtype=np.int64))
    return slice(before, before + int(lengths[start:end].sum(dtype=np.int64)))
  return _at(pieces, {'piece': slice(start, end), 'sentence': span(pieces['piece_sentences']),
                      'token': span(pieces.tokens)})


def between(pieces: Pieces, low: int, high: int) -> Pieces:
  """Of pieces that are sorted those whose keys are in [low, high), not copied."""
  return cut(pieces, *places_between(pieces.keys, low, high))


def places_between(keys: np.ndarray, low: int, high: int) -> tuple[int, int]:  # [N], -, - -> [start, end)
  """Of sorted keys those in [low, high)."""
  end = len(keys) if high >= 2**64 else int(np.searchsorted(keys, np.uint64(high)))
  return int(np.searchsorted(keys, np.uint64(low))), end


def merge(many: list[Pieces]) -> Pieces:
  """All of them, sorted by key; equal keys, less likely than a damaged disk, by document."""
  joined = join(many)
  return take(joined, np.lexsort((joined['document_ids'], joined.keys)))


def _at(pieces: Pieces, places: dict[str, np.ndarray | slice]) -> Pieces:
  """The values at these places of the columns per piece, per sentence and per token."""
  return Pieces(pieces.keys[places['piece']], pieces.tokens[places['piece']],
                {name: values[places[COLUMNS[name].per]] for name, values in pieces.columns.items()})


def _starts(lengths: np.ndarray) -> np.ndarray:
  return np.cumsum(lengths, dtype=np.int64) - lengths

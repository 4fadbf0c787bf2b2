"""The arrays of a batch that the model sees, before masking: each pair at its place in its row, then padding.

Letters: B rows, T tokens of a row, N pairs of a row at most, M pairs of the batch.
"""

import dataclasses

import numpy as np

from input_pipeline.batches.pairs import Pairs
from input_pipeline.records import Vocabulary


@dataclasses.dataclass(frozen=True)
class PlacedPairs:
  """The pairs of a batch in the order of their rows, and where each stands; arrays [M]."""
  a_start: np.ndarray  # in the window's tokens, as in Pairs
  a_length: np.ndarray
  b_start: np.ndarray
  b_length: np.ndarray
  label: np.ndarray
  row: np.ndarray  # of the batch, not falling
  start: np.ndarray  # place of its [CLS] in the row
  length: np.ndarray  # tokens, the special ones counted
  nth: np.ndarray  # of its row, from 0


def place(pairs: Pairs, row: np.ndarray, separators: int) -> PlacedPairs:  # [M], [M]
  """Pairs side by side in their rows: in one row, pairs of 7, 5 and 9 tokens start at 0, 7 and 12."""
  length = pairs.a_length + pairs.b_length + 1 + separators
  nth = np.arange(len(row)) - np.searchsorted(row, row)
  return PlacedPairs(pairs.a_start, pairs.a_length, pairs.b_start, pairs.b_length, pairs.label, row,
                     sum_before(length, nth), length, nth)


def sum_before(counts: np.ndarray, nth: np.ndarray) -> np.ndarray:  # [M], [M] -> [M]
  """The sum of the counts of the earlier pairs of the same row.

    counts      3 2 4 1
    nth         0 1 0 1   so the rows are 0 0 1 1
    sum before  0 3 0 4
  """
  before = np.cumsum(counts) - counts
  return before - before[np.arange(len(counts)) - nth]


def fill_up(array: np.ndarray, rows: int) -> np.ndarray:  # [n ...] -> [rows ...]
  """With zeros after its rows: of all arrays of a batch, rows without a token, of weight 0 in everything."""
  missing = rows - len(array)
  return array if not missing else np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])


def lay_out(tokens: np.ndarray, pairs: PlacedPairs, row_count: int, row_length: int, separators: int,
            vocabulary: Vocabulary) -> dict[str, np.ndarray]:  # [window's tokens], [M] -> {[B T]}
  """[CLS] A [SEP] B [SEP] for each pair: input_ids, token_type_ids, position_ids, pair_ids.

  With one separator it is [CLS] A [SEP].

  The flat batch is a sequence of runs, and in each run all arrays follow from a few numbers: two runs for each pair,
  [CLS] A [SEP] and B [SEP], and one for each row's padding. One row of 12 with a pair whose A is tokens 50 51 and whose
  B is tokens 80 81 82:

    place         0  1  2  3 |  4  5  6  7 | 8 9 10 11   three runs of 4 places
    shift        49 49 49 49 | 76 76 76 76 | 0 0  0  0   place + shift is where the token lies in `tokens`
    token         - 50 51  - | 80 81 82  - | - -  -  -   [CLS], [SEP] and [PAD] are then written at the places -
  """
  row, pair = pairs.row, np.arange(len(pairs.row))
  # The runs of the pairs before, two each, and of the padding of the rows before.
  first, second = 2 * pair + row, 2 * pair + row + 1
  padding = 2 * np.searchsorted(row, np.arange(row_count), side='right') + np.arange(row_count)
  start = row * row_length + pairs.start
  size, segment, begin, pair_number, shift = (np.zeros(2 * len(pair) + row_count, np.int32) for _ in range(5))
  size[first], size[second] = pairs.a_length + 2, pairs.length - pairs.a_length - 2
  size[padding] = row_length - np.bincount(row, pairs.length, row_count).astype(np.int32)
  segment[second], begin[first], begin[second] = 1, start, start
  pair_number[first] = pair_number[second] = pairs.nth + 1
  shift[first] = pairs.a_start - start - 1
  shift[second] = pairs.b_start - start - pairs.a_length - 2
  place = np.arange(row_count * row_length, dtype=np.int32)
  pair_ids = np.repeat(pair_number, size)
  real = pair_ids > 0
  ids = np.take(tokens, place + np.repeat(shift, size), mode='clip').astype(np.int32)
  ids[~real] = vocabulary.pad_id
  ids[start], ids[start + pairs.length - 1] = vocabulary.cls_id, vocabulary.sep_id
  if separators == 2:
    ids[start + 1 + pairs.a_length] = vocabulary.sep_id
  arrays = {'input_ids': ids, 'token_type_ids': np.repeat(segment, size),
            'position_ids': (place - np.repeat(begin, size)) * real,
            'pair_ids': pair_ids}
  return {name: array.reshape(row_count, row_length) for name, array in arrays.items()}


def pair_slots(pairs: PlacedPairs, row_count: int, slots: int, predict: bool) -> dict[str, np.ndarray]:
  # [M] -> {[B N]}
  """Each pair's [CLS] and label: cls_positions, next_sentence_labels, next_sentence_weights.

  The weights are all 0 without `predict`.
  """
  slot = pairs.row * slots + pairs.nth
  positions, labels = (np.zeros(row_count * slots, np.int32) for _ in range(2))
  weights = np.zeros(row_count * slots, np.float32)
  positions[slot] = pairs.start
  if predict:
    labels[slot] = pairs.label
    weights[slot] = 1
  shape = lambda array: array.reshape(row_count, slots)
  return {'cls_positions': shape(positions), 'next_sentence_labels': shape(labels),
          'next_sentence_weights': shape(weights)}

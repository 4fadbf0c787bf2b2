"""Rows of a batch: which pairs share a row, and the arrays that the model sees.

Letters: B rows, T tokens of a row, N pairs of a row at most, M pairs, L their tokens together.
"""

import dataclasses

import numpy as np

from input_pipeline import random
from input_pipeline.batches.pairs import Pairs
from input_pipeline.batches.shards import Window
from input_pipeline.records import Vocabulary

SPLIT_SHARES = 0.0, 0.15, 0.3, 0.45, 0.6, 0.75  # splits of a window, as a share of its pieces; the first that gives GOOD_FILL
GOOD_FILL = 0.9965
SPLIT_GAP = 2  # a piece that leaves fewer tokens of a row free fills it well enough alone
SPARE = 0.0003  # share of rows kept for epochs that happen to fit badly
MORE_SPLITS = 0.0, 0.0, 0.02, 0.05, 0.1, 0.2  # where pieces find no room: other chance first, then more splits; nearly never needed


@dataclasses.dataclass(frozen=True)
class Plan:
  """What fixes the number of a window's rows before any of its epochs is arranged."""
  split_share: float
  fill: float  # share of real tokens that the worst of some trials reached

  def splits(self, pieces: np.ndarray) -> np.ndarray:  # [W] -> [W]
    return np.floor(self.split_share * pieces).astype(np.int64)

  def rows(self, pieces: np.ndarray, tokens: np.ndarray, row_length: int, pairs_per_row: int, separators: int) -> np.ndarray:
    """The rows of windows with so many pieces and tokens [W] -> [W]. Exchange moves tokens and loses none, so this holds in every epoch."""
    pairs = pieces + self.splits(pieces)
    full = (tokens + (1 + separators) * pairs) / (row_length * self.fill)
    return np.maximum(np.ceil(full * (1 + SPARE)) + 1, -(-pairs // pairs_per_row)).astype(np.int64)


def split_pieces(window: Window, share: float, row_length: int, stream: int) -> Window:
  """The window with floor(share * N) of its pieces cut in two at a random sentence, each part with two sentences at least.

  Pieces of long documents nearly fill a row, and what they leave free is too little for another: rows of such pieces waste 2 %.
  Parts of all lengths make rows full. Which pieces are cut changes from epoch to epoch.
  """
  lengths, sentences = np.diff(window.sentence_starts[window.piece_starts]), np.diff(window.piece_starts)
  words = random.words(stream, 0, 2 * len(lengths)).reshape(2, -1)
  free = row_length - 3 - lengths
  able = np.flatnonzero((sentences >= 4) & (free > SPLIT_GAP) & (2 * lengths > row_length))
  chosen = np.sort(able[np.argsort(words[0, able], kind='stable')][:int(share * len(lengths))])
  cuts = window.piece_starts[chosen] + 2 + random.below(words[1, chosen], sentences[chosen] - 3)
  pieces = np.sort(np.concatenate([np.arange(len(lengths)), chosen]))
  return dataclasses.replace(window, piece_starts=np.sort(np.concatenate([window.piece_starts, cuts])),
                             document_ids=window.document_ids[pieces])


def pack(lengths: np.ndarray, row_length: int, pairs_per_row: int, rows: int | None, stream: int) -> np.ndarray:  # [M] -> row of each [M]
  """Best fit decreasing, on equal lengths at once; which of the pairs of one length goes where is random. -1: no room in `rows`."""
  order = np.lexsort((random.words(stream, 0, len(lengths)), -lengths))
  values, counts = np.unique(-lengths, return_counts=True)
  free = [[] for _ in range(row_length + 1)]  # rows by the tokens they have left
  some = 0  # bit r: free[r] is not empty
  used, opened = [], 0  # pairs in each row
  placed, at = np.full(len(lengths), -1), 0

  def give(row, left):
    nonlocal some
    if used[row] < pairs_per_row and left:
      free[left].append(row)
      some |= 1 << left

  for length, count in zip((-values).tolist(), counts.tolist()):
    end = at + count
    while at < end:
      fitting = some >> length
      if fitting:
        left = length + (fitting & -fitting).bit_length() - 1
        taken = free[left][at - end:]
        del free[left][at - end:]
        if not free[left]:
          some ^= 1 << left
      elif rows is None or opened < rows:
        new = end - at if 2 * length > row_length else 1
        taken = list(range(opened, min(opened + new, opened + new if rows is None else rows)))
        left, opened = row_length, opened + len(taken)
        used += [0] * len(taken)
      else:
        at = end
        break
      placed[order[at:at + len(taken)]] = taken
      at += len(taken)
      for row in taken:
        used[row] += 1
        give(row, left - length)
  return placed


def squeeze(pairs: Pairs, placed: np.ndarray, rows: int, row_length: int, pairs_per_row: int, separators: int) -> tuple[Pairs, np.ndarray]:
  """Cuts the ends of pairs that found no row (-1) to what the emptiest rows have left; those without any room are left out."""
  a, b, placed = pairs.a.copy(), pairs.b.copy(), placed.copy()
  own = 1 + separators
  inside = placed >= 0
  left = row_length - np.bincount(placed[inside], (a + b + own)[inside], rows).astype(np.int64)
  left[np.bincount(placed[inside], minlength=rows) >= pairs_per_row] = 0
  for pair in np.flatnonzero(~inside):
    row = int(left.argmax())
    room = int(left[row]) - own
    if room >= separators:
      b[pair] = min(b[pair], max(room - a[pair], separators - 1))
      a[pair] = min(a[pair], room - b[pair])
      placed[pair], left[row] = row, 0
  kept = placed >= 0
  lost = int((pairs.a + pairs.b).sum() - (a + b)[kept].sum())
  return dataclasses.replace(pairs, a=a, b=b, trimmed=pairs.trimmed + lost).take(kept), placed[kept]


def place(pairs: dict[str, np.ndarray], row: np.ndarray, separators: int) -> dict[str, np.ndarray]:
  """Adds to a, b [M] where each pair goes: row [M], not falling; start of its [CLS] in the row, length, nth of the row."""
  length = pairs['a'] + pairs['b'] + 1 + separators
  first = np.searchsorted(row, row)
  before = np.cumsum(length) - length
  start = before - before[first] if len(row) else before
  return pairs | {'row': row, 'start': start, 'length': length, 'nth': np.arange(len(row)) - first}


def lay_out(tokens: np.ndarray, pairs: dict[str, np.ndarray], rows: int, row_length: int, separators: int,
            vocabulary: Vocabulary) -> dict[str, np.ndarray]:  # [window's tokens], {[M]} -> {[B T]}
  """[CLS] A [SEP] B [SEP] for each placed pair: input_ids, token_type_ids, position_ids, pair_ids.

  With one separator there is no B: [CLS] A [SEP]. `pairs` has a_start and b_start, places in tokens, beside what `place` adds.
  """
  # The flat batch is runs of tokens that lie together in `tokens`: for each pair [CLS] A [SEP] and B [SEP], and each row's padding.
  row, pair = pairs['row'], np.arange(len(pairs['row']))
  first, second, padding = 2 * pair + row, 2 * pair + row + 1, 2 * np.searchsorted(row, np.arange(rows), side='right') + np.arange(rows)
  start = row * row_length + pairs['start']
  size, label, begin, nth, shift = (np.zeros(2 * len(pair) + rows, np.int32) for _ in range(5))
  size[first], size[second] = pairs['a'] + 2, pairs['length'] - pairs['a'] - 2
  size[padding] = row_length - np.bincount(row, pairs['length'], rows).astype(np.int32)
  label[second], begin[first], begin[second] = 1, start, start
  nth[first] = nth[second] = pairs['nth'] + 1
  shift[first] = pairs['a_start'] - start - 1
  shift[second] = pairs['b_start'] - start - pairs['a'] - 2
  place = np.arange(rows * row_length, dtype=np.int32)
  pair_ids = np.repeat(nth, size)
  real = pair_ids > 0
  ids = np.take(tokens, place + np.repeat(shift, size), mode='clip').astype(np.int32)
  ids[~real] = vocabulary.pad_id
  ids[start], ids[start + pairs['length'] - 1] = vocabulary.cls_id, vocabulary.sep_id
  if separators == 2:
    ids[start + 1 + pairs['a']] = vocabulary.sep_id
  arrays = {'input_ids': ids, 'token_type_ids': np.repeat(label, size), 'position_ids': (place - np.repeat(begin, size)) * real,
            'pair_ids': pair_ids}
  return {name: array.reshape(rows, row_length) for name, array in arrays.items()}


def pair_slots(pairs: dict[str, np.ndarray], rows: int, slots: int, predict: bool) -> dict[str, np.ndarray]:
  # {[M]} -> {[B N]}
  """Each pair's [CLS] and label: cls_positions, next_sentence_labels, next_sentence_weights (all 0 without `predict`)."""
  where = pairs['row'] * slots + pairs['nth']
  positions, labels = (np.zeros(rows * slots, np.int32) for _ in range(2))
  weights = np.zeros(rows * slots, np.float32)
  positions[where] = pairs['start']
  if predict:
    labels[where] = pairs['label']
    weights[where] = 1
  shape = lambda array: array.reshape(rows, slots)
  return {'cls_positions': shape(positions), 'next_sentence_labels': shape(labels), 'next_sentence_weights': shape(weights)}

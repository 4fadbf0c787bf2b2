"""Which pairs share a row, so that almost no padding is left.

The problem: rows of T tokens, and pairs of all lengths, most of them long. Every pair must go into some row, whole; a
row takes a few pairs at most; and a window must fill the same number of rows in every epoch, although each epoch pairs
and packs afresh, because the row where a step begins is computed from those numbers.

1. Before the first step a few windows are packed for trial (epochs.run_trials). It tells how many pieces to split and
   how full rows become: `Trials`.
2. From that comes each window's number of rows: its tokens at the fill of the worst trial, and a few rows to spare.
3. In each epoch that share of a window's pieces is split (`split_pieces`): without short parts, rows of long documents
   waste 2 %.
4. The pairs are packed into the rows (`pack`), from the longest down, each into the fullest row that has room for it.
5. Where some found no room, the draws change and then more pieces are split (MORE_SPLITS); nearly never needed.
6. Where that does not help either, what is left over is cut short (`cut_to_fit`) and counted as trimmed.

Letters: W windows, N pieces, M pairs of a window.
"""

import dataclasses

import numpy as np

from input_pipeline import random
from input_pipeline.batches.pairs import Pairs
from input_pipeline.batches.shards import SPECIALS, Window

# Splits of a window, as a share of its pieces; the first that gives GOOD_FILL is taken.
SPLIT_SHARES = 0.0, 0.15, 0.3, 0.45, 0.6, 0.75
GOOD_FILL = 0.9965
SPLIT_GAP = 2  # a piece that leaves no more tokens of a row free fills it well enough by itself
PART_SENTENCES = 2  # of each part of a split piece, at least: so that it can be a pair
SPARE_ROWS = 0.0003  # share of rows kept for epochs that happen to fit badly
# Attempts at a window: the share of its pieces that is split beside what the trials told.
MORE_SPLITS = 0.0, 0.0, 0.02, 0.05, 0.1, 0.2


@dataclasses.dataclass(frozen=True)
class Trials:
  """What packing some windows for trial told: it fixes a window's rows before any of its epochs is arranged."""
  split_share: float  # of the pieces: those to split
  fill: float  # share of real tokens in the rows, in the worst of the trials

  def splits(self, pieces: np.ndarray) -> np.ndarray:  # [W] -> [W]
    return np.floor(self.split_share * pieces).astype(np.int64)

  def row_counts(self, pieces: np.ndarray, tokens: np.ndarray, row_length: int, pairs_per_row: int,
                 separators: int) -> np.ndarray:  # [W], [W] -> [W]
    """The rows of windows with so many pieces and tokens. Exchange loses no tokens: the same in each epoch."""
    pairs = pieces + self.splits(pieces)
    full = (tokens + (1 + separators) * pairs) / (row_length * self.fill)
    return np.maximum(np.ceil(full * (1 + SPARE_ROWS)) + 1, -(-pairs // pairs_per_row)).astype(np.int64)


def split_pieces(window: Window, share: float, row_length: int, key: int) -> Window:
  """The window with floor(share * N) of its pieces cut in two at a random sentence, each part of two sentences or more.

  Pieces of long documents nearly fill a row, and what they leave free is too little for another: rows of such pieces
  waste 2 %. Parts of all lengths make rows full. Which pieces are cut changes from epoch to epoch.
  """
  lengths, sentences = window.piece_lengths, np.diff(window.piece_starts)
  order_bits, cut_bits = random.bits(key, 0, 2 * len(lengths)).reshape(2, -1)
  free = row_length - SPECIALS - lengths
  able = np.flatnonzero((sentences >= 2 * PART_SENTENCES) & (free > SPLIT_GAP) & (2 * lengths > row_length))
  chosen = np.sort(able[np.argsort(order_bits[able], kind='stable')][:int(share * len(lengths))])
  # Of 6 sentences the second part may begin with the third, fourth or fifth: 6 - 4 + 1 choices.
  choices = sentences[chosen] - 2 * PART_SENTENCES + 1
  cuts = window.piece_starts[chosen] + PART_SENTENCES + random.below(cut_bits[chosen], choices)
  pieces = np.sort(np.concatenate([np.arange(len(lengths)), chosen]))
  return dataclasses.replace(window, piece_starts=np.sort(np.concatenate([window.piece_starts, cuts])),
                             document_ids=window.document_ids[pieces])


def pack(lengths: np.ndarray, row_length: int, pairs_per_row: int, row_count: int | None, key: int) -> np.ndarray:
  # [M] -> [M]
  """The row of each pair, -1 where none of `row_count` has room; None: as many rows as it takes.

  Best fit decreasing: from the longest pair down, each goes into the row with the least room that is enough. Pairs of
  one length are handled together, in random order. The rows with 1, 2, 3 … tokens left stand in lists, and a whole
  number has a bit for each list that is not empty, so that one shift finds the fullest row. Rows with 3, 5 and 9 tokens
  left, and a pair of 4:

    not_empty        0b1000101000   bits 9, 5 and 3
    not_empty >> 4       0b100010   bits 5 and 1: there are rows with 9 and with 5 left
    its lowest bit             10   bit 1: the row with 4 + 1 = 5 left is taken, and has 1 left then
  """
  order = np.lexsort((random.bits(key, 0, len(lengths)), -lengths))
  descending, counts = np.unique(-lengths, return_counts=True)
  with_left = [[] for _ in range(row_length + 1)]  # the rows that have so many tokens left, and may take another pair
  not_empty = 0  # bit r: with_left[r] is not empty
  pairs_in, opened = [], 0  # pairs in each row; rows in use
  row_of, done = np.full(len(lengths), -1), 0  # done: pairs, in that order
  for length, count in zip((-descending).tolist(), counts.tolist()):
    end = done + count
    while done < end:
      fitting = not_empty >> length
      if fitting:
        left = length + (fitting & -fitting).bit_length() - 1
        chosen = with_left[left][done - end:]
        del with_left[left][done - end:]
        if not with_left[left]:
          not_empty ^= 1 << left
      elif row_count is None or opened < row_count:
        new = end - done if 2 * length > row_length else 1  # two of such a length do not share a row
        chosen = list(range(opened, opened + new if row_count is None else min(opened + new, row_count)))
        left, opened = row_length, opened + len(chosen)
        pairs_in += [0] * len(chosen)
      else:
        done = end
        break
      row_of[order[done:done + len(chosen)]] = chosen
      done += len(chosen)
      rest = left - length
      for row in chosen:
        pairs_in[row] += 1
        if pairs_in[row] < pairs_per_row and rest:
          with_left[rest].append(row)
          not_empty |= 1 << rest
  return row_of


def cut_to_fit(pairs: Pairs, row_of: np.ndarray, row_count: int, row_length: int, pairs_per_row: int,
               separators: int) -> tuple[Pairs, np.ndarray]:  # [M], [M] -> the pairs that are kept, and their rows
  """Cuts the ends of pairs that found no row (-1) to what the emptiest rows have left; the rest is left out."""
  a_length, b_length, row_of = pairs.a_length.copy(), pairs.b_length.copy(), row_of.copy()
  specials = 1 + separators
  inside = row_of >= 0
  left = row_length - np.bincount(row_of[inside], (a_length + b_length + specials)[inside], row_count).astype(np.int64)
  left[np.bincount(row_of[inside], minlength=row_count) >= pairs_per_row] = 0
  least = separators  # tokens of a pair: one for each segment
  for pair in np.flatnonzero(~inside):
    row = int(left.argmax())
    room = int(left[row]) - specials
    if room >= least:
      b_length[pair] = min(b_length[pair], max(room - a_length[pair], separators - 1))
      a_length[pair] = min(a_length[pair], room - b_length[pair])
      row_of[pair], left[row] = row, 0
  kept = row_of >= 0
  lost = int((pairs.a_length + pairs.b_length).sum() - (a_length + b_length)[kept].sum())
  cut = dataclasses.replace(pairs, a_length=a_length, b_length=b_length, trimmed=pairs.trimmed + lost)
  return cut.take(kept), row_of[kept]

"""How the pieces of a window become pairs of segments, in each epoch others: one function a kind of pairs.

Each piece is a run of sentences of one document, and becomes the first segment A of one pair and the second segment B
of one pair: of the same one or, in next-sentence pairs that are negatives, of another (exchange.py).

Letters: N pieces of the window, V vocabulary.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from input_pipeline import random
from input_pipeline.batches.exchange import exchange
from input_pipeline.batches.segments import Pairs, draw_cuts
from input_pipeline.batches.shards import Window


def google(window: Window) -> Pairs:
  """The original's pairs, as `prepare` stored them: two segments a piece, and a label."""
  starts = window.sentence_starts[window.piece_starts[:-1, None] + np.arange(3)]  # [N 3] of A, of B, and the end
  return Pairs(starts[:, 0], starts[:, 1] - starts[:, 0], starts[:, 1], starts[:, 2] - starts[:, 1],
               window.labels.astype(np.int32))


def one_segment(window: Window) -> Pairs:
  """RoBERTa's full sentences: A is the piece, and B is empty."""
  starts, lengths = window.sentence_starts[window.piece_starts[:-1]], window.piece_lengths
  return Pairs(starts, lengths, starts, np.zeros_like(lengths), np.zeros(len(lengths), np.int32))


def sentence_order(window: Window, key: int, continues: np.ndarray) -> Pairs:
  """ALBERT's sentence order: half of the pieces, to within one, have their two segments swapped (label 1)."""
  starts, lengths = window.sentence_starts[window.piece_starts[:-1]], window.piece_lengths
  count = len(lengths)
  cut_bits, order_bits = random.bits(key, 0, 2 * count).reshape(2, count)
  cut = draw_cuts(window, cut_bits, continues)
  able = np.flatnonzero(cut < lengths)
  swap = np.zeros(count, bool)
  swap[able[np.argsort(order_bits[able], kind='stable')][:count // 2]] = True
  return Pairs(np.where(swap, starts + cut, starts), np.where(swap, lengths - cut, cut),
               np.where(swap, starts, starts + cut), np.where(swap, cut, lengths - cut), swap.astype(np.int32))


# (window, key of the bits, tokens that a pair has room for, which tokens continue a word [V]) -> pairs
MAKERS: dict[str, Callable[[Window, int, int, np.ndarray], Pairs]] = {
    'nsp': exchange,
    'google': lambda window, key, room, continues: google(window),
    'sop': lambda window, key, room, continues: sentence_order(window, key, continues),
    'none': lambda window, key, room, continues: one_segment(window),
}
if TYPE_CHECKING:
  PairKind = str
else:
  PairKind = Literal[*MAKERS]

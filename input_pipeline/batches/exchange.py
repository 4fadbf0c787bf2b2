"""Next-sentence pairs: exactly half of them negatives, and every sentence once an epoch.

The problem: cut each of the N pieces of a window into segments A and B. A positive is A with its own B, a negative is A
with the B of another document. Half of the pairs must be negatives, no segment may come twice or be lost, and A and B
together must fit into a row. So B is not drawn: pieces *exchange* their second segments, two by two. Then the pairs are
a permutation `partner` of the pieces, where pair n is A of n with B of partner[n]. Four pieces, of different documents,
with room for 12 tokens:

  A           4 5 3 6        pieces 0 and 2 exchange: 4 + 6 and 3 + 6 tokens, both fit
  B           6 7 6 5        pieces 1 and 3 stay as they are
  partner     2 1 0 3        so the labels are 1 0 1 0

1. Cut every piece at a random boundary between sentences.
2. Sort the pieces by the tokens of B, equal ones at random, and look at neighbours (first and second, third and fourth
   …): their B are about equally long, so both new pairs fit if the old ones did. Those of different documents that fit
   exchange: a *couple*. Of these only as many as are wanted are taken, at random: N/4 couples are N/2 negatives.
3. Where couples are still missing, cut the pieces that are free afresh and do step 2 with them, up to ROUNDS times. A
   full window needs one.
4. Where couples are missing even then (small or strange windows), sort the free pieces by document and couple those
   that stand half the list apart, at the cuts that lose the fewest tokens.
5. Where N/2 is odd, couples do not make it: one couple (i, j) and a free piece k become a circle, i -> j -> k -> i.

Letters: N pieces of the window, V vocabulary, F pieces that are not matched yet.
"""

import numpy as np

from input_pipeline import random
from input_pipeline.batches.segments import Pairs, draw_cuts
from input_pipeline.batches.shards import Window
from input_pipeline.records import DataError

ROUNDS = 8  # of fresh cuts for the pieces that found no partner
CIRCLE_TRIALS = 128  # pieces of couples, and free pieces, that are tried for the one circle of three
IMPOSSIBLE = np.iinfo(np.int64).max


def exchange(window: Window, key: int, room: int, continues: np.ndarray) -> Pairs:
  """Next-sentence pairs of at most `room` tokens: half of the pieces exchange their second segments.

  Exactly half exchange where the number of pieces is even (where that half is odd, three of three documents in a
  circle), else half to within one; fewer only where one document has more than three quarters of the pieces. Raises
  DataError where all are of one document.
  """
  lengths = window.piece_lengths
  count = len(lengths)
  # Of each round, for its cuts and for its order.
  bits = random.bits(key, 0, (ROUNDS + 1) * 2 * count).reshape(-1, 2, count)
  cut = draw_cuts(window, bits[0, 0], continues)  # [N] tokens of A
  partner = np.arange(count)
  half = count // 2
  # Pieces that exchange. Of 7 it may be 3 or 4, so the even one; of 6 it must be 3, and of 8 it is 4.
  wanted = half if count % 2 == 0 or half % 2 == 0 else half + 1
  match(window, partner, cut, wanted // 2, bits, room, continues)
  if wanted % 2 and not extend_to_three(window, partner, cut, room, bits[-1, 0]):
    match(window, partner, cut, wanted // 2 + 1, bits, room, continues)
  b_length = (lengths - cut)[partner]
  kept = np.minimum(b_length, room - cut)
  starts = window.sentence_starts[window.piece_starts[:-1]]
  return Pairs(starts, cut, (starts + cut)[partner], kept, (partner != np.arange(count)).astype(np.int32),
               int((b_length - kept).sum()))


def overflow(cut: np.ndarray, lengths: np.ndarray, i: np.ndarray, j: np.ndarray, room: int) -> np.ndarray:
  # [N], [N], [F], [F] -> [F]
  """Tokens without room in the pair of A of i with B of j."""
  return np.maximum(0, cut[i] + lengths[j] - cut[j] - room)


def both_overflow(cut: np.ndarray, lengths: np.ndarray, i: np.ndarray, j: np.ndarray, room: int) -> np.ndarray:
  # [N], [N], [F], [F] -> [F]
  """Tokens without room when i and j exchange their second segments."""
  return overflow(cut, lengths, i, j, room) + overflow(cut, lengths, j, i, room)


def match(window: Window, partner: np.ndarray, cut: np.ndarray, wanted: int, bits: np.ndarray, room: int,
          continues: np.ndarray) -> None:
  # [N], [N], [ROUNDS + 1 2 N], [V]
  """Steps 2 to 4, until there are `wanted` couples or as many as can be: changes `partner` and `cut` in place."""
  lengths, documents, own = window.piece_lengths, window.document_ids, np.arange(len(partner))
  found, counts = np.unique(documents, return_counts=True)
  if len(found) == 1:
    raise DataError(f'a window of {len(documents)} pieces holds only one document, so it has no next-sentence '
                    'negatives: prepare more documents, or use batch.pairs none or sop')
  # A document that has most of the pieces must be in every couple: couples of the others would leave too many of its
  # pieces over.
  main = found[counts.argmax()] if 2 * counts.max() > len(documents) else None

  def allowed(i, j):
    differ = documents[i] != documents[j]
    return differ if main is None else differ & ((documents[i] == main) | (documents[j] == main))

  def couple(i, j):
    partner[i], partner[j] = j, i

  missing_couples = lambda: wanted - np.count_nonzero(partner != own) // 2
  for cut_bits, order_bits in bits[:ROUNDS]:
    if (missing := missing_couples()) <= 0:
      return
    free = np.flatnonzero(partner == own)
    cut[free] = draw_cuts(window, cut_bits[free], continues, free)
    free = free[lengths[free] > 1]
    i, j = neighbours(free, (lengths - cut)[free], order_bits[free])
    good = np.flatnonzero(allowed(i, j) & (both_overflow(cut, lengths, i, j, room) == 0))
    # In random order by the lower halves: the upper ones have decided who are neighbours.
    good = good[np.argsort(order_bits[i[good]] << random.HALF, kind='stable')[:missing]]
    couple(i[good], j[good])
  if (missing := missing_couples()) > 0:
    free = np.flatnonzero((partner == own) & (lengths > 1))
    free = free[np.lexsort((bits[-1, 1, free], documents[free]))]
    # Half the list apart: different documents wherever possible.
    i, j = free[:len(free) // 2], free[len(free) - len(free) // 2:]
    good = allowed(i, j)
    i, j = i[good][:missing], j[good][:missing]
    fit_cuts(window, cut, i, j, room)
    couple(i, j)


def neighbours(free: np.ndarray, b_lengths: np.ndarray, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  # [F] x 3 -> [F / 2] x 2
  """The pieces two by two in the order of the tokens of B, equal ones at random.

  One sort does both, of a number with the length above and the upper half of the draw below:

    B of 7 tokens, bits 0x 9E3779B9 …   0x 7_9E3779B9
    B of 7 tokens, bits 0x 11C0FFEE …   0x 7_11C0FFEE   comes before it
    B of 6 tokens, bits 0x FFFFFFFF …   0x 6_FFFFFFFF   comes before both
  """
  order = free[np.argsort(b_lengths << 32 | random.upper(bits).astype(np.int64), kind='stable')]
  return order[:len(order) // 2 * 2:2], order[1::2]


def fit_cuts(window: Window, cut: np.ndarray, i: np.ndarray, j: np.ndarray, room: int) -> None:  # …, [N], [F], [F]
  """Chooses for j, then for i, the sentence boundary that loses the fewest tokens: changes `cut` in place."""
  lengths = window.piece_lengths
  for fixed, moved in ((i, j), (j, i)):
    for nth in range(1, int(np.diff(window.piece_starts)[moved].max(initial=0))):
      first, last = window.piece_starts[moved], window.piece_starts[moved + 1]
      trial = cut.copy()
      trial[moved] = window.sentence_starts[np.minimum(first + nth, last)] - window.sentence_starts[first]
      better = both_overflow(trial, lengths, fixed, moved, room) < both_overflow(cut, lengths, fixed, moved, room)
      better &= first + nth < last
      cut[moved[better]] = trial[moved[better]]


def extend_to_three(window: Window, partner: np.ndarray, cut: np.ndarray, room: int, bits: np.ndarray) -> bool:
  # …, [N], [N], …, [N]
  """Step 5: makes of a couple (i, j) and a free piece k a circle that loses the fewest tokens. False: there is none."""
  lengths, documents = window.piece_lengths, window.document_ids
  own = np.arange(len(partner))
  free = np.flatnonzero((partner == own) & (lengths > 1))
  i = np.flatnonzero(partner != own)
  i, k = (pieces[np.argsort(bits[pieces], kind='stable')][:CIRCLE_TRIALS] for pieces in (i, free))
  if not len(i) or not len(k):
    return False
  i, k = (grid.reshape(-1) for grid in np.meshgrid(i, k, indexing='ij'))
  j = partner[i]
  lost = sum(overflow(cut, lengths, a, b, room) for a, b in ((i, j), (j, k), (k, i)))
  lost = np.where((documents[i] != documents[k]) & (documents[j] != documents[k]), lost, IMPOSSIBLE)
  best = lost.argmin()
  if lost[best] == IMPOSSIBLE:
    return False
  i, j, k = i[best], j[best], k[best]
  partner[[i, j, k]] = j, k, i
  return True

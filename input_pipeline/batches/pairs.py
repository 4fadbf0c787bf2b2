"""Pairs of segments from the pieces of a window, anew each epoch: next-sentence pairs by exchange, and the other objectives' pairs.

Letters: N pieces of the window, S its sentences, T its tokens, V vocabulary, F pieces that are not matched yet.
"""

import dataclasses

import numpy as np

from input_pipeline import random
from input_pipeline.batches.shards import Window
from input_pipeline.records import DataError

ROUNDS = 8  # fresh cuts for the pieces that found no partner; a window of 8,192 pieces needs one
SAMPLE = 128  # pairs and pieces that are tried for the one cycle of three


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Segments A and B of each pair, as places in the window's tokens; arrays [N]."""
  a_start: np.ndarray
  a: np.ndarray  # tokens of A
  b_start: np.ndarray
  b: np.ndarray
  label: np.ndarray  # 1 = B is of another document (or, in sentence order, comes before A)
  trimmed: int = 0  # tokens that found no room

  def take(self, order: np.ndarray) -> 'Pairs':
    fields = (getattr(self, name)[order] for name in ('a_start', 'a', 'b_start', 'b', 'label'))
    return Pairs(*fields, trimmed=self.trimmed)


def exchange(window: Window, stream: int, room: int, continues: np.ndarray) -> Pairs:
  """Next-sentence pairs: half of the pieces keep their second segment, the others exchange theirs, two by two.

  The two are of different documents and cut so that both new pairs fit into `room` tokens, so nothing is lost. Exactly half of
  the pieces exchange where their number is even (where that half is odd, three of three documents exchange in a circle), else half to
  within one; fewer only where one document has more than three quarters of the pieces. Raises DataError where all are of one document.
  """
  lengths = piece_lengths(window)
  count = len(lengths)
  draws = random.words(stream, 0, (ROUNDS + 1) * 2 * count).reshape(-1, 2, count)
  cut = draw_cuts(window, draws[0, 0], continues)
  partner = np.arange(count)
  goal = count // 2 if count % 2 == 0 or count // 2 % 2 == 0 else count // 2 + 1
  match(window, partner, cut, goal // 2, draws, room, continues)
  if goal % 2 and not extend_to_three(window, partner, cut, room, draws[-1, 0]):
    match(window, partner, cut, goal // 2 + 1, draws, room, continues)
  b = (lengths - cut)[partner]
  kept = np.minimum(b, room - cut)
  starts = window.sentence_starts[window.piece_starts[:-1]]
  return Pairs(starts, cut, (starts + cut)[partner], kept, (partner != np.arange(count)).astype(np.int32), int((b - kept).sum()))


def piece_lengths(window: Window) -> np.ndarray:  # -> [N]
  return np.diff(window.sentence_starts[window.piece_starts])


def draw_cuts(window: Window, words: np.ndarray, continues: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
  # [F] -> [F] tokens of the first segment
  """A random boundary between sentences; in a piece of one sentence a random one between words; a piece of one token stays whole."""
  among = np.arange(len(words)) if among is None else among
  first, last = window.piece_starts[among], window.piece_starts[among + 1]
  start, end = window.sentence_starts[first], window.sentence_starts[last]
  cut = window.sentence_starts[first + 1 + random.below(words, np.maximum(last - first - 1, 1))]
  single = np.flatnonzero(last - first == 1)
  begin, stop = start[single], end[single]
  drawn = np.minimum(begin + 1 + random.below(words[single], np.maximum(stop - begin - 1, 1)), stop)
  cut[single] = word_boundary(window, drawn, begin, stop, continues)
  return cut - start


def word_boundary(window: Window, drawn, begin, stop, continues):  # [F] x 3, [V] -> [F]
  """The next start of a word at or behind `drawn`, else the last before it, else `drawn` itself: all inside (begin, stop)."""
  goes_on = lambda at: continues[window.tokens[at]] if window.word_starts is None else ~window.word_starts[at]
  for step in (1, -1):
    place, moving = drawn.copy(), np.arange(len(drawn))
    while len(moving):
      here = place[moving]
      inside = (begin[moving] < here) & (here < stop[moving])
      moving = moving[inside][goes_on(here[inside])]
      place[moving] += step
    drawn = np.where((begin < place) & (place < stop), place, drawn)
  return drawn


def overflow(cut, lengths, i, j, room):  # [N], [N], [F], [F] -> [F]
  """Tokens without room when i and j exchange their second segments."""
  return np.maximum(0, cut[i] + lengths[j] - cut[j] - room) + np.maximum(0, cut[j] + lengths[i] - cut[i] - room)


def match(window: Window, partner: np.ndarray, cut: np.ndarray, goal: int, draws: np.ndarray, room: int, continues: np.ndarray) -> None:
  """Matches pieces until `goal` couples are made, or as many as the documents allow: changes `partner` and `cut` in place."""
  lengths, documents = piece_lengths(window), window.document_ids
  values, counts = np.unique(documents, return_counts=True)
  if len(values) == 1:
    raise DataError(f'a window of {len(documents)} pieces holds one document alone, so no next-sentence negatives can be made: '
                    'prepare more documents, or use batch.pairs none or sop')
  greatest = values[counts.argmax()] if 2 * counts.max() > len(documents) else None  # has most pieces: it must be in every couple

  def allowed(i, j):
    differ = documents[i] != documents[j]
    return differ if greatest is None else differ & ((documents[i] == greatest) | (documents[j] == greatest))

  def couple(i, j):
    partner[i], partner[j] = j, i

  need = lambda: goal - np.count_nonzero(partner != np.arange(len(partner))) // 2
  for words in draws[:ROUNDS]:
    if (missing := need()) <= 0:
      return
    free = np.flatnonzero(partner == np.arange(len(partner)))
    cut[free] = draw_cuts(window, words[0, free], continues, free)
    free = free[lengths[free] > 1]
    order = free[np.argsort((lengths - cut)[free] << 32 | (words[1, free] >> np.uint64(32)).astype(np.int64), kind='stable')]
    i, j = order[:len(order) // 2 * 2:2], order[1::2]
    good = np.flatnonzero(allowed(i, j) & (overflow(cut, lengths, i, j, room) == 0))
    good = good[np.argsort(words[1, i[good]] << np.uint64(32), kind='stable')[:missing]]
    couple(i[good], j[good])
  if (missing := need()) > 0:
    free = np.flatnonzero((partner == np.arange(len(partner))) & (lengths > 1))
    free = free[np.lexsort((draws[-1, 1, free], documents[free]))]
    i, j = free[:len(free) // 2], free[len(free) - len(free) // 2:]  # half the list apart: different documents wherever possible
    good = allowed(i, j)
    i, j = i[good][:missing], j[good][:missing]
    fit_cuts(window, cut, i, j, room)
    couple(i, j)


def fit_cuts(window: Window, cut: np.ndarray, i: np.ndarray, j: np.ndarray, room: int) -> None:
  """Chooses for j, then for i, the sentence boundary that loses the fewest tokens: changes `cut` in place."""
  lengths = piece_lengths(window)
  for fixed, moved in ((i, j), (j, i)):
    for nth in range(1, int(np.diff(window.piece_starts)[moved].max(initial=0))):
      first, last = window.piece_starts[moved], window.piece_starts[moved + 1]
      trial = cut.copy()
      trial[moved] = window.sentence_starts[np.minimum(first + nth, last)] - window.sentence_starts[first]
      better = (first + nth < last) & (overflow(trial, lengths, fixed, moved, room) < overflow(cut, lengths, fixed, moved, room))
      cut[moved[better]] = trial[moved[better]]


def extend_to_three(window: Window, partner: np.ndarray, cut: np.ndarray, room: int, words: np.ndarray) -> bool:
  """Makes one couple (i, j) and a free piece k a cycle, so that an odd number of pieces exchange. False where documents forbid it."""
  lengths, documents = piece_lengths(window), window.document_ids
  own = np.arange(len(partner))
  free = np.flatnonzero((partner == own) & (lengths > 1))
  i = np.flatnonzero(partner != own)
  i, k = (items[np.argsort(words[items], kind='stable')][:SAMPLE] for items in (i, free))
  if not len(i) or not len(k):
    return False
  i, k = (grid.reshape(-1) for grid in np.meshgrid(i, k, indexing='ij'))
  j = partner[i]
  lost = sum(np.maximum(0, cut[x] + lengths[y] - cut[y] - room) for x, y in ((i, j), (j, k), (k, i)))
  lost = np.where((documents[i] != documents[k]) & (documents[j] != documents[k]), lost, np.iinfo(np.int64).max)
  best = lost.argmin()
  if lost[best] == np.iinfo(np.int64).max:
    return False
  partner[[i[best], j[best], k[best]]] = j[best], k[best], i[best]
  return True


def static(window: Window) -> Pairs:
  """The original's pairs, as `prepare` stored them: two segments a piece, and a label."""
  starts = window.sentence_starts[window.piece_starts[:-1, None] + np.arange(3)]
  return Pairs(starts[:, 0], starts[:, 1] - starts[:, 0], starts[:, 1], starts[:, 2] - starts[:, 1], window.labels.astype(np.int32))


def whole(window: Window) -> Pairs:
  """RoBERTa's full sentences: one segment."""
  starts, lengths = window.sentence_starts[window.piece_starts[:-1]], piece_lengths(window)
  return Pairs(starts, lengths, starts, np.zeros_like(lengths), np.zeros(len(lengths), np.int32))


def ordered(window: Window, stream: int, continues: np.ndarray) -> Pairs:
  """ALBERT's sentence order: half of the pieces, to within one, have their two segments swapped (label 1)."""
  starts, lengths = window.sentence_starts[window.piece_starts[:-1]], piece_lengths(window)
  count = len(lengths)
  words = random.words(stream, 0, 2 * count).reshape(2, count)
  cut = draw_cuts(window, words[0], continues)
  able = np.flatnonzero(cut < lengths)
  swap = np.zeros(count, bool)
  swap[able[np.argsort(words[1, able], kind='stable')][:count // 2]] = True
  return Pairs(np.where(swap, starts + cut, starts), np.where(swap, lengths - cut, cut),
               np.where(swap, starts, starts + cut), np.where(swap, cut, lengths - cut), swap.astype(np.int32))


MAKERS = {
    'nsp': exchange,
    'google': lambda window, stream, room, continues: static(window),
    'sop': lambda window, stream, room, continues: ordered(window, stream, continues),
    'none': lambda window, stream, room, continues: whole(window),
}

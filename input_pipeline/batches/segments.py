"""The pairs of a window, and where a piece is cut into two segments.

Letters: N pieces of the window, F some of them, V vocabulary.
"""

import dataclasses

import numpy as np

from input_pipeline import random
from input_pipeline.batches.shards import Window


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Segments A and B of each pair, as places in the window's tokens; arrays [N]."""
  a_start: np.ndarray
  a_length: np.ndarray  # tokens
  b_start: np.ndarray
  b_length: np.ndarray
  label: np.ndarray  # 1 = B is of another document (or, in sentence order, comes before A)
  trimmed: int = 0  # tokens that found no room

  def take(self, order: np.ndarray | slice) -> 'Pairs':
    return Pairs(self.a_start[order], self.a_length[order], self.b_start[order], self.b_length[order],
                 self.label[order], self.trimmed)


def draw_cuts(window: Window, bits: np.ndarray, continues: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
  # [F], [V], [F] -> [F] tokens of the first segment
  """A random boundary between sentences; in a piece of one sentence, between words; one token stays whole."""
  among = np.arange(len(bits)) if among is None else among
  first, last = window.piece_starts[among], window.piece_starts[among + 1]
  start, end = window.sentence_starts[first], window.sentence_starts[last]
  cut = window.sentence_starts[first + 1 + random.below(bits, np.maximum(last - first - 1, 1))]
  single = np.flatnonzero(last - first == 1)  # of one sentence
  begin, stop = start[single], end[single]
  drawn = np.minimum(begin + 1 + random.below(bits[single], np.maximum(stop - begin - 1, 1)), stop)
  cut[single] = word_boundary(window, drawn, begin, stop, continues)
  return cut - start


def word_boundary(window: Window, drawn: np.ndarray, begin: np.ndarray, stop: np.ndarray,
                  continues: np.ndarray) -> np.ndarray:
  # [F], [F], [F], [V] -> [F]
  """The first start of a word from `drawn` on, else the last before it, inside (begin, stop); else `drawn` itself."""
  goes_on = lambda at: continues[window.tokens[at]] if window.word_starts is None else ~window.word_starts[at]
  for direction in (1, -1):
    place, moving = drawn.copy(), np.arange(len(drawn))
    while len(moving):
      here = place[moving]
      inside = (begin[moving] < here) & (here < stop[moving])
      moving = moving[inside][goes_on(here[inside])]
      place[moving] += direction
    drawn = np.where((begin < place) & (place < stop), place, drawn)
  return drawn

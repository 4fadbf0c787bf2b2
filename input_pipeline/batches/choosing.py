"""Which candidates of each pair are predicted: single tokens, whole words, or spans of whole words.

The candidates of a pair are its tokens without the special ones, numbered from 0 through both segments. A chooser is
given, for all pairs at once, their draws, how many candidates each has and how many are wanted, where words start, and
where the second segment begins.

Letters: M pairs of the batch, D draws of a pair, C the most candidates of a pair, J the most predictions of one,
F pairs that still want some.
"""

import dataclasses
from typing import TYPE_CHECKING, Literal

import numpy as np

from input_pipeline import random

SPAN_STOP, LONGEST_SPAN = 0.2, 10  # SpanBERT, section 3.1: geometric lengths of p = 0.2, in words, at most 10
SPAN_SHARES = SPAN_STOP * (1 - SPAN_STOP)**np.arange(LONGEST_SPAN)  # of the spans of 1, 2 … words
SPAN_UP_TO = np.cumsum(SPAN_SHARES) / np.cumsum(SPAN_SHARES)[-1]  # share of the spans of at most 1, 2 … words


@dataclasses.dataclass(frozen=True)
class Choice:
  """What was chosen in each pair, in rising order."""
  candidates: np.ndarray  # [M J]
  used: np.ndarray  # [M J] bool: which of them count
  decisive: np.ndarray | None = None  # [M J] the slot whose draw says what is done with each; None: each one's own


def choose_tokens(bits: np.ndarray, candidates: np.ndarray, wanted: np.ndarray, starts: None,
                  first_lengths: np.ndarray) -> Choice:
  # [M D], [M], [M], -, -
  """Exactly wanted[m] of 0 … candidates[m] - 1, evenly: the first draws of a Fisher-Yates shuffle, all pairs at once.

  The shuffle of pair m is column m of a table that is kept flat, so that one step of all shuffles is two gathers.
  Two pairs:

    table    [[0 0] [1 1] [2 2]]   flat 0 0 1 1 2 2; place (candidate, pair) is candidate * 2 + pair
    step 0   pair 0 draws 2, pair 1 draws 0: places 2 * 2 + 0 and 0 * 2 + 1 are chosen: 2 and 0
             and get what row 0 holds: flat 0 0 1 1 0 2; step 1 draws from the rows 1 and 2
  """
  pairs, most = len(wanted), int(wanted.max(initial=0))
  height = max(int(candidates.max(initial=0)), most)
  step = np.arange(most)[:, None]
  place = step + random.below(bits[:, :most].T, np.maximum(candidates - step, 1))  # [J M]
  place = place * pairs + np.arange(pairs)
  table = np.repeat(np.arange(height, dtype=np.int32), pairs)  # [C M] flat
  chosen = np.empty((most, pairs), np.int32)
  for j in range(most):
    chosen[j] = table[place[j]]
    table[place[j]] = table[j * pairs:(j + 1) * pairs]
  chosen = np.where(step < wanted, chosen, height).T  # what is not wanted is sorted to the end
  return Choice(np.sort(chosen, axis=1), step.T < wanted[:, None])


def choose_words(bits: np.ndarray, candidates: np.ndarray, wanted: np.ndarray, starts: np.ndarray,
                 first_lengths: np.ndarray) -> Choice:
  # [M D], [M], [M], bool [M C + 1], [M]
  """Whole words in random order; one that would exceed the count is skipped (the original's rule).

  So the count may fall short.

  For the order each start of a word is written into the low bits of its draw, and the draws are sorted; all that is no
  start sorts to the end. With two low bits and words that start at 0 and 2:

    draws       0b1011_01  0b0001_11  0b0110_00
    keys        0b1011_00  all ones   0b0110_10
    sorted      0b0110_10  0b1011_00  all ones     low bits: 2, 0, so the word at 2 comes first
  """
  pairs, width = starts.shape
  begins = starts & (np.arange(width) < candidates[:, None])
  low = np.uint64(width.bit_length())
  keys = np.where(begins, (bits[:, :width] >> low << low) | np.arange(width, dtype=np.uint64), np.iinfo(np.uint64).max)
  order = (np.sort(keys, axis=1) & np.uint64((1 << int(low)) - 1)).astype(np.int64)  # starts of words, in random order
  ends = next_start(starts)
  count, left, active = begins.sum(1), wanted.copy(), np.flatnonzero(wanted)
  taken = np.zeros((pairs, width), bool)
  nth = 0
  while len(active):
    begin = order[active, nth]
    length = ends[active, begin] - begin
    fits = length <= left[active]
    left[active[fits]] -= length[fits]
    taken[active[fits], begin[fits]] = True
    nth += 1
    active = active[(left[active] > 0) & (nth < count[active])]
  return as_choice(np.take_along_axis(taken, word_of(starts), 1) & (np.arange(width) < candidates[:, None]))


def choose_spans(bits: np.ndarray, candidates: np.ndarray, wanted: np.ndarray, starts: np.ndarray,
                 first_lengths: np.ndarray) -> Choice:
  # [M D], [M], [M], bool [M C + 1], [M]
  """SpanBERT's spans: from the word of a random token on, of so many words; the last is cut so that the count is exact.

  A span ends with its segment. All of a span is masked, replaced or kept together (SpanBERT, section 3.1), so the draw
  of the slot with the span's number decides for all of it.
  """
  pairs, width = starts.shape
  word, ends = word_of(starts), next_start(starts)
  # The end of each candidate's segment.
  segment_end = np.where(np.arange(width) < first_lengths[:, None], first_lengths[:, None], candidates[:, None])
  span = np.full((pairs, width), -1)  # number of the span that each candidate is in
  left, spans, active = wanted.copy(), np.zeros(pairs, np.int64), np.flatnonzero(wanted)  # active: [F]
  for draw in bits.T:
    if not len(active):
      break
    anchor = random.below(draw[active], candidates[active])
    length = 1 + np.searchsorted(SPAN_UP_TO, random.fraction(random.lower(draw[active])), side='right')  # in words
    free = span[active, anchor] < 0
    m, begin, length = active[free], word[active, anchor][free], length[free]
    end = begin
    for nth in range(LONGEST_SPAN):
      end = np.where(nth < length, np.minimum(ends[m, np.minimum(end, width - 1)], segment_end[m, begin]), end)
    place = begin[:, None] + np.arange(int((end - begin).max(initial=0)))
    new = (place < end[:, None]) & (span[m[:, None], np.minimum(place, width - 1)] < 0)
    new &= np.cumsum(new, axis=1) <= left[m][:, None]
    nth_new, column = np.nonzero(new)
    span[m[nth_new], place[nth_new, column]] = spans[m[nth_new]]
    left[m] -= new.sum(1)
    spans[m] += 1
    active = active[left[active] > 0]
  return as_choice(span >= 0, span)


def word_of(starts: np.ndarray) -> np.ndarray:  # bool [M C + 1] -> [M C + 1]
  """The start of each candidate's word: of the starts 1 0 1 0 0 it is 0 0 2 2 2."""
  return np.maximum.accumulate(np.where(starts, np.arange(starts.shape[1]), 0), axis=1)


def next_start(starts: np.ndarray) -> np.ndarray:  # bool [M C + 1] -> [M C + 1]
  """The first start of a word after each candidate: of the starts 1 0 1 0 0 it is 2 2 5 5 5."""
  width = starts.shape[1]
  at = np.where(starts, np.arange(width), width)
  following = np.minimum.accumulate(at[:, ::-1], axis=1)[:, ::-1]
  return np.concatenate([following[:, 1:], np.full((len(starts), 1), width)], axis=1)


def as_choice(taken: np.ndarray, span: np.ndarray | None = None) -> Choice:  # bool [M C + 1], [M C + 1]
  """A choice from what was taken: of the row 0 1 0 1 the candidates 1 and 3."""
  count = taken.sum(1)
  used = np.arange(int(count.max(initial=0))) < count[:, None]
  chosen, decisive = np.zeros(used.shape, np.int64), np.zeros(used.shape, np.int64)
  chosen[used] = np.nonzero(taken)[1]
  if span is None:
    return Choice(chosen, used)
  decisive[used] = span[taken]
  return Choice(chosen, used, decisive)


CHOOSERS = {'token': choose_tokens, 'word': choose_words, 'span': choose_spans}
if TYPE_CHECKING:
  Unit = str
else:
  Unit = Literal[*CHOOSERS]

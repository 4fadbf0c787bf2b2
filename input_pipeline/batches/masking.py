"""Which tokens are predicted, and what stands in their place: vectorised over the pairs of a batch, stateless, a fixed number of slots.

Letters: B rows, T tokens of a row, P prediction slots of a row, M pairs of the batch, C candidates of a pair (its tokens but the
special ones), J the most predictions of one pair, V vocabulary.
"""

import dataclasses
from typing import Literal

import numpy as np

from input_pipeline import random
from input_pipeline.batches.shards import Tables

SPAN_STOP, LONGEST_SPAN = 0.2, 10  # SpanBERT, section 3.1: geometric lengths of p = 0.2, in words, at most 10
SPAN_LENGTHS = np.cumsum(SPAN_STOP * (1 - SPAN_STOP)**np.arange(LONGEST_SPAN))
SPAN_LENGTHS = SPAN_LENGTHS / SPAN_LENGTHS[-1]


@dataclasses.dataclass(frozen=True)
class Masking:
  """The paper's masks are the defaults (section 3.1); its table 8 compares other mixes."""
  share: float = 0.15
  """Share of a sequence's tokens, the special ones counted, that are predicted; 0: none, all stay as they are."""
  mask: float = 0.8
  """Of the predicted tokens, the share that [MASK] replaces."""
  random: float = 0.1
  """Of the predicted tokens, the share that a random token replaces; the rest stays as it is."""
  unit: Literal['token', 'word', 'span'] = 'token'
  """What is chosen: single tokens, whole words, or SpanBERT's spans of whole words."""
  schedule: tuple[tuple[int, float], ...] = ()
  """Points (step, share) between which the share runs in straight lines, in place of `share`; none: the share stays."""

  def check(self) -> None:
    """Raises ValueError, naming the field."""
    for share in (self.share, *(share for _, share in self.schedule)):
      if not 0 <= share < 1:
        raise ValueError(f'masking.share or a point of masking.schedule is {share}; wanted less than 1 and not less than 0, as 0.15')
    steps = [step for step, _ in self.schedule]
    if steps != sorted(set(steps)):
      raise ValueError(f'masking.schedule has the steps {steps}; wanted rising ones')
    for name in ('mask', 'random'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f'masking.{name} is {getattr(self, name)}; wanted a share from 0 to 1')
    if self.mask + self.random > 1 + 1e-9:
      raise ValueError(f'masking.mask + masking.random is {self.mask + self.random:g}; wanted at most 1: lower one of the two')
    if self.unit not in CHOOSERS:
      raise ValueError(f'masking.unit is {self.unit!r}; wanted one of {sorted(CHOOSERS)}')


def share_at(masking: Masking, step: int) -> float:
  return float(np.interp(step, *zip(*masking.schedule))) if masking.schedule else masking.share


def prediction_count(lengths: np.ndarray, share: float, slots: int) -> np.ndarray:  # [M] -> [M] int64
  """The original's rule (create_masked_lm_predictions, under Python 3): min(slots, max(1, round half to even of length * share)).

  With the share 0, none.
  """
  return np.minimum(slots, np.maximum(share > 0, np.rint(lengths * share))).astype(np.int64)


def words_per_pair(unit: str, row_length: int, slots: int) -> int:
  """Random words that one pair may use: those that choose, then one a prediction slot for what stands in its place."""
  return slots + (slots if unit == 'token' else row_length)


def mask_batch(input_ids: np.ndarray, pairs: dict[str, np.ndarray], words: np.ndarray, masking: Masking, share: float, slots: int,
               tables: Tables, stored: np.ndarray | None = None) -> dict[str, np.ndarray]:  # [B T], {[M]}, [M words_per_pair] -> {[B P]}
  """Chooses and replaces tokens: changes `input_ids` in place and returns masked_lm_positions, _ids and _weights.

  `pairs` has, for each pair in row order, its row, start (the place of its [CLS]), length, and the lengths a and b of its segments.
  `stored`, where the data has it, says which tokens of the window start a word, and `pairs` where the segments lie there; else the
  vocabulary says it. Special tokens are never chosen. What is chosen is sorted by position; unused slots are position 0, id 0,
  weight 0.0. Where the pairs of one row want more than `slots` together, the last ones get fewer.
  """
  rows, row_length = input_ids.shape
  candidates = pairs['a'] + pairs['b']  # [M]
  wanted = np.minimum(prediction_count(pairs['length'], share, slots), candidates)
  before = np.cumsum(wanted) - wanted
  first_of_row = np.searchsorted(pairs['row'], pairs['row'])
  slot = before - before[first_of_row] if len(before) else before  # the slot in its row where a pair's predictions start
  wanted = np.clip(slots - slot, 0, wanted)
  starts = None if masking.unit == 'token' else word_starts(input_ids, pairs, candidates, tables.continues, stored)
  chosen, used, group = CHOOSERS[masking.unit](words[:, :-slots], candidates, wanted, starts, pairs['a'])  # [M J] each

  counts = used.sum(1)
  before = np.cumsum(counts) - counts
  slot = before - before[first_of_row] if len(before) else before  # again: whole words may be fewer than wanted
  pair = np.repeat(np.arange(len(counts)), counts)
  nth = np.arange(len(pair)) - before[pair]
  choice = chosen[used]
  base = (pairs['row'] * row_length + pairs['start'] + 1)[pair]
  where = base + choice + (choice >= pairs['a'][pair])  # behind [CLS], and behind [SEP] in the second segment
  out = (pairs['row'] * slots + slot)[pair] + nth
  flat_ids = input_ids.reshape(-1)
  original = flat_ids[where]
  drawn = words[:, -slots:]
  draw = drawn[pair, nth]
  flat_ids[where] = replacement(original, draw if group is None else drawn[pair, group[used]], draw, masking, tables)
  positions, ids = (np.zeros((rows, slots), np.int32) for _ in range(2))
  weights = np.zeros((rows, slots), np.float32)
  positions.reshape(-1)[out] = where % row_length
  ids.reshape(-1)[out] = original
  weights.reshape(-1)[out] = 1
  return {'masked_lm_positions': positions, 'masked_lm_ids': ids, 'masked_lm_weights': weights}


def replacement(original: np.ndarray, act: np.ndarray, draw: np.ndarray, masking: Masking, tables: Tables) -> np.ndarray:
  # [K] x 3 -> [K]
  """[MASK], a token drawn evenly from all but the special ones, or the original: decided by the upper half of one word, drawn by the
  lower half of another."""
  action = (act >> np.uint64(32)) * 2.0**-32
  drawn = tables.ordinary[random.below(draw << np.uint64(32), len(tables.ordinary))]
  return np.where(action < masking.mask, tables.vocabulary.mask_id, np.where(action < masking.mask + masking.random, drawn, original))


def word_starts(input_ids: np.ndarray, pairs: dict[str, np.ndarray], candidates: np.ndarray, continues: np.ndarray,
                stored: np.ndarray | None) -> np.ndarray:  # -> bool [M C + 1]
  """Where words start among the candidates; the first of a segment always does. Behind the candidates all are True.

  Words are what the vocabulary shows (## or ▁); where `prepare` stored the text's own (words.py), a_start and b_start of `pairs`
  lead to them.
  """
  place = np.arange(int(candidates.max(initial=0)) + 1)
  first = pairs['a'][:, None]
  if stored is None:
    position = pairs['row'] * input_ids.shape[1] + pairs['start'] + 1
    starts = ~continues[np.take(input_ids.reshape(-1), position[:, None] + place + (place >= first), mode='clip')]
  else:
    starts = np.take(stored, place + np.where(place < first, pairs['a_start'][:, None], pairs['b_start'][:, None] - first), mode='clip')
  return starts | (place == 0) | (place == first) | (place >= candidates[:, None])


def choose_tokens(words, candidates, wanted, starts, first_lengths):
  # [M P], [M], [M], -, - -> candidates [M J], which of them count [M J], slot whose draw decides for each [M J], or None: its own
  """Exactly wanted[m] of 0 … candidates[m] - 1, evenly: the first draws of a Fisher-Yates shuffle, all pairs at once."""
  pairs, most = len(wanted), int(wanted.max(initial=0))
  height = max(int(candidates.max(initial=0)), most)
  nth = np.arange(most)[:, None]
  draw = nth + random.below(words[:, :most].T, np.maximum(candidates - nth, 1))  # [J M]
  draw = draw * pairs + np.arange(pairs)
  shuffled = np.repeat(np.arange(height, dtype=np.int32), pairs)  # [height M] flat: column m is the shuffle of pair m
  chosen = np.empty((most, pairs), np.int32)
  for j in range(most):
    chosen[j] = shuffled[draw[j]]
    shuffled[draw[j]] = shuffled[j * pairs:(j + 1) * pairs]
  chosen = np.where(nth < wanted, chosen, height).T
  return np.sort(chosen, axis=1), nth.T < wanted[:, None], None


def choose_words(words, candidates, wanted, starts, first_lengths):  # [M T], [M], [M], [M C + 1], [M] -> as choose_tokens
  """Whole words in random order; one that would exceed the number is skipped (the original's rule), so the count may fall short."""
  pairs, width = starts.shape
  begins = starts & (np.arange(width) < candidates[:, None])
  place = np.arange(width, dtype=np.uint64)
  low = np.uint64(width.bit_length())
  keys = np.where(begins, (words[:, :width] >> low << low) | place, np.iinfo(np.uint64).max)
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
  word = np.maximum.accumulate(np.where(starts, np.arange(width), 0), axis=1)  # the start of each candidate's word
  return as_slots(np.take_along_axis(taken, word, 1) & (np.arange(width) < candidates[:, None]))


def choose_spans(words, candidates, wanted, starts, first_lengths):  # as choose_words
  """SpanBERT's spans: from the word of a random token on, of so many words; the last is cut short so that the count is the rule's.

  A span ends with its segment. All of a span is masked, replaced or kept together (SpanBERT, section 3.1).
  """
  pairs, width = starts.shape
  word = np.maximum.accumulate(np.where(starts, np.arange(width), 0), axis=1)
  ends = next_start(starts)
  limit = np.where(np.arange(width) < first_lengths[:, None], first_lengths[:, None], candidates[:, None])
  span = np.full((pairs, width), -1)
  left, spans, active = wanted.copy(), np.zeros(pairs, np.int64), np.flatnonzero(wanted)
  for draw in words.T:
    if not len(active):
      break
    anchor = random.below(draw[active], candidates[active])
    length = 1 + np.searchsorted(SPAN_LENGTHS, (draw[active] & np.uint64(2**32 - 1)) * 2.0**-32, side='right')
    hit = span[active, anchor] < 0
    m, begin, length = active[hit], word[active, anchor][hit], length[hit]
    end = begin
    for nth in range(LONGEST_SPAN):
      end = np.where(nth < length, np.minimum(ends[m, np.minimum(end, width - 1)], limit[m, begin]), end)
    place = begin[:, None] + np.arange(int((end - begin).max(initial=0)))
    new = (place < end[:, None]) & (span[m[:, None], np.minimum(place, width - 1)] < 0)
    new &= np.cumsum(new, axis=1) <= left[m][:, None]
    row, column = np.nonzero(new)
    span[m[row], place[row, column]] = spans[m[row]]
    left[m] -= new.sum(1)
    spans[m] += 1
    active = active[left[active] > 0]
  return as_slots(span >= 0, span)


def next_start(starts: np.ndarray) -> np.ndarray:  # [M C + 1] -> [M C + 1]
  """The start of the next word behind each place."""
  width = starts.shape[1]
  at = np.where(starts, np.arange(width), width)
  following = np.minimum.accumulate(at[:, ::-1], axis=1)[:, ::-1]
  return np.concatenate([following[:, 1:], np.full((len(starts), 1), width)], axis=1)


def as_slots(taken: np.ndarray, group: np.ndarray | None = None):  # bool [M C + 1], [M C + 1] -> as choose_tokens
  count = taken.sum(1)
  used = np.arange(int(count.max(initial=0))) < count[:, None]
  chosen, groups = np.zeros(used.shape, np.int64), np.zeros(used.shape, np.int64)
  chosen[used] = np.nonzero(taken)[1]
  if group is None:
    return chosen, used, None
  groups[used] = group[taken]
  return chosen, used, groups


CHOOSERS = {'token': choose_tokens, 'word': choose_words, 'span': choose_spans}

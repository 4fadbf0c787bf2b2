"""Which tokens are predicted, and what stands in their place: vectorised over the pairs of a batch, stateless, a fixed number of slots.

Letters: B rows, T tokens of a row, P prediction slots of a row, M pairs of the batch, J the most predictions of one pair, V vocabulary.
"""

import dataclasses
from typing import Literal

import numpy as np

from input_pipeline import random
from input_pipeline.records import Vocabulary


@dataclasses.dataclass(frozen=True)
class Masking:
  """The paper's masks are the defaults (section 3.1); its table 8 compares other mixes."""
  share: float = 0.15
  """Share of a sequence's tokens, the special ones counted, that are predicted."""
  mask: float = 0.8
  """Of the predicted tokens, the share that [MASK] replaces."""
  random: float = 0.1
  """Of the predicted tokens, the share that a random token replaces; the rest stays as it is."""
  unit: Literal['token', 'word', 'span'] = 'token'
  """What is chosen: single tokens, whole words, or SpanBERT's spans of whole words."""

  def check(self) -> None:
    """Raises ValueError, naming the field."""
    if not 0 < self.share < 1:
      raise ValueError(f'masking.share is {self.share}; wanted more than 0 and less than 1, as 0.15')
    for name in ('mask', 'random'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(f'masking.{name} is {getattr(self, name)}; wanted a share from 0 to 1')
    if self.mask + self.random > 1 + 1e-9:
      raise ValueError(f'masking.mask + masking.random is {self.mask + self.random:g}; wanted at most 1: lower one of the two')
    if self.unit not in CHOOSERS:
      raise ValueError(f'masking.unit is {self.unit!r}; wanted one of {sorted(CHOOSERS)}')


def prediction_count(lengths: np.ndarray, share: float, slots: int) -> np.ndarray:  # [M] -> [M] int64
  """The original's rule (create_masked_lm_predictions, under Python 3): min(slots, max(1, round half to even of length * share))."""
  return np.minimum(slots, np.maximum(1, np.rint(lengths * share))).astype(np.int64)


def words_per_pair(slots: int) -> int:
  """Random words that one pair may use: two a prediction slot."""
  return 2 * slots


def mask_batch(input_ids: np.ndarray, pairs: dict[str, np.ndarray], words: np.ndarray, masking: Masking, share: float, slots: int,
               vocabulary: Vocabulary) -> dict[str, np.ndarray]:  # [B T], {[M]}, [M words_per_pair] -> {[B P]}
  """Chooses and replaces tokens: changes `input_ids` in place and returns masked_lm_positions, _ids and _weights.

  `pairs` has, for each pair in row order, its row, start (the place of its [CLS]), length, and the lengths a and b of its segments.
  Special tokens are never chosen. What is chosen is sorted by position; unused slots are position 0, id 0, weight 0.0. Where the
  pairs of one row want more than `slots` together, the last ones get fewer.
  """
  rows, row_length = input_ids.shape
  candidates = pairs['a'] + pairs['b']  # [M]
  wanted = np.minimum(prediction_count(pairs['length'], share, slots), candidates)
  before = np.cumsum(wanted) - wanted
  first_of_row = np.searchsorted(pairs['row'], pairs['row'])
  slot = before - before[first_of_row] if len(before) else before  # the slot in its row where a pair's predictions start
  wanted = np.clip(slots - slot, 0, wanted)
  chosen, used = CHOOSERS[masking.unit](words[:, :slots], candidates, wanted)  # [M J] sorted, bool [M J]

  pair, nth = np.nonzero(used)
  choice = chosen[pair, nth]
  position = pairs['start'][pair] + 1 + choice + (choice >= pairs['a'][pair])  # behind [CLS], and behind [SEP] in the second segment
  where = pairs['row'][pair] * row_length + position
  out = pairs['row'][pair] * slots + slot[pair] + nth
  flat_ids = input_ids.reshape(-1)
  original = flat_ids[where]
  flat_ids[where] = replacement(original, words[pair, slots + nth], masking, vocabulary)
  positions, ids = (np.zeros((rows, slots), np.int32) for _ in range(2))
  weights = np.zeros((rows, slots), np.float32)
  positions.reshape(-1)[out] = position
  ids.reshape(-1)[out] = original
  weights.reshape(-1)[out] = 1
  return {'masked_lm_positions': positions, 'masked_lm_ids': ids, 'masked_lm_weights': weights}


def replacement(original: np.ndarray, word: np.ndarray, masking: Masking, vocabulary: Vocabulary) -> np.ndarray:  # [K], [K] -> [K]
  """[MASK], a token drawn evenly from all but the special ones, or the original."""
  action = (word >> np.uint64(32)) * 2.0**-32
  ordinary = ordinary_ids(vocabulary)
  drawn = ordinary[random.below(word << np.uint64(32), len(ordinary))]
  return np.where(action < masking.mask, vocabulary.mask_id, np.where(action < masking.mask + masking.random, drawn, original))


def ordinary_ids(vocabulary: Vocabulary) -> np.ndarray:  # -> [V - 5]
  specials = [vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id]
  return np.delete(np.arange(vocabulary.size, dtype=np.int32), specials)


def choose_tokens(words: np.ndarray, candidates: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  # [M P], [M], [M] -> sorted candidates [M J], which of them count [M J]
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
  return np.sort(chosen, axis=1), nth.T < wanted[:, None]


CHOOSERS = {'token': choose_tokens}

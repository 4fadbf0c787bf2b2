"""Which tokens are predicted, and what stands in their place: for all pairs of a batch at once.

The problem: in each pair predict 15 % of its tokens, never a special one, in at most P slots a row. Of these, [MASK]
replaces 80 % and a random token 10 %. The same place must be masked in the same way on any number of hosts, so every
decision is a function of the bits of its pair, and each pair owns `bits_per_pair` draws of the stream.

1. Count: `prediction_count` by a pair's length; where a row's pairs want more than its slots, its last pairs get fewer.
2. Choose: candidates are a pair's tokens without the special ones, numbered from 0 through both segments. choosing.py
   picks so many of them: tokens, words or spans.
3. Locate: a candidate's place in the row.

     row        [CLS] the cat [SEP] sat down [SEP]     a_length 2, b_length 2
     place        0    1   2    3    4    5    6
     candidate         0   1         2    3            place = candidate + 1, and 1 more in the second segment

4. Replace: one draw a slot. Its upper half says what is done, its lower half which random token is put there.
5. Write down position, original id and weight 1 in the row's slots.

Letters: B rows, T tokens of a row, P prediction slots of a row, M pairs of the batch, C candidates of a pair, J the
most predictions of one pair, Q predictions of the batch, V vocabulary.
"""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from input_pipeline import random, ranges
from input_pipeline.batches import layout
from input_pipeline.batches.checks import require, require_types
from input_pipeline.batches.choosing import CHOOSERS
from input_pipeline.batches.layout import PlacedPairs
from input_pipeline.batches.shards import TokenKinds
from input_pipeline.errors import DataError
from input_pipeline.ranges import Share, Within

STORED = 'google'  # in place of a unit: as prepared
if TYPE_CHECKING:
  Source = str
else:
  Source = Literal[*CHOOSERS, STORED]
ROUNDING = 1e-9  # 0.7 + 0.3 may be a little more than 1
Masked = Annotated[float, Within(0, 1, below=True)]


@dataclasses.dataclass(frozen=True)
class Masking:
  """The paper's masks are the defaults (section 3.1); its table 8 compares other mixes."""
  share: Masked = 0.15
  """Share of a sequence's tokens, the special ones counted, that are predicted; 0: none, all stay as they are."""
  mask: Share = 0.8
  """Of the predicted tokens, the share that [MASK] replaces."""
  random: Share = 0.1
  """Of the predicted tokens, the share that a random token replaces; the rest stays as it is."""
  unit: Source = 'token'
  """What is chosen: single tokens, whole words, or SpanBERT's spans of whole words; google: nothing, as the masks are
  those that `prepare` stored."""
  schedule: tuple[tuple[Annotated[int, Within(0, 10**9)], Masked], ...] = ()
  """Points (step, share) between which the share runs in straight lines, in place of `share`; none: the share stays."""

  @property
  def greatest_share(self) -> float:
    """Of all steps."""
    return max((share for _, share in self.schedule), default=self.share)

  def check(self) -> None:
    """Raises DataError, naming the field."""
    ranges.check(self, 'batch.masking.', DataError)
    require_types(self, 'batch.masking.')
    require(self.mask + self.random <= 1 + ROUNDING,
            f'batch.masking.mask + batch.masking.random is {self.mask + self.random:g}; wanted at most 1: lower one of '
            'the two')
    for name in ('share', 'mask', 'random', 'schedule') if self.unit == STORED else ():
      require(getattr(self, name) == type(self).__dataclass_fields__[name].default, f'batch.masking.{name} changes '
              f'nothing with batch.masking.unit {STORED}, whose masks were drawn by `bert-jax prepare`: leave it out')
    steps = [step for step, _ in self.schedule]
    require(steps == sorted(set(steps)), f'batch.masking.schedule has the steps {steps}; wanted rising ones')


def share_at(masking: Masking, step: int) -> float:
  return float(np.interp(step, *zip(*masking.schedule))) if masking.schedule else masking.share


def prediction_count(lengths: np.ndarray, share: float, slots: int) -> np.ndarray:  # [M] -> [M] int64
  """The original's rule (create_masked_lm_predictions): min(slots, max(1, round(length * share))).

  It rounds half to even, as Python 3 does. With the share 0, none.
  """
  return np.minimum(slots, np.maximum(share > 0, np.rint(lengths * share))).astype(np.int64)


def bits_per_pair(unit: str, row_length: int, slots: int) -> int:
  """Draws that one pair may use: those that choose, then one a prediction slot for what stands in its place."""
  return slots + (slots if unit == 'token' else row_length)


def mask_batch(input_ids: np.ndarray, pairs: PlacedPairs, bits: np.ndarray, masking: Masking, share: float, slots: int,
               kinds: TokenKinds, stored_starts: np.ndarray | None = None) -> dict[str, np.ndarray]:
  # [B T], [M], [M bits_per_pair], …, [window's tokens] -> {[B P]}
  """Chooses and replaces tokens: changes `input_ids` in place and returns masked_lm_positions, _ids and _weights.

  `stored_starts`, where the data has them, says which tokens of the window start a word; else the vocabulary says it.
  What is chosen is sorted by position; unused slots are position 0, id 0, weight 0.0.
  """
  row_count, row_length = input_ids.shape
  candidates = pairs.a_length + pairs.b_length  # [M]
  wanted = np.minimum(prediction_count(pairs.length, share, slots), candidates)
  wanted = np.clip(slots - layout.sum_before(wanted, pairs.nth), 0, wanted)
  starts = None
  if masking.unit != 'token':
    starts = word_starts(input_ids, pairs, candidates, kinds.continues, stored_starts)
  choice = CHOOSERS[masking.unit](bits[:, :-slots], candidates, wanted, starts, pairs.a_length)

  counts = choice.used.sum(1)  # again: whole words may be fewer than wanted
  pair = np.repeat(np.arange(len(counts)), counts)  # [Q]
  nth = np.arange(len(pair)) - (np.cumsum(counts) - counts)[pair]  # [Q] of its pair
  candidate = choice.candidates[choice.used]
  row_start = pairs.row * row_length
  place = (row_start + pairs.start + 1)[pair] + candidate + (candidate >= pairs.a_length[pair])  # [Q] in the flat batch
  slot = (pairs.row * slots + layout.sum_before(counts, pairs.nth))[pair] + nth  # [Q] in the flat slots
  flat_ids = input_ids.reshape(-1)
  original = flat_ids[place]
  slot_bits = bits[:, -slots:]
  own = slot_bits[pair, nth]
  decisive = own if choice.decisive is None else slot_bits[pair, choice.decisive[choice.used]]
  flat_ids[place] = replacement(original, decisive, own, masking, kinds)
  return in_slots(slot, place % row_length, original, row_count, slots)


def in_slots(slot: np.ndarray, position: np.ndarray, original: np.ndarray, row_count: int,
             slots: int) -> dict[str, np.ndarray]:  # [Q] of the flat slots, [Q], [Q] -> {[B P]}
  positions, ids = (np.zeros((row_count, slots), np.int32) for _ in range(2))
  weights = np.zeros((row_count, slots), np.float32)
  positions.reshape(-1)[slot] = position
  ids.reshape(-1)[slot] = original
  weights.reshape(-1)[slot] = 1
  return {'masked_lm_positions': positions, 'masked_lm_ids': ids, 'masked_lm_weights': weights}


def stored_masks(input_ids: np.ndarray, shown: np.ndarray, predicted: np.ndarray,
                 slots: int) -> dict[str, np.ndarray]:  # [B T], [B T], bool [B T], - -> {[B P]}
  """As mask_batch, of masks that `prepare` drew; where a row has more of them than slots, the last ones are left out.
  """
  row, position = np.nonzero(predicted)
  nth = np.arange(len(row)) - np.searchsorted(row, row)
  row, position, nth = (values[nth < slots] for values in (row, position, nth))
  original = input_ids[row, position]
  input_ids[row, position] = shown[row, position]
  return in_slots(row * slots + nth, position, original, len(input_ids), slots)


def replacement(original: np.ndarray, decisive: np.ndarray, own: np.ndarray, masking: Masking,
                kinds: TokenKinds) -> np.ndarray:
  # [Q] x 3 -> [Q]
  """[MASK], a token drawn evenly from all but the special ones, or the original.

  The upper half of the decisive draw says which (tokens of a span share it), the lower half of a token's own draw is
  the random token.
  """
  action = random.fraction(random.upper(decisive))
  random_id = kinds.ordinary[random.below(own << random.HALF, len(kinds.ordinary))]
  return np.where(action < masking.mask, kinds.vocabulary.mask_id,
                  np.where(action < masking.mask + masking.random, random_id, original))


def word_starts(input_ids: np.ndarray, pairs: PlacedPairs, candidates: np.ndarray, continues: np.ndarray,
                stored: np.ndarray | None) -> np.ndarray:  # [B T], [M], [M], [V], [window's tokens] -> bool [M C + 1]
  """Where words start among the candidates; the first of a segment always does. After the last candidate all are True.

  Words are what the vocabulary shows (## or ▁); where `prepare` stored the text's own (word_boundaries.py), these.
  """
  candidate = np.arange(int(candidates.max(initial=0)) + 1)
  first = pairs.a_length[:, None]
  if stored is None:
    position = pairs.row * input_ids.shape[1] + pairs.start + 1
    place = position[:, None] + candidate + (candidate >= first)
    starts = ~continues[np.take(input_ids.reshape(-1), place, mode='clip')]
  else:
    start = np.where(candidate < first, pairs.a_start[:, None], pairs.b_start[:, None] - first)
    starts = np.take(stored, candidate + start, mode='clip')
  return starts | (candidate == 0) | (candidate == first) | (candidate >= candidates[:, None])

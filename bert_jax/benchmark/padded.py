"""Rows with one pair each, made of packed rows: the same examples as who knows no packed rows has them.

Each pair becomes a row of its own, in the order in which they stand; a batch has as many rows as one of the packed ones
has pairs, and is padded to its longest row, rounded up to a multiple of 8, as transformers' collators pad. Rows of like
length are not sought out for a batch (transformers' group_by_length, off by default): it would change what a batch is.

B rows, T tokens, P prediction slots of a row, S pairs of a row.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

STEP = 8  # tokens that lengths are rounded up to


@dataclasses.dataclass(frozen=True)
class Pair:
  """An example without padding."""
  input_ids: np.ndarray  # [T], as the other two
  token_type_ids: np.ndarray
  position_ids: np.ndarray
  positions: np.ndarray  # [P] of predicted tokens
  labels: np.ndarray  # [P] their ids
  weights: np.ndarray  # [P]
  next: int
  next_weight: float


def pairs_of(batch: dict[str, np.ndarray]) -> list[Pair]:
  """The pairs of the rows of a batch, packed or not."""
  found = []
  for row, ids in enumerate(batch['pair_ids']):
    slots = np.flatnonzero(batch['masked_lm_weights'][row])
    of_slots, labels = batch['masked_lm_positions'][row, slots], batch['masked_lm_ids'][row, slots]
    for nth in range(int(ids.max())):
      place = np.flatnonzero(ids == nth + 1)  # neighbours all
      mine = ids[of_slots] == nth + 1
      found.append(Pair(*(batch[name][row, place] for name in ('input_ids', 'token_type_ids', 'position_ids')),
                        of_slots[mine] - place[0], labels[mine], batch['masked_lm_weights'][row, slots][mine],
                        batch['next_sentence_labels'][row, nth], batch['next_sentence_weights'][row, nth]))
  return found


def rows(pairs: Sequence[Pair], longest: int) -> dict[str, np.ndarray]:
  """A batch with a row for each pair, padded to at most `longest` tokens, in the loader's layout."""
  wide = max(len(pair.input_ids) for pair in pairs)
  T, P = min(-(-wide // STEP) * STEP, longest), max(1, *(len(pair.positions) for pair in pairs))
  fill = lambda name, width: np.stack([np.pad(getattr(pair, name), (0, width - len(getattr(pair, name))))
                                       for pair in pairs])
  each = lambda name, dtype: np.array([[getattr(pair, name)] for pair in pairs], dtype)
  found = {name: fill(name, T) for name in ('input_ids', 'token_type_ids', 'position_ids')}
  real = np.arange(T) < np.array([[len(pair.input_ids)] for pair in pairs])
  return found | {
      'pair_ids': real.astype(np.int32), 'masked_lm_positions': fill('positions', P),
      'masked_lm_ids': fill('labels', P), 'masked_lm_weights': fill('weights', P),
      'cls_positions': np.zeros((len(pairs), 1), np.int32), 'next_sentence_labels': each('next', np.int32),
      'next_sentence_weights': each('next_weight', np.float32)}


def batches(packed: Sequence[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
  """As many batches, each of the same number of rows: the mean number of pairs, rounded down; a few pairs are left."""
  pairs = [pair for batch in packed for pair in pairs_of(batch)]
  size, longest = max(len(pairs) // len(packed), 1), packed[0]['input_ids'].shape[1]
  return [rows(pairs[begin:begin + size], longest) for begin in range(0, size * len(packed), size)]

"""The batch of a step of fine-tuning: a function of (rows, seed, step); and every row once, for an evaluation.

B rows of a batch, T tokens they are padded to.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from bert_jax.tasks.task import Row

INPUTS = 'input_ids', 'token_type_ids', 'position_ids', 'pair_ids'


def pad(rows: Sequence[Row], B: int, T: int, pad_id: int, like: Row) -> dict[str, np.ndarray]:
  """Model inputs [B T], targets [B ...] and weight [B] of these rows; what remains of B is filled up with zeros.

  `like`: any row, for the shapes where there are no rows.
  """
  batch = {name: np.zeros((B, T), np.int32) for name in INPUTS}
  batch['input_ids'][:] = pad_id
  batch |= {name: np.zeros((B, T), x.dtype) for name, x in like.token_targets.items()}
  batch |= {name: np.zeros((B, *np.shape(x)), x.dtype) for name, x in like.targets.items()}
  batch['weight'] = np.zeros(B, np.float32)
  for i, row in enumerate(rows):
    for name, values in [(name, getattr(row, name)) for name in INPUTS] + list(row.token_targets.items()):
      batch[name][i, :len(values)] = values
    for name, value in row.targets.items():
      batch[name][i] = value
    batch['weight'][i] = 1
  return batch


@dataclasses.dataclass(frozen=True)
class Batches:
  """Rows in batches of `size`, of which this process has part `index` of `parts`."""
  rows: Sequence[Row]
  size: int
  length: int  # T
  seed: int
  pad_id: int
  index: int = 0
  parts: int = 1

  def order(self, epoch: int) -> np.ndarray:  # -> [rows]
    """The rows of an epoch, each once, in an order of its own."""
    return np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(len(self.rows))

  def batch(self, step: int) -> dict[str, np.ndarray]:
    """This process' rows of the batch of `step`: epochs follow each other without a gap."""
    local = self.size // self.parts
    first = step * self.size + self.index * local
    places = [divmod(place, len(self.rows)) for place in range(first, first + local)]
    orders = {epoch: self.order(epoch) for epoch in {epoch for epoch, _ in places}}
    return self._pad([orders[epoch][place] for epoch, place in places])

  def once(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """(numbers of the batch's rows, of all processes, in order; this process' rows of it), every row once."""
    local = self.size // self.parts
    for start in range(0, len(self.rows), self.size):
      members = np.arange(start, min(start + self.size, len(self.rows)))
      yield members, self._pad(members[self.index * local:(self.index + 1) * local])

  def _pad(self, numbers: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    rows = [self.rows[number] for number in numbers]
    return pad(rows, self.size // self.parts, self.length, self.pad_id, self.rows[0])

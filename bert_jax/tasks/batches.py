"""The batch of a step of fine-tuning: a function of (rows, seed, step); and every row once, for an evaluation.

B rows of a batch, T tokens they are padded to.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from bert_jax.tasks.task import Row

STEP = 4  # tokens: lengths of batches are multiples
TOGETHER = 32  # batches whose rows are sorted by length: more pad less, and put more of a length beside each other
INPUTS = 'input_ids', 'token_type_ids', 'position_ids', 'pair_ids'


def pad(rows: Sequence[Row], B: int, T: int, pad_id: int, like: Row) -> dict[str, np.ndarray]:
  """Model inputs [B T], targets [B ...] and weight [B] of these rows; what remains of B is filled up with zeros.

  `like`: any row, for the shapes where there are no rows.
  """
  batch: dict[str, np.ndarray] = {name: np.zeros((B, T), np.int32) for name in INPUTS}
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


def choose_lengths(rows: Sequence[Row], most: int) -> tuple[int, ...]:
  """At most `most` lengths T that pad these rows the least when each is padded to the next one: so many compilations.

  They are multiples of STEP, the last one no shorter than any row.
  """
  units = np.array([-(-len(row.input_ids) // STEP) for row in rows])
  shorter = np.concatenate([[0], np.cumsum(np.bincount(units))])  # rows of fewer than u units
  longest = len(shorter) - 2
  # cost[u]: of all rows of up to u units with the lengths so far, the last of them u.
  cost, chosen = [u * shorter[u + 1] for u in range(longest + 1)], [[u] for u in range(longest + 1)]
  for _ in range(min(most, longest) - 1):
    before = list(zip(cost, chosen))
    for u in range(1, longest + 1):
      for v in range(1, u):
        total = before[v][0] + u * (shorter[u + 1] - shorter[v + 1])
        if total < cost[u]:
          cost[u], chosen[u] = total, [*before[v][1], u]
  return tuple(STEP * u for u in chosen[longest])


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
  """Rows in batches of `size` at most, of which this process has part `index` of `parts`.

  An epoch has every row once, in batches of rows of about one length: it is drawn in an order of its own, every
  TOGETHER batches of which are sorted by length; then the batches are drawn in an order of their own. A batch that is
  not full is filled up with rows of weight 0.
  """
  rows: Sequence[Row]
  size: int
  lengths: tuple[int, ...]  # T, rising, of which a batch has the first that fits
  seed: int
  pad_id: int
  index: int = 0
  parts: int = 1
  drawn: dict[int, list[np.ndarray]] = dataclasses.field(default_factory=dict)  # the last epoch that was asked for

  @property
  def steps(self) -> int:
    """Batches of an epoch."""
    return -(-len(self.rows) // self.size)

  @functools.cached_property
  def row_lengths(self) -> np.ndarray:  # -> [rows]
    return np.array([len(row.input_ids) for row in self.rows])

  def epoch(self, number: int) -> list[np.ndarray]:
    """The numbers of the rows of each batch of an epoch."""
    if number not in self.drawn:
      self.drawn.clear()
      self.drawn[number] = self.draw(number)
    return self.drawn[number]

  def draw(self, number: int) -> list[np.ndarray]:
    random = np.random.Generator(np.random.Philox(key=[self.seed, number]))
    order = random.permutation(len(self.rows))
    windows = np.split(order, range(TOGETHER * self.size, len(order), TOGETHER * self.size))
    alike = np.concatenate([window[np.argsort(self.row_lengths[window], kind='stable')] for window in windows])
    batches = np.split(alike, range(self.size, len(alike), self.size))
    return [batches[i] for i in random.permutation(len(batches))]

  def members(self, step: int) -> np.ndarray:
    """The numbers of the rows of the batch of `step`, of all processes."""
    epoch, place = divmod(step, self.steps)
    return self.epoch(epoch)[place]

  def length(self, members: np.ndarray) -> int:
    """What these rows are padded to."""
    longest = self.row_lengths[members].max()
    return next(length for length in self.lengths if length >= longest)

  def batch(self, step: int) -> dict[str, np.ndarray]:
    """This process' rows of the batch of `step`."""
    return self._pad(self.members(step))

  def once(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """(numbers of the batch's rows, of all processes; this process' rows of it): every row once, the shortest first."""
    order = np.argsort(self.row_lengths, kind='stable')
    for members in np.split(order, range(self.size, len(order), self.size)):
      yield members, self._pad(members)

  def _pad(self, members: np.ndarray) -> dict[str, np.ndarray]:
    local = -(-self.size // self.parts)
    mine = [self.rows[number] for number in members[self.index * local:(self.index + 1) * local]]
    return pad(mine, local, self.length(members), self.pad_id, self.rows[0])

"""What a batch is made of: the one record of settings of the loader."""

import dataclasses
from typing import Annotated

from input_pipeline import ranges
from input_pipeline.batches.checks import require, require_types
from input_pipeline.batches.masking import STORED, Masking
from input_pipeline.batches.pairs import PairKind
from input_pipeline.batches.shards import SPECIALS
from input_pipeline.errors import DataError
from input_pipeline.ranges import Seed, Within

# The original's 20 slots of 128 and 76 of 512 are about what its share wants; masks that want so many times the slots
# are a mistake.
MOST_WANTED_PER_SLOT = 1.25
SHORTEST_ROW = 8  # tokens
Counted = Annotated[int, Within(1, 2**31 - 1)]  # what rows and their tokens are counted in


@dataclasses.dataclass(frozen=True)
class BatchConfig:
  """What one global batch is made of."""
  size: Counted = 32
  """Rows of the global batch, over all processes."""
  sequence_length: Annotated[int, Within(SHORTEST_ROW, 2**31 - 1)] = 128
  """Tokens of a row; the data must have been prepared for it."""
  predictions: Counted = 20
  """Slots for predicted tokens in a row; where the masks' share asks for more, the rest is not predicted."""
  pairs: PairKind = 'nsp'
  """nsp: second segments exchanged between documents; google: as prepared; sop: sentence order; none: one segment."""
  pack: bool = False
  """Fill each row with several pairs, so that almost no padding is left."""
  pairs_per_row: Counted = 1
  """Most pairs in one row; more than 1 only with pack, and then about 16 for rows of 512."""
  masking: Masking = Masking()
  """Which tokens are predicted, and what replaces them."""
  seed: Seed = 12345
  """Seed of order, pairs, packing and masks."""

  @property
  def separators(self) -> int:
    """[SEP]s of a pair."""
    return 1 if self.pairs == 'none' else 2

  @property
  def specials(self) -> int:
    """Special tokens of a pair: [CLS] and its [SEP]s."""
    return 1 + self.separators

  def check(self) -> None:
    """Raises DataError, naming the field."""
    ranges.check(self, 'batch.', DataError)
    require_types(self, 'batch.')
    room = self.sequence_length - SPECIALS
    require(self.predictions <= room,
            f'batch.predictions is {self.predictions}, more than the {room} tokens of a row of '
            f'{self.sequence_length}: lower batch.predictions, about 0.15 of batch.sequence_length')
    require(self.pack or self.pairs_per_row == 1, f'batch.pairs_per_row is {self.pairs_per_row} without packing: '
            'set batch.pack, or batch.pairs_per_row to 1')
    require(not self.pack or self.pairs_per_row > 1, 'batch.pack with batch.pairs_per_row 1 packs nothing: '
            'set batch.pairs_per_row, to 16 for rows of 512')
    self.masking.check()
    require(self.masking.unit != STORED or self.pairs == 'google',
            f'batch.masking.unit is {STORED}, and batch.pairs {self.pairs}: such masks are stored beside google pairs; '
            'set batch.pairs to google, or batch.masking.unit to token')
    share = self.masking.greatest_share
    wanted = round(share * self.sequence_length)
    require(wanted <= MOST_WANTED_PER_SLOT * self.predictions,
            f'batch.predictions is {self.predictions}, but masks of {share:g} want {wanted} in a row of '
            f'{self.sequence_length}: raise batch.predictions, or lower batch.masking.share')

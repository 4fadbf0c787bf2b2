"""What a batch is made of: the one record of settings of the loader."""

import dataclasses
from typing import Literal

from input_pipeline.batches.masking import Masking

SHORT = 1.25  # the original's 20 slots of 128 and 76 of 512 are about what its share wants; far fewer are a mistake


@dataclasses.dataclass(frozen=True)
class BatchConfig:
  """What one global batch is made of."""
  size: int = 32
  """Rows of the global batch, over all processes."""
  sequence_length: int = 128
  """Tokens of a row; the data must have been prepared for it."""
  predictions: int = 20
  """Slots for predicted tokens in a row; where the masks' share asks for more, the rest is not predicted."""
  pairs: Literal['nsp', 'google', 'sop', 'none'] = 'nsp'
  """nsp: second segments exchanged between documents; google: pairs as prepared; sop: sentence order; none: one segment."""
  pack: bool = False
  """Fill each row with several pairs, so that almost no padding is left."""
  pairs_per_row: int = 1
  """Most pairs in one row; more than 1 only with pack, and then about 16 for rows of 512."""
  masking: Masking = Masking()
  """Which tokens are predicted, and what replaces them."""
  seed: int = 12345
  """Seed of order, pairs, packing and masks."""

  @property
  def separators(self) -> int:
    """[SEP]s of a pair."""
    return 1 if self.pairs == 'none' else 2

  def check(self) -> None:
    """Raises ValueError, naming the field."""
    for name, least in {'size': 1, 'sequence_length': 8, 'predictions': 1, 'pairs_per_row': 1}.items():
      if getattr(self, name) < least:
        raise ValueError(f'batch.{name} is {getattr(self, name)}; wanted at least {least}')
    if self.predictions > self.sequence_length - 3:
      raise ValueError(f'batch.predictions is {self.predictions}, more than the {self.sequence_length - 3} tokens of a row of '
                       f'{self.sequence_length}: lower batch.predictions, about 0.15 of batch.sequence-length')
    if self.pairs_per_row > 1 and not self.pack:
      raise ValueError(f'batch.pairs_per_row is {self.pairs_per_row} without packing: set batch.pack, or batch.pairs_per_row to 1')
    if self.pack and self.pairs_per_row == 1:
      raise ValueError('batch.pack with batch.pairs_per_row 1 packs nothing: set batch.pairs_per_row, to 16 for rows of 512')
    self.masking.check()
    share = max([self.masking.share] if not self.masking.schedule else [share for _, share in self.masking.schedule])
    if (wanted := round(share * self.sequence_length)) > SHORT * self.predictions:
      raise ValueError(f'batch.predictions is {self.predictions}, but masks of {share:g} want {wanted} in a row of {self.sequence_length}: '
                       f'raise batch.predictions, or lower batch.masking.share')

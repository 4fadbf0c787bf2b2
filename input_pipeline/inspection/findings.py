"""What `inspect` finds, as records: what it prints, and with --json writes."""

import dataclasses

from input_pipeline import records
from input_pipeline.counts import Documents

Five = tuple[float, ...]  # the least, a quarter, the median, three quarters, the most


@dataclasses.dataclass(frozen=True)
class Split:
  """A split: exact figures of the manifest, then figures of the share of it that was read."""
  documents: int
  pieces: int
  sentences: int
  tokens: int
  shards: int
  bytes: int
  bytes_per_token: float
  unknown_share: float  # of the tokens
  padding_share: float  # of rows that hold one pair each
  padding_share_packed: float  # of packed rows; 1 - this is the share of real tokens
  rows: int  # of an epoch, with one pair each
  rows_packed: int
  negative_share: float  # of the next-sentence pairs of the first windows' first epoch
  trimmed_tokens: int  # that found no room there
  read_share: float  # of the tokens, for what follows
  piece_tokens: Five  # of a piece, special ones counted
  sentence_tokens: Five
  document_pieces: Five | None  # None where not all was read
  lengths: tuple[int, ...]  # pieces by length with special tokens, in equal bins up to sequence_length
  examples: tuple[tuple[str, ...], ...]  # rows, as lines


@dataclasses.dataclass(frozen=True)
class Remain:
  """What may have stayed of a markup."""
  count: int
  context: str  # of one of them


@dataclasses.dataclass(frozen=True)
class Tokens:
  """What the tokens are that were read, of all splits."""
  read: int
  frequent: tuple[tuple[str, float], ...]  # (token, share of all)
  frequent_with_letters: tuple[tuple[str, float], ...]
  never: int  # of the vocabulary, special tokens left out
  scripts: dict[str, float]  # share of the letters
  remains: dict[str, Remain]  # by the names of markup.REMAINS
  unknown: tuple[str, ...]  # unknown tokens with what stands around them


@dataclasses.dataclass(frozen=True)
class Copies:
  """What of the validation split stands in the train split too."""
  pieces: int  # of validation that were looked up
  train_share: float  # of train's tokens that they were looked up in
  exact_share: float  # of these pieces: all tokens are those of a piece of train
  near_share: float  # of these pieces: most runs of five tokens stand in train; without the exact ones
  examples: tuple[str, ...]  # the beginnings of some of these


@dataclasses.dataclass(frozen=True)
class Report:
  directory: str
  sequence_length: int
  pairs: str  # as the manifest has it: dynamic or google
  vocabulary: records.Vocabulary
  verified: str  # what was checked
  documents: Documents | None  # None where the manifest does not say how many were read
  splits: dict[str, Split]
  tokens: Tokens
  copies: Copies | None  # None without a validation split
  warnings: tuple[str, ...]
  settings: dict
  counts: dict[str, int]  # of the manifest, as they are

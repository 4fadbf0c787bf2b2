"""How much of the validation split stands in the train split too: held-out figures flatter a model by that much.

A near copy is a piece most of whose runs of five tokens stand somewhere in train. Whole pieces are not compared, as a
sentence more at the front of a document moves where all its pieces end.

Letters: N pieces of a window, T tokens, R runs of five tokens, W those that differ.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from input_pipeline.batches.shards import Window
from input_pipeline.inspection import sample as sample_lib
from input_pipeline.inspection.findings import Copies
from input_pipeline.inspection.sample import Parts, Sample
from input_pipeline.prepare import near_duplicates

LOOKED_UP_TOKENS = 1 << 20  # of validation, at most
NEAR = 0.8  # of the runs of a piece
LEAST_TOKENS = 10  # of a piece that is looked up: shorter ones, such as headings, come again by chance
EXAMPLES = 3
_SHOWN = 24  # tokens of an example
_TABLE_BITS = 24  # of a hash: a table that tells at once of most runs that they are not looked for


@dataclasses.dataclass(frozen=True)
class LookedUp:
  """Pieces of validation, and what is looked for."""
  pieces: list[np.ndarray]  # [T] each
  runs: np.ndarray  # [R] uint64, hashes of runs of five tokens
  owners: np.ndarray  # [R] which piece each is of
  wanted: np.ndarray  # [W] the hashes that differ, sorted
  table: np.ndarray  # [2^24] bool, of their first bits
  whole: dict[bytes, int]  # {the tokens of a piece: its number, the first of those that are alike}
  lengths: np.ndarray  # those that there are


@dataclasses.dataclass(frozen=True)
class Seen:
  """What of it stands in some windows of train."""
  runs: np.ndarray  # [W / 8] uint8, a bit for each hash
  exact: frozenset[int]  # numbers of pieces


def find(train: Sample, validation: Sample, parts: Parts) -> Copies:
  """What of the pieces of validation stands in what was read of train."""
  looked_up = look_up(validation.windows)
  return describe(looked_up, together([seen_in(window, looked_up) for window in train.windows]), train.share, parts)


def look_up(windows: Iterable[Window]) -> LookedUp:
  """Some pieces of validation. No more windows are read than are needed."""
  pieces, room = [], LOOKED_UP_TOKENS
  for window in windows:
    for piece in np.split(window.tokens, window.sentence_starts[window.piece_starts[1:-1]]):
      if len(piece) >= LEAST_TOKENS and len(piece) <= room:
        pieces.append(piece)
        room -= len(piece)
    if room < LEAST_TOKENS:
      break
  many = [near_duplicates.runs(piece) for piece in pieces]
  runs = np.concatenate([np.zeros(0, np.uint64), *many])
  wanted, table = np.unique(runs), np.zeros(1 << _TABLE_BITS, bool)
  whole: dict[bytes, int] = {}
  table[_short(wanted)] = True
  for number, piece in enumerate(pieces):
    whole.setdefault(piece.tobytes(), number)
  return LookedUp(pieces, runs, np.repeat(np.arange(len(pieces)), [len(own) for own in many]), wanted, table, whole,
                  np.unique([len(piece) for piece in pieces]))


def seen_in(window: Window, looked_up: LookedUp) -> Seen:
  wanted, seen, exact = looked_up.wanted, np.zeros(len(looked_up.wanted), bool), set()
  hashes = near_duplicates.runs(window.tokens)
  likely = hashes[looked_up.table[_short(hashes)]]
  places = np.minimum(np.searchsorted(wanted, likely), max(len(wanted) - 1, 0))
  seen[places[wanted[places] == likely]] = True
  bounds = window.sentence_starts[window.piece_starts]
  for number in np.flatnonzero(np.isin(window.piece_lengths, looked_up.lengths)).tolist():
    piece = looked_up.whole.get(window.tokens[bounds[number]:bounds[number + 1]].tobytes())
    if piece is not None:
      exact.add(piece)
  return Seen(np.packbits(seen), frozenset(exact))


def together(many: Sequence[Seen]) -> Seen:
  return Seen(functools.reduce(np.bitwise_or, (one.runs for one in many)),
              frozenset().union(*(one.exact for one in many)))


def describe(looked_up: LookedUp, found: Seen, train_share: float, parts: Parts) -> Copies:
  """`train_share`: of the tokens of train that were read."""
  pieces, seen = looked_up.pieces, np.unpackbits(found.runs, count=len(looked_up.wanted)).astype(bool)
  shares = np.bincount(looked_up.owners, seen[np.searchsorted(looked_up.wanted, looked_up.runs)], len(pieces)
                       ) / np.maximum(np.bincount(looked_up.owners, minlength=len(pieces)), 1)
  is_exact = np.array([looked_up.whole[piece.tobytes()] in found.exact for piece in pieces], bool)
  is_near = ~is_exact & (shares >= NEAR)
  examples = [sample_lib.readable(sample_lib.join(pieces[place][:_SHOWN], parts))
              for place in np.flatnonzero(is_exact | is_near)[:EXAMPLES]]
  count = max(len(pieces), 1)
  return Copies(len(pieces), train_share, float(is_exact.sum() / count), float(is_near.sum() / count), tuple(examples))


def _short(hashes: np.ndarray) -> np.ndarray:  # [R] -> [R]
  return (hashes >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)

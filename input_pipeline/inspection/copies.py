"""How much of the validation split stands in the train split too: held-out figures flatter a model by that much.

A near copy is a piece most of whose runs of five tokens stand somewhere in train. Whole pieces are not compared, as a
sentence more at the front of a document moves where all its pieces end.

Letters: N pieces of a window, T its tokens, R runs of five tokens.
"""

import numpy as np

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


def find(train: Sample, validation: Sample, parts: Parts) -> Copies:
  """What of the pieces of validation stands in what was read of train."""
  pieces, runs, owners = _looked_up(validation)  # -, [R], [R]
  wanted = np.unique(runs)
  table = np.zeros(1 << _TABLE_BITS, bool)
  table[_short(wanted)] = True
  seen = np.zeros(len(wanted), bool)
  whole, exact = {piece.tobytes() for piece in pieces}, set()
  lengths = np.unique([len(piece) for piece in pieces])
  for window in train.windows:
    hashes = near_duplicates.runs(window.tokens)
    likely = hashes[table[_short(hashes)]]
    places = np.minimum(np.searchsorted(wanted, likely), max(len(wanted) - 1, 0))
    seen[places[wanted[places] == likely]] = True
    bounds = window.sentence_starts[window.piece_starts]
    for number in np.flatnonzero(np.isin(window.piece_lengths, lengths)).tolist():
      tokens = window.tokens[bounds[number]:bounds[number + 1]].tobytes()
      if tokens in whole:
        exact.add(tokens)
  shares = np.bincount(owners, seen[np.searchsorted(wanted, runs)], len(pieces)) / np.maximum(
      np.bincount(owners, minlength=len(pieces)), 1)
  is_exact = np.array([piece.tobytes() in exact for piece in pieces], bool)
  is_near = ~is_exact & (shares >= NEAR)
  examples = [sample_lib.readable(sample_lib.join(pieces[place][:_SHOWN], parts))
              for place in np.flatnonzero(is_exact | is_near)[:EXAMPLES]]
  count = max(len(pieces), 1)
  return Copies(len(pieces), train.share, float(is_exact.sum() / count), float(is_near.sum() / count), tuple(examples))


def _looked_up(validation: Sample) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:  # -> [[T]], [R], [R]
  """Pieces of validation, the hashes of their runs of five tokens, and which piece each run is of."""
  pieces, room = [], LOOKED_UP_TOKENS
  for window in validation.windows:
    for piece in np.split(window.tokens, window.sentence_starts[window.piece_starts[1:-1]]):
      if len(piece) >= LEAST_TOKENS and len(piece) <= room:
        pieces.append(piece)
        room -= len(piece)
  runs = [near_duplicates.runs(piece) for piece in pieces]
  return pieces, np.concatenate([np.zeros(0, np.uint64), *runs]), np.repeat(
      np.arange(len(pieces)), [len(own) for own in runs])


def _short(hashes: np.ndarray) -> np.ndarray:  # [R] -> [R]
  return (hashes >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)

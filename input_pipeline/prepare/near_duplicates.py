"""Near-duplicates by MinHash (Broder 1997): documents whose runs of tokens are mostly another's.

The smallest hash of two sets is the same with the probability of what they share (Jaccard). With three hashes instead
of 64:
  runs of A  {p q r s}   smallest of each hash  3 8 1
  runs of B  {p q r t}   smallest of each hash  3 8 5   -> equal in two of three: the estimate is 0.67, the truth 3/5

Letters: D documents, T tokens of one, K hashes of a signature.
"""

import functools

import numpy as np

HASHES = 64  # the estimate of a share s is off by sqrt(s (1 - s) / 64): 0.05 at 0.8
# of 4 hashes: documents that share 0.8 meet in a band with probability 0.9998, those that share 0.2 with 0.03
_BANDS = 16
_SHINGLE = 5  # tokens of a run
_BLOCK = 4096  # runs hashed at once
_DRAW = np.random.default_rng(0x3A5E)
_FACTORS = _DRAW.integers(0, 2**64, HASHES, np.uint64) | np.uint64(1)
_OFFSETS = _DRAW.integers(0, 2**64, HASHES, np.uint64)
_FACTORS_OF_PLACES = _DRAW.integers(0, 2**64, _SHINGLE, np.uint64) | np.uint64(1)


def runs(ids: np.ndarray) -> np.ndarray:  # [T] -> [T - 4] uint64
  """A hash of every run of five tokens."""
  count = max(0, len(ids) - _SHINGLE + 1)
  places = (ids[place:place + count].astype(np.uint64) * factor for place, factor in enumerate(_FACTORS_OF_PLACES))
  return functools.reduce(np.add, places)


def signature(ids: np.ndarray) -> np.ndarray:  # [T] -> [K] uint32
  """The smallest of each hash over all runs of five tokens; of all tokens where there are fewer."""
  shingles = np.unique(runs(np.pad(ids, (0, max(0, _SHINGLE - len(ids))))))
  shingles ^= shingles >> np.uint64(29)
  least = np.full(HASHES, 2**32 - 1, np.uint32)
  for start in range(0, len(shingles), _BLOCK):
    hashed = (shingles[start:start + _BLOCK, None] * _FACTORS + _OFFSETS) >> np.uint64(32)
    least = np.minimum(least, hashed.min(0).astype(np.uint32))
  return least


def find(signatures: np.ndarray, ranks: np.ndarray, share: float) -> np.ndarray:  # [D K], [D] -> [D] bool
  """Which documents share at least this much with one of smaller rank: a rule that no order of documents changes.

  Of the documents that meet in a band each is compared with the one of the smallest rank, and with the one before it by
  rank.
  """
  found = np.zeros(len(ranks), bool)
  for band in np.split(signatures, _BANDS, axis=1):
    name = (band.astype(np.uint64) * _FACTORS[:band.shape[1]]).sum(1, dtype=np.uint64)
    order = np.lexsort((ranks, name))
    first = np.r_[True, name[order[1:]] != name[order[:-1]]] if len(order) else np.zeros(0, bool)
    later = np.flatnonzero(~first)
    leaders = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    for other in (leaders[later], later - 1):
      a, b = order[later], order[other]
      for start in range(0, len(a), _BLOCK):
        one, two = a[start:start + _BLOCK], b[start:start + _BLOCK]
        found[one[(signatures[one] == signatures[two]).mean(1) >= share]] = True
  return found

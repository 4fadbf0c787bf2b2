"""Near-duplicates by MinHash (Broder 1997): documents whose runs of tokens are mostly another's.

Letters: D documents, T tokens of one, K hashes of a signature.
"""

import numpy as np

HASHES = 64  # the estimate of a share s is off by sqrt(s (1 - s) / 64): 0.05 at 0.8
_BANDS = 16  # of 4 hashes: documents that share 0.8 meet in a band with probability 0.9998, those that share 0.2 with 0.03
_SHINGLE = 5  # tokens
_BLOCK = 4096  # runs hashed at once
_RANDOM = np.random.default_rng(0x3A5E)
_FACTORS = _RANDOM.integers(0, 2**64, HASHES, np.uint64) | np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 2**64, HASHES, np.uint64)
_PLACES = _RANDOM.integers(0, 2**64, _SHINGLE, np.uint64) | np.uint64(1)


def signature(ids: np.ndarray) -> np.ndarray:  # [T] -> [K] uint32
  """The smallest of each hash over all runs of five tokens; of all tokens where there are fewer."""
  if len(ids) < _SHINGLE:
    ids = np.pad(ids, (0, _SHINGLE - len(ids)))
  windows = np.lib.stride_tricks.sliding_window_view(ids.astype(np.uint64), _SHINGLE)
  runs = np.unique((windows * _PLACES).sum(1, dtype=np.uint64))
  runs ^= runs >> np.uint64(29)
  least = np.full(HASHES, 2**32 - 1, np.uint32)
  for start in range(0, len(runs), _BLOCK):
    hashed = (runs[start:start + _BLOCK, None] * _FACTORS + _OFFSETS) >> np.uint64(32)
    least = np.minimum(least, hashed.min(0).astype(np.uint32))
  return least


def find(signatures: np.ndarray, ranks: np.ndarray, share: float) -> np.ndarray:  # [D K], [D] -> [D] bool
  """Which documents share at least this much with one of smaller rank: a rule that no order of documents changes.

  Of the documents that meet in a band each is compared with the one of the smallest rank, and with the one before it by rank.
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

"""Near-duplicates by MinHash (Broder 1997): documents whose runs of tokens are mostly another's.

The smallest hash of two sets is the same with the probability of what they share (Jaccard). With three hashes instead
of 64:
  runs of A  {p q r s}   smallest of each hash  3 8 1
  runs of B  {p q r t}   smallest of each hash  3 8 5   -> equal in two of three: the estimate is 0.67, the truth 3/5

Letters: D documents, T tokens of one, K hashes of a signature, B bands, R rows.
"""

import functools

import numpy as np

HASHES = 64  # the estimate of a share s is off by sqrt(s (1 - s) / 64): 0.05 at 0.8
# of 4 hashes: documents that share 0.8 meet in a band with probability 0.9998, those that share 0.2 with 0.03
_BANDS = 16
_SHINGLE = 5  # tokens of a run
_BLOCK = 4096  # runs hashed at once
# A document in a band, on its way to where it meets others: its run, its place there.
ROW = np.dtype([('name', '<u8'), ('rank', '<u8'), ('signature', '<u4', HASHES), ('run', '<u4'), ('place', '<u4'),
                ('band', 'u1')])
DOCUMENT_BYTES = _BANDS * ROW.itemsize  # of all rows of one
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
  rank. So bands, and the documents that meet in one, can be looked at apart from all others: see rows_of.
  """
  found = np.zeros(len(ranks), bool)
  for name in _names(signatures):
    found |= _alike(name, ranks, signatures, share)
  return found


def _names(signatures: np.ndarray) -> list[np.ndarray]:  # [D K] -> B times [D] uint64
  """Of each band a hash of what a signature has there."""
  return [(band.astype(np.uint64) * _FACTORS[:band.shape[1]]).sum(1, dtype=np.uint64)
          for band in np.split(signatures, _BANDS, axis=1)]


def _alike(names: np.ndarray, ranks: np.ndarray, signatures: np.ndarray, share: float) -> np.ndarray:
  # [D], [D], [D K] -> [D] bool
  """What is found of the documents of a band; of equal ranks the first comes first."""
  found, order = np.zeros(len(ranks), bool), np.lexsort((ranks, names))
  first = np.r_[True, names[order[1:]] != names[order[:-1]]] if len(order) else np.zeros(0, bool)
  later = np.flatnonzero(~first)
  leaders = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
  for other in (leaders[later], later - 1):
    a, b = order[later], order[other]
    for start in range(0, len(a), _BLOCK):
      one, two = a[start:start + _BLOCK], b[start:start + _BLOCK]
      found[one[(signatures[one] == signatures[two]).mean(1) >= share]] = True
  return found

# ---------------------------------------------------------------- the same in parts


def rows_of(signatures: np.ndarray, ranks: np.ndarray, places: np.ndarray, run: int, parts: int) -> list[np.ndarray]:
  # [R K], [R], [R] -> parts times [.] ROW
  """A row for each document and band, in parts by what the band is named: those that meet are in one part."""
  made: list[list[np.ndarray]] = [[] for _ in range(parts)]
  for band, names in enumerate(_names(signatures)):
    part = (names * _FACTORS[0] >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
    for number, own in enumerate(made):
      here = np.flatnonzero(part == number)
      rows = np.zeros(len(here), ROW)
      rows['band'], rows['name'], rows['rank'], rows['signature'] = band, names[here], ranks[here], signatures[here]
      rows['run'], rows['place'] = run, places[here]
      own.append(rows)
  return [np.concatenate(own) for own in made]


def find_in(rows: np.ndarray, share: float) -> np.ndarray:  # [R] ROW -> [R] bool
  """What `find` finds, as far as one part tells; rows come in the order of the documents."""
  found = np.zeros(len(rows), bool)
  for band in range(_BANDS):
    own = np.flatnonzero(rows['band'] == band)
    found[own] = _alike(rows['name'][own], rows['rank'][own], rows['signature'][own], share)
  return found

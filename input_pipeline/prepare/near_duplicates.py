"""Near-duplicates by MinHash (Broder 1997): documents whose runs of tokens are mostly another's.

The smallest hash of two sets is the same with the probability of what they share (Jaccard). With three hashes instead
of 64:
  runs of A  {p q r s}   smallest of each hash  3 8 1
  runs of B  {p q r t}   smallest of each hash  3 8 5   -> equal in two of three: the estimate is 0.67, the truth 3/5

Where no machine holds all signatures, a document is a row for each band. Rows meet in slices of about one size: parts
by what the band holds; where many documents share a band a part is cut, in the order of what bands hold and of ranks.
Of the slices before it one must know two rows only, however many documents share a band:
  drawn     signatures of some documents     -> keys of a few rows
  cuts      these of all                     -> where parts are cut
  rows_of   signatures of some documents     -> their rows, slice by slice
  ends      the rows of a slice              -> its last row, and the first that meets that one
  before    these of all slices              -> for each slice the same of all that are before it
  find_in   these, and the rows of a slice   -> what goes

Letters: D documents, T tokens of one, K hashes of a signature, B bands, P parts, C cuts, S slices, R rows.
"""

import functools
from collections.abc import Iterable, Mapping

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
# Where a row stands among all; its part comes first.
KEY = np.dtype([('part', '<u4'), ('name', '<u8'), ('band', 'u1'), ('rank', '<u8')])
_DRAWN = 64  # rows of a slice, about, by which it is told where slices end: their sizes vary by an eighth
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
  rank. So bands, and the documents that meet in one, can be looked at apart from all others: see below.
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


def parts_of(documents: int, part_bytes: int) -> int:
  """How many parts of so many bytes there are, by ranges of a hash of what a band holds."""
  return max(1, -(-documents * DOCUMENT_BYTES // part_bytes))


def _keys(signatures: np.ndarray, ranks: np.ndarray, parts: int) -> np.ndarray:  # [D K], [D] -> [B D] KEY
  keys = np.zeros((_BANDS, len(ranks)), KEY)
  for band, names in enumerate(_names(signatures)):
    keys['part'][band] = (names * _FACTORS[0] >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
    keys['name'][band], keys['band'][band], keys['rank'][band] = names, band, ranks
  return keys


def drawn(signatures: np.ndarray, ranks: np.ndarray, parts: int, part_bytes: int) -> np.ndarray:
  # [D K], [D] -> [R] KEY
  """Of all rows some, about 64 of as many as a part has; which ones hangs on the rank and the band alone."""
  keys = _keys(signatures, ranks, parts)
  hashed = (ranks ^ ranks >> np.uint64(29)) * _FACTORS[:_BANDS, None] + _OFFSETS[:_BANDS, None]
  return keys[hashed >> np.uint64(32) < min(1., _DRAWN * ROW.itemsize / part_bytes) * 2**32]


def cuts(some: np.ndarray, part_bytes: int) -> np.ndarray:  # [R] KEY, as drawn from all -> [C] KEY, in order
  """Where parts that are too large, by half or more, are cut into slices: each cut is the first key of a slice.

  Rows with one key stay together. They are few: documents whose id is the same go by their content, but for those
  without pieces, which have one token at most, so that the vocabulary has no more of them.
  """
  a_slice = max(1, min(_DRAWN, part_bytes // ROW.itemsize))  # rows that were drawn of it
  some = some[_order(some)]
  found = [np.zeros(0, KEY)]
  for own in np.split(some, np.flatnonzero(np.diff(some['part'])) + 1):
    if len(own) > 1.5 * a_slice:
      slices = -(-len(own) // a_slice)
      found.append(own[np.arange(1, slices) * len(own) // slices])
  every = np.concatenate(found)
  return every[np.flatnonzero(np.r_[True, every[1:] != every[:-1]][:len(every)])]


def _order(keys: np.ndarray) -> np.ndarray:  # [R] KEY -> [R]
  """How they sort; of equal ones the first comes first."""
  return np.lexsort([keys[name] for name in reversed(KEY.names or ())])


def continued(cut: np.ndarray) -> list[int]:  # [C] KEY -> [C], in order
  """The slices that go on with the part of the slice before them."""
  return (cut['part'] + np.arange(1, len(cut) + 1)).tolist()


def rows_of(signatures: np.ndarray, ranks: np.ndarray, places: np.ndarray, run: int, parts: int, cut: np.ndarray
            ) -> list[np.ndarray]:  # [D K], [D], [D], -, -, [C] KEY -> P + C times [R] ROW
  """A row for each document and band, slice by slice, in each slice and band in the order that the documents have."""
  keys = _keys(signatures, ranks, parts).reshape(-1)
  both = np.concatenate([cut, keys])
  order = _order(both)  # a cut before the keys that equal it
  passed = np.zeros(len(both), np.int64)
  passed[order] = np.cumsum(order < len(cut))
  numbers = keys['part'] + passed[len(cut):]
  by_slice = np.argsort(numbers, kind='stable')
  documents = by_slice % max(1, len(ranks))
  rows = np.zeros(len(keys), ROW)
  for name in ('name', 'rank', 'band'):
    rows[name] = keys[name][by_slice]
  rows['run'], rows['place'] = run, places[documents]
  for start in range(0, len(rows), _BLOCK):
    rows['signature'][start:start + _BLOCK] = signatures[documents[start:start + _BLOCK]]
  return np.split(rows, np.searchsorted(numbers[by_slice], np.arange(1, parts + len(cut))))


def ends(rows: np.ndarray) -> np.ndarray:  # [R] ROW -> [2], or [0] of no rows
  """Of rows of one part, in the order of the documents, the places of two: the first of those that meet the last one by
  its key, and that one. The ends of some rows stand for them: ends of ends are those of all."""
  own = np.arange(len(rows))
  for name in ('name', 'band') if len(rows) else ():
    own = own[rows[name][own] == rows[name][own].max()]
  ranks = rows['rank'][own]
  return own[[ranks.argmin(), len(own) - 1 - ranks[::-1].argmax()]] if len(own) else own


def before(ended: Mapping[int, np.ndarray], continued: Iterable[int]) -> dict[int, np.ndarray]:
  # {slice: [0 or 2] ROW}, [C] in order -> {slice: [0 or 2] ROW}
  """From the rows at the ends of each slice those at the ends of all of its part that are before it."""
  found: dict[int, np.ndarray] = {}
  for number in continued:
    known = np.concatenate([rows[number - 1] for rows in (found, ended) if number - 1 in rows] or [np.zeros(0, ROW)])
    found[number] = known[ends(known)]
  return found


def find_in(rows: np.ndarray, share: float) -> np.ndarray:  # [R] ROW -> [R] bool
  """What `find` finds, as far as these tell: what is before a slice, then its rows in the order of the documents."""
  found = np.zeros(len(rows), bool)
  for band in range(_BANDS):
    own = np.flatnonzero(rows['band'] == band)
    found[own] = _alike(rows['name'][own], rows['rank'][own], rows['signature'][own], share)
  return found

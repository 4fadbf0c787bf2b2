"""Stateless random bits: any range of them is made in one call from (seed, purpose, place), and nothing is kept.

A key names one independent stream of draws, and each draw is 64 bits. What a draw decides follows from its bits only,
so the same place always gets the same decision. One draw can decide two things, by its upper and its lower half:

  bits                 0x C0000000 40000000
  fraction(upper(bits))   0.75             below(bits, 10)                -> 7
  fraction(lower(bits))            0.25    below(lower(bits) << HALF, 10) -> 2

Only Philox's raw bits are used: NumPy promises that they stay the same between versions, and does not promise it for
the methods of its Generator.
"""

import hashlib

import numpy as np

HALF = np.uint64(32)  # bits of each half of a draw
LOWER = np.uint64(2**32 - 1)
DRAWS_PER_COUNT = 4  # Philox makes so many draws from each value of its counter


def key(seed: int, purpose: str, *place: int | str) -> int:
  """The 128-bit key of one independent stream of draws, e.g. key(12345, 'masks', epoch, window)."""
  name = '/'.join([str(seed), purpose, *map(str, place)])
  return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), 'little')


def bits(key: int, first: int, count: int) -> np.ndarray:  # -> [count] uint64
  """Draws first … first + count - 1 of the stream with that key."""
  skip = first % DRAWS_PER_COUNT
  return np.random.Philox(key=key, counter=first // DRAWS_PER_COUNT).random_raw(count + skip)[skip:]


def upper(bits: np.ndarray) -> np.ndarray:  # [...] uint64 -> [...] uint64 below 2**32
  return bits >> HALF


def lower(bits: np.ndarray) -> np.ndarray:  # [...] uint64 -> [...] uint64 below 2**32
  return bits & LOWER


def fraction(half: np.ndarray) -> np.ndarray:  # [...] uint64 below 2**32 -> [...] float64 in [0, 1)
  return half * 2.0**-32


def below(bits: np.ndarray, limit: np.ndarray | int) -> np.ndarray:  # [...] uint64, [...] -> [...] int64
  """Uniform integers in [0, limit) from the upper halves; limit < 2**31, biased by at most limit / 2**32."""
  return (upper(bits) * np.asarray(limit, np.uint64) >> HALF).astype(np.int64)


def permutation(key: int, count: int) -> np.ndarray:  # -> [count] int64
  return np.argsort(bits(key, 0, count), kind='stable')

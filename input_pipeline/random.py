"""Stateless random words: any range of them is made in one call from (seed, purpose, numbers), with nothing to carry along.

Philox's raw 64-bit words are used and nothing built on them: NumPy promises that bit streams stay the same between versions, and
does not promise it for the methods of its Generator.
"""

import hashlib

import numpy as np


def key(seed: int, purpose: str, *numbers: int) -> int:
  """A 128-bit key of one independent stream of words, e.g. key(12345, 'mask', epoch, window)."""
  name = '/'.join([str(seed), purpose, *map(str, numbers)])
  return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), 'little')


def words(stream: int, first: int, count: int) -> np.ndarray:  # -> [count] uint64
  """Words first … first + count - 1 of the stream with that key."""
  skip = first % 4  # one counter makes four words
  return np.random.Philox(key=stream, counter=first // 4).random_raw(count + skip)[skip:]


def below(word: np.ndarray, limit: np.ndarray | int) -> np.ndarray:  # [...] uint64, [...] -> [...] int64
  """Uniform integers in [0, limit) from the upper halves of the words; limit < 2**31, biased by at most limit / 2**32."""
  return ((word >> np.uint64(32)) * np.asarray(limit, np.uint64) >> np.uint64(32)).astype(np.int64)


def permutation(stream: int, count: int) -> np.ndarray:  # -> [count] int64
  return np.argsort(words(stream, 0, count), kind='stable')

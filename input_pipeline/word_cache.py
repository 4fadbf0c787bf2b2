"""Text → ids by its distinct words: each is asked of the library once, and all others cost a hash in C and a gather in NumPy.

Text is cut where BERT's rules cut it whatever stands beside: at spaces and ASCII punctuation here, and at more of it in words that
are not ASCII. What else counts as white space, is dropped or has accents stays the library's affair.
Letters: S texts, W words, D distinct words, T tokens, N numbers to be joined.
"""

import re
import struct
from collections.abc import Callable, Sequence

import numpy as np

CACHED_WORDS = 1_000_000  # about 200 MB; then the cache starts anew, so that it follows the corpus
_CACHED_LENGTH = 48  # longer ones hardly repeat: URLs, whole sentences of Chinese
_ASCII_MARKS = bytes(i for i in range(33, 127) if not chr(i).isalnum())
_SPACES = b' \n'  # '\n' stands behind each text
_LETTER, _MARK, _SPACE = range(3)
_KINDS = bytes(_MARK if i in _ASCII_MARKS else _SPACE if i in _SPACES else _LETTER for i in range(256))
_SAME, _LOWER = bytes(range(256)), bytes(range(256)).lower()  # of ASCII alone
# What BERT's rules isolate as well wherever it stands: common punctuation, CJK characters.
_CUT_AT = '、。，！？：；（）《》「」『』“”‘’–—…\u4e00-\u9fff\u3400-\u4dbf'
_CUT = re.compile(f'[{_CUT_AT}]|[^{_CUT_AT}]+')


def encode(words: 'WordCache', lower_case: bool, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  # [S] -> int32 [T], tokens of each text [S]
  data, starts, counts = cut(texts, lower_case)
  which, distinct = factorize(data, starts)
  ids_of = [words[word] for word in distinct]  # D look-ups, not W
  ids, sizes = np.frombuffer(b''.join(ids_of), '<i4'), np.fromiter(map(len, ids_of), np.int64, len(ids_of)) // 4
  of_word = sizes[which]
  ids = ids[ranges((np.cumsum(sizes) - sizes)[which], of_word)]
  before = np.concatenate([[0], np.cumsum(of_word)])  # tokens before each word
  return ids, np.diff(before[np.cumsum(counts)], prepend=0)


def cut(texts: Sequence[str], lower_case: bool) -> tuple[bytes, np.ndarray, np.ndarray]:  # -> -, [W], [S]
  """The words of all texts without anything between them, where each begins, and how many each text has."""
  # Rust strings are UTF-8: a lone surrogate, which JSON can bring, becomes '?'. A line end is white space like any other.
  data = '\n'.join([text.replace('\n', ' ') for text in texts] + ['']).encode('utf-8', 'replace')
  kinds = np.frombuffer(data.translate(_KINDS), np.uint8)
  begins = kinds == _MARK
  begins[:1] |= kinds[:1] == _LETTER
  begins[1:] |= (kinds[1:] == _LETTER) & (kinds[:-1] != _LETTER)
  ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord('\n'))
  counts = np.diff(np.searchsorted(np.flatnonzero(begins), ends), prepend=0)
  # That ASCII is lower-cased before the library's other rules changes none of them, and halves the words that it is asked for.
  return data.translate(_LOWER if lower_case else _SAME, _SPACES), np.flatnonzero(begins[kinds != _SPACE]), counts


def factorize(data: bytes, starts: np.ndarray) -> tuple[np.ndarray, list[str]]:  # -, [W] -> [W], [D]
  """Which of the distinct words each word is, and the distinct words."""
  bounds = np.append(starts, len(data))
  try:
    import pyarrow
  except ImportError:  # a model can be used without what its data was made with
    return factorize_without_arrow(data, bounds)
  words = pyarrow.LargeStringArray.from_buffers(len(starts), pyarrow.py_buffer(bounds), pyarrow.py_buffer(data)).dictionary_encode()
  return words.indices.to_numpy(), words.dictionary.to_pylist()


def factorize_without_arrow(data: bytes, bounds: np.ndarray) -> tuple[np.ndarray, list[str]]:
  bounds, numbers = bounds.tolist(), {}
  which = [numbers.setdefault(data[start:end], len(numbers)) for start, end in zip(bounds, bounds[1:])]
  return np.array(which, np.int64), [word.decode() for word in numbers]


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:  # [N], [N] -> [sum of lengths]
  """arange(start, start + length) of every pair, one after the other."""
  lengths = lengths.astype(np.int64, copy=False)
  ends = np.cumsum(lengths)
  return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)


class WordCache(dict):
  """word -> the bytes of its int32 ids; what is not known yet is cut at punctuation, and asked of the library at last."""

  def __init__(self, encode_word: Callable[[str], list[int]], capacity: int = CACHED_WORDS):
    self.encode_word, self.capacity = encode_word, capacity

  def __missing__(self, word: str) -> bytes:
    if len(self) >= self.capacity:
      self.clear()
    if word.isascii() or len(parts := _CUT.findall(word)) < 2:
      ids = self.encode_word(word)
      value = struct.pack(f'<{len(ids)}i', *ids)
    else:
      value = b''.join([self[part] for part in parts])
    if len(word) <= _CACHED_LENGTH:
      self[word] = value
    return value

"""Text → ids by its distinct words: the library is asked for each once, all others cost a hash and a gather.

Text is cut where BERT's rules cut it whatever stands beside it: at spaces and ASCII punctuation here, and at more of it
in words that are not ASCII. What else counts as white space, is dropped or has accents stays the library's affair.

  texts        'the cat', 'the'          one byte string: the cat\\nthe\\n
  words        the␣  cat⏎  the⏎          bounds 0 4 8 12, words of each text 2 1
  distinct     the␣ cat⏎ the⏎, looked up without their spaces: [7] [9] [7]
  ids          7 9 7                     tokens of each text 2 1
Letters: S texts, W words, D distinct words, T tokens, N numbers to be joined.
"""

import marshal
import os
import pathlib
import re
import string
import struct
import uuid
from collections.abc import Callable, Sequence

import numpy as np

CACHED_WORDS = 1_000_000  # about 200 MB; then the cache starts again, empty, so that it follows the corpus
_CACHED_LENGTH = 48  # longer ones hardly repeat: URLs, whole sentences of Chinese
_SPACES = ' \n'  # '\n' ends each text
_LETTER, _MARK, _SPACE = range(3)
_KINDS = bytes(_SPACE if chr(i) in _SPACES else _MARK if chr(i) in string.punctuation else _LETTER for i in range(256))
# What BERT's rules isolate as well wherever it stands: common punctuation, CJK characters.
_MARKS = '、。，！？：；（）《》「」『』“”‘’–—…'
_CUT, CUT_AT_MARKS = (re.compile(f'[{at}]|[^{at}]+') for at in (f'{_MARKS}\u4e00-\u9fff\u3400-\u4dbf', _MARKS))


def encode(cache: 'WordCache', lower_case: bool, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  # [S] -> int32 [T], tokens of each text [S]
  data, bounds, counts = cut(texts, lower_case)
  which, distinct = factorize(data, bounds)
  ids_of = [cache[word.strip(_SPACES)] for word in distinct]  # D look-ups, not W
  ids, sizes = np.frombuffer(b''.join(ids_of), '<i4'), np.fromiter(map(len, ids_of), np.int64, len(ids_of)) // 4
  of_word = sizes[which]
  ids = ids[ranges((np.cumsum(sizes) - sizes)[which], of_word)]
  before = np.concatenate([[0], np.cumsum(of_word)])  # tokens before each word
  return ids, np.diff(before[np.cumsum(counts)], prepend=0)


def cut(texts: Sequence[str], lower_case: bool) -> tuple[bytes, np.ndarray, np.ndarray]:  # -> -, [W + 1], [S]
  """All texts as bytes, the bounds of their words, each with the spaces after it, and how many words each text has."""
  # Rust strings are UTF-8: a lone surrogate, which JSON can bring, becomes '?'. A line end is white space like any
  # other.
  lines = [text.encode('utf-8', 'replace') for text in texts]
  data = b'\n'.join([*lines, b''])
  if data.count(b'\n') > len(lines):
    data = b'\n'.join([*(line.replace(b'\n', b' ') for line in lines), b''])
  kinds = np.frombuffer(data.translate(_KINDS), np.uint8)
  begins = kinds == _LETTER
  begins[1:] &= kinds[:-1] != _LETTER
  begins |= kinds == _MARK
  starts = np.flatnonzero(begins)
  counts = np.diff(np.searchsorted(starts, np.flatnonzero(np.frombuffer(data, np.uint8) == ord('\n'))), prepend=0)
  bounds = np.append(starts, len(data))
  bounds[0] = 0  # spaces before the first word are its own
  # That ASCII is lower-cased before the library's other rules changes none of them, and leaves fewer words to ask for.
  return data.lower() if lower_case else data, bounds, counts


def factorize(data: bytes, bounds: np.ndarray) -> tuple[np.ndarray, list[str]]:  # -, [W + 1] -> [W], [D]
  """Which of the distinct words each word is, and the distinct words."""
  try:
    import pyarrow
  except ImportError:  # a model can be used without what its data was made with
    return factorize_without_arrow(data, bounds)
  words = pyarrow.LargeStringArray.from_buffers(len(bounds) - 1, pyarrow.py_buffer(bounds),
                                                pyarrow.py_buffer(data)).dictionary_encode()
  return words.indices.to_numpy(), words.dictionary.to_pylist()


def factorize_without_arrow(data: bytes, bounds: np.ndarray) -> tuple[np.ndarray, list[str]]:
  bounds, numbers = bounds.tolist(), {}
  which = [numbers.setdefault(data[start:end], len(numbers)) for start, end in zip(bounds, bounds[1:])]
  return np.array(which, np.int64), [word.decode() for word in numbers]


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:  # [N], [N] -> [sum of lengths]
  """arange(start, start + length) of every pair, one after the other: of starts 5, 0 and lengths 2, 3 it is 5 6 0 1 2.
  """
  lengths = lengths.astype(np.int64, copy=False)
  places = np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
  places += np.arange(len(places))
  return places


class WordCache(dict):
  """word -> the bytes of its int32 ids; what is not known yet is cut, at punctuation by BERT's rules, and asked of the
  library at last. `cut_at`: what every part of a word matches; None: words are whole."""

  def __init__(self, encode_word: Callable[[str], list[int]], capacity: int = CACHED_WORDS,
               cut_at: re.Pattern[str] | None = _CUT):
    self.encode_word, self.capacity, self.cut_at = encode_word, capacity, cut_at
    self.found, self.taken = {}, set()  # for and from other processes, once `exchange` was called

  def __missing__(self, word: str) -> bytes:
    if len(self) >= self.capacity:
      self.clear()
    if self.cut_at is None or word.isascii() or len(parts := self.cut_at.findall(word)) < 2:
      ids = self.encode_word(word)
      value = struct.pack(f'<{len(ids)}i', *ids)
    else:
      value = b''.join([self[part] for part in parts])
    if len(word) <= _CACHED_LENGTH:
      self[word] = value
      if self.taken:
        self.found[word] = value
    return value

  def exchange(self, directory: pathlib.Path) -> None:
    """Leaves in `directory` what this process has found since the last time, and takes what others have left: most
    words come again."""
    own = f'{uuid.uuid4()}.words'
    (directory / own).with_suffix('.tmp').write_bytes(marshal.dumps(self.found))
    (directory / own).with_suffix('.tmp').rename(directory / own)
    self.found = {}
    self.taken.add(own)
    for name in set(os.listdir(directory)) - self.taken:
      if name.endswith('.words') and len(self) < self.capacity:
        self.taken.add(name)
        self.update(marshal.loads((directory / name).read_bytes()))

"""The words of text and how often each is there: all that a WordPiece vocabulary is made of.

Counting is a pure stage (a chunk -> its words), and what is counted is added up in any order, by any engine:
  'the cat the'  'The dog!'   ->   the 3, cat 1, dog 1, ! 1   and of its characters   t 2, T 1 …
A word is what BERT's rules make of a text, lower-cased where that is asked for.
"""

import collections
import dataclasses
import functools
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from input_pipeline.text import sampling, sources
from input_pipeline.vocabulary import tokenizer, word_cache

_LINES = 1 << 12  # that are counted at once
_AT_ONCE = 1 << 12  # copies of a word in a text that is given to the trainer


@dataclasses.dataclass(frozen=True)
class Counted:
  words: collections.Counter
  characters: collections.Counter  # as they came


@dataclasses.dataclass(frozen=True)
class Wanted:
  """Which documents are counted, and how."""
  lower_case: bool
  seed: int = 0
  below: int | None = None  # of documents with keys below this; None: of all


def of_chunk(chunk: sources.Chunk, wanted: Wanted) -> Counted:
  """The words of what a chunk's weight takes. Raises DataError."""
  counted = nothing()
  lines: dict[int, list[str]] = {}  # by how often they are taken
  for one, often in sources.taken(sources.parse(chunk).documents, chunk.weight)[0]:
    if wanted.below is None or sampling.key(one, wanted.seed) < wanted.below:
      lines.setdefault(often, []).extend(one.text.split('\n'))
  for often, own in lines.items():
    add(counted, own, wanted.lower_case, often)
  return counted


def of_lines(lines: Iterable[str], lower_case: bool) -> Counted:
  counted, every = nothing(), iter(lines)
  while some := [*itertools.islice(every, _LINES)]:
    add(counted, some, lower_case)
  return counted


def add(counted: Counted, lines: Iterable[str], lower_case: bool, often: int = 1) -> None:
  texts, own = [*lines], _numbered(lower_case)
  own.forget()
  ids, _ = word_cache.encode(own.cache, lower_case, texts)
  numbers, counts = np.unique(ids, return_counts=True)
  for number, count in zip(numbers.tolist(), (counts * often).tolist()):
    counted.words[own.words[number]] += count
  codes = np.frombuffer('\n'.join(texts).encode('utf-8', 'replace').decode().encode('utf-32-le'), '<u4')
  counts = np.bincount(codes)
  for code in np.flatnonzero(counts).tolist():
    counted.characters[chr(code)] += int(counts[code]) * often


def together(many: Iterable[Counted]) -> Counted:
  total = nothing()
  for one in many:
    total.words.update(one.words)
    total.characters.update(one.characters)
  return total


def divided(counted: Counted, parts: int) -> list[Counted]:
  """Parts by a hash of each word and of each character, the same on any machine."""
  if parts == 1:
    return [counted]
  found = [nothing() for _ in range(parts)]
  for name in ('words', 'characters'):
    own = [getattr(part, name) for part in found]
    for text, count in getattr(counted, name).items():
      own[zlib.crc32(text.encode('utf-8', 'surrogatepass')) % parts][text] = count
  return found


def nothing() -> Counted:
  return Counted(collections.Counter(), collections.Counter())


class _Numbered:
  """Words with a number each, so that they are counted as ids are."""

  def __init__(self, lower_case: bool):
    self.library = tokenizer.wordpiece_library([tokenizer.UNK], lower_case)
    self.lower_case = lower_case
    self.words: list[str] = []
    self.numbers: dict[str, int] = {}
    self.cache = word_cache.WordCache(self._numbers_of)

  def _numbers_of(self, text: str) -> list[int]:
    return [self._number(word) for word in self._split(text)]

  def _split(self, text: str) -> list[str]:
    if text.isascii() and text.isalnum():
      return [text.lower() if self.lower_case else text]
    normalized = self.library.normalizer.normalize_str(text)
    return [word for word, _ in self.library.pre_tokenizer.pre_tokenize_str(normalized)]

  def _number(self, word: str) -> int:
    number = self.numbers.setdefault(word, len(self.words))
    if number == len(self.words):
      self.words.append(word)
    return number

  def forget(self) -> None:
    """Begins again, before all this fills the memory of a process."""
    if len(self.words) > word_cache.CACHED_WORDS:
      self.words.clear()
      self.numbers.clear()
      self.cache.clear()


@functools.lru_cache(maxsize=2)
def _numbered(lower_case: bool) -> _Numbered:
  return _Numbered(lower_case)  # once a process, so that its cache of words warms up


def repeated(words: Mapping[str, int]) -> Iterator[str]:
  """Texts in which each word stands as often as it was counted: the library's trainers take no counts."""
  for word, count in words.items():
    many = f'{word} ' * min(count, _AT_ONCE)
    for _ in range(count // _AT_ONCE):
      yield many
    if rest := count % _AT_ONCE:
      yield many[:rest * (len(word) + 1)]

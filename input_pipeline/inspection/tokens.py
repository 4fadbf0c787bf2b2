"""What the tokens are: the most frequent, those that never occur, their scripts, what is unknown, remains of markup.

Letters: V vocabulary.
"""

import collections
import dataclasses
import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from input_pipeline.batches.shards import Window
from input_pipeline.inspection import sample as sample_lib
from input_pipeline.inspection.findings import Remain, Tokens
from input_pipeline.inspection.sample import Parts

FREQUENT = 20  # tokens that are shown
EXAMPLES = 3  # of unknown tokens
AROUND = 8  # tokens on each side of an unknown one
CONTEXT = 40  # characters on each side of a remain of markup
# What prose rarely holds -> how it is found. A space may stand before a word, as in `& amp;`, where there was none.
REMAINS = {
    '{{': r'\{\{', '}}': r'\}\}', '[[': r'\[\[', ']]': r'\]\]', '-{': r'-\{', '|': r'\|', "'''": r"'''", '==': '==',
    '&amp;': r'& ?(?:amp|lt|gt|quot|apos|nbsp|[nm]dash|# ?[0-9]+|# ?x ?[0-9a-fA-F ]+);',
    '<ref>': r'< ?/? ?(?:ref|br|div|span|su[bp]|small|table|t[rdh]|nowiki|math|gallery|noinclude|blockquote)\b'}
_BYTE = re.compile('<0x[0-9A-F]{2}>')  # a token of SentencePiece for a byte of what its vocabulary lacks
_SCRIPTS = {'CJK': 'Han', 'IDEOGRAPHIC': 'Han', 'HENTAIGANA': 'Hiragana'}


Order = tuple[int, int]  # of a window: its split, its place in the sample


@dataclasses.dataclass(frozen=True)
class Counted:
  """What the tokens of some windows are."""
  counts: np.ndarray  # [V] int64
  remains: dict[str, tuple[int, Order, str]]  # by name: how many, and the first of them with what stands around it
  unknown: tuple[tuple[Order, int, str], ...]  # the first that differ, with what stands around them


def of_window(window: Window, order: Order, parts: Parts, unknown_id: int) -> Counted:
  text = sample_lib.text_of(window, parts)
  remains, unknown = {}, []
  for name, pattern in REMAINS.items():
    if matches := list(re.finditer(pattern, text)):
      remains[name] = len(matches), order, _around(text, *matches[0].span())
  places = np.flatnonzero(window.tokens == unknown_id)
  for number, place in enumerate(
      places[np.linspace(0, len(places) - 1, EXAMPLES).astype(int)] if len(places) else ()):
    unknown.append((order, number, _near(window, int(place), parts)))
  return Counted(np.bincount(window.tokens, minlength=len(parts.names)), remains, _first(unknown))


def _first(unknown: Iterable[tuple[Order, int, str]]) -> tuple[tuple[Order, int, str], ...]:
  """Of those that say the same the first, of these the first."""
  found: dict[str, tuple[Order, int, str]] = {}
  for one in sorted(unknown):
    found.setdefault(one[2], one)
  return tuple(found.values())[:EXAMPLES]


def together(many: Sequence[Counted]) -> Counted:
  remains: dict[str, tuple[int, Order, str]] = {}
  for one in many:
    for name, (count, order, context) in one.remains.items():
      before = remains.get(name, (0, order, context))
      remains[name] = (before[0] + count, *min(before[1:], (order, context)))
  return Counted(functools.reduce(np.add, (one.counts for one in many)), remains,
                 _first(example for one in many for example in one.unknown))


def describe(found: Counted, parts: Parts) -> Tokens:
  counts = found.counts
  total = max(int(counts.sum()), 1)
  ordinary = [place for place in np.argsort(-counts, kind='stable').tolist()
              if counts[place] and not parts.special[place]]
  lettered = (place for place in ordinary if any(map(sample_lib.is_letter, parts.names[place])))
  shares = lambda places: tuple(
      (parts.names[place], float(counts[place] / total)) for place in itertools.islice(places, FREQUENT))
  return Tokens(
      int(counts.sum()), shares(ordinary), shares(lettered), int(((counts == 0) & ~parts.special).sum()),
      scripts(counts, parts),
      {name: Remain(found.remains[name][0], found.remains[name][2]) for name in REMAINS if name in found.remains},
      tuple(context for *_, context in found.unknown))


def _around(text: str, start: int, end: int) -> str:
  """What stands around a place, within its line."""
  low = max(text.rfind('\n', 0, start) + 1, start - CONTEXT)
  line_end = text.find('\n', end)
  high = min(len(text) if line_end < 0 else line_end, end + CONTEXT)
  return sample_lib.readable(text[low:high])


def _near(window, place: int, parts: Parts) -> str:
  """What stands around a token, within its piece."""
  bounds = window.sentence_starts[window.piece_starts]
  piece = int(np.searchsorted(bounds, place, side='right'))
  low, high = max(int(bounds[piece - 1]), place - AROUND), min(int(bounds[piece]), place + AROUND + 1)
  return sample_lib.readable(sample_lib.join(window.tokens[low:high], parts))


def scripts(counts: np.ndarray, parts: Parts) -> dict[str, float]:  # [V] -> -
  """The share of each script among the letters, the most frequent first."""
  found: collections.Counter[str] = collections.Counter()
  for place in np.flatnonzero((counts > 0) & ~parts.special).tolist():
    if not _BYTE.fullmatch(parts.names[place]):
      for character in parts.texts[place]:
        if sample_lib.is_letter(character):
          found[script(character)] += int(counts[place])
  total = max(found.total(), 1)
  return {name: count / total for name, count in found.most_common()}


@functools.cache
def script(letter: str) -> str:
  """Unicode's names of letters begin with their script: LATIN SMALL LETTER A. (Python knows no scripts as such.)"""
  first = re.split('[ -]', unicodedata.name(unicodedata.normalize('NFKC', letter)[0], 'unnamed'))[0]
  return _SCRIPTS.get(first, first.capitalize())

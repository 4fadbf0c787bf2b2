"""What the tokens are: the most frequent, those that never occur, their scripts, what is unknown, remains of markup.

Letters: V vocabulary.
"""

import collections
import functools
import itertools
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from input_pipeline.inspection import sample as sample_lib
from input_pipeline.inspection.findings import Remain, Tokens
from input_pipeline.inspection.sample import Parts, Sample

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


def describe(samples: Sequence[Sample], parts: Parts, unknown_id: int) -> Tokens:
  counts = np.zeros(len(parts.names), np.int64)
  found: collections.Counter[str] = collections.Counter()
  contexts: dict[str, str] = {}
  unknown: dict[str, None] = {}
  for window in (window for one in samples for window in one.windows):
    counts += np.bincount(window.tokens, minlength=len(counts))
    text = sample_lib.text_of(window, parts)
    for name, pattern in REMAINS.items():
      matches = list(re.finditer(pattern, text))
      found[name] += len(matches)
      if matches and name not in contexts:
        contexts[name] = _around(text, *matches[0].span())
    places = np.flatnonzero(window.tokens == unknown_id)
    for place in places[np.linspace(0, len(places) - 1, EXAMPLES).astype(int)] if len(places) else ():
      unknown[_near(window, int(place), parts)] = None
  total = max(int(counts.sum()), 1)
  ordinary = [place for place in np.argsort(-counts, kind='stable').tolist()
              if counts[place] and not parts.special[place]]
  lettered = (place for place in ordinary if any(map(sample_lib.is_letter, parts.names[place])))
  shares = lambda places: tuple(
      (parts.names[place], float(counts[place] / total)) for place in itertools.islice(places, FREQUENT))
  return Tokens(
      int(counts.sum()), shares(ordinary), shares(lettered), int(((counts == 0) & ~parts.special).sum()),
      scripts(counts, parts), {name: Remain(found[name], contexts[name]) for name in REMAINS if found[name]},
      tuple(unknown)[:EXAMPLES])


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

"""Text → sentences, through sentencex (about 300 languages), paragraph by paragraph."""

import itertools
import re

from input_pipeline import records

# sentencex 1.0.32 panics where one of these stands between an initial and its full stop; to a vocabulary they are all
# one space.
_WIDE_SPACES = re.compile('[\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]')
_LONG = 30_000  # characters of a line: sentencex, whose time grows with their square, is given longer ones in windows
_WINDOW = 10_000
_MARGIN = 200  # at the end of a window, where a sentence may only seem to end


def split(text: str, language: str = 'en') -> list[str]:
  """The sentences of a text in order, without white space around them; a line end always ends a sentence."""
  stripped = [sentence.strip() for line in text.split('\n') if line for sentence in _segment(line, language)]
  return [sentence for sentence in stripped if sentence]


def whole(line: str, language: str) -> list[str]:
  """The sentences of a line with the white space after them: joined, they are the line."""
  lengths = [len(sentence) for sentence in _segment(line, language)] if line else []
  if sum(lengths) != len(line):
    return [line]
  ends = list(itertools.accumulate(lengths))
  return [line[end - length:end] for end, length in zip(ends, lengths)]


def lines(text: str, language: str = 'en') -> list[str]:
  """The lines of a text, each of which is a sentence."""
  return [stripped for line in text.split('\n') if (stripped := line.strip())]


def _segment(line: str, language: str) -> list[str]:
  """The sentences of a line, of a long one window by window: each window begins where a sentence does."""
  if not line.isascii():
    line = _WIDE_SPACES.sub(' ', line)
  found, start, at = [], 0, 0  # of the sentence that is being read, and of the window
  while len(line) > _LONG and len(line) - at > _WINDOW:
    bounds = list(itertools.accumulate(map(len, _segment_window(line[at:at + _WINDOW], language)), initial=at))
    whole = [end for end in bounds[1:-1] if end <= at + _WINDOW - _MARGIN]
    found += [line[begin:end] for begin, end in itertools.pairwise([start, *whole])]
    start = whole[-1] if whole else start
    at = start if whole else at + _WINDOW
  rest = _segment_window(line[at:], language)
  return [*found, line[start:at] + rest[0], *rest[1:]]


def _segment_window(line: str, language: str) -> list[str]:
  import sentencex
  try:
    return sentencex.segment(language, line)
  except BaseException as error:
    if type(error).__name__ != 'PanicException':  # of Rust, and no Exception: it would take the process with it
      raise
    return [line]


def check_language(language: str) -> str:
  """A language code such as en, zh or pt-br; sentencex falls back to a related language, last to English.

  Raises DataError.
  """
  if not language.replace('-', '').isalpha() or not language.isascii() or not 2 <= len(language.split('-')[0]) <= 3:
    raise records.DataError(f'--language {language!r} is not a language code: wanted one such as en, zh or ltg')
  return language

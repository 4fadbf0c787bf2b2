"""Text → sentences, through sentencex (about 300 languages), paragraph by paragraph."""

import re

from input_pipeline import records

# sentencex 1.0.32 panics where one of these stands between an initial and its full stop; to a vocabulary they are all
# one space.
_WIDE_SPACES = re.compile('[\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]')


def split(text: str, language: str = 'en') -> list[str]:
  """The sentences of a text in order, without white space around them; a line end always ends a sentence."""
  stripped = [sentence.strip() for line in text.split('\n') if line for sentence in _segment(line, language)]
  return [sentence for sentence in stripped if sentence]


def lines(text: str, language: str = 'en') -> list[str]:
  """The lines of a text, each of which is a sentence."""
  return [stripped for line in text.split('\n') if (stripped := line.strip())]


def _segment(line: str, language: str) -> list[str]:
  import sentencex
  if not line.isascii():
    line = _WIDE_SPACES.sub(' ', line)
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

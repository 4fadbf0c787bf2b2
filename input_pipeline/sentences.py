"""Text → sentences, through sentencex (about 300 languages), paragraph by paragraph."""

from input_pipeline import records


def split(text: str, language: str = 'en') -> list[str]:
  """The sentences of a text in order, without white space around them; a line end always ends a sentence."""
  import sentencex
  stripped = [sentence.strip() for line in text.split('\n') if line for sentence in sentencex.segment(language, line)]
  return [sentence for sentence in stripped if sentence]


def check_language(language: str) -> str:
  """A language code such as en, zh or pt-br; sentencex falls back to a related language, last to English. Raises DataError."""
  if not language.replace('-', '').isalpha() or not language.isascii() or not 2 <= len(language.split('-')[0]) <= 3:
    raise records.DataError(f'--language {language!r} is not a language code: wanted one such as en, zh or ltg')
  return language

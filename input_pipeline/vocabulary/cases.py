"""What a language loses where its text is lower-cased and its accents are dropped, as BERT-uncased does; and whether a
vocabulary lower-cases where nobody says so."""

import collections
import unicodedata
from collections.abc import Iterable, Mapping

MARKS = 'vowel signs and other marks, which make words, are dropped'
ARABIC, CYRILLIC = 'vowels and hamzas of the Arabic script are dropped', 'й becomes и, and ё е'
KANA, HANGUL = 'が becomes か, and ぱ は', 'Korean syllables fall apart into their letters'
LANGUAGES = {
    'de': 'German nouns are no longer told from other words, and ä, ö, ü from a, o, u',
    'tr': 'Turkish ı and i become one', 'az': 'Azerbaijani ı and i become one', 'vi': 'Vietnamese tones are dropped',
    'fi': 'Finnish ä and ö become a and o', 'sv': 'Swedish å, ä and ö become a and o',
    'ja': KANA, 'ko': HANGUL, 'ar': ARABIC, 'fa': ARABIC, 'ur': ARABIC, 'he': 'Hebrew vowels are dropped',
    'ru': CYRILLIC, 'uk': CYRILLIC,
    **dict.fromkeys(('hi', 'bn', 'ta', 'te', 'mr', 'gu', 'kn', 'ml', 'pa', 'ne', 'si', 'th', 'km', 'my'), MARKS)}
# Of those, what is lost where only the case is, and no accent, as by SentencePiece's rules.
BY_CASE = {'de': 'German nouns are no longer told from other words', 'tr': LANGUAGES['tr'], 'az': LANGUAGES['az']}
TELLING = {'ß': 'de', 'ı': 'tr'}  # letters that are of one language
# (first and last sign, what is lost), of scripts that tell so by themselves.
SCRIPTS = (
    (0x0400, 0x04FF, CYRILLIC), (0x0590, 0x05FF, 'Hebrew vowels are dropped'), (0x0600, 0x06FF, ARABIC),
    (0x0900, 0x0E7F, MARKS), (0x1000, 0x109F, MARKS), (0x1100, 0x11FF, HANGUL), (0x1780, 0x17FF, MARKS),
    (0x3040, 0x30FF, KANA), (0xAC00, 0xD7A3, HANGUL))
SHARE = 0.2  # of the letters of a vocabulary, by which a script is its own
TOLD_SHARE = 1e-4  # of the letters of a text that are of one language: ß is 0.3 % of German's
MARKED_SHARE = 0.005  # of them that lose a mark: German 1.7 %, French 3 %, English articles with foreign names 0.1 %
SHOWN = 3  # of these letters


def warning(lower_case: bool, tokens: Iterable[str] = (), language: str = '', accents: bool = True) -> str | None:
  """A sentence where a vocabulary lower-cases what loses by it, by its language or else its letters; or None.

  `accents`: whether they are dropped too.
  """
  found = lost(collections.Counter(letter for token in tokens for letter in token), language, accents)
  return f'the text is lower-cased, by which {found}: a vocabulary made with --no-lower-case keeps them apart' if (
      lower_case and found) else None


def chosen(letters: Mapping[str, int], language: str, accents: bool) -> tuple[bool, str | None]:
  """(whether a vocabulary lower-cases where nobody said, a sentence where that is not the usual), by a sample of the
  text, {letter: how often}, and its language, if that is known."""
  found = lost(letters, language, accents)
  return not found, found and (f'the vocabulary is cased, for what lower-casing would take: {found}; --lower-case '
                               'lower-cases all the same')


def lost(letters: Mapping[str, int], language: str, accents: bool) -> str | None:
  """What lower-casing takes from a language, or else from these letters; None: nothing that is known."""
  code = language.replace('_', '-').split('-')[0].lower()
  if not code:
    least = TOLD_SHARE * count(letters)
    code = next((known for letter, known in TELLING.items() if letters.get(letter, 0) > least), '')
  if not accents:
    return BY_CASE.get(code)
  return LANGUAGES.get(code) or of_scripts(letters) or of_marks(letters)


def count(letters: Mapping[str, int]) -> int:
  return sum(number for letter, number in letters.items() if letter.isalpha())


def of_scripts(letters: Mapping[str, int]) -> str | None:
  """What the script loses that most of these letters are of; None: nothing, or it is another."""
  found = dict.fromkeys((lost for *_, lost in SCRIPTS), 0)
  for letter, number in letters.items():
    for first, last, lost in SCRIPTS:
      if letter.isalpha() and first <= ord(letter) <= last:
        found[lost] += number
  most = max(found, key=lambda lost: found[lost])
  return most if found[most] > SHARE * count(letters) else None


def of_marks(letters: Mapping[str, int]) -> str | None:
  """What letters lose that are written with marks, where they are not only some of foreign names."""
  marked = collections.Counter[str]()
  for letter, number in letters.items():
    if letter.isalpha() and without_marks(letter) != letter:
      marked[letter.lower()] += number
  if sum(marked.values()) <= MARKED_SHARE * count(letters):
    return None
  shown = sorted(marked, key=lambda letter: (-marked[letter], letter))[:SHOWN]
  return f'{", ".join(shown)} become {", ".join(map(without_marks, shown))}'


def without_marks(letter: str) -> str:
  return ''.join(part for part in unicodedata.normalize('NFD', letter) if unicodedata.category(part) != 'Mn')

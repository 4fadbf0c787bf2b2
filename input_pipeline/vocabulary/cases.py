"""What a language loses where its text is lower-cased and its accents are dropped, as BERT-uncased does."""

from collections.abc import Iterable

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
# (first and last sign, what is lost), of scripts that tell so by themselves.
SCRIPTS = (
    (0x0400, 0x04FF, CYRILLIC), (0x0590, 0x05FF, 'Hebrew vowels are dropped'), (0x0600, 0x06FF, ARABIC),
    (0x0900, 0x0E7F, MARKS), (0x1000, 0x109F, MARKS), (0x1100, 0x11FF, HANGUL), (0x1780, 0x17FF, MARKS),
    (0x3040, 0x30FF, KANA), (0xAC00, 0xD7A3, HANGUL))
SHARE = 0.2  # of the letters of a vocabulary, by which a script is its own


def warning(lower_case: bool, tokens: Iterable[str] = (), language: str = '') -> str | None:
  """A sentence where a vocabulary lower-cases what loses by it, by its language or else its letters; or None."""
  if not lower_case:
    return None
  lost = LANGUAGES.get(language.replace('_', '-').split('-')[0].lower()) or of_letters(tokens)
  return lost and f'the text is lower-cased, by which {lost}: a vocabulary made with --no-lower-case keeps them apart'


def of_letters(tokens: Iterable[str]) -> str | None:
  """What the script loses that most of these tokens' letters are of; None: nothing, or it is another."""
  letters, found = 0, dict.fromkeys((lost for *_, lost in SCRIPTS), 0)
  for letter in (letter for token in tokens for letter in token if letter.isalpha()):
    letters += 1
    for first, last, lost in SCRIPTS:
      if first <= ord(letter) <= last:
        found[lost] += 1
  most = max(found, key=lambda lost: found[lost])
  return most if found[most] > SHARE * letters else None

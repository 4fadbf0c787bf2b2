"""The original's rules of splitting text (google-research/bert tokenization.py BasicTokenizer), for its 2018 mode.

The `tokenizers` library departs from them in a few characters: docs/fidelity.md lists them.
"""

import re
import unicodedata

# _is_chinese_char: every ideograph is a word, of whatever language.
_CHINESE = re.compile('[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f'
                      '\U0002b820-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f]')
_KEPT_CONTROLS = '\t\n\r'  # white space, although Unicode says Cc
_DROPPED = '\0\ufffd'
_SIGMA = 'Σ'


def words(text: str, lower_case: bool) -> list[str]:
  """What WordPiece is then asked for: BasicTokenizer.tokenize."""
  spaced = _CHINESE.sub(r' \g<0> ', clean(text))
  return [part for word in spaced.split() for part in _at_punctuation(_without_case(word) if lower_case else word)]


def settle_case(text: str) -> str:
  """The text with lower case where that depends on neighbours: Python's Σ is ς at the end of a word, else σ."""
  return ' '.join(word.lower() for word in _CHINESE.sub(r' \g<0> ', clean(text)).split()) if _SIGMA in text else text


def clean(text: str) -> str:
  """_clean_text: without what is no text; white space is a space."""
  return ''.join(' ' if _is_space(c) else c for c in text if not _is_dropped(c))


def _is_space(character: str) -> bool:
  return character in _KEPT_CONTROLS or unicodedata.category(character) == 'Zs'


def _is_dropped(character: str) -> bool:
  return character in _DROPPED or (character not in _KEPT_CONTROLS and unicodedata.category(character) in ('Cc', 'Cf'))


def _without_case(word: str) -> str:
  """Lower case, then without accents (_run_strip_accents)."""
  return ''.join(c for c in unicodedata.normalize('NFD', word.lower()) if unicodedata.category(c) != 'Mn')


def _at_punctuation(word: str) -> list[str]:
  """_run_split_on_punc: each punctuation character is a word."""
  parts = ['']
  for character in word:
    parts += [character, ''] if _is_punctuation(character) else [parts.pop() + character]
  return [part for part in parts if part]


def _is_punctuation(character: str) -> bool:
  """All of ASCII that is neither letter, digit nor space counts, such as ^ and $, which Unicode calls symbols."""
  return ('!' <= character <= '~' and not character.isalnum()) or unicodedata.category(character).startswith('P')

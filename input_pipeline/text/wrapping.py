"""Lines that a margin ended, as in books of plain text and in what is taken out of PDFs: told, and joined again.

A document counts as wrapped where nearly all lines that end inside a sentence are full, so that the next word would
have passed the margin, and go on in the next line without a capital. One line of doubt is enough to leave it alone: a
paragraph or a sentence a line reads the same before and after.
"""

import re

WIDTHS = 20, 120  # characters of the longest lines of wrapped text
LEAST_OPEN = 0.5  # of the lines that another follows, those that end inside a sentence
LEAST_FULL = 0.9  # of these, those that are full
LEAST_SMALL = 0.4  # of the lines after these, where they begin with a cased letter, those without a capital
LEAST_LINES = 5  # where no letter has a case
_FULL = 0.85  # of the longest lines' length: letters of PDFs are not all equally wide
_LONGEST = 0.95  # the share of lines that is not longer than the margin: some lines hang over
_END = re.compile(r'[.!?…:;。！？；：।॥؟۔։።]["\'”’»)\]』」〉》）]*$')
_WIDE = re.compile('[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef]')  # lines end inside words too
_UNSPACED = re.compile('[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]')
_ITEM = re.compile(r'[-*•–] ')
_WORD = re.compile(r'[\w-]+')
_SOFT = '\xad'
_HYPHENS = '-\u2010'


def unwrapped(text: str, lines: str) -> str:
  """The text with a paragraph or a sentence a line, by the setting `lines`."""
  if lines == 'wrapped' or lines == 'auto' and is_wrapped(text):
    return _joined(text)
  return text


def is_wrapped(text: str) -> bool:
  breaks = text.count('\n', 0, -1)
  if not breaks or len(text) > WIDTHS[1] * (breaks + 1):  # most documents, at a glance
    return False
  lines = [line.rstrip() for line in text.split('\n')]
  margin = _margin(lines)
  if not WIDTHS[0] <= margin <= WIDTHS[1]:
    return False
  followed = [(line, after) for line, after in zip(lines, lines[1:]) if line and after]
  open_ = [(line, after) for line, after in followed if not _END.search(line)]
  if not open_ or len(open_) < LEAST_OPEN * len(followed) or not _END.search(next(filter(None, reversed(lines)))):
    return False
  if sum(_is_full(line, after, margin) for line, after in open_) < LEAST_FULL * len(open_):
    return False
  starts = [start for _, after in open_ if (start := after.lstrip()[0]).isalpha()]
  cased = [start for start in starts if start.islower() or start.isupper()]
  if 2 * len(cased) < len(open_):
    return len(open_) >= LEAST_LINES and 2 * len(starts) >= len(open_) and not cased
  return sum(start.islower() for start in cased) >= LEAST_SMALL * len(cased)


def _margin(lines: list[str]) -> int:
  lengths = sorted(len(line) for line in lines if line) or [0]
  return lengths[min(len(lengths) - 1, int(_LONGEST * len(lengths)))]


def _is_full(line: str, after: str, margin: int) -> bool:
  """Whether the next line's first word would have passed the margin."""
  after = after.lstrip()
  word = 1 if _WIDE.match(after) else 1 + len(after.split(maxsplit=1)[0])
  return len(line) + word >= _FULL * margin


def _joined(text: str) -> str:
  """A paragraph a line: a blank line, an indent, an item of a list, or a line that had room for more ends one."""
  lines = text.split('\n')
  margin = _margin([line.rstrip() for line in lines])
  paragraphs: list[list[str]] = []
  before, words = '', None
  for line in lines:
    stripped = line.strip()
    if stripped:
      indented = _indent(line) >= _indent(before) + 2 and _END.search(before)  # else it hangs below an item of a list
      if not before or indented or _ITEM.match(stripped) or not _is_full(before, stripped, margin):
        paragraphs.append([stripped])
      else:
        parts = paragraphs[-1]
        last = parts[-1]
        if last[-1] in _HYPHENS and stripped[0].islower() and last[-2:-1].isalpha():
          words = set(_WORD.findall(text.lower())) if words is None else words
          parts[-1] = _unbroken(last, stripped, words)
        elif last.endswith(_SOFT):
          parts[-1] = last[:-1]
        elif not (_UNSPACED.match(last[-1]) and _UNSPACED.match(stripped)):
          parts.append(' ')
        parts.append(stripped)
    before = line.rstrip()
  return '\n'.join(map(''.join, paragraphs))


def _indent(line: str) -> int:
  return len(line) - len(line.lstrip())


def _unbroken(start: str, end: str, words: set[str]) -> str:
  """The start of a word that a hyphen broke: without the hyphen, unless the document has the word only with it."""
  left, right = re.search(r'\w*$', start[:-1])[0].lower(), re.match(r'\w*', end)[0].lower()
  return start if f'{left}-{right}' in words and left + right not in words else start[:-1]

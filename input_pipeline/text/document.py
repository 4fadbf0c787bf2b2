"""A document, and how a format makes one."""

import dataclasses
import hashlib
import re

READ = 1 << 20  # bytes that a format reads at once
BOM = b'\xef\xbb\xbf'
# What no text can hold: halves of a character, NUL, and code points that are set aside for programs.
_INVALID = re.compile('[\x00\ud800-\udfff\ufdd0-\ufdef' + ''.join(
    f'{chr(plane << 16 | 0xfffe)}{chr(plane << 16 | 0xffff)}' for plane in range(17)) + ']')
_PAIR = re.compile('[\ud800-\udbff][\udc00-\udfff]')
_REPLACEMENT = '\ufffd'
Raw = tuple[int, bytes, tuple]  # (byte offset in the decompressed file, bytes of one document, context)


@dataclasses.dataclass(frozen=True)
class Options:
  """How text is read, where there is a choice."""
  keep_end_sections: bool = False
  """Of a wiki's article, keep the sections at its end too: See also, References, External links …"""


@dataclasses.dataclass(frozen=True)
class Document:
  id: str
  title: str
  text: str  # a sentence or a paragraph a line; as it came, not normalised


def make(id_: object, title: str, text: str) -> Document | str:
  """WikiExtractor, and what follows it, repeats the title as the first line: it is no prose."""
  text, title = valid(text).strip(), valid(title)
  first, _, rest = text.partition('\n')
  if title and first.strip() == title.strip():
    text = rest.strip()
  if not text:
    return 'empty'
  return Document(content_id(text) if id_ in (None, '') else valid(str(id_)), title, text)


def valid(text: str) -> str:
  """Text that can be written as UTF-8: two halves of a character are joined, and what is none is replaced."""
  if text.isascii() and '\x00' not in text or not _INVALID.search(text):
    return text
  return _INVALID.sub(_REPLACEMENT, _PAIR.sub(lambda pair: _joined(pair[0]), text))


def _joined(pair: str) -> str:
  return pair.encode('utf-16', 'surrogatepass').decode('utf-16')


def content_id(text: str) -> str:
  """The id of a document that brings none: it does not change when other documents are added or files renamed."""
  return hashlib.sha256(text.encode()).hexdigest()[:16]

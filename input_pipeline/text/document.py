"""A document, and how a format makes one."""

import dataclasses
import hashlib
import io
import re
from collections.abc import Iterator
from typing import Literal

READ = 1 << 20  # bytes that a format reads at once
LONGEST_RECORD = 32 << 20  # bytes of a line, a row or an element that is read at all
LONGEST_TEXT = 8 << 20  # of a document, bytes of plain text, characters of any other; it is cut at a line end
BOM = b'\xef\xbb\xbf'
# What no text can hold: halves of a character, NUL, and code points that are set aside for programs.
_INVALID = re.compile('[\x00\ud800-\udfff\ufdd0-\ufdef' + ''.join(
    f'{chr(plane << 16 | 0xfffe)}{chr(plane << 16 | 0xffff)}' for plane in range(17)) + ']')
_PAIR = re.compile('[\ud800-\udbff][\udc00-\udfff]')
_REPLACEMENT = '\ufffd'
# (byte offset in the decompressed file, bytes of one document or None of one that is too long, context)
Raw = tuple[int, bytes | None, tuple]
CUT = 'cut',  # the context of a document that goes on in the next


@dataclasses.dataclass(frozen=True)
class Options:
  """How text is read, where there is a choice."""
  keep_end_sections: bool = False
  """Of a wiki's article, keep the sections at its end too: See also, References, External links …"""
  documents: Literal['blank', 'line', 'file'] = 'blank'
  """What ends a document of plain text: a blank line, each line, or only the end of the file."""
  lines: Literal['auto', 'sentences', 'paragraphs', 'wrapped'] = 'auto'
  """What a line of text is: a sentence, a paragraph, or a part of one that a margin ended (wrapped: lines are joined);
  auto: a paragraph, or wrapped where a document looks so."""
  text_field: str = 'text'
  """The field or column that is trained on, of JSON and of tables; a.b is b inside a."""
  id_field: str | None = None
  """The one that is a document's id; None: id, where there is one."""
  title_field: str | None = None
  """The one that is its title; None: title, where there is one."""
  transform: str | None = None
  """A step of your own, as package.module:function: it gets each document, and gives the one to take, several or
  none."""


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
  if not _may_be_invalid(text):
    return text
  return _INVALID.sub(_REPLACEMENT, _PAIR.sub(lambda pair: _joined(pair[0]), text))


def _may_be_invalid(text: str) -> bool:
  """A look at the bytes, fifty times as fast as _INVALID: all that it finds has one of these in it, or is no UTF-8."""
  if text.isascii():
    return '\x00' in text
  try:
    data = text.encode()
  except UnicodeEncodeError:
    return True
  return b'\x00' in data or b'\xbf\xbe' in data or b'\xbf\xbf' in data or b'\xef\xb7' in data


def _joined(pair: str) -> str:
  return pair.encode('utf-16', 'surrogatepass').decode('utf-16')


def content_id(text: str) -> str:
  """The id of a document that brings none: it does not change when other documents are added or files renamed."""
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest(one: Document, seed: int, copy: int = 0, person: bytes = b'') -> bytes:
  """64 bits of its id and its text; others for each seed, copy and purpose."""
  return hashlib.blake2b(
      b''.join(hashlib.blake2b(field.encode('utf-8', 'surrogatepass')).digest() for field in (one.id, one.text)),
      digest_size=8, key=seed.to_bytes(8, 'little', signed=True), salt=copy.to_bytes(4, 'little'),
      person=person).digest()


def bounded_lines(stream: io.BufferedReader, offset: int = 0) -> Iterator[tuple[int, bytes | None]]:
  """(offset, line) of every line; None for one that is longer than LONGEST_RECORD, which is passed over in parts.

  `offset`: of what comes first.
  """
  while line := stream.readline(LONGEST_RECORD + 1):
    start, offset = offset, offset + len(line)
    if len(line) <= LONGEST_RECORD:
      yield start, line.removeprefix(BOM) if start == 0 else line
      continue
    while not line.endswith(b'\n') and (line := stream.readline(READ)):
      offset += len(line)
    yield start, None


def pass_line(stream: io.BufferedReader) -> int:
  """Reads what is left of a line; how many bytes that was."""
  size = 0
  while line := stream.readline(READ):
    size += len(line)
    if line.endswith(b'\n'):
      break
  return size


def cut(whole: Document) -> list[Document]:
  """A document in parts of at most LONGEST_TEXT characters, which end at line ends where they can."""
  text, at, parts = whole.text, 0, []
  while len(text) - at > LONGEST_TEXT:
    ends = (text.rfind(separator, at, at + LONGEST_TEXT) + 1 for separator in '\n ')
    end = next((end for end in ends if end > at + LONGEST_TEXT // 2), at + LONGEST_TEXT)
    parts.append(text[at:end])
    at = end
  if not parts:
    return [whole]
  parts = [stripped for part in (*parts, text[at:]) if (stripped := part.strip())]
  return [Document(f'{whole.id}#{number}' if number else whole.id, whole.title, part)
          for number, part in enumerate(parts)]

"""Plain text: documents that a blank line, a line end or the end of the file ends."""

import collections
import io
import re
from collections.abc import Iterator

from input_pipeline.text import document, wrapping
from input_pipeline.text.document import Options

# Other spaces than ASCII's, and what has no width; the mark of byte order is one of these.
_BLANK = re.compile(b'(?:' + b'|'.join(re.escape(chr(code).encode()) for code in (
    0x85, 0xa0, 0xad, 0x1680, 0x180e, *range(0x2000, 0x2010), *range(0x2028, 0x2030), 0x205f, *range(0x2060, 0x2065),
    0x3000, 0xfeff)) + rb'|\s)*\Z')


def split(stream: io.BufferedReader, name: str, options: Options) -> Iterator[document.Raw]:
  """A document longer than LONGEST_TEXT is cut: at a line end, or in a line without one at a space."""
  parts: list[bytes] = []
  size = start = 0
  each, at_blanks, is_blank = options.documents == 'line', options.documents == 'blank', _BLANK.match
  for offset, line in _pieces(stream):
    blank = is_blank(line)
    if size + len(line) > document.LONGEST_TEXT:
      yield start, b''.join(parts), document.CUT
      parts, size = [], 0
    if not blank or parts and not at_blanks:
      start = start if parts else offset
      parts.append(line)
      size += len(line)
    if parts and (each or at_blanks and blank):
      yield start, b''.join(parts), ()
      parts, size = [], 0
  if parts:
    yield start, b''.join(parts), ()


def _pieces(stream: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
  """(offset, line) of every line; one that is longer than LONGEST_TEXT comes in parts."""
  offset, rest = 0, b''
  while line := rest + stream.readline(document.LONGEST_TEXT - len(rest)):
    rest = b''
    if len(line) == document.LONGEST_TEXT and not line.endswith(b'\n'):
      line, rest = _parted(line)
    yield offset, line if offset else line.removeprefix(document.BOM)
    offset += len(line)


def _parted(line: bytes) -> tuple[bytes, bytes]:
  """A line in two, after its last space, or else before its last character."""
  at = line.rfind(b' ') + 1
  if at <= len(line) // 2:
    at = len(line) - 1
    while at > len(line) - 4 and line[at] & 0xc0 == 0x80:
      at -= 1
  return line[:at], line[at:]


def parse(text: str, context: tuple, place: str, counts: collections.Counter,
          options: Options) -> document.Document | str:
  return document.make(None, '', wrapping.unwrapped(text, options.lines))

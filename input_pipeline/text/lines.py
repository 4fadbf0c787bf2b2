"""Plain text: documents that a blank line, a line end or the end of the file ends."""

import collections
import io
import math
import re
from collections.abc import Callable, Iterator

from input_pipeline.text import document, wrapping
from input_pipeline.text.compression import Section
from input_pipeline.text.document import Options

# Other spaces than ASCII's, and what has no width; the mark of byte order is one of these.
_BLANK = re.compile(b'(?:' + b'|'.join(re.escape(chr(code).encode()) for code in (
    0x85, 0xa0, 0xad, 0x1680, 0x180e, *range(0x2000, 0x2010), *range(0x2028, 0x2030), 0x205f, *range(0x2060, 0x2065),
    0x3000, 0xfeff)) + rb'|\s)*\Z')


def split(stream: io.BufferedReader, name: str, options: Options) -> Iterator[document.Raw]:
  """A document longer than LONGEST_TEXT is cut: at a line end, or in a line without one at a space."""
  yield from _documents(_pieces(stream, 0), options, True, lambda: math.inf)


def split_section(section: Section, name: str, options: Options) -> Iterator[document.Raw]:
  """Of a part of a file, the documents whose line begins in it, or where the last blank line before them does."""
  first = section.start == 0
  at = 0 if first else document.pass_line(section.stream)
  for offset, data, context in _documents(_pieces(section.stream, at), options, first, section.reached):
    yield section.offset + offset, data, context


def _documents(pieces: Iterator[tuple[int, int, bytes]], options: Options, first: bool,
               reached: Callable[[], float]) -> Iterator[document.Raw]:
  """`first`: whether the first line begins a document, whatever is before it; those that belong to what begins at
  `reached` are left out.

  A section has the lines that begin after its own beginning, up to the next one's: so which they are is known without
  what stands before it.
  """
  parts: list[bytes] = []
  size = start = 0
  each, at_blanks, is_blank = options.documents == 'line', options.documents == 'blank', _BLANK.match
  waiting = at_blanks and not first  # for the first blank line
  for begin, offset, line in pieces:
    blank = is_blank(line)
    beyond = begin > reached()
    if waiting and not beyond:
      waiting = not blank
      continue
    if size + len(line) > document.LONGEST_TEXT:
      yield start, b''.join(parts), document.CUT
      parts, size = [], 0
    if beyond and (each or blank or waiting):
      break
    if not blank or parts and not at_blanks:
      start = start if parts else offset
      parts.append(line)
      size += len(line)
    if parts and (each or at_blanks and blank):
      yield start, b''.join(parts), ()
      parts, size = [], 0
  if parts:
    yield start, b''.join(parts), ()


def _pieces(stream: io.BufferedReader, offset: int) -> Iterator[tuple[int, int, bytes]]:
  """(offset of the line, offset, line) of every line; one that is longer than LONGEST_TEXT comes in parts."""
  begin, rest = offset, b''
  while line := rest + stream.readline(document.LONGEST_TEXT - len(rest)):
    rest = b''
    if len(line) == document.LONGEST_TEXT and not line.endswith(b'\n'):
      line, rest = _parted(line)
    yield begin, offset, line if offset else line.removeprefix(document.BOM)
    offset += len(line)
    begin = offset if line.endswith(b'\n') else begin


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

"""WikiExtractor's output: <doc id="…" url="…" title="…"> … </doc>."""

import collections
import html
import math
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from input_pipeline import records
from input_pipeline.text import document
from input_pipeline.text.compression import Section

_DOC = re.compile(r'<doc\b([^>\n]*|[^\n]*")>[ \t\r]*(?:\n|$)')
# WikiExtractor does not escape quotes inside a title.
_ATTRIBUTE = re.compile(r'(\w+)=(["\'])(.*?)\2(?=\s+\w+=["\']|\s*$)')
_END = re.compile(rb'</doc>[ \t\r]*\n')  # only at the end of a line: a text can speak of </doc>
_TAIL = 64  # bytes that hold an end and the white space after it
_ENTITY = re.compile(r'&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,30});')


def recognize(start: bytes, name: str) -> bool:
  return start.startswith(b'<doc ')


def split(stream: BinaryIO, name: str, options: document.Options) -> Iterator[document.Raw]:
  yield from _documents(stream, name, True, lambda: math.inf)


def split_section(section: Section, name: str, options: document.Options) -> Iterator[document.Raw]:
  """Of a part of a file, the documents before which the last </doc> begins in it."""
  for offset, data, context in _documents(section.stream, name, section.start == 0, section.reached):
    yield section.offset + offset, data, context


def _documents(stream: BinaryIO, name: str, first: bool, reached: Callable[[], float]) -> Iterator[document.Raw]:
  """`first`: whether a document begins the stream; else what comes before the first end is left out, as are the
  documents after an end that begins at `reached` or later."""
  buffer, offset, searched, passed = b'', 0, 0, 0  # passed: bytes of a document that is too long
  whole = first  # whether the document is ours
  while block := stream.read(document.READ):
    buffer += block
    at = 0
    while end := _END.search(buffer, max(at, searched)):
      if whole:
        too_long = passed or end.end() - at > document.LONGEST_RECORD
        yield offset + at - passed, None if too_long else buffer[at:end.end()], ()
      if offset + end.start() >= reached():
        return
      at, searched, passed, whole = end.end(), 0, 0, True
    offset += at
    buffer = buffer[at:]
    line = buffer.rfind(b'\n')
    if not whole and line >= 0 and offset + line >= reached():
      return
    if len(buffer) > document.LONGEST_RECORD or not whole:
      cut = max(len(buffer) - _TAIL if len(buffer) > document.LONGEST_RECORD else line - _TAIL, 0)
      offset, passed, buffer = offset + cut, passed + cut, buffer[cut:]
    searched = max(buffer.rfind(b'\n') - _TAIL, 0)
  if not whole:
    return
  if buffer.rstrip().endswith(b'</doc>'):
    yield offset - passed, None if passed else buffer, ()
  # after the last document comes no text, such as a list of files
  elif b'<doc ' in buffer or (first and not offset and buffer.strip()):
    raise records.DataError(f'{name} is truncated: what starts at byte {offset} has no </doc>; wanted <doc …> … </doc>')


def parse(text: str, context: tuple, place: str, counts: collections.Counter,
          options: document.Options) -> document.Document | str:
  opening = _DOC.search(text)
  if not opening:
    raise records.DataError(
        f'{place}: wanted <doc id="…" url="…" title="…"> before </doc>, found {text.strip()[:60]!r}')
  fields = {name: value for name, _, value in _ATTRIBUTE.findall(opening[1].strip())}
  content = text[opening.end():].rstrip().removesuffix('</doc>')
  return document.make(fields.get('id'), unescaped(fields.get('title', '')), unescaped(content))


def is_json(fields: dict) -> bool:
  """Whether fields are those that `WikiExtractor --json` writes."""
  return fields.keys() - {'revid'} == {'id', 'url', 'title', 'text'} and '?curid=' in str(fields['url'])


def unescaped(text: str) -> str:
  """WikiExtractor escapes what it writes; `&copy` without a semicolon is prose."""
  return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text) if '&' in text else text

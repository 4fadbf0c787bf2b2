"""WikiExtractor's output: <doc id="…" url="…" title="…"> … </doc>."""

import collections
import html
import re
from collections.abc import Iterator
from typing import BinaryIO

from input_pipeline import records
from input_pipeline.text import document

_DOC = re.compile(r'<doc\b([^>\n]*|[^\n]*")>[ \t\r]*(?:\n|$)')
_ATTRIBUTE = re.compile(r'(\w+)="(.*?)"(?=\s+\w+="|\s*$)')  # WikiExtractor does not escape quotes inside a title
_END = re.compile(rb'</doc>[ \t\r]*\n')  # only at the end of a line: a text can speak of </doc>
_TAIL = 64  # bytes that hold an end and the white space after it
_ENTITY = re.compile(r'&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]\w{1,30});')


def recognize(start: bytes, name: str) -> bool:
  return start.startswith(b'<doc ')


def split(stream: BinaryIO, name: str, options: document.Options) -> Iterator[document.Raw]:
  buffer, offset, searched, passed = b'', 0, 0, 0  # passed: bytes of a document that is too long
  while block := stream.read(document.READ):
    buffer += block
    at = 0
    while end := _END.search(buffer, max(at, searched)):
      too_long = passed or end.end() - at > document.LONGEST_RECORD
      yield offset + at - passed, None if too_long else buffer[at:end.end()], ()
      at, searched, passed = end.end(), 0, 0
    offset += at
    buffer = buffer[at:]
    if len(buffer) > document.LONGEST_RECORD:
      cut = len(buffer) - _TAIL
      offset, passed, buffer = offset + cut, passed + cut, buffer[cut:]
    searched = max(buffer.rfind(b'\n') - _TAIL, 0)
  if buffer.rstrip().endswith(b'</doc>'):
    yield offset - passed, None if passed else buffer, ()
  # after the last document comes no text, such as a list of files
  elif b'<doc ' in buffer or (not offset and buffer.strip()):
    raise records.DataError(f'{name} is truncated: what starts at byte {offset} has no </doc>; wanted <doc …> … </doc>')


def parse(text: str, context: tuple, place: str, counts: collections.Counter,
          options: document.Options) -> document.Document | str:
  opening = _DOC.search(text)
  if not opening:
    raise records.DataError(
        f'{place}: wanted <doc id="…" url="…" title="…"> before </doc>, found {text.strip()[:60]!r}')
  fields = dict(_ATTRIBUTE.findall(opening[1].strip()))
  content = text[opening.end():].rstrip().removesuffix('</doc>')
  return document.make(fields.get('id'), _unescaped(fields.get('title', '')), _unescaped(content))


def _unescaped(text: str) -> str:
  """WikiExtractor escapes what it writes; `&copy` without a semicolon is prose."""
  return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text) if '&' in text else text

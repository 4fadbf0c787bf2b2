"""WikiExtractor's output: <doc id="…" url="…" title="…"> … </doc>."""

import collections
import html
import re
from collections.abc import Iterator
from typing import BinaryIO

from input_pipeline import records
from input_pipeline.text import document

_DOC = re.compile(r'<doc\b([^>\n]*)>[ \t\r]*\n?')
_ATTRIBUTE = re.compile(r'(\w+)="(.*?)"(?=\s+\w+="|\s*$)')  # WikiExtractor does not escape quotes inside a title


def recognize(start: bytes, name: str) -> bool:
  return start.startswith(b'<doc ')


def split(stream: BinaryIO, name: str, options: document.Options) -> Iterator[document.Raw]:
  buffer, offset, end_mark = b'', 0, b'</doc>'
  while block := stream.read(document.READ):
    buffer += block
    at = 0
    while (end := buffer.find(end_mark, at)) >= 0:
      end += len(end_mark)
      yield offset + at, buffer[at:end], ()
      at = end
    offset += at
    buffer = buffer[at:]
  # after the last document comes no text, such as a list of files
  if b'<doc ' in buffer or (not offset and buffer.strip()):
    raise records.DataError(f'{name} is truncated: what starts at byte {offset} has no </doc>; wanted <doc …> … </doc>')


def parse(text: str, context: tuple, place: str, counts: collections.Counter,
          options: document.Options) -> document.Document | str:
  opening = _DOC.search(text)
  if not opening:
    raise records.DataError(
        f'{place}: wanted <doc id="…" url="…" title="…"> before </doc>, found {text.strip()[:60]!r}')
  fields = dict(_ATTRIBUTE.findall(opening[1].strip()))
  title = html.unescape(fields.get('title', ''))
  return document.make(fields.get('id'), title, text[opening.end():].removesuffix('</doc>'))

"""Web archives: the pages of a crawl (WARC), or the plain text that somebody took out of them (WET).

  WARC/1.0                               the head: a version, fields, a blank line
  WARC-Type: response                    conversion: plain text; response, resource: a page; others hold none
  WARC-Target-URI: https://example.org/
  Content-Length: 1234

  HTTP/1.1 200 OK                        so many bytes; of a response an answer with a head of its own
  Content-Type: text/html; charset=utf-8

  <html>…
"""

import collections
import io
import re
from collections.abc import Iterator
from typing import Any

from input_pipeline import records
from input_pipeline.text import document
from input_pipeline.text.document import Document, Options

_LONGEST_HEAD = 1 << 20  # bytes
_VERSION = re.compile(rb'WARC/\d+\.\d+[ \t]*\r?\n\Z')
_FIELD = rb'(?im)^%s[ \t]*:[ \t]*(.*?)[ \t]*\r?$'
_LENGTH, _TYPE = re.compile(_FIELD % b'Content-Length'), re.compile(_FIELD % b'WARC-Type')
_CHARSET = re.compile(r'charset\s*=\s*["\']?([\w.:-]+)', re.IGNORECASE)
_TAGS = re.compile(r'<(/?)[a-zA-Z]')
_DEEPEST = 5000  # elements in each other: the time that finding prose takes grows with the square of it
_HOLD_PAGES = b'response', b'resource', b'conversion'
_HTML, _PLAIN, _HTTP = ('text/html', 'application/xhtml+xml'), 'text/plain', 'application/http'
_AGAIN = 'it is truncated or damaged; download it again'
_WHOLE = '200'  # the status of an answer that is a page


def recognize(start: bytes, name: str) -> bool:
  return bool(_VERSION.match(start.partition(b'\n')[0] + b'\n'))


def split(stream: io.BufferedReader, name: str, options: Options) -> Iterator[document.Raw]:
  """Each record; of those that hold no page only the head, so that they are counted."""
  offset = start = 0
  while line := stream.readline(_LONGEST_HEAD):
    if not line.strip():
      offset += len(line)
      continue
    if not _VERSION.match(line):
      before = f', and that of the record at byte {start} says where it begins' if offset else ''
      raise records.DataError(f'{name}, byte {offset}: no record of a web archive begins here ({line[:40]!r}){before}: '
                              f'{_AGAIN}')
    start, place = offset, f'{name}, byte {offset}'
    head = line + _rest_of_head(stream, place)
    found = _LENGTH.search(head)
    if not found or not found[1].isdigit():
      raise records.DataError(f'{place}: this record of a web archive has no Content-Length that is a number'
                              f'{f" ({found[1][:40]!r})" if found else ""}: {_AGAIN}')
    length, kind = int(found[1]), _TYPE.search(head)
    if kind is None or kind[1].lower() not in _HOLD_PAGES:
      _pass_over(stream, length, place)
      yield start, head, ()
    elif len(head) + length > document.LONGEST_RECORD:
      _pass_over(stream, length, place)
      yield start, None, ()
    else:
      block = stream.read(length)
      _check_whole(length - len(block), place)
      yield start, head + block, ()
    offset = start + len(head) + length


def _rest_of_head(stream: io.BufferedReader, place: str) -> bytes:
  """The lines up to a blank one, with it."""
  lines, size = [], 0
  while line := stream.readline(_LONGEST_HEAD):
    lines.append(line)
    size += len(line)
    if not line.strip():
      return b''.join(lines)
    if size > _LONGEST_HEAD:
      raise records.DataError(f'{place}: the head of this record of a web archive has no end: {_AGAIN}')
  raise _cut(place)


def _pass_over(stream: io.BufferedReader, length: int, place: str) -> None:
  while length and (part := stream.read(min(length, document.READ))):
    length -= len(part)
  _check_whole(length, place)


def _check_whole(missing: int, place: str) -> None:
  if missing:
    raise _cut(place)


def _cut(place: str) -> records.DataError:
  return records.DataError(f'{place}: the file ends inside this record of a web archive: {_AGAIN}')

# ---------------------------------------------------------------- parsing


def parse(raw: bytes, context: tuple, place: str, counts: collections.Counter, options: Options) -> Document | str:
  from warcio import recordloader
  kind = _TYPE.search(raw.partition(b'\r\n\r\n')[0])
  if kind is None or kind[1].lower() not in _HOLD_PAGES:
    return 'other_records'
  try:
    stream = io.BytesIO(raw)
    loader = recordloader.ArcWarcRecordLoader()
    record = loader.parse_record_stream(stream, known_format='warc', no_record_parse=True)
    address = record.rec_headers.get_header('WARC-Target-URI') or record.rec_headers.get_header('WARC-Record-ID')
    declared = record.content_type or (_PLAIN if kind[1].lower() == b'conversion' else '')
    if _media_type(declared) == _HTTP:
      record.http_headers = loader.http_parser.parse(record.raw_stream)
      if record.http_headers.get_statuscode() != _WHOLE:
        return 'other_answers'
      declared = record.http_headers.get_header('Content-Type') or ''
    media = _media_type(declared)
    if media != _PLAIN and media not in _HTML:
      return 'other_types'
    body = _read(record.content_stream())
  except Exception:  # of what servers answered, of which each library has its own kinds
    return 'unreadable'
  if len(body) > document.LONGEST_RECORD:
    return 'too_long'
  text = _decoded(body, declared, media)
  if '\x00' in text:
    return 'unreadable'
  if media != _PLAIN and _depth(text) > _DEEPEST:
    return 'unreadable'
  title, text = ('', text) if media == _PLAIN else _of_html(text)
  paragraphs = (' '.join(line.split()) for line in text.splitlines())
  return document.make(address, title, '\n'.join(filter(None, paragraphs)))


def _media_type(declared: str) -> str:
  return declared.partition(';')[0].strip().lower()


def _read(stream: Any) -> bytes:
  """All of a stream; of what is longer than a record can be, somewhat more than that."""
  parts, size = [], 0
  while size <= document.LONGEST_RECORD and (part := stream.read(document.READ)):
    parts.append(part)
    size += len(part)
  return b''.join(parts)


def _decoded(body: bytes, declared: str, media: str) -> str:
  """In the encoding that the answer names, or the page, or that its bytes look like."""
  from resiliparse.parse import encoding
  named = _CHARSET.search(declared)
  known = encoding.map_encoding_to_html5(named[1]) if named else None
  if known is None:
    known = encoding.detect_encoding(body, from_html_meta=media != _PLAIN)
  return encoding.bytes_to_str(body, known or 'utf-8')


def _depth(text: str) -> int:
  """How deep elements stand in each other at most: an upper bound, as many need no end."""
  depth = deepest = 0
  for tag in _TAGS.finditer(text):
    depth = max(0, depth - 1) if tag[1] else depth + 1
    deepest = max(deepest, depth)
  return deepest


def _of_html(text: str) -> tuple[str, str]:
  """(title, what is prose on a page), a paragraph a line."""
  from resiliparse.extract import html2text
  from resiliparse.parse import html
  tree = html.HTMLTree.parse(text)
  prose = html2text.extract_plain_text(tree, preserve_formatting=True, main_content=True, list_bullets=False,
                                       alt_texts=False)
  return ' '.join((tree.title or '').split()), prose

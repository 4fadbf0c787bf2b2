"""The formats of text: how a file is split into raw documents, and how these become Document(id, title, text).

`split(stream, name)` yields (offset, bytes, context) in constant memory; `parse(text, context, place)` gives a
Document, or the name under which the document is counted as dropped: 'redirects', 'other_namespaces', 'other_models',
'empty'. A new format is these two functions and one line in FORMATS; a third function can recognize its files.
"""

import dataclasses
import hashlib
import html
import json
import re
import xml.etree.ElementTree as xml
from collections.abc import Callable, Iterator
from typing import BinaryIO

from input_pipeline import records
from input_pipeline.text import wikitext

_READ = 1 << 20
_MAX_HEADER = 1 << 24  # a dump's <siteinfo> is some kilobytes
_BOM = b'\xef\xbb\xbf'
_REDIRECT = re.compile(r'\s*#\s*REDIRECT\b', re.IGNORECASE)
_DOC = re.compile(r'<doc\b([^>\n]*)>[ \t\r]*\n?')
_ATTRIBUTE = re.compile(r'(\w+)="(.*?)"(?=\s+\w+="|\s*$)')  # WikiExtractor does not escape quotes inside a title

Raw = tuple[int, bytes, tuple]


def recognize(head: bytes, name: str) -> str:
  """The format of a file from its first bytes (decompressed), and, where they leave it open, its name."""
  start = head.removeprefix(_BOM).lstrip()
  return next((format for format, its in FORMATS.items() if its.recognize is not None and its.recognize(start, name)),
              PLAIN)


# ---------------------------------------------------------------- MediaWiki dumps


def is_mediawiki(start: bytes, name: str) -> bool:
  return start.startswith((b'<mediawiki', b'<page>', b'<?xml'))


def split_mediawiki(stream: BinaryIO, name: str) -> Iterator[Raw]:
  """The <page> elements of a dump. `<page>` inside a text is escaped, so bytes can be searched; the context is the
  namespaces."""
  buffer, offset, context, fragment = b'', 0, None, False
  while block := stream.read(_READ):
    buffer += block
    at = 0
    while True:
      start = buffer.find(b'<page>', at)
      if context is None and (start >= 0 or len(buffer) > _MAX_HEADER):
        context = _namespaces(buffer[:max(start, 0)], name)
        fragment = b'<mediawiki' not in buffer[:max(start, 0)]  # an export of some pages has no end to look for
      end = buffer.find(b'</page>', start) + len(b'</page>') if start >= 0 else 0
      if start < 0 or end < len(b'</page>'):
        break
      yield offset + start, buffer[start:end], context
      at = end
    offset += at
    buffer = buffer[at:]
  if b'<page>' in buffer or (context is not None and not fragment and b'</mediawiki>' not in buffer):
    raise records.DataError(
        f'{name} is truncated: the dump ends inside a page or before </mediawiki>; download it again')
  if context is None and b'</mediawiki>' not in buffer:
    raise records.DataError(
        f'{name} is not a MediaWiki dump, or is truncated before its first <page>; name its kind with --format')


def _namespaces(header: bytes, name: str) -> tuple[tuple[int, str], ...]:
  found = re.findall(rb'<namespace key="(-?\d+)"[^>]*?(?:/>|>([^<]*)</namespace>)', header)
  try:
    return tuple((int(key), html.unescape(title.decode())) for key, title in found)
  except UnicodeDecodeError as error:
    raise records.DataError(f'{name} is not UTF-8: its siteinfo has byte 0x{error.object[error.start]:02x}') from error


def parse_mediawiki(text: str, context: tuple, place: str) -> 'Document | str':
  try:
    page = xml.fromstring(text)
  except xml.ParseError as error:
    raise records.DataError(
        f'{place}: a <page> is not well-formed XML ({error}); the dump is damaged, download it again') from error
  site = wikitext.site_of(context)
  title = page.findtext('title') or ''
  namespace = page.findtext('ns')
  if namespace is None:  # dumps before 2012
    namespace = '1' if title.partition(':')[0].lower() in site.namespaces and ':' in title else '0'
  if namespace.strip() != '0':
    return 'other_namespaces'
  revisions = page.findall('revision')
  content = (revisions[-1].findtext('text') if revisions else None) or ''
  if page.find('redirect') is not None or _REDIRECT.match(content):
    return 'redirects'
  if revisions and (revisions[-1].findtext('model') or 'wikitext').strip() != 'wikitext':
    return 'other_models'
  prose = wikitext.clean(content, site)
  return Document(page.findtext('id') or _content_id(prose), title, prose) if prose else 'empty'

# ---------------------------------------------------------------- WikiExtractor


def is_wikiextractor(start: bytes, name: str) -> bool:
  return start.startswith(b'<doc ')


def split_wikiextractor(stream: BinaryIO, name: str) -> Iterator[Raw]:
  buffer, offset, end_mark = b'', 0, b'</doc>'
  while block := stream.read(_READ):
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


def parse_wikiextractor(text: str, context: tuple, place: str) -> 'Document | str':
  opening = _DOC.search(text)
  if not opening:
    raise records.DataError(
        f'{place}: wanted <doc id="…" url="…" title="…"> before </doc>, found {text.strip()[:60]!r}')
  fields = dict(_ATTRIBUTE.findall(opening[1].strip()))
  title = html.unescape(fields.get('title', ''))
  return _document(fields.get('id'), title, text[opening.end():].removesuffix('</doc>'))

# ---------------------------------------------------------------- plain text and JSON lines


def split_text(stream: BinaryIO, name: str) -> Iterator[Raw]:
  """A blank line, or the end of the file, ends a document."""
  lines, offset, start = [], 0, 0
  for line in stream:
    if offset == 0:
      line = line.removeprefix(_BOM)
    if line.strip():
      lines.append(line)
    elif lines:
      yield start, b''.join(lines), ()
      lines = []
    offset += len(line)
    if not lines:
      start = offset
  if lines:
    yield start, b''.join(lines), ()


def parse_text(text: str, context: tuple, place: str) -> 'Document | str':
  return _document(None, '', text)


def is_jsonl(start: bytes, name: str) -> bool:
  return start.startswith(b'{') and bool(
      re.search(r'\.(jsonl|ndjson|json)\b', name) or re.match(rb'\{\s*"\w+"\s*:', start))


def split_jsonl(stream: BinaryIO, name: str) -> Iterator[Raw]:
  offset = 0
  for line in stream:
    if line.strip():
      yield offset, line.removeprefix(_BOM), ()
    offset += len(line)


def parse_jsonl(text: str, context: tuple, place: str) -> 'Document | str':
  try:
    fields = json.loads(text)
  except json.JSONDecodeError as error:
    raise records.DataError(
        f'{place}: not a JSON line ({error.msg} at column {error.colno}): {text.strip()[:60]!r}') from error
  if not isinstance(fields, dict) or not isinstance(fields.get('text'), str):
    found = ', '.join(map(str, fields)) if isinstance(fields, dict) else type(fields).__name__
    raise records.DataError(
        f'{place}: a JSON line without a "text" that is a string (found: {found}); wanted id, url, title, text')
  return _document(fields.get('id'), str(fields.get('title') or ''), fields['text'])


def _document(id_: object, title: str, text: str) -> 'Document | str':
  """WikiExtractor, and what follows it, repeats the title as the first line: it is no prose."""
  text = text.strip()
  first, _, rest = text.partition('\n')
  if title and first.strip() == title.strip():
    text = rest.strip()
  if not text:
    return 'empty'
  return Document(_content_id(text) if id_ in (None, '') else str(id_), title, text)


def _content_id(text: str) -> str:
  """The id of a document that brings none: it does not change when other documents are added or files renamed."""
  return hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Document:
  id: str
  title: str
  text: str  # a sentence or a paragraph a line; as it came, not normalised


@dataclasses.dataclass(frozen=True)
class Format:
  """How files of one kind are read. `parse` travels to other processes, so it is a function of a module."""
  split: Callable[[BinaryIO, str], Iterator[Raw]]
  parse: Callable[[str, tuple, str], 'Document | str']
  # from a file's first bytes and its name; None: only --format names it
  recognize: Callable[[bytes, str], bool] | None = None


PLAIN = 'text'  # what no other format recognizes
FORMATS = {
    'mediawiki': Format(split_mediawiki, parse_mediawiki, is_mediawiki),
    'wikiextractor': Format(split_wikiextractor, parse_wikiextractor, is_wikiextractor),
    PLAIN: Format(split_text, parse_text),
    'jsonl': Format(split_jsonl, parse_jsonl, is_jsonl)}

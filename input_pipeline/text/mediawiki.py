"""MediaWiki's dumps: the pages of an XML file."""

import collections
import html
import re
import xml.etree.ElementTree as xml
from collections.abc import Iterator
from typing import BinaryIO

from input_pipeline import records
from input_pipeline.text import document, wikitext

_MAX_HEADER = 1 << 24  # a dump's <siteinfo> is some kilobytes
_REDIRECT = re.compile(r'\s*#\s*REDIRECT\b', re.IGNORECASE)


def recognize(start: bytes, name: str) -> bool:
  return start.startswith((b'<mediawiki', b'<page>', b'<?xml'))


def split(stream: BinaryIO, name: str, options: document.Options) -> Iterator[document.Raw]:
  """The <page> elements of a dump. `<page>` inside a text is escaped, so bytes can be searched; the context is the
  namespaces."""
  buffer, offset, context, fragment = b'', 0, None, False
  while block := stream.read(document.READ):
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


def parse(text: str, context: tuple, place: str, counts: collections.Counter,
          options: document.Options) -> document.Document | str:
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
  return document.Document(page.findtext('id') or document.content_id(prose), title, prose) if prose else 'empty'

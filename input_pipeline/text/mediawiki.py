"""MediaWiki's dumps: the pages of an XML file."""

import collections
import dataclasses
import html
import math
import re
import xml.etree.ElementTree as xml
from collections.abc import Callable, Iterator
from typing import BinaryIO

from input_pipeline import records
from input_pipeline.text import document, wikitext
from input_pipeline.text.compression import Section

LONGEST_TEXT = 4 << 20  # characters of wikitext, whose time it bounds; MediaWiki itself takes 2 MB
_MAX_HEADER = 1 << 24  # a dump's <siteinfo> is some kilobytes
_START, _END, _REVISION, _DUMP_END = b'<page>', b'</page>', b'<revision>', b'</mediawiki>'
_DUMP = b'<mediawiki'
_TRUNCATED = '{} is truncated: the dump ends inside a page or before </mediawiki>; download it again'
_DIFFERENT = '{} holds dumps of different wikis one after the other, and is read in parts: wanted one wiki a file'
_TAIL = 16  # bytes that hold any of these
_REDIRECT = re.compile(r'\s*#\s*REDIRECT\b', re.IGNORECASE)
_REFERENCE = re.compile(r'&#(?:x0*([0-9a-fA-F]{1,6})|0*(\d{1,7})|x?[0-9a-fA-F]+);')
_CONTROL = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]')


def recognize(start: bytes, name: str) -> bool:
  return start.startswith((b'<mediawiki', b'<page>', b'<?xml'))


def split(stream: BinaryIO, name: str, options: document.Options) -> Iterator[document.Raw]:
  """The <page> elements of a dump, each with its last revision only: a page can have gigabytes of others.

  `<page>` and `<revision>` inside a text are escaped, so bytes can be searched; the context is the wiki's language and
  its namespaces.
  """
  yield from _pages(stream, name, None, False, lambda: math.inf)


def split_section(section: Section, name: str, options: document.Options) -> Iterator[document.Raw]:
  """Of a part of a dump, the pages that begin in it."""
  known = None
  if section.start:
    with section.beginning() as stream:
      known = _before(stream, name)
  for offset, data, context in _pages(section.stream, name, known, True, section.reached):
    yield section.offset + offset, data, context


@dataclasses.dataclass(frozen=True)
class _Before:
  """What stands before the first page of a dump."""
  context: tuple
  fragment: bool  # an export of some pages, which has no header


def _before(stream: BinaryIO, name: str) -> _Before:
  """Of a dump that is read from its beginning."""
  buffer = b''
  while _START not in buffer and len(buffer) <= _MAX_HEADER and (block := stream.read(document.READ)):
    buffer += block
  start = max(buffer.find(_START), 0)
  header = buffer.rfind(_DUMP, 0, start)
  return _Before(_site(buffer[max(header, 0):start], name), header < 0)


def _pages(stream: BinaryIO, name: str, known: _Before | None, divided: bool,
           reached: Callable[[], float]) -> Iterator[document.Raw]:
  """`known`: of a stream that begins in the middle of a dump. The pages that begin at `reached` or later are left out;
  what stands between the last of the others and these is looked at. `divided`: other streams have the rest of the file,
  and know no more than what stands before its first page."""
  buffer, offset, context, fragment, ended, too_long = b'', 0, None, False, False, False
  searched = skipped = 0  # bytes of an open page that hold no end of it; bytes that were cut out of it
  unseen = known is not None  # whether the end of the last dump may have been before all this
  if known is not None:
    context, fragment = known.context, known.fragment
  while block := stream.read(document.READ):
    buffer += block
    at = 0
    while True:
      start = buffer.find(_START, at)
      header = buffer.rfind(_DUMP, at, start if start >= 0 else len(buffer))
      if context is not None and header >= 0 and not (fragment or ended):
        ended = unseen or _DUMP_END in buffer[at:buffer.find(_DUMP, at)]
        if not ended:
          raise records.DataError(_TRUNCATED.format(name))
      if context is None and (start >= 0 or len(buffer) > _MAX_HEADER):
        context = _site(buffer[max(header, 0):max(start, 0)], name)
        fragment, ended = header < 0, False  # an export of some pages has no end to look for
      elif header >= 0 and not (fragment or ended or context is None or _DUMP_END in buffer[at:buffer.find(_DUMP, at)]):
        raise records.DataError(_TRUNCATED.format(name))
      elif start >= 0 and header >= 0:  # dumps one after the other can be of different wikis
        before, context = context, _site(buffer[header:start], name)
        fragment, ended, unseen = False, False, False
        if divided and context != before:
          raise records.DataError(_DIFFERENT.format(name))
      if start < 0:
        ended = ended or _DUMP_END in buffer[at:]
        if context is not None and (header < 0 or len(buffer) - header > _MAX_HEADER):
          at = max(at, len(buffer) - len(_DUMP_END))
        break
      if offset + start >= reached():
        return
      end = buffer.find(_END, max(start, searched))
      if end < 0:
        at = start
        break
      page, newer = _last_revision(buffer[start:end + len(_END)])
      too_long = len(page) > document.LONGEST_RECORD or too_long and not newer
      yield offset + start, None if too_long else page, context
      offset += skipped
      at, searched, skipped, too_long, unseen = end + len(_END), 0, 0, False, False
    offset += at
    buffer, size = buffer[at:], len(buffer) - at
    if unseen and not buffer.startswith(_START) and offset >= reached():
      return
    if buffer.startswith(_START):
      buffer, newer = _last_revision(buffer)
      too_long = too_long and not newer
      if len(buffer) > document.LONGEST_RECORD:
        buffer, too_long = buffer[:max(buffer.find(_REVISION), len(_START))] + _REVISION + buffer[-_TAIL:], True
      skipped += size - len(buffer)
      searched = len(buffer) - len(_END)
  unended = _DUMP in buffer and _DUMP_END not in buffer[buffer.rfind(_DUMP):]
  if buffer.startswith(_START) or (context is not None and not unseen and (unended or not fragment and not ended)):
    raise records.DataError(_TRUNCATED.format(name))
  if context is None and _DUMP_END not in buffer:
    raise records.DataError(
        f'{name} is not a MediaWiki dump, or is truncated before its first <page>; name its kind with --format')


def _last_revision(page: bytes) -> tuple[bytes, bool]:
  """A page, or what of it was read, without its older revisions; and whether there were any."""
  first, last = page.find(_REVISION), page.rfind(_REVISION)
  return (page[:first] + page[last:], True) if last > first else (page, False)


def _site(header: bytes, name: str) -> tuple[str, tuple[tuple[int, str], ...]]:
  """(language, names of namespaces by number) of the wiki."""
  found = re.findall(rb'<namespace key="(-?\d+)"[^>]*?(?:/>|>([^<]*)</namespace>)', header)
  language = re.search(rb'<mediawiki\b[^>]*\sxml:lang="([A-Za-z-]+)"', header)
  try:
    return (language[1].decode().lower() if language else '',
            tuple((int(key), html.unescape(title.decode())) for key, title in found))
  except UnicodeDecodeError as error:
    raise records.DataError(f'{name} is not UTF-8: its siteinfo has byte 0x{error.object[error.start]:02x}') from error


def parse(text: str, context: tuple, place: str, counts: collections.Counter,
          options: document.Options) -> document.Document | str:
  try:
    page = _element(text)
  except xml.ParseError as error:
    raise records.DataError(
        f'{place}: a <page> is not well-formed XML ({error}); the dump is damaged, download it again') from error
  language, names = context
  site = wikitext.site_of(names, language)
  title = document.valid(page.findtext('title') or '')
  namespace = page.findtext('ns')
  if namespace is None:  # dumps before 2012
    namespace = '1' if title.partition(':')[0].lower() in site.namespaces and ':' in title else '0'
  if namespace.strip() != '0':
    return 'other_namespaces'
  revision = page.find('revision')
  content = (revision.findtext('text') if revision is not None else None) or ''
  if page.find('redirect') is not None or _REDIRECT.match(content):
    return 'redirects'
  if revision is not None and (revision.findtext('model') or 'wikitext').strip() != 'wikitext':
    return 'other_models'
  if len(content) > LONGEST_TEXT:
    return 'too_long'
  prose = wikitext.clean(content, site, counts, title, options.keep_end_sections)
  return document.Document(page.findtext('id') or document.content_id(prose), title, prose) if prose else 'empty'


def _element(text: str) -> xml.Element:
  """The element of a page; characters that XML forbids, such as halves of one, become U+FFFD."""
  try:
    return xml.fromstring(text)
  except xml.ParseError:
    return xml.fromstring(_CONTROL.sub('\ufffd', _REFERENCE.sub(_allowed, text)))


def _allowed(reference: re.Match) -> str:
  number = int(reference[1], 16) if reference[1] else int(reference[2] or 0)  # 0: one with too many digits
  fine = number in (9, 10, 13) or 32 <= number < 0xd800 or 0xe000 <= number < 0xfffe or 0x10000 <= number <= 0x10ffff
  return reference[0] if fine else '\ufffd'

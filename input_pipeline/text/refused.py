"""What is no text and could be taken for prose: told by its first bytes, and refused with what to do instead."""

import re
from collections.abc import Callable

from input_pipeline import records

_EXTRACT = 'take the text out of it first, as JSON lines with a field "text"'
_UNPACK = 'unpack it, and name the folder that its files are in'
_MAGIC: dict[str, tuple[tuple[bytes, ...], str]] = {  # what it is: (how it begins, what to do)
    'a PDF': ((b'%PDF',), _EXTRACT),
    'PostScript': ((b'%!PS',), _EXTRACT),
    'RTF': ((b'{\\rtf',), _EXTRACT),
    'an image': ((b'\x89PNG', b'\xff\xd8\xff', b'GIF87a', b'GIF89a', b'II*\x00', b'MM\x00*'), _EXTRACT),
    'an SQLite database': ((b'SQLite format 3\x00',), _EXTRACT),
    'a document of Microsoft Office': ((b'\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1',), _EXTRACT),
    'a pickle of Python': (tuple(b'\x80' + bytes((version, follows)) for version in range(2, 6)
                                 for follows in b'\x95}](cX\x8cq)'), _EXTRACT),
    'an array of NumPy': ((b'\x93NUMPY',), _EXTRACT),
    'HDF5': ((b'\x89HDF\r\n',), _EXTRACT),
    'Avro': ((b'Obj\x01',), 'write it as Parquet or as JSON lines'),
    'Feather of version 1': ((b'FEA1',), 'write it as Arrow or as Parquet'),
    'a web archive of the kind ARC': ((b'filedesc://',), 'make a WARC file of it: warcio recompress'),
    'an archive of 7-Zip': ((b'7z\xbc\xaf\x27\x1c',), _UNPACK),
    'a RAR archive': ((b'Rar!\x1a',), _UNPACK),
    'compressed by lz4': ((b'\x04\x22\x4d\x18',), 'unpack it, or compress it by gzip, bzip2, xz or zstd'),
    'compressed by compress': ((b'\x1f\x9d',), 'unpack it, or compress it by gzip, bzip2, xz or zstd'),
    'a program': ((b'\x7fELF', b'MZ\x90'), 'name only files of text'),
    'UTF-32': ((b'\xff\xfe\x00\x00', b'\x00\x00\xfe\xff'), 'convert it: iconv -f UTF-32 -t UTF-8'),
    'UTF-16': ((b'\xff\xfe', b'\xfe\xff'), 'convert it: iconv -f UTF-16 -t UTF-8')}
_HTML = re.compile(rb'(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b',
                   re.IGNORECASE | re.DOTALL)
_TAG = re.compile(rb'<[A-Za-z!?][^<>\n]*>')
_CONTROL = bytes(set(range(32)) - set(b'\t\n\v\f\r\x1b')) + b'\x7f'
_LOOKED_AT = 1 << 16
_MARKUP_SHARE = 0.2  # of the lines, those that begin with a tag
_CONTROL_SHARE = 0.02  # of the bytes


def check(head: bytes, start: bytes, name: str) -> None:
  """`start`: the first bytes without white space. Raises DataError for what is known not to be text."""
  for what, (magics, advice) in _MAGIC.items():
    if head.startswith(magics):
      _refuse(name, what, advice)
  for what, (is_it, advice) in _KINDS.items():
    if is_it(head, start):
      _refuse(name, what, advice)


def check_prose(head: bytes, start: bytes, name: str) -> None:
  """Raises DataError for what no format recognizes, and that is no prose all the same."""
  head = head[:_LOOKED_AT]
  control = len(head) - len(head.translate(None, _CONTROL))
  if control > _CONTROL_SHARE * len(head):
    _refuse(name, 'binary', 'name only files of text')
  lines = [line.lstrip() for line in start[:_LOOKED_AT].split(b'\n') if line.strip()]
  if _TAG.match(start) and sum(map(bool, map(_TAG.match, lines))) > _MARKUP_SHARE * len(lines):
    _refuse(name, 'XML or another markup', _EXTRACT)


def _refuse(name: str, what: str, advice: str) -> None:
  raise records.DataError(f'{name} is {what}, no text: {advice}; or say what it is with --format')


def _is_tar(head: bytes, start: bytes) -> bool:
  return head[257:262] == b'ustar'


def _is_zip(head: bytes, start: bytes) -> bool:
  return head.startswith((b'PK\x03\x04', b'PK\x05\x06'))


def _is_office(head: bytes, start: bytes) -> bool:
  return _is_zip(head, start) and any(mark in head[:4096] for mark in (
      b'[Content_Types].xml', b'word/', b'xl/', b'mimetypeapplication/'))


def _is_html(head: bytes, start: bytes) -> bool:
  return bool(_HTML.match(start[:_LOOKED_AT]))


def _is_xml(head: bytes, start: bytes) -> bool:
  return start.startswith(b'<?xml') and not any(tag in start[:_LOOKED_AT] for tag in (b'<mediawiki', b'<page>'))


_KINDS: dict[str, tuple[Callable[[bytes, bytes], bool], str]] = {
    'a tar archive': (_is_tar, _UNPACK),
    'a document of an office program, or an e-book': (_is_office, _EXTRACT),
    'a zip archive': (_is_zip, _UNPACK),
    'HTML': (_is_html, _EXTRACT),
    'XML, but no dump of a wiki': (_is_xml, _EXTRACT)}

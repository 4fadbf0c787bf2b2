"""The blocks of a bzip2 file, from any byte of it on.

A block begins at any bit, by 48 bits of its own, and has a checksum. So the file is searched for these bits, at all
eight offsets; what stands between two finds is made a stream of one block, which the library decompresses and checks.
Bits in the middle of a block that look like a beginning fail that check, and the next find is tried:
  … block A ………(false)……… block B   ->   A to the false one: no block   A to B: a block
Streams follow each other, each with a header of whole bytes. Places are bits of the file unless said otherwise.
"""

import bisect
import bz2
from collections.abc import Iterator
from typing import BinaryIO

_BLOCK, _END = 0x314159265359, 0x177245385090  # what a block, and what the end of a stream begin with
_WIDTH = 48  # bits of either
_CHECKSUM = 32  # bits that come next
_HEADERS = tuple(b'BZh%d' % level for level in range(1, 10))
_HEADER = 4  # bytes
_READ = 1 << 20  # bytes that are read at once
_USUAL = 2 << 20  # bytes in which one begins nearly always
LONGEST = 3 << 20  # bytes of a block: 900,000 symbols of at most 20 bits, and its tables


class Damaged(Exception):
  """What stands where a block should."""


def blocks(file: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
  """(its place, its content) of every block that begins at byte `start` or later, in order, to the end of the file.

  All that follows one that is found is walked through, so that nothing damaged is passed over. Raises Damaged.
  """
  found, at = _before(file, start)
  while at is not None:
    content, end = _decoded(found, at)
    if at >= 8 * start:
      yield at, content
    found.forget(at)
    at = _next(found, end)


def _before(file: BinaryIO, start: int) -> 'tuple[_Finds, int | None]':
  """A block that begins before byte `start`, if any does, from which one can go on; None: the file holds none."""
  for back in (_USUAL, 2 * LONGEST):
    found = _Finds(file, max(0, start - back))
    for at in reversed(found.blocks_before(8 * start)):
      try:
        _decoded(found, at)
        return found, at
      except Damaged:  # bits that look like one, or the file is damaged there, which who walks on finds
        continue
    if not found.base:
      first = _first(found, 0, 0)
      return found, None if first is None else _next(found, first)
  raise Damaged(f'no bzip2 block is whole in the {2 * LONGEST >> 20} MiB before byte {start}')


def _next(found: '_Finds', at: int) -> int | None:
  """The block that follows where another ends; None at the end of the file."""
  streams = 0
  while (kind := found.number(at, _WIDTH)) == _END:
    streams += 1
    end = -(-(at + _WIDTH + _CHECKSUM) // 8)
    if found.number(at + _WIDTH, _CHECKSUM) is None:
      raise Damaged('it ends inside a bzip2 stream')
    after = _first(found, end, streams)
    if after is None:
      return None
    at = after
  if kind != _BLOCK:
    raise Damaged(f'no bzip2 block begins at bit {at}')
  return at


def _first(found: '_Finds', byte: int, streams: int) -> int | None:
  """Where what comes first in a stream begins, whose header is at this byte; None at the end of the file."""
  head = found.bytes(byte, _HEADER + _WIDTH // 8)
  if not head:
    return None
  if head[:_HEADER] not in _HEADERS or int.from_bytes(head[_HEADER:], 'big') not in (_BLOCK, _END):
    before = f'after {streams} whole bzip2 streams comes something else' if byte else 'it is no bzip2 stream'
    raise Damaged(f'{before}, {head.hex(" ")}')
  return 8 * (byte + _HEADER)


def _decoded(found: '_Finds', at: int) -> tuple[bytes, int]:
  """The content of the block that begins there, and where it ends. Raises Damaged."""
  place = at + _WIDTH
  while (end := found.find_from(place, at + 8 * LONGEST)) is not None:
    if (content := _content(found, at, end)) is not None:
      return content, end
    place = end + 1
  raise Damaged(f'the bzip2 block at bit {at} is damaged, or not whole')


def _content(found: '_Finds', at: int, end: int) -> bytes | None:
  """What the bits from one find to another hold as the only block of a stream; None where they are none."""
  length = end - at
  if length < _WIDTH + _CHECKSUM:
    return None
  bits = found.number(at, length)
  assert bits is not None  # what is found was read
  checksum = bits >> length - _WIDTH - _CHECKSUM & (1 << _CHECKSUM) - 1  # of a stream of one block it is the block's
  length += _WIDTH + _CHECKSUM
  bits = (bits << _WIDTH | _END) << _CHECKSUM | checksum
  padding = -length % 8
  stream = _HEADERS[-1] + (bits << padding).to_bytes((length + padding) // 8, 'big')
  decompressor = bz2.BZ2Decompressor()
  try:
    content = decompressor.decompress(stream)
  except (OSError, ValueError):
    return None
  return content if decompressor.eof and not decompressor.unused_data else None


def _keys() -> list[tuple[bytes, int, int]]:
  """(five bytes that are whole, at which bit of the byte before them it begins, all of it) of each beginning at each
  offset."""
  return [((magic << 8 - offset >> 8 & (1 << 40) - 1).to_bytes(5, 'big'), offset, magic)
          for magic in (_BLOCK, _END) for offset in range(8)]


_KEYS = _keys()


class _Finds:
  """A part of a file, read as it is needed, and where a block or an end seems to begin in it."""

  def __init__(self, file: BinaryIO, base: int):
    file.seek(base)
    self.file, self.base, self.ended = file, base, False  # base: the byte of the file that `data` begins with
    self.data = b''
    self.places: list[int] = []
    self.magics: dict[int, int] = {}

  def find_from(self, place: int, last: int) -> int | None:
    """The first find at a place or after it; none that is after `last`."""
    while True:
      number = bisect.bisect_left(self.places, place)
      if number < len(self.places):
        return self.places[number] if self.places[number] <= last else None
      if 8 * (self.base + len(self.data)) > last + _WIDTH + 8 or not self._more():
        return None

  def blocks_before(self, place: int) -> list[int]:
    while 8 * (self.base + len(self.data)) < place + _WIDTH + 8 and self._more():
      pass
    return [one for one in self.places if one < place and self.magics[one] == _BLOCK]

  def bytes(self, start: int, size: int) -> bytes:
    """Fewer at the end of the file."""
    while self.base + len(self.data) < start + size and self._more():
      pass
    return self.data[start - self.base:start - self.base + size]

  def number(self, at: int, width: int) -> int | None:
    """The bits from a place on as a number; None where the file has fewer."""
    first, last = at // 8, -(-(at + width) // 8)
    data = self.bytes(first, last - first)
    if len(data) < last - first:
      return None
    return int.from_bytes(data, 'big') >> 8 * last - at - width & (1 << width) - 1

  def forget(self, before: int) -> None:
    """Of what was read and found, all before a place."""
    start = before // 8 - self.base
    if start > _READ:
      self.data, self.base = self.data[start:], before // 8
      for place in self.places[:(number := bisect.bisect_left(self.places, before))]:
        del self.magics[place]
      del self.places[:number]

  def _more(self) -> bool:
    """Reads on; whether there was anything."""
    block = b'' if self.ended else self.file.read(_READ)
    if not block:
      self.ended = True
      return False
    searched = max(0, len(self.data) - _WIDTH // 8)  # where one that is not whole yet may begin
    self.data += block
    self._search(searched)
    return True

  def _search(self, start: int) -> None:
    new = {}
    for key, offset, magic in _KEYS:
      at = self.data.find(key, start + 1)
      while at >= 0:
        place = 8 * (self.base + at - 1) + offset
        around = self.data[at - 1:at + 6]
        if len(around) == 7 and int.from_bytes(around, 'big') >> 8 - offset & (1 << _WIDTH) - 1 == magic:
          new[place] = magic
        at = self.data.find(key, at + 1)
    self.magics |= new
    self.places = sorted(self.magics)

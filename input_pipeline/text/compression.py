"""A file's content as one stream, whatever it is compressed by and however many compressed streams it is made of.

Every compressed stream must be whole: one that begins damaged, or what follows the last and is none, is an error, never
the end of the file.
"""

import bz2
import contextlib
import dataclasses
import io
import lzma
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from input_pipeline.text import bzip2

BUFFER = 1 << 20  # bytes of content that can be looked at before they are read
_BLOCK = 1 << 14  # compressed bytes that are expanded at once: they bound what one step gives


@dataclasses.dataclass(frozen=True)
class Compression:
  """One kind: `start` gives an object with decompress, eof and unused_data for each compressed stream of a file."""
  start: Callable[[], Any]
  magics: tuple[bytes, ...]  # what a compressed stream begins with
  padded: bool  # zeros after the last one belong to the format


def _zstandard() -> Any:
  import zstandard
  return zstandard.ZstdDecompressor().decompressobj()


# BZh and a level could be prose: then come the digits of pi, or, where there is no content, those of its root
_BZIP2 = tuple(b'BZh%d' % level + follows for level in range(1, 10) for follows in (b'1AY&SY', b'\x17rE8P\x90'))
_SKIPPED = tuple(bytes((0x50 + i,)) + b'\x2a\x4d\x18' for i in range(16))  # frames of zstd that hold no content
COMPRESSIONS = {
    'gzip': Compression(lambda: zlib.decompressobj(16 + zlib.MAX_WBITS), (b'\x1f\x8b',), padded=True),
    'bzip2': Compression(bz2.BZ2Decompressor, _BZIP2, padded=False),
    'xz': Compression(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), (b'\xfd7zXZ\x00',), padded=True),
    'zstd': Compression(_zstandard, (b'\x28\xb5\x2f\xfd', *_SKIPPED), padded=False)}


_LONGEST = max(len(magic) for kind in COMPRESSIONS.values() for magic in kind.magics)


Damaged = bzip2.Damaged  # a compressed stream that is cut off or is none
DIVISIBLE = '', 'bzip2'  # the compressions of which a part can be read without what is before it; '': none


def content(file: BinaryIO) -> io.BufferedReader:
  """The content of an open file, which need not be one that seeks. Reading raises Damaged, and OSError of the file."""
  head = _first(file, _LONGEST)
  kind = next((name for name, its in COMPRESSIONS.items() if head.startswith(its.magics)), None)
  if kind is None:
    return io.BufferedReader(_Plain(file, head), BUFFER)
  expanded = io.BufferedReader(_Expanded(file, head, kind), BUFFER)
  return content(expanded)  # which may be compressed again


def file_of(stream: io.BufferedReader) -> BinaryIO | None:
  """The file of a stream that `content` gave, where its bytes are the content and it can be read at any place."""
  raw = stream.raw
  return raw.file if isinstance(raw, _Plain) and raw.file.seekable() else None


def kind_of(stream: io.BufferedReader) -> str:
  """How the file of a stream that `content` gave is compressed: '', 'bzip2', 'gzip in bzip2' …"""
  kinds: list[str] = []
  raw: Any = stream.raw
  while isinstance(raw, _Plain | _Expanded):
    kinds += [raw.kind] if isinstance(raw, _Expanded) else []
    raw = getattr(raw.file, 'raw', None)
  return ' in '.join(kinds)


@dataclasses.dataclass(frozen=True)
class Section:
  """The content of some bytes of a file, [start, end), and what comes after it: a document may go on there.

  Of bzip2 it is that of the blocks that begin in these bytes.
  """
  file: BinaryIO
  start: int
  end: int
  stream: io.BufferedReader
  reached: Callable[[], float]  # where in `stream` the next section's content begins; more than was read, if not known
  offset: int  # in the content, of what `stream` begins with; 0 where that is not known

  @contextlib.contextmanager
  def beginning(self) -> Iterator[io.BufferedReader]:
    """The content of the whole file, before `stream` is read."""
    at = self.file.tell()
    self.file.seek(0)
    yield content(self.file)
    self.file.seek(at)


def section(file: BinaryIO, start: int, end: int, compressed: bool) -> Section:
  """A part of a file that seeks, and is compressed by bzip2 or not at all. Reading it raises Damaged, and OSError of
  the file."""
  if compressed:
    blocks = _Blocks(bzip2.blocks(file, start), 8 * end)
    return Section(file, start, end, io.BufferedReader(blocks, BUFFER), lambda: blocks.reached, 0)
  file.seek(start)
  return Section(file, start, end, io.BufferedReader(_Plain(file, b''), BUFFER), lambda: end - start, start)


def _first(file: BinaryIO, size: int) -> bytes:
  """The first bytes of a stream, which may give fewer at once, as a pipe does."""
  head = b''
  while len(head) < size and (more := file.read(size - len(head))):
    head += more
  return head


class _Stream(io.RawIOBase):
  """Fills a buffer whole while there is more, so that peek sees all that fits."""

  def __init__(self) -> None:
    self.ready = memoryview(b'')

  def readable(self) -> bool:
    return True

  def more(self) -> bytes:
    """The next bytes; b'' at the end."""
    raise NotImplementedError

  def readinto(self, buffer: Any) -> int:
    filled = 0
    while filled < len(buffer):
      if not self.ready:
        self.ready = memoryview(self.more())
        if not self.ready:
          break
      part = self.ready[:len(buffer) - filled]
      buffer[filled:filled + len(part)] = part
      self.ready = self.ready[len(part):]
      filled += len(part)
    return filled


class _Plain(_Stream):
  """A file that is not compressed."""

  def __init__(self, file: BinaryIO, head: bytes):
    super().__init__()
    self.file, self.head = file, head

  def more(self) -> bytes:
    head, self.head = self.head, b''
    return head or self.file.read(BUFFER)


class _Blocks(_Stream):
  """The content of blocks, one after the other."""

  def __init__(self, blocks: Iterator[tuple[int, bytes]], end: int):
    super().__init__()
    self.blocks, self.end = blocks, end  # a place, as of the blocks
    self.given, self.reached = 0, math.inf

  def more(self) -> bytes:
    for place, content in self.blocks:
      if place >= self.end:
        self.reached = min(self.reached, self.given)
      self.given += len(content)
      if content:
        return content
    return b''


class _Expanded(_Stream):
  """Compressed streams, one after the other."""

  def __init__(self, file: BinaryIO, head: bytes, kind: str):
    super().__init__()
    self.file, self.rest, self.kind = file, head, kind
    self.compression = COMPRESSIONS[kind]
    self.stream: Any = None  # the one that is being read
    self.count = 0  # of those that are whole

  def more(self) -> bytes:
    while True:
      block = self.rest or self.file.read(_BLOCK)
      self.rest = b''
      if self.stream is None:
        block = self._padding(block) if self.count and self.compression.padded else block
        if block:
          block = block + _first(self.file, max(0, _LONGEST - len(block)))
          if not block.startswith(self.compression.magics):
            raise Damaged(f'after {self.count} whole {self.kind} streams comes something else, {block[:8].hex(" ")}')
          self.stream = self.compression.start()
      if not block:
        if self.stream is None:
          return b''
        raise Damaged(f'it ends inside a {self.kind} stream')
      try:
        data = self.stream.decompress(block)
      except Exception as error:  # each library has its own
        raise Damaged(f'{self.kind} stream {self.count + 1}: {error}') from error
      if self.stream.eof:
        self.rest, self.stream, self.count = self.stream.unused_data, None, self.count + 1
      if data:
        return data

  def _padding(self, block: bytes) -> bytes:
    while block and not (block := block.lstrip(b'\x00')):
      block = self.file.read(_BLOCK)
    return block

"""Files as sources of text: dumps, WikiExtractor output, plain text, JSON lines, compressed or not, local or gs://."""

import bz2
import collections
import dataclasses
import gzip
import importlib.util
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from input_pipeline import records, storage
from input_pipeline.text import formats
from input_pipeline.text.source import Parsed, Source, Stamp

_SAMPLE_FILE = 'test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2'
_MAGIC = {b'\x1f\x8b': gzip.open, b'BZh': bz2.open}
_WILD = frozenset('*?[')


@dataclasses.dataclass(frozen=True)
class RawDocuments:
  """What a chunk of a file holds."""
  parse: formats.Parse  # of its format
  context: tuple  # what `parse` must know of the file: the namespaces of a dump
  raw: tuple[tuple[int, bytes], ...]  # (byte offset in the decompressed file, bytes)


@dataclasses.dataclass(frozen=True)
class File:
  """A file, compressed or not, in a format that its content or its name tells."""
  name: str
  format: str | None = None  # None: told by its content

  def stamp(self) -> Stamp:
    return Stamp(*storage.stamp(self.name))

  def chunks(self, chunk_bytes: int) -> Iterator[RawDocuments]:
    raw, size, before = [], 0, ()
    with storage.path(self.name).open('rb') as file:
      stream = decompressed(file)
      try:
        format = formats.FORMATS[self.format or formats.recognize(stream.peek(1 << 12), storage.path(self.name).name)]
        for offset, data, context in format.split(stream, self.name):
          if size and (size + len(data) > chunk_bytes or context != before):
            yield RawDocuments(format.parse, before, tuple(raw))
            raw, size = [], 0
          before = context
          raw.append((offset, data))
          size += len(data)
      except (EOFError, OSError, zlib.error) as error:
        raise records.DataError(
            f'{self.name} is truncated or damaged ({error}): wanted a whole file; download it again') from error
    if raw:
      yield RawDocuments(format.parse, before, tuple(raw))

  def documents(self, content: RawDocuments) -> Parsed:
    return parse_raw(self.name, content)


def named(name: str, format: str | None) -> list[Source]:
  """The files of a path or a glob, local or gs://. Raises DataError."""
  if not _WILD.intersection(name):
    path = storage.path(name).expanduser()
    if not path.exists():
      raise records.DataError(f'--input {name}: there is no such file')
    if path.is_dir():
      raise records.DataError(
          f'--input {name} is a directory: name its files with a glob such as "{name.rstrip("/")}/*"')
    return [File(str(path), format)]
  parts = name.split('/')
  first = next(i for i, part in enumerate(parts) if _WILD.intersection(part))
  base = storage.path('/'.join(parts[:first]) or ('/' if name.startswith('/') else '.')).expanduser()
  found = storage.files_in(base, '/'.join(parts[first:]))
  if not found:
    raise records.DataError(f'--input {name}: no file matches this glob')
  return [File(str(path), format) for path in found]


def sample(name: str, format: str | None) -> list[Source]:
  """`sample`: a slice of a Wikipedia dump. Raises DataError."""
  spec = importlib.util.find_spec('gensim')  # found, not imported: importing gensim takes seconds
  path = storage.path(spec.origin).parent / _SAMPLE_FILE if spec and spec.origin else None
  if path is None or not path.exists():
    raise records.DataError(
        "--input sample is the slice of a Wikipedia dump in gensim's wheel, which is not installed here: "
        "pip install 'bert_jax[sample]'")
  return [File(str(path), format)]


def parse_raw(name: str, content: RawDocuments) -> Parsed:
  counts, found = collections.Counter(), []
  for offset, raw in content.raw:
    counts['bytes'] += len(raw)
    try:
      text = raw.decode()
    except UnicodeDecodeError as error:
      raise records.DataError(
          f'{name} is not UTF-8: byte 0x{raw[error.start]:02x} at byte {offset + error.start} of the (decompressed) '
          f'file, '
          f'line {_line_number(raw, error.start, offset)}; wanted UTF-8 text: convert it with iconv') from error
    result = content.parse(text, content.context, f'{name}, byte {offset}', counts)
    counts['pages'] += 1
    if isinstance(result, str):
      counts[result] += 1
    else:
      found.append(result)
  return Parsed(tuple(found), counts)


def _line_number(raw: bytes, at: int, offset: int) -> str:
  line = raw.count(b'\n', 0, at) + 1
  return str(line) if offset == 0 else f'{line} of the document that starts at byte {offset}'


def decompressed(file: BinaryIO) -> BinaryIO:
  """A buffered stream of the file's content, whatever it is called."""
  head = file.read(4)
  file.seek(0)
  for magic, open_ in _MAGIC.items():
    if head.startswith(magic):
      return io.BufferedReader(open_(file, 'rb'), 1 << 20)
  return io.BufferedReader(file, 1 << 20)

"""A file as a source of text: in any format, compressed or not, local, in a bucket, or a stream that is read once."""

import collections
import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterator
from typing import BinaryIO

from input_pipeline import input_files, records, storage
from input_pipeline.text import compression, document, formats
from input_pipeline.text.source import Parsed, Stamp


@dataclasses.dataclass(frozen=True)
class RawDocuments:
  """What a chunk of a file holds."""
  parse: formats.Parse  # of its format
  context: tuple  # what `parse` must know of the file: the namespaces of a dump
  raw: tuple[tuple[int, bytes | None], ...]  # (place, bytes); None: left out, as it is too long
  options: formats.Options
  unit: str = 'byte'  # of places: bytes of the decompressed file, or rows
  binary: bool = False  # `parse` takes bytes

  def size(self) -> int:
    return sum(len(data or b'') for _, data in self.raw)


@dataclasses.dataclass(frozen=True)
class Bytes:
  """Those of a file as it lies, [start, end)."""
  start: int
  end: int
  compressed: bool  # so that places in the content count from there


@dataclasses.dataclass(frozen=True)
class File:
  """A file, compressed or not, in a format that its content or its name tells."""
  name: str
  format: str | None = None  # None: told by its content
  options: formats.Options = formats.USUAL
  once: bool = False  # a pipe or the like, whose content comes once
  at: str = ''  # where it is, if its name does not say so everywhere
  section: 'Bytes | None' = None  # where its documents begin; None: anywhere. `format` is known then

  def stamp(self) -> Stamp:
    return Stamp(*input_files.stamp(self.at or self.name))

  def content(self) -> str:
    """Tells its content from any other."""
    with storage.named_errors(self.name):
      return input_files.content(self.at or self.name)

  def absolute(self) -> 'File':
    """The same file for a process with another working directory."""
    return self if self.once else dataclasses.replace(self, at=str(storage.absolute(self.at or self.name)))

  def kind(self) -> str:
    """The name of its format. Not of what can be read only once. Raises DataError."""
    if self.format:
      return self.format
    with self._opened() as (_, kind):
      return kind

  def sections(self, size: int, length: int) -> 'list[File]':
    """The file, of `length` bytes, in parts of at most `size` that have all its documents; or itself, where it cannot
    be divided. Raises DataError."""
    if self.once or length <= size:
      return [self]
    with self._opened() as (stream, kind):
      compressed, format = compression.kind_of(stream), formats.FORMATS[kind]
    if (format.split_section is None or compressed not in compression.DIVISIBLE or compressed and not format.compressed
        or self.options.documents == 'file' and 'documents' in format.uses):
      return [self]
    count = -(-length // size)
    ends = [length * number // count for number in range(count + 1)]
    return [dataclasses.replace(self, format=kind, section=Bytes(*part, bool(compressed)))
            for part in zip(ends, ends[1:])]

  def chunks(self, chunk_bytes: int) -> Iterator[RawDocuments]:
    if self.section is not None:
      with self._read() as file:
        part = compression.section(file, self.section.start, self.section.end, self.section.compressed)
        assert self.format  # which is known of a section, as that it can be split
        split = formats.FORMATS[self.format].split_section
        assert split
        yield from self._chunks(self.format, split(part, self.name, self.options), chunk_bytes)
      return
    with self._opened() as (stream, kind):
      yield from self._chunks(kind, formats.FORMATS[kind].split(stream, self.name, self.options), chunk_bytes)

  @contextlib.contextmanager
  def _opened(self) -> Iterator[tuple[io.BufferedReader, str]]:
    """Its content, and the format of it."""
    with self._read() as file:
      stream = compression.content(file)
      yield stream, self.format or formats.recognize(stream.peek(document.READ), self.name)

  @contextlib.contextmanager
  def _read(self) -> Iterator[BinaryIO]:
    """The file as it lies, whose errors are named."""
    with storage.named_errors(self.name), input_files.reading(self.at or self.name) as file:
      try:
        yield file
      except compression.Damaged as error:
        raise records.DataError(
            f'{self.name} is truncated or damaged ({error}): wanted a whole file; download it again') from error

  def _chunks(self, kind: str, documents: Iterator[document.Raw], chunk_bytes: int) -> Iterator[RawDocuments]:
    raw, size, before, told = [], 0, (), set()
    format = formats.FORMATS[kind]
    for offset, data, context in documents:
      length = 0 if data is None else len(data)
      if size and (size + length > chunk_bytes or context != before):
        yield RawDocuments(format.parse, before, tuple(raw), self.options, format.unit, format.binary)
        raw, size = [], 0
      before = context
      raw.append((offset, data))
      size += length
      if data is None and 'long' not in told:
        told.add('long')
        tell(f'{self._called()}, {format.unit} {offset}: left out, as it is longer than '
              f'{document.LONGEST_RECORD >> 20} MiB; there may be more of these')
      if context == document.CUT and 'cut' not in told:
        told.add('cut')
        tell(f'{self._called()}, byte {offset}: a document of more than {document.LONGEST_TEXT >> 20} MiB is cut; '
              '--documents line or blank says what ends one')
    if raw:
      yield RawDocuments(format.parse, before, tuple(raw), self.options, format.unit, format.binary)

  def documents(self, content: RawDocuments) -> Parsed:
    return parse_raw(self._called(), content)

  def _called(self) -> str:
    """What places in its content are told of."""
    if self.section is None or not self.section.compressed:
      return self.name
    return f'{self.name} from its compressed byte {self.section.start} on'


def parse_raw(name: str, content: RawDocuments) -> Parsed:
  counts, found = collections.Counter(), []
  for offset, raw in content.raw:
    if raw is None:
      counts.update(pages=1, too_long=1)
      continue
    counts['bytes'] += len(raw)
    text = raw if content.binary else _decoded(raw, name, offset)
    result = content.parse(text, content.context, f'{name}, {content.unit} {offset}', counts, content.options)
    if isinstance(result, str):
      counts.update({'pages': 1, result: 1})
      continue
    if len(result.text) <= document.LONGEST_TEXT:
      found.append(result)
    else:
      found += document.cut(result)
      counts['documents_cut'] += 1
  counts['pages'] += len(found)
  if content.context == document.CUT:
    counts['documents_cut'] += len(found)
  return Parsed(tuple(found), counts)


def _decoded(raw: bytes, name: str, offset: int) -> str:
  try:
    return raw.decode()
  except UnicodeDecodeError as error:
    raise records.DataError(
        f'{name} is not UTF-8: byte 0x{raw[error.start]:02x} at byte {offset + error.start} of the (decompressed) '
        f'file, line {_line_number(raw, error.start, offset)}; wanted UTF-8 text: convert it with iconv') from error


def _line_number(raw: bytes, at: int, offset: int) -> str:
  line = raw.count(b'\n', 0, at) + 1
  return str(line) if offset == 0 else f'{line} of the document that starts at byte {offset}'


def tell(text: str) -> None:
  print(f'bert-jax: {text}', file=sys.stderr, flush=True)

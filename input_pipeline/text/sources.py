"""Where text comes from: files, data sets of TFDS, the sample; each yields Document(id, title, text).

A source is an object with a name and three methods. `chunks` runs in one process: it opens, decompresses and splits
into raw documents, in constant memory, and is fast. `documents` turns what one chunk holds into documents, can run
anywhere, and is where the time goes (wikitext above all). `stamp` tells whether it is still the same data.
A source that is no file is one such class and one line in SOURCES; a format of files is one line in formats.FORMATS.
"""

import bz2
import collections
import dataclasses
import gzip
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from etils import epath

from input_pipeline import records
from input_pipeline.text import formats

CHUNK_BYTES = 2 << 20  # of raw text that a worker gets at once
_SAMPLE_FILE = 'test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2'
_MAGIC = {b'\x1f\x8b': gzip.open, b'BZh': bz2.open}
_WILD = frozenset('*?[')


class Source(Protocol):
  """Text that `--input` can name.

  It travels to other processes, so it must be picklable, and so must what a chunk holds.
  """

  @property
  def name(self) -> str:
    """What messages call it."""

  def stamp(self) -> 'Stamp':
    """Which data it is."""

  def chunks(self, chunk_bytes: int) -> Iterator:
    """Its raw documents in parts of about so many bytes, always the same ones in the same order. Raises DataError."""

  def documents(self, content) -> 'Parsed':
    """The documents of one of its chunks, and the counts of what else was in it. Raises DataError."""


@dataclasses.dataclass(frozen=True)
class Stamp:
  """Tells data from other data: what a killed run left can be used while it is the same."""
  identity: str  # two sources that have the same one are the same data, whatever they are called
  bytes: int = 0
  time: int = 0


@dataclasses.dataclass(frozen=True)
class Part:
  """A source and its part in a mix."""
  source: Source
  weight: float  # how often each document is taken
  stamp: Stamp


@dataclasses.dataclass(frozen=True)
class Chunk:
  """Raw documents of one source, ready to be sent to another process."""
  source: Source
  content: object  # what its `documents` takes
  weight: float = 1


@dataclasses.dataclass(frozen=True)
class Parsed:
  documents: tuple[formats.Document, ...]
  counts: collections.Counter  # 'bytes' of the chunk, 'pages', and what was dropped, by reason


def documents(input: str, format: str | None = None,
              counts: collections.Counter | None = None) -> Iterator[formats.Document]:
  """The documents of `--input` one after the other, as often as its weights say; `counts` receives what was seen and
  dropped."""
  for chunk in chunks(mixture(input, format)):
    parsed = parse(chunk)
    if counts is not None:
      counts.update(parsed.counts)
    for document in parsed.documents:
      yield from [document] * times(document, chunk.weight)


def chunks(parts: list[Part], chunk_bytes: int = CHUNK_BYTES) -> Iterator[Chunk]:
  """The parts of a mix as chunks, in their order. Raises DataError."""
  for part in parts:
    for content in part.source.chunks(chunk_bytes):
      yield Chunk(part.source, content, part.weight)


def parse(chunk: Chunk) -> Parsed:
  """The documents of a chunk, and the count of everything else in it. Raises DataError."""
  parsed = chunk.source.documents(chunk.content)
  parsed.counts['documents'] = len(parsed.documents)
  return parsed


def times(document: formats.Document, weight: float) -> int:
  """How often a document of a source with this weight is taken: 0.3 takes 3 of 10, 2.5 takes all twice and half of them
  thrice."""
  digest = hashlib.blake2b(b'weight ' + document.id.encode('utf-8', 'surrogatepass'), digest_size=8).digest()
  return int(weight) + (int.from_bytes(digest, 'little') < (weight - int(weight)) * 2**64)


def mixture(input: str, format: str | None = None) -> list[Part]:
  """The sources of A=WEIGHT,B=WEIGHT …, each once, however often it is named. Raises DataError.

  A weight that is not there is 1. A name with a comma or an equals sign in it works where there is such a file.
  """
  if format is not None and format not in formats.FORMATS:
    raise records.DataError(f'--format {format} is not one of {", ".join(formats.FORMATS)}')
  parts = {}
  for name, weight in _weighted_names(input):
    for source in _sources(name, format):
      stamp = source.stamp()
      first = parts.setdefault(stamp.identity, Part(source, weight, stamp))
      if first.weight != weight:
        raise records.DataError(
            f'--input {input} names {source.name} with the weights {first.weight:g} and {weight:g}: '
            'give it one weight, or choose globs that do not overlap')
  if format is not None and not any(isinstance(part.source, File) for part in parts.values()):
    raise records.DataError(
        f'--format {format} has no effect on --input {input}, which names no file: leave --format out')
  return list(parts.values())


def _weighted_names(input: str) -> list[tuple[str, float]]:
  whole = ',' not in input or _exists(input)
  found = []
  for name in [input] if whole else [name for name in input.split(',') if name]:
    stem, equals, weight = name.rpartition('=')
    if not equals or _exists(name):
      stem, weight = name, '1'
    try:
      found.append((stem, float(weight)))
    except ValueError as error:
      raise records.DataError(f'--input {name}: there is no such file, and {weight!r} is not a weight') from error
    if not 0 < found[-1][1] <= 100:
      raise records.DataError(f'--input {name}: a weight is how often a document is taken, above 0 and at most 100')
  return found


def _exists(name: str) -> bool:
  return _kind(name) not in SOURCES and epath.Path(name).expanduser().exists()


def _kind(name: str) -> str:
  return name.partition(':')[0]


def _sources(name: str, format: str | None) -> list[Source]:
  return SOURCES.get(_kind(name), files)(name, format)

# ---------------------------------------------------------------- files


def files(name: str, format: str | None) -> list[Source]:
  """The files of a path or a glob, local or gs://. Raises DataError."""
  if not _WILD.intersection(name):
    path = epath.Path(name).expanduser()
    if not path.exists():
      raise records.DataError(f'--input {name}: there is no such file')
    if path.is_dir():
      raise records.DataError(
          f'--input {name} is a directory: name its files with a glob such as "{name.rstrip("/")}/*"')
    return [File(str(path), format)]
  parts = name.split('/')
  first = next(i for i, part in enumerate(parts) if _WILD.intersection(part))
  base = epath.Path('/'.join(parts[:first]) or ('/' if name.startswith('/') else '.')).expanduser()
  found = sorted(path for path in base.glob('/'.join(parts[first:])) if not path.is_dir()) if base.exists() else []
  if not found:
    raise records.DataError(f'--input {name}: no file matches this glob')
  return [File(str(path), format) for path in found]


def sample(name: str, format: str | None) -> list[Source]:
  """`sample`: a slice of a Wikipedia dump. Raises DataError."""
  spec = importlib.util.find_spec('gensim')  # found, not imported: importing gensim takes seconds
  path = pathlib.Path(spec.origin).parent / _SAMPLE_FILE if spec and spec.origin else None
  if path is None or not path.exists():
    raise records.DataError(
        "--input sample is the slice of a Wikipedia dump in gensim's wheel, which is not installed here: "
        "pip install 'bert_jax[sample]'")
  return [File(str(path), format)]


@dataclasses.dataclass(frozen=True)
class RawDocuments:
  """What a chunk of a file holds."""
  parse: Callable[[str, tuple, str], 'formats.Document | str']  # of its format
  context: tuple  # what `parse` must know of the file: the namespaces of a dump
  raw: tuple[tuple[int, bytes], ...]  # (byte offset in the decompressed file, bytes)


@dataclasses.dataclass(frozen=True)
class File:
  """A file, compressed or not, in a format that its content or its name tells."""
  name: str
  format: str | None = None  # None: told by its content

  def stamp(self) -> Stamp:
    path = epath.Path(self.name)
    found = path.stat()
    if '://' in self.name:
      return Stamp(self.name, found.length, int(found.mtime))
    local = os.stat(path)  # by its place on the disk: a link to a file is the file
    return Stamp(f'{local.st_dev}:{local.st_ino}', found.length, int(found.mtime))

  def chunks(self, chunk_bytes: int) -> Iterator[RawDocuments]:
    raw, size, before = [], 0, ()
    with epath.Path(self.name).open('rb') as file:
      stream = _decompressed(file)
      try:
        format = formats.FORMATS[self.format or formats.recognize(stream.peek(1 << 12), os.path.basename(self.name))]
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
    return _parse_raw(self.name, content)


def _parse_raw(name: str, content: RawDocuments) -> Parsed:
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
    result = content.parse(text, content.context, f'{name}, byte {offset}')
    counts['pages'] += 1
    if isinstance(result, str):
      counts[result] += 1
    else:
      found.append(result)
  return Parsed(tuple(found), counts)


def _line_number(raw: bytes, at: int, offset: int) -> str:
  line = raw.count(b'\n', 0, at) + 1
  return str(line) if offset == 0 else f'{line} of the document that starts at byte {offset}'


def _decompressed(file: BinaryIO) -> BinaryIO:
  """A buffered stream of the file's content, whatever it is called."""
  head = file.read(4)
  file.seek(0)
  for magic, open_ in _MAGIC.items():
    if head.startswith(magic):
      return io.BufferedReader(open_(file, 'rb'), 1 << 20)
  return io.BufferedReader(file, 1 << 20)

# ---------------------------------------------------------------- TensorFlow Datasets


def tfds(name: str, format: str | None) -> list[Source]:
  """`tfds:wikipedia/20230601.en`, `tfds:DIRECTORY`, either with `:SPLIT` after it."""
  return [DataSet(name)]


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A data set of TFDS that has a feature named text; its examples travel as JSON lines."""
  name: str

  def stamp(self) -> Stamp:
    return Stamp(self.name)  # its name has a version, and opening it would import TensorFlow

  def chunks(self, chunk_bytes: int) -> Iterator[RawDocuments]:
    raw, size = [], 0
    for number, example in enumerate(self._examples()):
      fields = {key: value.decode() if isinstance(value, bytes) else str(value)
                for key, value in example.items() if key in ('id', 'title', 'text')}
      raw.append((number, json.dumps(fields).encode()))
      size += len(raw[-1][1])
      if size > chunk_bytes:
        yield RawDocuments(formats.parse_jsonl, (), tuple(raw))
        raw, size = [], 0
    if raw:
      yield RawDocuments(formats.parse_jsonl, (), tuple(raw))

  def documents(self, content: RawDocuments) -> Parsed:
    return _parse_raw(self.name, content)

  def _examples(self) -> Iterator[dict]:
    import tensorflow_datasets as tfds
    name, _, split = self.name.removeprefix('tfds:').partition(':')
    try:
      builder = tfds.builder_from_directory(name) if epath.Path(name).exists() else tfds.builder(name)
      if not epath.Path(builder.data_dir).exists():
        builder.download_and_prepare()
      examples = tfds.as_numpy(builder.as_dataset(
          split=split or 'train', read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)))
    except Exception as error:  # TFDS raises many kinds
      raise records.DataError(f'--input {self.name}: {" ".join(str(error).split())[:300]}') from error
    if 'text' not in builder.info.features:
      raise records.DataError(
          f'--input {self.name} has the features {", ".join(builder.info.features)}: wanted one named text')
    return examples


# What a name of `--input` begins with, before its colon if it has one -> the sources that it names; any other name is
# of files.
SOURCES: dict[str, Callable[[str, str | None], list[Source]]] = {'sample': sample, 'tfds': tfds}

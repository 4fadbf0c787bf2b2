"""Where text comes from: dumps, WikiExtractor output, plain text, JSON lines; each yields Document(id, title, text).

Reading has two halves. `chunks` runs in one process: it opens, decompresses and splits files into raw documents, in constant
memory, and is fast. `parse` turns a chunk into documents, can run anywhere, and is where the time goes (wikitext above all).
A new format is one `split`, one `parse`, and one line in FORMATS.
"""

import bz2
import collections
import dataclasses
import gzip
import importlib.util
import io
import json
import pathlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from etils import epath

from input_pipeline import records
from input_pipeline.text import formats

SAMPLE, TFDS = 'sample', 'tfds:'
_SAMPLE_FILE = 'test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2'
_CHUNK_BYTES = 2 << 20
_MAGIC = {b'\x1f\x8b': gzip.open, b'BZh': bz2.open}
_WILD = frozenset('*?[')


def documents(source: str, format: str | None = None, counts: collections.Counter | None = None) -> Iterator[formats.Document]:
  """The documents of SOURCE one after the other; `counts` receives what was seen and dropped. Raises DataError."""
  for chunk in chunks(source, format):
    parsed = parse(chunk)
    if counts is not None:
      counts.update(parsed.counts)
    yield from parsed.documents


def chunks(source: str, format: str | None = None, chunk_bytes: int = _CHUNK_BYTES) -> Iterator['Chunk']:
  """SOURCE as chunks of raw documents, about `chunk_bytes` each, in the order of the files. Raises DataError."""
  if format is not None and format not in formats.FORMATS:
    raise records.DataError(f'--format {format} is not one of {", ".join(formats.FORMATS)}')
  for part in mixture(source):
    if part.source.startswith(TFDS):
      yield from tfds_chunks(part, chunk_bytes)
    for path in files(part.source):
      yield from file_chunks(path, format, chunk_bytes, part.weight)


def mixture(source: str) -> list['Weighted']:
  """The sources of A=WEIGHT,B=WEIGHT … ; a weight that is not there is 1. A name with a comma in it works where it is the only one."""
  if ',' not in source or _exists(source):
    names = [source]
  else:
    names = [name for name in source.split(',') if name]
  found = []
  for name in names:
    stem, equals, weight = name.rpartition('=')
    if not equals or _exists(name):
      stem, weight = name, '1'
    try:
      found.append(Weighted(stem, float(weight)))
    except ValueError as error:
      raise records.DataError(f'--input {name}: there is no such file, and {weight!r} is not a weight') from error
    if not 0 < found[-1].weight <= 100:
      raise records.DataError(f'--input {name}: a weight is how often a document is taken, above 0 and at most 100')
  return found


def _exists(name: str) -> bool:
  return not name.startswith(TFDS) and epath.Path(name).expanduser().exists()


def parse(chunk: 'Chunk') -> 'Parsed':
  """The documents of a chunk, and the count of everything else in it. Raises DataError."""
  parse_one = formats.FORMATS[chunk.format].parse
  counts, found = collections.Counter(), []
  for offset, raw in chunk.raw:
    counts['bytes'] += len(raw)
    try:
      text = raw.decode()
    except UnicodeDecodeError as error:
      raise records.DataError(
          f'{chunk.file} is not UTF-8: byte 0x{raw[error.start]:02x} at byte {offset + error.start} of the (decompressed) file, '
          f'line {_line_number(raw, error.start, offset)}; wanted UTF-8 text: convert it with iconv') from error
    result = parse_one(text, chunk.context, f'{chunk.file}, byte {offset}')
    counts['pages'] += 1
    if isinstance(result, str):
      counts[result] += 1
    else:
      found.append(result)
  counts['documents'] = len(found)
  return Parsed(tuple(found), counts)


def _line_number(raw: bytes, at: int, offset: int) -> str:
  line = raw.count(b'\n', 0, at) + 1
  return str(line) if offset == 0 else f'{line} of the document that starts at byte {offset}'


def files(source: str) -> list[epath.Path]:
  """The files that a SOURCE names: `sample`, a path, or a glob, local or gs://. Raises DataError."""
  if source.startswith(TFDS):
    return []
  if source == SAMPLE:
    return [epath.Path(_sample())]
  if not _WILD.intersection(source):
    path = epath.Path(source).expanduser()
    if not path.exists():
      raise records.DataError(f'--input {source}: there is no such file')
    if path.is_dir():
      raise records.DataError(f'--input {source} is a directory: name its files with a glob such as "{source.rstrip("/")}/*"')
    return [path]
  parts = source.split('/')
  first = next(i for i, part in enumerate(parts) if _WILD.intersection(part))
  base = epath.Path('/'.join(parts[:first]) or ('/' if source.startswith('/') else '.')).expanduser()
  found = sorted(path for path in base.glob('/'.join(parts[first:])) if not path.is_dir()) if base.exists() else []
  if not found:
    raise records.DataError(f'--input {source}: no file matches this glob')
  return found


def _sample() -> pathlib.Path:
  spec = importlib.util.find_spec('gensim')  # found, not imported: importing gensim takes seconds
  path = pathlib.Path(spec.origin).parent / _SAMPLE_FILE if spec and spec.origin else None
  if path is None or not path.exists():
    raise records.DataError("--input sample is the slice of a Wikipedia dump in gensim's wheel, which is not installed here: "
                            "pip install 'bert_jax[sample]'")
  return path


def file_chunks(path: epath.Path, format: str | None, chunk_bytes: int, weight: float = 1) -> Iterator['Chunk']:
  raw, size, chunk_context = [], 0, ()
  with path.open('rb') as file:
    stream = _decompressed(file)
    try:
      name = format or formats.sniff(stream.peek(1 << 12), path.name)
      for offset, data, context in formats.FORMATS[name].split(stream, str(path)):
        if size and (size + len(data) > chunk_bytes or context != chunk_context):
          yield Chunk(str(path), name, chunk_context, tuple(raw), weight)
          raw, size = [], 0
        chunk_context = context
        raw.append((offset, data))
        size += len(data)
    except (EOFError, OSError, zlib.error) as error:
      raise records.DataError(f'{path} is truncated or damaged ({error}): wanted a whole file; download it again') from error
  if raw:
    yield Chunk(str(path), name, chunk_context, tuple(raw), weight)


def tfds_chunks(part: 'Weighted', chunk_bytes: int) -> Iterator['Chunk']:
  """The examples of a TFDS data set as JSON lines: `tfds:wikipedia/20230601.en`, `tfds:DIRECTORY`, either with `:SPLIT` behind it."""
  import tensorflow_datasets as tfds
  name, _, split = part.source.removeprefix(TFDS).partition(':')
  try:
    builder = tfds.builder_from_directory(name) if epath.Path(name).exists() else tfds.builder(name)
    if not epath.Path(builder.data_dir).exists():
      builder.download_and_prepare()
    examples = tfds.as_numpy(builder.as_dataset(
        split=split or 'train', read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)))
  except Exception as error:  # TFDS raises many kinds
    raise records.DataError(f'--input {part.source}: {" ".join(str(error).split())[:300]}') from error
  if 'text' not in builder.info.features:
    raise records.DataError(f'--input {part.source} has the features {", ".join(builder.info.features)}: wanted one named text')
  raw, size = [], 0
  for number, example in enumerate(examples):
    fields = {key: value.decode() if isinstance(value, bytes) else str(value)
              for key, value in example.items() if key in ('id', 'title', 'text')}
    raw.append((number, json.dumps(fields).encode()))
    size += len(raw[-1][1])
    if size > chunk_bytes:
      yield Chunk(part.source, 'jsonl', (), tuple(raw), part.weight)
      raw, size = [], 0
  if raw:
    yield Chunk(part.source, 'jsonl', (), tuple(raw), part.weight)


def _decompressed(file: BinaryIO) -> BinaryIO:
  """A buffered stream of the file's content, whatever it is called."""
  head = file.read(4)
  file.seek(0)
  for magic, open_ in _MAGIC.items():
    if head.startswith(magic):
      return io.BufferedReader(open_(file, 'rb'), 1 << 20)
  return io.BufferedReader(file, 1 << 20)


@dataclasses.dataclass(frozen=True)
class Chunk:
  """Raw documents of one file, ready to be sent to another process."""
  file: str
  format: str
  context: tuple  # what `parse` must know of the file: the namespaces of a dump
  raw: tuple[tuple[int, bytes], ...]  # (byte offset in the decompressed file, bytes)
  weight: float = 1


@dataclasses.dataclass(frozen=True)
class Weighted:
  source: str
  weight: float  # how often each document is taken


@dataclasses.dataclass(frozen=True)
class Parsed:
  documents: tuple[formats.Document, ...]
  counts: collections.Counter

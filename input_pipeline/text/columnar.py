"""Tables in columns: Parquet, and Arrow's files and streams, of which `datasets.save_to_disk` makes folders.

Only the columns that are wanted are read, a few rows at once; each row travels as JSON.
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from input_pipeline import records
from input_pipeline.text import compression, document, fields
from input_pipeline.text.compression import Section
from input_pipeline.text.document import Options

_BATCH_BYTES = 4 << 20  # of the rows that are in memory at once, about
_MAGIC = b'ARROW1\x00\x00'
_STREAM = b'\xff\xff\xff\xff'  # then comes the length of the schema

Choice = Callable[[Any], list[str]]  # schema -> the columns that are read


def is_parquet(start: bytes, name: str) -> bool:
  return start.startswith(b'PAR1\x15')  # the second is the first of Thrift's: PAR1 alone is a gene


def is_arrow(start: bytes, name: str) -> bool:
  return start.startswith((_MAGIC, _STREAM))


def split_parquet(stream: io.BufferedReader, name: str, options: Options) -> Iterator[document.Raw]:
  for number, batch in _parquet(stream, name, lambda schema: _columns(schema, name, options)):
    yield from _rows(batch, number, name)


def split_section(section: Section, name: str, options: Options) -> Iterator[document.Raw]:
  """Of a part of a Parquet file, the groups of rows whose first byte is in it."""
  chosen = lambda place: section.start <= place < section.end
  for number, batch in _groups(section.file, name, lambda schema: _columns(schema, name, options), chosen):
    yield from _rows(batch, number, name)


def split_arrow(stream: io.BufferedReader, name: str, options: Options) -> Iterator[document.Raw]:
  for number, batch in _arrow(stream, name, lambda schema: _columns(schema, name, options)):
    yield from _rows(batch, number, name)


def batches(stream: io.BufferedReader, name: str, choose: Choice) -> Iterator[tuple[int, Any]]:
  """(number of its first row, batch of rows with the columns that `choose` takes) of a file of either kind."""
  yield from (_parquet if is_parquet(stream.peek(document.READ), name) else _arrow)(stream, name, choose)


def _parquet(stream: io.BufferedReader, name: str, choose: Choice) -> Iterator[tuple[int, Any]]:
  file = compression.file_of(stream)
  if file is None:
    raise records.DataError(f'{name}: Parquet is read from its end: wanted a file that is not compressed, and no pipe')
  yield from _groups(file, name, choose, lambda place: True)


def _groups(file: BinaryIO, name: str, choose: Choice, chosen: Callable[[int], bool]) -> Iterator[tuple[int, Any]]:
  """`chosen`: whether the group of rows whose first byte is there is read."""
  import pyarrow.parquet
  with _named(name):
    parquet = pyarrow.parquet.ParquetFile(file, memory_map=False, pre_buffer=False, buffer_size=document.READ)
    columns = choose(parquet.schema_arrow)
    number = 0
    for group in range(parquet.num_row_groups):
      about = parquet.metadata.row_group(group)
      if not chosen(_place_of(about)):
        number += about.num_rows
        continue
      rows = max(1, min(1024, about.num_rows * _BATCH_BYTES // max(1, about.total_byte_size)))
      for batch in parquet.iter_batches(rows, [group], columns, use_threads=False):
        yield number, batch
        number += batch.num_rows


def _place_of(group: Any) -> int:
  """The first byte of a group of rows; one of a table without columns has none."""
  columns = [group.column(number) for number in range(group.num_columns)]
  pages = [page for column in columns for page in (column.data_page_offset, column.dictionary_page_offset) if page]
  return min(pages, default=0)


def _arrow(stream: io.BufferedReader, name: str, choose: Choice) -> Iterator[tuple[int, Any]]:
  """A file is a stream with a few bytes before and after it."""
  import pyarrow
  is_file = stream.peek(len(_MAGIC)).startswith(_MAGIC)
  if is_file:
    stream.read(len(_MAGIC))
  with _named(name):
    reader = pyarrow.ipc.open_stream(stream)
    columns, number = choose(reader.schema), 0
    for batch in reader:
      wanted = batch.select(columns)
      wanted.validate(full=True)  # a damaged offset would be read as memory
      rows = max(1, batch.num_rows * _BATCH_BYTES // max(1, wanted.nbytes))
      for start in range(0, batch.num_rows, rows):
        yield number + start, wanted.slice(start, rows)
      number += batch.num_rows
    if is_file and not _last(stream).endswith(_MAGIC.rstrip(b'\x00')):  # whole batches, but perhaps not all
      raise pyarrow.ArrowInvalid('it has no end')


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
  import pyarrow
  try:
    yield
  except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
    if getattr(error, 'errno', None):
      raise  # of the file's storage, not of what is in it
    said = ' '.join(str(error).split())[:200]
    raise records.DataError(f'{name} is truncated or damaged ({said}): wanted a whole file; download it again'
                            ) from error


def _columns(schema: Any, name: str, options: Options) -> list[str]:
  """The columns that hold what is wanted. Raises DataError where one is missing."""
  found = []
  for flag, chosen, usual in (('text', options.text_field, 'text'), ('id', options.id_field, 'id'),
                              ('title', options.title_field, 'title')):
    wanted = chosen or usual
    for one in (wanted, wanted.partition('.')[0]):
      fields.check_once(schema.names, one, name)
    column = next((column for column in (wanted, wanted.partition('.')[0]) if column in schema.names), None)
    if column is not None:
      found.append(column)
    elif flag == 'text':
      raise records.DataError(f'{name} has {fields.missing(schema.names, options.text_field)}')
    elif chosen is not None:
      raise records.DataError(f'{name} has no column {chosen!r}, which --{flag}-field names '
                              f'(found: {", ".join(schema.names)[:200]})')
  return list(dict.fromkeys(found))


def _last(stream: io.BufferedReader) -> bytes:
  """The last bytes of a stream, of which the rest is read."""
  last = b''
  while block := stream.read(document.READ):
    last = (last + block)[-len(_MAGIC):]
  return last


def _rows(batch: Any, number: int, name: str) -> Iterator[document.Raw]:
  for place, row in enumerate(batch.to_pylist()):
    try:
      raw = json.dumps(row, default=_plain).encode()
    except UnicodeDecodeError as error:
      raise records.DataError(f'{name}, row {number + place} is not UTF-8 (byte 0x{error.object[error.start]:02x}): '
                              'write its text as UTF-8') from error
    yield number + place, raw if len(raw) <= document.LONGEST_RECORD else None, ()


def _plain(value: Any) -> str:
  """What JSON has no kind for: bytes are UTF-8; dates and the like as they are written."""
  return value.decode() if isinstance(value, bytes) else str(value)

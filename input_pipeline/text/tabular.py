"""Tables whole in memory, as rows with named cells: CSV, TSV, JSON, Parquet, Arrow, a data set of TFDS.

For what is small and has columns with names, as the examples of a task; formats.py reads text that is not so.
"""

import contextlib
import csv
import dataclasses
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from input_pipeline import input_files, storage
from input_pipeline.errors import DataError
from input_pipeline.text import columnar, compression, data_sets, document, fields, formats, given, json_files, tables

TFDS = 'tfds:'  # before the name of a data set of TensorFlow Datasets


@dataclasses.dataclass(frozen=True)
class Row:
  """A row: what is in its cells, text or another value of JSON, and where it stands."""
  cells: dict[str, Any]
  place: str  # 'train.csv, line 3'


@dataclasses.dataclass(frozen=True)
class Table:
  """A file or a split, read."""
  name: str
  columns: tuple[str, ...]
  """All that there are, in order, though only some may have been kept."""
  rows: tuple[Row, ...]
  dropped: int = 0
  """Rows with fewer cells than columns, where these are passed over."""


def read(name: storage.PathLike, keep: Collection[str] | None = None) -> Table:
  """A file of any of these kinds, compressed or not, or `tfds:NAME:SPLIT`.

  `keep`: the columns whose cells are kept; None: all. Raises DataError, which names the file and the line.
  """
  if str(name).startswith(TFDS):
    return _of_tfds(str(name), keep)
  with _opened(name) as (stream, kind):
    if kind not in _READERS:
      raise DataError(f'{name} is no table ({kind} by its content and name): wanted CSV, TSV, JSON lines, Parquet or '
                      'Arrow')
    return _READERS[kind](stream, str(name), keep)


def read_unquoted(name: storage.PathLike, keep: Collection[str] | None = None, columns: Sequence[str] = (),
                  loose: bool = False) -> Table:
  """A TSV in which quotes are text like any other, as GLUE's are: what its own readers call QUOTE_NONE.

  `columns`: the names of the columns of a file whose first row has as many cells and none of these names. `loose`: rows
  with fewer cells than columns are dropped and counted. Raises DataError.
  """
  lines = ((line, line.split('\t')) for line in given.lines(name) if line.strip())
  first = next(lines, None)
  if first is None:
    raise DataError(f'{name} is empty: wanted a table')
  header, rest = tuple(cell.strip() for cell in first[1]), lines
  if columns and len(header) == len(columns) and not set(header) & set(columns):
    header, rest = tuple(columns), (pair for part in ((first,), lines) for pair in part)
  dropped = 0

  def whole() -> Iterator[tuple[str, Sequence[str]]]:
    nonlocal dropped
    for line, cells in rest:
      dropped += (short := loose and len(cells) < len(header))
      if not short:
        yield line.place, cells

  table = _of_cells(whole(), str(name), header, keep)
  return dataclasses.replace(table, dropped=dropped)


@contextlib.contextmanager
def _opened(name: storage.PathLike) -> Iterator[tuple[io.BufferedReader, str]]:
  """The content of a file, and its format."""
  with storage.named_errors(str(name)), input_files.reading(name) as file:
    try:
      stream = compression.content(file)
      yield stream, formats.recognize(stream.peek(document.READ), str(name))
    except compression.Damaged as error:
      raise DataError(f'{name} is truncated or damaged ({error}): wanted a whole file') from error

# ---------------------------------------------------------------- one reader for each format


def _of_cells(rows: Iterable[tuple[str, Sequence[str]]], name: str, header: Sequence[str],
              keep: Collection[str] | None) -> Table:
  """Rows of (place, cells) below a header."""
  wanted = [(place, column) for place, column in enumerate(header) if keep is None or column in keep]
  for _, column in wanted:
    fields.check_once(list(header), column, name)
  found = []
  for place, cells in rows:
    if len(cells) != len(header):
      raise DataError(f'{place}: a row of {len(cells)} cells in a table of {len(header)} columns '
                      f'({", ".join(header)[:200]})')
    found.append(Row({column: cells[at] for at, column in wanted}, place))
  return Table(name, tuple(header), tuple(found))


def _csv(stream: io.BufferedReader, name: str, keep) -> Table:
  return _separated(stream, name, tables.separator_of(stream.peek(document.READ)), keep)


def _tsv(stream: io.BufferedReader, name: str, keep) -> Table:
  return _separated(stream, name, '\t', keep)


def _separated(stream: io.BufferedReader, name: str, separator: str, keep) -> Table:
  quoted = tables.is_quoted(stream.peek(document.READ)[:tables.LOOKED_AT].decode('latin-1'), separator)
  rows = _cells(stream, name, separator, quoted)
  header = next(rows, None)
  if header is None:
    raise DataError(f'{name} is empty: wanted a table')
  return _of_cells(rows, name, tuple(cell.strip() for cell in header[1]), keep)


def _cells(stream: io.BufferedReader, name: str, separator: str, quoted: bool) -> Iterator[tuple[str, list[str]]]:
  """(place, cells) of each row; a quoted cell may have line ends in it."""
  taken: list[given.Line] = []

  def lines() -> Iterator[str]:
    for line in given.of_stream(stream, name):
      taken.append(line)
      yield f'{line}\n'
    if taken:  # the reader wants more for the row that it has begun
      raise csv.Error('it ends inside quotes')

  reader = tables.reader(lines(), separator, quoted)
  try:
    for cells in reader:
      if cells:
        yield taken[0].place, cells
      taken.clear()
  except csv.Error as error:
    raise DataError(f'{taken[0].place if taken else name}: no row of a table ({error}); is a quote never closed?'
                    ) from error


def _json_lines(stream: io.BufferedReader, name: str, keep) -> Table:
  values = ((line.place, line) for line in given.of_stream(stream, name) if line.strip())
  return _of_objects(((place, json_files.value_of(line, place)) for place, line in values), name, keep)


def _json_array(stream: io.BufferedReader, name: str, keep) -> Table:
  def values() -> Iterator[tuple[str, Any]]:
    for number, (_, raw, _) in enumerate(json_files.split_array(stream, name, formats.USUAL), 1):
      place = f'{name}, element {number}'
      try:
        yield place, json_files.value_of((raw or b'').decode(), place)
      except UnicodeDecodeError as error:
        raise DataError(f'{place} is not UTF-8 (byte 0x{error.object[error.start]:02x}): convert it with iconv'
                        ) from error
  return _of_objects(values(), name, keep)


def _columnar(stream: io.BufferedReader, name: str, keep) -> Table:
  columns: list[str] = []

  def choose(schema: Any) -> list[str]:
    columns[:] = schema.names
    wanted = [column for column in columns if keep is None or column in keep]
    for column in wanted:
      fields.check_once(columns, column, name)
    return wanted

  rows = [(f'{name}, row {number + at + 1}', cells) for number, batch in columnar.batches(stream, name, choose)
          for at, cells in enumerate(batch.to_pylist())]
  return _of_objects(rows, name, keep, columns)


def _of_objects(values: Iterable[tuple[str, Any]], name: str, keep, columns: Iterable[str] = ()) -> Table:
  """Rows of (place, {column: value}); without `columns`, those of any row are the table's."""
  names, found = dict.fromkeys(columns), []
  for place, value in values:
    if not isinstance(value, dict):
      raise DataError(f'{place}: JSON of the kind {type(value).__name__}: wanted an object, such as {{"text": …}}')
    names |= dict.fromkeys(value)
    found.append(Row(value if keep is None else {key: cell for key, cell in value.items() if key in keep}, place))
  return Table(name, tuple(names), tuple(found))


_READERS = {'csv': _csv, 'tsv': _tsv, 'jsonl': _json_lines, 'json': _json_array, 'parquet': _columnar,
            'arrow': _columnar}

# ---------------------------------------------------------------- TFDS


def splits_of(name: str) -> tuple[str, ...]:
  """The names of the splits of `tfds:NAME`. Raises DataError."""
  return tuple(data_sets.opened(data_sets.reference(name), f'--data {name}').info.splits)


def _of_tfds(name: str, keep: Collection[str] | None) -> Table:
  what = f'--data {name}'
  wanted = data_sets.reference(name)
  builder = data_sets.opened(wanted, what)
  features = builder.info.features
  rows = []
  for number, example in enumerate(data_sets.examples(builder, wanted.split, what)):
    cells = {column: _cell(features[column], value, what, number) for column, value in example.items()
             if keep is None or column in keep}
    rows.append(Row(cells, f'{name}, example {number}'))
  return Table(name, tuple(features), tuple(rows))


def _cell(feature: Any, value: Any, what: str, number: int) -> Any:
  """A class by its name, None for the -1 of a test set without labels; a text; a number."""
  if hasattr(feature, 'int2str'):
    return None if value < 0 else feature.int2str(int(value))
  if isinstance(value, bytes):
    return data_sets.decoded(value, what, number)
  return value.item() if isinstance(value, np.generic) else value

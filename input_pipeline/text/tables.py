"""Tables as text: CSV, and TSV, which has quotes or has none.

The context is the table's shape: what separates its cells, whether quotes enclose them, and the names of its columns.
"""

import collections
import csv
import io
import re
from collections.abc import Iterator

from input_pipeline import records
from input_pipeline.text import document, fields
from input_pipeline.text.document import Document, Options

_CSV, _TSV = re.compile(r'\.csv\b', re.IGNORECASE), re.compile(r'\.(tsv|tab)\b', re.IGNORECASE)
_SEPARATORS = ',;|'
_COLUMN = re.compile(r'[\w#]([\w .:/()#-]{0,62}[\w)])?')  # of text, after whose commas come spaces, no two are
_ROWS = 5  # that a table without a name that tells has at least, all of as many cells
LOOKED_AT = 1 << 16  # bytes

Shape = tuple[str, bool, tuple[str, ...]]  # (separator, whether cells are quoted, names of the columns)


def is_csv(start: bytes, name: str) -> bool:
  return bool(_CSV.search(name)) or not _TSV.search(name) and any(_is_table(start, one) for one in _SEPARATORS)


def is_tsv(start: bytes, name: str) -> bool:
  return bool(_TSV.search(name)) or not _CSV.search(name) and _is_table(start, '\t')


def _is_table(start: bytes, separator: str) -> bool:
  """Whether all its first rows have as many cells as the first, which is made of names; of tabs the rows are enough."""
  text = start[:LOOKED_AT].decode('latin-1')
  if separator not in text.partition('\n')[0]:
    return False
  rows = _first_rows(text, separator, is_quoted(text, separator))
  if rows is None or len(rows) <= _ROWS and len(start) > LOOKED_AT:
    return False
  if len({len(row) for row in rows}) != 1 or len(rows) < 2:
    return False
  header = rows[0]
  named = len(set(header)) == len(header) and all(cell and _COLUMN.fullmatch(cell) for cell in header)
  return len(rows) > _ROWS and (named or separator == '\t') or named and 'text' in header


def _first_rows(text: str, separator: str, quoted: bool) -> list[list[str]] | None:
  """The first rows, without the last where it may not be whole; None where it is no table."""
  whole = text if len(text) < LOOKED_AT else text[:text.rfind('\n') + 1]
  try:
    rows = [row for row in reader(io.StringIO(whole, newline=''), separator, quoted, False) if row]
  except csv.Error:
    return None
  return rows[:-1] if len(text) >= LOOKED_AT else rows


def reader(lines, separator: str, quoted: bool, after_spaces: bool = True):
  """`after_spaces`: whether a cell, and so a quote, may begin after spaces; where prose is told from tables it may not.
  """
  csv.field_size_limit(document.LONGEST_RECORD)
  return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
                    skipinitialspace=after_spaces and separator != '\t')


def is_quoted(text: str, separator: str) -> bool:
  """Whether quotes enclose cells. Of tabs: whether each that begins with one ends with one, or else has line ends."""
  if separator != '\t':
    return True
  rows = _first_rows(text, '\t', False)
  if rows is not None and len({len(row) for row in rows}) > 1:  # a quoted cell may have line ends in it
    rows = _first_rows(text, '\t', True)
    return rows is not None and len(rows) > 1 and len({len(row) for row in rows}) == 1
  opened = [cell for row in rows or [] for cell in row if cell.startswith('"')]
  return bool(opened) and all(len(cell) > 1 and cell.endswith('"') for cell in opened)


def separator_of(start: bytes, wanted: str = '') -> str:
  """What separates the cells of a CSV that begins so: the one by which a column has the name that is wanted, or else
  the one that makes most columns."""
  first = start.partition(b'\n')[0].decode('latin-1')
  cells = {separator: [cell.strip(' "\r') for cell in first.split(separator)] for separator in _SEPARATORS}
  return max(cells, key=lambda one: (wanted in cells[one], len(cells[one])))


def split_csv(stream: io.BufferedReader, name: str, options: Options) -> Iterator[document.Raw]:
  return _split(stream, name, options, separator_of(stream.peek(document.READ), options.text_field))


def split_tsv(stream: io.BufferedReader, name: str, options: Options) -> Iterator[document.Raw]:
  return _split(stream, name, options, '\t')


def _split(stream: io.BufferedReader, name: str, options: Options, separator: str) -> Iterator[document.Raw]:
  quoted = is_quoted(stream.peek(document.READ)[:LOOKED_AT].decode('latin-1'), separator)
  taken: list[tuple[int, bytes | None]] = []
  rows = reader(_noted(stream, taken), separator, quoted)
  columns, offset = None, 0
  try:
    for row in rows:
      offset = taken[0][0]
      if row and columns is None:
        columns = _columns(taken, name, options, separator, quoted)
      elif row:
        too_long = any(line is None for _, line in taken)
        yield offset, None if too_long else b''.join(line for _, line in taken), (separator, quoted, columns)
      taken.clear()
  except csv.Error as error:
    raise records.DataError(
        f'{name}, byte {taken[0][0] if taken else offset}: no row of a table ({error}); is a quote never closed? '
        '--format text reads it as prose') from error


def _noted(stream: io.BufferedReader, taken: list[tuple[int, bytes | None]]) -> Iterator[str]:
  """The lines of a stream, which the reader takes as it needs them; as Latin-1, as all that divides is ASCII."""
  for offset, line in document.bounded_lines(stream):
    taken.append((offset, line))
    yield 'too long\n' if line is None else line.decode('latin-1')
  if taken:  # the reader wants more for the row that it has begun
    raise csv.Error('it ends inside quotes')


def _columns(taken: list[tuple[int, bytes | None]], name: str, options: Options, separator: str,
             quoted: bool) -> tuple[str, ...]:
  text = b''.join(line or b'' for _, line in taken).decode('utf-8', 'replace')
  columns = tuple(cell.strip() for cell in next(reader(io.StringIO(text, newline=''), separator, quoted)))
  for flag, column in (('text', options.text_field), ('id', options.id_field), ('title', options.title_field)):
    if column is not None and column not in columns:
      why = fields.missing(list(columns), options.text_field) if flag == 'text' else (
          f'no column {column!r}, which --{flag}-field names (found: {", ".join(columns)[:200]})')
      raise records.DataError(f'{name} is a table whose first row has {why}; --format text reads it as prose')
  for column in (options.text_field, options.id_field or 'id', options.title_field or 'title'):
    fields.check_once(list(columns), column, name)
  return columns


def parse(text: str, context: Shape, place: str, counts: collections.Counter, options: Options) -> Document | str:
  separator, quoted, columns = context
  cells = next(reader(io.StringIO(text, newline=''), separator, quoted))
  if len(cells) != len(columns):
    raise records.DataError(f'{place}: a row of {len(cells)} cells in a table of {len(columns)} columns: '
                            f'{text.strip()[:60]!r}')
  return fields.document_of(dict(zip(columns, cells)), place, options)

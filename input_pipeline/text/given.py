"""Lines that a user gives a command, of a file, compressed or not, or of standard input, one at a time.

Each knows where it stands, so that whatever is wrong with it is told with its file and line.
"""

import json
from collections.abc import Iterator, Sequence
from typing import IO

from input_pipeline import input_files, storage
from input_pipeline.errors import DataError
from input_pipeline.text import compression, document

LONGEST = 1 << 24  # bytes of a line: more is no text, and would fill the memory


class Line(str):
  """A line, or a text in it, that knows its place: 'corpus.txt, line 3'."""
  place: str

  def __new__(cls, text: str, place: str) -> 'Line':
    line = super().__new__(cls, text)
    line.place = place
    return line


def lines(name: storage.PathLike) -> Iterator[Line]:
  """The lines of a file, or of standard input where it is called '-', without what ends them. Raises DataError."""
  is_file = name != input_files.STANDARD_INPUT
  if is_file and (kind := input_files.kind(storage.path(name))) in ('missing', 'folder'):
    raise DataError(f'{name} {"does not exist" if kind == "missing" else "is a folder"}: wanted a file of lines')
  return _of_file(name, str(name) if is_file else 'standard input')


def whole(path: storage.Path) -> str:
  """The text of a file that is read at once. Raises DataError, which names the line of what is not UTF-8."""
  with storage.named_errors(str(path)):
    data = path.read_bytes()
  try:
    return data.removeprefix(document.BOM).decode()
  except UnicodeDecodeError as error:
    line = error.object.count(b'\n', 0, error.start) + 1
    raise DataError(f'{path}, line {line} is not UTF-8 (byte 0x{error.object[error.start]:02x}): convert it with iconv'
                    ) from error


def _of_file(path: storage.PathLike, name: str) -> Iterator[Line]:
  with storage.named_errors(name), input_files.reading(path) as file:
    try:
      yield from of_stream(compression.content(file), name)
    except compression.Damaged as error:
      raise DataError(f'{name} is truncated or damaged ({error}): wanted a whole file') from error


def of_stream(stream: IO[bytes], name: str) -> Iterator[Line]:
  """The lines of a stream; `name` is what errors call it. Raises DataError."""
  number = 0
  while line := stream.readline(LONGEST + 1):
    number += 1
    place = f'{name}, line {number}'
    if len(line) > LONGEST:
      raise DataError(f'{place} has more than {LONGEST:,} bytes: wanted a text in each line')
    try:
      text = line.removeprefix(document.BOM if number == 1 else b'').decode()
    except UnicodeDecodeError as error:
      raise DataError(f'{place} is not UTF-8 (byte 0x{line[error.start]:02x}): convert it with iconv') from error
    yield Line(text.rstrip('\r\n'), place)


def checked(text: str, place: str) -> Line:
  """A text from elsewhere, such as the command line or JSON. Raises DataError where it is no Unicode."""
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise DataError(f'{place} has {text[error.start]!r}, half of a character: wanted text in UTF-8') from error
  return Line(text, place)


def fields(line: Line, wanted: Sequence[str]) -> dict:
  """The JSON object of a line; what is `wanted` there is text. Raises DataError."""
  example = '{' + ', '.join(f'"{name}": "…"' for name in wanted) + '}'
  try:
    found = json.loads(line)
    texts = {name: found[name] for name in wanted}
  except (ValueError, TypeError, KeyError, RecursionError) as error:
    raise DataError(f'{line.place} is not what was wanted ({type(error).__name__}: {error}): {example}') from error
  for name, text in texts.items():
    if not isinstance(text, str):
      raise DataError(f'{line.place}: {name} is {type(text).__name__}, wanted text: {example}')
  return found | {name: checked(text, line.place) for name, text in texts.items()}

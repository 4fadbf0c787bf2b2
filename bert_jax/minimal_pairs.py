"""Minimal pairs from files: JSON lines such as BLiMP's (arXiv:1912.00582), a folder or a zip of them."""

import dataclasses
import zipfile
import zlib
from collections.abc import Iterator

from input_pipeline import input_files, storage
from input_pipeline.errors import DataError, StorageError
from input_pipeline.text import given

LINES = '.jsonl'
GOOD, BAD = 'sentence_good', 'sentence_bad'


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two sentences, of which a speaker takes the first."""
  good: str
  bad: str
  phenomenon: str


def read(name: storage.PathLike, by: str = 'linguistics_term') -> Iterator[Pair]:
  """The pairs of a file of JSON lines, '-' for standard input, of a directory's *.jsonl, or of those in a .zip.

  `by`: the field of a line that names its phenomenon; where there is none, the file's name does. Raises DataError.
  """
  if name == input_files.STANDARD_INPUT:
    return _pairs(given.lines(name), 'standard input', by)
  path = storage.path(name)
  if path.is_dir():
    found = sorted((file for file in storage.files_in(path, f'*{LINES}') if not _is_hidden(file.name)), key=str)
    if not found:
      raise DataError(f'{name} has no *{LINES}: wanted minimal pairs, such as BLiMP\'s folder `data`')
    return (pair for file in found for pair in _pairs(given.lines(str(file)), _stem(file.name), by))
  if path.suffix == '.zip' and path.exists():
    return _of_zip(path, by)
  return _pairs(given.lines(name), _stem(path.name), by)


def _of_zip(path: storage.Path, by: str) -> Iterator[Pair]:
  """Nothing is unpacked: no name in the archive becomes a path."""
  try:
    with storage.named_errors(str(path)), path.open('rb') as file, zipfile.ZipFile(file) as archive:
      members = sorted(member for member in archive.namelist()
                       if member.endswith(LINES) and not any(map(_is_hidden, member.split('/'))))
      if not members:
        raise DataError(f'{path} has no *{LINES} in it: wanted minimal pairs, such as BLiMP\'s')
      for member in members:
        with archive.open(member) as stream:
          yield from _pairs(given.of_stream(stream, f'{path}, {member}'), _stem(member.split('/')[-1]), by)
  except StorageError:
    raise
  except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
    raise DataError(f'{path} cannot be read ({error}): wanted a zip of *{LINES} without a password') from error


def _pairs(lines: Iterator[given.Line], name: str, by: str) -> Iterator[Pair]:
  for line in lines:
    if line.strip():
      found = given.fields(line, (GOOD, BAD))
      yield Pair(found[GOOD], found[BAD], str(found.get(by, name)))


def _is_hidden(name: str) -> bool:
  """What macOS adds to archives is no data."""
  return name == '__MACOSX' or (name.startswith('.') and name.strip('.') != '')


def _stem(name: str) -> str:
  return name.removesuffix('.gz').removesuffix('.bz2').removesuffix(LINES)

"""Directories that an export writes: appearing whole or not at all, and replacing nothing but an earlier export."""

import hashlib
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping

from bert_jax.convert.foreign import check_file, shown
from bert_jax.errors import require
from input_pipeline import places, storage
from input_pipeline.errors import DataError

MARKER = 'bert_jax_export.json'  # says that we wrote the directory, and which files


Verify = Callable[[storage.Path], None]


def write(directory: storage.PathLike, kind: str, files: Mapping[str, bytes], overwrite: bool = False,
          verify: Verify | None = None) -> storage.Path:
  """Writes `files` beside `directory`, then renames; in a bucket the marker comes last. Returns the path.

  `verify` sees the files in a local folder before they appear: where it raises, nothing is left.

  Raises ConfigError where `directory` exists, unless it is empty, or an export of this kind and `overwrite` is set;
  what somebody else wrote, or put beside our files, is never replaced.
  """
  directory = storage.resolved(directory)
  check(directory, kind, overwrite)
  if not storage.is_local(directory):
    if verify:
      with tempfile.TemporaryDirectory() as folder:
        _put(storage.local(folder), files)
        verify(storage.path(folder))
    return _write_objects(directory, kind, files)
  return _write_files(storage.local(directory), kind, files, verify)


def _put(directory: pathlib.Path, files: Mapping[str, bytes]) -> None:
  for name, data in files.items():
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)


def _write_files(directory: pathlib.Path, kind: str, files: Mapping[str, bytes],
                 verify: Verify | None) -> storage.Path:
  directory.parent.mkdir(parents=True, exist_ok=True)
  place = places.workshop(directory)
  places.sweep(directory, place)
  temporary = places.beside(directory, place)
  marker = {'kind': kind, 'files': {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}}
  replaced = [MARKER, *read_marker(directory).get('files', ())]
  try:
    temporary.mkdir()
    _put(temporary, files)
    if verify:
      verify(temporary)
    (temporary / MARKER).write_text(json.dumps(marker, indent=2, sort_keys=True) + '\n')
    places.put_folder(temporary, directory, MARKER, replaced)
  finally:
    storage.remove_tree(temporary)
  return directory


def _write_objects(directory: storage.Path, kind: str, files: Mapping[str, bytes]) -> storage.Path:
  """Objects cannot be renamed together: a marker that names old and new files stands there while they are written."""
  old = set(read_marker(directory).get('files', ()))
  hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
  mark = lambda named: storage.write_whole(
      directory / MARKER, json.dumps({'kind': kind, 'files': named}, indent=2, sort_keys=True) + '\n')
  mark(dict.fromkeys(old, '') | hashes)
  storage.beside_each_other(lambda name: storage.write_whole(directory / name, files[name]), files)
  for name in old - files.keys():
    (directory / name).unlink(missing_ok=True)
  mark(hashes)
  return directory


def check(directory: storage.PathLike, kind: str, overwrite: bool) -> None:
  """Raises ConfigError where `write` would have to destroy something; cheap, so that it comes before the work."""
  directory = storage.path(directory)
  if storage.is_empty(directory):
    return
  require(directory.is_dir(), f'--output {directory} is a file: wanted a directory to make')
  names = set(_names(directory))
  marker = read_marker(directory)
  require(marker.get('kind') == kind,
          f'--output {directory} exists and is not a {kind} export of bert-jax, so it is left as it is: '
          'name another directory')
  strange = sorted(names - set(marker['files']) - {MARKER})
  require(not strange, f'--output {directory} holds files that the export did not write ({", ".join(strange[:5])}), '
                           'so it is left as it is: move them, or name another directory')
  require(overwrite,
          f'--output {directory} exists: pass overwrite=True to replace that export, or name another directory')


def _names(directory: storage.Path, before: str = '') -> Iterator[str]:
  """The files below a directory, by their paths from there."""
  for path in directory.iterdir():
    if path.is_dir():
      yield from _names(path, f'{before}{path.name}/')
    else:
      yield before + path.name


def verify(directory: storage.Path, names: Iterable[str]) -> None:
  """Raises DataError where one of the files is not what the export wrote. One that it did not write is none of its."""
  wanted = read_marker(directory).get('files', {})
  for name in names:
    if name not in wanted:
      continue
    if name.startswith('/') or '..' in name.split('/'):
      raise DataError(f'{directory / MARKER} names {shown(name)}: wanted files of its directory')
    check_file(directory / name)
    shows = directory / shown(name)
    try:
      found = hashlib.sha256((directory / name).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
      raise DataError(f'{shows} cannot be read ({shown(error)}), and the export wrote it: export again') from error
    if found != wanted[name]:
      raise DataError(f'{shows} is not what the export wrote: export again, or remove {MARKER} if the '
                      'change is wanted')


def read_marker(directory: storage.Path) -> dict:
  """{'kind', 'files': {name: SHA-256}}; empty where we did not write `directory`."""
  try:
    marker = json.loads((directory / MARKER).read_text())
    return marker if isinstance(marker['files'], dict) else {}
  except (OSError, ValueError, KeyError, TypeError):
    return {}

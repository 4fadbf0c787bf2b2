"""A directory of data appears whole or not at all: it is made beside its place and renamed; only ours is replaced."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator

from input_pipeline import places, records, storage

FILES = 'content_of_files'  # of the manifest's settings: a hash of what was read; older data has none
_IDENTITY = 'identity.json'


def finished(output: str, settings: dict, vocabulary_sha256: str, overwrite: bool) -> records.Manifest | None:
  """The manifest of `output` where these settings made it, None where it may be made.

  Raises DataError where it is something else.
  """
  path = storage.path(output)
  if storage.is_empty(path):
    return None
  if not (path / records.MANIFEST).exists():
    raise records.DataError(f'--output {output} exists and was not made by `bert-jax prepare`: name another directory')
  try:
    manifest = records.read_manifest(path)
  except records.DataError:
    if overwrite:
      return None
    raise
  found = manifest.settings | {'vocabulary': manifest.vocabulary.sha256}
  wanted = settings | {'vocabulary': vocabulary_sha256}
  if FILES not in found:  # whether the files are the same cannot be told
    wanted.pop(FILES, None)
  different = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
  if not different:
    return manifest
  if overwrite:
    return None
  if different == [FILES]:
    raise records.DataError(f'--output {output} holds data of what was in --input before its files changed: '
                            'name another directory, or pass --overwrite')
  raise records.DataError(
      f'--output {output} holds data of other settings ({_differences(different, found, wanted)}): '
      'name another directory, or pass --overwrite')


def _differences(names: list[str], found: dict, wanted: dict) -> str:
  return ', '.join(f'{name}: {str(found.get(name))[:40]} there, {str(wanted.get(name))[:40]} asked for'
                   for name in names)


@contextlib.contextmanager
def workplace(output: str, identity: dict) -> Iterator[pathlib.Path]:
  """A directory to work in, on the file system of `output` where that is local; removed in the end, or after an error.

  One that a killed or interrupted process left is taken over, with what is in it, if it was for the same work, and else
  removed.
  """
  local = storage.is_local(output)
  target = storage.resolved(output)
  if local:
    storage.local(target).parent.mkdir(parents=True, exist_ok=True)
  parent = places.workshop(storage.local(target)) if local else pathlib.Path(tempfile.gettempdir())
  stem = f'.{target.name}.{socket.gethostname()}.'
  place = parent / f'{stem}{os.getpid()}.partial'
  described = json.dumps(identity, sort_keys=True)
  for leftover in sorted(parent.glob(f'{stem}*.partial')):
    owner = re.fullmatch(r'(\d+)\.partial', leftover.name.removeprefix(stem))
    if owner and (leftover == place or not _alive(int(owner[1]))):
      mark = leftover / _IDENTITY
      if mark.exists() and mark.read_text() == described and (leftover == place or not place.exists()):
        leftover.rename(place)
      else:
        shutil.rmtree(leftover, ignore_errors=True)
  place.mkdir(exist_ok=True)
  (place / _IDENTITY).write_text(described)
  try:
    yield place
  except Exception:
    shutil.rmtree(place, ignore_errors=True)
    raise
  # KeyboardInterrupt comes by neither way, and leaves the work for the next run
  shutil.rmtree(place, ignore_errors=True)


def empty(directory: pathlib.Path) -> pathlib.Path:
  shutil.rmtree(directory, ignore_errors=True)
  directory.mkdir()
  return directory


def _alive(process: int) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass
  return True


def publish(data: pathlib.Path, output: str, overwrite: bool) -> None:
  """Puts finished data in its place: by one rename, or, in a bucket, file by file with the manifest last."""
  if not storage.is_local(output):
    path = storage.path(output)
    if overwrite:
      (path / records.MANIFEST).unlink(missing_ok=True)
      new = {shard.file for split in records.read_manifest(data).splits.values() for shard in split.shards}
      for file in storage.files_in(path, f'{records.DATASET_NAME}-*'):
        if file.name not in new:
          file.unlink(missing_ok=True)
    storage.upload(data, path, last=records.MANIFEST)
    return
  target = storage.local(storage.resolved(output))
  replaced = storage.inventory(target) if overwrite else ()
  try:
    places.put_folder(data, target, records.MANIFEST, [name for name in replaced if not name.startswith('.')])
  except OSError as error:
    raise records.DataError(
        f'--output {output} appeared while its data was being made: name another directory') from error

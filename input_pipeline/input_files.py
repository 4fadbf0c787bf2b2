"""Files that are read and not ours: which there are, what they are, whether they are still the same.

A part of storage.py, which makes every path.
"""

import contextlib
import glob
import hashlib
import os
import pathlib
import stat
import sys
import time
from collections.abc import Iterator
from typing import BinaryIO

from input_pipeline import storage
from input_pipeline.object_storage import ObjectPath
from input_pipeline.storage import Path, PathLike

STANDARD_INPUT = '-'  # a name for it
_HASHED_AT_ONCE = 1 << 22  # bytes


@contextlib.contextmanager
def reading(name: PathLike) -> Iterator[BinaryIO]:
  """A file to read from, or standard input."""
  if name == STANDARD_INPUT:
    yield sys.stdin.buffer
    return
  with storage.path(name).open('rb') as file:
    yield file


def stamp(name: PathLike) -> tuple[str, int, int]:
  """(what it is, bytes, seconds of the epoch): two names of one local file, as by a link, are the same.

  What is read once, as a pipe, is other data each time.
  """
  found = storage.path(name)
  if isinstance(found, ObjectPath):
    return str(found), found.size(), found.modified()
  local = os.fstat(sys.stdin.fileno()) if name == STANDARD_INPUT else found.stat()
  identity = f'{local.st_dev}:{local.st_ino}'
  if name == STANDARD_INPUT or not stat.S_ISREG(local.st_mode):
    return identity, 0, time.time_ns()
  return identity, local.st_size, int(local.st_mtime)


def content(name: PathLike) -> str:
  """Tells a file's content from any other: what the storage says of it, or a hash of all of it."""
  found = storage.path(name)
  if isinstance(found, ObjectPath) and (told := found.checksum()):
    return told
  digest = hashlib.blake2b(digest_size=16)
  with found.open('rb') as file:
    while block := file.read(_HASHED_AT_ONCE):
      digest.update(block)
  return digest.hexdigest()


def kind(name: Path) -> str:
  """'file', 'folder', 'stream' (a pipe or a device, whose content comes once) or 'missing'."""
  if isinstance(name, ObjectPath):
    found = name.information()
    return 'missing' if found is None else 'folder' if found['type'] == 'directory' else 'file'
  try:
    mode = name.stat().st_mode
  except (FileNotFoundError, NotADirectoryError):
    return 'missing'
  return 'folder' if stat.S_ISDIR(mode) else 'file' if stat.S_ISREG(mode) else 'stream'


def matches(pattern: str) -> list[Path]:
  """What a glob matches, in order, as a shell has it: names that begin with a dot only where the pattern does."""
  if '://' not in pattern:
    found = _matches(os.path.expanduser(pattern))
    return [pathlib.Path(name) for name in sorted(found, key=lambda name: name.split('/'))]
  parts = pattern.split('/')
  first = next(place for place, part in enumerate(parts) if set(part) & set('*?['))
  found = storage.path('/'.join(parts[:first])).glob('/'.join(parts[first:]))
  return [name for name in found if parts[-1].startswith('.') or not name.name.startswith('.')]


def _matches(pattern: str) -> set[str]:
  """`glob`, but that ** follows links in no circle; at the end it is the folder with all in it."""
  before, any_folder, after = f'/{pattern}'.partition('/**/')
  if any_folder:
    tops = filter(os.path.isdir, glob.glob(before[1:] or ('/' if pattern.startswith('/') else '.')))
    folders = [glob.escape(folder) for top in tops for folder, _ in _folders(top)]
    return {found for folder in folders for found in _matches(f'{folder}/{after}')}
  if before.endswith('/**'):
    pattern = pattern[:-2] or '.'
  return set(glob.glob(pattern))


def walk(directory: Path) -> list[Path]:
  """The files below a folder that hold anything, in order; not what is hidden. Links are followed, but in no circle."""
  if isinstance(directory, ObjectPath):
    return list(directory.walk())
  found = []
  for folder, names in _folders(directory):
    files = [pathlib.Path(folder, name) for name in names if not name.startswith('.')]
    found += [file for file in files if file.stat().st_size]
  return sorted(found, key=lambda file: file.parts)


def _folders(directory: PathLike) -> Iterator[tuple[str, list[str]]]:
  """A folder and all below it, each with the names of its files; not what is hidden."""
  seen = set()
  for folder, folders, names in os.walk(directory, followlinks=True, onerror=_raise):
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in seen:
      folders.clear()
      continue
    seen.add((status.st_dev, status.st_ino))
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    yield folder, names


def _raise(error: OSError) -> None:
  raise error

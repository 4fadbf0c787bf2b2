"""Objects in buckets (gs://, s3:// and all that fsspec knows), behind the methods of pathlib that the house uses.

storage.py is the door to it. Requests go through fsspec, with TensorFlow installed or not: gcsfs for gs://. What may
pass is tried again, with growing pauses of random length; what cannot is raised at once, as one sentence.
"""

import dataclasses
import datetime
import fnmatch
import functools
import io
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from input_pipeline import storage_answers
from input_pipeline.errors import DataError, RefusedError, StorageError

READ_AHEAD = 8 << 20  # bytes that a stream fetches at once
TRIES = 5  # of what the library has given up, which for gs:// is nine tries of its own
FIRST_PAUSE = 1.0  # seconds; the next is twice as long

# What is to be installed where the library for a kind of storage is missing.
NEEDS = {'gs': "pip install 'bert_jax[gcs]'", 's3': 'pip install s3fs', 'az': 'pip install adlfs',
         'hf': 'pip install huggingface_hub', 'http': 'pip install aiohttp', 'https': 'pip install aiohttp',
         'hdfs': 'pip install pyarrow, and install Hadoop'}
# What file systems call the checksum of an object, the same for the same content wherever it can be.
CHECKSUMS = 'md5Hash', 'content_md5', 'sha256', 'blob_id', 'ETag', 'etag', 'crc32c'


@dataclasses.dataclass(frozen=True, order=True)
class ObjectPath:
  """The name of an object, or of a folder of objects."""
  scheme: str
  key: str  # bucket/folder/name

  def __str__(self) -> str:
    return f'{self.scheme}://{self.key}'

  __fspath__ = __str__

  def __truediv__(self, name: str | os.PathLike) -> 'ObjectPath':
    return ObjectPath(self.scheme, _tidy(f'{self.key}/{os.fspath(name)}'))

  @property
  def name(self) -> str:
    return self.key.rpartition('/')[2]

  @property
  def suffix(self) -> str:
    stem, dot, end = self.name.rpartition('.')
    return dot + end if stem else ''

  @property
  def parent(self) -> 'ObjectPath':
    return ObjectPath(self.scheme, self.key.rpartition('/')[0] or self.key)

  @property
  def bucket(self) -> str:
    return self.key.partition('/')[0]

  def expanduser(self) -> 'ObjectPath':
    return self

  def information(self) -> dict[str, Any] | None:
    """Size, type and times as fsspec gives them; None where there is nothing."""
    try:
      return attempt(self, lambda storage: storage.info(self.key))
    except FileNotFoundError:
      return None

  def exists(self) -> bool:
    return self.information() is not None

  def is_dir(self) -> bool:
    found = self.information()
    return found is not None and found['type'] == 'directory'

  def is_file(self) -> bool:
    found = self.information()
    return found is not None and found['type'] == 'file'

  def entries(self) -> list[dict[str, Any]]:
    """What is in a folder; its placeholder, an object called like the folder, is none."""
    try:
      found = attempt(self, lambda storage: storage.ls(self.key, detail=True))
    except FileNotFoundError:
      return []
    return [entry for entry in found if _tidy(entry['name']) != self.key]

  def iterdir(self) -> Iterator['ObjectPath']:
    for entry in self.entries():
      yield ObjectPath(self.scheme, _tidy(entry['name']))

  def glob(self, pattern: str) -> Iterator['ObjectPath']:
    """The objects, not the folders, whose names below this one match; a pattern without a slash costs one request."""
    if '/' not in pattern:
      yield from sorted(ObjectPath(self.scheme, _tidy(entry['name'])) for entry in self.entries()
                        if entry['type'] == 'file' and fnmatch.fnmatchcase(entry['name'].rpartition('/')[2], pattern))
      return
    found = attempt(self, lambda storage: storage.glob(f'{self.key}/{pattern}', detail=True))
    yield from sorted(ObjectPath(self.scheme, _tidy(name)) for name, entry in found.items() if entry['type'] == 'file')

  def tree(self) -> dict[str, dict[str, Any]]:
    """What is known of every object below a folder, by its name from there: one request for a thousand."""
    try:
      found = attempt(self, lambda storage: storage.find(self.key, detail=True))
    except FileNotFoundError:
      return {}
    return {_tidy(name).removeprefix(f'{self.key}/'): entry for name, entry in found.items()
            if entry['type'] == 'file' and _tidy(name) != self.key and not name.endswith('/')}

  def write_if(self, data: bytes, generation: int) -> int | None:
    """Writes the object where it is still that generation, 0: where it is not there; returns its new generation.

    None where it is another by now. Only Google's storage numbers them: elsewhere it is written in any case.
    """
    if self.scheme != 'gs':
      self.write_bytes(data)
      return 0
    name = self.key.partition('/')[2]
    try:
      found = attempt(self, lambda storage: storage.call(
          'POST', f'{storage._location}/upload/storage/v1/b/{self.bucket}/o', uploadType='media', name=name,
          ifGenerationMatch=str(generation), data=data, json_out=True))
    except StorageError as error:
      if isinstance(error.__cause__, FileExistsError):  # as gcsfs says that the condition does not hold
        return None
      raise
    return int(found['generation'])

  def walk(self) -> list['ObjectPath']:
    """All objects below this one that hold anything and whose names below it are not hidden, in order."""
    found = attempt(self, lambda storage: storage.find(self.key, detail=True))
    below = {_tidy(name): entry for name, entry in found.items() if entry.get('size') != 0}
    return sorted(ObjectPath(self.scheme, name) for name in below
                  if not any(part.startswith('.') for part in name.removeprefix(self.key).split('/')))

  def checksum(self) -> str:
    """What the storage says of the content, if it is the same for no other; '' where it says nothing."""
    found = self.information() or {}
    return next((f'{name} {found[name]}' for name in CHECKSUMS if found.get(name)), '')

  def size(self) -> int:
    found = self.information()
    if found is None:
      raise FileNotFoundError(f'{self}: there is no such object')
    return int(found['size'] or 0)

  def modified(self) -> int:
    """When it was written, in seconds of the epoch; 0 where the storage does not say."""
    found = self.information() or {}
    when = next((found[name] for name in ('mtime', 'updated', 'LastModified', 'last_modified') if found.get(name)), 0)
    if isinstance(when, str):
      when = datetime.datetime.fromisoformat(when.replace('Z', '+00:00'))
    return int(when.timestamp() if isinstance(when, datetime.datetime) else when)

  def read_bytes(self) -> bytes:
    return attempt(self, lambda storage: storage.cat_file(self.key))

  def read_range(self, start: int, end: int) -> bytes:
    return attempt(self, lambda storage: storage.cat_file(self.key, start=start, end=end)) if end > start else b''

  def read_text(self, encoding: str = 'utf-8') -> str:
    return self.read_bytes().decode(encoding)

  def write_bytes(self, data: bytes) -> None:
    """One upload: readers see the old object or the new one, never a part."""
    attempt(self, lambda storage: storage.pipe_file(self.key, bytes(data)))

  def write_text(self, text: str) -> None:
    self.write_bytes(text.encode())

  def copy_to(self, key: str) -> None:
    """Copies the object within its storage."""
    attempt(self, lambda storage: storage.cp_file(self.key, key))

  def upload(self, file: str | os.PathLike) -> None:
    """Writes the content of a local file, which need not fit in memory."""
    attempt(self, lambda storage: storage.put_file(os.fspath(file), self.key))

  def open(self, mode: str = 'rb') -> BinaryIO:
    """A stream to read from, at any place in the object."""
    if mode != 'rb':
      raise ValueError(f'{self} was opened with mode {mode!r}: objects have only reading streams, of bytes')
    return io.BufferedReader(_Reader(self), READ_AHEAD)

  def unlink(self, missing_ok: bool = False) -> None:
    try:
      attempt(self, lambda storage: storage.rm_file(self.key))
    except FileNotFoundError:
      if not missing_ok:
        raise

  def remove_tree(self) -> None:
    """Removes all objects of a folder, its placeholder too."""
    try:
      attempt(self, lambda storage: storage.rm(self.key, recursive=True))
    except FileNotFoundError:
      pass

  def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
    """Nothing: a folder is there once an object is in it."""


class _Reader(io.RawIOBase):
  """An object as a stream; each read is a request, so it stands under a buffer."""

  def __init__(self, path: ObjectPath):
    self.path, self.end, self.at = path, path.size(), 0

  def readable(self) -> bool:
    return True

  def seekable(self) -> bool:
    return True

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    self.at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.end}[whence])
    return self.at

  def tell(self) -> int:
    return self.at

  def readall(self) -> bytes:
    data = self.path.read_range(self.at, self.end)
    self.at = self.end
    return data

  def readinto(self, buffer) -> int:
    data = self.path.read_range(self.at, min(self.at + len(buffer), self.end))
    buffer[:len(data)] = data
    self.at += len(data)
    return len(data)


def parse(text: str) -> ObjectPath:
  """'gs://bucket/folder/' as a path. Raises DataError where it names no bucket."""
  scheme, _, key = text.partition('://')
  if not _tidy(key):
    raise DataError(f'{text} names no bucket: wanted {scheme}://BUCKET/PATH')
  return ObjectPath('gs' if scheme == 'gcs' else scheme, _tidy(key))


def _tidy(key: str) -> str:
  return '/'.join(part for part in key.split('/') if part)


@functools.cache
def file_system(scheme: str):
  """fsspec's file system for a scheme; without a cache of listings, as other hosts write too. Raises DataError."""
  # gcsfs would ask by gRPC what kind of bucket it is, and wait a minute where only HTTP is answered
  os.environ.setdefault('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')
  logging.getLogger('gcsfs').setLevel(logging.CRITICAL)  # it logs the traceback of what is raised here as a sentence
  try:
    import fsspec
    if scheme == 'gs':
      from input_pipeline import google_storage
      google_storage.register()
    return fsspec.filesystem(scheme, use_listings_cache=False)
  except (ImportError, ValueError, OSError) as error:
    if isinstance(error, ValueError) and scheme not in str(error):
      raise
    if scheme in NEEDS:
      raise DataError(f'{scheme}:// needs a library that is not installed here '
                      f'({first_line(error)}): {NEEDS[scheme]}') from error
    raise DataError(f'{scheme}:// is no storage that is known here ({first_line(error)}): wanted a local path, gs://, '
                    'or a scheme whose file system for fsspec is installed') from error


def attempt(path: ObjectPath, request: Callable[[Any], Any]) -> Any:
  """What `request(file system)` gives, tried again where its failure may pass.

  Raises FileNotFoundError, RefusedError, StorageError, DataError.
  """
  pause = FIRST_PAUSE
  for number in range(TRIES):
    try:
      return request(file_system(path.scheme))
    except (FileNotFoundError, DataError):
      raise
    except Exception as error:  # each library has its own kinds
      if not storage_answers.may_pass(error) or number == TRIES - 1:
        refused = not storage_answers.may_pass(error) and 400 <= (storage_answers.code_of(error) or 0) < 500
        raise (RefusedError if refused else StorageError)(f'{path}: {storage_answers.meaning(error)}') from error
      storage_answers.tell(f'{path}: {storage_answers.meaning(error)}; trying again')
    time.sleep(pause * random.uniform(0.5, 1))  # hosts that failed together do not come again together
    pause *= 2


def first_line(error: BaseException) -> str:
  lines = str(error).strip().splitlines()
  return lines[0][:200] if lines else type(error).__name__

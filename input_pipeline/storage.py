"""The one place for paths that a user gives: local ones are pathlib's, gs:// and the like are object_storage's.

Both kinds have the methods that the house uses (/, name, suffix, parent, exists, is_dir, iterdir, glob, read_bytes,
read_text, write_bytes, write_text, open('rb'), unlink); what differs between disks and buckets is a function here.
Nothing else in the house makes, joins or opens a path by itself (tests/test_storage_only.py).
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import hashlib
import importlib.util
import os
import pathlib
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from input_pipeline import object_storage, places, storage_errors
from input_pipeline.errors import DataError, StorageError
from input_pipeline.object_storage import ObjectPath


def _is_installed(module: str) -> bool:
  try:
    return importlib.util.find_spec(module) is not None
  except ImportError:  # of the package that it is in
    return False


# Orbax goes by etils' paths, which take TensorFlow's file system where TensorFlow is installed: another one than ours,
# and one that hangs at a bucket that is missing. This variable is the only switch, and is read once, at the first path.
if _is_installed('gcsfs'):
  os.environ.setdefault('EPATH_USE_TF', 'false')
# tensorstore would wait for ever where no answer comes, which ends no connection.
os.environ.setdefault('TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS', str(storage_errors.REQUEST_SECONDS))
os.environ.setdefault('TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES', '1')
os.environ.setdefault('TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS', str(storage_errors.REQUEST_SECONDS))

PathLike = str | os.PathLike  # as a user gives it
Path = pathlib.Path | ObjectPath

PROBE_SECONDS = 8  # within which storage must have answered before a command begins
CHECKPOINT_SCHEMES = 'gs',  # beside disks, all that Orbax knows: of s3:// it makes a local path
UPLOADS = 8  # files that are sent at once
ROW = 1 << 14  # bytes of a row of Sums; CHUNK is of whole ones
CHUNK = 1 << 20  # bytes of a file on a disk that are read at once, where all are wanted once
# What one names wrongly, or may not touch; anything else that the system refuses is the storage's.
_OF_NAMES = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP,
                       errno.ENAMETOOLONG))
_ADVICE = {errno.ENOSPC: 'free some space, or name a place on another disk', errno.EROFS: 'name another place',
           errno.EDQUOT: 'free some space, or name a place on another disk',
           errno.EFBIG: 'raise the limit of file sizes (ulimit -f)', errno.EMFILE: 'raise ulimit -n'}
_PROBE = '.probe_'  # between a path and a number: the object that is written and removed to see whether one may


def path(name: PathLike) -> Path:
  """A path that a user gave. Raises DataError for a URL without a bucket."""
  if isinstance(name, ObjectPath):
    return name
  text = os.fspath(name)
  if text.startswith('file://'):
    text = text.removeprefix('file://')
  return object_storage.parse(text) if '://' in text else pathlib.Path(text)


def is_local(name: PathLike) -> bool:
  return not isinstance(path(name), ObjectPath)


def local(name: PathLike) -> pathlib.Path:
  """A path on a disk. Raises DataError for any other."""
  found = path(name)
  if isinstance(found, ObjectPath):
    raise DataError(f'{name}: wanted a local path')
  return found


def absolute(name: PathLike) -> Path:
  """The path as every working directory names it; a URL is that already."""
  found = path(name)
  return found if isinstance(found, ObjectPath) else found.absolute()


def normal(name: PathLike) -> Path:
  """The path without what leads nowhere: a/./b/../c/ is a/c."""
  found = path(name)
  return found if isinstance(found, ObjectPath) else pathlib.Path(os.path.normpath(found))


def resolved(name: PathLike) -> Path:
  """Where a path leads in the end, links followed; a URL is that already. Raises DataError for a circle of links."""
  found = path(name)
  return found if isinstance(found, ObjectPath) else places.resolved(found)


def make_folder(name: PathLike) -> None:
  """Makes a folder, and those around it, where it is not there: that which a link names."""
  found = path(name)
  if isinstance(found, ObjectPath):
    found.mkdir(parents=True, exist_ok=True)
  else:
    places.make_folder(found)


def size(file: Path) -> int:
  return file.size() if isinstance(file, ObjectPath) else file.stat().st_size


def files_in(directory: Path, pattern: str) -> list[Path]:
  """The files below `directory` that match, in order; [] where it is missing."""
  if isinstance(directory, ObjectPath):
    return list(directory.glob(pattern))
  return sorted(found for found in directory.glob(pattern) if not found.is_dir()) if directory.exists() else []


@dataclasses.dataclass(frozen=True)
class Stored:
  """A file as its storage tells of it, without reading it."""
  size: int
  checksum: str = ''  # that a bucket took of what it holds: 'crc32c:…'; '' on disks, which take none


CHECKSUMS = {'crc32c': 'crc32c', 'md5Hash': 'md5', 'ETag': 'etag'}  # as file systems of fsspec tell them: as we do


def inventory(directory: Path) -> dict[str, Stored]:
  """Every file below a folder, by its path from there; {} where it is missing."""
  if isinstance(directory, ObjectPath):
    told = lambda entry: next((f'{ours}:{entry[name]}' for name, ours in CHECKSUMS.items() if entry.get(name)), '')
    return {name: Stored(int(entry['size'] or 0), told(entry)) for name, entry in directory.tree().items()}
  return {found.relative_to(directory).as_posix(): Stored(found.stat().st_size)
          for found in sorted(directory.rglob('*')) if found.is_file()}


def free_bytes(directory: Path) -> float:
  """Room for new files on the disk that a folder is on, or will be; infinite in a bucket."""
  if isinstance(directory, ObjectPath):
    return float('inf')
  target = places.resolved(directory)
  return shutil.disk_usage(next(path for path in (target, *target.parents) if path.exists())).free


def is_empty(directory: Path) -> bool:
  """Whether nothing is there: no folder, or one with nothing in it but, in a bucket, its placeholder."""
  if isinstance(directory, ObjectPath):
    return not directory.entries() and not directory.is_file()
  return not directory.exists() or (directory.is_dir() and not any(directory.iterdir()))


@contextlib.contextmanager
def named_errors(what: str) -> Iterator[None]:
  """What the system refuses, as a sentence: DataError where a name is wrong, StorageError where storage fails."""
  try:
    yield
  except BrokenPipeError:  # of who reads what we print
    raise
  except OSError as error:
    where = f': {error.filename}' if error.filename and str(error.filename) not in what else ''
    advice = f'; {_ADVICE[error.errno]}' if error.errno in _ADVICE else ''
    kind = DataError if isinstance(error, FileNotFoundError) or error.errno in _OF_NAMES else StorageError
    raise kind(f'{what}{where}: {error.strerror or " ".join(str(error).split())}{advice}') from error

# ---------------------------------------------------------------- reading


def map_file(file: Path) -> memoryview:
  """A whole file, of which little may be wanted: mapped where it is local, read where it is not.

  Where a disk cannot read, who looks at a map is ended by a signal, not by an error: others read, by `chunks`.
  """
  if isinstance(file, ObjectPath):
    return memoryview(file.read_bytes())
  if not file.stat().st_size:
    return memoryview(b'')
  return memoryview(np.memmap(file, np.uint8, 'r').data)


def chunks(file: Path, start: int, end: int) -> Iterator[memoryview]:
  """Bytes start … end - 1, or those that are there, in parts; each is gone when the next is asked for."""
  if start >= end:
    return
  if isinstance(file, ObjectPath):
    yield memoryview(file.read_range(start, end))
    return
  room = memoryview(bytearray(min(CHUNK, end - start)))
  with file.open('rb', buffering=0) as stream:
    stream.seek(start)
    while start < end and (size := _fill(file, stream, room[:end - start])):
      yield room[:size]
      start += size


def read_span(file: Path, start: int, end: int) -> memoryview:
  """Bytes start … end - 1, or those that are there."""
  if isinstance(file, ObjectPath):
    return memoryview(file.read_range(start, end))
  room = np.empty(end - start, np.uint8).data
  with file.open('rb', buffering=0) as stream:
    stream.seek(start)
    return room[:_fill(file, stream, room)].toreadonly()


def sha256(parts: Iterable[memoryview]) -> str:
  """Of what they are together."""
  return digests(parts, [hashlib.sha256])[0]


def digests(parts: Iterable[memoryview], kinds: Iterable[Callable[[], Any]]) -> list[str]:
  """Of what they are together, of several kinds: hashlib.sha256, Sums."""
  found = [kind() for kind in kinds]
  for part in parts:
    for one in found:
      one.update(part)
  return [one.hexdigest() for one in found]


class Sums:
  """A digest that is taken nearly as fast as memory is read, for what is damaged by chance, not by somebody's design.

  Bytes are words of 8 in rows of ROW bytes. The sums of every row and of every column, modulo 2^64, are what counts, by
  their SHA-256. Of a change within ROW - 8 bytes, so of each bit that flips, each word is the only one of its column:
  it is found for certain. Any other passes as often as one in 2^64.
  """

  def __init__(self):
    self.columns, self.rows = np.zeros(ROW // 8, np.uint64), []

  def update(self, part: memoryview) -> None:
    """Every part but the last is of whole rows."""
    whole = len(part) // ROW * ROW
    rest = np.zeros(ROW if len(part) > whole else 0, np.uint8)
    rest[:len(part) - whole] = np.frombuffer(part[whole:], np.uint8)
    for data in filter(len, (part[:whole], rest.data)):
      words = np.frombuffer(data, '<u8').reshape(-1, ROW // 8)
      self.columns += words.sum(axis=0, dtype=np.uint64)
      self.rows.append(words.sum(axis=1, dtype=np.uint64))

  def hexdigest(self) -> str:
    return hashlib.sha256(np.concatenate([self.columns, *self.rows]).astype('<u8').tobytes()).hexdigest()


def _fill(file: pathlib.Path, stream, room: memoryview) -> int:
  """Reads bytes into `room`, until it is full or the file at its end; how many. An error names the file, as one of
  opening it does."""
  size = 0
  try:
    while size < len(room) and (more := stream.readinto(room[size:])):
      size += more
    return size
  except OSError as error:
    raise OSError(error.errno, error.strerror, os.fspath(file)) from error


def read_all(files: list[Path]) -> list[bytes]:
  """The contents of many small files, fetched beside each other."""
  if not any(isinstance(file, ObjectPath) for file in files):
    return [file.read_bytes() for file in files]
  return beside_each_other(lambda file: file.read_bytes(), files)


@contextlib.contextmanager
def on_disk(directory: PathLike, pattern: str = '*') -> Iterator[pathlib.Path]:
  """A local folder with the files of `directory` that match: itself, or a copy that is removed afterwards."""
  found = path(directory)
  if not isinstance(found, ObjectPath):
    yield found
    return
  with tempfile.TemporaryDirectory() as folder:
    beside_each_other(lambda file: copy(file, pathlib.Path(folder) / file.name), files_in(found, pattern))
    yield pathlib.Path(folder)

# ---------------------------------------------------------------- writing


def write_whole(file: Path, content: str | bytes) -> None:
  """Writes a file whose old content stays until the new one is whole."""
  data = content.encode() if isinstance(content, str) else content
  if isinstance(file, ObjectPath):
    file.write_bytes(data)
    return
  places.write(file, data)


def write_output(file: Path, content: str | bytes) -> None:
  """The same, for a file that a user named: the folders that it is to be in are made."""
  make_folder(resolved(file).parent)
  write_whole(file, content)


def copy(source: Path, target: Path) -> None:
  """Copies a file, replacing one that is there."""
  if isinstance(source, ObjectPath):
    target.write_bytes(source.read_bytes())
  elif isinstance(target, ObjectPath):
    target.upload(source)
  else:
    shutil.copyfile(source, target)


def move(source: Path, target: Path) -> None:
  """Gives a file or a folder another name; in a bucket each object is copied there, then removed."""
  if not isinstance(source, ObjectPath):
    source.rename(target)
    return
  name = os.fspath(target).removeprefix(f'{source.scheme}://')
  beside_each_other(lambda part: (source / part).copy_to(f'{name}/{part}'), source.tree())
  source.remove_tree()


def remove_tree(directory: Path) -> None:
  """Removes a folder with all that is in it; nothing where it is missing."""
  if isinstance(directory, ObjectPath):
    directory.remove_tree()
  else:
    shutil.rmtree(directory, ignore_errors=True)


def upload(directory: pathlib.Path, target: Path, last: str) -> None:
  """Sends the files of a local folder; the one called `last`, without which the others mean nothing, after them all."""
  target.mkdir(parents=True, exist_ok=True)
  beside_each_other(lambda file: copy(file, target / file.name),
                    [file for file in directory.iterdir() if file.name != last])
  if (directory / last).exists():
    copy(directory / last, target / last)


def beside_each_other(work: Callable, items: Iterable) -> list:
  """What `work` gives for each item, some at once: a request waits most of its time."""
  with concurrent.futures.ThreadPoolExecutor(UPLOADS) as pool:
    return list(pool.map(work, items))

# ---------------------------------------------------------------- before the work


def prepare_for_orbax(name: PathLike) -> None:
  """Makes out whether Orbax can reach a place by the libraries that we use. Raises DataError where it cannot."""
  target = path(name)
  if not isinstance(target, ObjectPath):
    places.check_text(target, f'{name}')
    return
  if target.scheme not in CHECKPOINT_SCHEMES:
    raise DataError(f'{name}: checkpoints can be kept on local disks and gs://, not on {target.scheme}://: name '
                    'another path for the run; text, data and exports may stay')
  object_storage.file_system(target.scheme)
  if target.scheme == 'gs' and not _is_installed('google.cloud.storage'):
    raise DataError(f'checkpoints on gs:// need google-cloud-storage: {object_storage.NEEDS["gs"]}')


def probe(name: PathLike, what: str = 'the path', checkpoints: bool = False, folder: bool = True) -> None:
  """Whether `name` can be written to, found out before the work. `what`: the flag that named it.

  `checkpoints`: Orbax writes there too. `folder`: whether it is to be a folder, or a file.

  Raises DataError for what somebody must change first: a missing bucket, right or library. Raises StorageError where
  the storage does not answer.
  """
  target = path(name)
  if isinstance(target, ObjectPath):
    if checkpoints:
      prepare_for_orbax(target)
    within(PROBE_SECONDS, f'{what} {name}', lambda: _probe_bucket(target, f'{what} {name}', checkpoints))
    return
  with named_errors(f'{what} {name}'):
    places.check(target, f'{what} {name}', folder)
    if checkpoints:
      prepare_for_orbax(target)


def probe_export(name: PathLike) -> None:
  """The same for --output of an export, which other programs read, too."""
  probe(name, '--output')
  if is_local(name):
    places.check_text(local(name), f'--output {name}')


def within(seconds: float, what: str, work: Callable[[], None]) -> None:
  """Does `work`, whose errors are raised here. Raises StorageError where it takes longer: it goes on unheard."""
  failed: list[BaseException] = []

  def run() -> None:
    try:
      work()
    except BaseException as error:
      failed.append(error)

  thread = threading.Thread(target=run, daemon=True)
  thread.start()
  thread.join(seconds)
  if thread.is_alive():
    raise StorageError(f'{what}: no answer from the storage within {seconds:g} s, or only such as may pass: '
                       'look at the network and the credentials, or try again')
  if failed:
    raise failed[0]


def _probe_bucket(target: ObjectPath, named: str, checkpoints: bool) -> None:
  try:
    _reach(target)
  except FileNotFoundError as error:
    raise DataError(f'{named}: there is no bucket {target.bucket!r}: make it, or name another') from error
  except StorageError as error:
    raise _answered(error, named, 'cannot be read') from error
  if '/' in target.key and (found := target.parent.information()) and found['type'] == 'file':
    raise DataError(f'{named}: {target.parent} is an object, wanted a folder')
  trial = ObjectPath(target.scheme, f'{target.key}{_PROBE}{uuid.uuid4().hex}')
  try:
    trial.write_bytes(b'')
    trial.unlink(missing_ok=True)
  except StorageError as error:
    raise _answered(error, named, 'can be read but not written to') from error
  if checkpoints and target.scheme == 'gs':  # Orbax asks what kind of bucket it is where it removes an old checkpoint
    try:
      object_storage.attempt(target, lambda storage: storage.call('GET', 'b/{}', target.bucket, json_out=True))
    except StorageError as error:
      raise _answered(error, named, 'needs the right storage.buckets.get, to remove old checkpoints') from error


def _reach(target: ObjectPath) -> None:
  """One request that fails where the bucket is missing or may not be read."""
  if not ObjectPath(target.scheme, target.bucket).exists():
    raise FileNotFoundError(target.bucket)


def _answered(error: StorageError, named: str, what: str) -> Exception:
  """A refusal is for somebody to mend; silence may pass."""
  cause = error.__cause__
  if cause is None or storage_errors.may_pass(cause):
    return StorageError(f'{named}: {storage_errors.meaning(cause or error)}')
  return DataError(f'{named} {what}: {storage_errors.meaning(cause)}')

"""Where a job works before its data is whole, on what all its machines see: in a folder that is its own.

On a disk that is a part of its workplace. In a bucket, which knows no renames, it lies in
`.NAME.partial` beside the output, where one job at a time holds a lock; what stood there when it got the lock is of
jobs that ended.
The name of each job's folder is its own: workers of a job that was killed may still write, and reach nobody else's.
While files come into the output one by one, MARK names them, in case that the job is killed before the last.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterable, Iterator

from input_pipeline import locking, places, records, storage
from input_pipeline.errors import StorageError

MARK = 'publishing.json'
_IDENTITY = 'identity.json'
_LOCK = 'lock.json'
_SHARED = 'shared-'


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
  place = parent / f'.{target.name}.{socket.gethostname()}.{os.getpid()}.partial'
  described = json.dumps(identity, sort_keys=True)
  for leftover in of_the_dead(parent, target.name):
    if local and not (target / records.MANIFEST).exists():
      for name in marked(leftover):
        (storage.local(target) / name).unlink(missing_ok=True)
    mark = leftover / _IDENTITY
    if mark.exists() and mark.read_text() == described and (leftover == place or not place.exists()):
      leftover.rename(place)
      (place / MARK).unlink(missing_ok=True)
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


def workplaces(parent: pathlib.Path, name: str) -> list[tuple[pathlib.Path, str, int]]:
  """(path, host, process) of all that jobs with an output of this name made in a folder, on whatever host."""
  found = [(path, re.fullmatch(rf'\.{re.escape(name)}\.(.+)\.(\d+)\.partial', path.name))
           for path in sorted(parent.glob('.*.partial'))]
  return [(path, owner[1], int(owner[2])) for path, owner in found if owner]


def of_the_dead(parent: pathlib.Path, name: str) -> list[pathlib.Path]:
  """Those of processes of this machine that are no more, and the one that would be this process' own."""
  here = socket.gethostname()
  return [path for path, host, process in workplaces(parent, name)
          if host == here and (process == os.getpid() or not _alive(process))]


def _alive(process: int) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass
  return True


@contextlib.contextmanager
def beside(output: str, workplace: pathlib.Path) -> Iterator[storage.Path]:
  """A folder of this job only for what workers write; it is made by who needs it, and removed in the end.

  Raises LockError where another job is at work on the same output in a bucket.
  """
  name = f'{_SHARED}{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}'
  if storage.is_local(output):
    for left in workplace.glob(f'{_SHARED}*'):  # of a process whose workplace this one took over
      storage.remove_tree(left)
    yield workplace / name
    return
  folder = _folder(output)
  lock = locking.Lock(folder / _LOCK)
  lock.acquire()
  try:
    _sweep(output)
    yield folder / name
    _empty(folder)
  except Exception:
    with contextlib.suppress(OSError, StorageError):  # what failed first is what is told
      _sweep(output)
    raise
  finally:
    lock.release()


def _folder(output: str) -> storage.Path:
  path = storage.path(output)
  return path / '.partial' if path.parent == path else path.parent / f'.{path.name}.partial'


def _sweep(output: str) -> None:
  """Removes what jobs that ended left: their folders, and in the output what they were putting there, if it is not
  whole."""
  path = storage.path(output)
  if (left := _marked(output)) and not (path / records.MANIFEST).exists():
    storage.beside_each_other(lambda name: (path / name).unlink(missing_ok=True), left)
  _empty(_folder(output))


def _empty(folder: storage.Path) -> None:
  """Removes all but the lock; the mark last, as the others mean nothing to it."""
  found = [entry for entry in folder.iterdir() if entry.name != _LOCK]
  for entry in sorted(found, key=lambda entry: entry.name == MARK):
    storage.remove_tree(entry)


def mark(folder: storage.Path, names: Iterable[str]) -> None:
  """Writes down which files of the output come and go from now on."""
  storage.write_whole(folder / MARK, json.dumps({'files': sorted(names)}))


def marked(folder: storage.Path) -> frozenset[str]:
  """The files that were coming and going when the job in this folder ended; none where it had not come so far."""
  try:
    return frozenset(map(str, json.loads((folder / MARK).read_bytes())['files']))
  except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
    return frozenset()


def _marked(output: str) -> frozenset[str]:
  return marked(_folder(output))


def mark_of_bucket(output: str, names: Iterable[str]) -> None:
  mark(_folder(output), names)


def only_remains(output: str) -> bool:
  """Whether all that is in an output in a bucket is what jobs of ours that ended left there."""
  inside = f'{_folder(output).name}/'
  left, own = _marked(output), _folder(output).parent == storage.path(output)
  if not left and not own:
    return False  # a folder of somebody else's may hold millions of files
  return all(name in left or own and name.startswith(inside) for name in storage.inventory(storage.path(output)))

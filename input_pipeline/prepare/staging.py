"""Where a job works before its data is whole, on what all its machines see: in a folder that is its own.

On a disk that is a part of its workplace (publishing.py). In a bucket, which knows no renames, it lies in
`.NAME.partial` beside the output, where one job at a time holds a lock; what stood there when it got the lock is of
jobs that ended.
The name of each job's folder is its own: workers of a job that was killed may still write, and reach nobody else's.
While files come into the output one by one, MARK names them, in case that the job is killed before the last.
"""

import contextlib
import json
import os
import pathlib
import socket
import uuid
from collections.abc import Iterable, Iterator

from input_pipeline import locking, records, storage
from input_pipeline.errors import StorageError

MARK = 'publishing.json'
_LOCK = 'lock.json'
_SHARED = 'shared-'


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

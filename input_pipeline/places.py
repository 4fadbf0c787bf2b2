"""Places on disks that a user names for what is made: links are followed and stay, and it is there whole or not at all.

A folder appears by one rename. Where that would take the place from who stands in it (the working directory, a mount
point, a folder whose own folder may not be written to), its files move in one by one, and the one that says that all
are there comes last.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable

from input_pipeline.errors import DataError

_HOST = socket.gethostname()
# What the system says where nothing can ever be made: of rights, of disks to be read only, of places of the kernel's.
_REFUSED = frozenset((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EIO,
                      errno.ENODEV, errno.ENXIO, errno.EOPNOTSUPP, errno.ENAMETOOLONG))


def resolved(path: pathlib.Path) -> pathlib.Path:
  """Where a path leads in the end, by its absolute name without links. Raises DataError for links that go in a circle.
  """
  try:
    found = pathlib.Path(os.path.realpath(path))
    circle = found.is_symlink()
  except (OSError, ValueError) as error:  # a name that no file can have
    raise DataError(f'{str(path)[:200]!r} is no path ({error}): name another') from error
  if circle:
    raise DataError(f'{path} is a link that leads to itself: name another path, or mend the link')
  return found


def check(path: pathlib.Path, named: str, folder: bool) -> None:
  """Whether something can be made at `path`, by making a nameless file there. `named`: the flag and what it was given.

  `folder`: whether it is to be a folder. Raises DataError where it cannot.
  """
  target = resolved(path)
  for number, part in enumerate(path.parts):
    before = pathlib.Path(*path.parts[:number])
    if part == '..' and not before.is_dir():
      raise DataError(f'{named}: there is no folder {before} to go up from: name the place itself, {target}')
  there = next(parent for parent in (target, *target.parents) if _exists(parent, named))
  if there != target and not there.is_dir():
    raise DataError(f'{named}: {there} is a file, wanted a folder')
  if there == target and folder and not target.is_dir():
    raise DataError(f'{named}: {target} is a file, wanted a folder')
  if there == target and not folder and target.is_dir():
    raise DataError(f'{named}: {target} is a folder, wanted the name of a file')
  if there == target and not target.is_dir() and not target.is_file():
    return  # a device or a pipe, which is written to as it is
  _try(there if there.is_dir() else there.parent, named)


def check_text(path: pathlib.Path, named: str) -> None:
  """Raises DataError where a name on the way to `path` is no UTF-8: libraries that write arrays take no other."""
  try:
    os.fspath(resolved(path)).encode()
  except UnicodeEncodeError as error:
    raise DataError(f'{named}: a name in it is not UTF-8, as arrays can be neither written nor read there: name '
                    'another place') from error


def _exists(path: pathlib.Path, named: str) -> bool:
  try:
    path.lstat()
  except (FileNotFoundError, NotADirectoryError):
    return False
  except OSError as error:
    raise DataError(f'{named}: {error.strerror}: name another place') from error
  return True


def _try(folder: pathlib.Path, named: str) -> None:
  """Makes a file without a name. Raises DataError where none can be made; a full disk is no fault of the place."""
  try:
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    if error.errno in _REFUSED:
      raise DataError(f'{named}: no right to write to {folder}, or its file system is read-only') from error
    raise


def make_folder(path: pathlib.Path) -> pathlib.Path:
  """Makes the folder that a path leads to, where it is not there; returns where."""
  target = resolved(path)
  target.mkdir(parents=True, exist_ok=True)
  return target


def write(path: pathlib.Path, data: bytes) -> None:
  """Writes a file whose old content stays until the new one is whole; a device or a pipe gets the bytes as they are."""
  target = resolved(path)
  if target.exists() and not target.is_file() and not target.is_dir():
    with target.open('wb') as stream:
      stream.write(data)
    return
  sweep(target)
  temporary = beside(target)
  try:
    temporary.write_bytes(data)
    temporary.replace(target)
  finally:
    temporary.unlink(missing_ok=True)


def beside(target: pathlib.Path, folder: pathlib.Path | None = None) -> pathlib.Path:
  """The name of what is on its way to `target`, by this process; in another `folder` than the one around it."""
  return (folder or target.parent) / f'.{target.name}.{_HOST}-{os.getpid()}.tmp'


def sweep(target: pathlib.Path, folder: pathlib.Path | None = None) -> None:
  """Removes what processes of this machine that are no more left on the way to `target`; what one of them had just put
  aside for it is put back."""
  pattern = re.compile(rf'\.{re.escape(target.name)}\.{re.escape(_HOST)}-(\d+)\.(tmp|old)')
  inside = folder == target
  with contextlib.suppress(OSError):
    for path in (folder or target.parent).iterdir():
      found = pattern.fullmatch(path.name)
      if not found or _is_alive(int(found[1])) or (inside and found[2] == 'old'):
        continue
      if found[2] == 'old' and not target.exists():
        path.rename(target)
      elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
      else:
        path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
  """Whether there is such a process; where the system does not tell, there is."""
  if os.name != 'posix':
    return True
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except (OSError, OverflowError):
    pass
  return True


def workshop(target: pathlib.Path) -> pathlib.Path:
  """The folder to work in for what is to be at `target`, on its file system: the one around it, or itself."""
  return target if _stays(target) else target.parent


def put_folder(made: pathlib.Path, target: pathlib.Path, last: str, replaced: Iterable[str] = ()) -> None:
  """Gives a finished folder its place. `last`: the file without which the others mean nothing.

  `replaced`: the files of a folder that is there and is replaced; without them `target` is missing or empty. Where this
  fails, what was there is there again. Raises OSError.
  """
  if _stays(target):
    _move_in(made, target, last, replaced)
    return
  old = made.parent / f'{made.stem}.old'
  if replaced and target.exists():
    target.rename(old)
  try:
    made.rename(target)  # replaces an empty folder, and fails for any other
  except BaseException:
    if old.exists():
      old.rename(target)
    raise
  shutil.rmtree(old, ignore_errors=True)


def _stays(target: pathlib.Path) -> bool:
  """Whether a folder must remain the one it is."""
  if not target.is_dir():
    return False
  here = pathlib.Path(os.path.realpath(os.curdir)) if os.path.exists(os.curdir) else None
  return target.parent == target or os.path.ismount(target) or not os.access(target.parent, os.W_OK) or (
      here is not None and (here == target or target in here.parents))


def _move_in(made: pathlib.Path, target: pathlib.Path, last: str, replaced: Iterable[str]) -> None:
  names = sorted((path.relative_to(made).as_posix() for path in made.rglob('*') if path.is_file()),
                 key=lambda name: (name == last, name))
  if not replaced and (others := [path for path in target.iterdir() if not path.name.startswith('.')]):
    raise FileExistsError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(others[0]))
  aside, moved = made.parent / f'{made.stem}.old', []
  kept = [name for name in replaced if (target / name).exists()]
  try:
    for name in sorted(kept, key=lambda name: name != last):  # from now on nothing is said to be there
      moved.append((target / name, aside / name))
      _move(*moved[-1])
    for name in names:
      moved.append((made / name, target / name))
      _move(*moved[-1])
  except BaseException:
    for source, place in reversed(moved):
      if place.exists() and not source.exists():
        _move(place, source)
    raise
  shutil.rmtree(aside, ignore_errors=True)
  shutil.rmtree(made, ignore_errors=True)


def _move(source: pathlib.Path, place: pathlib.Path) -> None:
  place.parent.mkdir(parents=True, exist_ok=True)
  source.rename(place)

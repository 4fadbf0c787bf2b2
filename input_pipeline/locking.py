"""One process at a time in a directory. On disks the operating system holds the lock, so that it goes with the process,
whatever ends it; in buckets, and on disks that know no locks, the owner says once a minute that it lives.

A lock whose owner died is taken over: at once where it was a process of this machine, else once it has not been heard
of for longer than it may be silent. No clocks are compared, as those of two machines differ: who waits watches.
"""

import contextlib
import itertools
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from typing import Any

from input_pipeline import foreign, storage
from input_pipeline.errors import LockError, StorageError
from input_pipeline.object_storage import ObjectPath

BEAT_SECONDS = 60.0  # between two signs of life
SILENCE = 2.5  # of these after which an owner is dead
SETTLE_SECONDS = 2.0  # after which storage that cannot compare shows who wrote last


class Lock:
  """`acquire` it, ask `check` now and then, `release` it. One that was not acquired is harmless."""

  def __init__(self, path: storage.Path):
    self.path, self.handle, self.thread = path, -1, None
    self.owner = {'owner': uuid.uuid4().hex, 'host': socket.gethostname(), 'pid': os.getpid(),
                  'born': born(os.getpid()),
                  'since': time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}
    self.generation, self.ending = 0, threading.Event()
    self.beats = itertools.count()  # and no clock, which may be set back
    self.lost: dict[str, Any] | None = None  # who has it now

  def acquire(self) -> None:
    """Raises LockError where another process has it, DataError where the lock is no file."""
    foreign.check_kind(self.path)
    storage.make_folder(self.path.parent)
    if not storage.is_local(self.path) or not self._lock_file(storage.local(self.path)):
      self._take()
      self.thread = threading.Thread(target=self._beat, name='lock', daemon=True)
      self.thread.start()

  def check(self) -> None:
    """Raises LockError where another process has taken it over."""
    if self.lost is not None:
      raise LockError(f'{self.path.parent}: {text(self.lost)} has taken this run over, as nothing was heard of this '
                      'process for some minutes: it ends here')

  def release(self) -> None:
    self.ending.set()
    if self.handle >= 0:
      storage.local(self.path).unlink(missing_ok=True)  # before it is open to others
      os.close(self.handle)
      self.handle = -1
    elif self.thread is not None:
      self.thread.join(1)
      with contextlib.suppress(OSError, StorageError):  # it dies of silence then
        if self.lost is None:
          self.path.unlink(missing_ok=True)

  # ---------------------------------------------------------------- by the operating system

  def _lock_file(self, path: pathlib.Path) -> bool:
    """Whether the file system knows locks, and this process has the one of `path` now."""
    try:
      import fcntl
    except ImportError:
      return False
    while True:
      handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
      try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_ino == os.stat(path).st_ino:
          os.ftruncate(handle, 0)
          os.write(handle, self._content())
          self.handle = handle
          return True
      except BlockingIOError:
        os.close(handle)
        raise in_use(self.path, self._read()[0]) from None
      except FileNotFoundError:  # its owner released it in between
        pass
      except OSError:
        os.close(handle)
        return False
      os.close(handle)

  # ---------------------------------------------------------------- by signs of life

  def _take(self) -> None:
    while True:
      found, generation = self._read()
      if found.get('owner') == self.owner['owner']:  # it was written, and the answer was lost
        self.generation = generation
        return
      if found and not dead(found) and self._lives(found):
        raise in_use(self.path, found)
      if not self._write(generation):
        continue  # another one was faster
      if isinstance(self.path, ObjectPath) and self.path.scheme == 'gs':
        return
      time.sleep(SETTLE_SECONDS)
      if self._read()[0].get('owner') == self.owner['owner']:
        return

  def _lives(self, found: dict[str, Any]) -> bool:
    """Whether an owner gives a sign of life within the time in which it must; waits for it."""
    if found.get('host') == self.owner['host'] and found.get('pid'):
      return True  # a process of this machine that is there
    wait = SILENCE * BEAT_SECONDS
    print(f'bert-jax: {self.path.parent}: {text(found)} was there last: waiting up to {wait:.0f} s for a sign of its '
          'life', file=sys.stderr, flush=True)
    for pause in (1.1 * BEAT_SECONDS, wait - 1.1 * BEAT_SECONDS):
      time.sleep(pause)
      now = self._read()[0]
      if now != found:
        return bool(now)
    return False

  def _beat(self) -> None:
    while not self.ending.wait(BEAT_SECONDS):
      try:
        if not self._write(self.generation):
          now, self.generation = self._read()
          if now and now.get('owner') != self.owner['owner']:
            self.lost = now
            return
      except (OSError, StorageError):
        pass  # the next one may pass

  def _content(self) -> bytes:
    return json.dumps(self.owner | {'beat': next(self.beats)}).encode() + b'\n'

  def _write(self, generation: int) -> bool:
    """Whether this process owns the lock now."""
    if not isinstance(self.path, ObjectPath):
      storage.write_whole(self.path, self._content())
      return True
    written = self.path.write_if(self._content(), generation)
    self.generation = generation if written is None else written
    return written is not None

  def _read(self) -> tuple[dict[str, Any], int]:
    """(what the lock says, its generation); ({}, 0) where nobody has it."""
    generation = 0
    try:
      if isinstance(self.path, ObjectPath):
        generation = int((self.path.information() or {}).get('generation') or 0)
      found = json.loads(self.path.read_bytes())
    except FileNotFoundError:
      return {}, 0
    except (ValueError, RecursionError):
      return {'host': '?'}, generation
    return found if isinstance(found, dict) else {'host': '?'}, generation


def held(path: storage.Path) -> bool:
  """Whether somebody has the lock, as it says; one whose owner is no process of this machine any more is nobody's."""
  owner, _ = Lock(path)._read()
  return bool(owner) and not dead(owner)


def in_use(path: storage.Path, owner: dict[str, Any]) -> LockError:
  return LockError(f'{path.parent} is in use: {text(owner)} is at work there: let it end, or name another directory')


def text(owner: dict[str, Any]) -> str:
  return f'process {owner.get("pid", "?")} on {owner.get("host", "?")}, since {owner.get("since", "?")},'


def dead(owner: dict[str, Any]) -> bool:
  """Whether a lock's owner was a process of this machine that is no more."""
  pid = owner.get('pid')
  return owner.get('host') == socket.gethostname() and isinstance(pid, int) and born(pid) != owner.get('born')


def born(pid: int) -> str | None:
  """When a process of this machine began, as its kernel counts; None where there is none."""
  try:
    return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]
  except (OSError, IndexError):
    return None

"""Compiled programs, kept from one start of a command to the next, so that a run that starts again need not compile.

JAX's persistent cache does the work, and is not made to be shared: it writes files in place, so that others read halves
(jax-ml/jax issue 22718); the half that a killed process leaves is never written again; a limit of its size can end all
writing (issue 39880). So JAX has a folder of its own in each process. When a command starts, what is kept and sound is
put there; what it compiles is published whole, by the first process, under a name that holds its SHA-256:

    PLACE/ENVIRONMENT/KEY.SHA256      ENVIRONMENT: a hash of versions, devices and the compilers' flags

Compiled programs are code: whoever may write to PLACE decides what runs here. An error here is a warning, never more.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import stat
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping

import jax
import jaxlib
from jax.experimental.compilation_cache import compilation_cache

from bert_jax.errors import ConfigError
from input_pipeline import storage
from input_pipeline.errors import DataError, StorageError

AUTO, OFF = 'auto', 'off'
FOLDER = 'compiled'  # below a run
OWN = 'JAX_COMPILATION_CACHE_DIR'  # where the user has set it, JAX's cache is the user's
LARGEST = 4 << 30  # bytes that are kept on a disk; what was used least lately goes
LEAST_SECONDS = 0.5  # that a program took to compile: below, reading it is no faster
FLAGS = 'XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'JAX_ENABLE_X64'
SUFFIX = '-cache'  # of JAX's files
PREFIX, LOCK = 'bert_jax-compiled-', 'lock'  # of JAX's folder of a process, and of the file there that it holds
LAST_SECONDS = 3.0  # that the end of a command waits until all is published
IMPORTED = time.monotonic()


@dataclasses.dataclass
class Times:
  """What compiling cost this process so far."""
  seconds: float = 0.0
  programs: int = 0
  found: int = 0  # of them, that were kept
  told: bool = False


TIMES = Times()


def _count(event: str, **_) -> None:
  if event == '/jax/compilation_cache/cache_hits':
    TIMES.found += 1


def _add(event: str, seconds: float, **_) -> None:
  if event == '/jax/core/compile/backend_compile_duration':
    TIMES.seconds += seconds
    TIMES.programs += 1


jax.monitoring.register_event_listener(_count)
jax.monitoring.register_event_duration_secs_listener(_add)


def since_start() -> float:
  """Seconds since this process began; since the import of this module where the system does not tell."""
  try:
    began = int(pathlib.Path('/proc/self/stat').read_text().rpartition(')')[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf('SC_CLK_TCK')
  except (AttributeError, OSError, IndexError, ValueError):
    return time.monotonic() - IMPORTED


def first_step() -> str | None:
  """What is said after this process' first step: 'first step 9.1 s after the start; 4.0 s of it for 7 compiled
  programs'; None after that."""
  if TIMES.told:
    return None
  TIMES.told = True
  kept = f', {TIMES.found} of them compiled by an earlier start' if TIMES.found else ''
  return (f'first step {since_start():.1f} s after the start; {TIMES.seconds:.1f} s of it for {TIMES.programs} '
          f'compiled programs{kept}')

# ---------------------------------------------------------------- where


def place(wanted: str, run_dir: storage.PathLike | None = None) -> storage.Path | None:
  """Where JAX's compiled programs are kept; None: nowhere, or where the user told JAX. Raises ConfigError."""
  return None if os.environ.get(OWN) else folder(wanted, run_dir)


def folder(wanted: str, run_dir: storage.PathLike | None = None) -> storage.Path | None:
  """Where what is compiled is kept; None: nowhere.

  `wanted`: a folder, off, or auto: the user's own cache folder, and below the run where its processes are several or
  it is in a bucket, as machines of a cluster come without one. Raises ConfigError.
  """
  if wanted == OFF:
    return None
  if not wanted:
    raise ConfigError(f"--cache is '': wanted a folder, {AUTO} or {OFF}")
  if wanted != AUTO:
    return storage.path(wanted)
  if run_dir is not None and (jax.process_count() > 1 or not storage.is_local(run_dir)):
    return storage.absolute(run_dir) / FOLDER
  caches = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return storage.path(caches) / 'bert_jax' / FOLDER if os.path.isabs(caches) else None


def environment() -> str:
  """A hash of all that JAX's keys of entries leave out, or that makes them useless: other entries need not be read."""
  device = jax.devices()[0]
  told = [jax.__version__, jaxlib.__version__, device.client.platform_version, device.device_kind, jax.device_count(),
          jax.process_count(), *(os.environ.get(flag) for flag in FLAGS)]
  if device.platform == 'cpu':
    told += cpu()
  return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def cpu() -> list[str]:
  """What of this machine's processor decides which code runs on it."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    import platform
    return [platform.machine(), platform.processor()]
  first = lines[:lines.index('')] if '' in lines else lines
  return [line for line in first if line.split(':')[0].strip() in ('model name', 'flags', 'Features', 'CPU part')]


def private_folder(folder: storage.Path) -> None:
  """Makes it, where it is missing."""
  if isinstance(folder, pathlib.Path):
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def is_open(folder: storage.Path) -> bool:
  """Whether everyone may write there, as far as a disk tells."""
  if not isinstance(folder, pathlib.Path) or os.name != 'posix' or not folder.exists():
    return False
  return bool(folder.stat().st_mode & stat.S_IWOTH)

# ---------------------------------------------------------------- in and out


class Kept:
  """JAX's folder of this process, and what it shares with others."""

  def __init__(self, shared: storage.Path, jax_folder: pathlib.Path):
    self.shared, self.jax_folder = shared, jax_folder
    self.known: set[str] = set()
    self.publishing: threading.Thread | None = None

  def fetch(self) -> None:
    """Puts what is kept and sound into JAX's folder, and removes what is not sound."""
    storage.beside_each_other(self._fetch, storage.files_in(self.shared, f'*{SUFFIX}.*'))

  def _fetch(self, file: storage.Path) -> None:
    name, _, digest = file.name.rpartition('.')
    if len(digest) != 64:  # of what is being written
      return
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
      file.unlink()
      return
    (self.jax_folder / name).write_bytes(content)
    self.known.add(name)
    if isinstance(file, pathlib.Path):
      os.utime(file)

  def publish(self) -> None:
    """Begins to share what was compiled since."""
    self.wait()
    self.publishing = threading.Thread(target=self._publish, daemon=True, name='publish compiled programs')
    self.publishing.start()

  def wait(self, seconds: float | None = None) -> None:
    if self.publishing is not None:
      self.publishing.join(seconds)

  def _publish(self) -> None:
    with warned(self.shared):
      new = [file for file in self.jax_folder.glob(f'*{SUFFIX}') if file.name not in self.known]
      for file in new:
        content = file.read_bytes()
        private_folder(self.shared)
        storage.write_whole(self.shared / f'{file.name}.{hashlib.sha256(content).hexdigest()}', content)
        self.known.add(file.name)
      if new:
        make_room(self.shared.parent)


def make_room(folder: storage.Path, largest: int = LARGEST) -> None:
  """Removes what was used least lately, on a disk, until the rest is small enough."""
  if not isinstance(folder, pathlib.Path):
    return
  files = [(file.stat(), file) for file in folder.glob(f'*/*{SUFFIX}.*')]
  total = sum(found.st_size for found, _ in files)
  for found, file in sorted(files, key=lambda item: item[0].st_mtime):
    if total <= largest:
      break
    file.unlink(missing_ok=True)
    total -= found.st_size


@contextlib.contextmanager
def warned(shared: storage.Path) -> Iterator[None]:
  """An error of storage ends what is in here, with a warning."""
  try:
    yield
  except (OSError, StorageError, DataError) as error:
    warnings.warn(f'{shared}: compiled programs are not kept there: {error}; --cache names another folder, '
                  f'--cache {OFF} none', stacklevel=2)


@contextlib.contextmanager
def own_folder() -> Iterator[pathlib.Path]:
  """A folder for this process; those of processes that were killed are removed."""
  for lock in pathlib.Path(tempfile.gettempdir()).glob(f'{PREFIX}*/{LOCK}'):
    with contextlib.suppress(OSError), held(lock):
      storage.remove_tree(lock.parent)
  with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
    lock = pathlib.Path(folder) / LOCK
    lock.touch()
    with contextlib.ExitStack() as holding:
      with contextlib.suppress(OSError):
        holding.enter_context(held(lock))
      yield pathlib.Path(folder)


@contextlib.contextmanager
def held(lock: pathlib.Path) -> Iterator[None]:
  """Holds a file until the process ends, however it ends. Raises OSError where another does."""
  try:
    import fcntl
  except ImportError:
    raise OSError('no locks here') from None
  with lock.open('r+') as file:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield


NOW: list[Kept] = []  # of this process, at most one: JAX has one cache


@contextlib.contextmanager
def kept(shared: storage.Path | None) -> Iterator[None]:
  """While this is open, JAX takes compiled programs from `shared`, and `publish` adds those that it lacks.

  Call it after distributed.start, before anything is compiled.
  """
  if shared is None:
    yield
    return
  settings: Mapping[str, object] = {
      'jax_compilation_cache_dir': None, 'jax_persistent_cache_min_compile_time_secs': LEAST_SECONDS,
      'jax_persistent_cache_enable_xla_caches': ''}  # else the folder's name is in the keys
  before = {name: getattr(jax.config, name) for name in settings}
  with own_folder() as folder, contextlib.ExitStack() as undo:
    with warned(shared):
      inside = shared / environment()
      if is_open(shared) or is_open(inside):
        raise DataError('everyone may write there, and would decide what runs here')
      found = Kept(inside, folder)
      found.fetch()
      for name, value in {**settings, 'jax_compilation_cache_dir': str(folder)}.items():
        jax.config.update(name, value)
      compilation_cache.reset_cache()
      NOW.append(found)
      undo.callback(forget, found, before)
    yield


def forget(found: Kept, before: Mapping[str, object]) -> None:
  publish()
  found.wait(LAST_SECONDS)
  NOW.remove(found)
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def publish() -> None:
  """Shares what was compiled since, while the caller goes on; nothing where nothing is kept, or by other processes."""
  if NOW and jax.process_index() == 0:
    NOW[-1].publish()

"""The manifest of a checkpoint: which step of which run it is, and what every file of it holds.

CHECKPOINTS/STEP/manifest.json is written twice: before all other files, as unfinished, and after them, whole. So a step
without a manifest, or with one that is not its own, is nothing that this run saved; and one that is unfinished is what
was left of a save or of a removal that was cut off.

What is relied on. On disks: SHA-256, of what is read back after it was written, so not of what the memory that it was
written from should have held; a restore compares sums that are taken at the speed of memory (storage.Sums) in its
place. In buckets, where reading back would be a download: the size, and the checksum (CRC-32C
in Google's) that the storage took of what it received, and tells in its list of objects. A step that came to a disk
from a bucket is checked by that CRC-32C, one that came to a bucket from a disk is read.
"""

import base64
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Container
from typing import Any

from bert_jax.errors import DamageError
from input_pipeline import foreign, storage
from input_pipeline.errors import DataError

NAME = 'manifest.json'
PIECE = 16 << 20  # bytes that have one digest: pieces are read beside each other
LARGE = 1 << 20  # bytes of a file from which on it may be read beside what else reads it
CRC = 'crc32c:'


@dataclasses.dataclass(frozen=True)
class File:
  size: int
  checksum: str = ''  # the bucket's own
  sha256: tuple[str, ...] = ()  # of each PIECE; none where the bucket has a checksum
  sums: tuple[str, ...] = ()  # storage.Sums of each PIECE; none in manifests that earlier versions wrote


@dataclasses.dataclass(frozen=True)
class Manifest:
  step: int
  run: dict[str, str]  # run_directory.fingerprints
  finished: bool = False
  meta: dict[str, Any] = dataclasses.field(default_factory=dict)  # checkpoint.Meta
  arrays: dict[str, str] = dataclasses.field(default_factory=dict)  # by name: 'float32[2, 16]'
  files: dict[str, File] = dataclasses.field(default_factory=dict)  # by path below the step
  code: str = ''  # the version that wrote it


def version() -> str:
  try:
    return importlib.metadata.version('bert_jax')
  except importlib.metadata.PackageNotFoundError:  # it is used from its sources
    return ''


def encode(manifest: Manifest) -> str:
  """One JSON object, which holds the SHA-256 of its own content."""
  fields = dataclasses.asdict(manifest)
  for file in fields['files'].values():
    if not file['sums']:
      del file['sums']
  digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
  return json.dumps({'manifest': fields, 'sha256': digest}, indent=1, sort_keys=True) + '\n'


def decode(text: str) -> Manifest:
  """Raises DamageError where it is not to the letter what `encode` gave."""
  try:
    fields = json.loads(text)['manifest']
    files = {name: File(file['size'], file['checksum'], tuple(file['sha256']), tuple(file.get('sums', ())))
             for name, file in fields['files'].items()}
    manifest = Manifest(**(fields | {'files': files}))
    same = encode(manifest) == text
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
    same = False
  if not same:
    raise DamageError(f'its {NAME} is damaged')
  return manifest


def write(directory: storage.Path, manifest: Manifest) -> None:
  storage.make_folder(directory)
  storage.write_whole(directory / NAME, encode(manifest))


def begin(directory: storage.Path, manifest: Manifest) -> None:
  """Makes the folder of a step, with a manifest from its first moment on."""
  if not storage.is_local(directory):
    write(directory, manifest)
    return
  storage.remove_tree(half(directory))
  write(half(directory), manifest)
  storage.move(half(directory), directory)


def remove(directory: storage.Path, manifest: Manifest) -> None:
  """Removes a step of ours; cut off, what is left says that it is none: by its name, or in a bucket by `manifest`."""
  if storage.is_local(directory):
    storage.remove_tree(half(directory))
    storage.move(directory, half(directory))
    storage.remove_tree(half(directory))
    return
  write(directory, manifest)
  for part in {name.partition('/')[0] for name in storage.inventory(directory)} - {NAME}:
    storage.remove_tree(directory / part)
  storage.remove_tree(directory)


def half(directory: storage.Path) -> storage.Path:
  """Where a step is while it is made or removed, on a disk."""
  return directory.parent / f'.{directory.name}.half'


def is_half(name: str) -> bool:
  return name.startswith('.') and name.endswith('.half') and name[1:-len('.half')].isdigit()


def read(directory: storage.Path) -> Manifest | None:
  """The manifest of a step; None where it has none. Raises DamageError."""
  try:
    foreign.check_kind(directory / NAME)
    return decode((directory / NAME).read_text())
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (OSError, UnicodeDecodeError, DataError) as error:
    raise DamageError(f'its {NAME} cannot be read: {error}') from error


def take(directory: storage.Path) -> dict[str, File]:
  """Size and digests of every file of a step but the manifest."""
  found = storage.inventory(directory)
  found.pop(NAME, None)
  to_read = {name: told.size for name, told in found.items() if not told.checksum}
  digests = digests_of(directory, to_read, hashlib.sha256, storage.Sums)
  return {name: File(told.size, told.checksum, *digests.get(name, ())) for name, told in found.items()}


def large(directory: storage.Path, files: dict[str, File]) -> dict[str, File]:
  """The files that take time to read; none in a bucket, which tells its checksums."""
  return {name: file for name, file in files.items() if file.size >= LARGE} if storage.is_local(directory) else {}


def check(directory: storage.Path, files: dict[str, File], unread: Container[str] = (), quick: bool = False) -> None:
  """Raises DamageError for the first file that is not what the manifest says. Others beside them do not matter.

  `unread`: names of files of which only the size is compared. `quick`: by storage.Sums where the manifest has them, in
  place of SHA-256.
  """
  found, to_read = storage.inventory(directory), {}
  for name, wanted in files.items():
    if name not in found:
      raise DamageError(f'{name} is missing')
    told = found[name]
    if told.size != wanted.size:
      raise DamageError(f'{name} has {told.size:,} bytes, and had {wanted.size:,} when it was saved')
    if name in unread:
      continue
    if not told.checksum or kind(told.checksum) != kind(wanted.checksum):
      to_read[name] = wanted
    elif told.checksum != wanted.checksum:
      raise other(name)
  quickly = {name for name, wanted in to_read.items() if quick and wanted.sums}
  hashed = {name for name, wanted in to_read.items() if wanted.sha256 or not wanted.size} - quickly
  sizes = {name: wanted.size for name, wanted in to_read.items()}
  same = {name: of == to_read[name].sums for name, (of,) in digests_of(
      directory, {name: sizes[name] for name in quickly}, storage.Sums).items()}
  same |= {name: of == to_read[name].sha256 for name, (of,) in digests_of(
      directory, {name: sizes[name] for name in hashed}, hashlib.sha256).items()}
  for name, wanted in to_read.items():
    if name not in same:
      check_crc(directory / name, name, wanted)
    elif not same[name] and wanted.size:
      raise other(name)


def kind(checksum: str) -> str:
  return checksum.partition(':')[0]


def other(name: str) -> DamageError:
  return DamageError(f'{name} has another content than when it was saved')


def check_crc(file: storage.Path, name: str, wanted: File) -> None:
  """For a step that was saved in a bucket."""
  if kind(wanted.checksum) != kind(CRC):
    raise DamageError(f'{name} has only a checksum of another storage, {kind(wanted.checksum)}, unknown here')
  import google_crc32c
  crc = google_crc32c.Checksum()
  for start in range(0, wanted.size, PIECE):
    for chunk in storage.chunks(file, start, min(start + PIECE, wanted.size)):
      crc.update(bytes(chunk))
  if CRC + base64.b64encode(crc.digest()).decode() != wanted.checksum:
    raise other(name)


def digests_of(directory: storage.Path, sizes: dict[str, int], *kinds: Callable) -> dict[str, list[tuple[str, ...]]]:
  """{name: of each of `kinds` the digests of each PIECE}; kinds: as of storage.digests."""
  pieces = [(name, start, min(start + PIECE, size)) for name, size in sizes.items() for start in range(0, size, PIECE)]
  hashed = storage.beside_each_other(
      lambda piece: storage.digests(storage.chunks(directory / piece[0], *piece[1:]), kinds), pieces)
  found: dict[str, list[tuple[str, ...]]] = {name: [()] * len(kinds) for name in sizes}
  for (name, _, _), digests in zip(pieces, hashed):
    found[name] = [(*before, digest) for before, digest in zip(found[name], digests)]
  return found

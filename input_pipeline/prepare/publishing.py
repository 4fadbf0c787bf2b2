"""A directory of data appears whole or not at all: it is made beside its place and renamed; only ours is replaced."""

import pathlib
import shutil

from input_pipeline import places, records, storage
from input_pipeline.engines import staging
from input_pipeline.prepare import tfds_layout

FILES = 'content_of_files'  # of the manifest's settings: a hash of what was read; older data has none
# What a folder of data in a bucket holds, of those that it may hold: all else there is somebody's.
_OURS = (records.MANIFEST, f'{records.DATASET_NAME}-*', records.VOCABULARY, records.SENTENCEPIECE, records.TOKENIZER,
         *tfds_layout.FILES)


def finished(output: str, settings: dict, vocabulary_sha256: str, overwrite: bool) -> records.Manifest | None:
  """The manifest of `output` where these settings made it, None where it may be made.

  Raises DataError where it is something else.
  """
  path = storage.path(output)
  if storage.is_empty(path):
    return None
  if not (path / records.MANIFEST).exists():
    if _only_remains(output):
      return None
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


def _only_remains(output: str) -> bool:
  """Whether all that is in an output is what jobs of ours that ended left there, or have to work in."""
  if not storage.is_local(output):
    return staging.only_remains(output)
  target = storage.local(storage.resolved(output))
  if not target.is_dir():
    return False
  dead = staging.of_the_dead(target, target.name)
  left = frozenset().union(*map(staging.marked, dead))
  places_to_work = {path for path, *_ in staging.workplaces(target, target.name)
                    if path in dead or not staging.marked(path)}
  return all(entry in places_to_work or entry.name in left for entry in target.iterdir())


def empty(directory: pathlib.Path) -> pathlib.Path:
  shutil.rmtree(directory, ignore_errors=True)
  directory.mkdir()
  return directory


def publish(data: pathlib.Path, shared: storage.Path, output: str, overwrite: bool) -> None:
  """Puts finished data in its place: by one rename, or, in a bucket, file by file with the manifest last.

  Shards that are not in `data` are in `shared`, in the same bucket.
  """
  path = storage.path(output)
  if not storage.is_local(output):
    shards = {shard.file for split in records.read_manifest(data).splits.values() for shard in split.shards}
    sent = {file.name for file in data.iterdir()}
    old = {file.name for pattern in _OURS for file in storage.files_in(path, pattern)} if overwrite else set()
    staging.mark_of_bucket(output, shards | sent | old)
    for name in sorted(old - shards - sent, key=lambda name: name != records.MANIFEST):
      (path / name).unlink(missing_ok=True)
    (path / records.MANIFEST).unlink(missing_ok=True)  # from now on nothing is said to be there
    storage.copy_within(shared, path, sorted(shards - sent))
    storage.upload(data, path, last=records.MANIFEST)
    return
  target = storage.local(storage.resolved(output))
  replaced = [name for name in storage.inventory(target) if not name.startswith('.')] if overwrite else []
  staging.mark(data.parent, {file.name for file in data.iterdir()} | set(replaced))
  try:
    places.put_folder(data, target, records.MANIFEST, replaced)
  except OSError as error:
    raise records.DataError(
        f'--output {output} appeared while its data was being made: name another directory') from error

"""What stands in a run's folder of checkpoints: its own steps, sound or not, and what is none of them. Nothing is
written here, and no array read."""

import dataclasses
import json
import sys
from collections.abc import Iterator

from bert_jax import manifest as manifest_lib, run_directory
from bert_jax.errors import DamageError
from bert_jax.manifest import Manifest
from input_pipeline import storage

STATE = 'state'  # STEP/state: what Orbax writes
OLD = 'params', 'opt_state', 'meta'  # the same, from before there were manifests
OLD_MARKER = 'commit_success.txt'

WHOLE = 'whole'  # its manifest is its own; its files need not be
OLDER = 'unverified'  # from before there were manifests
UNFINISHED = 'unfinished'  # of a save or a removal that was cut off
STRANGE = 'strange'  # damaged, another run's, or somebody's else


@dataclasses.dataclass(frozen=True)
class Step:
  """An entry whose name is a number."""
  directory: storage.Path
  kind: str
  manifest: Manifest | None = None
  reason: str = ''  # why it is not used

  @property
  def number(self) -> int:
    return int(self.directory.name)

  @property
  def usable(self) -> bool:
    return self.kind in (WHOLE, OLDER)


def names(directory: storage.Path) -> set[str]:
  """What is in a folder; nothing where there is none."""
  try:
    return {path.name for path in directory.iterdir()}
  except (FileNotFoundError, NotADirectoryError):
    return set()


def look(run_dir: storage.Path, fingerprints: dict[str, str]) -> list[Step]:
  """The entries whose names are numbers, the oldest first. `fingerprints`: run_directory's of the run.

  Raises DamageError where their folder is none.
  """
  directory = run_dir / run_directory.CHECKPOINTS
  if storage.is_local(directory) and directory.exists() and not directory.is_dir():
    raise DamageError(f'{directory} is a file, wanted the folder of the checkpoints: move it away')
  numbers = sorted(int(name) for name in names(directory) if run_directory.is_number(name))
  return storage.beside_each_other(lambda number: look_at(directory / str(number), fingerprints), numbers)


def look_at(directory: storage.Path, fingerprints: dict[str, str]) -> Step:
  """What an entry says that it is; its files are not read."""
  try:
    manifest = manifest_lib.read(directory)
  except DamageError as error:
    return Step(directory, STRANGE, reason=str(error))
  if manifest is None:
    if names(directory) >= {OLD_MARKER, *OLD}:
      return Step(directory, OLDER)
    return Step(directory, STRANGE, reason=f'it has no {manifest_lib.NAME}')
  if manifest.run != fingerprints:
    other = next((name for name in {**manifest.run, **fingerprints}
                  if manifest.run.get(name) != fingerprints.get(name)), '')
    return Step(directory, STRANGE, manifest, f'the {other} of the run is not what it was when the step was saved: it '
                'was changed, or the step is another run\'s')
  if manifest.step != int(directory.name):
    return Step(directory, STRANGE, manifest, f'it is step {manifest.step}, with another name')
  return Step(directory, WHOLE if manifest.finished else UNFINISHED, manifest)


def sound(found: list[Step], rejected: list[Step], beside: bool = False, quick: bool = False) -> Iterator[Step]:
  """The newest step whose every file is as it was saved, then the next older …; others are added to `rejected`.

  `beside`: arrays.read_step reads them next, and compares the large files meanwhile: here only their size is. `quick`:
  as of manifest.check.
  """
  for step in reversed(found):
    if step.kind == UNFINISHED:
      continue
    if step.kind == STRANGE:
      rejected.append(step)
      continue
    try:
      if step.manifest:
        files = step.manifest.files
        manifest_lib.check(step.directory, files, manifest_lib.large(step.directory, files) if beside else (),
                           quick)
    except (DamageError, OSError) as error:
      rejected.append(dataclasses.replace(step, reason=str(error)))
      continue
    yield step


def meta_of(step: Step) -> dict:
  """The fields of checkpoint.Meta. Raises DamageError."""
  if step.manifest:
    return step.manifest.meta
  try:
    meta = json.loads((step.directory / 'meta' / 'metadata').read_text())
    if meta['step'] != step.number:
      raise DamageError(f'it is step {meta["step"]}, with another name')
    return meta
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise DamageError(f'its meta cannot be read: {error}') from error


def tell(run_dir: storage.Path, step: Step, rejected: list[Step]) -> None:
  """Says in a line what is not used, and in another that a step cannot be verified."""
  if rejected:
    others = '; '.join(f'step {other.number} cannot be used: {other.reason}' for other in rejected)
    print(f'bert-jax: {run_dir}: {others}: step {step.number} is taken', file=sys.stderr, flush=True)
  if step.kind == OLDER:
    print(f'bert-jax: {run_dir}: step {step.number} is from before checkpoints had a {manifest_lib.NAME}: '
          'it is used unverified', file=sys.stderr, flush=True)


def refusal(directory: storage.Path, rejected: list[Step]) -> DamageError:
  """Of a folder whose steps are all rejected, by the newest."""
  newest = rejected[0]
  more = f', and none of the {len(rejected) - 1} older ones can' if rejected[1:] else ''
  return DamageError(f'{directory}: step {newest.number} cannot be used{more}: {newest.reason}; '
                     f'bring back a copy, or move what is there away, and {run_directory.LOG}, to begin at step 0')

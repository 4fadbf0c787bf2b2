"""What is sound of a run, of prepared data, or of an export: every file against what was written down of it."""

import dataclasses
from collections.abc import Callable

from bert_jax import run_directory, steps
from bert_jax.convert import directory as export_directory
from bert_jax.errors import ConfigError, DamageError
from input_pipeline import records, storage
from input_pipeline.batches import shards
from input_pipeline.errors import DataError

SOUND, DAMAGED = 'sound', 'damaged'


@dataclasses.dataclass(frozen=True)
class Item:
  """A part that is sound or not as a whole."""
  name: str
  state: str  # SOUND, DAMAGED, or of a step steps.OLDER or UNFINISHED
  detail: str = ''


@dataclasses.dataclass(frozen=True)
class Report:
  path: str
  kind: str  # run, data or export
  items: tuple[Item, ...]

  @property
  def sound(self) -> bool:
    """Whether nothing is damaged; a step that is unverified or unfinished is not."""
    return all(item.state != DAMAGED for item in self.items)

  def __str__(self) -> str:
    columns = [max(len(getattr(item, name)) for item in self.items) for name in ('name', 'state')]
    return '\n'.join(f'{item.name:<{columns[0]}}  {item.state:<{columns[1]}}  {item.detail}'.rstrip()
                     for item in self.items)


def verify(path: storage.PathLike) -> Report:
  """Reads all that can be checked; in a bucket, of checkpoints only what the storage itself says of them.

  `path`: a run, one of its steps, the output of `prepare`, or an export. Raises ConfigError where it is none.
  """
  path = storage.path(path)
  if run_directory.is_step(path):
    return Report(str(path), 'run', tuple(of_run(path.parent.parent, int(path.name))))
  there = steps.names(path)
  for kind, (marker, look) in KINDS.items():
    if marker in there:
      return Report(str(path), kind, tuple(look(path)))
  parts = [part for part in sorted(there)
           if run_directory.is_number(part) and (path / part / records.MANIFEST).exists()]
  if parts:  # data for rows of several lengths
    return Report(str(path), 'data', tuple(item for part in parts for item in of_data(path / part, f'{part}/')))
  raise ConfigError(f'{path} is no run, no prepared data and no export of ours: wanted one of these')


def outcome(name: str, check: Callable[[], str | None]) -> Item:
  """An item by what `check` says, or raises."""
  try:
    return Item(name, SOUND, check() or '')
  except (DataError, ConfigError, DamageError, OSError) as error:
    return Item(name, DAMAGED, str(error))


def of_run(run_dir: storage.Path, number: int | None = None) -> list[Item]:
  items = [outcome(run_directory.CONFIG, lambda: f'a {run_directory.read(run_dir).kind} run')]
  items.append(outcome('vocabulary', lambda: vocabulary_of(run_dir)))
  try:
    found = steps.look(run_dir, run_directory.fingerprints(run_dir))
  except OSError as error:
    return [*items, Item(run_directory.CHECKPOINTS, DAMAGED, str(error))]
  items += [of_step(step) for step in found if number in (None, step.number)]
  if number is not None and number not in {step.number for step in found}:
    raise ConfigError(f'{run_dir} has no checkpoint of step {number}')
  export = run_dir / run_directory.EXPORT
  if number is None and export_directory.MARKER in steps.names(export):
    items += of_export(export, f'{run_directory.EXPORT}/')
  return items


def vocabulary_of(run_dir: storage.Path) -> None:
  wanted = run_directory.read(run_dir).vocabulary.sha256
  if run_directory.fingerprints(run_dir).get(records.VOCABULARY) != wanted:
    raise DamageError(f'it is not the one that the run began with, of SHA-256 {wanted[:12]}')


def of_step(step: steps.Step) -> Item:
  rejected: list[steps.Step] = []
  if step.kind == steps.UNFINISHED:
    return Item(f'step {step.number}', step.kind, 'of a save or a removal that was cut off: a resumed run removes it')
  if next(steps.sound([step], rejected), None) is None:
    return Item(f'step {step.number}', DAMAGED, rejected[0].reason)
  if step.manifest is None:
    return Item(f'step {step.number}', step.kind, 'from before checkpoints had a manifest')
  size = sum(file.size for file in step.manifest.files.values())
  return Item(f'step {step.number}', SOUND, f'{len(step.manifest.files)} files, {size / 1e6:,.1f} MB')


def of_data(directory: storage.Path, prefix: str = '') -> list[Item]:
  try:
    manifest = records.read_manifest(directory)
  except DataError as error:
    return [Item(prefix + records.MANIFEST, DAMAGED, str(error))]

  def split(name: str) -> str:
    shards.open_index(directory, name, manifest)
    files = manifest.splits[name].shards
    return f'{len(files)} shards, {sum(file.bytes for file in files) / 1e6:,.1f} MB'

  return [outcome(f'{prefix}vocabulary', lambda: shards.read_token_kinds(directory, manifest.vocabulary) and None),
          *(outcome(f'{prefix}{name}', lambda name=name: split(name)) for name in manifest.splits
            if manifest.splits[name].pieces)]


def of_export(directory: storage.Path, prefix: str = '') -> list[Item]:
  marker = export_directory.read_marker(directory)
  if not marker:
    return [Item(prefix + export_directory.MARKER, DAMAGED, 'it cannot be read')]
  return [outcome(prefix + name, lambda name=name: export_directory.verify(directory, [name]))
          for name in sorted(marker['files'])]


# By the file that tells a kind, the first that is there: what looks through it. An export has a config.json too.
KINDS: dict[str, tuple[str, Callable[[storage.Path], list[Item]]]] = {
    'data': (records.MANIFEST, of_data), 'export': (export_directory.MARKER, of_export),
    'run': (run_directory.CONFIG, of_run)}

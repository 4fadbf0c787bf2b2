"""The sequence-length phases of a run: which steps have rows of which length, and the shards that they read."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable

from bert_jax import config as cfg
from input_pipeline import records, storage
from input_pipeline.batches import loader


@dataclasses.dataclass(frozen=True)
class Phase:
  """Steps first … last - 1 of a run, and the run's settings with the batches of these steps."""
  first: int
  last: int
  config: cfg.Config


def phases(config: cfg.Config) -> tuple[Phase, ...]:
  """One phase, or two: most steps on short rows, then the share of `config.long` on longer ones.

  arXiv:1810.04805 appendix A.2.
  """
  steps, long = config.run.steps, config.long
  border = steps - round(steps * long.share)
  if border == steps:
    return (Phase(0, steps, config),)
  batch = dataclasses.replace(config.batch, sequence_length=long.sequence_length, predictions=long.predictions,
                              size=long.size or config.batch.size)
  return Phase(0, border, config), Phase(border, steps, dataclasses.replace(config, batch=batch, long=cfg.Long()))


def at(config: cfg.Config, step: int) -> cfg.Config:
  """The settings that trained the parameters of `step`: of the phase that its last update was in."""
  return next((phase.config for phase in phases(config) if step <= phase.last), config)


def directory(data_dir: storage.PathLike, config: cfg.Config) -> storage.Path:
  """Where the shards for a phase are: `data_dir`, or its subfolder of that length.

  `prepare --long-sequence-length 512` makes such subfolders. Raises DataError where neither is there.
  """
  data_dir, length = storage.path(data_dir), config.batch.sequence_length
  nested = data_dir / str(length)
  if (data_dir / records.MANIFEST).is_file() or not data_dir.is_dir():
    return data_dir
  if (nested / records.MANIFEST).exists():
    return nested
  lengths = sorted(path.name for path in data_dir.iterdir() if (path / records.MANIFEST).exists())
  raise records.DataError(
      f'{data_dir} holds ' + (f'data for rows of {" and ".join(lengths)}' if lengths else f'no {records.MANIFEST}')
      + f', wanted is data for rows of {length}: make it with `bert-jax prepare`')


def prepared(data_dir: storage.PathLike) -> dict[int, records.Manifest]:
  """{length of rows: what its data says of itself}, of all that lies in DATA. Raises DataError where nothing does."""
  data_dir = storage.path(data_dir)
  if (data_dir / records.MANIFEST).is_file() or not data_dir.is_dir():
    folders = [data_dir]
  else:
    folders = [path for path in data_dir.iterdir() if path.name.isdigit() and (path / records.MANIFEST).is_file()]
  found = [records.read_manifest(folder) for folder in folders or [data_dir]]
  return {manifest.sequence_length: manifest for manifest in sorted(found, key=lambda one: one.sequence_length)}


def misfits(data_dir: storage.PathLike, config: cfg.Config) -> list[str]:
  """Sentences on what the run wants otherwise than its data was prepared, phase by phase."""
  found: list[str] = []
  for phase in phases(config):
    try:
      path = directory(data_dir, phase.config)
      found += loader.misfits(path, records.read_manifest(path), phase.config.batch)
    except records.DataError as error:
      found.append(str(error))
  return found


def open_streams(data_dir: storage.PathLike, config: cfg.Config) -> list[tuple[Phase, loader.Stream]]:
  """The verified training split of every phase. Raises DataError, ConfigError."""
  opened: list[tuple[Phase, loader.Stream]] = []
  for phase in phases(config):
    path = directory(data_dir, phase.config)
    if opened and path == storage.path(data_dir):
      raise records.DataError(
          f'{data_dir} was prepared only for rows of {config.batch.sequence_length}, and the recipe trains the last '
          f'{config.long.share:.0%} of its steps on rows of {phase.config.batch.sequence_length}: prepare both with '
          f'--long-sequence-length {phase.config.batch.sequence_length}, or pass --long.share 0')
    opened.append((phase, loader.open_split(path, 'train', phase.config.batch, first_step=phase.first)))
  vocabularies = {stream.vocabulary.sha256 for _, stream in opened}
  if len(vocabularies) > 1:
    raise records.DataError(
        f'the lengths in {data_dir} were prepared with different vocabularies: prepare them together')
  return opened


def manifests(data_dir: storage.PathLike, config: cfg.Config) -> list[records.Manifest]:
  """What the data of every phase says of itself. Raises DataError."""
  return [records.read_manifest(directory(data_dir, phase.config)) for phase in phases(config)]


def text_of(found: list[records.Manifest]) -> str:
  """One sentence on the data of a run."""
  first = found[0]
  lengths = ' and '.join(str(manifest.sequence_length) for manifest in found)
  split = first.splits['train']
  return (f'Text: {json.dumps(first.settings.get("input"))}; {split.documents:,} documents, {split.tokens:,} tokens in '
          f'pieces for rows of up to {lengths}.')


def of_lengths(streams: list[tuple[Phase, loader.Stream]], config: cfg.Config, lengths: Iterable[int]
               ) -> tuple[str, ...]:
  """`fingerprint` of the run with other numbers of steps."""
  found = []
  for steps in lengths:
    parts = phases(dataclasses.replace(config, run=dataclasses.replace(config.run, steps=steps)))
    found.append(fingerprint([(part, stream) for part, (_, stream) in zip(parts, streams)]))
  return tuple(found)


def fingerprint(streams: list[tuple[Phase, loader.Stream]]) -> str:
  """SHA-256 over all that decides the batches of the run; that of the stream where there is one phase."""
  prints = [stream.fingerprint for _, stream in streams]
  borders = [phase.first for phase, _ in streams]
  return prints[0] if len(prints) == 1 else hashlib.sha256(repr((prints, borders)).encode()).hexdigest()

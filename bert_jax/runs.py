"""The runs of a folder: what each is, how far it came, and whether something trains there now."""

import dataclasses
import datetime
import json
from collections.abc import Iterator, Sequence

from bert_jax import config as cfg, metrics, run_directory
from bert_jax.errors import ConfigError
from input_pipeline import locking, storage

DEEPEST = 4  # folders below the one that is named
TRAINS, DONE, STOPPED, NEW, DAMAGED = 'trains', 'done', 'stopped', 'not begun', 'damaged'


@dataclasses.dataclass(frozen=True)
class Run:
  """A line of the table; None of what is not known."""
  run: str
  recipe: str  # of fine-tuning the task
  state: str
  step: int
  steps: int
  loss: float | None  # of the last line of the log
  held_out: float | None  # the loss of the last evaluation
  tokens_per_second: float | None
  changed: str | None  # the last line of the log, or what was written last: UTC


def of_folder(folder: storage.PathLike) -> list[Run]:
  """Every run below a folder, by its path. Raises ConfigError where the folder is none."""
  where = storage.path(folder)
  if not where.is_dir():
    raise ConfigError(f'{folder} is no folder: name the one that holds your runs')
  return sorted((of(path) for path in found(where, DEEPEST)), key=lambda run: run.run)


def found(folder: storage.Path, deep: int) -> Iterator[storage.Path]:
  """Run directories, a run's own folders left out."""
  if (folder / run_directory.CONFIG).is_file() and is_run(folder):
    yield folder
    return
  for path in sorted(folder.iterdir()) if deep else ():
    if path.is_dir():
      yield from found(path, deep - 1)


def is_run(folder: storage.Path) -> bool:
  """Whether its config.json is a run's, also a damaged one's."""
  try:
    fields = json.loads((folder / run_directory.CONFIG).read_text())
  except (OSError, ValueError, RecursionError):
    return (folder / run_directory.LOG).exists() or (folder / run_directory.CHECKPOINTS).exists()
  return isinstance(fields, dict) and {'kind', 'vocabulary'} <= fields.keys()


def of(path: storage.Path) -> Run:
  """What a run says of itself."""
  try:
    record = run_directory.read(path)
  except ConfigError:
    return Run(str(path), '', DAMAGED, 0, 0, None, None, None, None)
  lines = metrics.read(path)
  last = lambda kind: next((line for line in reversed(lines) if line['kind'] == kind), {})
  trained, steps = last('train'), record.config.run.steps
  step, at = trained.get('step', 0), lines[-1].get(metrics.TIME) if lines else None
  if at is None:
    with_time = path / (run_directory.LOG if lines else run_directory.CONFIG)
    at = with_time.stat().st_mtime if storage.is_local(path) and with_time.exists() else None
  name = (record.begun.recipe if record.begun else '') if isinstance(record.config, cfg.Config) else record.config.task
  state = TRAINS if locking.held(path / run_directory.LOCK) else DONE if step >= steps else STOPPED if lines else NEW
  changed = at and datetime.datetime.fromtimestamp(at, datetime.UTC).strftime('%Y-%m-%d %H:%M')
  return Run(str(path), name or record.kind, state, step, steps, trained.get('loss'),
             last(metrics.VALIDATION).get('loss'), trained.get('tokens_per_second'), changed or None)


def table(runs: Sequence[Run]) -> str:
  """A line for each run below a heading."""
  number = lambda value, form: '' if value is None else form.format(value)
  rows = [('run', 'recipe', 'state', 'step', 'loss', 'held out', 'tok/s', 'changed (UTC)')]
  rows += [(run.run, run.recipe, run.state, f'{run.step:,} of {run.steps:,}', number(run.loss, '{:.3f}'),
            number(run.held_out, '{:.3f}'), number(run.tokens_per_second, '{:,.0f}'), run.changed or '')
           for run in runs]
  widths = [max(map(len, column)) for column in zip(*rows)]
  return '\n'.join('  '.join(f'{cell:<{width}}' for cell, width in zip(row, widths)).rstrip() for row in rows) + (
      '' if runs else '\nno run is there')

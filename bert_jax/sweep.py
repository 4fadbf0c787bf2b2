"""A task fine-tuned several times: over seeds, and over a grid of learning rates, batch sizes and epochs.

RUN/seed-2, RUN/rate-3e-05-batch-16-epochs-3/seed-2: the runs, each a run directory that resumes by itself
RUN/results.json: what is done, and the best run's folder; a run that stands there is not made again
"""

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bert_jax import config as cfg, distributed, finetune, trackers
from bert_jax.errors import DriftError, require
from bert_jax.tasks import splits
from bert_jax.tasks.settings import Finetune, Grid
from bert_jax.tasks.table import TASKS
from input_pipeline import foreign, storage

RESULTS = 'results.json'
NO_GRID = Grid()


@dataclasses.dataclass(frozen=True)
class Done:
  """One run that is done."""
  metrics: dict[str, float]  # the official ones
  examples_per_second: float | None


@dataclasses.dataclass(frozen=True)
class Swept:
  """What came of all runs."""
  report: dict[str, Any] | None  # None: it was asked to stop
  tuned: finetune.Tuned | None  # of the last run that was made now; None: all were done before

  @property
  def reason(self) -> str:
    return 'steps' if self.report is not None else 'signal'


def sweep(config: Finetune, data_dir: storage.PathLike, run_dir: storage.PathLike,
          checkpoint_path: storage.PathLike | None, *, grid: Grid = NO_GRID, seeds: int = 1, devices=None,
          progress: bool = True, stop: Callable[[int], bool] | None = None, log_to: str | None = None) -> Swept:
  """Fine-tunes `seeds` times at each point of the grid, with one program; without a grid and with one seed in `run_dir`
  itself.

  Seed k is that of config.run and config.batch, plus k - 1. `log_to`: as of finetune.finetune, for each run. The
  report: {'task', 'metrics': {name: {'mean', 'std', 'best'}} of the best point, 'seeds', 'examples_per_second',
  'best': the best run's directory, 'runs'}.
  Raises ConfigError, DataError, CheckpointError, NonFiniteError.
  """
  require(seeds >= 1, f'seeds is {seeds}: wanted at least 1')
  trackers.require(log_to)
  storage.probe(run_dir, '--run-dir', checkpoints=True)
  cells = list(dict.fromkeys(grid.cells(config)))
  wanted = [(name_of(cell, len(cells) > 1, seed if seeds > 1 else None), with_seed(cell, seed))
            for cell in cells for seed in range(seeds)]
  several = len(wanted) > 1
  common = described(config, checkpoint_path)
  known = read(run_dir, common) if several else {}
  job, tuned = None, None
  for name, one in wanted:
    if name in known:
      continue
    path = storage.path(run_dir) / name if name else run_dir
    job = job or finetune.prepare(config, data_dir, checkpoint_path, path, devices)
    own = dataclasses.replace(one, model=job.config.model, labels=job.config.labels)
    tuned, figures = finetune.run(job, own, path, progress=progress, stop=stop, log_to=log_to)
    if tuned.reason == 'signal':
      return Swept(None, tuned)
    known[name] = Done(official(own, figures), tuned.examples_per_second)
    if several:
      distributed.in_turn(lambda: write(run_dir, common, known))
  found = report(config, run_dir, wanted, known, seeds)
  if several:
    best = found['best'].removeprefix(str(storage.path(run_dir))).lstrip('/')
    distributed.in_turn(lambda: write(run_dir, common, known, best))
  return Swept(found, tuned)


def name_of(config: Finetune, of_grid: bool, seed: int | None) -> str:
  """The folder of a run below RUN."""
  rate = f'{config.optimizer.peak_learning_rate!r}'.removesuffix('.0')  # in full: two rates are two folders
  point = f'rate-{rate}-batch-{config.batch.size}-epochs-{config.epochs}'
  return '/'.join(([point] if of_grid else []) + ([f'seed-{seed + 1}'] if seed is not None else []))


def with_seed(config: Finetune, number: int) -> Finetune:
  """The settings for one more seed: initial values of the head and dropout, and the order of the rows."""
  return dataclasses.replace(config, run=dataclasses.replace(config.run, seed=config.run.seed + number),
                             batch=dataclasses.replace(config.batch, seed=config.batch.seed + number))


def official(config: Finetune, figures: Mapping[str, float]) -> dict[str, float]:
  """The figures that are no terms' of the objective, nor counts, of validation and of what is evaluated beside it."""
  beside = (splits.figure(split, '') for split in TASKS[config.task].files if splits.is_beside(split))
  every = 'loss', 'examples', 'step', *(f'{term}_' for term in config.learns.terms)
  others = tuple(split + name for split in ('', *beside) for name in every)
  return {name: value for name, value in figures.items() if not name.startswith(others)}

# ---------------------------------------------------------------- what is known


def described(config: Finetune, checkpoint_path: storage.PathLike | None) -> dict[str, Any]:
  """What all runs of a sweep have in common."""
  apart = 'epochs', 'batch.size', 'batch.seed', 'run.seed', 'optimizer.peak_learning_rate'
  said = {name: value for name, value in cfg.flat(config).items() if not name.startswith((*apart, *cfg.FREE_FIELDS))}
  return json.loads(json.dumps(said | ({} if checkpoint_path is None else {'checkpoint': str(checkpoint_path)})))


def read(run_dir: storage.PathLike, common: Mapping[str, Any]) -> dict[str, Done]:
  """The runs that are done. `common`: `described`. Raises DriftError where they are of another configuration,
  ConfigError where the file is damaged."""
  found = _results(run_dir)
  if found is None:
    return {}
  before = found['settings']
  changes = [f'{name}: {before.get(name)} -> {value}' for name, value in common.items() if before.get(name) != value]
  if changes:
    raise DriftError(f'{run_dir} holds runs of another configuration ({"; ".join(changes)}): name another --run-dir, '
                     'or give the settings that they were begun with')
  return found['runs']


def _results(run_dir: storage.PathLike) -> dict[str, Any] | None:
  """What RESULTS holds: settings, best, runs as {name: Done}; None where it is missing. Raises ConfigError where it is
  damaged."""
  path = storage.path(run_dir) / RESULTS
  number = lambda value: isinstance(value, int | float)
  try:
    foreign.check_kind(path)
    text = path.read_bytes()
  except (FileNotFoundError, NotADirectoryError):
    return None
  try:
    found = json.loads(text)
    runs = found['runs'] = {name: Done(**done) for name, done in found['runs'].items()}
    numbers = [value for done in runs.values() for value in (*done.metrics.values(), done.examples_per_second or 0)]
    right = isinstance(found['settings'], dict) and found['best'] in ('', *runs) and all(map(number, numbers))
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
    right = False
  require(right, f'{path} is damaged: remove it, and the runs that are done are only looked at again')
  return found


def best_of(run_dir: storage.PathLike) -> storage.PathLike:
  """The best run of a sweep that is done, wherever the sweep lies by now; of anything else, itself."""
  best = (_results(run_dir) or {}).get('best')
  return str(storage.path(run_dir) / best) if best else run_dir


def write(run_dir: storage.PathLike, common: Mapping[str, Any], known: Mapping[str, Done], best: str = '') -> None:
  if distributed.is_first():
    fields = {'settings': common, 'best': best,
              'runs': {name: dataclasses.asdict(done) for name, done in known.items()}}
    storage.write_whole(storage.path(run_dir) / RESULTS, json.dumps(fields, indent=2) + '\n')

# ---------------------------------------------------------------- what came of it


def spread(values: Sequence[float]) -> dict[str, float | None]:
  """Of several seeds; of one there is no spread."""
  return {'mean': statistics.fmean(values), 'std': statistics.stdev(values) if len(values) > 1 else None,
          'best': max(values)}


def spreads(runs: Sequence[Done]) -> dict[str, dict[str, float | None]]:
  """{metric: spread}."""
  return {name: spread([run.metrics[name] for run in runs]) for name in runs[0].metrics}


def rate(runs: Sequence[Done]) -> float | None:
  """The median of examples a second, of those runs that tell."""
  known = [run.examples_per_second for run in runs if run.examples_per_second]
  return statistics.median(known) if known else None


def report(config: Finetune, run_dir: storage.PathLike, wanted: Sequence[tuple[str, Finetune]],
           known: Mapping[str, Done], seeds: int) -> dict[str, Any]:
  """See `sweep`. Points compare by the mean of the task's metric."""
  points: list[dict[str, Any]] = []
  for start in range(0, len(wanted), seeds):
    runs = [known[name] for name, _ in wanted[start:start + seeds]]
    point = wanted[start][1]
    points.append({
        'learning_rate': point.optimizer.peak_learning_rate, 'size': point.batch.size, 'epochs': point.epochs,
        'metrics': spreads(runs)})
  best = max(range(len(points)), key=lambda i: points[i]['metrics'][config.best]['mean'])
  mine = wanted[best * seeds:(best + 1) * seeds]
  name = max(mine, key=lambda run: known[run[0]].metrics[config.best])[0]
  return {'task': config.task, 'metrics': points[best]['metrics'], 'seeds': seeds,
          'examples_per_second': rate(list(known.values())),
          'best': str(storage.path(run_dir) / name if name else run_dir), 'metric': config.best,
          **({'grid': points} if len(points) > 1 else {}),
          'runs': {name or '.': dataclasses.asdict(known[name]) for name, _ in wanted}}


def table(report: Mapping[str, Any]) -> str:
  """The report as text, the spread over seeds beside the mean."""
  lines = []
  if 'grid' in report:
    metric = report['metric']
    lines += [f'{"learning rate":>13}  {"batch":>5}  {"epochs":>6}  {metric:>17}  {"best":>7}']
    for point in report['grid']:
      found = point['metrics'][metric]
      lines.append(f'{point["learning_rate"]:>13g}  {point["size"]:>5}  {point["epochs"]:>6}  '
                   f'{with_spread(found):>17}  {found["best"]:7.4f}')
    lines.append('')
  width = max(map(len, report['metrics']))
  seeds = report['seeds']
  lines.append(f'{report["task"]}, {seeds} seed{"s" if seeds > 1 else ""}: mean ± standard deviation, and the best')
  lines += [f'  {name:<{width}}  {with_spread(found):<17}  {found["best"]:.4f}'
            for name, found in report['metrics'].items()]
  if rate := report['examples_per_second']:
    lines.append(f'{rate:,.1f} examples/s in training')
  return '\n'.join([*lines, f'best run: {report["best"]}'])


def with_spread(found: Mapping[str, float | None]) -> str:
  """'0.8123 ± 0.0040', or only the mean of one seed."""
  return f'{found["mean"]:.4f}' + ('' if found['std'] is None else f' ± {found["std"]:.4f}')

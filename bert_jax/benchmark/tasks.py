"""A checkpoint on a suite of tasks, alone or beside others: one table, with the spread over seeds beside each mean.

OUTPUT/CHECKPOINT-…/cola.json: a cell that is done, and is not made again; its runs are removed then.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax

from bert_jax import run_directory, sweep
from bert_jax.errors import ConfigError, require
from bert_jax.fields import require_fields
from bert_jax.tasks import settings
from bert_jax.tasks.settings import Files, Finetune, Seeds
from input_pipeline import storage
from input_pipeline.ranges import FLOAT32, CountOrNone, Within

BLIMP, ACCURACY = 'blimp', 'accuracy'
BLIMP_FILE = 'blimp/BLiMP.zip'
UNTRAINED = 'untrained'  # in place of a checkpoint: the first one's model with initial weights


@dataclasses.dataclass(frozen=True)
class Cell:
  """A task of a suite."""
  folder: str
  """Where its files are, below the data root."""
  train_examples: int = 0
  """Only so many of the training examples; 0: all."""


GLUE = {'cola': Cell('tasks/glue/CoLA'), 'mrpc': Cell('tasks/glue/MRPC'), 'rte': Cell('tasks/glue/RTE'),
        'stsb': Cell('tasks/glue/STS-B'), 'sst2': Cell('tasks/glue/SST-2', 10_000),
        'mnli': Cell('tasks/babylm_mnli')}
# Each a table of tasks by their names in TASKS; and minimal pairs, which need no fine-tuning.
SUITES: dict[str, dict[str, Cell]] = {
    'quick': {**GLUE, BLIMP: Cell(BLIMP_FILE)},
    'proof': {'sst2': Cell('tasks/glue/SST-2', 2_000), 'cola': GLUE['cola'], 'mnli': GLUE['mnli'],
              'stsb': GLUE['stsb'], BLIMP: Cell(BLIMP_FILE)}}


@dataclasses.dataclass(frozen=True)
class Amount:
  """How much of a suite is done."""
  tasks: tuple[str, ...] = ()
  """Only these of the suite's tasks; by default all."""
  seeds: Seeds = 3
  """Runs of each task, which differ only in their seed."""
  limit: CountOrNone = 0
  """Only so many examples of each split, and minimal pairs; 0: all."""
  epochs: CountOrNone = 0
  """Epochs of each run; 0: the task's own."""
  learning_rate: Annotated[float, Within(0, FLOAT32, wise=1)] = 0.0
  """Peak learning rate of each run; 0: the task's own."""
  dtype: Literal['', 'float32', 'bfloat16'] = ''
  """float32 or bfloat16; '': bfloat16, and float32 on CPUs."""

  def __post_init__(self):
    require_fields(self)
    require(self.limit >= 0, f'limit is {self.limit}: wanted 0 (all) or more')


def run(checkpoints: Sequence[str], suite: str, data_root: storage.PathLike, output: storage.PathLike,
        amount: Amount, *, peer: str | None = None, devices=None, progress: bool = True,
        say: Callable[[str], object] = lambda text: None) -> dict[str, Any] | None:
  """The figures of each checkpoint on each task of a suite; None where it was asked to stop.

  {'suite', 'seeds', 'checkpoints': [names], 'missing': {task: why}, 'tasks': [{'task', 'metric', 'figures':
  {checkpoint: {metric: {mean, std, best}}}, 'examples_per_second': {checkpoint: …}, 'differences': {checkpoint:
  {difference, spread, exceeds_spread}}}]}. `peer`: huggingface; in turns transformers' model is fine-tuned too, from
  the one checkpoint's weights, and each task has 'peer_ratio', of examples a second. Raises ConfigError, DataError.
  """
  from bert_jax.convert import exchange
  require(not peer or len(checkpoints) == 1, '--peer and --against were given: wanted one of the two')
  require(suite in SUITES, f'there is no suite {suite!r}: wanted one of {", ".join(SUITES)}')
  cells = SUITES[suite]
  unknown = [name for name in amount.tasks if name not in cells]
  require(not unknown, f'the suite {suite} has no {", ".join(unknown)}: wanted some of {", ".join(cells)}')
  checkpoints = [run_directory.UNTRAINED + checkpoints[0] if path == UNTRAINED else path for path in checkpoints]
  names = ['bert_jax', peer] if peer else names_of(checkpoints)
  storage.probe(output, '--output')
  asked = {task: cell for task, cell in cells.items() if not amount.tasks or task in amount.tasks}
  if any((storage.path(data_root) / cell.folder).exists() for cell in asked.values()):
    for path in checkpoints:
      exchange.format_of(run_directory.trained(path)[0])
  found, missing = [], {}
  for task, cell in asked.items():
    data = storage.path(data_root) / cell.folder
    if not data.exists():
      missing[task] = f'{data} is not there'
      continue
    if peer:
      if task != BLIMP:
        beside = beside_peer(checkpoints[0], task, cell, data, storage.path(output), amount, devices, progress)
        if beside is None:
          return None
        found.append(of_row(task, beside['row'], names[0]) | {'peer_ratio': beside['peer_ratio']})
      continue
    row: dict[str, dict] = {}
    for name, path in zip(names, checkpoints):
      try:
        done = cell_of(path, name, task, cell, data, storage.path(output), amount, devices, progress)
      except ConfigError as error:
        if task != BLIMP:
          raise
        missing[f'{task}: {name}'] = str(error)
        continue
      if done is None:
        return None
      row[name] = done
      say(f'{name}: {task} {row[name]["metric"]} {sweep.with_spread(row[name]["metrics"][row[name]["metric"]])}')
    if row:
      found.append(of_row(task, row, names[0]))
  require(bool(found), f'nothing of the suite {suite} could be done: ' + '; '.join(map(': '.join, missing.items())))
  return {'suite': suite, 'seeds': amount.seeds, 'checkpoints': names, 'missing': missing, 'tasks': found}


def names_of(checkpoints: Sequence[str]) -> list[str]:
  """Short names that tell the checkpoints apart: the ends of their paths."""
  parts = [(UNTRAINED if untrained else '', str(path).rstrip('/').split('/'))
           for path, untrained in map(run_directory.trained, checkpoints)]
  for count in range(1, 1 + max(len(path) for _, path in parts)):
    names = [before or '/'.join(path[-count:]) for before, path in parts]
    if len(set(names)) == len(names):
      return names
  raise ConfigError(f'the same checkpoint was named twice: {", ".join(map(str, checkpoints))}')


def cell_of(path: str, name: str, task: str, cell: Cell, data: storage.Path, output: storage.Path, amount: Amount,
            devices, progress: bool) -> dict[str, Any] | None:
  """{'metric', 'metrics', 'examples_per_second'} of a checkpoint on a task; None where it was asked to stop."""
  def make(place: storage.Path):
    if task == BLIMP:
      return minimal_pairs(path, data, amount, devices, progress)
    swept = sweep.sweep(settings_of(path, task, cell, amount), data, place, path, seeds=amount.seeds, devices=devices,
                        progress=progress)
    return swept.report and {name: swept.report[name] for name in ('metric', 'metrics', 'examples_per_second')}

  return once(output / name.replace('/', '-'), path, task, cell, amount, make)


def beside_peer(path: str, task: str, cell: Cell, data: storage.Path, output: storage.Path, amount: Amount, devices,
                progress: bool) -> dict[str, Any] | None:
  """{'row': {name: as `cell_of`}, 'peer_ratio'} of ours and the peer's; None where it was asked to stop."""
  from bert_jax.benchmark import task_peers

  def make(place: storage.Path):
    found = task_peers.compare(settings_of(path, task, cell, amount), path, data, place, amount.seeds, devices=devices,
                               progress=progress)
    return found and {'row': found[0], 'peer_ratio': found[1]}

  return once(output / 'beside-huggingface', path, task, cell, amount, make)


def once(directory: storage.Path, path: str, task: str, cell: Cell, amount: Amount,
         make: Callable[[storage.Path], dict[str, Any] | None]) -> dict[str, Any] | None:
  """What `make` finds, in a folder that is removed then; from its file, where it was found before."""
  how = {'checkpoint': str(path), 'task': task} | dataclasses.asdict(cell) | dataclasses.asdict(amount) | {'tasks': ()}
  key = hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:8]
  file, place = directory / f'{task}-{key}.json', directory / f'{task}-{key}'
  if file.exists():
    return json.loads(file.read_text())
  done = make(place)
  if done is not None:
    storage.make_folder(directory)
    storage.write_whole(file, json.dumps(done, indent=2) + '\n')
    storage.remove_tree(place)
  return done


@functools.cache
def positions(path: str) -> int:
  """Tokens that a checkpoint takes."""
  from bert_jax.convert import exchange
  return exchange.load(run_directory.trained(path)[0]).model.max_positions


def settings_of(path: str, task: str, cell: Cell, amount: Amount) -> Finetune:
  """The task's own settings, with what the suite and the caller say, and rows that the checkpoint takes."""
  config = settings.of(task)
  least = lambda *counts: min((count for count in counts if count), default=0)
  dtype = amount.dtype or ('float32' if jax.default_backend() == 'cpu' else 'bfloat16')
  rate = amount.learning_rate or config.optimizer.peak_learning_rate
  return dataclasses.replace(
      config, batch=dataclasses.replace(config.batch, max_length=min(config.batch.max_length, positions(path))),
      epochs=amount.epochs or config.epochs, model=dataclasses.replace(config.model, dtype=dtype),
      files=Files(train_examples=least(cell.train_examples, amount.limit), validation_examples=amount.limit),
      optimizer=dataclasses.replace(config.optimizer, peak_learning_rate=rate))


def minimal_pairs(path: str, data: storage.Path, amount: Amount, devices, progress: bool) -> dict[str, Any]:
  """How often a checkpoint prefers the good sentence; the spread is the standard error over pairs."""
  from bert_jax import minimal_pairs as pairs_lib, rows, score
  from bert_jax.convert import exchange
  from bert_jax.model import build
  where, untrained = run_directory.trained(path)
  loaded = exchange.load(where)
  if untrained:
    params = jax.jit(lambda key: build.build(loaded.model, loaded.objective.heads, key)[1])(jax.random.key(0))
    loaded = dataclasses.replace(loaded, params=params)
  pairs = list(pairs_lib.read(data))
  pairs = pairs[::-(-len(pairs) // amount.limit)] if amount.limit else pairs  # of all phenomena
  found = score.compare(rows.place(loaded, rows.mesh_of(devices and devices[:1])), pairs, progress=progress)
  error = (found['accuracy'] * (1 - found['accuracy']) / found['pairs']) ** .5
  return {'metric': ACCURACY, 'examples_per_second': None,
          'metrics': {ACCURACY: {'mean': found['accuracy'], 'std': error, 'best': found['accuracy']}}}


def of_row(task: str, row: Mapping[str, dict], first: str) -> dict[str, Any]:
  """A line of the table: a difference exceeds the spread where it is more than both standard deviations together."""
  metric = next(iter(row.values()))['metric']
  differences = {}
  for name in row:
    if name != first and first in row:
      mine, other = (row[of]['metrics'][metric] for of in (first, name))
      spread = None if None in (mine['std'], other['std']) else mine['std'] + other['std']
      by = mine['mean'] - other['mean']
      differences[name] = {'difference': by, 'spread': spread,
                           'exceeds_spread': None if spread is None else abs(by) > spread}
  return {'task': task, 'metric': metric, 'figures': {name: done['metrics'] for name, done in row.items()},
          'examples_per_second': {name: done['examples_per_second'] for name, done in row.items()},
          'differences': differences}

# ---------------------------------------------------------------- for people


def rows_of(report: Mapping[str, Any]) -> list[list[str]]:
  """The table's lines, the first with the names."""
  names = report['checkpoints']
  lines = [['task', 'metric', *names, *(f'against {name}' for name in names[1:])]]
  for row in report['tasks']:
    figures = row['figures']
    cells = [sweep.with_spread(figures[name][row['metric']]) if name in figures else '–' for name in names]
    differences = [difference_text(row['differences'].get(name)) for name in names[1:]]
    if ratio := row.get('peer_ratio'):
      differences[0] += f'; {ratio["median"]:.2f} times ({ratio["min"]:.2f}–{ratio["max"]:.2f}) the examples/s'
    lines.append([row['task'], row['metric'], *cells, *differences])
  return lines


def difference_text(found: Mapping[str, Any] | None) -> str:
  """'+0.0312, beyond the spread'."""
  if found is None:
    return '–'
  within = {None: '', True: ', beyond the spread', False: ', within the spread'}[found['exceeds_spread']]
  return f'{found["difference"]:+.4f}{within}'


def table(report: Mapping[str, Any]) -> str:
  """The report as text."""
  lines = rows_of(report)
  widths = [max(map(len, column)) for column in zip(*lines)]
  text = ['  '.join(f'{cell:<{width}}' for cell, width in zip(line, widths)).rstrip() for line in lines]
  return '\n'.join([*text, caption(report), *(f'{what}: {why}' for what, why in report['missing'].items())])


def caption(report: Mapping[str, Any]) -> str:
  return (f'Suite {report["suite"]}: mean ± standard deviation over {report["seeds"]} seeds; of {BLIMP}, ± standard '
          'error over pairs.')


HEADING = '## Tasks\n'


def to_card(path: storage.PathLike, report: Mapping[str, Any]) -> storage.Path | None:
  """Writes the table into the model card of an export, or of a run's export, in place of an older one; None where there
  is none of the same weights."""
  from bert_jax import checkpoint
  from bert_jax.convert import huggingface
  place, untrained = run_directory.trained(path)
  where = storage.path(place)
  if untrained:
    return None
  if run_directory.run_of(where):
    where = where / run_directory.EXPORT
    told = huggingface.told_of(where)
    if told is None or told.steps != checkpoint.load(place).step:
      return None
  card = where / 'README.md'
  if not card.exists():
    return None
  lines = rows_of(report)
  marked = [lines[0], ['---'] * len(lines[0]), *lines[1:]]
  section = HEADING + '\n' + caption(report) + '\n\n' + ''.join(f'| {" | ".join(line)} |\n' for line in marked)
  before, _, old = card.read_text(encoding='utf-8').partition(HEADING)
  _, mark, after = old.partition('\n## ')
  storage.write_whole(card, before.rstrip() + '\n\n' + section + (f'\n{mark.strip()} {after}' if mark else ''))
  return card

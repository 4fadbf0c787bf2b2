"""`bert-jax plot`, `report`, `runs` and `tensorboard`: what became of runs, one or many."""

import dataclasses
import os
import sys
from typing import Annotated

import tyro

from bert_jax.errors import ConfigError, require
from input_pipeline import storage
from input_pipeline.ranges import Within
from launch.commands import flags

RunDirs = Annotated[tuple[str, ...], tyro.conf.Positional]


@dataclasses.dataclass(frozen=True)
class Plot:
  """Draw the curves of a run, or of several to compare: losses, accuracies and the learning rate."""
  run_dirs: RunDirs
  """A run directory of any kind, or several; the picture is loss.png of the first."""
  output: str | None = None
  """The file to write, a .png; by default loss.png in the first run."""


def plot(argv: list[str]) -> int:
  """Draws the curves of runs, and prints where they are."""
  args = flags.parse(Plot, argv, 'plot')
  from bert_jax import plot
  print(plot.plot(args.run_dirs, args.output))
  return 0


@dataclasses.dataclass(frozen=True)
class Report:
  """Write one page of HTML about a run: curves, figures, settings, data, predictions, attention; or compare runs."""
  run_dirs: RunDirs
  """A run directory of any kind; of several, the page shows them side by side."""
  output: str | None = None
  """The file to write; by default report.html in the first run."""


def report(argv: list[str]) -> int:
  """Writes the page of a run, or of several, and prints where it is."""
  args = flags.parse(Report, argv, 'report')
  from bert_jax.report import report
  print(report(args.run_dirs, args.output))
  return 0


@dataclasses.dataclass(frozen=True)
class Runs:
  """A table of the runs in a folder: recipe or task, state, steps, losses, tokens a second, last change."""
  folder: Annotated[str, tyro.conf.Positional] = 'runs'
  """Where the run directories are, also within each other."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def runs(argv: list[str]) -> int:
  """Prints a line for each run."""
  args = flags.parse(Runs, argv, 'runs')
  from bert_jax import runs
  found = runs.of_folder(args.folder)
  if args.json:
    print(flags.as_json({'runs': [dataclasses.asdict(run) for run in found]}))
  else:
    print(runs.table(found))
  return 0


@dataclasses.dataclass(frozen=True)
class Tensorboard:
  """Show the curves of a run, or of all runs of a folder, in TensorBoard (extra [tensorboard])."""
  run_dir: Annotated[str, tyro.conf.Positional]
  """A run directory, or a folder of them."""
  port: Annotated[int, Within(0, 65535)] = 6006
  """Where it listens, on this machine only."""


def tensorboard(argv: list[str]) -> int:
  """Becomes TensorBoard."""
  args = flags.parse(Tensorboard, argv, 'tensorboard')
  require(storage.path(args.run_dir).exists(), f'{args.run_dir} does not exist: wanted a run, or a folder of runs')
  import tensorboard  # noqa: F401
  os.execv(sys.executable, [sys.executable, '-m', 'tensorboard.main', '--logdir', args.run_dir,
                            '--port', str(args.port), '--host', 'localhost'])
  raise ConfigError('TensorBoard did not start')

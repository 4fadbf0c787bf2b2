"""`bert-jax pretrain`, `finetune`, `evaluate`, `plot` and `report`: a run, its held-out figures and its curves."""

import dataclasses
import json
from typing import Annotated

import tyro

from bert_jax.config import Config, Distributed
from bert_jax.errors import STOPPED, ConfigError
from bert_jax.tasks.settings import Finetune
from launch.commands import flags

USAGE = '''usage: bert-jax pretrain RECIPE --data DATA --run-dir RUN
       [--initialize-from CHECKPOINT]
       [--model.… --objective … --batch.… --long.… --optimizer.… --mesh.… --run.… --distributed.…]'''
FINETUNE_USAGE = '''usage: bert-jax finetune TASK --data DATA --run-dir RUN --checkpoint CHECKPOINT
       [--epochs N] [--batch.… --optimizer.… --model.… --mesh.… --run.… --distributed.…]'''

# ---------------------------------------------------------------- pretrain


@dataclasses.dataclass(frozen=True)
class Pretrain:
  """Train a recipe, or go on where its run directory stopped."""
  data: str
  """A directory that `bert-jax prepare` made."""
  run_dir: str
  """Where checkpoints and figures go; the same command resumes there."""
  config: Annotated[Config, tyro.conf.arg(name='')]
  """The run; its fields are flags without a name in front."""
  initialize_from: str | None = None
  """A checkpoint whose weights a new run begins with: a run, one of its steps, or a Hugging Face directory."""
  distributed: Distributed = Distributed()
  """Where the run has several processes: how they find each other."""


def check(args: Pretrain) -> dict[str, str]:
  """Raises ConfigError for what cannot work; returns the flags that change nothing beside the others, and why."""
  found = {}
  if not args.config.long.share:
    found |= dict.fromkeys(('long.sequence_length', 'long.predictions', 'long.size'),
                           'with --long.share 0, by which all rows have --batch.sequence-length')
  if not args.config.run.evaluate_every:
    found['run.evaluation_rows'] = 'without --run.evaluate-every'
  return found


def pretrain(argv: list[str]) -> int:
  """Trains; the exit code tells a run that was stopped from one that is done."""
  if flags.asks_for_help(argv):
    return flags.show_recipes(USAGE, 'pretrain', argv)
  from bert_jax import distributed, recipes, train
  default = Pretrain(tyro.MISSING, tyro.MISSING, recipes.recipe(argv[0]))
  args = flags.parse(Pretrain, argv[1:], f'pretrain {argv[0]}', default, check)
  distributed.start(args.distributed)
  result = train.train(args.config, args.data, args.run_dir, initialize_from=args.initialize_from)
  return STOPPED if result.reason == 'signal' else 0

# ---------------------------------------------------------------- finetune


@dataclasses.dataclass(frozen=True)
class FinetuneCommand:
  """Fine-tune a checkpoint on a task, or go on where the run directory stopped."""
  data: str
  """A directory with train.jsonl and validation.jsonl."""
  run_dir: str
  """Where checkpoints and figures go; the same command resumes there."""
  config: Annotated[Finetune, tyro.conf.arg(name='')]
  """The run; its fields are flags without a name in front."""
  checkpoint: str | None = None
  """What to begin with: a run, one of its steps, or a Hugging Face directory; not needed to go on."""
  distributed: Distributed = Distributed()
  """Where the run has several processes: how they find each other."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def check_finetune(args: FinetuneCommand) -> dict[str, str]:
  """The flags that change nothing, and why."""
  from bert_jax import finetune
  decided = [field.name for field in dataclasses.fields(args.config.model) if field.name not in finetune.OWN_FIELDS]
  found = {f'model.{name}': 'beside a checkpoint, whose encoder it is' for name in decided}
  found |= {'labels': 'as the labels are those of the training examples', 'task': 'beside TASK',
            'run.steps': 'as --epochs says how long the run is'}
  return found | {'run.evaluation_rows': 'as all examples are evaluated'}


def finetune(argv: list[str]) -> int:
  """Fine-tunes and prints the figures; the exit code tells a run that was stopped from one that is done."""
  from bert_jax.tasks.table import TASKS
  if flags.asks_for_help(argv):
    print(f'{FINETUNE_USAGE}\n\nTasks: {", ".join(TASKS)}\n\n`bert-jax finetune TASK --help` shows every setting.')
    return 0 if argv else 2
  if argv[0] not in TASKS:
    raise ConfigError(f'there is no task {argv[0]!r}: wanted one of {", ".join(TASKS)}')
  from bert_jax import distributed, finetune
  from bert_jax.tasks import settings
  default = FinetuneCommand(tyro.MISSING, tyro.MISSING, settings.of(argv[0]))
  args = flags.parse(FinetuneCommand, argv[1:], f'finetune {argv[0]}', default, check_finetune)
  distributed.start(args.distributed)
  result, figures = finetune.finetune(args.config, args.data, args.run_dir, args.checkpoint)
  if distributed.is_first():
    print(json.dumps(figures) if args.json else flags.table(figures))
  return STOPPED if result.reason == 'signal' else 0

# ---------------------------------------------------------------- what came of it


@dataclasses.dataclass(frozen=True)
class Evaluate:
  """Held-out figures of a run of any kind; of a pretraining run beside the unigram baseline of the same targets."""
  run_dir: Annotated[str, tyro.conf.Positional]
  """A run directory of `bert-jax pretrain` or `bert-jax finetune`."""
  data: str | None = None
  """Other data than the run's own, with the same vocabulary."""
  step: int | None = None
  """A checkpoint's step; the newest by default."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def evaluate(argv: list[str]) -> int:
  """Prints the held-out figures of a run."""
  args = flags.parse(Evaluate, argv, 'evaluate')
  from bert_jax import evaluate, finetune, run_directory
  of_kind = {'pretrained': evaluate.evaluate, 'finetuned': finetune.evaluate}
  kind = run_directory.read(run_directory.run_of(args.run_dir) or args.run_dir).kind
  figures = of_kind[kind](args.run_dir, args.data, args.step)
  print(json.dumps(figures) if args.json else flags.table(figures))
  return 0


@dataclasses.dataclass(frozen=True)
class Plot:
  """Draw a run's curves: losses, accuracies and the learning rate."""
  run_dir: Annotated[str, tyro.conf.Positional]
  """A run directory of any kind; the picture is its loss.png."""


def plot(argv: list[str]) -> int:
  """Draws the curves of a run, and prints where they are."""
  args = flags.parse(Plot, argv, 'plot')
  from bert_jax import plot
  print(plot.plot(args.run_dir))
  return 0


@dataclasses.dataclass(frozen=True)
class Report:
  """Write one page of HTML about a run: curves, figures, settings, data, predictions, attention; or compare runs."""
  run_dirs: Annotated[tuple[str, ...], tyro.conf.Positional]
  """A run directory of any kind; of several, the page shows them side by side."""
  output: str | None = None
  """The file to write; by default report.html in the first run."""


def report(argv: list[str]) -> int:
  """Writes the page of a run, or of several, and prints where it is."""
  args = flags.parse(Report, argv, 'report')
  from bert_jax.report import report
  print(report(args.run_dirs, args.output))
  return 0

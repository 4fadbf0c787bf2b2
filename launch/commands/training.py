"""`bert-jax pretrain`, `finetune`, `evaluate`, `predict`, `plot`, `report`: a run, its figures, answers and curves."""

import dataclasses
import json
from typing import Annotated, Literal

import tyro

from bert_jax.config import Config, Distributed
from bert_jax.errors import STOPPED, UNSAVED, ConfigError, require
from bert_jax.tasks.settings import Finetune, Grid, Seeds
from bert_jax.tasks.task import Settings
from input_pipeline import storage
from input_pipeline.ranges import CountOrNone
from launch.commands import flags

USAGE = '''usage: bert-jax pretrain RECIPE --data DATA --run-dir RUN
       [--initialize-from CHECKPOINT [--longer-positions repeat|interpolate]]
       [--model.… --objective … --batch.… --long.… --optimizer.… --mesh.… --run.… --distributed.…]'''
FINETUNE_USAGE = '''usage: bert-jax finetune TASK --data DATA --run-dir RUN --checkpoint CHECKPOINT
       [--grid] [--seeds N] [--epochs N]
       [--batch.… --files.… --optimizer.… --model.… --mesh.… --run.… --distributed.…]'''

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
  rewind_to: CountOrNone | None = None
  """Go back to the checkpoint of this step, once; later ones are removed."""
  skip_steps: str | None = None
  """With --rewind-to: leave out the batches that these steps read, FIRST:END as in 390:410."""
  initialize_from: str | None = None
  """A checkpoint whose weights a new run begins with: a run, one of its steps, or a Hugging Face directory. Where the
  data's vocabulary extends its own (`bert-jax vocabulary --extend`), new tokens begin as the mean of their pieces."""
  longer_positions: Literal['repeat', 'interpolate'] | None = None
  """How the checkpoint gets more positions where it has fewer than --model.max-positions. repeat: its own again
  (arXiv:2004.05150 section 5); interpolate: on straight lines between its own."""
  cache: str = 'auto'
  """Where compiled programs are kept for the next start: a folder that only you write to, off, or auto: your own cache
  folder; below the run where that is in a bucket or its processes are several."""
  distributed: Distributed = Distributed()
  """Where the run has several processes: how they find each other."""


def check(args: Pretrain) -> dict[str, str]:
  """Raises ConfigError for what cannot work; returns the flags that change nothing beside the others, and why."""
  found = {} if args.initialize_from else {'longer_positions': 'without --initialize-from'}
  if not args.config.long.share:
    found |= dict.fromkeys(('long.sequence_length', 'long.predictions', 'long.size'),
                           'with --long.share 0, by which all rows have --batch.sequence-length')
  if not args.config.run.evaluate_every:
    found['run.evaluation_rows'] = 'without --run.evaluate-every'
  return found


def pretrain_settings(argv: list[str]) -> Pretrain:
  """Of RECIPE and flags. Raises ConfigError."""
  from bert_jax import recipes, rewind
  default = Pretrain(tyro.MISSING, tyro.MISSING, recipes.recipe(argv[0]))
  args = flags.parse(Pretrain, argv[1:], f'pretrain {argv[0]}', default, check)
  rewind.parse(args.rewind_to, args.skip_steps)
  return args


def pretrain(argv: list[str]) -> int:
  """Trains; the exit code tells a run that was stopped from one that is done."""
  if flags.asks_for_help(argv):
    return flags.show_recipes(USAGE, 'pretrain', argv)
  from bert_jax import compiled, distributed, early_stop, rewind, stop_together, train
  args = pretrain_settings(argv)
  back = rewind.parse(args.rewind_to, args.skip_steps)
  early_stop.begin()
  distributed.start(args.distributed)
  stop_together.begin()
  with compiled.kept(compiled.place(args.cache, args.run_dir)):
    result = train.train(args.config, args.data, args.run_dir, initialize_from=args.initialize_from,
                         longer_positions=args.longer_positions, back=back)
  if result.reason != 'signal':
    return 0
  return STOPPED if result.step > (result.resumed_from or 0) else UNSAVED

# ---------------------------------------------------------------- finetune


@dataclasses.dataclass(frozen=True)
class FinetuneFlags(Finetune):
  """A fine-tuning run, whose task's own settings are flags without a name in front."""
  own: Annotated[Settings, tyro.conf.arg(name='')] = Settings()
  """The task's own settings."""


@dataclasses.dataclass(frozen=True)
class FinetuneCommand:
  """Fine-tune a checkpoint on a task, or go on where the run directory stopped."""
  data: str
  """A folder with the task's files, as it ships them; or a table of your own, a folder of such (train.csv,
  validation.csv …), or tfds:NAME."""
  run_dir: str
  """Where checkpoints and figures go; the same command resumes there."""
  config: Annotated[FinetuneFlags, tyro.conf.arg(name='')]
  """The run; its fields are flags without a name in front."""
  checkpoint: str | None = None
  """What to begin with: a run, one of its steps, or a Hugging Face directory; not needed to go on."""
  grid: Grid = Grid()
  """Several runs below RUN, one for each learning rate, batch size and number of epochs."""
  seeds: Seeds = 1
  """Runs that differ only in their seed, below RUN; with mean, standard deviation and best."""
  cache: str = 'auto'
  """Where compiled programs are kept, as `bert-jax pretrain` has it."""
  distributed: Distributed = Distributed()
  """Where the run has several processes: how they find each other."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def check_finetune(args: FinetuneCommand) -> dict[str, str]:
  """The flags that change nothing, and why."""
  from bert_jax import beginning
  decided = [field.name for field in dataclasses.fields(args.config.model) if field.name not in beginning.OWN_FIELDS]
  found = {f'model.{name}': 'beside a checkpoint, whose encoder it is' for name in decided}
  found |= {'labels': 'as the labels are those of the training examples', 'task': 'beside TASK',
            'run.steps': 'as --epochs says how long the run is'}
  return found | {'run.evaluation_rows': 'as all examples are evaluated'}


def finetune_settings(argv: list[str]) -> FinetuneCommand:
  """Of TASK and flags. Raises ConfigError."""
  from bert_jax.tasks import settings
  from bert_jax.tasks.table import TASKS
  if argv[0] not in TASKS:
    raise ConfigError(f'there is no task {argv[0]!r}: wanted one of {", ".join(TASKS)}')
  default = FinetuneCommand(tyro.MISSING, tyro.MISSING, FinetuneFlags(**vars(settings.of(argv[0]))))
  return flags.parse(FinetuneCommand, argv[1:], f'finetune {argv[0]}', default, check_finetune)


def finetune(argv: list[str]) -> int:
  """Fine-tunes and prints the figures; the exit code tells a run that was stopped from one that is done."""
  if flags.asks_for_help(argv):
    from bert_jax.tasks.table import TASKS
    print(f'{FINETUNE_USAGE}\n\nTasks: {", ".join(TASKS)}\n\n`bert-jax finetune TASK --help` shows every setting.')
    return 0 if argv else 2
  from bert_jax import compiled, distributed, early_stop, stop_together, sweep
  from bert_jax.tasks import showing
  args = finetune_settings(argv)
  early_stop.begin()
  distributed.start(args.distributed)
  stop_together.begin()
  config = Finetune(**vars(args.config))
  with compiled.kept(compiled.place(args.cache, args.run_dir)):
    found = sweep.sweep(config, args.data, args.run_dir, args.checkpoint, grid=args.grid, seeds=args.seeds)
  if found.report is None:
    return STOPPED
  if distributed.is_first():
    if args.json:
      print(json.dumps(found.report))
      return 0
    if found.tuned and found.tuned.answered:
      print(showing.shown(found.tuned.split.task, found.tuned.split.examples, found.tuned.answered.answers) + '\n')
    print(sweep.table(found.report))
  return 0

# ---------------------------------------------------------------- what came of it


@dataclasses.dataclass(frozen=True)
class Evaluate:
  """Held-out figures of a run of any kind; of a pretraining run beside the unigram baseline of the same targets."""
  run_dir: Annotated[str, tyro.conf.Positional]
  """A run directory of `bert-jax pretrain` or `bert-jax finetune`, of several seeds the best one's; or, with --data, a
  checkpoint of another format that has pretraining's heads."""
  data: str | None = None
  """Other data than the run's own, with the same vocabulary; of a fine-tuned run also one file of examples."""
  step: CountOrNone | None = None
  """A checkpoint's step; by default the newest, of a fine-tuned run the best."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def is_of_others(path: storage.PathLike) -> bool:
  """Whether it is a checkpoint, and no run."""
  from bert_jax.convert import exchange
  return any(importer.recognizes(storage.path(path)) for name, importer in exchange.IMPORTERS.items() if name != 'run')


def evaluate(argv: list[str]) -> int:
  """Prints the held-out figures of a run."""
  args = flags.parse(Evaluate, argv, 'evaluate')
  from bert_jax import evaluate, finetune, run_directory, sweep
  of_kind = {'pretrained': evaluate.evaluate, 'finetuned': finetune.evaluate}
  run_dir = sweep.best_of(args.run_dir)
  if is_of_others(run_dir):
    from bert_jax.convert import evaluating
    require(args.step is None, f'--step {args.step} is of a run: {run_dir} has one checkpoint')
    figures = evaluating.evaluate_export(run_dir, args.data)
    print(json.dumps(figures) if args.json else flags.table(figures))
    return 0
  kind = run_directory.read(run_directory.run_of(run_dir) or run_dir).kind
  figures = of_kind[kind](run_dir, args.data, args.step)
  print(json.dumps(figures) if args.json else flags.table(figures))
  return 0


# ---------------------------------------------------------------- predict


@dataclasses.dataclass(frozen=True)
class Predict:
  """What a fine-tuned run says of examples, which need no labels: bert-jax predict RUN --data DATA --output DIR"""
  run_dir: Annotated[str, tyro.conf.Positional]
  """A run directory of `bert-jax finetune`, or one of its steps; its best checkpoint answers."""
  output: str
  """A directory for predictions.jsonl and the task's official files."""
  data: str | None = None
  """A directory with the task's files, or one file of examples; by default the run's own."""
  split: str = 'test'
  """Which split of DATA."""
  step: CountOrNone | None = None
  """A checkpoint's step; the best by default."""


def predict(argv: list[str]) -> int:
  """Answers examples, and prints where the answers are."""
  args = flags.parse(Predict, argv, 'predict')
  from bert_jax import predict as predicting, sweep
  count = predicting.predict(sweep.best_of(args.run_dir), args.data, args.split, args.output, args.step)
  print(f'{args.output}: {count:,} predictions')
  return 0

# ---------------------------------------------------------------- plot


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

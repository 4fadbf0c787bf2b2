"""`bert-jax finetune`, `evaluate`, `predict`: a task's run, figures and answers."""

import dataclasses
from typing import Annotated

import tyro

from bert_jax import trackers
from bert_jax.config import Distributed
from bert_jax.errors import STOPPED, ConfigError, require
from bert_jax.tasks.settings import Finetune, Grid, Seeds
from bert_jax.tasks.task import Settings
from input_pipeline import storage
from input_pipeline.ranges import CountOrNone
from launch.commands import flags, names
from launch.commands.unknown import unknown

FINETUNE_USAGE = '''usage: bert-jax finetune TASK --data DATA --run-dir RUN --checkpoint CHECKPOINT
       [--grid] [--seeds N] [--epochs N] [--log-to wandb|mlflow]
       [--batch.… --files.… --optimizer.… --model.… --mesh.… --run.… --distributed.…]
       bert-jax finetune --run-dir RUN     goes on with a run by what it recorded'''

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
  log_to: trackers.Name | None = None
  """Who else is told of each line of the log, as `bert-jax pretrain` has it."""
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


def usual(argv: list[str]) -> tuple[str, list[str], FinetuneCommand]:
  """(task, flags, the settings where they say nothing): of a task; without one as the run that is there recorded them.

  Raises ConfigError.
  """
  from bert_jax import run_directory
  from bert_jax.tasks import settings
  from bert_jax.tasks.table import TASKS
  if not argv[0].startswith('-'):
    require(argv[0] in TASKS, unknown('task', argv[0], TASKS))
    return argv[0], argv[1:], FinetuneCommand(tyro.MISSING, tyro.MISSING, FinetuneFlags(**vars(settings.of(argv[0]))))
  run_dir = names.value_of(argv, '--run-dir')
  record = run_directory.read(run_dir) if run_dir and run_directory.run_of(run_dir) else None
  if record is None or not isinstance(record.config, Finetune):
    raise ConfigError(f'no task was named, and {run_dir or "no --run-dir"} is no run of one to go on with: wanted '
                      '`bert-jax finetune TASK --data DATA --run-dir RUN --checkpoint CHECKPOINT`')
  return record.config.task, argv, FinetuneCommand(record.data, tyro.MISSING, FinetuneFlags(**vars(record.config)))


def finetune_settings(argv: list[str]) -> FinetuneCommand:
  """Of TASK, or of the run that is there, and flags. Raises ConfigError."""
  name, rest, default = usual(argv)
  return flags.parse(FinetuneCommand, rest, f'finetune {name}', default, check_finetune)


def finetune(argv: list[str]) -> int:
  """Fine-tunes and prints the figures; the exit code tells a run that was stopped from one that is done."""
  from bert_jax.tasks.table import TASKS
  if flags.asks_for_help(argv):
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
    found = sweep.sweep(config, args.data, args.run_dir, args.checkpoint, grid=args.grid, seeds=args.seeds,
                        log_to=args.log_to)
  if found.report is None:
    return STOPPED
  if distributed.is_first():
    if args.json:
      print(flags.as_json(found.report))
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
    print(flags.as_json(figures) if args.json else flags.table(figures))
    return 0
  kind = run_directory.read(run_directory.run_of(run_dir) or run_dir).kind
  figures = of_kind[kind](run_dir, args.data, args.step)
  print(flags.as_json(figures) if args.json else flags.table(figures))
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

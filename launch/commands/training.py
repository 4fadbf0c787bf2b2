"""`bert-jax pretrain`, `evaluate` and `plot`: a run, its held-out figures and its curves."""

import dataclasses
import json
from typing import Annotated

import tyro

from bert_jax.config import Config, Distributed
from bert_jax.errors import STOPPED
from launch.commands import flags

USAGE = '''usage: bert-jax pretrain RECIPE --data DATA --run-dir RUN
       [--model.… --objective … --batch.… --long.… --optimizer.… --mesh.… --run.… --distributed.…]'''

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
  result = train.train(args.config, args.data, args.run_dir)
  return STOPPED if result.reason == 'signal' else 0

# ---------------------------------------------------------------- what came of it


@dataclasses.dataclass(frozen=True)
class Evaluate:
  """Held-out MLM and NSP figures of a run, and the unigram baseline of the same targets."""
  run_dir: Annotated[str, tyro.conf.Positional]
  """A run directory of `bert-jax pretrain`."""
  data: str | None = None
  """Other data than the run's own, with the same vocabulary."""
  step: int | None = None
  """A checkpoint's step; the newest by default."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def evaluate(argv: list[str]) -> int:
  """Prints the held-out figures of a run."""
  args = flags.parse(Evaluate, argv, 'evaluate')
  from bert_jax import evaluate
  figures = evaluate.evaluate(args.run_dir, args.data, args.step)
  print(json.dumps(figures) if args.json else flags.table(figures))
  return 0


@dataclasses.dataclass(frozen=True)
class Plot:
  """Draw a run's curves: losses, accuracies and the learning rate."""
  run_dir: Annotated[str, tyro.conf.Positional]
  """A run directory of `bert-jax pretrain`; the picture is its loss.png."""


def plot(argv: list[str]) -> int:
  """Draws the curves of a run, and prints where they are."""
  args = flags.parse(Plot, argv, 'plot')
  from bert_jax import plot
  print(plot.plot(args.run_dir))
  return 0

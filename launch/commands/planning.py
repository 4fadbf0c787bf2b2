"""`bert-jax plan`: what a recipe would need and cost on TPUs or GPUs, here or not, before anything runs."""

import dataclasses
import json
import sys
from typing import Annotated

import tyro

from bert_jax.config import Config
from bert_jax.errors import require
from input_pipeline.ranges import Count, Within
from launch.commands import flags

LIST = '--list-topologies'
USAGE = f'''usage: bert-jax plan RECIPE [--topology v5e:16x16 or h100:8] [--batch-per-chip N] [--sequence-length T]
       [--price P] [--search] [--json]
       [--model.… --objective … --batch.… --long.… --optimizer.… --mesh.… --run.…]
       bert-jax plan {LIST} [--json]'''


@dataclasses.dataclass(frozen=True)
class Plan:
  """Compile the step that `pretrain` runs, ahead of time, and say what it would need and cost."""
  config: Annotated[Config, tyro.conf.arg(name='')]
  """The run to plan; its fields are flags without a name in front."""
  topology: str | None = None
  """v5e:16x16, v5p:4x4x4, h100:8, rtx4090:1, a100-80g:2x8 (hosts x GPUs of one) …, or as clouds say it: v5litepod-256,
  a3-highgpu-8g, p5.48xlarge:2 …: which chips, none of which need be here; by default this machine's own devices."""
  slices: Count = 1
  """How many such slices of TPUs, joined by the data centre's network."""
  batch_per_chip: Count | None = None
  """Rows for each share of the batch (mesh.data x mesh.fsdp of them), instead of batch.size for all."""
  sequence_length: Count | None = None
  """Which length of the recipe's to plan, or another; the first by default."""
  predictions: Count | None = None
  """Slots for predicted tokens in a row; by default the recipe's at its lengths, else 15 % of the row."""
  all_lengths: bool = False
  """Plan every length of the recipe, and sum up the run."""
  price: Annotated[float, Within(0, 1e9, above=True)] | None = None
  """Of a chip-hour, for the run's cost in the same currency."""
  search: bool = False
  """Try other batches per chip, microbatches, remat and meshes, and show the best by tokens a day."""
  tries: Count = 12
  """Programs that a search compiles at most; each takes about a minute."""
  cache: str = 'auto'
  """Where what is read of compiled programs is kept for the next plan: a folder that only you write to, off, or auto:
  your own cache folder (~/.cache/bert_jax)."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def check(args: Plan) -> dict[str, str]:
  """Raises ConfigError for what cannot work; returns the flags that change nothing beside the others, and why."""
  require(not (args.search and args.all_lengths), '--search is for one length: leave out --all-lengths')
  found = dict.fromkeys(flags.ONLY_IN_A_RUN, 'in a plan, which is of all steps of the run')
  found |= dict.fromkeys(('batch.seed', 'run.seed'), 'in a plan, which is the same for every seed')
  if args.config.learns.masked:
    found['batch.masking'] = 'in a plan, whose batches have random tokens'
  if args.topology is None:
    found['slices'] = 'without --topology'
  if not args.search:
    found['tries'] = 'without --search'
  if args.all_lengths:
    found['sequence_length'] = 'with --all-lengths'
    found['predictions'] = 'with --all-lengths: each length has its own, in --batch.predictions and --long.predictions'
  if args.batch_per_chip:
    found |= dict.fromkeys(('batch.size', 'long.size'), 'with --batch-per-chip')
  return found


def plan(argv: list[str]) -> int:
  """Plans a recipe, and prints what came out."""
  if flags.asks_for_help(argv):
    return flags.show_recipes(USAGE, 'plan', argv)
  if LIST in argv:
    from launch.plan import text, topology
    found = topology.listed()
    print(json.dumps(found) if '--json' in argv else text.topologies(found))
    return 0
  from bert_jax import recipes
  args = flags.parse(Plan, argv[1:], f'plan {argv[0]}', Plan(recipes.recipe(argv[0])), check)
  result = figures(args)
  from launch.plan import text
  print(json.dumps(result) if args.json else text.describe(argv[0], result))
  return 0


def figures(args: Plan) -> dict:
  """The fields of plan.step.Figures by name; `others`: of further lengths, `otherwise`: with a loop over layers or
  without, `search`: of what a search tried."""
  from bert_jax import compiled
  from launch.plan import clouds, lengths, plan
  planned = lengths.chosen(args.config, args.sequence_length, args.predictions, args.all_lengths)
  topology = args.topology and clouds.topology(args.topology)
  if topology != args.topology:
    print(f'bert-jax: {args.topology} is {topology}', file=sys.stderr, flush=True)
  where = plan.Place(topology, args.slices, args.price, compiled.folder(args.cache))
  if args.search:
    found = plan.search_from(*planned[0], where, args.batch_per_chip, args.tries)
    return dataclasses.asdict(found[0]) | {'search': [dataclasses.asdict(item) for item in found]}
  first, *others = [item.to_json() for item in plan.of_lengths(planned, where, args.batch_per_chip)]
  return first | ({'others': others} if others else {})

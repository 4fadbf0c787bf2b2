"""`bert-jax plan`: what a recipe would need and cost on a TPU topology, or on this machine, before anything runs."""

import dataclasses
import json
import math
from typing import Annotated

import tyro

from bert_jax.config import Config, ConfigError, Long, require
from launch.commands.commands import parse, spell_out
from launch.plan import text as plan_text


@dataclasses.dataclass(frozen=True)
class Plan:
  """Compile the step that `pretrain` runs, ahead of time, and say what it would need and cost."""
  config: Annotated[Config, tyro.conf.arg(name='')]
  topology: str | None = None
  """v5e:16x16, v5p:4x4x4 …: which TPUs, none of which need be here; by default this machine's own devices."""
  slices: int = 1
  """How many such slices, joined by the data centre's network."""
  batch_per_chip: int | None = None
  """Rows for each share of the batch (mesh.data x mesh.fsdp of them), instead of batch.size for all."""
  sequence_length: int | None = None
  """Which length of the recipe's to plan, or another; the first by default."""
  predictions: int | None = None
  """Slots for predicted tokens in a row; by default the recipe's at its lengths, else 15 % of the row."""
  all_lengths: bool = False
  """Plan every length of the recipe, and sum up the run."""
  price: float | None = None
  """Of a chip-hour, for the run's cost in the same currency."""
  search: bool = False
  """Try other batches per chip, remat and meshes, and show the best by tokens a day."""
  tries: int = 12
  """Programs that a search compiles at most; each takes about a minute."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def main(argv: list[str]) -> int:
  """`bert-jax plan RECIPE …`."""
  from bert_jax import recipes
  if not argv or argv[0] in ('-h', '--help'):
    print('usage: bert-jax plan RECIPE [--topology v5e:16x16] [--batch-per-chip N] [--sequence-length T] [--price P] [--search] [--json]\n'
          f'       [--model.… --mesh.… …]\n\nRecipes: {", ".join(recipes.RECIPES)}\n\n'
          '`bert-jax plan RECIPE --help` shows every setting.')
    return 0 if argv else 2
  if argv[0] not in recipes.RECIPES:
    raise ConfigError(f'there is no recipe {argv[0]!r}: wanted one of {", ".join(recipes.RECIPES)}')
  args = parse(Plan, spell_out(argv[1:]), f'plan {argv[0]}', Plan(recipes.RECIPES[argv[0]]()))
  result = run(args)
  print(json.dumps(result) if args.json else plan_text.describe(argv[0], result))
  return 0


def check(args: Plan) -> None:
  """Raises ConfigError for settings that make no sense together."""
  for name in ('slices', 'batch_per_chip', 'sequence_length', 'predictions', 'tries'):
    value = getattr(args, name)
    require(value is None or value >= 1, f'--{name.replace("_", "-")} is {value}: wanted at least 1')
  require(args.price is None or args.price > 0, f'--price is {args.price}: wanted more than 0')
  require(args.slices == 1 or args.topology is not None, f'--slices {args.slices} needs --topology')
  require(not (args.search and args.all_lengths), '--search is for one length: leave out --all-lengths')


def run(args: Plan) -> dict:
  """The figures of plan_step.Figures by name; `others`: of further lengths, `search`: of what a search tried."""
  import jax

  from bert_jax.parallel import mesh as mesh_lib
  from launch.plan import search as plan_search, step as plan_step
  check(args)
  if args.topology:
    jax.config.update('jax_platforms', 'cpu')  # nothing is run: a TPU or GPU of this machine is left to whoever uses it
  devices = plan_step.topology_devices(args.topology, args.slices) if args.topology else jax.devices()
  rows = args.batch_per_chip * len(devices) if args.batch_per_chip else args.config.batch.size
  mesh = mesh_lib.make_mesh(args.config.mesh, devices, model=args.config.model, rows=rows // args.config.run.microbatches)
  shards = mesh.shape['data'] * mesh.shape['fsdp']
  planned = lengths(args)
  if args.batch_per_chip:
    planned = [(with_batch(config, size=args.batch_per_chip * shards), steps) for config, steps in planned]
  if args.search:
    require(args.topology is not None, '--search goes by estimated times, which TPU compilers alone give: name a --topology')
    found = plan_search.search(*planned[0], devices, args.topology, args.price, args.tries)
    return dataclasses.asdict(found[0]) | {'search': [dataclasses.asdict(item) for item in found]}
  first, *others = (dataclasses.asdict(plan_step.figures(config, mesh, steps, args.topology, args.price)) for config, steps in planned)
  return first | ({'others': others} if others else {})


def with_batch(config: Config, **changes) -> Config:
  return dataclasses.replace(config, batch=dataclasses.replace(config.batch, **changes))


def lengths(args: Plan) -> list[tuple[Config, int]]:
  """The settings of each length asked for, and the steps that the run has of it."""
  from bert_jax import phases
  known = [(phase.config, phase.last - phase.first) for phase in phases.phases(args.config)]
  length = args.sequence_length or known[0][0].batch.sequence_length
  chosen = known if args.all_lengths else [item for item in known if item[0].batch.sequence_length == length]
  if not chosen:
    batch = dict(sequence_length=length, predictions=args.predictions or math.ceil(0.15 * length))
    chosen = [(with_batch(dataclasses.replace(args.config, long=Long()), **batch), args.config.run.steps)]
  elif args.predictions:
    chosen = [(with_batch(config, predictions=args.predictions), steps) for config, steps in chosen]
  return [(dataclasses.replace(config, long=Long()), steps) for config, steps in chosen]

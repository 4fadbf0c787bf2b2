"""`bert-jax pretrain`: a recipe, what a file and flags say otherwise, and what follows from the data; then a run."""

import dataclasses
import os
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from bert_jax import trackers
from bert_jax.config import Asked, Config, Distributed
from bert_jax.errors import STOPPED, UNSAVED, ConfigError, require
from bert_jax.fields import flat
from input_pipeline import storage
from input_pipeline.ranges import CountOrNone
from launch.commands import flags, names

if TYPE_CHECKING:
  from bert_jax import fitting, run_directory

USAGE = '''usage: bert-jax pretrain RECIPE --data DATA --run-dir RUN
       [--initialize-from CHECKPOINT [--longer-positions repeat|interpolate]]
       [--config FILE] [--print-config | --dry-run] [--log-to wandb|mlflow]
       [--model.… --objective … --batch.… --long.… --optimizer.… --mesh.… --run.… --distributed.…]
       bert-jax pretrain --run-dir RUN [--run.… …]     goes on with a run by what it recorded'''
UNNAMED = '…'  # in the place of DATA and RUN where settings are only printed


@dataclasses.dataclass(frozen=True)
class Pretrain:
  """Train a recipe, or go on where its run directory stopped."""
  data: str
  """A directory that `bert-jax prepare` made; of a run that is there by default its own."""
  run_dir: str
  """Where checkpoints and figures go; the same command resumes there, and one without a recipe too."""
  config: Annotated[Config, tyro.conf.arg(name='')]
  """The run; its fields are flags without a name in front. What is not given follows the data and the steps: the
  vocabulary's size, the lengths of rows, the warmup."""
  settings: Annotated[str | None, tyro.conf.arg(name='config')] = None
  """A file of settings, JSON or YAML, as a run's config.json; other flags go before it, and it before the recipe."""
  print_config: bool = False
  """Print every setting with where it comes from, and do nothing else."""
  dry_run: bool = False
  """Check all that can be checked beforehand, compile a step, say what the run would cost, and write nothing."""
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
  log_to: trackers.Name | None = None
  """Who else is told of each line of the log: Weights & Biases (extra [wandb]) or MLflow (extra [mlflow]). Their own
  variables say where and by which key; to go on there, give it again."""
  cache: str = 'auto'
  """Where compiled programs are kept for the next start: a folder that only you write to, off, or auto: your own cache
  folder; below the run where that is in a bucket or its processes are several."""
  distributed: Distributed = Distributed()
  """Where the run has several processes: how they find each other."""


def check(args: Pretrain) -> dict[str, str]:
  """Raises ConfigError for what cannot work; returns the flags that change nothing beside the others, and why."""
  require(not (args.print_config and args.dry_run), '--print-config and --dry-run were given: wanted one of the two')
  found = {} if args.initialize_from else {'longer_positions': 'without --initialize-from'}
  if not args.config.long.share:
    found |= dict.fromkeys(('long.sequence_length', 'long.predictions', 'long.size'),
                           'with --long.share 0, by which all rows have --batch.sequence-length')
  if not args.config.run.evaluate_every:
    found['run.evaluation_rows'] = 'without --run.evaluate-every'
  return found


@dataclasses.dataclass(frozen=True)
class Wanted:
  """What a command line asks for."""
  recipe: str  # '': none was named
  args: Pretrain
  layers: 'fitting.Layers'
  labels: tuple[str, ...]  # of the layers: where their settings come from
  record: 'run_directory.Record | None'  # of the run that is there


def read(argv: list[str], look: bool = True) -> Wanted:
  """The settings of a command line, layer by layer. Raises ConfigError.

  look: whether a run that is there is read where a recipe is named, which may be in a bucket.
  """
  from bert_jax import fitting, recipes, run_directory, settings_file
  name, rest = (argv[0], argv[1:]) if argv and not argv[0].startswith('-') else ('', argv)
  run_dir, file = names.value_of(rest, '--run-dir'), names.value_of(rest, '--config')
  look = look or not name
  record = run_directory.read(run_dir) if look and run_dir and run_directory.run_of(run_dir) else None
  record = record if record and record.kind == 'pretrained' else None  # of another kind it is refused later
  if name:
    lowest, label = recipes.recipe(name), 'recipe'
  elif record is not None:
    lowest, label = record.config, 'run'
  elif file:
    lowest, label = Config(), 'default'
  else:
    raise ConfigError('no recipe was named, and ' + (f'{run_dir} is no run to go on with' if run_dir else
                      'no --run-dir to go on with') + ': wanted `bert-jax pretrain RECIPE --data DATA --run-dir RUN`; '
                      '`bert-jax pretrain --help` lists recipes')
  of_file = settings_file.read(file) if file else {}
  with_file = settings_file.applied(Asked.of(lowest), of_file, file)
  only_shown = '--print-config' in rest
  default = Pretrain(record.data if record else UNNAMED if only_shown else tyro.MISSING,
                     UNNAMED if only_shown else tyro.MISSING, with_file)
  args = flags.parse(Pretrain, rest, f'pretrain {name}'.strip(), default, check)
  given = frozenset(names.given(rest, Pretrain, default)) & flat(args.config).keys()
  layers = fitting.Layers((lowest, with_file, args.config), (frozenset(), frozenset(of_file), given))
  return Wanted(name, args, layers, (label, 'file', 'flag'), record)


def pretrain_settings(argv: list[str]) -> Pretrain:
  """As they are given, without a look at the run. Raises ConfigError."""
  from bert_jax import rewind
  args = read(argv, look=False).args
  rewind.parse(args.rewind_to, args.skip_steps)
  return args


def fitted(wanted: Wanted) -> 'fitting.Fitted':
  """The settings with what follows from the data, where there is some. Raises ConfigError, DataError."""
  from bert_jax import fitting
  data = None if wanted.args.data == UNNAMED else wanted.args.data
  return fitting.fitted(wanted.layers, data, wanted.record and wanted.record.config)


def sources(wanted: Wanted, followed: Mapping[str, str]) -> dict[str, str]:
  """{name: where the setting comes from}: default, recipe, run, file, flag, or what it follows."""
  usual, lowest = flat(Config()), flat(wanted.layers.settings[0])

  def source(name: str) -> str:
    level = wanted.layers.level(name)
    return wanted.labels[level] if level or lowest[name] != usual[name] else 'default'

  return {name: source(name) for name in lowest} | {name: f'data: {why}' for name, why in followed.items()}


def pretrain(argv: list[str]) -> int:
  """Trains; the exit code tells a run that was stopped from one that is done."""
  if not argv or argv[0] in ('-h', '--help'):
    return flags.show_recipes(USAGE, 'pretrain', argv)
  wanted = read(argv)
  args, fit = wanted.args, fitted(wanted)
  from bert_jax import compiled, distributed, early_stop, rewind, run_directory, settings_file, stop_together, train
  from bert_jax.training import print_once
  if args.print_config:
    print(settings_file.shown(fit.config, sources(wanted, fit.followed)), end='')
    return 0
  back = rewind.parse(args.rewind_to, args.skip_steps)
  early_stop.begin()
  distributed.start(args.distributed)
  stop_together.begin()
  for line in fit.lines:
    print_once(f'bert-jax: {line}')
  name = wanted.recipe or (storage.path(args.settings).name if args.settings else '')
  begun = run_directory.Begun(name, shlex.join(['bert-jax', 'pretrain', *argv]), os.getcwd())
  how = dict(initialize_from=args.initialize_from, longer_positions=args.longer_positions, back=back,
             log_to=args.log_to)
  if args.dry_run:
    from bert_jax import dry_run
    with compiled.kept(None):
      print('\n'.join(dry_run.dry_run(fit.config, args.data, args.run_dir, **how)))
    return 0
  with compiled.kept(compiled.place(args.cache, args.run_dir)):
    result = train.train(fit.config, args.data, args.run_dir, begun=begun, **how)
  if result.reason != 'signal':
    return 0
  return STOPPED if result.step > (result.resumed_from or 0) else UNSAVED

"""`bert-jax benchmark step`, `input` and `tasks`: what the training step and its batches cost, what a checkpoint is
worth, as a table or JSON."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Annotated, Literal

import tyro

from bert_jax.benchmark import peers, tasks
from bert_jax.config import STORED, BatchConfig, Config, Distributed, Long, Masking
from bert_jax.errors import STOPPED, ConfigError
from input_pipeline import storage
from input_pipeline.batches.reading import Engine
from input_pipeline.benchmark import Peer as InputPeer
from input_pipeline.ranges import Count, Seconds, Within
from input_pipeline.records import DYNAMIC, read_manifest
from launch.commands import flags
from launch.commands.unknown import unknown

STEP_USAGE = '''usage: bert-jax benchmark step RECIPE [--data DATA] [--peer huggingface] [--profile DIR]
       [--model.… --objective … --batch.… --optimizer.… --mesh.… --run.… --distributed.…]'''
USAGE = '''usage: bert-jax benchmark step RECIPE [--data DATA] [--peer huggingface] [--profile DIR]
                               [--model.… --batch.… --mesh.…]
       bert-jax benchmark input DATA [--peer huggingface] [--batch.…]
       bert-jax benchmark tasks CHECKPOINT --data-root DIR --output DIR [--against CHECKPOINT …] [--suite quick]

Each shows every setting where --help comes after RECIPE or DATA.'''


def benchmark(argv: list[str]) -> int:
  """Calls what the first word names."""
  if argv and argv[0] in KINDS:
    return KINDS[argv[0]](argv[1:])
  if argv and not argv[0].startswith('-'):
    raise ConfigError(unknown('benchmark', argv[0], KINDS))
  print(USAGE)
  return 0 if argv and argv[0] in ('-h', '--help') else 2

# ---------------------------------------------------------------- the step


@dataclasses.dataclass(frozen=True)
class BenchmarkStep:
  """Tokens and sequences a second, MFU, memory and compile time of a recipe's training step, also beside a peer."""
  config: Annotated[Config, tyro.conf.arg(name='')]
  """The step that `pretrain` would run; its fields are flags without a name in front."""
  data: str | None = None
  """Real batches, of a directory that `bert-jax prepare` made; by default random tokens in full rows, with --batch.pack
  in pairs as long as Wikipedia's."""
  rounds: Count = 5
  """How many times to measure; figures are medians over the rounds."""
  seconds: Seconds = 10.0
  """How long each round is, and with a peer each turn; three steps at least."""
  warmup: Count = 3
  """Steps before the first round, not counted."""
  peer: Literal['huggingface'] | None = None
  """Take turns with transformers' BertForPreTraining on the same weights and examples, on one device; of packed rows it
  gets each pair as a row, padded to the longest of its batch (extra [peers])."""
  compiled_peer: bool = False
  """The peer through torch.compile too."""
  profile: str | None = None
  """A directory for a trace of a few steps, which TensorBoard opens."""
  distributed: Distributed = Distributed()
  """Where the step runs on several processes: how they find each other."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def check_step(args: BenchmarkStep) -> dict[str, str]:
  """Raises ConfigError for what cannot work; returns the flags that change nothing beside the others, and why."""
  found = dict.fromkeys(flags.ONLY_IN_A_RUN, 'in a benchmark, which only takes steps')
  found['long'] = 'in a benchmark, whose rows all have --batch.sequence-length'
  if not args.peer:
    found['compiled_peer'] = 'without --peer'
  if not args.data:
    why = 'without --data, as random tokens are neither shuffled nor masked'
    found |= dict.fromkeys(('batch.seed', 'batch.masking'), why)
  return found


def step(argv: list[str]) -> int:
  """Measures the training step of a recipe."""
  if flags.asks_for_help(argv):
    return flags.show_recipes(STEP_USAGE, 'benchmark step', argv)
  from bert_jax import distributed, recipes
  config = dataclasses.replace(recipes.recipe(argv[0]), long=Long())  # one phase: rows of --batch.sequence-length
  args = flags.parse(BenchmarkStep, argv[1:], f'benchmark step {argv[0]}', BenchmarkStep(config), check_step)
  room = bool(args.peer) and peers.leave_room()
  distributed.start(args.distributed)
  import jax

  from bert_jax.benchmark import step as measured
  from launch.plan import times
  if room and jax.default_backend() == 'gpu':
    print(f'bert-jax: takes memory of the GPU as it is needed ({peers.PREALLOCATE}=false), so that the peer finds room',
          file=sys.stderr, flush=True)
  report = measured.measure(args.config, args.data, rounds=args.rounds, seconds=args.seconds, warmup=args.warmup,
                            peer=args.peer, compiled_peer=args.compiled_peer, profile=args.profile,
                            estimate=times.estimated)
  if jax.process_index() == 0:
    print(flags.as_json(report) if args.json else step_table(report))
  return 0


def step_table(report: dict) -> str:
  """The report for people: bytes in GB, spreads in one line, the settings left out."""
  rows = {}
  for name, value in report.items():
    if name in ('config', 'peers', 'peer_ratio', 'peer_versions') or value is None:
      continue
    if isinstance(value, bool):
      rows[name] = 'yes' if value else 'no'
    elif name.endswith('_bytes'):
      rows[name.replace('_bytes', ' GB')] = value / 1e9
    elif name == 'peer_ratios':
      rows |= {f'times {kind}': spread(ratio, '.2f') for kind, ratio in value.items()}
      rows |= {f'{kind} does': rival_line(report['peers'][kind]) for kind in value}
    else:
      rows[name] = spread(value, '.4f') if isinstance(value, dict) else value
  return flags.table({name.replace('_', ' '): value for name, value in rows.items()})


def rival_line(rates: dict) -> str:
  """'123,456 tokens/s  MFU 0.31  0.51 of its tokens real  12.3 GB of the device'; what is not known is left out."""
  parts = [f'{rates["tokens_per_second"]:,.0f} tokens/s', rates['mfu'] and f'MFU {rates["mfu"]:.3f}',
           f'{rates["real_token_share"]:.2f} of its tokens real',
           rates['peak_device_bytes'] and f'{rates["peak_device_bytes"] / 1e9:.1f} GB of the device']
  return '  '.join(part for part in parts if part)


def spread(values: dict[str, float], digits: str) -> str:
  """'median 1.50  min 1.20  max 1.90'."""
  return '  '.join(f'{name} {value:{digits}}' for name, value in values.items())

# ---------------------------------------------------------------- the input


@dataclasses.dataclass(frozen=True)
class BenchmarkInput:
  """Sequences and tokens a second from shards on disk to batches, in this process; after `taskset -c 0` on one core."""
  data: Annotated[str, tyro.conf.Positional]
  """A directory that `bert-jax prepare` made."""
  batch: BatchConfig = BatchConfig(size=256)
  """What a batch is made of; by default rows of the length that the data was prepared for."""
  engine: Engine = 'none'
  """What makes batches ahead; none: each is made when it is asked for."""
  seconds: Annotated[float, Within(0, 1e9, above=True)] = 10.0
  """How long to measure."""
  peer: InputPeer | None = None
  """Take turns with transformers' NumPy collator at masking the same rows (needs the extra [peers])."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def batches(argv: list[str]) -> int:
  """Measures how fast batches are made."""
  if not argv:
    print(USAGE)
    return 2
  named = not argv[0].startswith('-')
  default = BenchmarkInput(argv[0] if named else tyro.MISSING, batch_of(argv[0]) if named else BatchConfig(size=256))
  args = flags.parse(BenchmarkInput, argv, 'benchmark input', default)
  from input_pipeline import benchmark
  report = benchmark.measure(args.data, args.batch, seconds=args.seconds, engine=args.engine, peer=args.peer)
  print(flags.as_json(report) if args.json else input_table(report))
  return 0


def input_table(report: dict) -> str:
  """The report for people: spreads in one line, the settings left out."""
  rows = {name: value for name, value in report.items() if name != 'config'}
  written = lambda value: spread(value, ',.1f') if isinstance(value, dict) else value
  return flags.table({name: written(value) for name, value in rows.items()})


def batch_of(data: str) -> BatchConfig:
  """Batches of 256 rows of the length that `data` was prepared for."""
  manifest = read_manifest(data)
  length = manifest.sequence_length
  return BatchConfig(
      size=256, sequence_length=length, predictions=20 if length == 128 else round(length * 0.15),
      pairs='google' if manifest.pairs == 'google' else 'nsp',
      masking=Masking(unit=STORED) if manifest.masks != DYNAMIC else Masking())


# ---------------------------------------------------------------- tasks


@dataclasses.dataclass(frozen=True)
class BenchmarkTasks:
  """What a checkpoint is worth on a suite of tasks, alone or beside others, with the spread over seeds."""
  checkpoint: Annotated[str, tyro.conf.Positional]
  """A run directory, one of its steps, or a Hugging Face directory."""
  data_root: str
  """The directory with tasks/glue/CoLA …, tasks/babylm_mnli and blimp/BLiMP.zip; what is not there is left out."""
  output: str
  """Where the table goes, as tasks.txt and tasks.json, and what is done of it: the same command goes on there."""
  suite: Literal['quick', 'proof'] = 'quick'
  """quick: CoLA, MRPC, RTE, STS-B, 10,000 examples of SST-2, MNLI, BLiMP; proof: 2,000 of SST-2, CoLA, MNLI, STS-B,
  BLiMP."""
  against: tuple[str, ...] = ()
  """Other checkpoints to stand beside it; untrained: the same model with initial weights."""
  peer: Literal['huggingface'] | None = None
  """In turns, transformers' BertForSequenceClassification on the same rows, weights and recipe (extra [peers])."""
  amount: Annotated[tasks.Amount, tyro.conf.arg(name='')] = tasks.Amount()
  """How much of the suite is done."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def of_tasks(argv: list[str]) -> int:
  """Fine-tunes on a suite, and prints the table; it goes into the model card of an export, too."""
  args = flags.parse(BenchmarkTasks, argv, 'benchmark tasks')
  report = tasks.run([args.checkpoint, *args.against], args.suite, args.data_root, args.output, args.amount,
                     peer=args.peer, say=lambda text: print(text, file=sys.stderr, flush=True))
  if report is None:
    return STOPPED
  output = storage.path(args.output)
  storage.write_whole(output / 'tasks.txt', tasks.table(report) + '\n')
  storage.write_whole(output / 'tasks.json', flags.as_json(report, indent=2) + '\n')
  card = tasks.to_card(args.checkpoint, report)
  print(flags.as_json(report) if args.json else tasks.table(report))
  if card is not None:
    print(f'{card} has the table', file=sys.stderr)
  return 0


KINDS: dict[str, Callable[[list[str]], int]] = {'step': step, 'input': batches, 'tasks': of_tasks}

"""`bert-jax benchmark step` and `input`: what the training step and its batches cost, as a table or JSON."""

import dataclasses
import json
from collections.abc import Callable
from typing import Annotated, Literal

import tyro

from bert_jax.config import BatchConfig, Config, Distributed, Long
from input_pipeline.batches.reading import Engine
from input_pipeline.benchmark import Peer as InputPeer
from input_pipeline.records import read_manifest
from launch.commands.commands import parse, spell_out, table

USAGE = '''usage: bert-jax benchmark step RECIPE [--data DATA] [--peer huggingface] [--profile DIR] [--model.… --batch.… --mesh.…]
       bert-jax benchmark input DATA [--peer huggingface] [--batch.…]

Each shows every setting with --help behind RECIPE or DATA.'''


def run(argv: list[str]) -> int:
  """`benchmark KIND …`. Returns the exit code."""
  if argv[1:] and argv[0] in KINDS:
    return KINDS[argv[0]](argv[1:])
  print(USAGE)
  return 0 if argv and argv[-1] in ('-h', '--help') else 2

# ---------------------------------------------------------------- the step


@dataclasses.dataclass(frozen=True)
class BenchmarkStep:
  """Tokens and sequences a second, MFU, memory and compile time of a recipe's training step; alone, or in turns with a peer."""
  config: Annotated[Config, tyro.conf.arg(name='')]
  data: str | None = None
  """Real batches, of a directory that `bert-jax prepare` made; random tokens in full rows by default."""
  rounds: int = 5
  seconds: float = 10.0
  """How long each round is, and with a peer each turn; three steps at least."""
  warmup: int = 3
  """Steps before the first round, not counted."""
  peer: Literal['huggingface'] | None = None
  """Take turns with transformers' BertForPreTraining on the same weights and batches, on one device (needs the extra [peers])."""
  compiled_peer: bool = False
  """The peer through torch.compile too."""
  profile: str | None = None
  """A directory for a trace of a few steps, which TensorBoard opens."""
  distributed: Distributed = Distributed()
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def step(argv: list[str]) -> int:
  """Tokens a second, MFU, memory."""
  from bert_jax import distributed, recipes
  if argv[0] in ('-h', '--help'):
    print(USAGE)
    return 0
  config = dataclasses.replace(recipes.recipe(argv[0]), long=Long())  # one phase: rows of --batch.sequence-length
  args = parse(BenchmarkStep, spell_out(argv[1:]), f'benchmark step {argv[0]}', BenchmarkStep(config))
  distributed.start(args.distributed)
  from bert_jax.benchmark import step as measured
  report = measured.measure(args.config, args.data, rounds=args.rounds, seconds=args.seconds, warmup=args.warmup, peer=args.peer,
                        compiled_peer=args.compiled_peer, profile=args.profile)
  import jax
  if jax.process_index() == 0:
    print(json.dumps(report) if args.json else shown(report))
  return 0


def shown(report: dict) -> str:
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
    else:
      rows[name] = spread(value, '.4f') if isinstance(value, dict) else value
  return table({name.replace('_', ' '): value for name, value in rows.items()})


def spread(values: dict[str, float], digits: str) -> str:
  return '  '.join(f'{name} {value:{digits}}' for name, value in values.items())

# ---------------------------------------------------------------- the input


@dataclasses.dataclass(frozen=True)
class BenchmarkInput:
  """Sequences and tokens a second from shards on disk to NumPy batches, in this process; `taskset -c 0` in front for one core."""
  data: Annotated[str, tyro.conf.Positional]
  """A directory that `bert-jax prepare` made."""
  batch: BatchConfig = BatchConfig(size=256)
  engine: Engine = 'none'
  """What makes batches ahead; none: each is made when it is asked for."""
  seconds: float = 10.0
  """How long to measure."""
  peer: InputPeer | None = None
  """Take turns with transformers' NumPy collator at masking the same rows (needs the extra [peers])."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def batches(argv: list[str]) -> int:
  """Sequences and tokens a second."""
  from input_pipeline import benchmark
  named = not argv[0].startswith('-')
  default = BenchmarkInput(argv[0] if named else tyro.MISSING, batch_of(argv[0]) if named else BatchConfig(size=256))
  args = parse(BenchmarkInput, argv, 'benchmark input', default)
  report = benchmark.measure(args.data, args.batch, seconds=args.seconds, engine=args.engine, peer=args.peer)
  shown = {name: spread(value, ',.1f') if isinstance(value, dict) else value for name, value in report.items() if name != 'config'}
  print(json.dumps(report) if args.json else table(shown))
  return 0


def batch_of(data: str) -> BatchConfig:
  """Batches of 256 rows of the length that `data` was prepared for."""
  manifest = read_manifest(data)
  length = manifest.sequence_length
  return BatchConfig(size=256, sequence_length=length, predictions=20 if length == 128 else round(length * 0.15),
                     pairs='google' if manifest.pairs == 'google' else 'nsp')


KINDS: dict[str, Callable[[list[str]], int]] = {'step': step, 'input': batches}

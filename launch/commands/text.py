"""`bert-jax vocabulary`, `prepare` and `inspect`: from text to shards, and a look at them. None of them imports JAX."""

import dataclasses
from typing import Annotated, Literal

import tyro

from bert_jax.errors import require
from input_pipeline.batches.masking import Masking
from input_pipeline.prepare.settings import Prepare
from input_pipeline.records import Manifest
from launch.commands import flags


def vocabulary(argv: list[str]) -> int:
  """Trains and writes a vocabulary."""
  from input_pipeline.vocabulary import training
  settings = flags.parse(tyro.conf.OmitArgPrefixes[training.VocabularySettings], argv, 'vocabulary')
  trained = training.train_from(settings)
  print(f'{settings.output}: {trained.kind}, {len(trained.tokens):,} tokens')
  return 0

# ---------------------------------------------------------------- prepare


@dataclasses.dataclass(frozen=True)
class PrepareCommand:
  """Turn text into shuffled, pre-tokenized shards: train and validation."""
  settings: Annotated[Prepare, tyro.conf.arg(name=''), tyro.conf.OmitArgPrefixes]
  """What `input_pipeline` reads; its fields are flags without a name in front."""
  long_sequence_length: int | None = None
  """Make data for longer rows too, for a recipe's last phase: then OUTPUT gets a folder for each length."""


def prepare(argv: list[str]) -> int:
  """Makes shards of text, for one length of rows or for two."""
  args = flags.parse(PrepareCommand, argv, 'prepare')
  long, short = args.long_sequence_length, args.settings.sequence_length
  require(long is None or long > short, f'--long-sequence-length is {long}: wanted more than --sequence-length {short}')
  from input_pipeline.text import sources
  once = sources.read_once(sources.mixture(args.settings.input)) if long else []
  require(not once, f'--long-sequence-length reads the text twice, and --input {"".join(once[:1])} can be read only '
          'once: write it to a file')
  from input_pipeline.prepare import processes
  processes.begin(args.settings.workers)  # workers then import beside this process
  from input_pipeline.prepare import corpus
  lengths = [short, long] if long else []
  nested = [{'sequence_length': length, 'output': f'{args.settings.output}/{length}'} for length in lengths]
  for changes in nested or [{}]:
    settings = dataclasses.replace(args.settings, **changes)
    print(f'{settings.output}:\n' + flags.table(counts(corpus.prepare(settings))))
  return 0


def counts(manifest: Manifest) -> dict[str, object]:
  """What the source held, what was left out, and what the shards hold."""
  rows = {f'source {name.replace("_", " ")}': value for name, value in manifest.counts.items()}
  for name, split in manifest.splits.items():
    rows |= {f'{name} documents': split.documents, f'{name} pieces': split.pieces, f'{name} tokens': split.tokens,
             f'{name} unknown': f'{split.unknown_tokens / max(split.tokens, 1):.3%}',
             f'{name} shards': f'{len(split.shards)}, {sum(shard.bytes for shard in split.shards) / 1e6:,.1f} MB'}
  return rows

# ---------------------------------------------------------------- inspect


@dataclasses.dataclass(frozen=True)
class Inspect:
  """What is in prepared data: counts, lengths, padding, examples with masks and pairs; verifies every checksum."""
  data: Annotated[str, tyro.conf.Positional]
  """A directory that `bert-jax prepare` made."""
  examples: int = 3
  """Rows of each split to show; 0: only the counts."""
  seed: int = 12345
  """Of the masks and pairs shown."""
  pairs: Literal['nsp', 'google', 'sop', 'none'] | None = None
  """How to pair; as the data was prepared by default."""
  pack: bool = False
  """Show packed rows."""
  masking: Masking = Masking()
  """Which tokens of the examples are predicted, and what replaces them."""


def check(args: Inspect) -> dict[str, str]:
  """Raises ConfigError for what cannot work; returns the flags that change nothing beside the others, and why."""
  require(args.examples >= 0, f'--examples is {args.examples}: wanted 0 or more')
  return {} if args.examples else dict.fromkeys(('masking', 'pack', 'seed'), 'with --examples 0, which shows no row')


def inspect(argv: list[str]) -> int:
  """Prints what is in shards."""
  from input_pipeline import inspection
  args = flags.parse(Inspect, argv, 'inspect', check=check)
  print(inspection.inspect(args.data, args.examples, args.seed, args.pairs, args.masking, args.pack))
  return 0

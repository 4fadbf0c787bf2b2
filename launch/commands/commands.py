"""The subcommands of `bert-jax`: each one function that parses, calls and prints, and one line in COMMANDS."""

import dataclasses
import json
from collections.abc import Callable
from typing import Annotated, Literal

import tyro

from bert_jax.config import Config, Distributed
from input_pipeline.batches.masking import Masking
from input_pipeline.batches.pairs import PairKind
from input_pipeline.prepare.settings import Prepare
from input_pipeline.records import Manifest

STOPPED = 3  # exit code: asked to stop, and saved


def parse(kind, argv: list[str], command: str, default=None):
  """`kind` from flags; --help shows every field. Exits with 2 on a wrong flag."""
  extra = {} if default is None else {'default': default}
  return tyro.cli(kind, args=argv, prog=f'bert-jax {command}', **extra)


def table(rows: dict[str, object]) -> str:
  width = max(map(len, rows))
  return '\n'.join(f'{name:<{width}}  {value:,.4f}' if isinstance(value, float) else f'{name:<{width}}  {value:,}' if isinstance(value, int)
                   else f'{name:<{width}}  {value}' for name, value in rows.items())

# ---------------------------------------------------------------- text to shards


def vocabulary(argv: list[str]) -> int:
  """Train a WordPiece or SentencePiece vocabulary from a corpus."""
  from input_pipeline.vocabulary import training as vocabulary
  settings = parse(vocabulary.VocabularySettings, argv, 'vocabulary')
  made = vocabulary.train_from(settings)
  print(f'{settings.output}: {made.kind}, {len(made.tokens):,} tokens')
  return 0


@dataclasses.dataclass(frozen=True)
class PrepareCommand:
  """Turn text into shuffled, pre-tokenized shards: train and validation."""
  settings: Annotated[Prepare, tyro.conf.arg(name='')]
  long_sequence_length: int | None = None
  """Make data for longer rows too, for a recipe's last phase: then OUTPUT gets a folder for each length."""


def prepare(argv: list[str]) -> int:
  """Text to pre-tokenized shards, train and validation."""
  args = parse(PrepareCommand, argv, 'prepare')
  from input_pipeline.prepare import processes
  processes.begin(args.settings.workers)
  from input_pipeline.prepare import corpus
  lengths = [args.settings.sequence_length, args.long_sequence_length] if args.long_sequence_length else []
  nested = [dataclasses.replace(args.settings, sequence_length=length, output=f'{args.settings.output}/{length}') for length in lengths]
  for settings in nested or [args.settings]:
    print(f'{settings.output}:\n' + table(counts(corpus.prepare(settings))))
  return 0


def counts(manifest: Manifest) -> dict[str, object]:
  """What the source held, what was left out, and what the shards hold."""
  rows = {f'source {name.replace("_", " ")}': value for name, value in manifest.counts.items()}
  for name, split in manifest.splits.items():
    rows |= {f'{name} documents': split.documents, f'{name} pieces': split.pieces, f'{name} tokens': split.tokens,
             f'{name} unknown': f'{split.unknown_tokens / max(split.tokens, 1):.3%}',
             f'{name} shards': f'{len(split.shards)}, {sum(shard.bytes for shard in split.shards) / 1e6:,.1f} MB'}
  return rows


@dataclasses.dataclass(frozen=True)
class Inspect:
  """What is in prepared data: counts, lengths, padding, and examples with their masks and pairs; verifies every checksum."""
  data: Annotated[str, tyro.conf.Positional]
  """A directory that `bert-jax prepare` made."""
  examples: int = 3
  """Rows of each split to show."""
  seed: int = 12345
  """Of the masks and pairs shown."""
  pairs: PairKind | None = None
  """How to pair; as the data was prepared by default."""
  pack: bool = False
  """Show packed rows."""
  masking: Masking = Masking()


def inspect(argv: list[str]) -> int:
  """What is in the shards, with examples; verifies checksums."""
  from input_pipeline import inspection
  args = parse(Inspect, argv, 'inspect')
  print(inspection.inspect(args.data, args.examples, args.seed, args.pairs, args.masking, args.pack))
  return 0

# ---------------------------------------------------------------- training


@dataclasses.dataclass(frozen=True)
class Pretrain:
  """Train a recipe, or go on where its run directory stopped."""
  data: str
  """A directory that `bert-jax prepare` made."""
  run_dir: str
  """Where checkpoints and figures go; the same command resumes there."""
  config: Annotated[Config, tyro.conf.arg(name='')]
  distributed: Distributed = Distributed()


def pretrain(argv: list[str]) -> int:
  """Train a recipe, or resume where the run directory stopped."""
  from bert_jax import distributed, recipes, train
  if not argv or argv[0] in ('-h', '--help'):
    print('usage: bert-jax pretrain RECIPE --data DATA --run-dir RUN\n'
          '       [--model.… --batch.… --long.… --optimizer.… --mesh.… --run.… --distributed.…]\n\nRecipes:')
    print(listed(recipes.RECIPES) + '\nVariants, as in base_no_nsp:\n' + listed(recipes.VARIANTS, '_'))
    print('\n`bert-jax pretrain RECIPE --help` shows every setting with its value there.')
    return 0 if argv else 2
  name = argv[0]
  default = Pretrain(tyro.MISSING, tyro.MISSING, recipes.recipe(name))
  args = parse(Pretrain, spell_out(argv[1:]), f'pretrain {name}', default)
  distributed.start(args.distributed)
  result = train.train(args.config, args.data, args.run_dir)
  return STOPPED if result.reason == 'signal' else 0


def spell_out(argv: list[str]) -> list[str]:
  """`--mesh auto` as the flags that it stands for."""
  words = []
  for word in argv:
    if words[-1:] == ['--mesh'] and word == 'auto':
      words[-1:] = [part for axis in ('data', 'fsdp', 'tensor') for part in (f'--mesh.{axis}', '0')]
    else:
      words.append(word)
  return words


def listed(recipes: dict[str, Callable], before: str = '') -> str:
  return '\n'.join(f'  {before + name:<15} {recipe.__doc__.splitlines()[0]}' for name, recipe in recipes.items())


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
  """Held-out MLM and NSP figures beside the unigram baseline."""
  from bert_jax import evaluate
  args = parse(Evaluate, argv, 'evaluate')
  figures = evaluate.evaluate(args.run_dir, args.data, args.step)
  print(json.dumps(figures) if args.json else table(figures))
  return 0


@dataclasses.dataclass(frozen=True)
class Plot:
  """Draw a run's curves."""
  run_dir: Annotated[str, tyro.conf.Positional]


def plot(argv: list[str]) -> int:
  """Draw a run's curves to RUN/loss.png."""
  from bert_jax import plot
  print(plot.plot(parse(Plot, argv, 'plot').run_dir))
  return 0

# ---------------------------------------------------------------- measurements


def plan(argv: list[str]) -> int:
  """Compile a recipe for a TPU pod, on any machine: memory, collectives, step time, days and cost."""
  from launch.plan import command as plan
  return plan.main(argv)


def benchmark(argv: list[str]) -> int:
  """Measure: `benchmark step`, the training step; `benchmark input`, from shards to batches."""
  from launch.commands import benchmarks
  return benchmarks.run(argv)

# ---------------------------------------------------------------- checkpoints in use


@dataclasses.dataclass(frozen=True)
class Export:
  """Hand a checkpoint on to other software."""
  checkpoint: Annotated[str, tyro.conf.Positional]
  """A run directory, or one of its steps (RUN/checkpoints/STEP)."""
  output: str | None = None
  """A directory for the export; RUN/export by default. One that exists and is no export of ours is never overwritten."""
  format: Literal['huggingface'] = 'huggingface'
  """huggingface: config.json, model.safetensors, vocabulary, tokenizer.json and a model card."""


def export(argv: list[str]) -> int:
  """Hand a checkpoint on: a Hugging Face directory."""
  from bert_jax.convert import exchange
  args = parse(Export, argv, 'export')
  print(exchange.export(args.format, args.checkpoint, args.output))
  return 0


@dataclasses.dataclass(frozen=True)
class FillMask:
  """Fill the [MASK]s of a text."""
  checkpoint: Annotated[str, tyro.conf.Positional]
  """A run directory, one of its steps, or a Hugging Face directory."""
  text: Annotated[tuple[str, ...], tyro.conf.Positional]
  """Texts that each hold one [MASK] or more."""
  top_k: int = 5
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def fill_mask(argv: list[str]) -> int:
  """Fill the [MASK]s of a text."""
  from bert_jax import fill_mask
  from bert_jax.convert import exchange
  args = parse(FillMask, argv, 'fill-mask')
  loaded = exchange.load(args.checkpoint)
  results = fill_mask.fill_mask(loaded.model, loaded.params, loaded.tokenizer(), args.text, args.top_k)
  if args.json:
    print(json.dumps({'results': [{'text': text, 'masks': masks} for text, masks in zip(args.text, results)]}))
  else:
    for text, masks in zip(args.text, results):
      print(fill_mask.format_filled(text, masks))
  return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    'vocabulary': vocabulary, 'prepare': prepare, 'inspect': inspect, 'pretrain': pretrain, 'evaluate': evaluate, 'plot': plot,
    'plan': plan, 'benchmark': benchmark, 'export': export, 'fill-mask': fill_mask,
}

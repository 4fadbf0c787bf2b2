"""`bert-jax vocabulary`, `prepare` and `inspect`: from text to shards, and a look at them. None of them imports JAX."""

import dataclasses
import shlex
import sys
from typing import Annotated, Literal

import tyro

from bert_jax.errors import ConfigError, require
from input_pipeline.batches.masking import STORED, Masking
from input_pipeline.engines import names as engine_names
from input_pipeline.prepare.settings import Prepare
from input_pipeline.ranges import Count, CountOrNone, Seed, Within
from input_pipeline.records import GOOGLE
from launch.commands import flags, names

RECIPE = 'small'  # that `prepare` names for what comes next


def check_vocabulary(settings) -> dict[str, str]:
  """The flags that change nothing beside the others, and why."""
  idle = {} if settings.extend is None else dict.fromkeys(
      ('lower_case', 'language'), 'with --extend, whose text is that of the old vocabulary')
  if settings.lower_case is not None:
    idle['language'] = 'beside --lower-case or --no-lower-case, which it chooses'
  draws = settings.limit or settings.kind == 'sentencepiece'
  return idle | ({} if draws else {'seed': 'without --limit, which draws by it'})


def vocabulary(argv: list[str]) -> int:
  """Trains and writes a vocabulary."""
  from input_pipeline import processes
  from input_pipeline.vocabulary import cases, training
  own, of_engine = flags.parted(argv)
  settings = flags.parse(tyro.conf.OmitArgPrefixes[training.VocabularySettings], own, 'vocabulary',
                         check=check_vocabulary)
  processes.begin(settings.workers)  # workers then import beside this process
  trained = training.train_from(settings, progress=True, arguments=of_engine)
  print(f'{settings.output}: {trained.kind}, {len(trained.tokens):,} tokens')
  told = settings.lower_case is not None or settings.extend is not None  # or else it was chosen by the same letters
  if told and (lost := cases.warning(trained.lower_case, trained.tokens, settings.language, trained.strips_accents)):
    print(f'bert-jax: {lost}', file=sys.stderr)
  return 0

# ---------------------------------------------------------------- prepare


@dataclasses.dataclass(frozen=True)
class PrepareCommand:
  """Turn text into shuffled, pre-tokenized shards: train and validation."""
  settings: Annotated[Prepare, tyro.conf.arg(name=''), tyro.conf.OmitArgPrefixes]
  """What `input_pipeline` reads; its fields are flags without a name in front."""
  long_sequence_length: Count | None = None
  """Make data for longer rows too, for a recipe's last phase: then OUTPUT gets a folder for each length."""
  recipe: Annotated[str | None, tyro.conf.arg(name='for')] = None
  """A recipe of `bert-jax pretrain` to make data for: its lengths of rows, pairs and masks, where other flags say no
  others."""
  dry_run: bool = False
  """Read the flags, say what is wrong with them, and make nothing: for launchers, before anything costs money."""


OLD_RUNNER, OLD_ARGUMENTS = '--beam-runner', '--beam-arguments'


def refuse_old_flags(argv: list[str]) -> None:
  """Raises ConfigError for flags that others have taken the place of, with these in the sentence."""
  given: dict[str, list[str]] = {}
  name = None
  for word in argv:
    own, equals, value = word.partition('=')
    own = own.replace('_', '-')
    if own in (OLD_RUNNER, OLD_ARGUMENTS):
      given[name := own] = [value] if equals else []
    elif name == OLD_ARGUMENTS and (not word.startswith('--') or '=' in word) or name and not given[name]:
      given[name].append(word)
    else:
      name = None
  if given:
    runner = [f'--runner={value}' for value in given.get(OLD_RUNNER, [])[:1]]
    new = shlex.join(['--engine', 'beam', '--', *runner, *given.get(OLD_ARGUMENTS, [])])
    raise ConfigError(f'{" and ".join(given)}: there is no such flag any more; write {new} at the end instead')


def prepare(argv: list[str]) -> int:
  """Makes shards of text, for one length of rows or for two."""
  own, of_engine = flags.parted(argv)
  refuse_old_flags(own)
  args = flags.parse(PrepareCommand, [*own, *for_recipe(own)], 'prepare')
  long, short = args.long_sequence_length, args.settings.sequence_length
  require(long is None or long > short, f'--long-sequence-length is {long}: wanted more than --sequence-length {short}')
  if args.dry_run:
    return 0
  from input_pipeline.text import sources
  once = sources.read_once(sources.mixture(args.settings.input)) if long else []
  require(not once, f'--long-sequence-length reads the text twice, and --input {"".join(once[:1])} can be read only '
          'once: write it to a file')
  from input_pipeline import processes
  processes.begin(args.settings.workers)  # workers then import beside this process
  from input_pipeline import inspection
  from input_pipeline.prepare import corpus
  lengths = [short, long] if long else []
  nested = [{'sequence_length': length, 'output': f'{args.settings.output}/{length}'} for length in lengths]
  for changes in nested or [{}]:
    settings = dataclasses.replace(args.settings, **changes)
    manifest = corpus.prepare(settings, arguments=of_engine)
    print(inspection.summary(settings.output, manifest))
  print('\n'.join(['\nnext', *(f'  bert-jax {shlex.join(words)}' for words in next_commands(args))]))
  return 0


def for_recipe(argv: list[str]) -> list[str]:
  """The flags that a recipe needs where nothing else is given. Raises ConfigError."""
  name, given = names.value_of(argv, '--for'), names.given(argv, PrepareCommand)
  if name is None:
    return []
  from bert_jax import recipes  # and JAX: only here
  config = recipes.recipe(name)
  wanted: dict[str, object] = {'sequence_length': config.batch.sequence_length}
  short = names.value_of(argv, '--sequence-length') or str(config.batch.sequence_length)
  if config.long.share and short.isdigit() and int(short) < config.long.sequence_length:
    wanted['long_sequence_length'] = config.long.sequence_length
  if config.batch.pairs == 'google':
    wanted['pairs'] = 'google'
  if config.batch.masking.unit == STORED:
    wanted['masks'] = GOOGLE
  return [word for field, value in wanted.items() if field not in given for word in (names.flag(field), str(value))]


def next_commands(args: PrepareCommand) -> list[list[str]]:
  """A look at the data, and a run on it, which fits itself to the data."""
  output = args.settings.output
  run = f'runs/{output.rstrip("/").rpartition("/")[2]}'
  return [['inspect', f'{output}/{args.settings.sequence_length}' if args.long_sequence_length else output],
          ['pretrain', args.recipe or RECIPE, '--data', output, '--run-dir', run]]

# ---------------------------------------------------------------- inspect


@dataclasses.dataclass(frozen=True)
class Inspect:
  """What is in prepared data; verifies every checksum.

  Shown are: documents that were dropped and why, and templates by name; of each split sizes, padding and rows of an
  epoch, alone and packed; lengths; the most frequent tokens, unknown ones and what stands around them, scripts, remains
  of markup; what of the validation split stands in train too; and rows as the model sees them, with masks and pairs.
  """
  data: Annotated[str, tyro.conf.Positional]
  """A directory that `bert-jax prepare` made."""
  examples: CountOrNone = 1
  """Rows of each split to show; 0: only the counts."""
  seed: Seed = 12345
  """Of the masks and pairs shown."""
  pairs: Literal['nsp', 'google', 'sop', 'none'] | None = None
  """How to pair; as the data was prepared by default."""
  pack: bool = False
  """Show packed rows."""
  sample_tokens: Annotated[int, Within(1, 10**15)] = 1 << 23
  """Tokens of each split to read for what the manifest does not count; the share that was read is shown."""
  masking: Masking = Masking()
  """Which tokens of the examples are predicted, and what replaces them."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""
  workers: Annotated[int, Within(1, 10**4)] = 1
  """Processes that verify shards and read samples; what is found does not depend on it. 1: one, which verifies by some
  threads."""
  engine: Literal[*engine_names.ENGINES] = engine_names.HERE
  """Who does that. beam: Apache Beam; ray: Ray. Their own flags come last, after a bare --: `--engine ray --
  --address=auto`."""


def check(args: Inspect) -> dict[str, str]:
  """Raises ConfigError for what cannot work; returns the flags that change nothing beside the others, and why."""
  engine_names.refuse(args)
  return {} if args.examples else dict.fromkeys(('masking', 'pack', 'seed'), 'with --examples 0, which shows no row')


def inspect(argv: list[str]) -> int:
  """Prints what is in shards."""
  from input_pipeline import inspection
  own, of_engine = flags.parted(argv)
  args = flags.parse(Inspect, own, 'inspect', check=check)
  by = inspection.looking_by(args.data, args.engine, of_engine, args.workers, progress=True)
  report = inspection.inspect(args.data, args.examples, args.seed, args.pairs, args.masking, args.pack,
                              args.sample_tokens, by=by)
  print(flags.as_json(dataclasses.asdict(report)) if args.json else inspection.text(report))
  return 0

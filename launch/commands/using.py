"""`bert-jax fill-mask`, `features`, `score` and `next-sentence`: what a trained encoder is good for.

Each takes any checkpoint, texts as arguments, from a file or from a pipe, and works through them batch by batch.
"""

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from bert_jax.errors import require
from input_pipeline import input_files, storage
from input_pipeline.errors import DataError
from input_pipeline.ranges import Count, CountOrNone, Within
from input_pipeline.text import given
from launch.commands import flags

if TYPE_CHECKING:
  from bert_jax.text_encoder import TextEncoder


@dataclasses.dataclass(frozen=True)
class Running:
  """Where a checkpoint runs, and in what batches."""
  batch_size: Count = 64
  """Rows that run together, of about the same length: fewer need less memory."""
  devices: CountOrNone = 1
  """How many devices of this machine share out the rows of a batch; 0: all."""
  dtype: Literal['float32', 'bfloat16'] = 'float32'
  """What it computes in; bfloat16 is faster on GPU and TPU, and coarser."""


BETWEEN = ' ||| '  # the two texts of a pair, as BERT's extract_features.py has it
NONE = '', ''
Shared = Annotated[Running, tyro.conf.arg(name='')]


def load(path: str, running: Running) -> 'TextEncoder':
  """The checkpoint on the devices that were asked for. Raises ConfigError."""
  import jax

  import bert_jax
  here = jax.local_devices()
  require(0 <= running.devices <= len(here), f'--devices is {running.devices}, and there are {len(here)} here: wanted '
          'at most so many, or 0 for all')
  return bert_jax.load(path, dtype=running.dtype, devices=here[:running.devices or None])


def texts_of(arguments: tuple[str, ...], source: str | None) -> Iterable[given.Line]:
  """The texts of the command line, of a file, or of what is piped in. Raises ConfigError where there is none."""
  require(not arguments or source is None, f'texts were given and --input {source}: wanted one of the two')
  if arguments:
    return [given.checked(text, f'text {number}') for number, text in enumerate(arguments, 1)]
  if source is None:
    require(not sys.stdin.isatty(), 'no text was given: write one after the checkpoint, name a file of lines with '
            '--input, or pipe lines in')
    source = input_files.STANDARD_INPUT
  return given.lines(source)


def is_watched() -> bool:
  """Whether a bar on stderr has someone who sees it."""
  return sys.stderr.isatty()


def print_json(results: Iterable[dict]) -> None:
  """{"results": [ … ]}, one result a line, each as soon as it is there."""
  before = '{"results": ['
  for result in results:
    print(before + flags.as_json(result), end='')
    before = ',\n'
  print(f'{before}]}}' if before.startswith('{') else ']}')

# ---------------------------------------------------------------- fill-mask


@dataclasses.dataclass(frozen=True)
class FillMask:
  """Fill the [MASK]s of texts: bert-jax fill-mask RUN 'Paris is the [MASK] of France.'"""
  checkpoint: Annotated[str, tyro.conf.Positional]
  """A run directory, one of its steps, or a Hugging Face directory."""
  text: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
  """Texts that each hold one [MASK] or more; without any, lines that are piped in."""
  input: str | None = None
  """A file with a text in each line, or - for standard input; empty lines are passed over."""
  top_k: Count = 5
  """How many tokens to show for each [MASK], the likeliest first."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""
  running: Shared = Running()
  """Where it runs, and in what batches."""


def fill_mask(argv: list[str]) -> int:
  """Prints the likeliest tokens for each [MASK]."""
  args = flags.parse(FillMask, argv, 'fill-mask')
  texts, again = itertools.tee(text for text in texts_of(args.text, args.input) if args.text or text.strip())
  encoder = load(args.checkpoint, args.running)
  from bert_jax import fill_mask as fill
  found = zip(again, fill.fill_mask(encoder, texts, args.top_k, batch_size=args.running.batch_size,
                                    progress=is_watched()))
  if args.json:
    print_json({'text': text, 'masks': masks} for text, masks in found)
  else:
    count = 0
    for text, masks in found:
      count += 1
      print(fill.format_filled(text, masks))
    require(count > 0, 'no text was given: standard input or --input held no line with text')
  return 0

# ---------------------------------------------------------------- features


@dataclasses.dataclass(frozen=True)
class Features:
  """What the layers make of texts: bert-jax features RUN 'A sentence.' --pooling mean

  By default JSON lines on stdout as BERT's extract_features.py writes them, with the last four layers of every token.
  """
  words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar='CHECKPOINT [TEXT ...]')] = ()
  """A run directory, one of its steps, or a Hugging Face directory; then texts, or pairs 'A ||| B'. Without texts,
  lines that are piped in."""
  join: tuple[str, str] = NONE
  """Two checkpoints in place of CHECKPOINT, whose states are joined: of the same tokenizer, such as a left-to-right and
  a right-to-left encoder."""
  input: str | None = None
  """A file with a text in each line, or - for standard input."""
  output: str | None = None
  """A file for arrays, .npy, .npz or .safetensors, that are collected in memory first; without it JSON lines go to
  stdout, each as soon as it is there."""
  layers: tuple[Annotated[int, Within(-10**4, 10**4)], ...] | None = None
  """Which layers: -1 is the last. By default the last four; with --pooling the last."""
  pooling: Literal['none', 'mean', 'cls', 'pooled'] = 'none'
  """One vector for each text: the mean of its tokens, that of [CLS], or the pooler's; none: one for each token."""
  truncate: bool = False
  """Cut texts that are too long, where they are an error otherwise."""
  running: Shared = Running()
  """Where it runs, and in what batches."""


def features(argv: list[str]) -> int:
  """Writes the states of layers."""
  args = flags.parse(Features, argv, 'features')
  joins = args.join != NONE
  require(bool(joins or args.words), 'no checkpoint was given: wanted `bert-jax features CHECKPOINT TEXT`, or --join '
          'with two of them')
  checkpoints, texts = (args.join, args.words) if joins else (args.words[:1], args.words[1:])
  from bert_jax import features as feature
  kind = storage.path(args.output).suffix if args.output else None
  require(kind is None or kind in feature.FILES,
          f'--output {args.output} ends in {kind!r}: wanted {", ".join(feature.FILES)}, or no --output for JSON lines')
  if args.output and kind:
    feature.check_file(kind, args.layers, args.pooling)
    storage.probe(args.output, '--output', folder=False)
  lines = (halves(line) for line in texts_of(texts, args.input))
  encoders = [load(path, args.running) for path in checkpoints]
  found = feature.features(encoders, lines, args.layers, args.pooling, batch_size=args.running.batch_size,
                           truncate=args.truncate, progress=is_watched())
  if args.output and kind:
    storage.write_output(storage.path(args.output), feature.FILES[kind](list(found)))
  else:
    for number, one in enumerate(found):
      print(feature.json_line(number, one))
  return 0

# ---------------------------------------------------------------- score


@dataclasses.dataclass(frozen=True)
class Score:
  """How likely sentences are, in nats: bert-jax score RUN 'Cats sleep.' 'Cats sleeps.'

  Of a masked model the pseudo-log-likelihood: each token is masked, and the logarithms of its probability are added up
  (arXiv:1910.14659). Of a left-to-right or right-to-left one the log-likelihood.
  """
  checkpoint: Annotated[str, tyro.conf.Positional]
  """A run directory, one of its steps, or a Hugging Face directory."""
  text: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
  """Sentences; without any, lines that are piped in."""
  input: str | None = None
  """A file with a sentence in each line, or - for standard input."""
  pairs: str | None = None
  """Minimal pairs in place of sentences: how often is the good one likelier? JSON lines with sentence_good and
  sentence_bad (- for standard input), a folder of *.jsonl, or a .zip of them, such as BLiMP's."""
  by: str = 'linguistics_term'
  """The field of a pair's line that names its phenomenon, for the table; where there is none, its file's name."""
  unit: Literal['token', 'word'] = 'token'
  """What is masked together: each token alone; or with all that follow in its word, which would give it away
  (PLL-word-l2r, arXiv:2305.10588)."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""
  running: Shared = Running()
  """Where it runs, and in what batches."""


def check_score(args) -> dict[str, str]:
  """Raises ConfigError for what cannot work; returns the flags that change nothing beside the others, and why."""
  require(args.pairs is None or not (args.text or args.input),
          f'sentences and --pairs {args.pairs} were given: wanted one of the two')
  return {} if args.pairs else {'by': 'without --pairs'}


def score(argv: list[str]) -> int:
  """Prints the score of each sentence, or how often the good one of a pair has the better."""
  args = flags.parse(Score, argv, 'score', check=check_score)
  from bert_jax import minimal_pairs, score as scoring
  how = {'unit': args.unit, 'batch_size': args.running.batch_size, 'progress': is_watched()}
  if args.pairs is not None:
    pairs = minimal_pairs.read(args.pairs, args.by)
    report = scoring.compare(load(args.checkpoint, args.running), pairs, **how)
    print(flags.as_json(report) if args.json else accuracy_table(report))
    return 0
  texts, again = itertools.tee(texts_of(args.text, args.input))
  found = zip(again, scoring.score(load(args.checkpoint, args.running), texts, **how))
  if args.json:
    print_json({'text': text, 'score': one.score, 'tokens': one.tokens} for text, one in found)
  else:
    for text, one in found:
      print(f'{one.score:10.4f}  {text}')
  return 0


def accuracy_table(report: dict) -> str:
  """The share of pairs whose good sentence is likelier, by phenomenon and in all."""
  rows: dict[str, object] = {name: f'{accuracy:7.1%}' for name, accuracy in report['by'].items()}
  return flags.table(rows | {f'all {report["pairs"]:,} pairs': f'{report["accuracy"]:7.1%}'})

# ---------------------------------------------------------------- next-sentence


@dataclasses.dataclass(frozen=True)
class NextSentence:
  """How likely one text follows another: bert-jax next-sentence RUN 'He was tired.' 'He slept.'"""
  checkpoint: Annotated[str, tyro.conf.Positional]
  """A run directory, one of its steps, or a Hugging Face directory."""
  text: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
  """Two texts, or pairs, each 'A ||| B'; without any, lines that are piped in."""
  input: str | None = None
  """A file with a pair in each line, or - for standard input: A ||| B, A and B with a tab between, or JSON with text
  and text_pair. Empty lines are passed over."""
  truncate: bool = False
  """Cut pairs that are too long, where they are an error otherwise."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""
  running: Shared = Running()
  """Where it runs, and in what batches."""


def next_sentence(argv: list[str]) -> int:
  """Prints the probability that the second text of a pair follows the first."""
  args = flags.parse(NextSentence, argv, 'next-sentence')
  pairs, again = itertools.tee(pairs_of(args))
  encoder = load(args.checkpoint, args.running)
  from bert_jax import next_sentence as following
  found = zip(again, following.next_sentence(encoder, pairs, batch_size=args.running.batch_size,
                                             truncate=args.truncate, progress=is_watched()))
  if args.json:
    print_json({'text': first, 'text_pair': second, 'is_next': p} for (first, second), p in found)
  else:
    for (first, second), p in found:
      print(f'{p:6.1%}  {first}{BETWEEN}{second}')
  return 0


def pairs_of(args: NextSentence) -> Iterator[tuple[given.Line, given.Line]]:
  """Two texts of the command line are one pair; else each text or line is one. Raises ConfigError, DataError."""
  texts = texts_of(args.text, args.input)
  if len(args.text) == 2 and not any(BETWEEN in text for text in args.text):
    first, second = texts
    return iter([(first, second)])
  return (pair_of(line) for line in texts if args.text or line.strip())


def pair_of(line: given.Line) -> tuple[given.Line, given.Line]:
  """The two texts of a line. Raises DataError where it has not two."""
  if line.lstrip().startswith('{'):
    found = given.fields(line, ('text', 'text_pair'))
    return found['text'], found['text_pair']
  parts = line.split('\t')
  pair = (given.Line(parts[0], line.place), given.Line(parts[1], line.place)) if len(parts) == 2 else halves(line)
  if isinstance(pair, given.Line):
    raise DataError(f'{line.place} has no two texts: wanted A{BETWEEN}B, A and B with a tab between, or '
                    '{"text": …, "text_pair": …}')
  return pair


def halves(line: given.Line) -> tuple[given.Line, given.Line] | given.Line:
  """The two texts of 'A ||| B', or the one that a line is."""
  first, between, second = line.rpartition(BETWEEN)
  return (given.Line(first, line.place), given.Line(second, line.place)) if between else line

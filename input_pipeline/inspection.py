"""What is in the shards: verified checksums, counts, lengths, and examples with their masks and pairs made visible.

Letters: N pieces of a split, V vocabulary.
"""

import dataclasses
import textwrap

import numpy as np

from input_pipeline import records, storage
from input_pipeline.batches import loader, shards
from input_pipeline.batches.checks import require
from input_pipeline.batches.loader import BatchConfig
from input_pipeline.batches.masking import Masking
from input_pipeline.batches.pairs import PairKind

VERIFIED = 'sizes, framing, SHA-256, ids and lengths of every shard'
BINS = 16  # of the histogram of lengths
BAR = 40  # characters of the longest bar
WIDTH = 118  # characters of a line of an example
SAMPLED_WINDOWS = 16  # whose pairs are counted
PACKED_PAIRS = 16  # pairs of a packed row, at most
PACKED_SLOTS = 4  # more slots for predictions in a packed row: each pair's count is rounded


@dataclasses.dataclass(frozen=True)
class SplitReport:
  documents: int
  pieces: int
  sentences: int
  tokens: int
  shards: int
  bytes: int
  bytes_per_token: float
  unknown_share: float  # of the tokens
  padding_share: float  # of rows that hold one pair each
  padding_share_packed: float  # of packed rows; 1 - this is the share of real tokens
  negative_share: float  # of the next-sentence pairs of the first windows' first epoch
  trimmed_tokens: int  # that found no room there
  lengths: tuple[int, ...]  # pieces by length with special tokens, in BINS equal bins up to sequence_length
  examples: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Report:
  directory: str
  sequence_length: int
  pairs: str  # as the manifest has it: dynamic or google
  vocabulary: records.Vocabulary
  verified: str  # what was checked
  counts: dict[str, int]
  settings: dict
  splits: dict[str, SplitReport]

  def __str__(self) -> str:
    return report_text(self)


def inspect(directory: storage.PathLike, examples: int = 3, seed: int = 12345, pairs: PairKind | None = None,
            masking: Masking = BatchConfig.masking, pack: bool = False) -> Report:
  """Verifies every checksum and describes the data. Raises DataError at the first fault.

  `pairs`: as BatchConfig.pairs; None: as the data was prepared. `examples`: rows of each split that are shown.
  """
  require(examples >= 0, f'examples is {examples}; wanted 0 or more')
  manifest = records.read_manifest(directory)
  length = manifest.sequence_length
  pairs = pairs or ('google' if manifest.pairs == 'google' else 'nsp')
  masking.check()
  slots = max(1, round(length * masking.greatest_share) + PACKED_SLOTS * pack)
  config = BatchConfig(size=max(examples, 1), sequence_length=length, predictions=slots,
                       pairs=pairs, pack=pack, pairs_per_row=PACKED_PAIRS if pack else 1, masking=masking, seed=seed)
  tokens = shards.read_vocabulary(directory, manifest.vocabulary)
  filled = [name for name, split in manifest.splits.items() if split.pieces]
  splits = {name: describe(directory, name, config, manifest, tokens, examples) for name in filled}
  return Report(str(directory), length, manifest.pairs, manifest.vocabulary, VERIFIED,
                manifest.counts, manifest.settings, splits)


def describe(directory: storage.PathLike, split: str, config: BatchConfig, manifest: records.Manifest,
             tokens: list[str], examples: int) -> SplitReport:
  counts = manifest.splits[split]
  try:
    stream = loader.open_split(directory, split, config)
  except loader.OneDocument:  # worth a look all the same
    stream = loader.open_split(directory, split, dataclasses.replace(config, pairs='none'))
  places = counts.pieces * config.sequence_length  # of rows that hold one piece each
  padding = places - counts.tokens - shards.SPECIALS * counts.pieces
  windows, bins = len(stream.window_rows), np.zeros(BINS, np.int64)
  for number in range(windows):
    lengths = stream.read_window(number).piece_lengths + shards.SPECIALS
    bins += np.histogram(lengths, BINS, (0, config.sequence_length))[0]
  size = sum(shard.bytes for shard in counts.shards)
  sampled = [stream.arrangement(0, number).pairs for number in range(min(SAMPLED_WINDOWS, windows))]
  negatives = sum(int(pairs.label.sum()) for pairs in sampled) / sum(len(pairs.label) for pairs in sampled)
  packed = stream if stream.trials else loader.open_split(
      directory, split, dataclasses.replace(stream.config, pack=True, pairs_per_row=PACKED_PAIRS), 'framing')
  return SplitReport(
      counts.documents, counts.pieces, counts.sentences, counts.tokens, len(counts.shards), size, size / counts.tokens,
      counts.unknown_tokens / counts.tokens, padding / places,
      1 - packed.expected_fill, negatives, sum(pairs.trimmed for pairs in sampled), tuple(map(int, bins)),
      tuple(decode(stream, tokens, examples)))


def decode(stream: loader.Stream, tokens: list[str], examples: int) -> list[str]:
  """The first rows of the stream: what the text was, with predicted tokens in braces, and what the model sees."""
  if not examples:
    return []
  batch = stream.rows(0, min(examples, stream.rows_per_epoch))
  return [decode_row({name: array[i] for name, array in batch.items()}, tokens, stream)
          for i in range(len(batch['input_ids']))]


def decode_row(row: dict[str, np.ndarray], tokens: list[str], stream: loader.Stream) -> str:  # {[T]}, {[P]}, {[N]}
  seen, original = row['input_ids'], row['input_ids'].copy()
  predicted = row['masked_lm_positions'][row['masked_lm_weights'] > 0]
  original[predicted] = row['masked_lm_ids'][row['masked_lm_weights'] > 0]
  marked = np.zeros(len(seen), bool)
  marked[predicted] = True
  real, pairs = np.count_nonzero(row['pair_ids']), row['pair_ids'].max()
  lines = [f'row of {real} of {len(seen)} tokens, {pairs} pair(s), {len(predicted)} predicted']
  for pair in range(1, pairs + 1):
    lines.append(f'  pair {pair}: {meaning(row, pair - 1, stream.config.pairs)}')
    for segment in range(stream.separators):
      inside = (row['pair_ids'] == pair) & (row['token_type_ids'] == segment)
      for name, ids, marks in (('text', original, marked),
                               ('seen', seen, marked & (seen != stream.vocabulary.mask_id))):
        text = join(ids[inside], marks[inside], tokens, stream.kinds.continues)
        lines.append(textwrap.fill(text, WIDTH, initial_indent=f'    {"AB"[segment]} {name}  ',
                                   subsequent_indent=' ' * 12))
  return '\n'.join(lines)


def meaning(row: dict[str, np.ndarray], pair: int, pairs: str) -> str:
  if pairs == 'none':
    return 'one segment'
  label = row['next_sentence_labels'][pair]
  return f'label {label}, ' + {'sop': ('A comes before B', 'B comes before A')}.get(
      pairs, ('B follows A', 'B is of another document'))[label]


def join(ids: np.ndarray, marked: np.ndarray, tokens: list[str], continues: np.ndarray) -> str:  # [K], [K], [V], [V]
  """Text of token ids: parts of a word joined, predicted tokens in braces."""
  words = []
  for token, mark in zip(ids, marked):
    part = tokens[token].removeprefix('##') if continues[token] else tokens[token].removeprefix('▁')
    part = f'{{{part}}}' if mark else part
    if continues[token] and words and not words[-1].endswith(']'):
      words[-1] += part
    else:
      words.append(part)
  return ' '.join(words)


def bars(counts: tuple[int, ...], sequence_length: int) -> list[str]:
  """A histogram for people: one line a bin."""
  most = max(*counts, 1)
  edges = [round(sequence_length * i / len(counts)) for i in range(len(counts) + 1)]
  return [f'    {low:>4} to {high - 1 + (high == sequence_length):>4}  {"█" * round(BAR * n / most):<{BAR}}  {n:,}'
          for low, high, n in zip(edges, edges[1:], counts)]


def report_text(report: Report) -> str:
  vocabulary = report.vocabulary
  kept = ', '.join(f'{name} {count:,}' for name, count in report.counts.items())
  lines = [
      report.directory,
      f'  rows of {report.sequence_length} tokens, pairs {report.pairs}; '
      f'{vocabulary.kind} vocabulary of {vocabulary.size:,}'
      f'{", lower case" if vocabulary.lower_case else ""}',
      f'  verified: {report.verified}', *([f'  source: {kept}'] if kept else [])]
  for name, split in report.splits.items():
    lines += [
        '', f'{name}: {split.documents:,} documents, {split.pieces:,} pieces, {split.sentences:,} sentences, '
        f'{split.tokens:,} tokens',
        f'  {split.shards} shards, {split.bytes:,} bytes, {split.bytes_per_token:.2f} a token; '
        f'unknown tokens {split.unknown_share:.3%}',
        f'  padding {split.padding_share:.1%} of rows with one pair, {split.padding_share_packed:.2%} of packed rows',
        f'  pairs with label 1: {split.negative_share:.2%}; tokens cut off: {split.trimmed_tokens}',
        '  lengths of pieces, special tokens counted:', *bars(split.lengths, report.sequence_length)]
    for i, example in enumerate(split.examples):
      lines += ['', f'  example {i + 1}: ' + example.replace('\n', '\n  ')]
  return '\n'.join(lines)

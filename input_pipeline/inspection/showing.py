"""A report for people, aligned and two screens at most by default; and what `prepare` says of its data."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from input_pipeline import counts as counts_lib
from input_pipeline.inspection import tokens as tokens_lib
from input_pipeline.inspection.findings import Copies, Report, Split, Tokens
from input_pipeline.records import Manifest

WIDTH = 118  # characters of a line
BAR = 40  # characters of the longest bar
LABEL = 22  # characters of a name in front of a figure
COLUMN = 24  # characters of a split's figures
EXAMPLE_LINES = 3  # of a segment that is shown
NAMES = 20  # of a group of counts that are shown
RARE = 0.0001  # a share of the letters: scripts below it are only named
SCRIPTS = 8  # of these that are named
BATCH = 256  # rows: what the steps of an epoch are counted for


def text(report: Report) -> str:
  """All that `inspect` found."""
  vocabulary = report.vocabulary
  case = ', lower case' if vocabulary.lower_case else ''
  return joined(
      [report.directory,
       f'  rows of {report.sequence_length} tokens, pairs {report.pairs}; {vocabulary.kind} vocabulary of '
       f'{vocabulary.size:,}{case}',
       f'  verified: {report.verified}'],
      document_lines(report.documents, report.counts),
      table('splits', {name: split_figures(split) for name, split in report.splits.items()}),
      length_lines(report), token_lines(report.tokens, report.vocabulary.size),
      copy_lines(report.copies) if report.copies else [],
      *(example for name, split in report.splits.items() for example in example_lines(name, split)),
      warning_lines(report.warnings))


def summary(directory: str, manifest: Manifest) -> str:
  """What the manifest says of data that was made."""
  columns = {
      name: exact_figures(split.documents, split.pieces, split.sentences, split.tokens,
                          split.unknown_tokens / max(split.tokens, 1), len(split.shards),
                          sum(shard.bytes for shard in split.shards))
      for name, split in manifest.splits.items()}
  return joined([directory], document_lines(counts_lib.documents(manifest), manifest.counts), table('splits', columns),
                warning_lines(counts_lib.warnings(manifest)))


def joined(*sections: Sequence[str]) -> str:
  return '\n\n'.join('\n'.join(lines) for lines in sections if lines)


def warning_lines(warnings: Sequence[str]) -> list[str]:
  return [line for warning in warnings for line in wrapped(f'warning: {warning}', '', ' ' * 9)]


def wrapped(line: str, first: str = '  ', later: str = '    ', most: int | None = None) -> list[str]:
  """A no-break space holds together what it joins, and is shown as a space."""
  lines = textwrap.wrap(line, WIDTH, initial_indent=first, subsequent_indent=later, max_lines=most, placeholder=' …',
                        break_on_hyphens=False)
  return [line.replace('\xa0', ' ') for line in lines]


def labelled(label: str, value: str, most: int | None = None) -> list[str]:
  """A name, and a value that may go on in more lines below itself."""
  return wrapped(value or '-', f'  {label:<{LABEL}}', ' ' * (LABEL + 2), most)

# ---------------------------------------------------------------- documents


def document_lines(found: counts_lib.Documents | None, counts: Mapping[str, int]) -> list[str]:
  """What was read: what stands in the splits, what was dropped and why, and what else was counted."""
  lines = []
  if found:
    rows = {'read': found.read} | {f'in {name}': count for name, count in found.splits.items()} | {
        f'dropped: {counts_lib.DROPS[name]}': count for name, count in found.dropped.items()}
    if found.unexplained:
      rows['not accounted for'] = found.unexplained
    width = max(map(len, rows))
    lines += ['documents', *(f'  {name:<{width}}  {count:>13,}  {count / max(found.read, 1):>6.1%}'
                             for name, count in rows.items())]
  if others := counts_lib.others(counts):
    lines += labelled('also counted', listed(f'{name} {count:,}' for name, count in others.items()))
  for group, names in counts_lib.groups(counts).items():
    most = [(name, count) for name, count in names.items() if name != counts_lib.OTHER][:NAMES]
    more = sum(names.values()) - sum(count for _, count in most)
    lines += labelled(counts_lib.GROUPS.get(group, group), listed(f'{name} {count:,}' for name, count in most)
                      + (f'; {more:,} with other names' if more else ''))
  return lines


def listed(parts: Iterable[str]) -> str:
  """Names with their figures, which stay together on a line."""
  return ', '.join(part.replace(' ', '\xa0') for part in parts)

# ---------------------------------------------------------------- splits


def table(title: str, columns: Mapping[str, Mapping[str, str]]) -> list[str]:
  """A column for each split, a line for each figure."""
  labels = next(iter(columns.values()), {})
  return [f'{title:<{LABEL + 2}}' + ''.join(f'{name:>{COLUMN}}' for name in columns),
          *(f'  {label:<{LABEL}}' + ''.join(f'{column[label]:>{COLUMN}}' for column in columns.values())
            for label in labels)]


def exact_figures(documents: int, pieces: int, sentences: int, tokens: int, unknown_share: float, shards: int,
                  size: int) -> dict[str, str]:
  """What the manifest counts of a split."""
  return {
      'documents': f'{documents:,}',
      'pieces': f'{pieces:,}',
      'sentences': f'{sentences:,}',
      'tokens': f'{tokens:,}',
      'unknown tokens': f'{unknown_share:.3%}',
      'shards': f'{shards:,}, {size / 1e6:,.1f} MB'}


def split_figures(split: Split) -> dict[str, str]:
  return exact_figures(split.documents, split.pieces, split.sentences, split.tokens, split.unknown_share, split.shards,
                       split.bytes) | {
      'bytes a token': f'{split.bytes_per_token:.2f}',
      'epoch': f'{split.rows:,} rows',
      '  packed': f'{split.rows_packed:,} rows',
      f'  steps of {BATCH}': f'{split.rows / BATCH:,.1f}, packed {split.rows_packed / BATCH:,.1f}',
      'padding': f'{split.padding_share:.1%}, packed {split.padding_share_packed:.2%}',
      'pairs of label 1': f'{split.negative_share:.2%}',
      'tokens cut off': f'{split.trimmed_tokens:,}',
      'read for what follows': f'{split.read_share:.1%}'}


def length_lines(report: Report) -> list[str]:
  """Five numbers of each length, and the pieces of the first split as bars."""
  five = lambda numbers: ' '.join(f'{number:,.0f}' for number in numbers or ()) or '-'
  lines = table('lengths', {
      name: {'tokens a piece': five(split.piece_tokens), 'tokens a sentence': five(split.sentence_tokens),
             'pieces a document': five(split.document_pieces)} for name, split in report.splits.items()})
  lines[0] += '   least, quarter, median, three quarters, most'
  name, split = next(iter(report.splits.items()))
  return [*lines, f'  pieces of {name} by tokens, special ones counted', *bars(split.lengths, report.sequence_length)]


def bars(counts: Sequence[int], sequence_length: int) -> list[str]:
  """A histogram for people: one line a bin."""
  most = max(*counts, 1)
  edges = [round(sequence_length * i / len(counts)) for i in range(len(counts) + 1)]
  return [f'    {low:>4} to {high - 1 + (high == sequence_length):>4}  {"█" * round(BAR * n / most):<{BAR}}  {n:,}'
          for low, high, n in zip(edges, edges[1:], counts)]

# ---------------------------------------------------------------- tokens, copies, examples


def token_lines(tokens: Tokens, vocabulary_size: int) -> list[str]:
  frequent = lambda found: listed(f'{token} {share:.1%}' for token, share in found)
  lines = [f'tokens, {tokens.read:,} of them read', *labelled('most frequent', frequent(tokens.frequent)),
           *labelled('with a letter', frequent(tokens.frequent_with_letters)),
           *labelled('never seen', f'{tokens.never:,} of the vocabulary, {tokens.never / vocabulary_size:.1%}'),
           *labelled('scripts of letters', script_text(tokens.scripts))]
  for place, context in enumerate(tokens.unknown):
    lines += labelled('' if place else 'unknown, as in', f'… {context} …', 1)
  none = [name for name in tokens_lib.REMAINS if name not in tokens.remains]
  for name, remain in tokens.remains.items():
    lines += labelled(f'markup left, {name}', f'{remain.count:,}, as in … {remain.context} …', 1)
  return lines + (labelled('no markup left', '  '.join(none)) if none else [])


def script_text(scripts: Mapping[str, float]) -> str:
  rare = [name for name, share in scripts.items() if share < RARE]
  shown = listed(f'{name} {share:.2%}' for name, share in scripts.items() if share >= RARE)
  return shown + (f'; below {RARE:.2%} each: {", ".join(rare[:SCRIPTS])}' if rare else '')


def copy_lines(copies: Copies) -> list[str]:
  lines = [
      'validation that stands in train',
      *labelled('pieces looked up', f'{copies.pieces:,}, in {copies.train_share:.1%} of the tokens of train'),
      *labelled('word for word', f'{copies.exact_share:.2%}'),
      *labelled('nearly', f'{copies.near_share:.2%}: 80 % of their runs of five tokens, or more')]
  for place, example in enumerate(copies.examples):
    lines += labelled('' if place else 'such as', f'{example} …', 1)
  return lines


def example_lines(name: str, split: Split) -> list[list[str]]:
  return [[f'{name}, example {number + 1}: {example[0]}',
           *(line for long in example[1:] for line in wrapped(long, '', ' ' * 12, EXAMPLE_LINES))]
          for number, example in enumerate(split.examples)]

"""What the counts of a manifest say: how many documents were read, which were dropped and why, what was left out of
the others.

Every document that was read stands in a split or was dropped for one reason, so that they add up:
  read 206 = train 98 + validation 8 + redirects 99 + other namespaces 1
A count such as `template/cite web` is one of a group, by name.
"""

import collections
import dataclasses
from collections.abc import Mapping

from input_pipeline.records import Manifest
from input_pipeline.vocabulary import cases

READ = 'pages'  # the count of all documents that were read
KEPT = 'documents'  # the count of those that are no duplicates
# The counts of documents that were dropped, each for its first reason, in words.
DROPS = {
    'redirects': 'redirects',
    'other_namespaces': 'pages of other namespaces: talk, users, templates …',
    'other_models': 'pages that are not wikitext',
    'other_records': 'records of a web archive that hold no page: requests, metadata …',
    'other_answers': 'answers of web servers that are no page: moved, not found …',
    'other_types': 'pages of a web archive that are no text: images, PDF …',
    'unreadable': 'pages of a web archive whose bytes are not what they say',
    'too_long': 'longer than what is read at once',
    'empty': 'empty, or nothing but a title',
    'transformed_away': 'by --transform',
    'left_out': 'left out by a weight below 1',
    'beyond_first': 'after the first ones, as many as --first says',
    'beyond_limit': 'not among those that --limit drew',
    'duplicates': 'the same text as another one',
    'near_duplicates': 'nearly the same text as another one',
    'without_pieces': 'without a sentence of two tokens'}
# Other counts whose names do not say enough.
WORDS = {
    'bytes': 'bytes read, decompressed',
    'repeated_ids': 'documents whose id others have too, split by their text',
    'made_more': 'documents more than were read, by --transform',
    'tokens': 'tokens of all documents, duplicates too',
    'unknown_tokens': 'unknown ones among them',
    'text_bytes': 'bytes of text in documents',
    'dropped_tokens': 'tokens that were too few for a piece',
    'end_sections': 'sections at the end of articles',
    'tables': 'tables left out',
    'list_items': 'list items that are no prose'}
# Groups of counts by name, in words.
GROUPS = {'template': 'templates not shown'}
SOME_UNKNOWN = 0.01  # of the tokens: more of them are worth a warning
MOST_NAMES = 200  # of a group, in a manifest
OTHER = 'other'  # the name that the rest of a group goes by


@dataclasses.dataclass(frozen=True)
class Documents:
  """What became of the documents that were read."""
  read: int
  splits: dict[str, int]
  dropped: dict[str, int]  # by the names of DROPS; without zeros
  unexplained: int  # read and neither in a split nor dropped: 0, or the counts are wrong


def documents(manifest: Manifest) -> Documents | None:
  """None where the manifest does not say how many were read."""
  if READ not in manifest.counts:
    return None
  splits = {name: split.documents for name, split in manifest.splits.items()}
  dropped = {name: manifest.counts[name] for name in DROPS if manifest.counts.get(name)}
  read = manifest.counts[READ]
  return Documents(read, splits, dropped, read - sum(splits.values()) - sum(dropped.values()))


def warnings(manifest: Manifest) -> list[str]:
  """What a reader should know before a run, in sentences."""
  found = []
  for name, split in manifest.splits.items():
    if split.unknown_tokens > SOME_UNKNOWN * split.tokens:
      found.append(f'{split.unknown_tokens / split.tokens:.1%} of the tokens of {name} are unknown: train a vocabulary '
                   'on this text with `bert-jax vocabulary`, or see whether --lower-case fits it')
  vocabulary = manifest.vocabulary
  accents = vocabulary.kind == 'wordpiece' and vocabulary.splitting.strip_accents is not False
  if lost := cases.warning(vocabulary.lower_case, language=str(manifest.settings.get('language', '')), accents=accents):
    found.append(lost)
  if (train := manifest.splits.get('train')) and train.documents == 1:
    found.append('there is one document, so that there are no next-sentence negatives: pretrain a recipe with _no_nsp '
                 'after its name (--objective mlm --batch.pairs none); in plain text a blank line ends a document, or '
                 'see --documents')
  if repeated := manifest.counts.get('repeated_ids'):
    found.append(f'{repeated:,} documents have an id that others have too, so that their text, and not the id, decides '
                 'whether they are held out')
  held_out = manifest.splits.get('validation')
  if train and held_out and held_out.tokens > train.tokens:
    found.append(f'more is held out than trained on, {held_out.tokens:,} of {held_out.tokens + train.tokens:,} '
                 'tokens: --validation-share is of documents, and a long one is held out; lower it, or let --documents '
                 'blank or line make shorter ones of plain text')
  if not held_out:
    found.append('no document is held out, so that `bert-jax evaluate` has nothing to read: see --validation-share')
  if (found_documents := documents(manifest)) and found_documents.unexplained:
    found.append(f'{found_documents.unexplained:,} documents were read and are neither in a split nor counted as '
                 'dropped: a fault of `bert-jax prepare`, worth a report')
  return found


def others(counts: Mapping[str, int]) -> dict[str, int]:
  """What is counted besides documents: in words, without zeros."""
  return {WORDS.get(name, name.replace('_', ' ')): count for name, count in counts.items()
          if count and name not in (READ, KEPT, *DROPS) and '/' not in name}


def groups(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
  """{'template': {'cite web': 12, …}}, the most frequent names first."""
  found: dict[str, dict[str, int]] = collections.defaultdict(dict)
  for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
    group, slash, own = name.partition('/')
    if slash:
      found[group][own] = count
  return dict(found)


def for_manifest(counts: Mapping[str, int]) -> dict[str, int]:
  """All counts by name, of each group only the most frequent names: the sum of the rest is one more, `group/other`."""
  kept = collections.Counter({name: count for name, count in counts.items() if '/' not in name})
  for group, names in groups(counts).items():
    for place, (name, count) in enumerate(names.items()):
      kept[f'{group}/{name if place < MOST_NAMES else OTHER}'] += count
  return dict(sorted(kept.items()))

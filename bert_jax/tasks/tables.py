"""A user's own tables: which file, or part of a file, each split is, and which columns hold texts and label.

DATA is a folder with a file for each split, one file that a hash divides, or a data set of TFDS.
"""

import dataclasses
import hashlib
import re
import sys
from collections.abc import Sequence
from typing import Annotated

from bert_jax.errors import ConfigError, require
from bert_jax.fields import require_fields
from bert_jax.tasks.task import Settings
from input_pipeline import input_files, storage
from input_pipeline.errors import DataError
from input_pipeline.ranges import Within
from input_pipeline.text import tabular

# What the splits are called in names of files and by TFDS.
SPLITS = {'train': ('train', 'training'), 'validation': ('validation', 'valid', 'val', 'dev', 'development', 'eval'),
          'test': ('test',)}
_KINDS = 'csv', 'tsv', 'tab', 'json', 'jsonl', 'ndjson', 'parquet', 'arrow'
_SHARD = re.compile(r'-\d+-of-\d+')  # of a split in several files, as `datasets` writes them
# The columns that are taken where nothing is said: the first pair, or else the first text, of which all are there.
PAIRS = (('sentence1', 'sentence2'), ('premise', 'hypothesis'), ('question1', 'question2'), ('question', 'sentence'),
         ('text', 'text_pair'), ('text1', 'text2'), ('text_a', 'text_b'), ('sentence_a', 'sentence_b'))
TEXTS = 'text', 'sentence', 'review', 'content', 'comment', 'tweet', 'document', 'question', 'title'
LABELS = ('label', 'labels', 'gold_label', 'class', 'category', 'score', 'rating', 'stars', 'sentiment', 'topic',
          'target')

SHARE = .1  # that is held out
LANGUAGE = 'en'  # of files that tell none


@dataclasses.dataclass(frozen=True)
class Columns(Settings):
  """How a user's table is read."""
  text_column: str = ''
  """The column with the text, or the first text of a pair; '': text, sentence, sentence1, premise … by their names."""
  text_pair_column: str = ''
  """The column with the second text of a pair; '': sentence2, hypothesis …, where the first text is their first."""
  label_column: str = ''
  """The column with the label; '': label, class, score … by their names."""
  validation_share: Annotated[float, Within(0, 1, above=True, below=True)] = SHARE
  """Of a file that has no validation file beside it, the share that is held out, by a hash of its texts."""

  def __post_init__(self):
    require_fields(self)


@dataclasses.dataclass(frozen=True)
class Part:
  """Where a split is: files or a split of TFDS, and of their rows all, or those that a hash takes."""
  names: tuple[str, ...]
  split: str
  divided: bool = False
  """Whether a hash divides the rows into train and validation."""

  def __str__(self) -> str:
    return ', '.join(self.names)


def find(data: storage.PathLike, split: str, own: Settings) -> Part | None:
  """Where a split is in DATA; None where there is none. `own.language`, where there is one: of the files that tell one
  by their name.

  Without a table for validation the one for training is divided by a hash. Raises ConfigError, DataError.
  """
  if split not in SPLITS:
    return None
  language = getattr(own, 'language', '')
  found = _named(data, split, language)
  if found is not None:
    alone = split == 'train' and _named(data, 'validation', language) is None
    share = getattr(own, 'validation_share', SHARE)
    require(alone or split != 'train' or share == SHARE,
            f'--validation-share {share} changes nothing as {data} has a table for validation: leave it out')
    return Part(found, split, divided=alone)
  if split == 'test':
    return None
  both = _named(data, 'train', language)
  if both is None:
    raise ConfigError(f'{data} has no table for training{f" in {language}" if language else ""}: wanted a file whose '
                      'name says train, as train.csv, train.tsv, train.jsonl or train.parquet, or one file for all')
  return Part(both, split, divided=True)


def _named(data: storage.PathLike, split: str, language: str) -> tuple[str, ...] | None:
  """The files of DATA that are called by a split; a single file is `train`."""
  name = str(data)
  if name.startswith(tabular.TFDS):
    return _of_tfds(name, split)
  directory = storage.path(name)
  kind = input_files.kind(directory)
  if kind == 'missing':
    raise ConfigError(f'--data {name} does not exist: wanted a folder, a table, or tfds:NAME')
  if kind == 'file':
    return (name,) if split == 'train' else None
  files = [file for file in storage.files_in(directory, '*') if _is_table(file.name)]
  mine = [file for file in files if set(SPLITS[split]) & _parts(file.name)]
  mine = [file for file in mine if file.name.partition('.')[0].lower() in SPLITS[split]] or mine
  if language:
    told = [file for file in mine if language in _parts(file.name)]
    mine = told or mine * (language == LANGUAGE)
  if not mine and split == 'train' and len(files) == 1 and not any(
      set(words) & _parts(files[0].name) for words in SPLITS.values()):
    mine = files
  if len({_SHARD.sub('', file.name) for file in mine}) > 1:
    raise ConfigError(f'{name} has more than one table for {split}: {", ".join(file.name for file in mine)[:200]}; '
                      f'name one (`bert-jax finetune --files.{split}`)'
                      + (' or its language (`bert-jax finetune --language`)' if language else ''))
  return tuple(map(str, mine)) or None


def _is_table(name: str) -> bool:
  return not name.startswith('.') and any(part in _KINDS for part in name.lower().split('.')[1:])


def _parts(name: str) -> set[str]:
  """'xnli_en.train.jsonl' is xnli, en, train, jsonl."""
  return set(re.split(r'[^a-z0-9]+', name.lower()))


def _of_tfds(name: str, split: str) -> tuple[str, ...] | None:
  from input_pipeline.text import data_sets
  if data_sets.reference(f'{name}:all').split != 'all':  # it has a split of its own: one table
    return (name,) if split == 'train' else None
  there = tabular.splits_of(name)
  found = next((word for word in SPLITS[split] if word in there), None)
  return (f'{name}:{found}',) if found else None


def names_of(part: Part | storage.Path) -> tuple[str, ...]:
  """What is read: of a part, or the one file that was named in its place."""
  return part.names if isinstance(part, Part) else (str(part),)


def takes(part: Part | storage.Path, share: float, *texts: str | None) -> bool:
  """Whether a row with these texts belongs to a part; `share` is validation's. The same texts lie on the same side."""
  if not isinstance(part, Part) or not part.divided:
    return True
  digest = hashlib.blake2b(digest_size=8)
  for text in texts:
    digest.update(hashlib.blake2b((text or '').encode()).digest())
  return (int.from_bytes(digest.digest(), 'little') < share * 2**64) == (part.split == 'validation')

# ---------------------------------------------------------------- columns


def choose(table: tabular.Table, own: Columns) -> tuple[str, str, str]:
  """(text, second text or '', label or '') of a table's columns. Raises DataError where one is missing."""
  there = table.columns
  for flag, column in (('text', own.text_column), ('text-pair', own.text_pair_column), ('label', own.label_column)):
    if column and column not in there:
      raise DataError(f'{table.name} has no column {column!r}, which --{flag}-column names; it has {shown(there)}')
  text, pair = own.text_column, own.text_pair_column
  usual = next(((a, b) for a, b in PAIRS if {a, b} <= set(there) and text in ('', a)), None)
  if not text:
    single = next((column for column in TEXTS if column in there), '')
    text = usual[0] if usual else single
  if not text:
    raise DataError(f'{table.name} has no column that is called as a text usually is: it has {shown(there)}; '
                    '`bert-jax finetune --text-column` chooses one, --text-pair-column the second of a pair')
  if not pair and usual and usual[0] == text:
    pair = usual[1]
  if pair == text:
    raise ConfigError(f'--text-pair-column {pair} is the column of the first text: name another, or leave it out')
  label = own.label_column or next((column for column in LABELS if column in there and column not in (text, pair)), '')
  return text, pair, label


def shown(columns: Sequence[str]) -> str:
  return ', '.join(map(repr, columns))[:300] or 'none'


def tell(sentence: str) -> None:
  """A line for people that is no result."""
  print(f'bert-jax: {sentence}', file=sys.stderr, flush=True)

"""The settings of `bert-jax prepare`."""

import dataclasses
from typing import Annotated, Literal

from input_pipeline import ranges, records
from input_pipeline.engines import names
from input_pipeline.ranges import Within
from input_pipeline.text import formats, sampling, sentences, word_boundaries

_LEAST_LENGTH = 8
_OF_ONE_PLACE = 'pairs', 'masks', 'dupe_factor'  # what needs all documents in one place
Documents = Annotated[int, Within(2, 10**12)]


@dataclasses.dataclass(frozen=True)
class Prepare:
  """Turn text into shuffled, pre-tokenized shards. Raises DataError for a setting that cannot work."""
  input: str | tuple[str, ...]
  """Paths, folders, globs, local, gs:// and the like, - for standard input, `sample`, or `tfds:NAME`; or
  A=WEIGHT,B=WEIGHT (0.3 takes 3 of 10 documents)."""
  vocabulary: str
  """vocab.txt (WordPiece) or spm.model (SentencePiece)."""
  output: str
  """The directory to make; one that holds the same data already is kept as it is."""
  sequence_length: Annotated[int, Within(_LEAST_LENGTH, 2**20)] = 128
  """Tokens of a row, [CLS] and both [SEP] included."""
  language: str = 'en'
  """Language of the text, for finding its sentences: en, zh, ltg …"""
  words: Literal[*word_boundaries.STARTS] = 'none'
  """jieba: store where Chinese words start, for masks of whole words; none: ## and ▁ of the vocabulary tell."""
  lower_case: bool | None = None
  """Lower-case the text; None: as the files beside the vocabulary say, or else its tokens."""
  rules: Literal[*records.RULES] = records.LIBRARY
  """Who splits text into words for WordPiece: the tokenizers library; or google: the original's code, which differs in
  rare characters."""
  format: Literal[*formats.FORMATS] | None = None
  """The kind of the input, where its content does not tell."""
  reading: formats.Options = formats.USUAL
  """How text is read; its fields are flags without a name in front."""
  validation_share: Annotated[float, Within(0, 0.5)] = 0.05
  """The share of documents that are held out, chosen by the hash of their id, or of their text where ids repeat."""
  short_piece_share: ranges.Share = 0.1
  """The share of documents whose pieces aim at a random shorter length (short_seq_prob of the original)."""
  pairs: Literal[*records.PAIRS] = 'dynamic'
  """dynamic: the loader pairs again in each epoch; google: the original's procedure, once, here."""
  masks: Literal[*records.MASKS] = records.DYNAMIC
  """dynamic: the loader masks again in each epoch; google: the original's, once, here; google_words: likewise, of
  whole words. With them documents, pairs and masks follow from one stream of random numbers, in one process."""
  dupe_factor: Annotated[int, Within(1, 10**6)] = 10
  """With google pairs: how often each document is paired, each time differently (dupe_factor of the original)."""
  shards: Annotated[int, Within(1, 10**5)] | None = None
  """Files of the train split; None: one for every 16.8 million tokens."""
  seed: Annotated[int, Within(-2**63, 2**63 - 1)] = 0
  """Of the shuffle, of short pieces and of what --limit draws."""
  limit: Annotated[int, Within(2, sampling.MOST)] | None = None
  """Use only so many documents, drawn by a hash from all: the text is read twice. A weight draws a share instead."""
  first: Documents | None = None
  """Use only the first documents, so many, and read no more: a quick try, in one process at a time."""
  workers: Annotated[int, Within(1, 10**4)] = 1
  """Processes; the shards do not depend on it."""
  engine: Literal[*names.ENGINES] = 'processes'
  """What does the work; the shards do not depend on it. beam: Apache Beam; ray: Ray. Their own flags come last, after a
  bare --: `--engine beam -- --runner=DataflowRunner --project=P --region=R`, `--engine ray -- --address=auto`."""
  near_duplicates: Annotated[float, Within(0.3, 1)] | None = None
  """Drop documents that share so much (Jaccard, of runs of 5 tokens) with another: 0.8; None: only exact duplicates."""
  overwrite: bool = False
  """Replace an output directory that holds other prepared data."""

  def __post_init__(self):
    for name in ('input', 'vocabulary', 'output'):
      if not getattr(self, name):
        raise records.DataError(f'{_flag(name)} is empty: wanted a text')
    sentences.check_language(self.language)
    word_boundaries.check(self.words)
    checks = {
        'format': (self.format is None or self.format in formats.FORMATS, f'one of {", ".join(formats.FORMATS)}'),
        'pairs': (self.pairs in records.PAIRS, f'one of {", ".join(records.PAIRS)}'),
        'rules': (self.rules in records.RULES, f'one of {", ".join(records.RULES)}'),
        'masks': (self.masks in records.MASKS, f'one of {", ".join(records.MASKS)}')}
    ranges.check(self, '', records.DataError, _flag)
    for name, (fine, wanted) in checks.items():
      if not fine:
        raise records.DataError(f'{_flag(name)} {getattr(self, name)}: wanted {wanted}')
    if self.words != 'none' and (self.rules, self.masks) != (records.LIBRARY, records.DYNAMIC):
      raise records.DataError(f'--words {self.words} does not go with --rules google or --masks google, which know '
                              'no words but those of the vocabulary: leave one of them out')
    self._refuse_what_has_no_effect()

  def _refuse_what_has_no_effect(self) -> None:
    needs = {
        'dupe_factor': (self.pairs == 'google', '--pairs google'),
        'masks': (self.pairs == 'google', '--pairs google')}
    defaults = {field.name: field.default for field in dataclasses.fields(self)}
    changed = lambda name: getattr(self, name) != defaults[name]
    for name, (used, wanted) in needs.items():
      if not used and changed(name):
        raise records.DataError(f'{_flag(name)} has no effect: it needs {wanted}; leave it out')
    names.refuse(self, _OF_ONE_PLACE)


def _flag(name: str) -> str:
  return f'--{name.replace("_", "-")}'

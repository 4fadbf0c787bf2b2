"""From shards to batches: a step's batch is a pure function of (shards, config, step), and each process takes a part.

The rows of a split form one endless stream: epoch after epoch, in each the windows in another order, in each window its
rows. A batch is a slice of it. Two windows of 5 and 3 rows, and batches of 4:

  epoch       0                 1
  window      1     0           0         1
  row         0 1 2 0 1 2 3 4   0 1 2 3 4 0 1 2
  batch       0 0 0 0 1 1 1 1   2 2 2 2 3 3 3 3      so batch 0 is the spans (0, 1, 0, 3) and (0, 0, 0, 1)

Letters: B rows, T tokens of a row, P prediction slots of a row, N pairs of a row at most, M pairs of the batch,
V vocabulary, W windows, K blocks.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import threading
from collections.abc import Iterator

import numpy as np

from input_pipeline import random, records, storage
from input_pipeline.batches import epochs, layout, masking, reading, shards
from input_pipeline.batches.checks import require
from input_pipeline.batches.config import BatchConfig
from input_pipeline.batches.masking import Masking
from input_pipeline.batches.pairs import MAKERS
from input_pipeline.batches.reading import AUTO, Batch
from input_pipeline.records import DataError

CACHED_WINDOWS = 2  # a batch may cross from one to the next
# Small batches are made together up to so many rows: a call costs a millisecond however few they are.
ROWS_AT_ONCE = 256
LEAST_OF_SHARE = 0.5  # of the tokens that are to be predicted, what masks of whole words must reach
CONTRACT = 1  # raise it when the golden batches change: then no run goes on with other data unnoticed


class OneDocument(DataError):
  """A window whose pieces are all of one document: it has no next-sentence negatives."""


def open_split(directory: storage.PathLike, split: str, config: BatchConfig, verify: str = 'full',
               first_step: int = 0, index: shards.Index | None = None) -> 'Stream':
  """Checks a split's shards and that they are what `config` wants, before any step. Raises DataError.

  verify='full' reads every byte once; 'framing' trusts the bytes and checks only sizes and framing. `first_step`: the
  step of the run whose batch is the first of the stream, where other data came before. `index`: of the shards, where
  they were checked already.
  """
  config.check()
  manifest = records.read_manifest(directory)
  for sentence in misfits(directory, manifest, config):
    raise DataError(sentence)
  kinds = shards.read_token_kinds(directory, manifest.vocabulary)
  index = shards.open_index(directory, split, manifest, verify) if index is None else index
  stream = Stream(index, manifest, split, config, kinds, first_step)
  if config.masking.unit == 'word':
    _check_words(directory, stream)
  return stream


def misfits(directory: storage.PathLike, manifest: records.Manifest, config: BatchConfig) -> Iterator[str]:
  """Sentences on what `config` wants otherwise than the data was prepared."""
  if manifest.sequence_length != config.sequence_length:
    yield (f'{directory} was prepared for rows of {manifest.sequence_length}, batch.sequence_length is '
           f'{config.sequence_length}: prepare it again with --sequence-length {config.sequence_length}, '
           f'or pass --batch.sequence-length {manifest.sequence_length}')
  if (manifest.pairs == 'google') != (config.pairs == 'google'):
    fit = "'google'" if manifest.pairs == 'google' else ' or '.join(repr(kind) for kind in MAKERS if kind != 'google')
    yield (f'{directory} was prepared with pairs={manifest.pairs!r}, batch.pairs is {config.pairs!r}: '
           f'set batch.pairs to {fit}, or prepare the data again')
  stored = config.masking.unit == masking.STORED
  if (manifest.masks != records.DYNAMIC) != stored:
    yield (f'{directory} was prepared with masks={manifest.masks!r}, batch.masking.unit is {config.masking.unit!r}: '
           f'set batch.masking.unit to {"another" if stored else masking.STORED}, or prepare the data again with '
           f'--masks {records.GOOGLE if stored else records.DYNAMIC}')


def _check_words(directory: storage.PathLike, stream: 'Stream') -> None:
  """Raises DataError where words are too long for what may be predicted: without spaces, they are whole sentences."""
  masking_ = stream.config.masking
  step = max(masking_.schedule, key=lambda point: point[1])[0] if masking_.schedule else 0
  batch = stream.rows(0, min(ROWS_AT_ONCE, stream.rows_per_epoch), step)
  share = batch['masked_lm_weights'].sum() / np.count_nonzero(batch['pair_ids'])
  require(share >= LEAST_OF_SHARE * masking_.greatest_share,
          f'{directory}: masks of whole words reach {share:.1%} of the tokens where masking.share is '
          f'{masking_.greatest_share:.1%}, because its vocabulary shows no words shorter than that, as in text without '
          'spaces: prepare Chinese with --words jieba, or set masking.unit to token or span')


class Stream:
  """The endless stream of rows of a split: epoch after epoch, window after window, each in a fresh order."""

  def __init__(self, index: shards.Index, manifest: records.Manifest, split: str, config: BatchConfig,
               kinds: shards.TokenKinds, first_step: int = 0):
    self.index, self.manifest, self.config, self.kinds, self.first_step = index, manifest, config, kinds, first_step
    self.vocabulary = manifest.vocabulary
    self.separators = config.separators
    self.window_bounds = index.window_bounds
    self._check_documents()
    windows = len(self.window_bounds) - 1
    self.trials = epochs.run_trials(self.read_window, windows, config, kinds.continues) if config.pack else None
    self.window_rows = self._window_rows()
    self.rows_per_epoch = int(self.window_rows.sum())
    self.fingerprint = fingerprint(manifest, split, config)
    self.window_order = functools.lru_cache(CACHED_WINDOWS)(self._window_order)
    self._cache: collections.OrderedDict[tuple[int, int], epochs.Arrangement] = collections.OrderedDict()
    self._lock = threading.Lock()

  def _check_documents(self) -> None:
    least = np.minimum.reduceat(self.index.documents[:, 0], self.window_bounds[:-1])
    greatest = np.maximum.reduceat(self.index.documents[:, 1], self.window_bounds[:-1])
    if self.config.pairs == 'nsp' and (lonely := np.flatnonzero(least == greatest)).size:
      where = '' if len(least) == 1 else f'window {lonely[0]} of '  # a part that is shuffled at once
      raise OneDocument(f'{where}the data holds only one document, so it has no next-sentence '
                        'negatives: prepare more documents, or learn without them: --objective mlm --batch.pairs none, '
                        'as a recipe with _no_nsp after its name has it')

  def _window_rows(self) -> np.ndarray:  # -> [W] how many, the same in every epoch
    pieces, tokens = self._per_window(self.index.pieces), self._per_window(self.index.tokens)
    if self.trials is None:
      return pieces
    return self.trials.row_counts(pieces, tokens, self.config.sequence_length, self.config.pairs_per_row,
                                  self.separators)

  @property
  def expected_fill(self) -> float:
    """Share of real tokens in the rows of an epoch, special ones counted."""
    splits = self.trials.splits(self._per_window(self.index.pieces)).sum() if self.trials else 0
    pairs = self.index.pieces.sum() + splits
    tokens = self.index.tokens.sum() + self.config.specials * pairs
    return float(tokens / (self.rows_per_epoch * self.config.sequence_length))

  def _per_window(self, counts: np.ndarray) -> np.ndarray:  # [K] -> [W]
    return np.add.reduceat(counts, self.window_bounds[:-1])

  def read_window(self, number: int) -> shards.Window:
    return shards.read_window(self.index, int(self.window_bounds[number]), int(self.window_bounds[number + 1]))

  def _window_order(self, epoch: int) -> np.ndarray:  # -> [W]
    return random.permutation(random.key(self.config.seed, 'windows', epoch), len(self.window_rows))

  def spans(self, first: int, last: int) -> Iterator[tuple[int, int, int, int]]:
    """The rows first … last - 1 of the stream as (epoch, window, begin, end): rows begin … end - 1 of that window."""
    while first < last:
      epoch, row = divmod(first, self.rows_per_epoch)
      order = self.window_order(epoch)
      ends = np.cumsum(self.window_rows[order])
      nth = int(np.searchsorted(ends, row, side='right'))
      begin = row - int(ends[nth] - self.window_rows[order[nth]])
      end = min(begin + last - first, int(self.window_rows[order[nth]]))
      yield epoch, int(order[nth]), begin, end
      first += end - begin

  def arrangement(self, epoch: int, number: int) -> epochs.Arrangement:
    """A window's pairs and rows in that epoch; the last few are kept."""
    with self._lock:
      if (epoch, number) not in self._cache:
        row_count = int(self.window_rows[number])
        self._cache[epoch, number] = epochs.arrange(
            self.read_window(number), epoch, number, row_count, self.trials, self.config, self.kinds.continues)
        if len(self._cache) > CACHED_WINDOWS:
          self._cache.popitem(last=False)
      self._cache.move_to_end((epoch, number))
      return self._cache[epoch, number]

  def rows(self, first: int, last: int, step: int = 0) -> Batch:
    """Rows first … last - 1 of the stream, masked as at `step`: a batch."""
    parts = [self._masked(self.arrangement(epoch, number), begin, end, step)
             for epoch, number, begin, end in self.spans(first, last)]
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

  def laid_out(self, arrangement: epochs.Arrangement, begin: int, end: int) -> tuple[Batch, layout.PlacedPairs]:
    # -> {[B T]}, [M]
    """Rows begin … end - 1 of a window before masking, and their pairs."""
    placed = self._placed(arrangement, begin, end)
    return self._lay_out(arrangement.tokens, placed, end - begin), placed

  def _placed(self, arrangement: epochs.Arrangement, begin: int, end: int) -> layout.PlacedPairs:  # -> [M]
    first_pairs = arrangement.first_pairs[begin:end + 1]
    row = np.repeat(np.arange(end - begin), np.diff(first_pairs))
    pairs = arrangement.pairs.take(slice(int(first_pairs[0]), int(first_pairs[-1])))
    return layout.place(pairs, row, self.separators)

  def _lay_out(self, tokens: np.ndarray, placed: layout.PlacedPairs, rows: int) -> Batch:  # [window's tokens], [M]
    return layout.lay_out(tokens, placed, rows, self.config.sequence_length, self.separators, self.vocabulary)

  def _masked(self, arrangement: epochs.Arrangement, begin: int, end: int, step: int) -> Batch:
    """Rows begin … end - 1 of a window, complete."""
    config = self.config
    batch, placed = self.laid_out(arrangement, begin, end)
    slots = layout.pair_slots(placed, end - begin, config.pairs_per_row, predict=config.pairs != 'none')
    if config.masking.unit == masking.STORED:
      return batch | self._stored(arrangement.masks, placed, batch['input_ids']) | slots
    draws = masking.bits_per_pair(config.masking.unit, config.sequence_length, config.predictions)
    key = random.key(config.seed, 'masks', arrangement.epoch, arrangement.number)
    bits = random.bits(key, int(arrangement.first_pairs[begin]) * draws, len(placed.row) * draws).reshape(-1, draws)
    share = masking.share_at(config.masking, step)
    batch |= masking.mask_batch(batch['input_ids'], placed, bits, config.masking, share, config.predictions,
                                self.kinds, arrangement.word_starts)
    return batch | slots

  def _stored(self, masks: shards.StoredMasks, placed: layout.PlacedPairs, input_ids: np.ndarray) -> Batch:
    # -, [M], [B T] -> {[B P]}
    """The masks that the data has; changes `input_ids` in place."""
    shown, predicted = (self._lay_out(values, placed, len(input_ids))['input_ids']
                        for values in (masks.shown_ids, masks.predicted))
    special = self.vocabulary.pad_id, self.vocabulary.cls_id, self.vocabulary.sep_id  # which are in no piece
    return masking.stored_masks(input_ids, shown, (predicted > 0) & ~np.isin(input_ids, special),
                                self.config.predictions)

  def batch(self, step: int, process_index: int = 0, process_count: int = 1) -> Batch:
    """This process' rows of the global batch of `step`: a contiguous slice, the same whatever came before."""
    first, size = (step - self.first_step) * self.config.size, self.config.size
    return self._part(first, first + size, size, process_index, process_count, step)

  def _part(self, first: int, last: int, size: int, index: int, count: int, step: int = 0) -> Batch:
    """Of rows first … last - 1, what process `index` of `count` has of a batch of `size`: as many rows as all others
    have, some of weight 0 where there are too few."""
    local = rows_per_process(size, count)
    first = min(first + index * local, last)
    last = min(first + local, last)
    batch = self.rows(first, last, step) if first < last else {
        name: array[:0] for name, array in self.rows(0, 1).items()}
    return {name: layout.fill_up(array, local) for name, array in batch.items()}

  def batches(self, first_step: int, last_step: int | None = None, process_index: int = 0, process_count: int = 1,
              engine: str = AUTO) -> Iterator[Batch]:
    """The batches of steps first_step … last_step - 1, or without end, made in the background until it is closed."""
    size = self.config.size
    steps = 1 if process_count > 1 or self.config.masking.schedule else max(1, ROWS_AT_ONCE // size)
    if steps == 1:
      return reading.ahead(lambda step: self.batch(step, process_index, process_count), first_step, last_step, engine)
    # `steps` neighbouring batches are made together, as a group, and parted again.
    first, count = (first_step - self.first_step) * size, None if last_step is None else last_step - first_step
    make = lambda group: self.rows(first + group * steps * size, first + (group + 1) * steps * size, first_step)
    groups = reading.ahead(make, 0, None if count is None else -(-count // steps), engine)
    return _part_groups(groups, size, steps, count)

  def evaluation_batches(self, size: int, limit: int | None = None, process_index: int = 0,
                         process_count: int = 1) -> Iterator[Batch]:
    """One pass over epoch 0, or its first `limit` rows, in batches of `size`; rows of weight 0 fill up the last."""
    row_count = min(limit or self.rows_per_epoch, self.rows_per_epoch)
    for first in range(0, row_count, size):
      yield self._part(first, min(first + size, row_count), size, process_index, process_count)

  def token_counts(self) -> np.ndarray:  # -> [V] int64
    """How often each token stands in the split: for the unigram baseline."""
    counts = np.zeros(self.vocabulary.size, np.int64)
    for number in range(len(self.window_bounds) - 1):
      counts += np.bincount(self.read_window(number).tokens, minlength=self.vocabulary.size)
    return counts


def _part_groups(groups: Iterator[Batch], size: int, steps: int, count: int | None) -> Iterator[Batch]:
  """The `count` batches of `size` rows that are in groups of `steps`."""
  with contextlib.closing(groups):
    parts = ({name: array[i * size:(i + 1) * size] for name, array in group.items()}
             for group in groups for i in range(steps))
    yield from itertools.islice(parts, count)


def rows_per_process(size: int, process_count: int) -> int:
  """Of a batch of `size`; where these do not divide, the last processes fill theirs up."""
  return -(-size // process_count)


def fingerprint(manifest: records.Manifest, split: str, config: BatchConfig) -> str:
  """SHA-256 over everything that decides the batches: the shards, the vocabulary and the config."""
  content = {'contract': CONTRACT, 'shards': [shard.sha256 for shard in manifest.splits[split].shards],
             'vocabulary': manifest.vocabulary.sha256, 'config': dataclasses.asdict(config)}
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


__all__ = ['BatchConfig', 'Masking', 'OneDocument', 'Stream', 'open_split']

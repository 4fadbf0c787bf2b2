"""From shards to batches: the global batch of a step is a pure function of (shards, config, step), and each process takes its rows.

Letters: B rows, T tokens of a row, P prediction slots of a row, N pairs of a row at most, V vocabulary, W windows, K blocks.
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
from etils import epath

from input_pipeline import random, records
from input_pipeline.batches import epochs, masking, packing, reading, shards
from input_pipeline.batches.config import BatchConfig
from input_pipeline.batches.masking import Masking
from input_pipeline.records import DataError

CACHED_WINDOWS = 2
ROWS_AT_ONCE = 256
CONTRACT = 1  # raise it when the golden batches change: then no run goes on with other data unnoticed


class OneDocument(DataError):
  """A window whose pieces are all of one document: it has no next-sentence negatives."""


def open_split(directory: epath.PathLike, split: str, config: BatchConfig, verify: str = 'full', first_step: int = 0) -> 'Stream':
  """Checks a split's shards and that they are what `config` wants, before any step. Raises DataError, or ValueError for the config.

  verify='full' reads every byte once; 'framing' trusts the bytes and checks sizes and framing alone. `first_step`: the step of the
  run whose batch is the first of the stream, where other data came before.
  """
  config.check()
  manifest = records.read_manifest(directory)
  if manifest.sequence_length != config.sequence_length:
    raise DataError(f'{directory} was prepared for rows of {manifest.sequence_length}, batch.sequence_length is {config.sequence_length}: '
                    f'prepare it again with --sequence-length {config.sequence_length}, or pass --batch.sequence-length '
                    f'{manifest.sequence_length}')
  if (manifest.pairs == 'google') != (config.pairs == 'google'):
    fit = "'google'" if manifest.pairs == 'google' else "'nsp', 'sop' or 'none'"
    raise DataError(f'{directory} was prepared with pairs={manifest.pairs!r}, batch.pairs is {config.pairs!r}: set batch.pairs to {fit}, '
                    'or prepare the data again')
  tables = shards.read_tables(directory, manifest.vocabulary)
  return Stream(shards.open_index(directory, split, manifest, verify), manifest, split, config, tables, first_step)


class Stream:
  """The endless stream of rows of a split: epoch after epoch, window after window, each in a fresh order."""

  def __init__(self, index: shards.Index, manifest: records.Manifest, split: str, config: BatchConfig, tables: shards.Tables,
               first_step: int = 0):
    self.index, self.manifest, self.config, self.tables, self.first_step = index, manifest, config, tables, first_step
    self.vocabulary = manifest.vocabulary
    self.separators = config.separators
    self.bounds = index.window_bounds
    self._check_documents()
    self.plan = epochs.plan(self.window, len(self.bounds) - 1, config, tables.continues) if config.pack else None
    self.window_rows = self._window_rows()
    self.rows_per_epoch = int(self.window_rows.sum())
    self.fingerprint = fingerprint(manifest, split, config)
    self.window_order = functools.lru_cache(CACHED_WINDOWS)(self._window_order)
    self._cache: collections.OrderedDict[tuple[int, int], epochs.Rows] = collections.OrderedDict()
    self._lock = threading.Lock()

  def _check_documents(self) -> None:
    least = np.minimum.reduceat(self.index.documents[:, 0], self.bounds[:-1])
    greatest = np.maximum.reduceat(self.index.documents[:, 1], self.bounds[:-1])
    if self.config.pairs == 'nsp' and (lonely := np.flatnonzero(least == greatest)).size:
      raise OneDocument(f'window {lonely[0]} of the data holds one document alone, so it has no next-sentence negatives: prepare more '
                      'documents, or use batch.pairs none or sop')

  def _window_rows(self) -> np.ndarray:  # -> [W], the same in every epoch
    pieces, tokens = self._per_window(self.index.pieces), self._per_window(self.index.tokens)
    config = self.config
    return self.plan.rows(pieces, tokens, config.sequence_length, config.pairs_per_row, self.separators) if self.plan else pieces

  @property
  def expected_fill(self) -> float:
    """Share of real tokens in the rows of an epoch, special ones counted."""
    pairs = self.index.pieces.sum() + (self.plan.splits(self._per_window(self.index.pieces)).sum() if self.plan else 0)
    tokens = self.index.tokens.sum() + (1 + self.separators) * pairs
    return float(tokens / (self.rows_per_epoch * self.config.sequence_length))

  def _per_window(self, counts: np.ndarray) -> np.ndarray:  # [K] -> [W]
    return np.add.reduceat(counts, self.bounds[:-1])

  def window(self, window: int) -> shards.Window:
    return shards.read_window(self.index, int(self.bounds[window]), int(self.bounds[window + 1]))

  def _window_order(self, epoch: int) -> np.ndarray:  # -> [W]
    return random.permutation(random.key(self.config.seed, 'windows', epoch), len(self.window_rows))

  def spans(self, first: int, last: int) -> Iterator[tuple[int, int, int, int]]:
    """The rows first … last - 1 of the stream as (epoch, window, first row, last row of the window)."""
    while first < last:
      epoch, row = divmod(first, self.rows_per_epoch)
      order = self.window_order(epoch)
      ends = np.cumsum(self.window_rows[order])
      nth = int(np.searchsorted(ends, row, side='right'))
      begin = row - int(ends[nth] - self.window_rows[order[nth]])
      end = min(begin + last - first, int(self.window_rows[order[nth]]))
      yield epoch, int(order[nth]), begin, end
      first += end - begin

  def arranged(self, epoch: int, window: int) -> epochs.Rows:
    """The window's pairs and rows in that epoch; the last few are kept."""
    with self._lock:
      if (epoch, window) not in self._cache:
        self._cache[epoch, window] = epochs.arrange(
            self.window(window), epoch, window, int(self.window_rows[window]), self.plan, self.config, self.tables.continues)
        if len(self._cache) > CACHED_WINDOWS:
          self._cache.popitem(last=False)
      self._cache.move_to_end((epoch, window))
      return self._cache[epoch, window]

  def rows(self, first: int, last: int, step: int = 0) -> dict[str, np.ndarray]:
    """Rows first … last - 1 of the stream, masked as at `step`: a batch."""
    parts = [self._part(self.arranged(epoch, window), begin, end, step) for epoch, window, begin, end in self.spans(first, last)]
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

  def laid_out(self, arranged: epochs.Rows, begin: int, end: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Rows begin … end - 1 of a window before masking, and their placed pairs: ({[B T]}, {[M]})."""
    first, last = int(arranged.row_pairs[begin]), int(arranged.row_pairs[end])
    chosen = {name: getattr(arranged.pairs, name)[first:last] for name in ('a_start', 'a', 'b_start', 'b', 'label')}
    row = np.repeat(np.arange(end - begin), np.diff(arranged.row_pairs[begin:end + 1]))
    placed = packing.place(chosen, row, self.separators)
    return packing.lay_out(arranged.tokens, placed, end - begin, self.config.sequence_length, self.separators, self.vocabulary), placed

  def _part(self, arranged: epochs.Rows, begin: int, end: int, step: int) -> dict[str, np.ndarray]:
    config = self.config
    batch, placed = self.laid_out(arranged, begin, end)
    width = masking.words_per_pair(config.masking.unit, config.sequence_length, config.predictions)
    stream = random.key(config.seed, 'masks', arranged.epoch, arranged.window)
    words = random.words(stream, int(arranged.row_pairs[begin]) * width, len(placed['row']) * width).reshape(-1, width)
    batch |= masking.mask_batch(batch['input_ids'], placed, words, config.masking, masking.share_at(config.masking, step),
                                config.predictions, self.tables, arranged.word_starts)
    return batch | packing.pair_slots(placed, end - begin, config.pairs_per_row, predict=config.pairs != 'none')

  def batch(self, step: int, process_index: int = 0, process_count: int = 1) -> dict[str, np.ndarray]:
    """This process' rows of the global batch of `step`: a contiguous slice, the same whatever came before."""
    local = share_of(self.config.size, process_count)
    first = (step - self.first_step) * self.config.size + process_index * local
    return self.rows(first, first + local, step)

  def batches(self, first_step: int, last_step: int | None = None, process_index: int = 0, process_count: int = 1,
              engine: str = 'auto') -> Iterator[dict[str, np.ndarray]]:
    """The batches of steps first_step … last_step - 1, or without end, made ahead in the background. Close it to end that."""
    size = share_of(self.config.size, process_count)
    # Small batches of neighbouring rows are made together: a batch costs a millisecond however small it is.
    steps = 1 if process_count > 1 or self.config.masking.schedule else max(1, ROWS_AT_ONCE // size)
    if steps == 1:
      return reading.ahead(lambda step: self.batch(step, process_index, process_count), first_step, last_step, engine)
    first, count = (first_step - self.first_step) * size, None if last_step is None else last_step - first_step
    make = lambda group: self.rows(first + group * steps * size, first + (group + 1) * steps * size, first_step)
    return _parted(reading.ahead(make, 0, None if count is None else -(-count // steps), engine), size, steps, count)

  def evaluation_batches(self, size: int, limit: int | None = None, process_index: int = 0,
                         process_count: int = 1) -> Iterator[dict[str, np.ndarray]]:
    """One pass over epoch 0, or its first `limit` rows, in batches of `size`; the last is filled up with rows of weight 0."""
    local, rows = share_of(size, process_count), min(limit or self.rows_per_epoch, self.rows_per_epoch)
    for start in range(0, rows, size):
      first = start + process_index * local
      last = min(first + local, rows)
      batch = self.rows(first, last) if first < last else {name: array[:0] for name, array in self.rows(0, 1).items()}
      missing = local - len(batch['input_ids'])
      yield {name: np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)]) for name, array in batch.items()}

  def token_counts(self) -> np.ndarray:  # -> [V] int64
    """How often each token stands in the split: for the unigram baseline."""
    counts = np.zeros(self.vocabulary.size, np.int64)
    for window in range(len(self.bounds) - 1):
      counts += np.bincount(self.window(window).tokens, minlength=self.vocabulary.size)
    return counts


__all__ = ['BatchConfig', 'Masking', 'OneDocument', 'Stream', 'open_split']


def _parted(groups: Iterator[dict[str, np.ndarray]], size: int, steps: int, count: int | None) -> Iterator[dict[str, np.ndarray]]:
  """The `count` batches of `size` rows that are in groups of `steps`."""
  with contextlib.closing(groups):
    parts = ({name: array[i * size:(i + 1) * size] for name, array in group.items()} for group in groups for i in range(steps))
    yield from itertools.islice(parts, count)


def share_of(size: int, process_count: int) -> int:
  if size % process_count:
    raise ValueError(f'a batch of {size} rows does not divide over {process_count} processes: '
                     f'make batch.size a multiple of {process_count}')
  return size // process_count


def fingerprint(manifest: records.Manifest, split: str, config: BatchConfig) -> str:
  """SHA-256 over everything that decides the batches: the shards, the vocabulary and the config."""
  content = {'contract': CONTRACT, 'shards': [shard.sha256 for shard in manifest.splits[split].shards],
             'vocabulary': manifest.vocabulary.sha256, 'config': dataclasses.asdict(config)}
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

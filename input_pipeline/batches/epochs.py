"""A window as one epoch arranges it: pieces split, paired, packed into rows, and the rows shuffled.

Letters: N pieces of the window, M its pairs, R its rows, V vocabulary.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from input_pipeline import random
from input_pipeline.batches import packing
from input_pipeline.batches.config import BatchConfig
from input_pipeline.batches.packing import Trials
from input_pipeline.batches.pairs import MAKERS
from input_pipeline.batches.segments import Pairs
from input_pipeline.batches.shards import StoredMasks, Window

TRIAL_WINDOWS = 4  # windows that are packed for trial, under keys that no epoch has

KeyOf = Callable[[str], int]  # from a purpose to the key of its bits


@dataclasses.dataclass(frozen=True)
class Arrangement:
  """The pairs of a window in the order of its rows."""
  epoch: int
  number: int  # of the window
  tokens: np.ndarray  # of the window
  pairs: Pairs
  first_pairs: np.ndarray  # [R + 1] of each row: row r has the pairs first_pairs[r] … first_pairs[r + 1] - 1
  word_starts: np.ndarray | None  # of the window, where the data has them
  masks: StoredMasks | None  # likewise


def arrange(window: Window, epoch: int, number: int, row_count: int, trials: Trials | None, config: BatchConfig,
            continues: np.ndarray) -> Arrangement:  # …, [V]
  """Without trials each pair has a row of its own; with them, `row_count` rows hold them all."""
  key = lambda purpose, *more: random.key(config.seed, purpose, epoch, number, *more)
  if trials is None:
    pairs = make_pairs(window, key('pairs'), config, continues)
    order = random.permutation(key('order'), len(pairs.label))
    return Arrangement(epoch, number, window.tokens, pairs.take(order), np.arange(len(order) + 1), window.word_starts,
                       window.masks)
  best = None
  for attempt, more_splits in enumerate(packing.MORE_SPLITS):
    key_of = lambda purpose, attempt=attempt: key(purpose, attempt)
    pairs, row_of = try_packing(window, row_count, trials.split_share + more_splits, config, continues, key_of)
    left_over = int((pairs.a_length + pairs.b_length)[row_of < 0].sum())  # tokens
    if best is None or left_over < best[0]:
      best = left_over, pairs, row_of
    if not left_over:
      break
  pairs, row_of = packing.cut_to_fit(*best[1:], row_count, config.sequence_length, config.pairs_per_row,
                                     config.separators)
  row_of = random.permutation(key('order'), row_count)[row_of]
  order = np.lexsort((random.bits(key('within'), 0, len(row_of)), row_of))  # by row, at random within a row
  first_pairs = np.searchsorted(row_of[order], np.arange(row_count + 1))
  return Arrangement(epoch, number, window.tokens, pairs.take(order), first_pairs, window.word_starts, window.masks)


def make_pairs(window: Window, key: int, config: BatchConfig, continues: np.ndarray) -> Pairs:
  return MAKERS[config.pairs](window, key, config.sequence_length - config.specials, continues)


def try_packing(window: Window, row_count: int | None, split_share: float, config: BatchConfig, continues: np.ndarray,
                key_of: KeyOf) -> tuple[Pairs, np.ndarray]:  # …, [V] -> pairs, row of each [M]
  if config.pairs != 'google':  # those are two segments, not sentences
    window = packing.split_pieces(window, split_share, config.sequence_length, key_of('split'))
  pairs = make_pairs(window, key_of('pairs'), config, continues)
  lengths = pairs.a_length + pairs.b_length + config.specials
  return pairs, packing.pack(lengths, config.sequence_length, config.pairs_per_row, row_count, key_of('pack'))


def run_trials(read_window: Callable[[int], Window], window_count: int, config: BatchConfig,
               continues: np.ndarray) -> Trials:  # …, [V]
  """How many pieces to split and how full rows become, by trial on a few windows.

  A few tell for all: pieces are shuffled over the corpus, so the windows are alike.
  """
  def fill(split_share: float, number: int, trial: int) -> float:
    key_of = lambda purpose: random.key(config.seed, purpose, 'trial', number, trial)
    pairs, row_of = try_packing(read_window(number), None, split_share, config, continues, key_of)
    tokens = (pairs.a_length + pairs.b_length + config.specials).sum()
    return float(tokens / ((row_of.max() + 1) * config.sequence_length))

  fills = {}
  for split_share in packing.SPLIT_SHARES if config.pairs != 'google' else packing.SPLIT_SHARES[:1]:
    fills[split_share] = fill(split_share, 0, 0)
    if fills[split_share] >= packing.GOOD_FILL:
      break
  best = max(fills, key=fills.get)
  numbers = np.linspace(0, window_count - 1, TRIAL_WINDOWS)
  return Trials(best, min(fill(best, int(number), trial) for trial, number in enumerate(numbers)))

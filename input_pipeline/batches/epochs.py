"""A window as one epoch arranges it: pieces split, paired, packed into rows, and the rows shuffled.

Letters: M pairs of the window, R its rows, T tokens of a row.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from input_pipeline import random
from input_pipeline.batches import packing, pairs, shards
from input_pipeline.batches.config import BatchConfig
from input_pipeline.batches.packing import Plan

TRIALS = 4  # windows that are packed for trial, under keys no epoch has


@dataclasses.dataclass(frozen=True)
class Rows:
  """The pairs of a window in row order."""
  epoch: int
  window: int
  tokens: np.ndarray  # of the window
  pairs: pairs.Pairs
  row_pairs: np.ndarray  # [R + 1] first pair of each row
  word_starts: np.ndarray | None  # of the window, where the data has them


def arrange(window: shards.Window, epoch: int, number: int, rows: int, plan: Plan | None, config: BatchConfig,
            continues: np.ndarray) -> Rows:
  """Without a plan each pair has a row of its own; with one, `rows` rows hold them all."""
  key = lambda purpose, *more: random.key(config.seed, purpose, epoch, number, *more)
  if plan is None:
    made = make_pairs(window, key('pairs'), config, continues)
    order = random.permutation(key('order'), len(made.a))
    return Rows(epoch, number, window.tokens, made.take(order), np.arange(len(order) + 1), window.word_starts)
  best = None
  for attempt, more in enumerate(packing.MORE_SPLITS):
    made, placed = try_packing(window, rows, plan.split_share + more, config, continues, lambda purpose, k=attempt: key(purpose, k))
    homeless = int((made.a + made.b)[placed < 0].sum())
    if best is None or homeless < best[0]:
      best = homeless, made, placed
    if not homeless:
      break
  separators = config.separators
  made, placed = packing.squeeze(*best[1:], rows, config.sequence_length, config.pairs_per_row, separators)
  row = random.permutation(key('order'), rows)[placed]
  order = np.lexsort((random.words(key('within'), 0, len(row)), row))
  return Rows(epoch, number, window.tokens, made.take(order), np.searchsorted(row[order], np.arange(rows + 1)), window.word_starts)


def make_pairs(window: shards.Window, stream: int, config: BatchConfig, continues: np.ndarray) -> pairs.Pairs:
  return pairs.MAKERS[config.pairs](window, stream, config.sequence_length - 1 - config.separators, continues)


def try_packing(window: shards.Window, rows: int | None, split_share: float, config: BatchConfig, continues: np.ndarray,
                key) -> tuple[pairs.Pairs, np.ndarray]:  # -> pairs, row of each [M]
  if config.pairs != 'google':  # those are two segments, not sentences
    window = packing.split_pieces(window, split_share, config.sequence_length, key('split'))
  made = make_pairs(window, key('pairs'), config, continues)
  lengths = made.a + made.b + 1 + config.separators
  return made, packing.pack(lengths, config.sequence_length, config.pairs_per_row, rows, key('pack'))


def plan(read: Callable[[int], shards.Window], windows: int, config: BatchConfig, continues: np.ndarray) -> Plan:
  """How many pieces to split and how full rows become, by trial on a few windows: pieces are shuffled over the corpus, so all are alike."""
  def fill(share: float, number: int, trial: int) -> float:
    key = lambda purpose: random.key(config.seed, purpose, 'trial', number, trial)
    made, placed = try_packing(read(number), None, share, config, continues, key)
    used = (made.a + made.b + 1 + config.separators).sum()
    return float(used / ((placed.max() + 1) * config.sequence_length))

  fills = {}
  for share in packing.SPLIT_SHARES if config.pairs != 'google' else packing.SPLIT_SHARES[:1]:
    fills[share] = fill(share, 0, 0)
    if fills[share] >= packing.GOOD_FILL:
      break
  best = max(fills, key=fills.get)
  return Plan(best, min(fill(best, int(number), trial) for trial, number in enumerate(np.linspace(0, windows - 1, TRIALS))))

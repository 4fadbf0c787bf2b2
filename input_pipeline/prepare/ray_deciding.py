"""What is decided of documents, on Ray: deciding.py, scheduled. Hashes go from worker to worker."""

import collections
import math

import numpy as np

from input_pipeline.engines import ray_tasks
from input_pipeline.prepare import deciding, spill, splits
from input_pipeline.prepare.ray_plan import Made, Plan, Sizes


def held(made: list[Made], sizes: Sizes) -> int:
  """Bytes of rows that a task holds: a value, or more where less than `least` would go from each task to each other."""
  return max(sizes.value, math.isqrt(sizes.least * _rows(made)))


def _rows(made: list[Made]) -> int:
  return sum(one.documents for one in made) * deciding.ROW.itemsize


def groups_of(made: list[Made], value: int) -> list[list[int]]:
  """Runs in a row whose tables, and whose pieces, are worked on together."""
  groups, size = [], 0
  for number, one in enumerate(made):
    rows = one.documents * deciding.ROW.itemsize
    if not groups or size + rows > value:
      groups.append([])
      size = 0
    groups[-1].append(number)
    size += rows
  return groups


def decide(made: list[Made], groups: list[list[int]], plan: Plan, counts: collections.Counter
           ) -> tuple[list, dict[int, splits.Total]]:
  """References to the decisions of each group, and what each split holds; counts documents. Raises DataError."""
  parts, count = max(1, -(-_rows(made) // held(made, plan.sizes))), len(groups)
  firsts = [group[0] for group in groups]
  tables = [[made[number].table for number in group] for group in groups]
  # of each group its own copies, and rows in parts by text
  task = ray_tasks.task(_rows_of, num_returns=1 + parts + 1)
  by_text = ray_tasks.in_order((group, task.remote(firsts[group], parts, *tables[group])) for group in range(count))
  # of each part what is dropped and what is renamed of each group, and rows in parts by rank
  task = ray_tasks.task(_drop_copies, num_returns=2 * count + parts + 1)
  by_rank = ray_tasks.in_order((part, task.remote(firsts, parts, *(refs[1 + part] for refs, _ in by_text)))
                               for part in range(parts))
  task = ray_tasks.task(_rename, num_returns=count + 1)
  more = ray_tasks.in_order((part, task.remote(firsts, *(refs[2 * count + part] for refs, _ in by_rank)))
                            for part in range(parts))
  found = deciding.together([one for _, one in (*by_rank, *more)])
  below = splits.threshold(list(found.smallest), found.documents, plan.settings.validation_share)
  task = ray_tasks.task(_decide_group, num_returns=2)
  decided = ray_tasks.in_order(
      (group, task.remote(firsts[group], below, len(tables[group]), 1 + parts, *tables[group], by_text[group][0][0],
                          *(refs[group] for refs, _ in by_rank), *(refs[count + group] for refs, _ in by_rank),
                          *(refs[group] for refs, _ in more)))
      for group in range(count))
  for _, (own, _) in decided:
    counts.update(own)
  totals = {split: splits.sum_of(own[split] for _, (_, own) in decided) for split in spill.SPLITS}
  splits.check_documents(found.documents, plan.settings, counts)
  splits.check_totals(plan.settings, totals)
  return [ref for [ref], _ in decided], totals


def _rows_of(first: int, parts: int, *tables: deciding.Table) -> tuple:
  copies, rows = deciding.rows_of(first, tables, parts)
  return copies, *rows, None


def _drop_copies(firsts: list[int], parts: int, *blocks: np.ndarray) -> tuple:
  dropped, renamed, onward, found = deciding.drop_copies(blocks, firsts, parts)
  return *dropped, *renamed, *onward, found


def _rename(firsts: list[int], *blocks: np.ndarray) -> tuple:
  renamed, found = deciding.rename(blocks, firsts)
  return *renamed, found


def _decide_group(first: int, below: np.uint64, runs: int, dropped: int, *given) -> tuple:
  tables, drops, renames = given[:runs], given[runs:runs + dropped], given[runs + dropped:]
  decisions, counts, totals = deciding.decide(first, tables, drops, renames, below)
  return decisions, (counts, totals)

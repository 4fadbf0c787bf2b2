"""What is decided of documents, on Ray: deciding.py, scheduled. Hashes go from worker to worker."""

import collections
import itertools
import math

import numpy as np

from input_pipeline.engines import ray_tasks
from input_pipeline.prepare import deciding, near_duplicates, spill, splits
from input_pipeline.prepare.ray_plan import Made, Plan, Sizes


def held(made: list[Made], sizes: Sizes, near: bool = False) -> int:
  """Bytes of rows that a task holds: a value, or more where less than `least` would go from each task to each other."""
  return max(sizes.value, math.isqrt(sizes.least * _rows(made, near)))


def _rows(made: list[Made], near: bool) -> int:
  return sum(one.documents for one in made) * deciding.bytes_of_a_document(near)


def groups_of(made: list[Made], value: int, near: bool = False) -> list[list[int]]:
  """Runs in a row whose tables, and whose pieces, are worked on together. `near`: they hold near-duplicates' rows too.
  """
  groups, size = [], 0
  for number, one in enumerate(made):
    rows = one.documents * deciding.bytes_of_a_document(near)
    if not groups or size + rows > value:
      groups.append([])
      size = 0
    groups[-1].append(number)
    size += rows
  return groups


def decide(made: list[Made], groups: list[list[int]], plan: Plan, counts: collections.Counter
           ) -> tuple[list, dict[int, splits.Total]]:
  """References to the decisions of each group, and what each split holds; counts documents. Raises DataError."""
  near = plan.settings.near_duplicates is not None
  parts, count = max(1, -(-_rows(made, near) // held(made, plan.sizes, near))), len(groups)
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
  drops = [[by_text[group][0][0], *(refs[group] for refs, _ in by_rank)] for group in range(count)]
  renames = [[refs[column] for many, column in ((by_rank, count + group), (more, group)) for refs, _ in many]
             for group in range(count)]
  about = [(firsts[group], (len(tables[group]), len(drops[group]), len(renames[group])),
            (*tables[group], *drops[group], *renames[group])) for group in range(count)]
  if near:
    nears, found = _near(about, parts, held(made, plan.sizes, near), plan.settings.near_duplicates)
  else:
    nears, found = [None] * count, deciding.together([one for _, one in (*by_rank, *more)])
  below = splits.threshold(list(found.smallest), found.documents, plan.settings.validation_share)
  task = ray_tasks.task(_decide_group, num_returns=2)
  decided = ray_tasks.in_order(
      (group, task.remote(first, below, near, counts_of, *refs, *(nears[group] or ())))
      for group, (first, counts_of, refs) in enumerate(about))
  for _, (own, _) in decided:
    counts.update(own)
  totals = {split: splits.sum_of(own[split] for _, (_, own) in decided) for split in spill.SPLITS}
  splits.check_documents(found.documents, plan.settings, counts)
  splits.check_totals(plan.settings, totals)
  return [ref for [ref], _ in decided], totals


def _near(about: list[tuple], parts: int, part_bytes: int, share: float | None) -> tuple[list[list], deciding.Found]:
  """References to the near-duplicates that go, for each group; what is left of all."""
  firsts = [first for first, *_ in about]
  task = ray_tasks.task(_near_drawn)
  drawn = ray_tasks.in_order((group, task.remote(first, counts, parts, part_bytes, *refs))
                             for group, (first, counts, refs) in enumerate(about))
  cut = near_duplicates.cuts(np.concatenate([keys for _, keys in drawn]), part_bytes)
  task = ray_tasks.task(_near_rows, num_returns=parts + len(cut) + 1)
  rows = ray_tasks.in_order((group, task.remote(first, counts, parts, cut, *refs))
                            for group, (first, counts, refs) in enumerate(about))
  blocks = list(zip(*(refs for refs, _ in rows)))
  del rows
  continued = near_duplicates.continued(cut)
  task = ray_tasks.task(_near_ends)
  ended = ray_tasks.in_order((number, task.remote(*blocks[number - 1])) for number in continued)
  known = near_duplicates.before({number - 1: rows for number, (_, rows) in zip(continued, ended)}, continued)
  task, nothing = ray_tasks.task(_drop_near, num_returns=len(about) + 1), np.zeros(0, near_duplicates.ROW)
  dropped = ray_tasks.in_order((number, task.remote(firsts, share, known.get(number, nothing), *own))
                               for number, own in enumerate(blocks))
  del blocks
  nears = [[refs[group] for refs, _ in dropped] for group in range(len(about))]
  task = ray_tasks.task(_left)
  found = ray_tasks.in_order((group, task.remote(first, counts, *refs, *nears[group]))
                             for group, (first, counts, refs) in enumerate(about))
  return nears, deciding.together([one for _, one in found])


def _rows_of(first: int, parts: int, *tables: deciding.Table) -> tuple:
  copies, rows = deciding.rows_of(first, tables, parts)
  return copies, *rows, None


def _drop_copies(firsts: list[int], parts: int, *blocks: np.ndarray) -> tuple:
  dropped, renamed, onward, found = deciding.drop_copies(blocks, firsts, parts)
  return *dropped, *renamed, *onward, found


def _rename(firsts: list[int], *blocks: np.ndarray) -> tuple:
  renamed, found = deciding.rename(blocks, firsts)
  return *renamed, found


def _parted(counts: tuple[int, int, int], given: tuple) -> list[tuple]:
  """Tables, what is dropped, what is renamed, and what else a task is given."""
  ends = [0, *itertools.accumulate(counts), len(given)]
  return [given[start:end] for start, end in zip(ends, ends[1:])]


def _near_drawn(first: int, counts: tuple[int, int, int], parts: int, part_bytes: int, *given) -> np.ndarray:
  return deciding.near_drawn(first, *_parted(counts, given)[:3], parts, part_bytes)


def _near_rows(first: int, counts: tuple[int, int, int], parts: int, cut: np.ndarray, *given) -> tuple:
  return *deciding.near_rows(first, *_parted(counts, given)[:3], parts, cut), None


def _near_ends(*blocks: np.ndarray) -> np.ndarray:
  return deciding.near_ends(blocks)


def _drop_near(firsts: list[int], share: float, known: np.ndarray, *blocks: np.ndarray) -> tuple:
  return *deciding.drop_near(known, blocks, firsts, share), None


def _left(first: int, counts: tuple[int, int, int], *given) -> deciding.Found:
  return deciding.left(first, *_parted(counts, given))


def _decide_group(first: int, below: np.uint64, near: bool, counts_of: tuple[int, int, int], *given) -> tuple:
  tables, drops, renames, nears = _parted(counts_of, given)
  decisions, counts, totals = deciding.decide(first, tables, drops, renames, below, nears if near else None)
  return decisions, (counts, totals)

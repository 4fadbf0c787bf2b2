"""Runs to shards, on Ray: spreading.py, scheduled. References are let go as soon as what they name is used."""

import collections
import itertools
import math
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

from input_pipeline import records, storage
from input_pipeline.engines import ray_tasks
from input_pipeline.prepare import spill, splits, spreading, writing
from input_pipeline.prepare.ray_plan import Made, Plan, Sizes


def cells(split: int, shards: int, total: splits.Total, share: float, sizes: Sizes) -> spreading.Cells:
  """`share`: bytes of a token in runs, with all that belongs to it."""
  return spreading.cells(split, shards, max(1, math.ceil(total.tokens * share / shards / sizes.value)))


def select(made: list[Made], groups: list[list[int]], decisions: list, every: list[spreading.Cells], plan: Plan
            ) -> list[tuple[spreading.Cells, float, list[list]]]:
  """Of each split the bytes, and for each slice of its cells the references of blocks; the runs are let go."""
  sliced = [(own.split, spreading.whole(part)) for own in every
            for part in spreading.slices(own.ranges, spreading.fan(len(own.ranges), plan.sizes.fan))]
  size = sum(one.bytes for one in made)
  most = min(plan.sizes.value, max(1, size // ray_tasks.wanted()))
  task = ray_tasks.task(_select_of, num_returns=len(sliced) + 1)

  def asked() -> Iterator[tuple[tuple[int, int], list]]:
    for number, group in enumerate(groups):
      for bundle in ray_tasks.bundles([(made[run].bytes, place, run) for place, run in enumerate(group)], most):
        places, runs = [place for _, place, _ in bundle], [made[run].run for _, _, run in bundle]
        yield (number, places[0]), task.remote(sliced, places, decisions[number], *runs)

  found, sizes = ray_tasks.in_order(asked()), collections.Counter()
  made.clear()
  for _, bytes in found:
    sizes.update(bytes)
  return [(own, sizes[own.split], [[refs[column] for refs, _ in found]
                                   for column, (split, _) in enumerate(sliced) if split == own.split])
          for own in every]


def spread(per_slice: list[list], ranges: Sequence[spreading.Range], bytes: float, sizes: Sizes) -> Iterator[list]:
  """The references of blocks of each cell, in order. What a slice came from is let go before the next one."""
  for own, blocks in zip(spreading.slices(ranges, spreading.fan(len(ranges), sizes.fan)), _taken(per_slice)):
    if len(own) == 1:
      yield blocks
      continue
    finer = spreading.slices(own, spreading.fan(len(own), sizes.fan))
    mean = bytes * len(own) / len(ranges) / len(blocks)
    task = ray_tasks.task(_spread_of, num_returns=len(finer) + 1)
    found = ray_tasks.in_order(
        (number, task.remote(list(map(spreading.whole, finer)), *(block for _, block in bundle)))
        for number, bundle in enumerate(ray_tasks.bundles([(mean, block) for block in _taken(blocks)], sizes.value)))
    columns = [[refs[column] for refs, _ in found] for column in range(len(finer))]
    del found
    yield from spread(columns, own, bytes * len(own) / len(ranges), sizes)


def _taken(items: list) -> Iterator:
  """The items, which leave the list one by one."""
  items.reverse()
  while items:
    yield items.pop()


def writing_of(own: spreading.Cells, cells: Iterator[list], plan: Plan) -> Iterator[tuple[tuple[int, int], object]]:
  """((split, shard), reference) of the tasks that write the shards of a split."""
  task = ray_tasks.task(_write)
  for number in range(own.shards):
    blocks = list(itertools.islice(cells, own.of_a_shard))
    name = records.shard_name(spill.SPLITS[own.split], number, own.shards)
    yield (own.split, number), task.remote(name, own.of_shard(number), blocks, plan.sizes.part_tokens,
                                            plan.unknown_id, plan.shared)


def _select_of(sliced: list[tuple[int, spreading.Range]], places: list[int], decisions: list[spill.Decisions],
               *runs: spill.Run) -> tuple:
  sizes, blocks = collections.Counter(), []
  for split, cells in sliced:
    [block] = spreading.select(runs, [decisions[place] for place in places], split, [cells])
    blocks.append(block)
    sizes[split] += sum(spill.size_of(part) for part in block)
  return *blocks, sizes


def _spread_of(ranges: list[spreading.Range], *blocks: spreading.Block) -> tuple:
  return *spreading.spread(blocks, ranges), None


def _write(name: str, ranges: Sequence[spreading.Range], blocks: list[list], part_tokens: int, unknown_id: int,
           shared: str) -> tuple[records.Shard, dict[str, int]]:
  """One shard, cell by cell: only one cell's blocks are here at once."""
  import ray
  with tempfile.TemporaryDirectory() as folder:
    local = pathlib.Path(folder) / name
    parts = (part for cell, refs in zip(ranges, blocks)
             for part in spreading.in_parts(ray.get(refs), cell, part_tokens))
    found = writing.write_shard(local, parts, unknown_id)
    storage.put(local, storage.path(shared) / name)
  return found

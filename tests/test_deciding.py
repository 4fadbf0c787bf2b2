"""What is decided and merged in parts, where no machine holds it all, is what one machine decides and merges."""

import collections
import dataclasses
import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import given, strategies as st

from input_pipeline import processes, records
from input_pipeline.prepare import (
  columns,
  deciding,
  disk_spreading,
  near_duplicates,
  ray_deciding,
  ray_plan,
  settings,
  spill,
  splits,
  spreading,
)
from input_pipeline.prepare.columns import Pieces

SETTINGS = settings.Prepare('a.txt', 'v.txt', 'out', validation_share=0.2)
# A document as its text and its id; few of each, so that many share one.
DOCUMENTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)
NO_ROWS = np.zeros(0, near_duplicates.ROW)
RUNS = st.lists(DOCUMENTS, min_size=1, max_size=6)


def run_of(documents: list[tuple[int, int]], number: int) -> spill.Run:
  """Equal texts have equal pieces, in what matters here: whether there are any."""
  count = len(documents)
  hashes = lambda values, salt: np.array([hash((salt, value)) % 2**64 for value in values], '<u8')
  texts = [text for text, _ in documents]
  owners = np.repeat(np.arange(count, dtype='<i4'), [text % 3 for text in texts])
  keys = np.array([hash((number, place)) % 2**64 for place in range(len(owners))], '<u8')
  tokens = np.arange(len(owners), dtype='<u4') % 5 + 1
  made = columns.empty([*records.columns_of(SETTINGS)], np.dtype('<u2'))
  lengths = {'piece_sentences': np.ones(len(owners), '<u4'), 'sentence_lengths': tokens,
             'document_ids': owners, 'input_ids': np.repeat(keys % 100, tokens)}
  made = Pieces(keys, tokens, {name: lengths.get(name, np.zeros(len(owners))).astype(values.dtype)
                               for name, values in made.columns.items()})
  return spill.order(spill.Run(
      np.stack([hashes(texts, 1), hashes(texts, 2)], 1).reshape(-1, 2),
      hashes([id for _, id in documents], 3), hashes([(text, id) for text, id in documents], 4),
      np.zeros((count, 0), '<u4'), owners, made))


def decided_in_parts(runs: list[spill.Run], groups: list[list[int]], parts: int, near: float | None, of_a_part: int):
  """As an engine schedules it."""
  tables, firsts = [deciding.table(run) for run in runs], [group[0] for group in groups]
  own = [deciding.rows_of(group[0], [tables[number] for number in group], parts) for group in groups]
  drops = [deciding.drop_copies([rows[part] for _, rows in own], firsts, parts) for part in range(parts)]
  renames = [deciding.rename([onward[part] for *_, onward, _ in drops], firsts) for part in range(parts)]
  found = deciding.together([found for *_, found in (*drops, *renames)])
  about = [(group[0], [tables[number] for number in group], [own[place][0], *(drop[0][place] for drop in drops)],
            [*(drop[1][place] for drop in drops), *(renamed[0][place] for renamed in renames)])
           for place, group in enumerate(groups)]
  nears = None
  if near is not None:
    drawn = np.concatenate([deciding.near_drawn(*one, parts, of_a_part) for one in about])
    cut = near_duplicates.cuts(drawn, of_a_part)
    slices = list(zip(*(deciding.near_rows(*one, parts, cut) for one in about), strict=True))
    known = near_duplicates.before(dict(enumerate(map(deciding.near_ends, slices))), near_duplicates.continued(cut))
    gone = [deciding.drop_near(known.get(number, NO_ROWS), blocks, firsts, near)
            for number, blocks in enumerate(slices)]
    nears = [[blocks[place] for blocks in gone] for place in range(len(groups))]
    found = deciding.together([deciding.left(*one, nears[place]) for place, one in enumerate(about)])
  below = splits.threshold(list(found.smallest), found.documents, SETTINGS.validation_share)
  decisions, counts, totals = [], collections.Counter(), {split: [] for split in spill.SPLITS}
  for place, one in enumerate(about):
    mine, more, sums = deciding.decide(*one, below, None if nears is None else nears[place])
    decisions += mine
    counts.update(more)
    for split, total in sums.items():
      totals[split].append(total)
  return decisions, counts, {split: splits.sum_of(own) for split, own in totals.items()}, found


def signed(run: spill.Run, documents: list[tuple[int, int]]) -> spill.Run:
  """Texts that follow each other have some of their hashes in common; so do ids, of texts with none of their own."""
  base = np.array([text // 3 if text % 3 else 50 + id for text, id in documents], '<u4').reshape(-1, 1)
  changed = np.array([5 * text % 64 for text, _ in documents], int).reshape(-1, 1)
  places = np.arange(near_duplicates.HASHES)[None]
  hashes = base * 1000 + places + np.where(places < changed, 7 * changed, 0)
  return dataclasses.replace(run, signatures=hashes.astype('<u4').reshape(-1, near_duplicates.HASHES))


@given(RUNS, st.integers(1, 4), st.integers(1, 4), st.sampled_from([None, 0.3, 0.5, 0.8]), st.sampled_from([1, 9, 999]))
def test_decisions_in_parts_are_those_of_one_machine(tmp_path_factory, documents, parts, together, near, rows):
  folder = tmp_path_factory.mktemp('runs')
  runs = [run_of(own, number) for number, own in enumerate(documents)]
  if near is not None:
    runs = [signed(run, own) for run, own in zip(runs, documents)]
  paths = [folder / f'{number:08d}.run' for number in range(len(runs))]
  for path, run in zip(paths, runs):
    spill.write(path, run, {})
  counts = collections.Counter(documents=sum(map(len, documents)))
  groups = [list(range(first, min(first + together, len(runs)))) for first in range(0, len(runs), together)]
  found, more, totals, known = decided_in_parts(runs, groups, parts, near, rows * near_duplicates.ROW.itemsize)
  assert max(0, known.documents) == sum(total.documents for total in totals.values())
  try:
    wanted = splits.decide(paths, dataclasses.replace(SETTINGS, near_duplicates=near), counts)
  except records.DataError:
    assert known.documents < 2
    return
  for ours, theirs in zip(found, wanted, strict=True):
    np.testing.assert_array_equal(ours.splits, theirs.splits)
    np.testing.assert_array_equal(ours.renamed, theirs.renamed)
  same = 'duplicates', 'near_duplicates', 'repeated_ids', 'without_pieces'
  assert {name: more[name] for name in same} == {name: counts[name] for name in same}
  assert more['documents'] + sum(map(len, documents)) == counts['documents']
  assert totals == {split: total for split, total in splits.totals_of(runs, wanted).items() if split in totals}


def test_a_text_that_is_everywhere_sends_one_row_of_each_group():
  """So no part grows by it; nor by an id that all have."""
  runs = [run_of([(1, 3)] * 500, number) for number in range(4)]
  tables = [deciding.table(run) for run in runs]
  for first in (0, 2):
    copies, rows = deciding.rows_of(first, tables[first:first + 2], 3)
    assert len(copies) == 999 and sum(map(len, rows)) == 1
  alike = [run_of([(text, 0) for text in range(1, 3000, 3)], 0)]
  _, rows = deciding.rows_of(0, [deciding.table(run) for run in alike], 1)
  _, [renamed], [onward], found = deciding.drop_copies(rows, [0], 1)
  assert (len(renamed), len(onward), found.documents) == (1000, 1, 1000)


@given(RUNS, st.integers(1, 9), st.integers(1, 3), st.integers(2, 4), st.integers(1, 3))
def test_shards_by_rounds_are_those_of_one_merge(documents, shards, of_a_shard, fan, bundle):
  runs = [run_of(own, number) for number, own in enumerate(documents)]
  decisions = [spill.Decisions(np.arange(len(run.ranks), dtype=np.uint8) % 3, run.ranks % 2 == 0) for run in runs]
  cells = spreading.cells(spill.TRAIN, shards, of_a_shard)
  all_of_it = [spreading.whole(cells.ranges)]
  blocks = [spreading.select(runs[at:at + bundle], decisions[at:at + bundle], spill.TRAIN, all_of_it)[0]
            for at in range(0, len(runs), bundle)]

  def rounds(blocks, ranges):
    if len(ranges) == 1:
      yield blocks
      return
    finer = spreading.slices(ranges, fan)
    spread = [spreading.spread(blocks[at:at + bundle], list(map(spreading.whole, finer)))
              for at in range(0, len(blocks), bundle)]
    for place, own in enumerate(finer):
      yield from rounds([row[place] for row in spread], own)

  found = list(rounds(blocks, cells.ranges))
  assert len(found) == len(cells.ranges) == shards * of_a_shard
  for number, bounds in enumerate(spill.key_ranges(shards)):
    mine = range(number * of_a_shard, (number + 1) * of_a_shard)
    assert cells.of_shard(number) == tuple(cells.ranges[cell] for cell in mine)
    ours = columns.join([part for cell in mine for part in spreading.in_parts(found[cell], cells.ranges[cell], 7)])
    theirs = columns.merge([spill.select(run, own, spill.TRAIN, *bounds) for run, own in zip(runs, decisions)])
    for one, other in ((ours.keys, theirs.keys), (ours.tokens, theirs.tokens),
                       *((ours[name], values) for name, values in theirs.columns.items())):
      np.testing.assert_array_equal(one, other)


@hypothesis.settings(max_examples=30)
@given(RUNS, st.integers(1, 9), st.integers(1, 3), st.integers(1, 30), st.integers(1, 6))
def test_shards_by_way_of_files_of_slices_are_those_of_one_merge(tmp_path_factory, documents, shards, of_a_shard,
                                                                 slices, bundles):
  folder = tmp_path_factory.mktemp('runs')
  runs = [run_of(own, number) for number, own in enumerate(documents)]
  decisions = [spill.Decisions(np.arange(len(run.ranks), dtype=np.uint8) % 3, run.ranks % 2 == 0) for run in runs]
  paths = [folder / f'{number:08d}.run' for number in range(len(runs))]
  for path, run in zip(paths, runs):
    spill.write(path, run, {})
  cells = spreading.cells(spill.TRAIN, shards, of_a_shard)
  rounds = spreading.Rounds(min(slices, len(cells.ranges)), min(bundles, len(runs)))
  files = disk_spreading.spread(paths, decisions, cells, rounds, folder, processes.now)
  assert len(list(folder.glob('*.slice'))) == rounds.slices * rounds.bundles
  for number in range(shards):
    mine = slice(number * of_a_shard, (number + 1) * of_a_shard)
    ours = disk_spreading.write_shard(folder / 'ours', files[mine], cells.of_shard(number), 1)
    theirs = splits.write_shard(folder / 'theirs', paths, decisions, spill.TRAIN, cells.of_shard(number), 1)
    assert (folder / 'ours').read_bytes() == (folder / 'theirs').read_bytes()
    assert ours[1] == theirs[1] and dataclasses.replace(ours[0], file='theirs') == theirs[0]


@given(st.integers(1, 10**8), st.integers(1, 10**5), st.integers(1, 10**7), st.integers(1, 4))
def test_what_is_sent_grows_with_the_text_and_not_by_runs_and_shards(runs, shards, of_a_run, of_a_shard):
  """Nothing is above 64 MB; of a terabyte no more than its bytes in parts of some kilobytes."""
  cells = shards * of_a_shard
  found = spreading.rounds(runs, runs * of_a_run, cells)
  if found is None:
    assert of_a_run >= spreading.LEAST * cells
    return
  slice_of_a_bundle = runs * of_a_run / found.slices / found.bundles
  assert slice_of_a_bundle <= 1.5 * spreading.VALUE < 64 << 20 and found.bundles <= runs and found.slices <= cells
  sent = runs * found.slices + found.bundles * cells
  assert sent <= 4 * math.sqrt(runs * cells * (runs * of_a_run / spreading.VALUE)) + 2 * (runs + cells)
  assert sent <= 2 * runs * cells + runs + cells


@pytest.mark.parametrize('documents', [10**3, 10**7, 10**9, 10**10])
def test_what_rays_driver_refers_to_grows_with_the_text_and_not_by_its_square(documents):
  made, sizes = [ray_plan.Made(None, None, collections.Counter(), 0, documents // 1000)] * 1000, ray_plan.Sizes(1, 1)
  held, rows = ray_deciding.held(made, sizes), documents * deciding.ROW.itemsize
  parts = -(-rows // held)
  assert held == sizes.value or rows / parts**2 >= 0.9 * sizes.least
  assert parts**2 <= max(rows / sizes.least, (rows / sizes.value)**2, 1) * 1.1 + 3 * parts
  assert parts**2 < 200_000 or documents > 10**9


@given(st.integers(1, 10**6), st.integers(2, 64))
def test_a_fan_is_as_small_as_its_rounds_allow(cells, most):
  rounds, fan = spreading.rounds_of(cells, most), spreading.fan(cells, most)
  assert fan <= most and fan**rounds >= cells and most**(rounds - 1) < max(2, cells)
  assert fan == 1 or (fan - 1)**rounds < cells
  left = range(cells)
  for _ in range(rounds):
    left = max(spreading.slices(left, spreading.fan(len(left), most)), key=len)
  assert len(left) == 1


def test_two_terabytes_of_text():
  """A million runs of 1.1 MB, 26,500 shards of the usual size: not 26 billion, and so at 2 GB already."""
  few = lambda runs, shards: (found := spreading.rounds(runs, runs * 1.1e6, shards), runs * found.slices
                              + found.bundles * shards)[1]
  assert few(10**6, 26_500) < 100_000_000 and few(10**6, 4 * 26_500) < 200_000_000
  assert few(10**3, 4 * 27) < 10**3 * 4 * 27 / 20


@given(RUNS)
def test_runs_that_are_joined_are_one_run(documents):
  runs = [run_of(own, number) for number, own in enumerate(documents)]
  joined = spill.join(runs)
  assert len(joined.ranks) == sum(map(len, documents)) and (np.diff(joined.pieces.keys.astype(object)) >= 0).all()
  starts = itertools.accumulate([0, *map(len, documents)])
  for run, start in zip(runs, starts):
    own = spill.select(joined, spill.Decisions(
        ((np.arange(len(joined.ranks)) < start) | (np.arange(len(joined.ranks)) >= start + len(run.ranks))).astype(
            np.uint8) * spill.DROPPED, np.zeros(len(joined.ranks), bool)), spill.TRAIN, 0, 2**64)
    np.testing.assert_array_equal(own.keys, run.pieces.keys)
    np.testing.assert_array_equal(own['input_ids'], run.pieces['input_ids'])

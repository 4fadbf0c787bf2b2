"""The batches of a task: each row once an epoch, of about one length together, the same on any number of processes."""

import itertools

import numpy as np
from hypothesis import given, settings, strategies as st

from bert_jax.tasks.batches import STEP, Batches, choose_lengths
from bert_jax.tasks.settings import Finetune, TaskBatch
from bert_jax.tasks.task import Row

LENGTHS = st.lists(st.integers(2, 70), min_size=1, max_size=150)


def rows_of(lengths):
  ones = lambda n: np.ones(n, np.int32)
  return [Row(np.full(n, 1000 + i, np.int32), ones(n) - 1, np.arange(n, dtype=np.int32), ones(n),
              {'label': np.int32(i)}, i, {'tags': ones(n) * 3}) for i, n in enumerate(lengths)]


def batches_of(lengths, size, index=0, parts=1, most=3):
  rows = rows_of(lengths)
  return Batches(rows, size, choose_lengths(rows, most), 5, 9, index, parts)


@settings(max_examples=25, deadline=None)
@given(LENGTHS, st.integers(1, 4))
def test_lengths_are_those_that_pad_the_least(lengths, most):
  units = [-(-n // STEP) for n in lengths]
  cost = lambda chosen: sum(min(c for c in chosen if c >= u) for u in units)
  best = min(cost((*some, max(units))) for count in range(most) for some in itertools.combinations(set(units), count))
  found = choose_lengths(rows_of(lengths), most)
  assert len(found) <= most and list(found) == sorted(set(found)) and found[-1] - STEP < max(lengths) <= found[-1]
  assert cost([length // STEP for length in found]) == best


@settings(max_examples=25, deadline=None)
@given(LENGTHS, st.sampled_from([4, 6, 8, 11]), st.integers(0, 3))
def test_an_epoch_has_every_row_once_on_any_number_of_processes(lengths, size, epoch):
  whole, parts = batches_of(lengths, size), [batches_of(lengths, size, index, 4) for index in range(4)]
  seen = []
  for step in range(epoch * whole.steps, (epoch + 1) * whole.steps):
    batch, members = whole.batch(step), whole.members(step)
    T = whole.length(members)
    assert all(len(x) == size for x in batch.values()) and batch['input_ids'].shape == batch['tags'].shape == (size, T)
    assert list(batch['weight']) == [1] * len(members) + [0] * (size - len(members))
    assert not batch['pair_ids'][len(members):].any() and (batch['input_ids'][len(members):] == 9).all()
    for place, number in enumerate(members):
      n = lengths[number]
      assert (batch['input_ids'][place] == [1000 + number] * n + [9] * (T - n)).all()
      assert (batch['tags'][place] == [3] * n + [0] * (T - n)).all() and batch['label'][place] == number
    for name, values in batch.items():
      together = np.concatenate([part.batch(step)[name] for part in parts])
      np.testing.assert_array_equal(together[:size], values)
      assert len(together) == -(-size // 4) * 4 and (together[size:] == (9 if name == 'input_ids' else 0)).all()
    seen += list(members)
  assert sorted(seen) == list(range(len(lengths)))
  once = list(whole.once())
  assert sorted(np.concatenate([members for members, _ in once])) == sorted(seen)
  assert [whole.length(members) for members, _ in once] == sorted(whole.length(members) for members, _ in once)


def test_epochs_have_orders_of_their_own_and_short_rows_pay_little():
  lengths = np.clip(np.random.default_rng(0).lognormal(2.6, .5, 3000).astype(int), 3, 128)  # as CoLA's sentences
  batches = batches_of(lengths, 32, most=4)
  orders = [np.concatenate([batches.members(epoch * batches.steps + i) for i in range(batches.steps)])
            for epoch in (0, 1, 0)]
  assert (orders[0] != orders[1]).any() and (orders[0] == orders[2]).all()
  firsts = [lengths[batches.members(step)].mean() for step in range(batches.steps)]
  assert abs(np.corrcoef(firsts, np.arange(len(firsts)))[0, 1]) < .3  # no curriculum by length
  padded = sum(batches.length(batches.members(step)) * 32 for step in range(batches.steps))
  assert padded < 1.5 * lengths.sum() < .3 * 128 * len(lengths)


def test_more_steps_have_more_lengths():
  of = lambda rows, **changes: Finetune(batch=TaskBatch(size=32, **changes)).lengths_of(rows)
  assert [of(rows) for rows in (10, 1_280, 1_920, 10_000)] == [4, 4, 6, 8]  # 3 epochs
  assert of(10_000, lengths=1) == 1

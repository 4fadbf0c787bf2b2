"""Going back and leaving batches out: what a step reads, by its definition and through real runs."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st

from bert_jax import metrics, program as program_lib, rewind, train
from bert_jax.errors import ConfigError
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline.batches import loader
from tests import synthetic

RANGES = st.lists(st.integers(0, 60), max_size=6, unique=True).map(sorted).map(
    lambda ends: tuple(zip(ends[::2], ends[1::2])))


@given(RANGES, st.integers(0, 40), st.integers(0, 40), st.integers(0, 20))
def test_steps_read_what_is_not_left_out_in_order(left_out, begin, step, count):
  left_out = tuple((first, end) for first, end in left_out if first >= begin)
  out = {batch for first, end in left_out for batch in range(first, end)}
  every = [batch for batch in range(begin, 300) if batch not in out]
  step += begin
  wanted = every[step - begin:step - begin + count]
  assert [rewind.number(at, begin, left_out) for at in range(step, step + count)] == wanted
  assert [batch for span in rewind.spans(step, step + count, begin, left_out) for batch in range(*span)] == wanted


@given(RANGES, st.integers(0, 30), st.integers(1, 9))
def test_what_steps_read_is_left_out_after_that(left_out, first, count):
  before = [rewind.number(step, 0, left_out) for step in range(120)]
  after = rewind.with_more(left_out, (first, first + count), 0)
  wanted = before[:first] + before[first + count:]
  assert [rewind.number(step, 0, after) for step in range(len(wanted))] == wanted
  assert all(a < b for a, b in after) and all(b < c for (_, b), (c, _) in zip(after, after[1:]))


@pytest.mark.parametrize('step, skip', [
    (None, '1:2'), (-1, None), (5, '7'), (5, '7:7'), (5, 'a:b'), (5, '9:7'), (5, '3:7')])
def test_what_makes_no_sense_is_refused(step, skip):
  with pytest.raises(ConfigError):
    rewind.parse(step, skip)


@pytest.fixture(scope='module')
def data(still, tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('rewind'), vocabulary_size=still.model.vocab_size, pieces=300,
                              documents=20, sequence_length=still.batch.sequence_length)


def pretrain(config, data, run_dir, **settings):
  return train.train(config, data, run_dir, devices=jax.devices()[:1], engine='threads', progress=False, **settings)


@pytest.mark.reliability(25)
def test_a_run_goes_back_once_and_on_without_the_batches(still, data, tmp_path, tally):
  """Bit for bit as the steps by hand; and the same command again, as a launcher gives it, only goes on."""
  run = dataclasses.replace(still.run, steps=12, checkpoint_every=2, keep_checkpoints=9, log_every=1)
  config = dataclasses.replace(still, run=run)
  back = rewind.parse(4, '5:7')
  pretrain(config, data, tmp_path / 'run', stop=lambda step: step == 8)
  pretrain(config, data, tmp_path / 'run', back=back, stop=lambda step: step == 6)
  found = pretrain(config, data, tmp_path / 'run', back=back)
  assert (found.resumed_from, found.step) == (6, 12)
  stream = loader.open_split(data, 'train', config.batch)
  program = program_lib.of(config, jax.devices()[:1])
  state = program.init()
  for batch in [0, 1, 2, 3, 4, *range(7, 14)]:
    state, _ = program.train_step(state, mesh_lib.put_batch(stream.batch(batch), program.mesh))
  same = lambda a, b: all(jax.tree.leaves(jax.tree.map(np.array_equal, jax.device_get(a), jax.device_get(b))))
  tally.fault(found.resumed_from == 6, survived=True, exact=same(state.params, found.state.params))
  straight = pretrain(config, data, tmp_path / 'straight')
  tally.control(not same(straight.state.params, found.state.params))  # the batches matter
  assert [line['step'] for line in metrics.read(tmp_path / 'run')] == list(range(1, 13))
  with pytest.raises(ConfigError, match='no checkpoint of step 5 to go back to: wanted one of .*4'):
    pretrain(config, data, tmp_path / 'run', back=rewind.parse(5, None))
  with pytest.raises(ConfigError, match='not within one of the run'):
    pretrain(config, data, tmp_path / 'run', back=rewind.parse(4, '5:99'))

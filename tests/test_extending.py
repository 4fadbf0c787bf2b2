"""A run that gets more steps: where the past would have been the same it is the longer run to the bit, else refused."""

import dataclasses
import json

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from bert_jax import config as cfg, extending, metrics, optimizer, phases, run_directory, train
from bert_jax.errors import ConfigError, DriftError
from tests import states, synthetic

FIRST, MORE = 6, 12


def of(tiny, steps, schedule, share=0.0, **changes):
  """Rows of 16, and for a share of the steps of 32."""
  return dataclasses.replace(
      tiny, mesh=cfg.MeshShape(data=1), long=cfg.Long(share=share, sequence_length=32, predictions=4, size=8),
      model=dataclasses.replace(tiny.model, layers=1, max_positions=32),
      optimizer=dataclasses.replace(tiny.optimizer, schedule=schedule, warmup_steps=2, **changes),
      run=dataclasses.replace(tiny.run, steps=steps, checkpoint_every=3, log_every=1))


@pytest.fixture(scope='module')
def data(tiny, tmp_path_factory):
  folder = tmp_path_factory.mktemp('extending')
  for length in (16, 32):
    synthetic.write_data(folder / str(length), vocabulary_size=tiny.model.vocab_size, pieces=200, documents=20,
                         sequence_length=length)
  return folder


def begin(config, data, run_dir, stop=None):
  return train.train(config, data, run_dir, devices=jax.devices()[:1], engine='threads', progress=False, stop=stop)


@pytest.mark.parametrize('schedule, share, done', [('constant', 0.0, FIRST), ('wsd', 0.25, 4)])
def test_an_extended_run_is_the_longer_run(tiny, data, tmp_path, schedule, share, done):
  """Stopped before its decay and before its longer rows; config.json stays, so that its checkpoints stay its own."""
  changes = {'decay_share': 0.25} if schedule == 'wsd' else {}
  short, long = (of(tiny, steps, schedule, share, **changes) for steps in (FIRST, MORE))
  begin(short, data, tmp_path / 'run', stop=lambda step: step == done)
  written = (tmp_path / 'run' / run_directory.CONFIG).read_bytes()
  extended = begin(long, data, tmp_path / 'run')
  straight = begin(long, data, tmp_path / 'straight')
  assert extended.resumed_from == done and (extended.step, straight.step, straight.reason) == (MORE, MORE, 'steps')
  assert not states.unmoved(straight.state.params)
  states.assert_same(extended.state, straight.state, tmp_path / 'run', tmp_path / 'straight')
  log = lambda name: [(line['step'], line['loss'], line['learning_rate']) for line in metrics.read(tmp_path / name)]
  assert log('run') == log('straight')
  assert (tmp_path / 'run' / run_directory.CONFIG).read_bytes() == written
  assert run_directory.read(tmp_path / 'run').config.run.steps == MORE
  assert run_directory.lengths(tmp_path / 'run') == [FIRST, MORE]
  with pytest.raises(DriftError, match=f'run.steps: {MORE} -> {FIRST}'):
    begin(short, data, tmp_path / 'run')


def test_what_would_have_been_another_run_is_refused(tiny, data, tmp_path):
  begin(of(tiny, FIRST, 'bert'), data, tmp_path / 'run')
  with pytest.raises(DriftError, match=f'{FIRST} steps, and cannot go on to run.steps {MORE}: by the schedule bert .*'
                     f'--initialize-from {tmp_path / "run"} and another --run-dir'):
    begin(of(tiny, MORE, 'bert'), data, tmp_path / 'run')
  with pytest.raises(DriftError, match='optimizer.b1') as caught:
    begin(of(tiny, MORE, 'bert', b1=0.8), data, tmp_path / 'run')
  assert 'run.steps' not in str(caught.value)
  assert not (tmp_path / 'run' / extending.FILE).exists()
  for text in ('{"steps": [3, "x"]}', '[]', '{', '{"steps": []}'):
    (tmp_path / 'run' / extending.FILE).write_text(text)
    with pytest.raises(ConfigError, match=f'{extending.FILE} is damaged'):
      run_directory.read(tmp_path / 'run')
  (tmp_path / 'run' / extending.FILE).write_text(json.dumps({'steps': [FIRST, 99]}))
  assert run_directory.read(tmp_path / 'run').config.run.steps == 99


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.sampled_from(sorted(optimizer.SCHEDULES)), st.integers(4, 400), st.integers(1, 400),
                  st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.0, 0.2]))
def test_what_is_allowed_has_the_same_past(tiny, schedule, steps, more, share_done, share, decay):
  changes = {'decay_share': decay or 0.1} if schedule == 'wsd' else {}
  old, new = (of(tiny, count, schedule, share, **changes) for count in (steps, steps + more))
  done = round(share_done * steps)
  if extending.why_not(old, new, done) is not None:
    assert done and (schedule != 'constant' or share)
    return
  rates = [optimizer.learning_rate(one.optimizer, one.run.steps)(np.arange(max(done, 1))) for one in (old, new)]
  assert done == 0 or np.array_equal(*rates)
  at = [[phases.at(one, step).batch for step in range(1, done + 1)] for one in (old, new)]
  assert at[0] == at[1]

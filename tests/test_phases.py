"""Sequence-length phases: one recipe, two data directories, one run directory."""

import dataclasses

import jax
import numpy as np
import pytest

from bert_jax import config as cfg, evaluate, metrics, phases, recipes, train
from input_pipeline import records
from tests import states, synthetic


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp('phases')
  for length in (16, 32):
    synthetic.write_data(folder / str(length), vocabulary_size=64, pieces=200, documents=20, sequence_length=length,
                         splits=('train', 'validation'))
  return folder


@pytest.fixture
def config(tiny):
  return dataclasses.replace(
      tiny, model=dataclasses.replace(tiny.model, max_positions=32), mesh=cfg.MeshShape(data=1),
      run=cfg.Run(steps=10, log_every=1, seed=3), long=cfg.Long(share=0.4, sequence_length=32, predictions=6, size=8))


def run(config, data, run_dir, stop_at=None):
  stop = lambda step: step == stop_at
  return train.train(config, data, run_dir, devices=jax.devices()[:1], progress=False, stop=stop)


def test_the_papers_recipes_have_two_phases():
  for name, recipe in {**recipes.NAMED, **recipes.BY_SIZE}.items():
    if name not in ('sample', 'proof'):
      short, long = phases.phases(recipe())
      assert (short.first, short.last, short.config.batch.sequence_length) == (0, 900_000, 128)
      assert (long.first, long.last) == (900_000, 1_000_000)
      assert (long.config.batch.sequence_length, long.config.batch.size) == (512, 256)
  assert len(phases.phases(recipes.recipe('sample'))) == 1


def test_each_phase_reads_its_own_data_from_its_first_batch_on(data, config):
  (short, short_stream), (long, long_stream) = phases.open_streams(data, config)
  assert short_stream.batch(0)['input_ids'].shape == (16, 16)
  assert long_stream.batch(long.first)['input_ids'].shape == (8, 32)
  np.testing.assert_array_equal(long_stream.batch(7)['input_ids'], long_stream.rows(8, 16)['input_ids'])
  assert [phases.at(config, step).batch.sequence_length for step in (1, 6, 7, 10)] == [16, 16, 32, 32]


@pytest.mark.parametrize('stop', [pytest.param(5, marks=pytest.mark.slow), 6, pytest.param(8, marks=pytest.mark.slow)])
def test_resuming_before_at_and_behind_the_border_changes_nothing(data, config, tmp_path_factory, stop):
  whole, stopped = (tmp_path_factory.getbasetemp() / name for name in ('straight', f'stopped{stop}'))
  straight = run(config, data, whole)
  run(config, data, stopped, stop)
  resumed = run(config, data, stopped)
  assert resumed.resumed_from == stop and resumed.step == 10
  states.assert_same(resumed.state, straight.state, stopped, whole)
  figures = evaluate.evaluate(stopped, progress=False)
  assert figures['sequences'] == 200 and np.isfinite(figures['mlm_loss'])
  assert len(metrics.read(whole)) == 10


def test_data_of_one_length_for_two_phases_is_refused(data, config, tmp_path):
  with pytest.raises(records.DataError, match='--long-sequence-length 32, or pass --long.share 0'):
    run(config, data / '16', tmp_path / 'run')
  with pytest.raises(records.DataError, match='data for rows of 16 and 32, wanted is data for rows of 24'):
    run(dataclasses.replace(config, long=dataclasses.replace(config.long, sequence_length=24)), data, tmp_path / 'run')
  with pytest.raises(cfg.ConfigError, match='long.sequence_length is 16'):
    dataclasses.replace(config, long=dataclasses.replace(config.long, sequence_length=16))
  assert not (tmp_path / 'run').exists()

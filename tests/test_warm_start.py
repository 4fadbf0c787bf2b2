"""Runs that begin with another's weights: those of the step that config.json says, whatever happened since."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import checkpoint, config as cfg, evaluate, recipes, run_directory, train
from bert_jax.errors import ConfigError, DriftError
from bert_jax.model import layers
from tests import parameters, synthetic

VOCABULARY = 120


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('warm') / 'data', vocabulary_size=VOCABULARY, pieces=200,
                              documents=30, sequence_length=32, splits=('train', 'validation'))


def config(steps=4, **changes):
  return cfg.Config(
      model=recipes.model_of(2, 64, vocab_size=VOCABULARY, dtype='float32', unroll=1, **changes),
      batch=cfg.BatchConfig(size=16, sequence_length=32, predictions=5), mesh=cfg.MeshShape(data=1),
      optimizer=cfg.Optimizer(peak_learning_rate=1e-3, warmup_steps=0), run=cfg.Run(steps=steps, checkpoint_every=2))


def run(settings, data, run_dir, **more):
  return train.train(settings, data, run_dir, progress=False, devices=jax.devices()[:1], **more)


@pytest.fixture(scope='module')
def origin(data, tmp_path_factory):
  run_dir = tmp_path_factory.mktemp('origin') / 'run'
  run(config(steps=4), data, run_dir)
  return run_dir


def assert_equal(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


def killed_before_its_first_save(settings, data, run_dir, **more):
  class Killed(BaseException):
    pass

  def kill(step):
    raise Killed

  with pytest.raises(Killed):
    run(settings, data, run_dir, stop=kill, **more)


def test_a_run_that_died_before_its_first_save_begins_with_the_same_weights(data, origin, tmp_path):
  """Of step 2, which was the newest when the run began, though the origin has gone on to step 4 since."""
  shutil.copytree(origin, tmp_path / 'origin')
  shutil.rmtree(tmp_path / 'origin' / 'checkpoints' / '4')
  wanted = run(config(steps=2), data, tmp_path / 'straight', initialize_from=tmp_path / 'origin').state.params
  killed_before_its_first_save(config(steps=2), data, tmp_path / 'run', initialize_from=tmp_path / 'origin')
  assert run_directory.read(tmp_path / 'run').origin.step == 2
  shutil.copytree(origin / 'checkpoints' / '4', tmp_path / 'origin' / 'checkpoints' / '4')
  assert_equal(run(config(steps=2), data, tmp_path / 'run').state.params, wanted)


def test_where_the_step_is_gone_it_says_so(data, origin, tmp_path):
  shutil.copytree(origin, tmp_path / 'origin')
  step = tmp_path / 'origin' / 'checkpoints' / '2'
  killed_before_its_first_save(config(), data, tmp_path / 'run', initialize_from=step)
  shutil.rmtree(tmp_path / 'origin' / 'checkpoints' / '2')
  with pytest.raises(ConfigError, match='no checkpoint of step 2; it has 4'):
    run(config(), data, tmp_path / 'run')


def test_the_origin_is_the_same_however_it_is_spelled(data, origin, tmp_path, monkeypatch):
  run(config(steps=2), data, tmp_path / 'run', initialize_from=origin)
  monkeypatch.chdir(origin.parent)
  for spelled in ('run', './run/', f'{origin.parent}/../{origin.parent.name}/run'):
    assert run(config(steps=2), data, tmp_path / 'run', initialize_from=spelled).resumed_from == 2
  with pytest.raises(DriftError, match='initialize-from'):
    run(config(steps=2), data, tmp_path / 'run', initialize_from=data)


def test_a_step_is_asked_for_once(origin):
  with pytest.raises(ConfigError, match='is step 2, and step 4 was asked for'):
    checkpoint.load(origin / 'checkpoints' / '2', 4)
  assert checkpoint.load(origin / 'checkpoints' / '2', 2).step == 2


def test_a_run_of_another_chip_is_evaluated_here(data, tmp_path):
  """Its attention is the kernel of a TPU, which this machine has not."""
  there = dataclasses.replace(config(), model=dataclasses.replace(config().model, attention='pallas'))
  parameters.write_run(tmp_path / 'run', there, data)
  assert run_directory.read(tmp_path / 'run').config.model.attention == 'pallas'
  assert 'mlm_loss' in evaluate.evaluate(tmp_path / 'run', data, progress=False)


@pytest.mark.parametrize('axes', [('emebd', 'heads'), ('embed', 'hedas'), ('data', None)])
def test_an_axis_that_no_rule_knows_is_refused(axes):
  """Misspelt, it would be shared out nowhere, without a word."""
  with pytest.raises(ValueError, match='no logical axis'):
    layers.parameter(jnp.zeros((4, 4)), *axes)


def test_other_sizes_are_refused_by_the_setting(data, origin, tmp_path):
  wide = dataclasses.replace(config(), model=dataclasses.replace(config().model, intermediate_size=128))
  with pytest.raises(ConfigError, match='intermediate'):
    run(wide, data, tmp_path / 'run', initialize_from=origin)
  assert not (tmp_path / 'run').exists()


def test_a_larger_vocabulary_and_more_positions(data, origin, tmp_path, capsys):
  """Said in a line each; a run that died before its first save begins in the same way."""
  larger = synthetic.write_data(tmp_path / 'larger', vocabulary_size=VOCABULARY + 9, pieces=200, documents=30,
                                sequence_length=32)
  settings = config(steps=2)
  settings = dataclasses.replace(settings, model=dataclasses.replace(
      settings.model, vocab_size=VOCABULARY + 9, max_positions=700))
  with pytest.raises(ConfigError, match='has 512 positions.*--longer-positions repeat or interpolate, or set --model'):
    run(settings, larger, tmp_path / 'run', initialize_from=origin)
  with pytest.raises(ConfigError, match='repeat changes nothing without --initialize-from'):
    run(settings, larger, tmp_path / 'run', longer_positions='repeat')
  assert not (tmp_path / 'run').exists()
  begin = dict(initialize_from=origin, longer_positions='repeat')
  killed_before_its_first_save(settings, larger, tmp_path / 'run', **begin)
  assert run_directory.read(tmp_path / 'run').origin.longer_positions == 'repeat'
  capsys.readouterr()
  again = train.train(settings, larger, tmp_path / 'run', devices=jax.devices()[:1]).state.params
  told = capsys.readouterr().err
  assert '120 tokens become 129' in told and '512 positions become 700: repeat' in told
  assert_equal(again, run(settings, larger, tmp_path / 'straight', **begin).state.params)
  with pytest.raises(DriftError, match='longer-positions: repeat -> interpolate'):
    run(settings, larger, tmp_path / 'run', initialize_from=origin, longer_positions='interpolate')

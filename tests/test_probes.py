"""Probes on the way of pretraining: what they find is logged, and the training is the same to the last bit."""

import dataclasses
import json

import jax
import pytest

from bert_jax import config as cfg, metrics, probes, recipes, train
from bert_jax.errors import ConfigError
from input_pipeline.errors import DataError
from input_pipeline.vocabulary import tokenizer as tokenizer_lib
from tests import states, synthetic

VOCABULARY = 60


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('probes') / 'data', vocabulary_size=VOCABULARY, pieces=80,
                              documents=20, sequence_length=32, splits=('train', 'validation'))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Minimal pairs, and a task whose classes are a word."""
  return synthetic.write_probed(tmp_path_factory.mktemp('probed'), VOCABULARY)


def config(**probe):
  return cfg.Config(
      model=recipes.model_of(1, 32, vocab_size=VOCABULARY, dtype='float32', heads=2),
      batch=cfg.BatchConfig(size=8, sequence_length=32, predictions=5), mesh=cfg.MeshShape(data=1),
      optimizer=cfg.Optimizer(peak_learning_rate=1e-3, warmup_steps=2), probe=cfg.Probe(**probe),
      run=cfg.Run(steps=4, log_every=1, checkpoint_every=4, evaluate_every=1, evaluation_rows=8))


def asked(folder, **changes):
  return config(**{'every': 2, 'pairs': str(folder / 'pairs.jsonl'), 'task': 'classification', 'data': str(folder),
                   'examples': 8} | changes)


def test_probes_are_logged_and_change_nothing_of_the_training(data, folder, tmp_path, capsys):
  run = lambda settings, name: train.train(settings, data, tmp_path / name, devices=jax.devices()[:1])
  without, probed = run(config(), 'without'), run(asked(folder), 'with')
  states.assert_same(without.state, probed.state, tmp_path / 'without', tmp_path / 'with')
  lines = {name: metrics.read(tmp_path / name) for name in ('without', 'with')}
  losses = {name: [line['loss'] for line in found] for name, found in lines.items()}
  assert losses['without'] == losses['with'] and len(losses['with']) == 8
  found = {line['step']: {name for name in line if name.startswith('probe_')} for line in lines['with']
           if line['kind'] == 'validation'}
  names = {'probe_pairs_accuracy', 'probe_classification_accuracy', 'probe_classification_f1'}
  assert found == {1: set(), 2: names, 3: set(), 4: names}
  values = [line[name] for line in lines['with'] for name in names if name in line]
  assert all(0 <= value <= 1 for value in values)
  assert 'pairs accuracy 0.' in capsys.readouterr().err


@pytest.mark.parametrize('changes, message', [
    ({'every': 0}, 'something is to be probed'), ({'pairs': '', 'task': '', 'data': ''}, 'nothing is to be probed'),
    ({'data': ''}, 'wanted both'), ({'examples': 0}, 'probe.examples is 0')])
def test_settings_that_cannot_work_are_named(folder, changes, message):
  with pytest.raises(ConfigError, match=message):
    asked(folder, **changes)


def test_probes_fall_on_evaluations(folder):
  settings = asked(folder, every=3)
  with pytest.raises(ConfigError, match='probe.every is 3, run.evaluate_every 2: wanted a multiple of it'):
    dataclasses.replace(settings, run=dataclasses.replace(settings.run, evaluate_every=2))


@pytest.mark.parametrize('changes, error, message', [
    ({'task': 'clasification'}, ConfigError, "probe.task is 'clasification'"),
    ({'task': 'regression'}, DataError, "line 1: the label .* is 'a'"),
    ({'pairs': 'nowhere.jsonl'}, DataError, 'nowhere.jsonl'),
    ({'data': 'nowhere'}, ConfigError, 'nowhere does not exist'),
    ({'pairs': 'long'}, ConfigError, 'has 602 tokens')])
def test_what_cannot_be_probed_is_known_before_the_training(data, folder, tmp_path, changes, error, message):
  if changes.get('pairs') == 'long':
    changes = {'pairs': str(tmp_path / 'long.jsonl')}
    (tmp_path / 'long.jsonl').write_text(json.dumps({'sentence_good': '中' * 600, 'sentence_bad': 'a'}) + '\n')
  with pytest.raises(error, match=message):
    probes.beside(lambda state, step: {}, asked(folder, **changes), lambda: tokenizer_lib.load(data, False))

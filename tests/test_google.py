"""Checkpoints of Google's code: read and written to the last bit; what lacks or is strange is named, or refused."""

import dataclasses
import json
import os
import pathlib
import re
import shutil

import jax
import numpy as np
import parameters
import pytest
import synthetic

from bert_jax import config as cfg
from bert_jax.checkpoint import Loaded
from bert_jax.convert import directory, exchange, google
from bert_jax.model.heads import MaskedTokens
from bert_jax.objectives import OBJECTIVES, PRETRAINING_HEADS, Objective
from input_pipeline.vocabulary import tokenizer as tokenizer_lib
from launch import cli

tf = pytest.importorskip('tensorflow')

REAL = pathlib.Path(__file__).parents[1] / '../shared/data/checkpoints/tf1_bert_h4_l2'
MODEL = cfg.Model(vocab_size=40, hidden_size=12, layers=2, heads=2, intermediate_size=20, max_positions=16)


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  folder = tmp_path_factory.mktemp('vocabulary')
  synthetic.write_vocabulary(folder, MODEL.vocab_size)
  return folder


@pytest.fixture(scope='module')
def loaded(vocabulary):
  return Loaded(MODEL, OBJECTIVES['mlm_nsp'], parameters.random(MODEL), lambda: tokenizer_lib.load(vocabulary))


@pytest.fixture
def written(tmp_path, loaded):
  path = google.export_checkpoint(tmp_path / 'google', loaded)
  (path / directory.MARKER).unlink()  # as of others: the files may be changed
  return path


def variables(prefix):
  reader = tf.train.load_checkpoint(str(prefix))
  return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def rewrite(directory, change):
  """`change` edits the variables by name in place."""
  prefix = directory / google.WEIGHTS
  found = variables(prefix)
  change(found)
  tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=list(found), shape_and_slices=[''] * len(found),
                    tensors=[tf.constant(value) for value in found.values()])


def assert_equal(found, wanted):
  jax.tree.map(np.testing.assert_array_equal, dict(found), dict(wanted))


@pytest.fixture
def real():
  if not REAL.exists():
    pytest.skip(f'no {REAL}: the checkpoint of the original code is not here')
  return REAL / 'bert_model.ckpt'


def test_the_original_code_s_checkpoint_there_and_back(real, tmp_path, capsys):
  """Import, export, import: to the last bit, by the commands."""
  run = lambda *argv: cli.run(list(map(str, argv)))
  assert run('import', real, '--output', tmp_path / 'a') == 0
  assert run('export', tmp_path / 'a', '--format', 'tf1', '--output', tmp_path / 'b') == 0
  assert run('import', tmp_path / 'b' / google.WEIGHTS, '--output', tmp_path / 'c') == 0
  said = capsys.readouterr().out
  assert [said.count(part) for part in ('equal to the last bit', 'prediction_logits', 'seq_relationship')] == [3, 3, 3]
  of_them, of_ours = variables(real), variables(tmp_path / 'b' / google.WEIGHTS)
  weights = {name for name in of_them if not name.split('/')[-1].startswith(('adam', 'global_step'))}
  assert len(weights) < len(of_them) and weights == of_ours.keys()
  for name in weights:
    assert of_them[name].tobytes() == of_ours[name].tobytes(), name
  assert (tmp_path / 'a' / 'model.safetensors').read_bytes() == (tmp_path / 'c' / 'model.safetensors').read_bytes()
  assert exchange.load(real).model.activation == 'gelu_tanh'
  assert (tmp_path / 'b' / 'vocab.txt').read_text().split() == (REAL / 'vocab.txt').read_text().split()
  theirs = json.loads((REAL / 'bert_config.json').read_text())
  ours = json.loads((tmp_path / 'b' / 'bert_config.json').read_text())
  assert ours.items() <= theirs.items() and all('pooler_' in name or name == 'directionality'
                                                for name in theirs.keys() - ours.keys())


def test_a_directory_is_as_good_as_a_prefix(written, loaded):
  for path in (written, written / google.WEIGHTS):
    found = exchange.load(path)
    assert_equal(found.params, loaded.params)
    assert found.model == MODEL and found.objective == loaded.objective
    assert found.tokenizer().tokens == loaded.tokenizer().tokens
  (written / 'other.ckpt.index').write_bytes(b'')
  with pytest.raises(cfg.ConfigError, match='is no checkpoint'):
    exchange.load(written)


def test_slots_are_skipped_and_heads_need_not_be_there(written, loaded):
  def change(found):
    for name in list(found):
      found |= {f'{name}/adam_m': found[name], f'{name}/adam_v': found[name]}
      if name.startswith('cls/'):
        del found[name]
    found['global_step'] = np.int64(7)
  rewrite(written, change)
  found = exchange.load(written)
  assert set(found.params) == {'encoder', 'pooler'}
  assert_equal(found.params, {name: loaded.params[name] for name in found.params})
  asked = google.read(written, PRETRAINING_HEADS)
  assert {name.split('/')[0] for name in asked.fresh} == {'masked_tokens', 'pair_classes'}


@pytest.mark.parametrize('labels', [('LABEL_0', 'LABEL_1', 'LABEL_2'), ()])
def test_a_classifier(tmp_path, loaded, labels):
  objective = parameters.task(labels)
  tuned = dataclasses.replace(loaded, objective=objective, params=parameters.random(MODEL, objective.heads))
  path = google.export_checkpoint(tmp_path / 'tuned', tuned)
  assert variables(path / google.WEIGHTS)['output_weights'].shape == (len(labels) or 1, 12)  # [C D], as there
  found = exchange.load(path)
  assert found.labels == labels
  assert_equal(found.params, tuned.params)


def _drop(name):
  return lambda found: found.pop(name)


def _set(name, value):
  return lambda found: found.update({name: value})


@pytest.mark.parametrize('change, match', [
    (_drop('bert/encoder/layer_1/attention/self/query/kernel'), 'lacks bert/encoder/layer_1/.*query/kernel'),
    (_drop('cls/predictions/output_bias'), 'lacks cls/predictions/output_bias: .* of the masked_tokens'),
    (_set('bert/encoder/layer_2/output/dense/bias', np.zeros(12, np.float32)), 'holds bert/encoder/layer_2'),
    (_set('bert/pooler/dense/kernel', np.zeros((12, 11), np.float32)), r'pooler/dense/kernel has the shape \(12, 11\)'),
    (_set('bert/pooler/dense/bias', np.zeros(12, np.int32)), 'is int32')])
def test_what_lacks_or_is_strange_is_named(written, change, match):
  rewrite(written, change)
  with pytest.raises(cfg.DataError, match=match):
    google.read(written)


def test_2_8_each_variable_that_lacks_is_named(written):
  whole = variables(written / google.WEIGHTS)
  for name in whole:
    rewrite(written, lambda found, name=name: (found.update(whole), found.pop(name)))
    with pytest.raises(cfg.DataError, match=re.escape(name)):
      google.read(written)


def test_other_heads_are_named(written, loaded):
  rewrite(written, _set('cls/others/output_weights', np.zeros((2, 12), np.float32)))
  with pytest.warns(UserWarning, match='cls/others/output_weights, of no head'):
    assert_equal(google.read(written).params, loaded.params)


@pytest.mark.parametrize('change, match', [
    ({'activation': 'gelu'}, 'model.activation is gelu'), ({'causal': True}, 'another is_decoder'),
    ({'layer_norm_epsilon': 1e-5}, 'another layer_norm_eps')])
def test_what_google_s_code_cannot_compute_is_not_written(tmp_path, loaded, change, match):
  other = dataclasses.replace(loaded, model=dataclasses.replace(MODEL, **change))
  with pytest.raises(cfg.ConfigError, match=match):
    google.export_checkpoint(tmp_path / 'out', other)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('fields, match', [
    ({'hidden_act': 'relu'}, 'hidden_act'), ({'hidden_size': '12'}, 'hidden_size is'), ({'layers': 3}, None),
    ({'num_hidden_layers': 10**7}, 'num_hidden_layers is 10000000'), ({'vocab_size': 10**12}, 'below 2,147,483,648'),
    ({'hidden_size': 2**30}, 'shape|lacks'), ({'type_vocab_size': 16}, 'shape')])
def test_settings(written, fields, match):
  path = written / google.CONFIG
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))
  if match is None:
    with pytest.warns(UserWarning, match='says layers, which bert_jax does not know'):
      google.read(written)
  else:
    with pytest.raises(cfg.DataError, match=match):
      google.read(written)


def test_damaged_and_hostile_files(written, tmp_path):
  index, data = (written / f'{google.WEIGHTS}.{end}' for end in ('index', 'data-00000-of-00001'))
  for path, content in ((index, b'garbage' * 9), (index, b''), (index, index.read_bytes()[:-20]),
                        (data, data.read_bytes()[:100]), (data, b'')):
    broken = tmp_path / 'broken'
    shutil.copytree(written, broken)
    (broken / path.name).write_bytes(content)
    with pytest.raises(cfg.DataError, match='cannot be read'):
      google.read(broken)
    shutil.rmtree(broken)
  data.unlink()
  os.mkfifo(data)
  with pytest.raises(cfg.DataError, match='is a pipe or a device'):
    exchange.load(written)


def test_a_vocabulary_of_its_own_head(tmp_path, loaded):
  """BertForMaskedLM's heads go there and back too."""
  heads = {'masked_tokens': MaskedTokens}
  only = dataclasses.replace(loaded, objective=Objective({}, heads), params=parameters.random(MODEL, heads))
  found = exchange.load(google.export_checkpoint(tmp_path / 'out', only))
  assert_equal(found.params, only.params)

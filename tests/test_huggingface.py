"""Hugging Face directories: names and shapes, the way there and back, what is refused, and what is never overwritten."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import parameters
import pytest
import safetensors.numpy
import synthetic

from bert_jax import config as cfg
from bert_jax.convert import directory as directory_lib, huggingface, tokenizer_files
from bert_jax.model import bert as model_lib
from input_pipeline import records
from input_pipeline.vocabulary import tokenizer as tokenizer_lib

MODEL = cfg.Model(vocab_size=40, hidden_size=12, layers=3, heads=2, intermediate_size=20, max_positions=16, activation='gelu_tanh')
CARD = huggingface.ModelCard(recipe='tiny', steps=1234, data='Twelve articles.', training={'mlm_loss': 6.54321},
                             evaluation={'mlm_accuracy': 0.25, 'sequences': 7}, settings=cfg.flat(MODEL, 'model.'))


@pytest.fixture(scope='module')
def params():
  return parameters.random(MODEL)


@pytest.fixture
def vocabulary(tmp_path):
  directory = tmp_path / 'vocabulary'
  directory.mkdir()
  synthetic.write_vocabulary(directory, MODEL.vocab_size)
  return directory


@pytest.fixture
def exported(tmp_path, params, vocabulary):
  return huggingface.export_checkpoint(tmp_path / 'export', MODEL, params, vocabulary, CARD)


def rewrite(directory, change):
  """`change` edits the tensors by name in place."""
  path = directory / huggingface.WEIGHTS
  tensors = safetensors.numpy.load(path.read_bytes())
  change(tensors)
  path.write_bytes(safetensors.numpy.save(tensors))


def reconfigure(directory, **fields):
  path = directory / huggingface.CONFIG
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def assert_equal(found, wanted):
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_names_and_shapes(exported, params):
  tensors = safetensors.numpy.load((exported / huggingface.WEIGHTS).read_bytes())
  assert len(tensors) == 5 + 16 * MODEL.layers + 2 + 4 + 1 + 2  # embeddings, layers, pooler, transform, MLM bias, NSP
  assert huggingface.DECODER not in tensors
  assert {x.dtype for x in tensors.values()} == {np.dtype(np.float32)}
  assert tensors['bert.encoder.layer.2.intermediate.dense.weight'].shape == (20, 12)  # [out in]
  np.testing.assert_array_equal(tensors['bert.encoder.layer.2.output.dense.weight'], params['blocks']['output']['kernel'][2].T)
  np.testing.assert_array_equal(tensors['cls.seq_relationship.weight'], params['next_sentence']['kernel'].T)
  assert sum(x.size for x in tensors.values()) == model_lib.parameter_count(params)


@pytest.mark.parametrize('activation', ['gelu', 'gelu_tanh'])
def test_round_trip_is_exact(tmp_path, params, vocabulary, activation):
  model = dataclasses.replace(MODEL, activation=activation)
  path = huggingface.export_checkpoint(tmp_path / 'export', model, params, vocabulary, CARD)
  assert huggingface.is_export(path) and not huggingface.is_export(vocabulary)
  found, back = huggingface.import_checkpoint(path)
  assert found == model
  assert jax.tree.structure(back) == jax.tree.structure(params)
  assert_equal(back, params)


def test_other_names(exported, params):
  """Checkpoints of old versions: gamma and beta, no prefix, a buffer of positions, copies of tied tensors."""
  def age(tensors):
    tensors[huggingface.DECODER] = tensors[huggingface.TABLE].copy()
    tensors[huggingface.DECODER_BIAS] = tensors.pop(huggingface.MLM_BIAS)
    tensors['bert.embeddings.position_ids'] = np.arange(16)[None]
    tensors['classifier.weight'] = np.zeros((2, 12), np.float32)
    for name in list(tensors):
      tensors[name.removeprefix('bert.').replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')
              ] = tensors.pop(name)
  rewrite(exported, age)
  assert_equal(huggingface.import_checkpoint(exported)[1], params)


def test_shards_and_half_precision(exported, params):
  tensors = safetensors.numpy.load((exported / huggingface.WEIGHTS).read_bytes())
  (exported / huggingface.WEIGHTS).unlink()
  names = sorted(tensors)
  where = {name: f'model-0000{1 + i % 2}-of-00002.safetensors' for i, name in enumerate(names)}
  for file in set(where.values()):
    part = {name: tensors[name].astype(jnp.bfloat16) for name in names if where[name] == file}
    (exported / file).write_bytes(safetensors.numpy.save(part))
  (exported / huggingface.INDEX).write_text(json.dumps({'weight_map': where}))
  assert_equal(huggingface.import_checkpoint(exported)[1], jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), params))


def test_missing_heads(exported, params):
  def encoder_only(tensors):
    for name in list(tensors):
      if name.startswith(huggingface.HEADS):
        del tensors[name]
  rewrite(exported, encoder_only)
  with pytest.raises(cfg.DataError, match='no weights for .*--new-heads'):
    huggingface.import_checkpoint(exported)
  _, back = huggingface.import_checkpoint(exported, new_heads=True, seed=3)
  assert_equal(back['blocks'], params['blocks'])
  assert jax.tree.map(jnp.shape, back) == jax.tree.map(jnp.shape, params)
  assert not np.array_equal(back['pooler']['kernel'], params['pooler']['kernel'])
  np.testing.assert_array_equal(back['transform_norm']['scale'], 1)
  assert_equal(back, huggingface.import_checkpoint(exported, new_heads=True, seed=3)[1])


def _drop(name):
  return lambda tensors: tensors.pop(name)


def _set(name, value):
  return lambda tensors: tensors.update({name: value})


QUERY = 'bert.encoder.layer.1.attention.self.query.weight'


@pytest.mark.parametrize('change, match', [
    (_drop(QUERY), 'lacks bert.encoder.layer.1'),
    (_set(QUERY, np.zeros((12, 11), np.float32)), r'shape \(12, 11\).* \(12, 12\)'),
    (_set(QUERY, np.zeros((12, 12), np.int8)), 'quantized|shape'),
    (_set('bert.encoder.layer.3.output.dense.bias', np.zeros(12, np.float32)), 'of 3 layers without'),
    (_set(huggingface.DECODER, np.ones((40, 12), np.float32)), 'differs from')])
def test_bad_weights(exported, change, match):
  rewrite(exported, change)
  with pytest.raises(cfg.DataError, match=match):
    huggingface.import_checkpoint(exported)


@pytest.mark.parametrize('fields, match', [
    ({'model_type': 'roberta'}, "model_type 'roberta'"), ({'position_embedding_type': 'relative_key'}, 'position_embedding_type'),
    ({'hidden_act': 'relu'}, 'hidden_act'), ({'num_attention_heads': 5}, 'multiple'), ({'num_hidden_layers': 2}, 'of 2 layers without'),
    ({'hidden_size': 'x'}, 'no model'), ({'vocab_size': 41}, 'shape')])
def test_bad_config(exported, fields, match):
  reconfigure(exported, **fields)
  with pytest.raises(cfg.DataError, match=match):
    huggingface.import_checkpoint(exported)


def test_damaged_or_pickled(exported):
  (exported / huggingface.WEIGHTS).write_bytes(b'\x08\0\0\0\0\0\0\0garbage!')
  with pytest.raises(cfg.DataError, match='cannot be read'):
    huggingface.import_checkpoint(exported)
  (exported / huggingface.WEIGHTS).rename(exported / 'pytorch_model.bin')
  with pytest.raises(cfg.DataError, match='pickle'):
    huggingface.import_checkpoint(exported)
  with pytest.raises(cfg.DataError, match='config.json cannot be read'):
    huggingface.import_checkpoint(exported / 'nowhere')


def test_vocabulary_of_another_size(tmp_path, params, vocabulary):
  synthetic.write_vocabulary(vocabulary, MODEL.vocab_size + 1)
  with pytest.raises(cfg.ConfigError, match='41 tokens and model.vocab_size is 40'):
    huggingface.export_checkpoint(tmp_path / 'export', MODEL, params, vocabulary, CARD)
  assert [path.name for path in tmp_path.iterdir()] == ['vocabulary']


def test_card(exported):
  text = (exported / 'README.md').read_text()
  assert text.startswith('---\n') and '\n# license:' in text.split('---')[1]
  assert f'# {exported.parent.name}\n' in text
  for part in ('`tiny`, 1,234 steps. Twelve articles.', '| mlm_loss | 6.543 |', '| mlm_accuracy | 0.25 |', '| model.layers | 3 |',
               'Devlin', "AutoTokenizer.from_pretrained", f'{model_lib.parameter_count(huggingface.import_checkpoint(exported)[1]):,}'):
    assert part in text


def test_tokenizer_files(exported, vocabulary):
  tokenizer = tokenizer_files.load(exported)
  assert tokenizer.tokens == tokenizer_lib.load(vocabulary).tokens
  written = json.loads((exported / 'tokenizer.json').read_text())
  assert written['model']['max_input_chars_per_word'] == tokenizer_lib.MAX_WORD
  settings = json.loads((exported / 'tokenizer_config.json').read_text())
  assert settings['model_max_length'] == MODEL.max_positions and settings['mask_token'] == '[MASK]'
  assert settings['do_lower_case'] == tokenizer.lower_case
  (exported / 'vocab.txt').unlink()  # as transformers 5 saves
  assert tokenizer_files.load(exported).tokens == tokenizer.tokens


@pytest.mark.parametrize('lower_case', [False, True])
def test_case_goes_along(tmp_path, params, vocabulary, lower_case):
  """The vocabulary alone does not tell."""
  tokenizer = tokenizer_lib.load(vocabulary, lower_case)
  path = huggingface.export_checkpoint(tmp_path / 'export', MODEL, params, tokenizer, CARD)
  assert tokenizer_files.load(path).lower_case == lower_case

# ---------------------------------------------------------------- what is never overwritten


def test_again_only_if_asked(exported, params, vocabulary, tmp_path):
  other = jax.tree.map(lambda x: x + 1, params)
  with pytest.raises(cfg.ConfigError, match='--overwrite'):
    huggingface.export_checkpoint(exported, MODEL, other, vocabulary, CARD)
  assert_equal(huggingface.import_checkpoint(exported)[1], params)
  huggingface.export_checkpoint(exported, MODEL, other, vocabulary, CARD, overwrite=True)
  assert_equal(huggingface.import_checkpoint(exported)[1], other)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['export', 'vocabulary']


def test_what_is_not_ours_stays(exported, params, vocabulary, tmp_path):
  (exported / 'notes.txt').write_text('mine')
  with pytest.raises(cfg.ConfigError, match='notes.txt'):
    huggingface.export_checkpoint(exported, MODEL, params, vocabulary, CARD, overwrite=True)
  with pytest.raises(cfg.ConfigError, match='is not a huggingface export'):
    huggingface.export_checkpoint(vocabulary, MODEL, params, vocabulary, CARD, overwrite=True)
  with pytest.raises(cfg.ConfigError, match='is a file'):
    huggingface.export_checkpoint(vocabulary / records.VOCABULARY, MODEL, params, vocabulary, CARD, overwrite=True)
  assert [path.name for path in vocabulary.iterdir()] == [records.VOCABULARY]
  (tmp_path / 'empty').mkdir()
  huggingface.export_checkpoint(tmp_path / 'empty', MODEL, params, vocabulary, CARD)


def test_a_failed_export_leaves_the_old_one(exported, params, monkeypatch, tmp_path):
  before = sorted((path.name, path.read_bytes()) for path in exported.iterdir())
  with pytest.raises(TypeError):
    directory_lib.write(exported, huggingface.KIND, {'config.json': b'{}', 'model.safetensors': None}, overwrite=True)
  rename = type(exported).rename
  monkeypatch.setattr(type(exported), 'rename', lambda self, target: rename(self, target) if '.tmp' not in self.name else 1 / 0)
  with pytest.raises(ZeroDivisionError):
    directory_lib.write(exported, huggingface.KIND, {'config.json': b'{}'}, overwrite=True)
  assert sorted((path.name, path.read_bytes()) for path in exported.iterdir()) == before
  assert sorted(path.name for path in tmp_path.iterdir()) == ['export', 'vocabulary']

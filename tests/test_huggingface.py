"""Hugging Face directories: names and shapes, the way there and back, what is refused, what is never overwritten."""

import dataclasses
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import parameters
import pytest
import safetensors.numpy
import synthetic
from flax import nnx

from bert_jax import config as cfg
from bert_jax.checkpoint import Loaded
from bert_jax.convert import directory as directory_lib, huggingface, tokenizer_files, weights
from bert_jax.convert.card import ModelCard
from bert_jax.fields import flat
from bert_jax.model import build
from bert_jax.model.encoder import ENCODERS, BertEncoder, Block
from bert_jax.model.layers import LayerMaker, parameter
from bert_jax.objectives import OBJECTIVES, PRETRAINING_HEADS, Objective
from input_pipeline import records
from input_pipeline.vocabulary import tokenizer as tokenizer_lib

MODEL = cfg.Model(vocab_size=40, hidden_size=12, layers=3, heads=2, intermediate_size=20, max_positions=16,
                  activation='gelu_tanh')
CARD = ModelCard(steps=1234, data='Twelve articles.', origin='It began with random parameters.',
                 training={'mlm_loss': 6.54321},
                 evaluation={'mlm_accuracy': 0.25, 'sequences': 7}, settings=flat(MODEL, 'model.'))
TABLE, DECODER = 'bert.embeddings.word_embeddings.weight', 'cls.predictions.decoder.weight'
MLM_BIAS, DECODER_BIAS = 'cls.predictions.bias', 'cls.predictions.decoder.bias'


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
def loaded(params, vocabulary):
  return Loaded(MODEL, OBJECTIVES['mlm_nsp'], params, lambda: tokenizer_lib.load(vocabulary))


@pytest.fixture
def exported(tmp_path, loaded):
  return huggingface.export_checkpoint(tmp_path / 'export', loaded, CARD)


@pytest.fixture
def of_others(exported):
  """An export without the list of what we wrote, so that its files may be others."""
  (exported / directory_lib.MARKER).unlink()
  return exported


def rewrite(directory, change):
  """`change` edits the tensors by name in place."""
  path = directory / weights.WEIGHTS
  tensors = safetensors.numpy.load(path.read_bytes())
  change(tensors)
  path.write_bytes(safetensors.numpy.save(tensors))


def reconfigure(directory, **fields):
  path = directory / huggingface.CONFIG
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def assert_equal(found, wanted):
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_names_and_shapes(exported, params):
  tensors = safetensors.numpy.load((exported / weights.WEIGHTS).read_bytes())
  assert len(tensors) == 5 + 16 * MODEL.layers + 2 + 4 + 1 + 2  # embeddings, layers, pooler, transform, MLM bias, NSP
  assert DECODER not in tensors
  assert {x.dtype for x in tensors.values()} == {np.dtype(np.float32)}
  assert tensors['bert.encoder.layer.2.intermediate.dense.weight'].shape == (20, 12)  # [out in]
  last = params['encoder']['blocks']['output']['kernel'][2]
  np.testing.assert_array_equal(tensors['bert.encoder.layer.2.output.dense.weight'], last.T)
  np.testing.assert_array_equal(tensors['cls.seq_relationship.weight'], params['pair_classes']['dense']['kernel'].T)
  assert sum(x.size for x in tensors.values()) == build.parameter_count(params)


@pytest.mark.parametrize('activation', ['gelu', 'gelu_tanh'])
def test_round_trip_is_exact(tmp_path, loaded, vocabulary, activation):
  model = dataclasses.replace(MODEL, activation=activation)
  path = huggingface.export_checkpoint(tmp_path / 'export', dataclasses.replace(loaded, model=model), CARD)
  assert huggingface.is_export(path) and not huggingface.is_export(vocabulary)
  back = huggingface.read(path)
  assert back.model == model and back.fresh == () and back.objective == OBJECTIVES['mlm_nsp']
  assert jax.tree.structure(back.params) == jax.tree.structure(loaded.params)
  assert_equal(back.params, loaded.params)


@pytest.mark.parametrize('labels', [('no', 'yes', 'perhaps'), ()])
def test_a_fine_tuned_model(tmp_path, loaded, labels):
  objective = parameters.task(labels)
  tuned = dataclasses.replace(loaded, objective=objective, params=parameters.random(MODEL, objective.heads),
                              labels=labels)
  path = huggingface.export_checkpoint(tmp_path / 'tuned', tuned, dataclasses.replace(CARD, kind='finetuned'))
  fields = json.loads((path / huggingface.CONFIG).read_text())
  assert fields['architectures'] == ['BertForSequenceClassification']
  assert fields['problem_type'] == ('single_label_classification' if labels else 'regression')
  assert [fields['id2label'][str(i)] for i in range(len(labels) or 1)] == list(labels or ('LABEL_0',))
  assert all(fields['id2label'][str(i)] == label for label, i in fields['label2id'].items())
  assert_equal(huggingface.read(path, objective.heads).params, tuned.params)
  own = huggingface.read(path)  # whichever heads are there
  assert own.fresh == () and own.labels == labels
  assert_equal(own.params, tuned.params)
  pretraining = huggingface.read(path, PRETRAINING_HEADS)
  assert {name.split('/')[0] for name in pretraining.fresh} == {'masked_tokens', 'pair_classes'}
  assert_equal(pretraining.params['pooler'], tuned.params['pooler'])
  other = huggingface.read(path, parameters.task('abcd').heads)  # a classifier of other classes is another
  assert other.fresh == ('classifier/dense/bias', 'classifier/dense/kernel')
  assert other.params['classifier']['dense']['bias'] is None


def test_other_names(of_others, params):
  """Checkpoints of old versions: gamma and beta, no prefix, a buffer of positions, copies of tied tensors."""
  def age(tensors):
    tensors[DECODER] = tensors[TABLE].copy()
    tensors[DECODER_BIAS] = tensors.pop(MLM_BIAS)
    tensors['bert.embeddings.position_ids'] = np.arange(16)[None]
    tensors['classifier.weight'] = np.zeros((2, 12), np.float32)
    for name in list(tensors):
      old = name.removeprefix('bert.')
      old = old.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')
      tensors[old] = tensors.pop(name)
  rewrite(of_others, age)
  with pytest.warns(UserWarning, match='classifier.weight, of no head that bert_jax has'):
    assert_equal(huggingface.read(of_others).params, params)


def test_shards_and_half_precision(of_others, params):
  tensors = safetensors.numpy.load((of_others / weights.WEIGHTS).read_bytes())
  (of_others / weights.WEIGHTS).unlink()
  names = sorted(tensors)
  where = {name: f'model-0000{1 + i % 2}-of-00002.safetensors' for i, name in enumerate(names)}
  for file in set(where.values()):
    part = {name: tensors[name].astype(jnp.bfloat16) for name in names if where[name] == file}
    (of_others / file).write_bytes(safetensors.numpy.save(part))
  (of_others / weights.INDEX).write_text(json.dumps({'weight_map': where}))
  assert_equal(huggingface.read(of_others).params,
               jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(np.float32), params))


@pytest.mark.parametrize('bare', [False, True])
@pytest.mark.parametrize('lost, fresh', [
    (('cls.', 'bert.pooler.'), {'pooler', 'masked_tokens', 'pair_classes'}),
    (('cls.',), {'masked_tokens', 'pair_classes'}),
    (('cls.seq_relationship', 'bert.pooler.'),
     {'pooler', 'pair_classes'})])  # BertModel without and with its pooler, BertForMaskedLM
def test_missing_heads_are_named(of_others, params, lost, fresh, bare):
  def drop(tensors):
    for name in list(tensors):
      value = tensors.pop(name)
      if not name.startswith(lost):
        tensors[name.removeprefix('bert.') if bare else name] = value
  rewrite(of_others, drop)
  assert_equal(dict(huggingface.read(of_others).params), {name: params[name] for name in params if name not in fresh})
  found = huggingface.read(of_others, PRETRAINING_HEADS)
  assert {name.split('/')[0] for name in found.fresh} == fresh
  for head, values in params.items():
    if head in fresh:
      assert found.params[head] and not jax.tree.leaves(found.params[head])  # None in place of each array
    else:
      assert_equal(found.params[head], values)


def _drop(name):
  return lambda tensors: tensors.pop(name)


def _set(name, value):
  return lambda tensors: tensors.update({name: value})


QUERY = 'bert.encoder.layer.1.attention.self.query.weight'


@pytest.mark.parametrize('change, match', [
    (_drop(QUERY), 'lacks bert.encoder.layer.1'),
    (_drop('cls.seq_relationship.bias'), 'lacks cls.seq_relationship.bias'),
    (_set(QUERY, np.zeros((12, 11), np.float32)), r'shape \(12, 11\).* \(12, 12\)'),
    (_set(QUERY, np.zeros((12, 12), np.int8)), 'quantized|shape'),
    (_set('bert.encoder.layer.3.output.dense.bias', np.zeros(12, np.float32)), 'describes a BERT without'),
    (_set(DECODER, np.ones((40, 12), np.float32)), 'differs from')])
def test_bad_weights(of_others, change, match):
  rewrite(of_others, change)
  with pytest.raises(cfg.DataError, match=match):
    huggingface.read(of_others)


@pytest.mark.parametrize('fields, match', [
    ({'model_type': 'roberta'}, "model_type 'roberta'"),
    ({'position_embedding_type': 'relative_key'}, 'position_embedding_type'),
    ({'hidden_act': 'relu'}, 'hidden_act'), ({'num_attention_heads': 5}, 'multiple'),
    ({'num_hidden_layers': 2}, 'describes a BERT without'),
    ({'hidden_size': 'x'}, 'hidden_size is'), ({'vocab_size': 41}, 'shape'), ({'hidden_size': '12'}, 'whole number'),
    ({'hidden_size': 12.0}, 'whole number'), ({'num_hidden_layers': True}, 'whole number'),
    ({'num_attention_heads': None}, 'whole number'),
    ({'num_hidden_layers': 10**8}, 'num_hidden_layers'), ({'vocab_size': 10**12}, 'whole number'),
    ({'hidden_size': 0}, 'at least 1'),
    ({'type_vocab_size': -1}, 'at least 1'), ({'layer_norm_eps': 'small'}, 'a finite number'),
    ({'initializer_range': float('nan')}, 'a finite number'),
    ({'hidden_dropout_prob': 1.5}, 'hidden_dropout'), ({'is_decoder': 'yes'}, 'True or False'),
    ({'hidden_act': ['gelu']}, 'hidden_act'),
    ({'model_type': ['bert']}, 'model_type'), ({'quantization_config': {'bits': 4}}, 'quantization_config')])
def test_bad_config(of_others, fields, match):
  reconfigure(of_others, **fields)
  with pytest.raises(cfg.DataError, match=match):
    huggingface.read(of_others)


@pytest.mark.parametrize('content, what',
                         [(pickle.dumps([1.0]), 'pickle'),
                          (b'version https://git-lfs.github.com/spec/v1', 'git lfs pull')])
def test_weights_that_are_something_else(of_others, content, what):
  (of_others / weights.WEIGHTS).write_bytes(content)
  with pytest.raises(cfg.DataError, match=what):
    huggingface.read(of_others)


@pytest.mark.parametrize('content', [
    b'', b'\x08\0\0\0\0\0\0\0garbage!', pickle.dumps({'weights': [1.0]}), b'PK\x03\x04' + bytes(60), b'\xff' * 64,
    b'\x02\0\0\0\0\0\0\0[]', b'<html>not found</html>'])
def test_weights_that_are_none(of_others, content):
  (of_others / weights.WEIGHTS).write_bytes(content)
  with pytest.raises(cfg.DataError, match='model.safetensors cannot be read|has num_hidden_layers'):
    huggingface.read(of_others)


def test_pickles_stay_closed(of_others):
  (of_others / weights.WEIGHTS).rename(of_others / 'pytorch_model.bin')
  with pytest.raises(cfg.DataError, match='pickle'):
    huggingface.read(of_others)


@pytest.mark.parametrize('weight_map', [None, [], {'a': '../../secret'}, {'a': 3}, {'a': '/etc/passwd'}])
def test_an_index_names_files_of_its_directory(of_others, weight_map):
  (of_others / weights.WEIGHTS).rename(of_others / 'part.safetensors')
  (of_others / weights.INDEX).write_text(json.dumps({'weight_map': weight_map}))
  with pytest.raises(cfg.DataError, match='weight_map'):
    huggingface.read(of_others)


@pytest.mark.parametrize('content', [b'', b'[]', b'3', b'\xff\xfe', b'{"model_type": "bert"', b'[' * 100_000])
def test_settings_that_are_none(of_others, content):
  (of_others / huggingface.CONFIG).write_bytes(content)
  assert not huggingface.is_export(of_others)
  with pytest.raises(cfg.DataError, match='config.json (cannot be read|holds)'):
    huggingface.read(of_others)


@pytest.mark.parametrize('file, content', [
    ('tokenizer.json', {'model': {'type': 'WordPiece', 'vocab': ['a', 'b']}}),
    ('tokenizer.json', {'model': {'type': 'WordPiece', 'vocab': {'a': 'x'}}}),
    ('tokenizer.json', {'model': []}), ('tokenizer.json', {'model': {'type': 'WordPiece', 'vocab': {'a': 0, 'b': 7}}}),
    ('tokenizer_config.json', {'do_lower_case': 'maybe'}), ('tokenizer_config.json', '{')])
def test_a_tokenizer_that_is_none(of_others, file, content):
  (of_others / 'vocab.txt').unlink()
  (of_others / file).write_text(content if isinstance(content, str) else json.dumps(content))
  with pytest.raises(cfg.DataError):
    tokenizer_files.load(of_others)


def test_vocabulary_of_another_size(tmp_path, loaded, vocabulary):
  synthetic.write_vocabulary(vocabulary, MODEL.vocab_size + 1)
  with pytest.raises(cfg.ConfigError, match='41 tokens and model.vocab_size is 40'):
    huggingface.export_checkpoint(tmp_path / 'export', loaded, CARD)
  assert [path.name for path in tmp_path.iterdir()] == ['vocabulary']


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
def test_case_goes_along(tmp_path, loaded, vocabulary, lower_case):
  """The vocabulary alone does not tell."""
  tokenizer = tokenizer_lib.load(vocabulary, lower_case)
  path = huggingface.export_checkpoint(tmp_path / 'export', dataclasses.replace(loaded, tokenizer=lambda: tokenizer),
                                       CARD)
  assert tokenizer_files.load(path).lower_case == lower_case

# ---------------------------------------------------------------- what is never overwritten


def test_again_only_if_asked(exported, loaded, tmp_path):
  other = dataclasses.replace(loaded, params=jax.tree.map(lambda x: x + 1, loaded.params))
  with pytest.raises(cfg.ConfigError, match='overwrite=True'):
    huggingface.export_checkpoint(exported, other, CARD)
  assert_equal(huggingface.read(exported).params, loaded.params)
  huggingface.export_checkpoint(exported, other, CARD, overwrite=True)
  assert_equal(huggingface.read(exported).params, other.params)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['export', 'vocabulary']


def test_what_is_not_ours_stays(exported, loaded, vocabulary, tmp_path):
  export = lambda path: huggingface.export_checkpoint(path, loaded, CARD, overwrite=True)
  (exported / 'notes.txt').write_text('mine')
  with pytest.raises(cfg.ConfigError, match='notes.txt'):
    export(exported)
  with pytest.raises(cfg.ConfigError, match='is not a huggingface export'):
    export(vocabulary)
  with pytest.raises(cfg.ConfigError, match='is a file'):
    export(vocabulary / records.VOCABULARY)
  assert [path.name for path in vocabulary.iterdir()] == [records.VOCABULARY]
  (tmp_path / 'empty').mkdir()
  export(tmp_path / 'empty')


def test_a_failed_export_leaves_the_old_one(exported, params, monkeypatch, tmp_path):
  before = sorted((path.name, path.read_bytes()) for path in exported.iterdir())
  with pytest.raises(TypeError):
    directory_lib.write(exported, huggingface.KIND, {'config.json': b'{}', 'model.safetensors': None}, overwrite=True)
  rename = type(exported).rename
  cut_off = lambda self, target: rename(self, target) if '.tmp' not in self.name else 1 / 0
  monkeypatch.setattr(type(exported), 'rename', cut_off)
  with pytest.raises(ZeroDivisionError):
    directory_lib.write(exported, huggingface.KIND, {'config.json': b'{}'}, overwrite=True)
  assert sorted((path.name, path.read_bytes()) for path in exported.iterdir()) == before
  assert sorted(path.name for path in tmp_path.iterdir()) == ['export', 'vocabulary']

# ---------------------------------------------------------------- what is added elsewhere


class Spans(nnx.Module):
  """A head with names of its own, as a task adds one."""
  NAMES = {'huggingface': {'dense': 'qa_outputs', 'scale': 'qa_scale'}}

  def __init__(self, settings, rngs):
    self.dense = LayerMaker(settings, rngs).linear(settings.hidden_size, 2, ('embed', None))
    self.scale = parameter(jnp.ones((2,)), None)


class GatedBlock(Block):
  def __init__(self, settings, rngs):
    super().__init__(settings, rngs)
    self.gate = LayerMaker(settings, rngs).linear(settings.hidden_size, settings.intermediate_size, ('embed', 'mlp'))


class GatedEncoder(BertEncoder):
  """An architecture that differs in its layers."""
  NAMES = {'huggingface': BertEncoder.NAMES['huggingface'] | {'blocks/gate': 'bert.encoder.layer.{}.gate.dense'}}
  TYPES = {'huggingface': 'gated'}
  block = staticmethod(GatedBlock)


def test_a_head_and_an_encoder_that_are_added(tmp_path, loaded, monkeypatch):
  monkeypatch.setitem(ENCODERS, 'gated', GatedEncoder)
  model = dataclasses.replace(MODEL, architecture='gated')
  objective = Objective({}, {'spans': Spans}, huggingface='BertForQuestionAnswering')
  made = dataclasses.replace(loaded, model=model, objective=objective, params=parameters.random(model, objective.heads))
  path = huggingface.export_checkpoint(tmp_path / 'export', made)
  tensors = safetensors.numpy.load((path / weights.WEIGHTS).read_bytes())
  assert tensors['qa_outputs.weight'].shape == (2, 12) and tensors['qa_scale'].shape == (2,)
  np.testing.assert_array_equal(tensors['bert.encoder.layer.1.gate.dense.weight'],
                                made.params['encoder']['blocks']['gate']['kernel'][1].T)
  back = huggingface.read(path, objective.heads)
  assert back.model == model and back.fresh == ()
  assert_equal(back.params, made.params)
  (path / directory_lib.MARKER).unlink()
  reconfigure(path, model_type='bert')
  with pytest.raises(cfg.DataError, match='holds .*gate'):
    huggingface.read(path)


def test_a_class_without_names_is_refused_by_its_name(tmp_path, loaded):
  class Nameless(Spans):
    NAMES = {}

  objective = Objective({}, {'spans': Nameless})
  made = dataclasses.replace(loaded, objective=objective, params=parameters.random(MODEL, objective.heads))
  with pytest.raises(cfg.ConfigError, match=r"Nameless has no name .* add one to Nameless.NAMES\['huggingface'\]"):
    huggingface.export_checkpoint(tmp_path / 'export', made)
  assert not (tmp_path / 'export').exists()

"""`bert_jax.load`: the model's own vectors, whatever runs beside a text, on one device or many; light to import."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import parameters
import pytest
import synthetic
from flax import nnx

import bert_jax
from bert_jax import config as cfg, features, rows, text_encoder
from bert_jax.checkpoint import Loaded
from bert_jax.convert import huggingface
from bert_jax.model import build
from bert_jax.objectives import OBJECTIVES, PRETRAINING_HEADS, Objective
from input_pipeline.vocabulary import tokenizer as tokenizer_lib

MODEL = cfg.Model(vocab_size=60, hidden_size=16, layers=2, heads=2, intermediate_size=32, max_positions=64,
                  initializer_range=0.3)
ROOT = pathlib.Path(bert_jax.__file__).parents[1]
TEXTS = ['T5 T6', 'T8', 'T9t11 T10 T12', ' '.join(['T20'] * 40), '', ('T5 T6', 'T13 T14'), 'T30 ' * 13, 'T5',
         ('T5', 'T6 ' * 30)]
POOLINGS = ('mean', 'cls', 'pooled', 'none')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  directory = tmp_path_factory.mktemp('front')
  (directory / 'vocabulary').mkdir()
  synthetic.write_vocabulary(directory / 'vocabulary', MODEL.vocab_size)
  return directory


def write(folder, name, objective, model=MODEL):
  tokenizer = lambda: tokenizer_lib.load(folder / 'vocabulary', lower_case=False)
  loaded = Loaded(model, objective, parameters.random(model, objective.heads), tokenizer)
  huggingface.export_checkpoint(folder / name, loaded)
  return folder / name


@pytest.fixture(scope='module')
def directory(folder):
  return write(folder, 'whole', OBJECTIVES['mlm_nsp'])


@pytest.fixture(scope='module')
def encoder(directory):
  return bert_jax.load(directory)


@pytest.fixture(scope='module')
def vectors(encoder):
  return {pooling: encoder.encode(TEXTS, pooling) for pooling in POOLINGS}


def test_vectors_are_the_models(encoder, vectors):
  """Computed text by text, without padding, by the model itself."""
  graphdef, _, _ = build.describe(encoder.settings, PRETRAINING_HEADS)

  @jax.jit
  def run(params, batch):
    model = nnx.merge(graphdef, params)
    hidden = model.encoder(batch)
    return hidden[0], model.pooler(hidden, jnp.zeros((1, 1), jnp.int32))[0, 0]

  for i in (0, 2, 5):
    text = TEXTS[i]
    tokenizer = encoder.tokenizer
    parts = tokenizer.encode([text] if isinstance(text, str) else list(text))
    ids = [tokenizer.cls_id, *parts[0], tokenizer.sep_id, *([*parts[1], tokenizer.sep_id] if len(parts) > 1 else [])]
    types = [0] * (len(parts[0]) + 2) + [1] * (len(ids) - len(parts[0]) - 2)
    batch = {'input_ids': ids, 'token_type_ids': types, 'position_ids': range(len(ids)), 'pair_ids': [1] * len(ids)}
    hidden, pooled = map(np.asarray,
                         run(encoder.params, {name: np.array([values], np.int32) for name, values in batch.items()}))
    for pooling, wanted in (('none', hidden), ('cls', hidden[0]), ('mean', hidden.mean(0)), ('pooled', pooled)):
      np.testing.assert_allclose(vectors[pooling][i], wanted, atol=5e-6)


def test_shapes_and_types(vectors):
  for pooling in ('mean', 'cls', 'pooled'):
    assert vectors[pooling].shape == (len(TEXTS), 16) and vectors[pooling].dtype == np.float32
  assert [len(found) for found in vectors['none']] == [4, 3, 6, 42, 2, 7, 15, 3, 34]
  assert all(found.dtype == np.float32 and found.shape[1:] == (16,) for found in vectors['none'])
  assert bert_jax.TextEncoder is text_encoder.TextEncoder and set(bert_jax.__all__) <= set(dir(bert_jax))


def test_nothing_to_encode(encoder):
  assert encoder.encode([]).shape == (0, 16) and encoder.encode([], 'none') == []
  assert encoder.batch([])['input_ids'].shape == (0, 16)


@pytest.mark.parametrize('pooling', POOLINGS)
def test_neighbours_order_and_batch_size_have_no_influence(encoder, vectors, pooling):
  order = [3, 8, 0, 7, 1, 6, 2, 5, 4]
  for size in (1, 4):
    for i, found in zip(order, encoder.encode([TEXTS[i] for i in order], pooling, batch_size=size)):
      np.testing.assert_allclose(found, vectors[pooling][i], atol=2e-6)


@pytest.mark.parametrize('pooling', POOLINGS)
def test_many_devices_find_what_one_finds(directory, vectors, pooling):
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ('rows', 'columns'))
  for encoder in (bert_jax.load(directory, devices=jax.devices()), bert_jax.load(directory, mesh=mesh)):
    for found, wanted in zip(encoder.encode(TEXTS, pooling, batch_size=4), vectors[pooling]):
      np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_each_device_has_its_own_rows(directory):
  encoder = bert_jax.load(directory, devices=jax.devices()[:4])
  assert len(jax.tree.leaves(encoder.params)[0].sharding.device_set) == 4
  lowered = rows.outputs.lower(features.states((-1,), 'mean'), encoder.settings, encoder.mesh,
                               {'encoder': encoder.params['encoder']}, encoder.batch(['T5'] * 8))
  text = lowered.compile().as_text()
  assert not re.search(r'all-(reduce|gather|to-all)|collective-permute', text)
  assert 's32[2,16]' in text and 's32[8,16]' not in text


def test_few_compilations(encoder):
  rows.outputs.clear_cache()
  rng = np.random.default_rng(0)
  texts = ['T5 ' * int(n) for n in rng.integers(1, 60, 300)]
  assert encoder.encode(texts, batch_size=8).shape == (300, 16)
  assert rows.outputs._cache_size() == 5  # rows of 16, 24, 32, 48 and 64 tokens


def test_a_bar_changes_nothing(encoder, vectors, capsys):
  np.testing.assert_array_equal(encoder.encode(TEXTS, progress=True), vectors['mean'])
  assert 'text' in capsys.readouterr().err

# ---------------------------------------------------------------- a person's own program


def test_apply_is_pure(encoder, vectors):
  """No array is closed over; it goes through jit, grad and vmap; padding has no influence."""
  batch = encoder.batch(TEXTS)
  assert not jax.make_jaxpr(encoder.apply)(encoder.params, batch).consts
  hidden = jax.jit(encoder.apply)(encoder.params, batch)
  assert hidden.shape == (len(TEXTS), 64, 16) and hidden.dtype == jnp.float32
  for found, wanted in zip(hidden, vectors['none']):
    np.testing.assert_allclose(found[:len(wanted)], wanted, atol=5e-6)
  doubled = jax.jit(jax.vmap(encoder.apply, (None, 0)))(encoder.params, jax.tree.map(lambda x: np.stack([x, x]), batch))
  np.testing.assert_allclose(doubled[1], hidden, atol=5e-6)
  other = jax.tree.map(lambda x: x * 1.5, encoder.params)
  assert np.abs(jax.jit(encoder.apply)(other, batch) - hidden).max() > 0.1


def test_gradients_go_to_what_was_read(encoder):
  batch = encoder.batch(['T5 T6'])
  gradient = jax.jit(jax.grad(lambda params: encoder.apply(params, batch)[:, 0].sum()))(encoder.params)
  table = np.asarray(gradient['encoder']['word_embeddings']['embedding'])
  assert set(np.flatnonzero(np.abs(table).sum(1))) == set(batch['input_ids'][0, :4].tolist())
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient['masked_tokens']))


def test_the_dtype_that_is_asked_for(directory, vectors):
  encoder = bert_jax.load(directory, dtype='bfloat16')
  found = encoder.encode(TEXTS)
  assert encoder.apply(encoder.params, encoder.batch(['T5'])).dtype == jnp.bfloat16 and found.dtype == np.float32
  assert 1e-4 < np.abs(found - vectors['mean']).max() < 0.2

# ---------------------------------------------------------------- masks, runs, errors


def test_masks(encoder):
  found = encoder.fill_mask('T5 [MASK] T6 [MASK]', top_k=3)
  assert [len(candidates) for candidates in found] == [3, 3] and isinstance(found[0][0][0], str)
  assert encoder.fill_mask(['T5 [MASK] T6 [MASK]'], top_k=3)[0] == found


def test_a_run(folder):
  config = cfg.Config(model=MODEL, batch=cfg.BatchConfig(sequence_length=64))
  params = parameters.write_run(folder / 'run', config, folder / 'vocabulary', steps=(2, 5))
  for path in (folder / 'run', folder / 'run' / 'checkpoints' / '2'):
    encoder = bert_jax.load(path)
    jax.tree.map(np.testing.assert_array_equal, encoder.params['encoder'], params['encoder'])
    assert encoder.encode(['T5 T6'], 'pooled').shape == (1, 16) and encoder.fill_mask('[MASK]')


@pytest.mark.parametrize('call, match', [
  (lambda e: e.encode('T5'), 'one text: wanted a sequence'), (lambda e: e.batch('T5'), 'one text: wanted a sequence'),
  (lambda e: e.encode(['T5'], 'max'), "pooling is 'max': wanted one of mean, cls, pooled, none"),
  (lambda e: e.encode(['T5 ' * 70]), '72 tokens .* takes 64 .*truncate=True'),
    (lambda e: e.encode(['T5'], batch_size=0), 'batch_size'),
  (lambda e: e.encode([3]), 'no text, nor a pair'), (lambda e: e.encode([('T5', 'T6', 'T7')]), 'no text, nor a pair'),
  (lambda e: e.batch(['T5 T6'], length=3), 'length is 3: wanted 4'), (lambda e: e.batch(['T5'], length=65), 'to 64'),
  (lambda e: e.fill_mask('T5'), 'has no .MASK.')])
def test_errors(encoder, call, match):
  with pytest.raises(cfg.ConfigError, match=match):
    call(encoder)


def test_long_texts_are_cut_where_that_is_asked_for(encoder):
  long, short = 'T5 T6 ' * 50, 'T8 T9'
  found = encoder.encode([long, (long, short), (long, long)], 'none', truncate=True)
  assert list(map(len, found)) == [64, 64, 64]
  (ids, _), (pair, types) = encoder.ids([long, (long, short)], truncate=True)
  assert ids[-1] == pair[-1] == encoder.tokenizer.sep_id
  assert encoder.tokenizer.decode(pair[types == 1][:-1]) == short  # the longer one lost its end


def test_heads_that_are_not_there(folder):
  bare = bert_jax.load(write(folder, 'bare', Objective({}, {})))
  assert bare.encode(['T5']).shape == (1, 16)
  with pytest.raises(cfg.ConfigError, match="no pooler: use pooling 'cls' or 'mean'"):
    bare.encode(['T5'], 'pooled')
  with pytest.raises(cfg.ConfigError, match='no head for masked tokens'):
    bare.fill_mask('[MASK]')


def test_where_it_cannot_run(directory, folder):
  with pytest.raises(cfg.ConfigError, match='both devices and mesh'):
    bert_jax.load(directory, devices=jax.devices(), mesh=jax.sharding.Mesh(jax.devices()[:1], ('x',)))
  with pytest.raises(cfg.ConfigError, match='0 devices were given'):
    bert_jax.load(directory, devices=[])
  with pytest.raises(cfg.ConfigError, match='does not exist'):
    bert_jax.load(folder / 'nowhere')
  with pytest.raises(AttributeError, match='encoder'):
    bert_jax.encoder  # noqa: B018


def python(*argv):
  done = subprocess.run([sys.executable, *argv], cwd=ROOT, env=dict(os.environ, PYTHONPATH=str(ROOT)),
                        capture_output=True, text=True,
                        timeout=300)
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


def test_it_is_light_to_import(directory):
  code = ('import sys, bert_jax; assert "jax" not in sys.modules; '
          f'bert_jax.load({str(directory)!r}).encode(["T5"]); print(*sys.modules)')
  loaded = python('-c', code).split()
  assert 'jax' in loaded and not {'tensorflow', 'torch', 'transformers', 'tyro', 'tqdm'} & set(loaded)


@pytest.mark.parametrize('example, wanted', [('features.py', 'tokens: '), ('own_jit.py', '[CLS]')])
def test_examples(directory, example, wanted):
  path = ROOT / 'examples' / example
  assert 20 <= len(path.read_text().splitlines()) <= 40
  assert wanted in python(str(path), str(directory))

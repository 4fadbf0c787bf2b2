"""Masks are filled with the model's likeliest tokens: whatever runs beside them, however long the row."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import parameters
import pytest
import synthetic
from flax import nnx

from bert_jax import config as cfg, fill_mask as fill
from bert_jax.model import bert as model_lib
from input_pipeline.vocabulary import tokenizer as tokenizer_lib

MODEL = cfg.Model(vocab_size=40, hidden_size=12, layers=2, heads=2, intermediate_size=20, max_positions=40, initializer_range=0.5)


@pytest.fixture(scope='module')
def params():
  return parameters.random(MODEL)


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  directory = tmp_path_factory.mktemp('vocabulary')
  synthetic.write_vocabulary(directory, MODEL.vocab_size)
  return tokenizer_lib.load(directory, lower_case=False)


def test_masks_become_tokens(tokenizer):
  ids = fill.encode(tokenizer, 'T5[MASK] T6 [MASK] [SEP]', 40)
  text = tokenizer.encode(['T5', 'T6', '[SEP]'])
  assert ids.tolist() == [tokenizer.cls_id, *text[0], tokenizer.mask_id, *text[1], tokenizer.mask_id, *text[2], tokenizer.sep_id]
  assert (ids == tokenizer.sep_id).sum() == 1  # other special tokens stay text


def test_probabilities_are_the_models(params, tokenizer):
  text = 'T5 [MASK] T6 T8 [MASK] T9'
  model = dataclasses.replace(MODEL, dtype='float32')
  graphdef, _ = jax.eval_shape(lambda: model_lib.build(model, jax.random.key(0)))
  ids = fill.encode(tokenizer, text, 40)[None]
  batch = dict(input_ids=ids, token_type_ids=ids * 0, pair_ids=ids * 0 + 1, position_ids=np.arange(ids.shape[1])[None])
  places = np.flatnonzero(ids[0] == tokenizer.mask_id)[None]

  @jax.jit
  def probabilities(params):
    bert = nnx.merge(graphdef, params)
    return jax.nn.softmax(bert.mlm_logits(bert.encode(batch), places))

  wanted = np.asarray(probabilities(params))
  found = fill.fill_mask(MODEL, params, tokenizer, [text], top_k=40)[0]
  assert len(found) == 2
  for candidates, row in zip(found, wanted):
    assert [p for _, p in candidates] == sorted((p for _, p in candidates), reverse=True)
    np.testing.assert_allclose([p for _, p in candidates], [row[tokenizer.tokens.index(token)] for token, _ in candidates], atol=2e-6)
    assert sum(p for _, p in candidates) == pytest.approx(1, abs=1e-5)


def test_neighbours_have_no_influence(params, tokenizer):
  texts = ['[MASK] T5', 'T6' + ' [MASK]' * 5, ' '.join(['T8'] * 30) + ' [MASK]'] + ['T5 [MASK]', 'T6 [MASK]', 'T8 [MASK]'] * 4
  together = fill.fill_mask(MODEL, params, tokenizer, texts)
  assert [len(found) for found in together] == [1, 5, 1] + [1] * 12
  for text, found in zip(texts, together):
    alone, = fill.fill_mask(MODEL, params, tokenizer, [text])
    for a, b in zip(alone, found):
      assert [token for token, _ in a] == [token for token, _ in b]
      np.testing.assert_allclose([p for _, p in a], [p for _, p in b], atol=1e-6)


def test_one_compilation_a_length(params, tokenizer):
  fill.predict.clear_cache()
  for text in ('[MASK]', 'T5 [MASK] T6', '[MASK] T5 [MASK]'):
    fill.fill_mask(MODEL, params, tokenizer, [text, text], top_k=3)
  assert fill.predict._cache_size() == 1


@pytest.mark.parametrize('text, top_k, match', [
    ('T5 T6', 5, r"'T5 T6' has no \[MASK\]"), ('[mask]', 5, 'capitals'), ('T5 ' * 50 + '[MASK]', 5, r'53 tokens .*takes 40'),
    ('[MASK]', 0, '--top-k 0'), ('[MASK]', 41, '--top-k 41')])
def test_errors(params, tokenizer, text, top_k, match):
  with pytest.raises(cfg.ConfigError, match=match):
    fill.fill_mask(MODEL, params, tokenizer, [text], top_k)


def test_another_vocabulary(params, tokenizer):
  with pytest.raises(cfg.ConfigError, match='40 tokens, the model 50'):
    fill.fill_mask(dataclasses.replace(MODEL, vocab_size=50), params, tokenizer, ['[MASK]'])


@pytest.mark.parametrize('text, tokens, wanted', [
    ('The [MASK] sat.', ['cat'], 'The cat sat.'), ('She sing [MASK]!', ['##s'], 'She sings!'), ('[MASK] [MASK]', ['▁a', '▁b'], 'a b'),
    ('un[MASK]', ['able'], 'unable'), ('in[MASK] x', ['▁of'], 'in of x'), ('a [MASK]', ['##'], 'a ##')])
def test_filled(text, tokens, wanted):
  assert fill.filled(text, tokens) == wanted


def test_format():
  text = fill.format_filled('A [MASK] and [MASK].', [[('cat', .5), ('elephant', .25)], [('dog', .01)]], width=8)
  assert text.splitlines() == ['A cat and dog.', '  [MASK] 1', '  cat        50.0%  ████', '  elephant   25.0%  ██', '  [MASK] 2',
                               '  dog         1.0%']


def test_needs_no_tensorflow():
  code = 'import sys, bert_jax.fill_mask, bert_jax.convert.huggingface; sys.exit("tensorflow" in sys.modules or "torch" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0

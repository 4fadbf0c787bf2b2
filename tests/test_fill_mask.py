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

from bert_jax import config as cfg, fill_mask as fill, rows
from bert_jax.checkpoint import Loaded
from bert_jax.model import build
from bert_jax.objectives import OBJECTIVES
from input_pipeline.vocabulary import tokenizer as tokenizer_lib

MODEL = cfg.Model(vocab_size=40, hidden_size=12, layers=2, heads=2, intermediate_size=20, max_positions=40,
                  initializer_range=0.5)


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  directory = tmp_path_factory.mktemp('vocabulary')
  synthetic.write_vocabulary(directory, MODEL.vocab_size)
  return tokenizer_lib.load(directory, lower_case=False)


@pytest.fixture(scope='module')
def loaded(tokenizer):
  return Loaded(MODEL, OBJECTIVES['mlm_nsp'], parameters.random(MODEL), lambda: tokenizer)


def filled(loaded, texts, top_k=5):
  return list(fill.fill_mask(rows.place(loaded, rows.mesh_of()), texts, top_k))


def test_masks_become_tokens(tokenizer):
  ids = fill.encode(tokenizer, 'T5[MASK] T6 [MASK] [SEP]', 40)
  text = tokenizer.encode(['T5', 'T6'])
  assert ids.tolist() == [tokenizer.cls_id, *text[0], tokenizer.mask_id, *text[1], tokenizer.mask_id, tokenizer.sep_id,
                          tokenizer.sep_id]  # as in every program that reads an export


def test_probabilities_are_the_models(loaded, tokenizer):
  text = 'T5 [MASK] T6 T8 [MASK] T9'
  model = dataclasses.replace(MODEL, dtype='float32')
  graphdef, _, _ = build.describe(model, loaded.objective.heads)
  ids = fill.encode(tokenizer, text, 40)[None]
  batch = dict(input_ids=ids, token_type_ids=ids * 0, pair_ids=ids * 0 + 1, position_ids=np.arange(ids.shape[1])[None])
  places = np.flatnonzero(ids[0] == tokenizer.mask_id)[None]

  @jax.jit
  def probabilities(params):
    bert = nnx.merge(graphdef, params)
    return jax.nn.softmax(bert.masked_tokens(bert.encoder(batch), places, bert.encoder.word_embeddings))

  wanted = np.asarray(probabilities(loaded.params))
  found = filled(loaded, [text], top_k=40)[0]
  assert len(found) == 2
  for candidates, row in zip(found, wanted):
    assert [p for _, p in candidates] == sorted((p for _, p in candidates), reverse=True)
    np.testing.assert_allclose([p for _, p in candidates],
                               [row[tokenizer.tokens.index(token)] for token, _ in candidates], atol=2e-6)
    assert sum(p for _, p in candidates) == pytest.approx(1, abs=1e-5)


def test_neighbours_have_no_influence(loaded):
  texts = ['[MASK] T5', 'T6' + ' [MASK]' * 5, ' '.join(['T8'] * 30) + ' [MASK]']
  texts += ['T5 [MASK]', 'T6 [MASK]', 'T8 [MASK]'] * 4
  together = filled(loaded, texts)
  assert [len(found) for found in together] == [1, 5, 1] + [1] * 12
  for text, found in zip(texts, together):
    alone, = filled(loaded, [text])
    for a, b in zip(alone, found):
      assert [token for token, _ in a] == [token for token, _ in b]
      np.testing.assert_allclose([p for _, p in a], [p for _, p in b], atol=1e-6)


def test_one_compilation_a_length(loaded):
  rows.outputs.clear_cache()
  for text in ('[MASK]', 'T5 [MASK] T6', '[MASK] T5 [MASK]'):
    filled(loaded, [text, text], top_k=3)
  assert rows.outputs._cache_size() == 1


@pytest.mark.parametrize('text, top_k, match', [
    ('T5 T6', 5, r"'T5 T6' has no \[MASK\]"), ('[mask]', 5, 'capitals'),
    ('T5 ' * 50 + '[MASK]', 5, r'53 tokens .*takes 40'),
    ('[MASK]', 0, '--top-k 0'), ('[MASK]', 41, '--top-k 41')])
def test_errors(loaded, text, top_k, match):
  with pytest.raises(cfg.ConfigError, match=match):
    filled(loaded, [text], top_k)


def test_another_vocabulary(loaded):
  with pytest.raises(cfg.ConfigError, match='40 tokens, the model 50'):
    filled(dataclasses.replace(loaded, model=dataclasses.replace(MODEL, vocab_size=50)), ['[MASK]'])


def test_a_run_whose_attention_is_not_for_here(loaded):
  other = dataclasses.replace(loaded, model=dataclasses.replace(MODEL, attention='pallas'))
  assert filled(other, ['T5 [MASK]']) == filled(loaded, ['T5 [MASK]'])


def test_heads_that_were_never_trained_fill_nothing(loaded):
  with pytest.raises(cfg.ConfigError, match='no head for masked tokens.*BertForMaskedLM'):
    filled(dataclasses.replace(loaded, fresh=('masked_tokens/bias',)), ['[MASK]'])
  with pytest.raises(cfg.ConfigError, match='left to right'):
    filled(dataclasses.replace(loaded, model=dataclasses.replace(MODEL, causal=True)), ['[MASK]'])
  only_pairs = dataclasses.replace(loaded.objective, terms={'nsp': loaded.objective.terms['nsp']})
  with pytest.raises(cfg.ConfigError, match='did not train'):
    filled(dataclasses.replace(loaded, objective=only_pairs), ['[MASK]'])


@pytest.mark.parametrize('text, tokens, wanted', [
    ('The [MASK] sat.', ['cat'], 'The cat sat.'), ('She sing [MASK]!', ['##s'], 'She sings!'),
    ('[MASK] [MASK]', ['▁a', '▁b'], 'a b'),
    ('un[MASK]', ['able'], 'unable'), ('in[MASK] x', ['▁of'], 'in of x'), ('a [MASK]', ['##'], 'a ##')])
def test_a_text_is_filled(text, tokens, wanted):
  assert fill.filled(text, tokens) == wanted


def test_format():
  text = fill.format_filled('A [MASK] and [MASK].', [[('cat', .5), ('elephant', .25)], [('dog', .01)]], width=8)
  assert text.splitlines() == ['A cat and dog.', '  [MASK] 1', '  cat        50.0%  ████', '  elephant   25.0%  ██',
                               '  [MASK] 2',
                               '  dog         1.0%']


def test_needs_no_tensorflow():
  code = ('import sys, bert_jax.fill_mask, bert_jax.convert.huggingface; '
          'sys.exit("tensorflow" in sys.modules or "torch" in sys.modules)')
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0

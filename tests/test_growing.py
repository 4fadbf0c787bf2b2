"""Vocabularies that keep every id of a smaller one, and parameters that grow with them; positions by a named rule."""

import dataclasses
import random

import jax
import numpy as np
import parameters
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from bert_jax import config as cfg
from bert_jax.checkpoint import Loaded
from bert_jax.convert import exchange, growing, huggingface
from bert_jax.errors import ConfigError
from bert_jax.objectives import OBJECTIVES, PRETRAINING_HEADS, Objective
from input_pipeline import records
from input_pipeline.vocabulary import counting, extending, tokenizer as tokenizer_lib, training
from launch import cli

MODEL = cfg.Model(hidden_size=8, layers=1, heads=2, intermediate_size=8, max_positions=12, dtype='float32')
WORD, TOKEN = 'encoder/word_embeddings/embedding', 'masked_tokens/bias'


def lines(seed: int, letters: str, count: int = 60) -> list[str]:
  draw = random.Random(seed)
  words = [''.join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(30)]
  return [' '.join(draw.choices(words, [1 / (1 + i) for i in range(30)], k=12)) + '.' for _ in range(count)]


def of(tokens, path='vocab.txt', lower_case=True):
  return tokenizer_lib.wordpiece(('\n'.join(tokens) + '\n').encode(), path, lower_case)


def base(seed: int, size: int = 40) -> tokenizer_lib.Tokenizer:
  counted = counting.of_lines(lines(seed, 'abcde'), True)
  return of(training.train_wordpiece(counted, size, True).decode().split('\n')[:-1])

# ---------------------------------------------------------------- vocabulary --extend


@hypothesis_settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 60), st.sampled_from(['abcde', 'abxyz', 'é你好ab', 'АБв']))
def test_old_ids_stay_and_new_tokens_are_what_the_old_ones_split(seed, more, letters):
  old, corpus = base(seed % 7), lines(seed, letters)
  counted = counting.of_lines(corpus, True)
  size = len(old.tokens) + more
  try:
    data = extending.extend(counted, old, size, training.alphabet)
  except records.DataError as error:
    size = int(str(error).split('gives only ')[1].split(' ')[0].replace(',', ''))
    assert len(old.tokens) <= size < len(old.tokens) + more
    if size == len(old.tokens):
      return
    data = extending.extend(counted, old, size, training.alphabet)  # the size that the message advises works
  assert data == extending.extend(counted, old, size, training.alphabet)
  tokens = data.decode().split('\n')[:-1]
  assert len(set(tokens)) == len(tokens) == size and tuple(tokens[:len(old.tokens)]) == old.tokens
  assert extending.first_difference(old.tokens, tokens) is None
  new, ids = of(tokens), {token: i for i, token in enumerate(old.tokens)}
  for token in tokens[len(old.tokens):]:
    split = extending.pieces(token, ids, old.unk_id)
    assert len(split) > 1 or split == [old.unk_id]
    assert extending.pieces(token, {token: i for i, token in enumerate(tokens)}, 0) == [new.tokens.index(token)]
  unknown = lambda tokenizer: sum((ids == tokenizer.unk_id).sum() for ids in tokenizer.encode(corpus))
  assert unknown(new) <= unknown(old)


@hypothesis_settings(deadline=None, max_examples=80)
@given(st.sets(st.text('abc', min_size=1, max_size=3)), st.sets(st.text('abc', min_size=1, max_size=3)),
       st.text('abc', min_size=1, max_size=9))
def test_pieces_are_those_of_wordpiece(words, endings, word):
  tokens = ['[UNK]', *sorted(words), *(f'##{ending}' for ending in sorted(endings))]
  ids = {token: i for i, token in enumerate(tokens)}
  library = tokenizer_lib.wordpiece_library(tokens, lower_case=False)
  assert extending.pieces(word, ids, 0) == [token.id for token in library.model.tokenize(word)]
  as_rest = extending.pieces(f'##{word}', ids, 0)  # as after a word that is known
  whole = tokenizer_lib.wordpiece_library([*tokens, 'x'], lower_case=False).model.tokenize(f'x{word}')
  assert as_rest == ([0] if [token.id for token in whole] == [0] else [token.id for token in whole][1:])


def test_on_the_command_line(tmp_path, capsys):
  (tmp_path / 'c.txt').write_text('\n\n'.join(lines(3, 'abxyz')))
  run_dir = tmp_path / 'run'
  (run_dir / 'checkpoints' / '7').mkdir(parents=True)
  (run_dir / 'vocab.txt').write_bytes(base(1).vocab_txt)
  argv = ['vocabulary', '--input', str(tmp_path / 'c.txt'), '--output', str(tmp_path / 'v.txt')]
  for place in (run_dir, run_dir / 'vocab.txt', run_dir / 'checkpoints' / '7', run_dir / 'model.ckpt'):
    assert cli.run([*argv, '--extend', str(place), '--size', '55', '--overwrite']) == 0
    made = tokenizer_lib.load(tmp_path / 'v.txt')
    assert len(made.tokens) == 55 and made.tokens[:40] == base(1).tokens and made.lower_case
  for more, says in ((['--extend', str(run_dir), '--size', '40'], '40 tokens already; wanted more'),
                     (['--extend', str(run_dir), '--size', '50', '--no-lower-case'], 'changes nothing with --extend'),
                     (['--extend', str(tmp_path), '--size', '50'], 'neither vocab.txt nor spm.model')):
    with pytest.raises(ValueError, match=says):
      cli.run([*argv, *more, '--overwrite'])


def test_other_kinds_are_not_extended(tmp_path):
  (tmp_path / 'c.txt').write_text('\n\n'.join(lines(3, 'abxyz')))
  training.train_from(training.VocabularySettings(str(tmp_path / 'c.txt'), str(tmp_path / 'spm.model'), 'sentencepiece',
                                                  size=25))
  with pytest.raises(records.DataError, match='is a sentencepiece vocabulary: wanted WordPiece'):
    extending.load(tmp_path / 'spm.model')
  with pytest.raises(records.DataError, match='wanted --kind wordpiece'):
    training.VocabularySettings('c.txt', 'spm.model', 'sentencepiece', extend='spm.model')

# ---------------------------------------------------------------- parameters


def loaded_of(old, heads=PRETRAINING_HEADS) -> Loaded:
  model = dataclasses.replace(MODEL, vocab_size=len(old.tokens))
  objective = OBJECTIVES['mlm_nsp'] if heads else Objective({}, {})
  return Loaded(model, objective, parameters.random(model, heads, seed=2), lambda: old)


def test_new_rows_are_the_mean_of_their_pieces(tmp_path):
  old = of([*tokenizer_lib.SPECIAL, 'play', '##ing', '##s', 'a'])
  new = [*old.tokens, 'playing', '##ings', 'plays', '你', 'as']
  wanted = [(5, 6), (6, 7), (5, 7), (1,), (8, 7)]
  loaded, model = loaded_of(old), dataclasses.replace(MODEL, vocab_size=len(new))
  found, told = growing.grown('C', loaded, model, lambda: new, None)
  before, after = parameters.named(loaded.params), parameters.named(found.params)
  assert told == ('9 tokens become 14: each new one begins as the mean of its old pieces',) and found.model == model
  for name, value in after.items():
    np.testing.assert_array_equal(value[:9] if name in (WORD, TOKEN) else value, before[name])
    if name in (WORD, TOKEN):
      np.testing.assert_allclose(value[9:], [before[name][list(pieces)].mean(0) for pieces in wanted], rtol=1e-6)
      assert value.dtype == np.float32
  large = jax.tree.map(lambda x: np.full_like(x, 3e38), loaded.params)  # two are more than 32 bits hold
  largest, _ = growing.grown('C', dataclasses.replace(loaded, params=large), model, lambda: new, None)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(largest.params))
  # Handed on and brought back: the same to the last bit.
  grown = dataclasses.replace(found, tokenizer=lambda: of(new))
  huggingface.export_checkpoint(tmp_path / 'out', grown)
  again = parameters.named(huggingface.read(tmp_path / 'out').params)
  assert again.keys() == after.keys() and all(np.array_equal(again[name], after[name]) for name in after)
  # A checkpoint without the head for masked tokens has no bias to grow.
  bare, _ = growing.grown('C', loaded_of(old, {}), model, lambda: new, None)
  assert parameters.named(bare.params)[WORD].shape == (14, 8) and TOKEN not in parameters.named(bare.params)


@pytest.mark.parametrize('change, says', [
    (lambda tokens: ['[UNK]', '[PAD]', *tokens[2:], 'b'], r"the id 0 is '\[PAD\]' there and '\[UNK\]' in the data"),
    (lambda tokens: [*tokens[:-1], 'b', tokens[-1]], "the id 8 is 'a' there and 'b' in the data")])
def test_what_extends_no_vocabulary_is_refused_by_the_first_that_differs(change, says):
  old = of([*tokenizer_lib.SPECIAL, 'play', '##ing', '##s', 'a'])
  new = change(list(old.tokens))
  with pytest.raises(ConfigError, match=says):
    growing.grown('C', loaded_of(old), dataclasses.replace(MODEL, vocab_size=len(new)), lambda: new, None)


@hypothesis_settings(deadline=None, max_examples=50)
@given(st.integers(1, 20), st.integers(1, 50))
def test_positions_by_each_rule(have, more):
  rows = np.random.default_rng(have).normal(size=(have, 3)).astype(np.float32)
  count = have + more
  repeat, between = (growing.LONGER[name](rows, count) for name in ('repeat', 'interpolate'))
  for i in range(count):
    np.testing.assert_array_equal(repeat[i], rows[i % have])
  places = np.linspace(0, have - 1, count)
  wanted = np.stack([np.interp(places, np.arange(have), rows[:, d]) for d in range(3)], axis=1)
  np.testing.assert_allclose(between, wanted, atol=1e-6)
  assert between.dtype == repeat.dtype == np.float32
  np.testing.assert_array_equal(between[[0, -1]], rows[[0, -1]])


def test_positions_of_a_checkpoint():
  loaded = loaded_of(base(1))
  rows = parameters.named(loaded.params)[growing.POSITIONS]

  def changed(count, longer=None):
    model = dataclasses.replace(loaded.model, max_positions=count)
    return growing.grown('C', loaded, model, None, longer)

  cut, told = changed(5)
  assert told == ('of 12 positions the first 5 stay',) and cut.model.max_positions == 5
  np.testing.assert_array_equal(parameters.named(cut.params)[growing.POSITIONS], rows[:5])
  twice, told = changed(24, 'repeat')
  assert told == ('12 positions become 24: repeat',)
  np.testing.assert_array_equal(parameters.named(twice.params)[growing.POSITIONS], np.concatenate([rows, rows]))
  assert changed(12) == (loaded, ())
  for count, longer, says in ((24, None, 'choose how they become more, --longer-positions repeat or interpolate'),
                              (5, 'repeat', 'changes nothing: C has 12 positions'),
                              (24, 'stretch', "'stretch': wanted one of repeat, interpolate")):
    with pytest.raises(ConfigError, match=says):
      changed(count, longer)


def test_a_larger_model_without_a_larger_vocabulary_is_refused(tmp_path):
  """exchange.initial_parameters, to which the data's tokens were not given."""
  old = base(1)
  huggingface.export_checkpoint(tmp_path / 'out', loaded_of(old))
  model = dataclasses.replace(MODEL, vocab_size=41)
  with pytest.raises(ConfigError, match='set --model.vocab_size 40, or'):
    exchange.initial_parameters(tmp_path / 'out', model, PRETRAINING_HEADS)
  tokens = [*old.tokens, 'zzz']
  assert exchange.initial_parameters(tmp_path / 'out', model, PRETRAINING_HEADS, of(tokens).record,
                                     lambda: tokens).params['masked_tokens']['bias'].shape == (41,)

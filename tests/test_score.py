"""Scores are the sum of what the model gives each token, masked by itself; pairs are compared by them."""

import dataclasses
import io
import json
import zipfile

import jax
import numpy as np
import parameters
import pytest
import synthetic
from flax import nnx

from bert_jax import config as cfg, minimal_pairs, rows, score as scoring
from bert_jax.checkpoint import Loaded
from bert_jax.minimal_pairs import Pair
from bert_jax.model import build
from bert_jax.objectives import OBJECTIVES
from input_pipeline.errors import DataError
from input_pipeline.vocabulary import tokenizer as tokenizer_lib

MODEL = cfg.Model(vocab_size=40, hidden_size=12, layers=2, heads=2, intermediate_size=20, max_positions=40,
                  initializer_range=0.5)
SENTENCES = ['T5 T6t7t11 T8', 'T9', '', 'T10t15 T12 T13 T14', ' '.join(['T8'] * 30), 'T5 T6t7t11 T8']


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  directory = tmp_path_factory.mktemp('vocabulary')
  synthetic.write_vocabulary(directory, MODEL.vocab_size)
  return tokenizer_lib.load(directory, lower_case=False)


def placed(tokenizer, name='mlm_nsp', devices=1, model=MODEL, params=None, **changes):
  wanted = OBJECTIVES[name]
  model = dataclasses.replace(model, causal=wanted.causal, right_to_left=wanted.right_to_left)
  loaded = Loaded(model, wanted, params or parameters.random(model), lambda: tokenizer)
  return rows.place(dataclasses.replace(loaded, **changes), rows.mesh_of(jax.devices()[:devices]))


@pytest.fixture(scope='module')
def encoder(tokenizer):
  return placed(tokenizer)


def log_probabilities(encoder, ids):  # [t] -> [t V]
  """At every place, by the model itself."""
  graphdef, _, _ = build.describe(encoder.settings, encoder.loaded.objective.heads)
  ids = np.asarray(ids)[None]
  batch = dict(input_ids=ids, token_type_ids=ids * 0, pair_ids=ids * 0 + 1, position_ids=np.arange(ids.shape[1])[None])
  bert = nnx.merge(graphdef, encoder.params)
  logits = bert.masked_tokens(bert.encoder(batch), np.arange(ids.shape[1])[None], bert.encoder.word_embeddings)
  return np.asarray(jax.nn.log_softmax(logits))


@pytest.mark.parametrize('unit, together', [
    ('token', [[1], [2], [3], [4], [5]]), ('word', [[1], [2, 3, 4], [3, 4], [4], [5]])])
def test_each_token_is_masked_with_its_unit(encoder, unit, together):
  """By hand: T6 ##t7 ##t11 is one word."""
  (ids, _), = encoder.ids(['T5 T6t7t11 T8'])
  wanted = 0
  for at, hidden in enumerate(together, 1):
    copy = ids.copy()
    copy[hidden] = encoder.tokenizer.mask_id
    wanted += log_probabilities(encoder, copy)[at, ids[at]]
  found, = scoring.score(encoder, ['T5 T6t7t11 T8'], unit)
  assert found.tokens == 5 and found.score == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize('objective, at', [
    ('left_to_right', lambda t: (t - 1, t)), ('right_to_left', lambda t: (t, t - 1))])
def test_a_model_of_one_direction_has_a_likelihood(tokenizer, objective, at):
  encoder = placed(tokenizer, objective)
  (ids, _), = encoder.ids(['T5 T6t7 T8'])
  of = log_probabilities(encoder, ids)
  wanted = sum(of[here, ids[there]] for here, there in map(at, range(1, len(ids))))
  found, _ = scoring.score(encoder, ['T5 T6t7 T8', 'T9 T10'])
  assert found.tokens == len(ids) - 1 and found.score == pytest.approx(wanted, abs=1e-5)
  with pytest.raises(cfg.ConfigError, match="masks nothing, so wanted 'token'"):
    list(scoring.score(encoder, ['T5'], 'word'))


@pytest.mark.parametrize('devices, batch_size', [(1, 1), (1, 4), (8, 64)])
def test_neighbours_batches_and_devices_have_no_influence(tokenizer, encoder, devices, batch_size, monkeypatch):
  whole = [one.score for one in scoring.score(encoder, SENTENCES)]
  assert whole[2] == 0 and whole[0] == whole[5]
  monkeypatch.setattr(rows, 'TOGETHER', 2)
  other = placed(tokenizer, devices=devices)
  found = list(scoring.score(other, iter(SENTENCES), batch_size=batch_size))
  np.testing.assert_allclose([one.score for one in found], whole, atol=2e-5)
  assert [one.tokens for one in found] == [5, 1, 0, 5, 30, 5]


@pytest.mark.slow
def test_sentences_need_not_end(encoder):
  def endless():
    while True:
      yield 'T5 T6 T7 T8'

  found = scoring.score(encoder, endless())
  assert next(found).score == next(found).score
  found.close()


def test_few_compilations(encoder):
  rows.outputs.clear_cache()
  rng = np.random.default_rng(0)
  found = list(scoring.score(encoder, ['T5 ' * int(n) for n in rng.integers(1, 38, 60)], batch_size=16))
  assert len(found) == 60 and rows.outputs._cache_size() == 4  # rows of 16, 24, 32 and 40 tokens

# ---------------------------------------------------------------- pairs

PAIRS = [Pair('T5 T6', 'T6 T5', 'order'), Pair('T8', 'T9', 'word'), Pair('T9', 'T8', 'word'), Pair('T9', 'T9', 'word')]


def test_pairs_are_compared_by_scores(encoder):
  scores = dict(zip(('T5 T6', 'T6 T5'), scoring.score(encoder, ['T5 T6', 'T6 T5'])))
  right = float(scores['T5 T6'].score > scores['T6 T5'].score)
  found = scoring.compare(encoder, iter(PAIRS))
  assert found == {'pairs': 4, 'accuracy': (right + 1.5) / 4, 'by': {'order': right, 'word': .5}}
  assert scoring.compare(encoder, PAIRS * 3)['by'] == found['by']


def test_who_prefers_neither_has_half(tokenizer):
  """A head that gives every token the same: sentences of as many tokens are all as likely."""
  params = parameters.random(MODEL)
  params['masked_tokens'] = jax.tree.map(np.zeros_like, params['masked_tokens'])
  encoder = placed(tokenizer, params=params)
  rng = np.random.default_rng(0)
  sentence = lambda t: ' '.join(f'T{4 * i + 5}' for i in rng.integers(0, 8, t))
  pairs = [Pair(sentence(t), sentence(t), f'{t % 3}') for t in rng.integers(1, 30, 50).tolist()]
  found = scoring.compare(encoder, pairs, batch_size=7)
  assert found['accuracy'] == .5 and set(found['by'].values()) == {.5}


@pytest.mark.parametrize('good, bad, wanted', [(-1., -2., 1), (-2., -1., 0), (-1., -1., .5), (-1., -1. - 1e-6, .5)])
def test_preference(good, bad, wanted):
  assert scoring.preference(good, bad) == wanted


def test_what_cannot_score(tokenizer, encoder):
  for changes, match in (
      ({'fresh': ('masked_tokens/bias',)}, 'no head for masked tokens'),
      ({'objective': dataclasses.replace(OBJECTIVES['mlm_nsp'], terms={'nsp': OBJECTIVES['mlm_nsp'].terms['nsp']})},
       'did not train')):
    with pytest.raises(cfg.ConfigError, match=match):
      list(scoring.score(placed(tokenizer, **changes), ['T5']))
  causal = placed(tokenizer, 'left_to_right', fresh=('masked_tokens/bias',))
  with pytest.raises(cfg.ConfigError, match='was not trained to predict tokens'):
    list(scoring.score(causal, ['T5']))
  with pytest.raises(cfg.ConfigError, match='41 tokens'):
    list(scoring.score(encoder, ['T5 ' * 39]))
  with pytest.raises(cfg.ConfigError, match="unit is 'letter': wanted one of token, word"):
    list(scoring.score(encoder, ['T5'], 'letter'))
  with pytest.raises(cfg.ConfigError, match='no pair to compare'):
    scoring.compare(encoder, [])

# ---------------------------------------------------------------- files of pairs


def line(good, bad, **more):
  return json.dumps({'sentence_good': good, 'sentence_bad': bad, **more}) + '\n'


def archive(members) -> bytes:
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as opened:
    for name, content in members.items():
      opened.writestr(name, content)
  return file.getvalue()


def test_a_file_a_folder_and_a_zip(tmp_path):
  first, second = line('a', 'b', linguistics_term='binding', UID='x') + '\n', line('é', 'c', UID='y')
  wanted = [Pair('a', 'b', 'binding'), Pair('é', 'c', 'two')]
  (tmp_path / 'one.jsonl').write_text(first)
  (tmp_path / 'two.jsonl').write_text(second)
  assert list(minimal_pairs.read(tmp_path)) == wanted
  assert list(minimal_pairs.read(tmp_path / 'one.jsonl')) == wanted[:1]
  assert [pair.phenomenon for pair in minimal_pairs.read(tmp_path, 'UID')] == ['x', 'y']
  # What macOS adds, a name that would leave the folder, a file of another kind.
  (tmp_path / 'all.zip').write_bytes(archive({
      'data/': '', 'data/../../one.jsonl': first, 'two.jsonl': second, '__MACOSX/data/._one.jsonl': b'\x00\xb0',
      'data/._two.jsonl': b'\xb0', 'README': 'no pairs'}))
  before = sorted(tmp_path.rglob('*'))
  assert list(minimal_pairs.read(tmp_path / 'all.zip')) == wanted
  assert sorted(tmp_path.rglob('*')) == before  # nothing is unpacked


@pytest.mark.parametrize('name, content, match', [
    ('x.jsonl', line('a', 'b') + '{"sentence_good": "a"}', r'x.jsonl, line 2 .*sentence_bad'),
    ('x.jsonl', '[1]', 'line 1 is not what was wanted'), ('x.jsonl', 'no JSON', 'line 1 is not what was wanted'),
    ('x.jsonl', '[' * 100_000, 'line 1 is not what was wanted'),
    ('x.jsonl', '{"sentence_good": 3, "sentence_bad": "a"}', 'line 1: sentence_good is int, wanted text'),
    ('x.jsonl', r'{"sentence_good": "\ud800", "sentence_bad": "a"}', 'half of a character'),
    ('x.jsonl', b'\xff\n', 'line 1 is not UTF-8'), ('x.zip', b'PK nothing', 'cannot be read'),
    ('x.zip', archive({'a.txt': ''}), 'has no .*jsonl in it'),
    ('x.zip', archive({'d/a.jsonl': 'no'}), r'x.zip, d/a.jsonl, line 1'),
    ('y/a.txt', 'text', r'has no \*.jsonl')])
def test_bad_files_are_told_by_place(tmp_path, name, content, match):
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(DataError, match=match):
    list(minimal_pairs.read(path if path.parent == tmp_path else path.parent))


def test_a_damaged_member_is_told(tmp_path):
  whole = archive({'a.jsonl': line('abc', 'bcd') * 500})
  for at in range(60, len(whole) - 60, 7):
    (tmp_path / 'x.zip').write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1:])
    try:
      assert len(list(minimal_pairs.read(tmp_path / 'x.zip'))) == 500
    except DataError as error:
      assert 'x.zip' in str(error)

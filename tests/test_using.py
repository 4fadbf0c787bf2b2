"""The commands that use a checkpoint: features, score, next-sentence, fill-mask; from arguments, files and pipes."""

import io
import json
import re
import sys
import types

import jax
import numpy as np
import parameters
import pytest
import safetensors.numpy
import synthetic

import bert_jax
from bert_jax import config as cfg, features, rows
from bert_jax.checkpoint import Loaded
from bert_jax.convert import huggingface
from bert_jax.objectives import OBJECTIVES, Objective
from input_pipeline.vocabulary import tokenizer as tokenizer_lib
from launch import cli

MODEL = cfg.Model(vocab_size=60, hidden_size=16, layers=3, heads=2, intermediate_size=32, max_positions=64,
                  initializer_range=0.3)
TEXTS = ['T5 T6', 'T8 T9t11 T10', ('T5', 'T13 T14')]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  directory = tmp_path_factory.mktemp('using')
  (directory / 'vocabulary').mkdir()
  synthetic.write_vocabulary(directory / 'vocabulary', MODEL.vocab_size)
  tokenizer = lambda: tokenizer_lib.load(directory / 'vocabulary', lower_case=False)
  for name, objective in (('whole', OBJECTIVES['mlm_nsp']), ('bare', Objective({}, {}))):
    loaded = Loaded(MODEL, objective, parameters.random(MODEL, objective.heads), tokenizer)
    huggingface.export_checkpoint(directory / name, loaded)
  return directory


@pytest.fixture(scope='module')
def encoder(folder):
  return bert_jax.load(folder / 'whole')


def call(capsys, *argv, piped: str | bytes | None = None):
  """(exit code, stdout, stderr); `piped` None: stdin is a terminal."""
  data = io.BytesIO(piped.encode() if isinstance(piped, str) else piped or b'')
  stdin = types.SimpleNamespace(buffer=data, isatty=lambda: piped is None)
  with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
    patch.setattr(sys, 'argv', ['bert-jax', *map(str, argv)])
    patch.setattr(sys, 'stdin', stdin)
    cli.main()
  return ended.value.code, *capsys.readouterr()

# ---------------------------------------------------------------- features


def test_layers_are_the_models(encoder):
  """The last layer's states are those of `encode`; others those of the same model with fewer layers."""
  last = encoder.encode(TEXTS, 'none')
  found = list(encoder.features(TEXTS))
  assert [list(one.layers) for one in found] == [[-1, -2, -3]] * 3  # three of the last four are there
  assert found[0].tokens == ['[CLS]', 'T5', 'T6', '[SEP]']
  shorter = dict(encoder.params['encoder'])
  shorter['blocks'] = jax.tree.map(lambda x: x[:2], shorter['blocks'])
  model = cfg.Model(**{**vars(encoder.settings), 'layers': 2})
  second = rows.place(Loaded(model, Objective({}, {}), {'encoder': shorter}, lambda: encoder.tokenizer), encoder.mesh)
  for one, wanted, below in zip(found, last, features.features([second], TEXTS, (-1,))):
    np.testing.assert_allclose(one.layers[-1], wanted, atol=5e-6)
    np.testing.assert_allclose(one.layers[-2], below.layers[-1], atol=5e-6)


@pytest.mark.parametrize('pooling', ['mean', 'cls', 'pooled'])
def test_vectors_are_those_of_encode(encoder, pooling):
  found = list(encoder.features(iter(TEXTS), pooling=pooling))
  np.testing.assert_allclose([one.layers[-1] for one in found], encoder.encode(TEXTS, pooling), atol=5e-6)


def test_windows_change_nothing(encoder, monkeypatch):
  whole = list(encoder.features(TEXTS * 3))
  monkeypatch.setattr(features, 'HELD', 12 * 16 * 3)
  for one, wanted in zip(encoder.features(TEXTS * 3), whole, strict=True):
    for layer, values in wanted.layers.items():
      np.testing.assert_allclose(one.layers[layer], values, atol=5e-6)


def test_two_encoders_are_joined(folder, encoder):
  """As ELMo's two directions: each sees one side only, and the joined states have both."""
  tokenizer = lambda: encoder.tokenizer
  pair = []
  for name in ('left_to_right', 'right_to_left'):
    objective = OBJECTIVES[name]
    model = cfg.Model(**{**vars(MODEL), 'causal': True, 'right_to_left': objective.right_to_left})
    pair.append(rows.place(Loaded(model, objective, parameters.random(model), tokenizer), rows.mesh_of()))
  one, other = features.features(pair, ['T5 T6 T8', 'T5 T9 T8'])  # the words in the middle differ
  changed = np.abs(one.layers[-1] - other.layers[-1]) > 1e-4
  left, right = changed[:, :16].any(1), changed[:, 16:].any(1)
  np.testing.assert_array_equal(left, [False, False, True, True, True])
  np.testing.assert_array_equal(right, [True, True, True, False, False])
  apart, = features.features(pair[1:], ['T5 T6 T8'])
  np.testing.assert_allclose(one.layers[-2][:, 16:], apart.layers[-2], atol=2e-6)  # by a batch of another size


def test_a_joined_encoder_has_the_same_tokenizer(folder, encoder, tmp_path):
  synthetic.write_vocabulary(tmp_path, 61)
  model = cfg.Model(**{**vars(MODEL), 'vocab_size': 61})
  loaded = Loaded(model, Objective({}, {}), parameters.random(model, {}), lambda: tokenizer_lib.load(tmp_path))
  with pytest.raises(cfg.ConfigError, match='different tokenizers'):
    list(features.features([encoder, rows.place(loaded, rows.mesh_of())], ['T5']))


def test_json_lines_as_the_original_writes_them(capsys, folder, encoder):
  """extract_features.py main: {"linex_index", "features": [{"token", "layers": [{"index", "values"}]}]}."""
  code, out, err = call(capsys, 'features', folder / 'whole', '--layers', '-1', '-3', piped='T5 T6\n\nT8 ||| T9\n')
  assert code == 0, err
  lines = [json.loads(line) for line in out.splitlines()]
  assert [line['linex_index'] for line in lines] == [0, 1, 2]
  assert [[token['token'] for token in line['features']] for line in lines] == [
      ['[CLS]', 'T5', 'T6', '[SEP]'], ['[CLS]', '[SEP]'], ['[CLS]', 'T8', '[SEP]', 'T9', '[SEP]']]
  wanted = list(encoder.features(['T5 T6', '', ('T8', 'T9')], (-1, -3)))
  for line, one in zip(lines, wanted):
    for i, token in enumerate(line['features']):
      assert [layer['index'] for layer in token['layers']] == [-1, -3]
      for layer in token['layers']:
        np.testing.assert_allclose(layer['values'], one.layers[layer['index']][i], atol=6e-7 + 5e-6)
        assert all(round(value, 6) == value for value in layer['values'])


def test_arrays(capsys, folder, encoder, tmp_path):
  texts = ['T5 T6', 'T8']
  for name in ('v.npy', 'v.npz', 'v.safetensors', 't.npz'):
    more = () if name == 't.npz' else ('--pooling', 'mean')
    code, out, err = call(capsys, 'features', folder / 'whole', *texts, '--output', tmp_path / name, *more)
    assert (code, out) == (0, ''), err
  vectors = encoder.encode(texts, 'mean')
  for found in (np.load(tmp_path / 'v.npy'), np.load(tmp_path / 'v.npz')['layer_-1'],
                safetensors.numpy.load_file(tmp_path / 'v.safetensors')['layer_-1']):
    np.testing.assert_allclose(found, vectors, atol=5e-6)
  tokens = np.load(tmp_path / 't.npz')
  assert set(tokens) == {'layer_-1', 'layer_-2', 'layer_-3', 'offsets'} and tokens['offsets'].tolist() == [0, 4, 7]
  np.testing.assert_allclose(tokens['layer_-1'], np.concatenate(encoder.encode(texts, 'none')), atol=5e-6)
  code, _, err = call(capsys, 'features', folder / 'whole', 'T5', '--output', tmp_path / 'x.npy')
  assert code == 2 and 'holds one array' in err


def test_join_on_the_command_line(capsys, folder):
  code, out, err = call(capsys, 'features', '--join', folder / 'whole', folder / 'bare', 'T5', '--pooling', 'cls')
  assert code == 0, err
  assert len(json.loads(out)['layers'][0]['values']) == 32

# ---------------------------------------------------------------- score


def test_scores_of_arguments_files_and_pipes(capsys, folder, encoder, tmp_path):
  sentences = ['T5 T6', 'é T8', '']
  (tmp_path / 'in.txt').write_text('\ufeff' + '\r\n'.join(sentences[:2]) + '\n\n')
  wanted = encoder.score(sentences)
  for source, piped in ((['--input', tmp_path / 'in.txt'], None), ([], 'T5 T6\né T8\n\n')):
    code, out, err = call(capsys, 'score', folder / 'whole', '--json', '--devices', 0, *source, piped=piped)
    results = json.loads(out)['results']
    assert code == 0 and [one['text'] for one in results] == sentences and 'é' in out
    np.testing.assert_allclose([one['score'] for one in results], wanted, atol=1e-5)
  code, out, _ = call(capsys, 'score', folder / 'whole', *sentences[:2])
  assert [line.split(maxsplit=1)[1] for line in out.splitlines()] == sentences[:2]
  assert json.loads(call(capsys, 'score', folder / 'whole', '--json', piped='')[1]) == {'results': []}


def test_a_table_of_pairs(capsys, folder, tmp_path):
  pairs = [('a', 'b', 'T5 T6', 'T6 T5'), ('a', 'c', 'T8', 'T8'), ('d', 'e', 'T8', 'T8')]
  (tmp_path / 'pairs.jsonl').write_text('\n'.join(json.dumps(
      {'sentence_good': good, 'sentence_bad': bad, 'linguistics_term': term, 'UID': uid})
      for term, uid, good, bad in pairs))
  code, out, err = call(capsys, 'score', folder / 'whole', '--pairs', tmp_path / 'pairs.jsonl', '--json')
  report = json.loads(out)
  assert code == 0 and report['pairs'] == 3 and report['by'].keys() == {'a', 'd'} and report['by']['d'] == .5
  assert report['accuracy'] == (2 * report['by']['a'] + .5) / 3
  code, out, err = call(capsys, 'score', folder / 'whole', '--pairs', '-', '--by', 'UID', '--unit', 'word',
                        piped=(tmp_path / 'pairs.jsonl').read_text())
  rows = [line.split() for line in out.splitlines()]
  assert [row[0] for row in rows] == ['b', 'c', 'e', 'all'] and rows[2] == ['e', '50.0%'] and rows[3][1] == '3'

# ---------------------------------------------------------------- next sentence


def test_pairs_in_every_notation(capsys, folder, encoder):
  pairs = [('T5', 'T6'), ('T8', 'T9 T10'), ('é', 'T12')]
  wanted = encoder.next_sentence(pairs)
  assert ((wanted > 0) & (wanted < 1)).all() and wanted.std() > 1e-6
  batch = encoder.batch(pairs)
  hidden, params = encoder.apply(encoder.params, batch)[:, 0], encoder.params
  dense = lambda name, x: np.asarray(x @ params[name]['dense']['kernel'] + params[name]['dense']['bias'][None])
  scores = dense('pair_classes', np.tanh(dense('pooler', hidden)))
  np.testing.assert_allclose(wanted, np.asarray(jax.nn.softmax(scores))[:, 0], atol=5e-6)
  code, out, err = call(capsys, 'next-sentence', folder / 'whole', '--json',
                        piped='T5 ||| T6\n\nT8\tT9 T10\n{"text": "é", "text_pair": "T12"}\n')
  results = json.loads(out)['results']
  assert code == 0 and [(one['text'], one['text_pair']) for one in results] == pairs
  np.testing.assert_allclose([one['is_next'] for one in results], wanted, atol=5e-6)
  for words in (['T5', 'T6'], ['T5 ||| T6']):
    code, out, err = call(capsys, 'next-sentence', folder / 'whole', *words)
    assert out.strip() == f'{wanted[0]:.1%}  T5 ||| T6'


def test_who_cannot_tell_what_is_next(folder, encoder):
  sop = rows.place(Loaded(MODEL, OBJECTIVES['mlm_sop'], encoder.params, lambda: encoder.tokenizer), encoder.mesh)
  mlm = rows.place(Loaded(MODEL, OBJECTIVES['mlm'], encoder.params, lambda: encoder.tokenizer), encoder.mesh)
  from bert_jax import next_sentence
  for one, match in ((sop, 'learnt the order of two'), (mlm, 'this run did not train its pooler'),
                     (bert_jax.load(folder / 'bare'), 'this checkpoint has no pooler')):
    with pytest.raises(cfg.ConfigError, match=match):
      list(next_sentence.next_sentence(one, [('T5', 'T6')]))

# ---------------------------------------------------------------- bad input, of all


@pytest.mark.parametrize('argv, piped, match', [
    (['score', 'whole'], None, 'no text was given: write one after the checkpoint, name a file'),
    (['fill-mask', 'whole', '--input', 'nowhere'], '', 'nowhere does not exist: wanted a file of lines'),
    (['fill-mask', 'whole'], '[MASK]\n\nT5\n', r"standard input, line 3: 'T5' has no \[MASK\]"),
    (['fill-mask', 'whole', ''], None, r"text 1: '' has no \[MASK\]"),
    (['next-sentence', 'whole', ' '], None, 'text 1 has no two texts'),
    (['score', 'whole'], 'T5\n' + 'T5 ' * 70, 'standard input, line 2: .* has 72 tokens'),
    (['features', 'whole'], 'T5\n' * 300 + 'T5 ' * 70, 'standard input, line 301: .* has 72 tokens'),
    (['features', 'whole', 'T5 ' * 70], None, 'text 1: .* has 72 tokens .*truncate'),
    (['next-sentence', 'whole'], 'T5\n', 'standard input, line 1 has no two texts: wanted A'),
    (['next-sentence', 'whole', 'a\tb\tc'], None, 'text 1 has no two texts'),
    (['next-sentence', 'whole'], '{"text": 1}', 'line 1 is not what was wanted'),
    (['score', 'whole'], b'T5\n\xff\xfe', 'standard input, line 2 is not UTF-8'),
    (['score', 'whole', 'T5', '--input', 'x'], None, 'texts were given and --input x'),
    (['score', 'whole', 'T5', '--pairs', 'x'], None, 'sentences and --pairs x'),
    (['score', 'whole', 'T5', '--by', 'UID'], None, '--by UID changes nothing without --pairs'),
    (['score', 'whole', 'T5', '--devices', '9'], None, 'there are 8 here'),
    (['score', 'whole', 'T5', '--batch-size', '0'], None, 'batch-size is 0'),
    (['score', 'bare', 'T5'], None, 'no head for masked tokens'), (['features'], '', 'no checkpoint was given'),
    (['features', 'whole', 'T5', '--layers', '-4'], None, 'layers has -4, and the encoder has 3 layers'),
    (['features', 'whole', 'T5', '--output', 'a.txt'], None, "ends in '.txt': wanted .npy, .npz, .safetensors"),
    (['features', 'whole', 'T5', '--layers', '-2', '--pooling', 'pooled'], None, 'made of the last layer'),
    (['features', 'bare', 'T5', '--pooling', 'pooled'], None, "no pooler: use pooling 'cls' or 'mean'")])
def test_one_sentence_says_what_is_wrong(capsys, folder, argv, piped, match):
  named = [folder / word if word in ('whole', 'bare') else word for word in argv]
  code, out, err = call(capsys, *named, piped=piped)
  assert code == 2 and out == '' and len(err.splitlines()) == 1, err
  assert re.search(match, err), err


def test_half_a_character(capsys, folder):
  code, _, err = call(capsys, 'score', folder / 'whole', 'T5 \udce9')
  assert code == 2 and 'half of a character' in err


def test_compressed_files(capsys, folder, tmp_path):
  import gzip
  (tmp_path / 'in').write_bytes(gzip.compress(b'T5 T6\nT8\n'))
  code, out, err = call(capsys, 'score', folder / 'whole', '--input', tmp_path / 'in')
  assert code == 0 and len(out.splitlines()) == 2
  (tmp_path / 'cut').write_bytes(gzip.compress(b'T5 T6\n' * 1000)[:-9])
  code, out, err = call(capsys, 'score', folder / 'whole', '--input', tmp_path / 'cut')
  assert code == 2 and 'truncated or damaged' in err

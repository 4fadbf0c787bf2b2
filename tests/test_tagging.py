"""Tags of words: rows that lose none, what is learnt of a CoNLL file, its export, features of a frozen encoder."""

import dataclasses
import json

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import strategies as st

from bert_jax import checkpoint, config as cfg, finetune, program as program_lib
from bert_jax.checkpoint import Loaded
from bert_jax.convert import exchange, huggingface
from bert_jax.errors import ConfigError
from bert_jax.model import build
from bert_jax.objectives import Objective
from bert_jax.tasks import batches, features_ner, tagging
from bert_jax.tasks.conll import Sentence
from bert_jax.tasks.settings import Finetune, TaskBatch
from bert_jax.tasks.table import TASKS
from bert_jax.tasks.task import Encoding
from input_pipeline.errors import DataError
from input_pipeline.vocabulary import tokenizer as tokenizer_lib

PEOPLE, PLACES, OTHERS = 'anna ben carla dieter'.split(), 'rome paris oslo lima'.split(), 'saw left the in , .'.split()
TOKENS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *PEOPLE, *PLACES, *OTHERS, '中', '文',
          *'abcdefgh', *(f'##{c}' for c in 'abcdefgh')]
MODEL = cfg.Model(vocab_size=len(TOKENS), hidden_size=32, layers=2, heads=2, intermediate_size=64, max_positions=64,
                  hidden_dropout=0.0, attention_dropout=0.0, dtype='float32')
LABELS = 'O', 'B-PER', 'I-PER'
WORDS = [*PEOPLE, *OTHERS, '中', '文', 'abcabc', 'a' * 150, 'h' * 250, '\u200b', '\ufffd', 'Zoë', '😀']


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp('vocabulary') / 'vocab.txt'
  path.write_text('\n'.join(TOKENS) + '\n')
  return tokenizer_lib.load(path, lower_case=True)


@pytest.fixture(scope='module')
def encoder(tokenizer, tmp_path_factory):
  """A Hugging Face directory of an encoder with initial values."""
  params = jax.device_get(build.build(MODEL, {}, jax.random.key(1))[1])
  return huggingface.export_checkpoint(tmp_path_factory.mktemp('encoder') / 'export',
                                       Loaded(MODEL, Objective({}, {}), params, lambda: tokenizer))


def iob1(count, seed):
  """Lines in CoNLL-2003's layout; two people can follow each other, and a document has two sentences."""
  rng = np.random.default_rng(seed)
  lines = []
  for i in range(count):
    lines += ['-DOCSTART- -X- -X- O', ''] if i % 2 == 0 else []
    name = list(rng.permutation(PEOPLE)[:2])
    lines += [f'{name[0]} NNP I-NP I-PER', f'{name[1]} NNP I-NP I-PER', f'{name[0]} NNP I-NP B-PER'][:1 + i % 3]
    lines += [f'{word} XX O O' for word in rng.choice(OTHERS, rng.integers(1, 4))]
    lines += [f'{rng.choice(PLACES)} NNP I-NP I-LOC', '. . O O', ' ' * (i % 2)]
  return '\n'.join(lines)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp('conll')
  for name, (count, seed) in {'eng.train': (48, 0), 'eng.testa': (13, 1)}.items():
    (folder / name).write_text(iob1(count, seed))
  return folder


def settings(task, **own):
  return Finetune(task=task, epochs=8, batch=TaskBatch(size=8, max_length=24), mesh=cfg.MeshShape(data=1), model=MODEL,
                  own=TASKS[task].settings(**own),
                  optimizer=cfg.Optimizer(name='adamw', peak_learning_rate=3e-3, warmup_steps=4, weight_decay=.1),
                  run=cfg.Run(seed=3, checkpoint_every=1000))


def tune(config, data, run_dir, source):
  return finetune.finetune(config, data, run_dir, source, devices=jax.devices()[:1], progress=False)


texts = st.lists(st.tuples(st.integers(0, 2), st.lists(st.sampled_from(WORDS), min_size=1, max_size=40)), min_size=1,
                 max_size=5)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(texts, st.booleans(), st.integers(8, 40), st.randoms(use_true_random=False))
def test_each_word_is_scored_once_in_its_order_whatever_the_rows(tokenizer, found, context, length, draw):
  documents = np.cumsum([step for step, _ in found]).tolist()
  examples = [Sentence(tuple(words), tuple(draw.choice(LABELS) for _ in words), document, tuple(range(len(words))), 'F')
              for document, (_, words) in zip(documents, found)]
  encoding = Encoding(tokenizer, length, LABELS, tagging.Entities(context=context))
  rows = tagging.rows(examples, encoding)
  firsts = [(tokenizer.encode([word])[0].tolist() or [tokenizer.unk_id])[0] for one in examples for word in one.words]
  scored = [row.token_targets['first'] > 0 for row in rows]
  assert np.concatenate([row.input_ids[at] for row, at in zip(rows, scored)]).tolist() == firsts
  assert all(len(row.input_ids) <= length and at.any() for row, at in zip(rows, scored))
  assert all(row.input_ids[0] == tokenizer.cls_id and row.input_ids[-1] == tokenizer.sep_id for row in rows)
  outputs = [{'tags': np.append(row.token_targets['tag'], [0, 0])} for row in rows]  # padded
  answers = tagging.answers(examples, rows, outputs, encoding)
  assert [(answer['words'], answer['tags']) for answer in answers] == [(list(x.words), list(x.tags)) for x in examples]


def test_rows_of_a_document_are_filled_up_with_what_stands_around(tokenizer):
  words = tuple('a' if i % 2 else 'b' for i in range(50))
  examples = [Sentence(words, (), document, (), 'F')
              for document, words in [(0, words[:20]), (0, words[20:]), (1, ('c',))]]
  of = lambda context: tagging.rows(examples, Encoding(tokenizer, 22, (), tagging.Entities(context=context)))
  assert [len(row.input_ids) for row in of(True)] == [22, 22, 22, 22, 22, 3]
  middle = of(True)[2]
  assert np.flatnonzero(middle.token_targets['first']).tolist() == list(range(6, 16))  # five words on either side
  assert [(len(row.input_ids), int(row.token_targets['first'].sum())) for row in of(False)] == [
      (22, 20), (22, 10), (22, 10), (22, 10), (3, 1)]


def test_what_cannot_be_tagged_is_named(tokenizer):
  example = Sentence(('a', 'b'), ('O', 'B-LOC'), 0, (7, 8), 'dev.conll')
  with pytest.raises(DataError, match='dev.conll, line 8: the tag B-LOC is not among .*: O, B-PER, I-PER'):
    tagging.rows([example], Encoding(tokenizer, 24, LABELS, tagging.Entities()))
  plain = dataclasses.replace(example, tags=())
  for labels in (tagging.entity_tags, tagging.word_tags):
    with pytest.raises(DataError, match='dev.conll has words without tags'):
      labels([plain])
  for metrics in (tagging.accuracy, tagging.entity_figures):
    with pytest.raises(DataError, match='dev.conll has words without tags'):
      metrics([plain], [{'tags': ['O', 'O']}])
  assert tagging.entity_tags([example]) == ('O', 'B-LOC', 'I-LOC')
  assert tagging.word_tags([example]) == ('B-LOC', 'O')
  with pytest.raises(ConfigError, match='own.scheme'):
    tagging.Entities(scheme='iob3')
  with pytest.raises(ConfigError, match='own.word_column and own.tag_column'):
    tagging.WordTags(word_column=1, tag_column=1)


@pytest.fixture(scope='module')
def tuned(encoder, data, tmp_path_factory):
  run_dir = tmp_path_factory.mktemp('tagged') / 'run'
  return run_dir, *tune(settings('conll2003'), data, run_dir, encoder)


def test_entities_of_a_file_in_iob1_are_learnt(tuned):
  run_dir, result, figures = tuned
  assert result.reason == 'steps' and figures['examples'] == 13
  assert figures['f1'] == figures['PER_f1'] == figures['LOC_recall'] == figures['accuracy'] == 1
  assert checkpoint.load(run_dir).record.config.labels == ('O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER')
  assert finetune.evaluate(run_dir, progress=False) == pytest.approx(figures, abs=1e-6)


def test_its_export_is_a_token_classifier_that_comes_back(tuned, tmp_path):
  """The export itself runs it by transformers, or, without that, by a plain forward pass."""
  told = []
  path = exchange.export(huggingface.KIND, tuned[0], tmp_path / 'export', tell=told.append)
  fields = json.loads((path / 'config.json').read_text())
  assert fields['architectures'] == ['BertForTokenClassification'] and fields['id2label']['1'] == 'B-LOC'
  assert 'logits ' in told[-1] and 'pipeline_tag: token-classification' in (path / 'README.md').read_text()
  back = exchange.load(path)
  assert back.labels == ('O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER') and set(back.params) == {'encoder', 'tags'}


def frozen_program(own, steps=3):
  objective = features_ner.objective(LABELS, own)
  return program_lib.make(dataclasses.replace(MODEL, hidden_dropout=.1, attention_dropout=.1), objective,
                          cfg.Optimizer(name='lamb', peak_learning_rate=1e-2, warmup_steps=0, weight_decay=.1),
                          program_lib.mesh_lib.make_mesh(cfg.MeshShape(data=1), jax.devices()[:1], model=MODEL, rows=4),
                          steps=steps)


def small(**own):
  return features_ner.Features(lstm_size=8, **own)


@pytest.fixture(scope='module')
def batch(tokenizer):
  examples = [Sentence(words, tags, 0, (0,) * len(words), 'F') for words, tags in [
      (('anna', 'ben', 'left'), ('B-PER', 'I-PER', 'O')), (('the',), ('O',)),
      (('saw', 'dieter', 'in', 'abcabc', '.'), ('O', 'B-PER', 'O', 'O', 'O'))]]
  rows = tagging.rows(examples, Encoding(tokenizer, 24, LABELS, small()))
  return batches.pad(rows, 4, 16, tokenizer.pad_id, rows[0])


def test_a_frozen_encoder_stays_as_it_is_to_the_last_bit(batch):
  program = frozen_program(small(layers='sum_of_last_four'))
  state = program.init()
  before = jax.tree.map(np.asarray, state.params)
  for _ in range(3):
    state, report = program.train_step(state, batch)
  after = jax.tree.map(np.asarray, state.params)
  changed = jax.tree.map(lambda a, b: a.tobytes() != b.tobytes(), before, after)
  assert not any(jax.tree.leaves(changed['encoder'])) and all(jax.tree.leaves(changed['tagger']))
  assert 0 < report['gradient_norm'] < np.inf and int(report['skipped']) == 0


@pytest.mark.parametrize('layers', features_ner.LAYERS)
def test_every_choice_of_layers_reads_its_own_and_padding_changes_nothing(batch, layers):
  own = small(layers=layers)
  graphdef, params = build.build(MODEL, features_ner.objective(LABELS, own).heads, jax.random.key(0))
  run = jax.jit(lambda params, batch: features_ner.logits(own, nnx.merge(graphdef, params), jnp.zeros((
      *batch['input_ids'].shape, MODEL.hidden_size)), batch))
  real = batch['pair_ids'].reshape(-1) > 0
  strange = {name: np.where(batch['pair_ids'] > 0, batch[name], 1) for name in ('input_ids', 'position_ids')}
  given = np.asarray(run(params, batch))
  np.testing.assert_array_equal(np.asarray(run(params, {**batch, **strange}))[real], given[real])
  # the second layer is read, or it is not
  other = jax.tree.map_with_path(lambda path, x: x.at[1].add(.1) if 'blocks' in str(path) else x, params)
  moved = np.abs(np.asarray(run(other, batch)) - given).max() > 1e-6
  assert moved == (layers not in ('embeddings', 'second_to_last'))


@pytest.mark.slow
def test_features_of_a_frozen_encoder_are_learnt_from(encoder, data, tmp_path):
  config = settings('ner_features', lstm_size=16, layers='sum_of_all')
  config = dataclasses.replace(config, epochs=16,
                               optimizer=dataclasses.replace(config.optimizer, peak_learning_rate=1e-2),
                               files=dataclasses.replace(config.files, train='eng.train', validation='eng.testa'))
  result, figures = tune(config, data, tmp_path / 'run', encoder)
  assert figures['tags_accuracy'] > .7  # O alone is half of the words
  given = exchange.load(encoder).params['encoder']
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b), result.state.params['encoder'], given)
  with pytest.raises(ConfigError, match='head tagger does not say what it gives'):
    exchange.export(huggingface.KIND, tmp_path / 'run', tmp_path / 'export')
  path = exchange.export(huggingface.KIND, tmp_path / 'run', tmp_path / 'encoder', huggingface.BARE)
  assert set(exchange.load(path).params) == {'encoder'}

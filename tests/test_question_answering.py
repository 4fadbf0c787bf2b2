"""Question answering: windows, what is learnt of an answer, what comes back of it, its files, and what is refused."""

import dataclasses
import json
import pathlib
import random
import warnings

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import parameters
import pytest
from flax import nnx

from bert_jax import checkpoint, config as cfg, finetune, objectives
from bert_jax.convert import exchange, google
from bert_jax.errors import ConfigError
from bert_jax.model import build
from bert_jax.tasks import batches, question_answering, squad_answers, squad_examples, squad_metrics, squad_windows
from bert_jax.tasks.settings import Finetune, TaskBatch
from bert_jax.tasks.squad_windows import Windows
from bert_jax.tasks.task import Encoding
from input_pipeline.errors import DataError
from input_pipeline.vocabulary import tokenizer as tokenizer_lib, training

DATA = pathlib.Path(__file__).parents[1] / '../shared/data'
LETTERS = 'abcdefghijklmnopqrstuvwxyz0123456789'
TOKENS = [*tokenizer_lib.SPECIAL, *LETTERS, *(f'##{c}' for c in LETTERS), *'()-.,\'"?$', *'–，。《》北京王', 'steve',
          'smith', 'the', 'in', 'japanese', '1895', '1943']


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  folder = tmp_path_factory.mktemp('vocabulary')
  (folder / 'vocab.txt').write_text('\n'.join(TOKENS) + '\n')
  return folder


@pytest.fixture(scope='module')
def tokenizer(vocabulary):
  return tokenizer_lib.load(vocabulary, lower_case=True)


def encoding(tokenizer, length=40, training=False, **own):
  return Encoding(tokenizer, length, (), Windows(**{'max_query_length': 8, 'doc_stride': 9} | own), training)


def question(context, *answers, name='q', text='in?'):
  """A question whose answers stand where they are found first."""
  golds = tuple(squad_examples.Gold(answer, start if (start := context.find(answer)) >= 0 else None)
                for answer in answers)
  return squad_examples.Question(name, text, context, golds)


def scores_of(rows):
  """What a model gives that is sure of the ends which the rows have for targets, and sees none in other windows."""
  found = []
  for row in rows:
    scores = np.full((2, len(row.input_ids) + 3), -1.0)
    scores[[0, 1], row.targets['ends']] = 10.0 if row.targets['ends'][0] else 0.5
    found.append({'span': scores})
  return found


def answer(tokenizer, one, **own):
  own = encoding(tokenizer, **own)
  rows = squad_windows.rows([one], own)
  return squad_answers.answers([one], rows, scores_of(rows), own)[0]

# ---------------------------------------------------------------- windows


@hypothesis.settings(deadline=None)
@hypothesis.given(st.integers(0, 90), st.integers(1, 30), st.integers(1, 40))
def test_windows_go_on_until_all_is_read_and_each_piece_counts_once(pieces, room, stride):
  windows = squad_windows.spans(pieces, room, stride)
  assert windows[0][0] == 0 and sum(windows[-1]) == pieces and all(length <= room for _, length in windows)
  assert all(b - a == min(stride, room) and length == room for (a, length), (b, _) in zip(windows, windows[1:]))
  most = squad_windows.most_context(windows)
  for piece in range(pieces):
    inside = [(min(piece - start, start + length - 1 - piece) + .01 * length, -i)
              for i, (start, length) in enumerate(windows) if start <= piece < start + length]
    best = -max(inside)[1]
    assert [i for i, (start, length) in enumerate(windows)
            if start <= piece < start + length and most[i][piece - start]] == [best]


def test_rows_have_question_and_window_and_the_place_of_the_answer(tokenizer):
  context = ' '.join(LETTERS[:26])
  rows = squad_windows.rows([question(context, 'n o', text='in the ' * 9)], encoding(tokenizer, 20))
  assert [row.first for row in rows] == [0, 9, 18]  # 20 - 8 - 3 tokens of the context
  text = lambda row: [tokenizer.tokens[i] for i in row.input_ids]
  assert text(rows[1]) == ['[CLS]', *['in', 'the'] * 4, '[SEP]', *'jklmnopqr', '[SEP]']
  assert rows[1].token_type_ids.tolist() == [0] * 10 + [1] * 10
  assert [row.targets['ends'].tolist() for row in rows] == [[0, 0], [14, 15], [0, 0]]
  assert [text(rows[1])[i] for i in rows[1].targets['ends']] == ['n', 'o']
  across = squad_windows.rows([question(context, 'i j')], encoding(tokenizer, 14, doc_stride=9))
  assert all((row.targets['ends'] == 0).all() and row.targets['known'].all() for row in across)


@pytest.mark.parametrize('context, of, learnt', [
    ('led by john smith (1895-1943).', '1895', '1895'), ('the japanese are', 'japan', 'japanese'),
    ("steve smith's cat", 'Steve Smith', None), ('《北京王》，a', '北京', '北 京'), ('x 12–4 y', '4', '4')])
def test_of_an_answer_only_its_own_pieces_are_learnt(tokenizer, context, of, learnt):
  """The examples of run_squad.py, and text without spaces."""
  row = squad_windows.rows([question(context, of)], encoding(tokenizer))[0]
  first, last = row.targets['ends']
  if learnt is None:  # it does not stand there in capitals
    assert (first, last) == (0, 0) and not row.targets['known'].any()
  else:
    assert tokenizer.decode(row.input_ids[first:last + 1]) == learnt


def test_questions_nothing_can_be_learnt_of_have_no_rows_in_training(tokenizer):
  questions = [question('a b', 'b'), question('a b', 'c'), question('a b'), dataclasses.replace(
      question('a b'), answers=None)]
  known = {row.example: row.targets['known'].tolist() for row in squad_windows.rows(questions, encoding(tokenizer))}
  assert known == {0: [1, 1], 1: [0, 0], 2: [1, 1], 3: [0, 0]}
  training = squad_windows.rows(questions, encoding(tokenizer, training=True))
  assert [row.example for row in training] == [0, 2]
  with pytest.raises(DataError, match=r'of the 2 questions from here on none has an answer that stands in its context'):
    squad_windows.rows([questions[1], questions[3]], encoding(tokenizer, training=True))
  with pytest.raises(ConfigError, match=r'max_length is 11: wanted 12 at least, as a question may have 8 tokens'):
    squad_windows.rows(questions, encoding(tokenizer, 11))

# ---------------------------------------------------------------- answers


WORDS = ['a', 'Steve', "Smith's", '(1895-1943).', 'Café', 'naïve', '北京', '《王', '》，', '12–4', '$3.5', 'x\u00a0y',
         'Ⅷ', '☃', 'ß']
SPACES = [' ', '  ', '\n', '\u202f', '\u3000', '']


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(SPACES)), min_size=1, max_size=40),
                  st.data())
def test_the_words_that_were_learnt_come_back_as_they_stand(tokenizer, parts, data):
  """Whatever the windows: an answer of whole words is found again, with the context's own capitals and accents."""
  context = ''.join(map(''.join, parts))
  words = [match.span() for match in squad_examples.WORD.finditer(context)]
  first = data.draw(st.integers(0, len(words) - 1))
  last = min(first + data.draw(st.integers(0, 3)), len(words) - 1)
  start, end = words[first][0], words[last][1]
  wanted = context[start:end]
  one = squad_examples.Question('q', 'in', context, (squad_examples.Gold(wanted, start),))
  found = answer(tokenizer, one, length=60, doc_stride=20)
  rows = squad_windows.rows([one], encoding(tokenizer, 60, doc_stride=20))
  hypothesis.assume(any(row.targets['ends'].any() and row.has_most_context[row.targets['ends'][0] - row.offset]
                        for row in rows))
  assert ''.join(found['text'].split()) == ''.join(wanted.split())


@pytest.mark.parametrize('pieces, text, tokenized, wanted', [
    ('steve smith', "Steve Smith's", "steve smith ' s", 'Steve Smith'),
    ('1895', '(1895-1943).', '( 1895 - 1943 ) .', '1895'), ('cafe', 'Le Café,', 'le cafe ,', 'Café'),
    ('[UNK]', '☃ ☃', '☃ ☃', '☃ ☃'), ('a', 'İa', 'i̇a', 'İa'), ('', 'x', 'x', 'x')])
def test_pieces_are_put_back_where_they_stand(pieces, text, tokenized, wanted):
  """Where that fails all of the words are the answer, as in run_squad.py."""
  assert squad_answers.final_text(pieces, text, tokenized) == wanted


def test_the_best_spans_in_order_none_longer_than_allowed(tokenizer):
  one = question('a b c d e', 'c')
  own = encoding(tokenizer, n_best=3, max_answer_length=2)
  rows = squad_windows.rows([one], own)
  scores = np.zeros((2, len(rows[0].input_ids)))
  at = rows[0].offset
  scores[0, [at, at + 2, at + 3]], scores[1, [at + 2, at + 3, 0]] = [5, 4, 3], [5, 4, 9]
  found = squad_answers.answers([one], rows, [{'span': scores}], own)[0]
  assert [(x['text'], x['start_logit'], x['end_logit']) for x in found['nbest']] == [
      ('c', 4, 5), ('c d', 4, 4), ('d', 3, 4)]  # 'a b c' is too long, 'd c' ends before it begins
  assert found['text'] == 'c' and sum(x['probability'] for x in found['nbest']) == pytest.approx(1)
  everything = dataclasses.replace(own, own=Windows(max_query_length=8, n_best=1, max_answer_length=1))
  assert squad_answers.answers([one], rows, [{'span': scores}], everything)[0]['text'] == 'empty'


def test_no_answer_is_given_above_the_threshold_and_files_are_as_the_original_writes_them(tokenizer, tmp_path):
  questions = [question('x b c', 'b', name='one'), question('x b c', name='two')]
  for threshold, texts in ((-3.0, ['', '']), (0.0, ['b', '']), (4.0, ['b', 'x'])):
    own = encoding(tokenizer, null_threshold=threshold)
    rows = squad_windows.rows(questions, own)
    scores = [np.zeros((2, len(row.input_ids))) for row in rows]
    at = rows[0].offset
    scores[0][:, at + 1], scores[1][:, at], scores[1][:, 0] = 1, 1, 2.5
    found = squad_answers.answers(questions, rows, [{'span': x} for x in scores], own, unanswerable=True)
    assert [x['text'] for x in found] == texts and [x['null_odds'] for x in found] == [-2, 3]
  assert [x['best'] for x in found] == ['b', 'x']
  squad_answers.write(tmp_path, questions, found, 'validation')
  read = lambda name: json.loads((tmp_path / name).read_text())
  assert (tmp_path / 'predictions.json').read_text() == '{\n    "one": "b",\n    "two": "x"\n}\n'
  assert read('null_odds.json') == {'one': -2, 'two': 3}
  nbest = read('nbest_predictions.json')['two']
  assert list(nbest[0]) == ['text', 'probability', 'start_logit', 'end_logit'] and nbest[0]['text'] == ''
  assert len(nbest) == 7  # six spans, and none
  assert [question_answering.shown(*pair).right for pair in zip(questions, found)] == [True, False]


def test_pieces_of_sentencepiece_are_aligned_as_they_are(tmp_path):
  context = 'I saw a girl with a telescope, and 北京 (1895-1943) too.'
  (tmp_path / 'spm.model').write_bytes(training.train_sentencepiece(iter([context] * 20), 36, False))
  tokenizer = tokenizer_lib.load(tmp_path / 'spm.model', lower_case=False)
  for wanted in ('a girl with', '北京', '1895', 'too.'):
    assert answer(tokenizer, question(context, wanted, text='I saw'), length=60)['text'] == wanted


@pytest.mark.skipif(not (DATA / 'tasks').exists(), reason='../shared/data is not here')
@pytest.mark.parametrize('file, name, length, least', [
    ('squad/train-v1.1-head.json', 'uncased', 30, 99.2), ('cmrc2018/cmrc2018_trial.json', 'chinese', 500, 98.5)])
def test_real_answers_come_back(file, name, length, least):
  """Of a model without a fault. Words of which an answer is only a part, answers that do not align, and those that no
  window holds are all that is lost."""
  tokenizer = tokenizer_lib.load(DATA / f'vocab/bert-base-{name}-vocab.txt')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    questions = squad_examples.read(DATA / 'tasks' / file)[:1000]
  own = Encoding(tokenizer, 384 if name == 'uncased' else 512, (), Windows(max_answer_length=length))
  rows = squad_windows.rows(questions, own)
  found = squad_answers.answers(questions, rows, scores_of(rows), own)
  figures = squad_metrics.chinese_figures if name == 'chinese' else squad_metrics.figures
  assert figures(questions, found)['exact_match'] > least

# ---------------------------------------------------------------- files


def write(path, *questions, context='a b c'):
  path.write_text(json.dumps({'version': '1.1', 'data': [{'title': 't', 'paragraphs': [
      {'context': context, 'qas': list(questions)}]}]}))
  return path


def qa(name='one', answers=(('b', 2),), **more):
  return {'id': name, 'question': 'in?', 'answers': [{'text': text, 'answer_start': at} for text, at in answers]} | more


def test_answers_that_do_not_align_are_counted_and_named(tmp_path):
  path = write(tmp_path / 'train.json', qa('one'), qa('two', [('b', 0)]), qa('three', [('c', 4), ('x', -1)]),
               qa('four', [('c', 99)]), qa('five', [('', 0)]))
  with pytest.warns(UserWarning, match=r'train.json: 4 answers to 4 of 5 questions .*: two, three, four, five'):
    questions = question_answering.SQUAD.read(path, Windows())
  assert [[gold.start for gold in one.answers] for one in questions] == [[2], [None], [4, None], [None], [None]]
  assert question_answering.SQUAD.metrics(questions, [{'text': 'b'}] * 5)['unaligned_answers'] == 4
  assert squad_examples.stands_at('b  c', 'a b\nc', 2)  # other white space, as in run_squad.py



@pytest.mark.parametrize('content, match', [
    ('{"data": [', r'line 1, column 11: Expecting value'), ('[' * 100_000, 'no JSON that can be read'),
    (b'{"data":\n"\xff"}', r'line 2 is not UTF-8 \(byte 0xff\)'), ('[]', 'has no data: wanted a list'),
    ('{"data": {}}', r'has data \{\}: wanted a list'), ('{"data": []}', 'holds no question'),
    ('{"data": [{"paragraphs": [{"context": " ", "qas": []}]}]}', r'paragraphs\[0\] has an empty context'),
    ('{"data": [{"paragraphs": [{"context": 3, "qas": []}]}]}', r'data\[0\].paragraphs\[0\] has context 3: wanted'),
    ([qa(), qa()], r"qas\[1\] and .*qas\[0\] both have the id 'one'"),
    ([qa(answers=())], r'qas\[0\] \(one\) has no answer'),
    ([qa(id=7)], r'qas\[0\] has id 7: wanted text'), ([qa() | {'answers': {}}], r'has answers \{\}: wanted a list'),
    ([qa(answers=[('b', True)])], r'answers\[0\] has answer_start true: wanted a whole number'),
    ([qa(answers=[('b', '2')])], 'has answer_start "2"'), ([qa(answers=[(None, 2)])], 'has text null: wanted text'),
    (['x'], 'has no id'), ([qa(), {'id': 'two', 'question': 'q'}], r'qas\[1\] has no "answers", other questions have')])
def test_what_is_no_file_of_squad_is_refused_by_place(tmp_path, content, match):
  path = tmp_path / 'train.json'
  if isinstance(content, list):
    write(path, *content)
  else:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(DataError, match=match) as error:
    question_answering.SQUAD.read(path, Windows())
  assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_questions_without_an_answer_are_of_squad2(tmp_path):
  path = write(tmp_path / 'train.json', qa(is_impossible=False), qa('two', (), is_impossible=True), qa('three', ()))
  questions = question_answering.SQUAD2.read(path, Windows())
  assert [bool(one.answers) for one in questions] == [True, False, False]
  for wrong in (qa(is_impossible=True), qa(answers=(), is_impossible=False)):
    with pytest.raises(DataError, match='has is_impossible (true and 1|false and 0) answers'):
      question_answering.SQUAD2.read(write(path, wrong), Windows())
  unlabelled = question_answering.SQUAD.read(write(path, {'id': 'x', 'question': 'q'}), Windows())
  with pytest.raises(DataError, match=r'paragraphs\[0\].qas\[0\]: the questions to train on have no "answers"'):
    question_answering.no_labels(unlabelled)
  for task in (question_answering.SQUAD, question_answering.SQUAD2, question_answering.CMRC2018):
    with pytest.raises(DataError, match='the questions to evaluate on have no "answers"'):
      task.metrics(unlabelled, [{'text': 'x'}])

# ---------------------------------------------------------------- learnt


@pytest.fixture(scope='module')
def task(tmp_path_factory):
  """The answer is the one digit among letters."""
  folder, draw = tmp_path_factory.mktemp('squad'), random.Random(0)

  def one(i):
    text = draw.choice(LETTERS[26:])
    context = ' '.join(draw.sample([*draw.sample(LETTERS[:26], 11), text], 12))
    return {'context': context, 'qas': [qa(f'q{i}', [(text, context.index(text))])]}

  for name, count in (('train', 96), ('dev', 24)):
    (folder / f'{name}.json').write_text(json.dumps({'data': [{'paragraphs': [one(i) for i in range(count)]}]}))
  return folder


@pytest.fixture(scope='module')
def tuned(vocabulary, task, tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  model = cfg.Model(vocab_size=len(TOKENS), hidden_size=32, layers=1, heads=2, intermediate_size=32, max_positions=48,
                    activation='gelu_tanh', dtype='float32', hidden_dropout=0, attention_dropout=0)
  pretraining = cfg.Config(model=model, batch=cfg.BatchConfig(size=8, sequence_length=32, predictions=5))
  parameters.write_run(folder / 'pretrained', pretraining, vocabulary)
  config = Finetune(task='squad', epochs=10, batch=TaskBatch(size=16, max_length=24), model=model,
                    own=Windows(max_query_length=4, doc_stride=8), mesh=cfg.MeshShape(data=1),
                    optimizer=cfg.Optimizer(name='adamw', schedule='linear', peak_learning_rate=1e-2, warmup_steps=10),
                    run=cfg.Run(log_every=60, checkpoint_every=1000))
  _, figures = finetune.finetune(config, task, folder / 'run', folder / 'pretrained', devices=jax.devices()[:1],
                                 progress=False)
  return folder / 'run', figures


def test_answers_are_learnt(tuned):
  run_dir, figures = tuned
  assert figures['exact_match'] == figures['f1'] == 100 and figures['span_accuracy'] == 1
  assert figures['examples'] == 24 and figures['unaligned_answers'] == 0
  record = checkpoint.load(run_dir).record
  assert record.config.own == Windows(max_query_length=4, doc_stride=8)


def test_padding_has_no_share_in_the_loss(tuned, tokenizer):
  """The same rows in longer batches: the same scores, the same loss."""
  loaded = checkpoint.load(tuned[0])
  rows = squad_windows.rows([question('a b c d the e f', 'e')], encoding(tokenizer))
  graphdef, _, _ = build.describe(loaded.model, loaded.objective.heads)
  model = nnx.merge(graphdef, loaded.params)
  found = [objectives.term_sums(loaded.objective, model, batches.pad(rows, 2, T, tokenizer.pad_id, rows[0]), kept=True)
           for T in (len(rows[0].input_ids), 40)]
  (short, kept), (long, kept_long) = found
  assert short['span']['weight'] == 2
  assert float(short['span']['loss']) == pytest.approx(float(long['span']['loss']), abs=1e-5)
  T = kept['span'].shape[-1]
  np.testing.assert_allclose(kept['span'][0], kept_long['span'][0, :, :T], atol=1e-5)


def test_a_tuned_model_goes_to_other_formats_and_back(tuned, tmp_path):
  run_dir, _ = tuned
  told: list[str] = []
  wanted = checkpoint.load(run_dir)
  for format in ('huggingface', google.KIND):
    path = exchange.export(format, run_dir, tmp_path / format, tell=told.append)
    found = exchange.load(path)
    assert found.fresh == () and set(found.params) == {'encoder', 'ends'}
    jax.tree.map(np.testing.assert_array_equal, dict(found.params), dict(wanted.params))
  assert sum('start_logits ' in line and 'end_logits ' in line for line in told) == 2
  fields = json.loads((tmp_path / 'huggingface/config.json').read_text())
  assert fields['architectures'] == ['BertForQuestionAnswering']
  readme = (tmp_path / 'huggingface/README.md').read_text()
  assert 'pipeline_tag: question-answering' in readme and 'with its head of starts and ends, fine-tuned' in readme
  import tensorflow as tf
  shapes = tf.train.load_checkpoint(str(tmp_path / google.KIND / google.WEIGHTS)).get_variable_to_shape_map()
  assert shapes['cls/squad/output_weights'] == [2, 32] and shapes['cls/squad/output_bias'] == [2]

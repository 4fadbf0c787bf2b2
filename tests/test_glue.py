"""Each task of GLUE is read from files as GLUE ships them, what is wrong in them is named, submissions are right."""

import csv
import pathlib
import random
import re

import glue_files
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from bert_jax import sweep
from bert_jax.errors import ConfigError
from bert_jax.tasks import glue, metrics, sentences
from bert_jax.tasks.settings import Finetune
from input_pipeline import records

SHARED = pathlib.Path(__file__).parents[2] / 'shared/data/tasks'
needs_data = pytest.mark.skipif(not SHARED.exists(), reason='../shared/data/tasks is not here')
FOLDERS = {name: layout.name for name, layout in glue.LAYOUTS.items() if name not in ('xnli', 'sib200')}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return glue_files.write(tmp_path_factory.mktemp('glue') / 'glue')


def read(name, data, split, own=None):
  task = glue.TASKS[name]
  own = own or task.settings()
  part = task.find(data, split, own)
  return None if part is None else task.read(part, own)


def shuffled(task, examples, seed=0):
  """Answers in the shape that the task gives, most of them right."""
  draw = random.Random(seed)
  found = []
  for example in examples:
    if not isinstance(example.label, str):
      found.append({'label': (example.label or 0) + draw.uniform(-1, 1)})
    else:
      said = example.label if draw.random() < .7 else draw.choice(task.labels(examples))
      found.append({'label': said, 'probabilities': {word: float(word == said) for word in task.labels(examples)}})
  return found


@pytest.mark.parametrize('name', FOLDERS)
def test_all_splits_of_a_layout_are_read(name, root):
  task, layout = glue.TASKS[name], glue.LAYOUTS[name]
  for data in (root, root / layout.name):
    found = {split: read(name, data, split) for split in task.files}
    if name == 'mnli' and data != root:
      assert found.pop('ax') is None
      found['ax'] = read(name, root / 'diagnostic', 'ax')
    for split, examples in found.items():
      count = glue_files.TRAIN if split == 'train' else glue_files.HELD_OUT
      assert [example.text for example in examples] == [glue_files.texts(i)[0] for i in range(count)]
      pairs = [glue_files.texts(i)[1] for i in range(count)] if layout.pair else [None] * count
      assert [example.text_pair for example in examples] == pairs
      labels = [glue_files.label(layout.name, i) for i in range(count)]
      if split.startswith('test') or split == 'ax':
        assert {example.label for example in examples} == {None}
        assert [example.index for example in examples] == [str(i) for i in range(count)]
      else:
        assert [example.label for example in examples] == ([*map(float, labels)] if name == 'stsb' else labels)
    assert task.labels(found['train']) == layout.classes


@needs_data
@pytest.mark.parametrize('name, counts', [
    ('cola', (8551, 1043, 1063)), ('sst2', (67349, 872, 1821)), ('mrpc', (3668, 408, 1725)),
    ('stsb', (5749, 1500, 1379)), ('rte', (2490, 277, 3000)), ('wnli', (635, 71, 146))])
def test_rows_of_the_real_files(name, counts):
  splits = ('validation', 'test') if name == 'sst2' else ('train', 'validation', 'test')  # its training split is large
  for split, count in zip(splits, counts[-len(splits):]):
    examples = read(name, SHARED / 'glue', split)
    assert len(examples) == count
    assert split != 'test' or [example.index for example in examples] == [str(i) for i in range(count)]


@needs_data
@pytest.mark.parametrize('name, counts', [('mnli', (7107, 1777)), ('xnli', (8000, 2000)), ('sib200', (803, 201))])
@pytest.mark.parametrize('language', ['en', 'zh'])
def test_tasks_of_several_languages(name, counts, language):
  data, own = SHARED / f'babylm_{name}', glue.Language(language)
  for split, count in zip(('train', 'validation'), counts):
    examples = read(name, data, split, own)
    assert len(examples) == count and {example.label for example in examples} == set(glue.LAYOUTS[name].classes)
    assert any('\u4e00' <= letter <= '\u9fff' for letter in examples[0].text) == (language == 'zh')


def test_xnli_as_its_authors_ship_it(tmp_path):
  (tmp_path / 'multinli').mkdir()
  (tmp_path / 'multinli/multinli.train.zh.tsv').write_text(
      'premise\thypo\tlabel\n一 句 "\t二 句\tcontradictory\n三 句\t四 句\tneutral\n')
  header = 'language\tgold_label\tsentence1_binary_parse\tsentence1\tsentence2\tpromptID\n'
  (tmp_path / 'xnli.dev.tsv').write_text(header + 'zh\tneutral\t\t一\t二\t1\nen\tentailment\t\tone\ttwo\t1\n')
  own = glue.Language('zh')
  assert [example.label for example in read('xnli', tmp_path, 'train', own)] == ['contradiction', 'neutral']
  assert [example.text for example in read('xnli', tmp_path, 'validation', own)] == ['一']
  assert [example.text for example in read('xnli', tmp_path, 'validation')] == ['one']


def test_a_language_that_no_file_tells_is_refused(root, tmp_path):
  with pytest.raises(ConfigError, match='--language zh changes nothing as .*MNLI/train.tsv'):
    read('mnli', root, 'train', glue.Language('zh'))
  (tmp_path / 'sib200_en.train.jsonl').write_text('{"sentence": "a", "label": "travel"}')
  assert glue.TASKS['sib200'].find(tmp_path, 'train', glue.Language()).names == (f'{tmp_path}/sib200_en.train.jsonl',)
  with pytest.raises(ConfigError, match='no table for training in zh'):
    read('sib200', tmp_path, 'validation', glue.Language('zh'))


def test_what_is_odd_in_the_originals_is_passed_over_and_told(root, tmp_path, capfd):
  (tmp_path / 'QQP').mkdir()
  lines = (root / 'QQP/train.tsv').read_text().split('\n')
  lines[2:2] = ['7\t1\t2\tIs this cut off', 'here?\t1\t0']
  lines[5] = '3\t1\t2\t\tWhy?\t1'  # Quora has empty questions
  (tmp_path / 'QQP/train.tsv').write_text('\n'.join(lines))
  examples = read('qqp', tmp_path, 'train')
  assert len(examples) == glue_files.TRAIN and [example.text for example in examples].count('') == 1
  assert '2 rows have fewer cells' in capfd.readouterr().err
  (tmp_path / 'MNLI').mkdir()
  text = (root / 'MNLI/dev_matched.tsv').read_text()
  (tmp_path / 'MNLI/dev_matched.tsv').write_text(text + re.sub('entailment$', '-', text.split('\n')[1]) + '\n')
  assert len(read('mnli', tmp_path, 'validation')) == glue_files.HELD_OUT
  assert '1 examples on whose label' in capfd.readouterr().err


@pytest.mark.parametrize('name', FOLDERS)
def test_a_file_of_another_task_is_refused_by_name(name, root):
  for other in set(FOLDERS) - {name}:
    with pytest.raises(records.DataError) as raised:
      found = read(name, root / FOLDERS[other], 'train')
      pytest.fail(f'{name} takes {other} for its own, as {found[0]}')
    assert str(raised.value).startswith(f'{root}/{FOLDERS[other]}/train.tsv') and '\n' not in str(raised.value)

# ---------------------------------------------------------------- bad input

FAULTS = {
    'a column is renamed': (
        lambda lines: [lines[0].replace('sentence1', 'first'), *lines[1:]], "no column 'sentence1'.*'first'"),
    'a cell is missing': (
        lambda lines: [*lines[:3], lines[3].rpartition('\t')[0], *lines[4:]], 'line 4: a row of 3 cells'),
    'a cell too many': (lambda lines: [*lines[:3], lines[3] + '\tx', *lines[4:]], 'line 4: a row of 5 cells'),
    'an unknown label': (
        lambda lines: [*lines[:2], re.sub(r'\t[a-z_]+$', '\tperhaps', lines[2])], "line 3: .*'perhaps'"),
    'no label': (lambda lines: [*lines[:2], re.sub(r'\t[a-z_]+$', '\t', lines[2])], "line 3: the label .* is ''"),
    'no column of labels': (lambda lines: [line.rpartition('\t')[0] for line in lines], "no column 'label'"),
    'an empty text': (
        lambda lines: [lines[0], '0\t  \tsome text\tentailment'], "line 2: the text in column 'sentence1' is"),
    'a NUL byte': (lambda lines: [*lines[:4], lines[4].replace('s', '\0')], 'line 5: .*NUL'),
    'nothing but a header': (lambda lines: lines[:1], 'holds no example for train'),
    'nothing': (lambda lines: [], 'train.tsv is empty'),
    'two columns of a name': (
        lambda lines: [lines[0].replace('sentence2', 'sentence1'), *lines[1:]], 'no column|2 columns'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_what_is_wrong_in_a_file_is_named(fault, root, tmp_path):
  change, message = FAULTS[fault]
  lines = (root / 'RTE/train.tsv').read_text().rstrip('\n').split('\n')
  (tmp_path / 'train.tsv').write_text('\n'.join(change(lines)))
  with pytest.raises(records.DataError, match=message) as raised:
    read('rte', tmp_path, 'train')
  assert str(tmp_path / 'train.tsv') in str(raised.value) and '\n' not in str(raised.value)


def test_only_one_class_is_refused(root, tmp_path):
  (tmp_path / 'train.tsv').write_text((root / 'RTE/train.tsv').read_text().replace('not_entailment', 'entailment'))
  with pytest.raises(records.DataError, match="train.tsv: .*only the label 'entailment'"):
    glue.TASKS['rte'].labels(read('rte', tmp_path, 'train'))


@pytest.mark.parametrize('score', ['nan', 'inf', '', '5.01', '-0.1', 'high', '1_0', '3,5', '1e999'])
def test_a_score_is_a_number_from_0_to_5(score, root, tmp_path):
  lines = (root / 'STS-B/train.tsv').read_text().split('\n')
  lines[2] = lines[2].rpartition('\t')[0] + '\t' + score
  (tmp_path / 'train.tsv').write_text('\n'.join(lines))
  with pytest.raises(records.DataError, match='train.tsv, line 3.*(a number from 0 to 5|has no label)'):
    read('stsb', tmp_path, 'train')


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([('cola', 'CoLA'), ('mrpc', 'MRPC'), ('stsb', 'STS-B'), ('qqp', 'QQP'), ('mnli', 'MNLI')]),
       st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 3),
                          st.sampled_from([b'\t', b'\n', b'\xff', b'\x00', b'"', b'\r', b'\xe2\x80\xa8', b'1', b''])),
                min_size=1, max_size=3))
def test_a_damaged_file_is_read_or_refused_in_one_sentence(root, tmp_path, which, changes):
  name, folder = which
  data = (root / folder / 'train.tsv').read_bytes()
  for at, removed, added in changes:
    at %= len(data)
    data = data[:at] + added + data[at + removed:]
  (tmp_path / 'train.tsv').write_bytes(data)
  try:
    examples = read(name, tmp_path, 'train')
  except records.DataError as error:
    assert str(error).startswith(f'{tmp_path}/train.tsv') and '\n' not in str(error)
    assert re.search(r', line \d+|no column|is empty|holds no example|no label| columns ', str(error))
  else:
    assert all(isinstance(example.label, str | float) and '\0' not in example.text for example in examples)

# ---------------------------------------------------------------- figures and submissions


def test_the_official_figures_of_each_task(root):
  wanted = {'cola': {'matthews'}, 'mrpc': {'accuracy', 'f1'}, 'qqp': {'accuracy', 'f1'},
            'stsb': {'pearson', 'spearman'}}
  for name in FOLDERS:
    task, examples = glue.TASKS[name], read(name, root, 'train')
    found = task.metrics(examples, shuffled(task, examples))
    assert set(found) == wanted.get(name, {'accuracy'}) and task.best in found
    assert all(-1 <= value < 1 for value in found.values())
    right = [{'label': e.label, 'probabilities': dict.fromkeys(task.labels(examples), 0.)} for e in examples]
    assert all(value == pytest.approx(1) for value in task.metrics(examples, right).values())


def test_of_splits_beside_validation_only_official_figures_are_official():
  config = Finetune('mnli', labels=('entailment', 'neutral', 'contradiction'))
  own = {'loss': 1., 'task_loss': 1., 'task_accuracy': .5, 'accuracy': .5}
  beside = {f'mismatched_{name}': value for name, value in own.items()}
  assert sweep.official(config, own | beside | {'examples': 2, 'step': 3}) == {
      'accuracy': .5, 'mismatched_accuracy': .5}


def test_figures_by_their_definitions():
  labels, said = list('1101001011'), list('1001011010')
  count = lambda a, b: sum(x == a and y == b for x, y in zip(said, labels))
  tp, fp, fn, tn = count('1', '1'), count('1', '0'), count('0', '1'), count('0', '0')
  found = metrics.figures(['accuracy', 'f1', 'matthews'], said, labels, ('0', '1'))
  assert found['accuracy'] == pytest.approx((tp + tn) / 10)
  assert found['f1'] == pytest.approx(2 * tp / (2 * tp + fp + fn))
  assert found['matthews'] == pytest.approx(
      (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** .5)
  three = metrics.f1(list('aabbc'), list('abbbb'), ('a', 'b', 'c'))  # 2/3, 2/3, 0
  assert three == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
  assert metrics.figures(['pearson', 'spearman'], [1, 2, 3, 10], [1, 4, 9, 16]) == {
      'pearson': pytest.approx(76 / (50 * 129) ** .5), 'spearman': 1}


@pytest.mark.filterwarnings('error')
def test_figures_of_constant_answers_are_numbers():
  for name in ('accuracy', 'f1', 'matthews'):
    for said, labels in ((['0'] * 3, list('010')), (['0'] * 3, ['0'] * 3), (list('010'), ['0'] * 3)):
      assert 0 <= metrics.METRICS[name](said, labels, ('0', '1')) <= 1
  for name in ('pearson', 'spearman'):
    assert metrics.METRICS[name]([1., 1., 1.], [1., 2., 3.], ()) == metrics.METRICS[name]([1.], [2.], ()) == 0


@pytest.mark.parametrize('name', FOLDERS)
def test_a_submission_is_read_back(name, root, tmp_path):
  task, layout = glue.TASKS[name], glue.LAYOUTS[name]
  of_split = {'test': 'MNLI-m.tsv', 'test_mismatched': 'MNLI-mm.tsv', 'ax': 'AX.tsv'} if name == 'mnli' else {
      'test': f'{layout.name}.tsv'}
  for split in ('validation', *of_split):
    examples = read(name, root, split)
    labels = layout.classes
    answers = [{'label': labels[i % len(labels)], 'probabilities': dict.fromkeys(labels, .5)} if labels
               else {'label': 2.0 * i - 1} for i in range(len(examples))]
    directory = tmp_path / split
    directory.mkdir()
    task.write(directory, examples, answers, split)
    assert len((directory / f'{split}_results.tsv').read_text().splitlines()) == len(examples)
    if split == 'validation':
      assert [path.name for path in directory.iterdir()] == ['validation_results.tsv']
      continue
    with open(directory / of_split[split], newline='') as file:
      rows = list(csv.reader(file, delimiter='\t'))
    assert rows[0] == ['index', 'prediction'] and [row[0] for row in rows[1:]] == [str(i) for i in range(len(examples))]
    wanted = [a['label'] for a in answers] if labels else ['0.000', '1.000', '3.000', '5.000', '5.000']
    assert [row[1] for row in rows[1:]] == wanted


def test_what_is_wrong_is_told_before_the_training(root):
  examples = [sentences.Example('a', None, 'x', 'dev.csv, line 9')]
  with pytest.raises(records.DataError, match="dev.csv, line 9: the label 'x' is not among .*: 0, 1"):
    sentences.label_numbers(examples, ('0', '1'))

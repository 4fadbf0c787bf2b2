"""A user's own table is read whatever its kind, its columns are found or named, what is wrong is told with its line."""

import csv
import gzip
import io
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from bert_jax.errors import ConfigError
from bert_jax.tasks import sentences, splits, tables
from input_pipeline import records
from input_pipeline.text import tabular

ROWS = [{'text': f'some words {i}', 'label': ('yes', 'no')[i % 2]} for i in range(12)]


def of_table(rows, separator):
  stream = io.StringIO(newline='')
  writer = csv.writer(stream, delimiter=separator)
  writer.writerows([list(rows[0]), *(row.values() for row in rows)])
  return stream.getvalue().encode()


def of_columns(rows, kind):
  import pyarrow
  import pyarrow.parquet
  table, stream = pyarrow.Table.from_pylist(rows), io.BytesIO()
  if kind == 'parquet':
    pyarrow.parquet.write_table(table, stream)
  else:
    with pyarrow.ipc.new_file(stream, table.schema) as writer:
      writer.write_table(table)
  return stream.getvalue()


KINDS = {
    'csv': lambda rows: of_table(rows, ','), 'semicolon.csv': lambda rows: of_table(rows, ';'),
    'tsv': lambda rows: of_table(rows, '\t'), 'json': lambda rows: json.dumps(rows).encode(),
    'jsonl': lambda rows: '\n'.join(map(json.dumps, rows)).encode(),
    'parquet': lambda rows: of_columns(rows, 'parquet'),
    'arrow': lambda rows: of_columns(rows, 'arrow'),
    'jsonl.gz': lambda rows: gzip.compress('\n'.join(map(json.dumps, rows)).encode()),
}


def write(folder, files):
  folder.mkdir(exist_ok=True)
  for name, content in files.items():
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
  return folder


def read(data, split, task=sentences.CLASSIFICATION, **own):
  own = tables.Columns(**own)
  part = task.find(data, split, own)
  return None if part is None else task.read(part, own)


def pairs(examples):
  return [(example.text, example.label) for example in examples]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=('Cs', 'Cc')), max_size=8), st.sampled_from(
    ['', '"', ', ', '; ', '\n', '" "', '\u2028', '\x85'])), min_size=3, max_size=6), st.sampled_from([*KINDS]))
def test_what_was_written_is_read(tmp_path, parts, kind):
  """But for a table of tabs, in which quotes may mean themselves."""
  clean = (lambda text: re.sub('["\n]', '', text)) if kind == 'tsv' else lambda text: text
  rows = [{'text': clean(f'x{a}{b}{a}z'), 'label': str(number)} for number, (a, b) in enumerate(parts)]
  (tmp_path / f'all.{kind}').write_bytes(KINDS[kind](rows))
  table = tabular.read(tmp_path / f'all.{kind}')
  assert table.columns == ('text', 'label') and [row.cells for row in table.rows] == rows


@pytest.mark.parametrize('kind', KINDS)
def test_a_folder_has_a_file_for_each_split(kind, tmp_path):
  data = write(tmp_path, {f'{name}.{kind}': KINDS[kind](rows) for name, rows in (
      ('train', ROWS), ('my-dev', ROWS[:4]), ('test', [{'text': row['text']} for row in ROWS[:3]]))} | {
          'README.md': 'A text.', '.train.csv': 'text\n'})
  assert pairs(read(data, 'train')) == [(row['text'], row['label']) for row in ROWS]
  assert pairs(read(data, 'validation')) == [(row['text'], row['label']) for row in ROWS[:4]]
  assert pairs(read(data, 'test')) == [(row['text'], None) for row in ROWS[:3]]
  assert sentences.classes(read(data, 'train')) == ('no', 'yes')


def test_one_file_is_divided_by_a_hash_of_its_texts(tmp_path):
  rows = [{'sentence1': f'a {i % 150}', 'sentence2': 'b', 'label': i % 2} for i in range(300)]
  data = write(tmp_path, {'all.jsonl': KINDS['jsonl'](rows)})
  for name in (data, data / 'all.jsonl'):  # the folder holds only this
    train, validation = read(name, 'train'), read(name, 'validation', )
    assert len(train) + len(validation) == 300 and 10 < len(validation) < 60 and read(name, 'test') is None
    assert not {example.text for example in train} & {example.text for example in validation}
  shuffled = write(tmp_path / 'again', {'all.csv': KINDS['csv'](rows[::-1])})
  assert set(pairs(read(shuffled, 'validation'))) == set(pairs(validation))
  assert len(read(data, 'validation', validation_share=.5)) > 100
  alone = write(tmp_path / 'alone', {'train.csv': KINDS['csv'](rows)})
  assert set(pairs(read(alone, 'validation'))) == set(pairs(validation))
  few = write(tmp_path / 'few', {'train.csv': KINDS['csv'](rows[:1])})
  with pytest.raises(records.DataError, match='no example for validation.*--validation-share'):
    read(few, 'validation')


def test_no_example_is_in_both_splits_whichever_file_is_named(tmp_path):
  task, own = sentences.CLASSIFICATION, tables.Columns()
  rows = [{'text': f'a {i}', 'label': i % 2} for i in range(50)]
  data = write(tmp_path, {'mine.csv': KINDS['csv'](rows)})
  with pytest.raises(ConfigError, match='no table for validation beside mine.csv: '
                     'name it .`bert-jax finetune --files.validation'):
    splits.read(task, data, 'validation', own, other='mine.csv')
  write(data, {'held.csv': KINDS['csv'](rows[:5]), 'train.csv': KINDS['csv'](rows[5:])})
  assert len(splits.read(task, data, 'train', own, other='held.csv')) == 45  # nothing is held out of it
  assert len(splits.read(task, data, 'validation', own, 'held.csv')) == 5
  write(data, {'dev.csv': KINDS['csv'](rows[:5])})
  with pytest.raises(ConfigError, match='--validation-share 0.5 changes nothing'):
    read(data, 'train', validation_share=.5)
  with pytest.raises(ConfigError, match='has no test.csv or test.tsv'):
    splits.read(task, data, 'test', own)


def test_files_that_are_parts_of_a_split_are_read_together(tmp_path):
  data = write(tmp_path, {f'train-0000{i}-of-00002.parquet': KINDS['parquet'](ROWS[6 * i:6 * i + 6]) for i in (0, 1)})
  write(data, {'validation-00000-of-00001.parquet': KINDS['parquet'](ROWS[:3])})
  assert pairs(read(data, 'train')) == [(row['text'], row['label']) for row in ROWS]
  write(data, {'train-old.csv': KINDS['csv'](ROWS)})
  with pytest.raises(ConfigError, match='more than one table for train: .*--files.train'):
    read(data, 'train')
  with pytest.raises(ConfigError, match='has no table for training'):
    read(write(tmp_path / 'empty', {'notes.txt': 'x'}), 'train')
  with pytest.raises(ConfigError, match='--data .*nowhere does not exist'):
    read(tmp_path / 'nowhere', 'train')


@pytest.mark.parametrize('columns, chosen', [
    (['id', 'text', 'label'], ('text', '', 'label')),
    (['sentence2', 'sentence1', 'score'], ('sentence1', 'sentence2', 'score')),
    (['premise', 'hypothesis', 'gold_label', 'label'], ('premise', 'hypothesis', 'label')),
    (['question', 'sentence', 'label'], ('question', 'sentence', 'label')),
    (['Unnamed: 0', 'review', 'stars'], ('review', '', 'stars')), (['sentence'], ('sentence', '', ''))])
def test_columns_are_found_by_their_usual_names(columns, chosen, tmp_path, capfd):
  assert tables.choose(tabular.Table('x', tuple(columns), ()), tables.Columns()) == chosen
  rows = [dict.fromkeys(columns, str(i)) for i in range(2)]
  read(write(tmp_path, {'train.csv': KINDS['csv'](rows), 'test.csv': KINDS['csv'](rows)}),
       'train' if chosen[2] and len(rows) > 5 else 'test')
  assert not capfd.readouterr().err
  if chosen[2]:
    read(write(tmp_path, {'dev.csv': KINDS['csv'](rows)}), 'train')
    said = capfd.readouterr().err
    assert said.count('\n') == 1 and all(name in said for name in chosen)


def test_columns_are_named(tmp_path):
  rows = [{'body': f'text {i}', 'topic': 'x', 'kind': i % 2, 'more': 'and this'} for i in range(9)]
  data = write(tmp_path, {'train.csv': KINDS['csv'](rows), 'dev.csv': KINDS['csv'](rows)})
  with pytest.raises(records.DataError, match="train.csv has no column that is .*'body', 'topic'.*--text-column"):
    read(data, 'train')
  examples = read(data, 'train', text_column='body', text_pair_column='more', label_column='kind')
  assert [(e.text, e.text_pair, e.label) for e in examples] == [
      (row['body'], 'and this', str(row['kind'])) for row in rows]
  for column, flag in (('text_column', '--text-column'), ('text_pair_column', '--text-pair-column'),
                       ('label_column', '--label-column')):
    with pytest.raises(records.DataError, match=f"train.csv has no column 'bodi', which {flag} names; it has 'body'"):
      read(data, 'train', **{'text_column': 'body', column: 'bodi'})
  with pytest.raises(ConfigError, match='--text-pair-column body is the column of the first text'):
    read(data, 'train', text_column='body', text_pair_column='body')


def test_pairs_may_lack_their_second_text_in_json(tmp_path):
  lines = ('{"text": "a", "label": 1}\n{"text": "b", "text_pair": null, "label": 0}\n'
           '{"text": "c", "text_pair": "d", "label": 1}')
  examples = read(write(tmp_path, {'train.jsonl': lines, 'validation.jsonl': lines}), 'train')
  assert [example.text_pair for example in examples] == [None, None, 'd']


FAULTS = {
    'no text': ('{"text": null, "label": "x"}', "line 2: column 'text' holds nothing"),
    'text of another kind': ('{"text": ["a"], "label": "x"}', r"line 2: column 'text' holds \['a'\]"),
    'empty text': ('{"text": " ", "label": "x"}', "line 2: the text in column 'text' is empty"),
    'NUL': ('{"text": "a\\u0000", "label": "x"}', "line 2: the text in column 'text' has a NUL"),
    'half a character': ('{"text": "\\ud800", "label": "x"}', 'line 2 has .*half of a character'),
    'no label': ('{"text": "a"}', 'line 2 has no label'),
    'null label': ('{"text": "a", "label": null}', 'line 2 has no label'),
    'NaN label': ('{"text": "a", "label": NaN}', 'line 2 has no label'),
    'label of a kind': ('{"text": "a", "label": {}}', 'line 2: the label .* is {}'),
    'fraction': ('{"text": "a", "label": 1.5}', 'line 2: the label .* is 1.5.*regression'),
    'no object': ('["a"]', 'line 2: JSON of the kind list'), 'no JSON': ('{"text": "a"', 'line 2: not a JSON line'),
    'not UTF-8': (b'{"text": "\xff", "label": "x"}', 'line 2 is not UTF-8'),
    'too deep': ('[' * 100_000, 'line 2: JSON that is nested too deeply'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_what_is_wrong_in_a_line_is_named(fault, tmp_path):
  bad, message = FAULTS[fault]
  good = b'{"text": "a", "label": "x"}\n'
  write(tmp_path, {'train.jsonl': good + (bad if isinstance(bad, bytes) else bad.encode()), 'dev.jsonl': good})
  with pytest.raises(records.DataError, match=message) as raised:
    read(tmp_path, 'train')
  assert str(tmp_path / 'train.jsonl') in str(raised.value) and '\n' not in str(raised.value)


@pytest.mark.parametrize('number', ['"abc"', '"nan"', 'Infinity', 'true', '[1]', '"1_0"', '"0x10"', '1' * 400])
def test_a_regression_wants_numbers(number, tmp_path):
  lines = f'{{"text": "a", "label": 1}}\n{{"text": "a", "label": {number}}}'
  data = write(tmp_path, {'train.jsonl': lines, 'dev.jsonl': '{"text": "a", "label": " 2.50 "}'})
  with pytest.raises(records.DataError, match='train.jsonl, line 2: the label .* wanted a number'):
    read(data, 'train', sentences.REGRESSION)
  assert read(data, 'validation', sentences.REGRESSION)[0].label == 2.5


@pytest.mark.parametrize('name, content, message', [
    ('train.csv', 'text,label\n"a,1\nb,2\n', r'line 2: no row of a table \(it ends inside quotes\)'),
    ('train.csv', 'text,label\na,1\nb,2,3\n', 'line 3: a row of 3 cells in a table of 2'),
    ('train.csv', 'text,text\na,1\n', "2 columns 'text'"), ('train.csv', '', 'train.csv is empty'),
    ('train.csv', 'text,label\n', 'no example for train'),
    ('train.tsv', b'text\tlabel\n\xe9\t1\n', 'line 2 is not UTF-8'),
    ('train.csv', 'text,label\n"a\nb\n",1\n,2\n', "line 5: the text in column 'text' is empty"),
    ('train.json', '[{"text": "a"}, 3]', 'element 2: JSON of the kind int'),
    ('train.csv', b'\x89PNG\r\n\x1a\n\0\0', 'is an image'),
    ('train.csv.gz', gzip.compress(b'text,label\n' * 9, mtime=0)[:-5], 'damaged'),
    ('train.parquet', b'PAR1\x15damaged', 'damaged'),
    ('train.json', 'Once upon a time there was a table.', 'is no table')])
def test_what_is_wrong_in_a_table_is_named(name, content, message, tmp_path):
  data = write(tmp_path, {name: content, 'dev.csv': 'text,label\na,1\n'})
  with pytest.raises(records.DataError, match=message) as raised:
    read(data, 'train')
  assert str(tmp_path / name) in str(raised.value) and '\n' not in str(raised.value)


def test_labels_that_are_no_classes_are_refused():
  made = lambda labels: [sentences.Example('a', None, label, f't.csv, line {i}') for i, label in enumerate(labels)]
  assert sentences.classes(made('ab' * 30)) == ('a', 'b')
  for labels in (map(str, range(30)), [f'{i % 25 / 5}' for i in range(60)]):
    with pytest.raises(records.DataError, match='t.csv: .*`regression` takes numbers'):
      sentences.classes(made(labels))
  with pytest.raises(records.DataError, match="t.csv: .*only the label 'a'"):
    sentences.classes(made('aaa'))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([kind for kind in KINDS if kind != 'semicolon.csv']),
       st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 9), st.binary(max_size=3)), min_size=1, max_size=2))
def test_a_damaged_table_is_read_or_refused_in_one_sentence(tmp_path, kind, changes):
  data = KINDS[kind](ROWS)
  for at, removed, added in changes:
    at %= len(data)
    data = data[:at] + added + data[at + removed:]
  folder = write(tmp_path / kind, {f'train.{kind}': data, 'dev.csv': 'text,label\na,1\n'})
  try:
    examples = read(folder, 'train')
  except records.DataError as error:
    assert f'train.{kind}' in str(error) and '\n' not in str(error)
  else:
    assert all(isinstance(example.label, str) and example.text.strip() for example in examples)

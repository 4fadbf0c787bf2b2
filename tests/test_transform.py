"""A step of the user's own: what it gives is what is trained on, what it drops is counted, what it raises is told."""

import collections
import json
import pathlib
import re

import corpora
import pytest

from input_pipeline import counts as counts_lib, records
from input_pipeline.prepare import corpus, settings
from input_pipeline.text import formats, sources
from input_pipeline.vocabulary import training

STEP = '''
import dataclasses

import beside_it


def drop(document):
  return None if int(document.id) % 3 == 0 else document


def double(document):
  texts = document.text.split('\\n', 1)
  yield from (dataclasses.replace(document, id=f'{document.id}/{number}', text=text)
              for number, text in enumerate(texts))


def shout(document):
  from package import later
  return [dataclasses.replace(document, text=beside_it.upper(document.text) + later.END)]


def fail(document):
  if document.id == '7':
    raise KeyError('no such thing')
  return document


def wrong(document):
  return document.text


def no_text(document):
  return dataclasses.replace(document, text=7)


def leave(document):
  raise SystemExit(3)


def empty(document):
  return dataclasses.replace(document, text=' ')


value = 7
'''
ENGINES = [{}, {'workers': 2}, pytest.param({'engine': 'beam'}, marks=pytest.mark.beam)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A working directory with the step in a package of it, and what the step imports."""
  monkeypatch.chdir(tmp_path)
  pathlib.Path('package').mkdir()
  pathlib.Path('package/step.py').write_text(STEP)
  pathlib.Path('package/later.py').write_text('END = " one two"')
  pathlib.Path('beside_it.py').write_text('upper = str.upper')
  pathlib.Path('step.py').write_text(STEP)
  pathlib.Path('vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  pathlib.Path('a.jsonl').write_text(''.join(
      json.dumps({'id': number, 'text': corpora.text_of(number) + '\nThe end.'}) + '\n' for number in range(1, 40)))
  return tmp_path


def prepared(transform: str | None, output: str = 'data', **chosen) -> records.Manifest:
  manifest = corpus.prepare(settings.Prepare(
      'a.jsonl', 'vocab.txt', output, sequence_length=32, reading=formats.Options(transform=transform), **chosen),
      progress=False)
  assert counts_lib.documents(manifest).unexplained == 0
  return manifest


@pytest.mark.parametrize('engine', ENGINES, ids=['one process', 'two processes', 'Beam'])
def test_none_one_and_several(folder, monkeypatch, engine):
  """Each is as if the input had been so."""
  monkeypatch.setattr(sources, 'CHUNK_BYTES', 5000)
  texts = {number: corpora.text_of(number) + '\nThe end.' for number in range(1, 40)}
  wanted = {
      'drop': [(number, text) for number, text in texts.items() if number % 3],
      'double': [(f'{number}/{place}', part) for number, text in texts.items()
                 for place, part in enumerate(text.split('\n', 1))],
      'shout': [(number, text.upper() + ' one two') for number, text in texts.items()]}
  manifests = {name: prepared(f'package.step:{name}', name, **engine) for name in wanted}
  for name, documents in wanted.items():
    pathlib.Path('a.jsonl').write_text(''.join(
        json.dumps({'id': id_, 'text': text}) + '\n' for id_, text in documents))
    assert prepared(None, f'{name} again').splits == manifests[name].splits
  assert manifests['drop'].counts['transformed_away'] == 13 and manifests['drop'].counts['pages'] == 39
  assert manifests['double'].counts['made_more'] == 39 and manifests['double'].counts['pages'] == 78


def test_another_function_or_file_is_other_data(folder):
  first = prepared('step:drop')
  assert prepared('step:drop') == first and first.settings['transform'].startswith('step:drop ')
  for change in (lambda: 'step:shout', lambda: pathlib.Path('step.py').write_text(STEP + '# more') and 'step:drop'):
    with pytest.raises(records.DataError, match='--output data holds data of other settings .transform: '):
      prepared(change())
  assert prepared('step:drop', overwrite=True).splits == first.splits


@pytest.mark.parametrize('engine', ENGINES, ids=['one process', 'two processes', 'Beam'])
def test_what_it_raises_is_one_sentence_and_its_traceback_is_in_a_file(folder, engine):
  with pytest.raises(records.DataError, match="--transform step:fail, of the document '7' of a.jsonl .*KeyError: 'no su"
                     ) as error:
    prepared('step:fail', **engine)
  log = pathlib.Path(str(error.value).rpartition('(more in ')[2].rstrip(')'))
  assert '\n' not in str(error.value) and "raise KeyError('no such thing')" in log.read_text()
  log.unlink()
  assert not pathlib.Path('data').exists()


@pytest.mark.parametrize('name, message', [
    ('wrong', "TypeError: it gave str '"), ('no_text', 'the text of what it gave is no text'),
    ('leave', 'SystemExit: 3')])
def test_what_it_should_not_give(folder, name, message):
  with pytest.raises(records.DataError, match=message) as error:
    list(sources.documents('a.jsonl', options=formats.Options(transform=f'step:{name}')))
  assert f"--transform step:{name}, of the document '1' of a.jsonl" in str(error.value)


@pytest.mark.parametrize('name, message', [
    ('step', 'wanted package.module:function'), ('step.py:drop', 'there is no step/py.py'),
    ('no_such:drop', 'there is no no_such.py in the working'), ('step:nothing', 'there is no function nothing in '),
    ('step:value', 'there is no function value'), ('broken:f', 'broken cannot be imported .SyntaxError'),
    ('failing:f', 'failing cannot be imported .ZeroDivisionError'), ('no.such:f', 'there is no no/such.py'),
    ('sys:exit', 'there is no sys.py')])
def test_what_cannot_be_called_is_known_at_once(folder, name, message):
  pathlib.Path('broken.py').write_text('def f(:')
  pathlib.Path('failing.py').write_text('1 / 0')
  with pytest.raises(records.DataError, match=message) as error:
    prepared(name)
  assert '\n' not in str(error.value) and f'--transform {name}' in str(error.value)


def test_all_dropped_adds_up(folder):
  counts = collections.Counter()
  assert list(sources.documents('a.jsonl', counts=counts, options=formats.Options(transform='step:empty'))) == []
  assert counts['pages'] == counts['transformed_away'] == 39 and counts['documents'] == 0


def test_a_vocabulary_is_of_what_it_gives(folder):
  made = lambda transform, output: training.train_from(training.VocabularySettings(
      'a.jsonl', output, size=60, lower_case=False, reading=formats.Options(transform=transform)))
  tokens = made('step:shout', 'shouted.txt').tokens
  assert re.search('[A-Z]', ''.join(tokens[5:])) and made(None, 'own.txt').tokens != tokens


def test_of_two_steps_of_one_name_the_one_of_the_working_directory_counts(folder, tmp_path_factory, monkeypatch):
  prepared('step:drop')
  other = tmp_path_factory.mktemp('other')
  (other / 'step.py').write_text('def drop(document):\n  return document if document.id == "1" else None')
  text = str(folder / 'a.jsonl')
  monkeypatch.chdir(other)
  assert [one.id for one in sources.documents(text, options=formats.Options(transform='step:drop'))] == ['1']

"""What an evaluation cannot judge by is refused by file and place, before there is a run."""

import dataclasses
import json

import pytest

from bert_jax import examples
from bert_jax.errors import ConfigError
from bert_jax.tasks import settings
from bert_jax.tasks.settings import Files
from bert_jax.tasks.table import TASKS
from input_pipeline.errors import DataError

QUESTION = json.dumps({'data': [{'paragraphs': [{'context': 'a b', 'qas': [{'id': 'one', 'question': 'a?'}]}]}]})
# Of each kind of task: what its held-out file is called, what is in it, and where that has no answer.
UNLABELLED = {
    'classification': ('v.jsonl', '\n{"text": "a"}\n', 'v.jsonl, line 2'),
    'regression': ('v.csv', 'text,score\na,\n', 'v.csv, line 2'),
    'rte': ('v.tsv', 'index\tsentence1\tsentence2\n0\ta\tb\n', 'v.tsv, line 2'),
    'squad': ('v.json', QUESTION, r'v.json: data\[0\].paragraphs\[0\].qas\[0\]'),
    'squad2': ('v.json', QUESTION, r'v.json: data\[0\].paragraphs\[0\].qas\[0\]'),
    'swag': ('v.jsonl', '{"startphrase": "a", "choices": ["b", "c"]}\n', 'v.jsonl, line 1'),
    'wnut17': ('v.conll', 'a\nb\n', 'v.conll has words without tags'),
    'word_tags': ('v.conll', 'a\nb\n', 'v.conll has words without tags'),
    'ner_features': ('v.conll', 'a\nb\n', 'v.conll has words without tags')}


def held_out(task, directory, name):
  return examples.held_out_splits(dataclasses.replace(settings.of(task), files=Files(validation=name)), directory, None)


@pytest.mark.parametrize('task', UNLABELLED)
def test_what_cannot_be_judged_is_refused(tmp_path, task):
  name, content, place = UNLABELLED[task]
  (tmp_path / name).write_text(content)
  with pytest.raises(DataError, match=place) as caught:
    held_out(task, tmp_path, name)
  assert str(tmp_path) in str(caught.value) and '\n' not in str(caught.value)


def test_every_task_tells():
  assert all(task.labelled is not len for task in TASKS.values())


@pytest.mark.parametrize('task', UNLABELLED)
def test_a_file_that_is_not_there_is_named(tmp_path, task):
  with pytest.raises((ConfigError, DataError), match='nowhere'):
    held_out(task, tmp_path, 'nowhere')

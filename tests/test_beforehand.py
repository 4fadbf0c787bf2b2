"""What a run will need later is looked at before its first step: nothing is written where it is not there."""

import contextlib
import dataclasses
import os
import subprocess
import sys

import jax
import pytest

from bert_jax import config as cfg, program as program_lib, rewind, train
from bert_jax.errors import ConfigError
from bert_jax.tasks import conll, multiple_choice, sentences, squad_examples
from bert_jax.tasks.table import TASKS
from input_pipeline import records
from input_pipeline.errors import DataError
from input_pipeline.vocabulary import tokenizer
from launch import cli
from tests import synthetic

VOCABULARY = 64


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Without a validation split."""
  return synthetic.write_data(tmp_path_factory.mktemp('beforehand') / 'data', vocabulary_size=VOCABULARY, pieces=100,
                              documents=10, sequence_length=16)


def begin(config, data, run_dir):
  return train.train(config, data, run_dir, devices=jax.devices()[:1], progress=False)


def test_a_validation_split_that_is_not_there(tiny, data, tmp_path):
  config = dataclasses.replace(tiny, mesh=cfg.MeshShape(data=1), run=dataclasses.replace(tiny.run, evaluate_every=5))
  with pytest.raises(DataError, match='validation'):
    begin(config, data, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('changes, asked', [
    ({}, dict(back=rewind.parse(3, None))), ({}, dict(back=rewind.parse(3, '4:6'))),
    ({}, dict(back=rewind.parse(0, None), initialize_from='run')), ({}, dict(initialize_from='gone')),
    ({}, dict(longer_positions='repeat')), ({'run': dict(evaluate_every=2)}, {}),
    ({'model': dict(vocab_size=63)}, {}), ({'batch': dict(size=7), 'mesh': dict(data=2)}, {}),
    ({'batch': dict(sequence_length=17)}, {}), ({'run': dict(microbatches=3)}, {})])
def test_what_is_refused_leaves_nothing(tiny, data, tmp_path, changes, asked):
  """Also not the folder; and where one is there that is empty, it stays so."""
  config = dataclasses.replace(tiny, mesh=cfg.MeshShape(data=1))
  (tmp_path / 'empty').mkdir()
  for place in ('empty', 'run'):
    with pytest.raises((ConfigError, DataError)) as refused:
      changed = {name: dataclasses.replace(getattr(config, name), **change) for name, change in changes.items()}
      train.train(dataclasses.replace(config, **changed), data, tmp_path / place, devices=jax.devices()[:1],
                  progress=False, **asked)
    assert '\n' not in str(refused.value)
  assert not list((tmp_path / 'empty').iterdir()) and not (tmp_path / 'run').exists()


def test_a_vocabulary_that_no_export_can_write(tiny, tmp_path, monkeypatch):
  """Empty lines at its end are tokens for us, and none for the tokenizers library."""
  tokens = [*synthetic.vocabulary_tokens(VOCABULARY - 2), '', '']
  monkeypatch.setattr(synthetic, 'vocabulary_tokens', lambda size: tokens)
  data = synthetic.write_data(tmp_path / 'data', vocabulary_size=VOCABULARY, pieces=100, documents=10,
                              sequence_length=16)
  with pytest.raises(DataError, match='vocabulary cannot be written|empty'):
    begin(dataclasses.replace(tiny, mesh=cfg.MeshShape(data=1)), data, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_mark_of_byte_order_is_read_over(tmp_path):
  text = '\n'.join(synthetic.vocabulary_tokens(VOCABULARY)) + '\n'
  plain, marked = tmp_path / 'plain' / records.VOCABULARY, tmp_path / 'marked' / records.VOCABULARY
  for path, mark in ((plain, b''), (marked, b'\xef\xbb\xbf')):
    path.parent.mkdir()
    path.write_bytes(mark + text.encode())
  one, other = tokenizer.load(plain), tokenizer.load(marked)
  assert one.tokens == other.tokens and one.sha256 == other.sha256 and one.pad_id == other.pad_id == 0


def test_programs_that_may_not_be_compiled(tiny):
  with jax.disable_jit(), pytest.raises(ConfigError, match='JAX_DISABLE_JIT is set'):
    program_lib.of(tiny, jax.devices()[:1])


def test_devices_that_are_not_there():
  """cuda, where JAX knows of no such device: an assertion of JAX's is what it says."""
  program = ('import jax\nfrom launch import cli\ntry: jax.devices()\n'
             'except Exception as error: print(cli.no_device(error))')
  ran = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=300, check=True,
                       env=os.environ | {'JAX_PLATFORMS': 'nowhere'})
  assert ran.stdout.startswith("JAX_PLATFORMS is 'nowhere', and JAX finds no such device here")
  assert cli.no_device(RuntimeError('a bug')) is None


# An example of each kind, and the right answer to it.
LEARNT = [
    (lambda i: sentences.Example(f'a {i}', None, 'xy'[i % 2]), lambda one: {'label': one.label}),
    (lambda i: sentences.Example(f'a {i}', None, float(i)), lambda one: {'label': one.label}),
    (lambda i: multiple_choice.Choice('a', ('b', 'c'), i % 2), lambda one: {'choice': one.answer}),
    (lambda i: squad_examples.Question(str(i), 'a?', 'b 中 c', (squad_examples.Gold('b', 0),)),
     lambda one: {'text': 'b', 'text_or_nothing': 'b', 'null_score': -1., 'best_text': 'b', 'null_difference': -1.}),
    (lambda i: conll.Sentence(('a', 'b'), ('B-X', 'O'), 0, (1, 2), 'train.conll'),
     lambda one: {'tags': list(one.tags)})]
LIBRARIES = 'sklearn', 'scipy', 'seqeval', 'nltk'


@pytest.mark.parametrize('name', TASKS)
def test_what_a_tasks_figures_need_is_looked_for_before_the_training(name, monkeypatch):
  """Where libraries are not installed, the labels of the training examples are not even read, or figures need none."""
  for module in [found for found in sys.modules if found.split('.')[0] in LIBRARIES] + list(LIBRARIES):
    monkeypatch.setitem(sys.modules, module, None)
  task, tried = TASKS[name], 0
  for make, answer in LEARNT:
    examples = [make(i) for i in range(4)]
    with contextlib.suppress(AttributeError, TypeError, ValueError, DataError):
      try:
        task.labels(examples)
      except ModuleNotFoundError:
        tried += 1
        continue
      with contextlib.suppress(KeyError):  # of what an answer has more: nothing was imported for it
        assert task.metrics(examples, [answer(one) for one in examples])
      tried += 1
  assert tried


def test_a_suite_looks_at_all_its_checkpoints_and_its_output_first(tmp_path):
  from bert_jax.benchmark import tasks as suite
  (tmp_path / 'file').write_text('mine')
  (tmp_path / next(iter(suite.SUITES['quick'].values())).folder).mkdir(parents=True)
  for checkpoints, output, match in ((['gone'], 'out', 'gone is no checkpoint'), (['gone'], 'file', '--output')):
    with pytest.raises((ConfigError, DataError), match=match):
      suite.run([str(tmp_path / name) for name in checkpoints], 'quick', tmp_path, tmp_path / output, suite.Amount())
  assert not (tmp_path / 'out').exists()

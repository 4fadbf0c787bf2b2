"""What a run will need later is looked at before its first step: nothing is written where it is not there."""

import dataclasses
import os
import subprocess
import sys

import jax
import pytest

from bert_jax import config as cfg, program as program_lib, train
from bert_jax.errors import ConfigError
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

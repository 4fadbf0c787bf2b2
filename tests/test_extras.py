"""A core install answers each command that needs an extra by one sentence that names it."""

import configparser
import os
import pathlib
import re
import subprocess
import sys

import pytest

from launch import extras
from launch.commands.table import COMMANDS
from tests import corpora

ROOT = pathlib.Path(__file__).parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / 'setup.cfg')
# Packages whose module has another name.
MODULES = {'google_cloud_storage': 'google.cloud.storage', 'tensorflow_cpu': 'tensorflow',
           'scikit_learn': 'sklearn'}
INCLUDED = {'input': 'text'}  # an extra that brings all of another one, which is named in its place
BROUGHT = {'scipy'}  # by jax, whatever the extras
NEVER = {'google_cloud_storage_control'}  # which Orbax imports by itself, where a bucket has real folders


def modules(extra: str) -> set[str]:
  lines = SETUP['options.extras_require'][extra].strip().splitlines()
  names = (re.match(r'[\w-]+', line)[0].replace('-', '_') for line in lines if not line.startswith('jax['))
  return {MODULES.get(name, name) for name in names} - NEVER


def call(folder: pathlib.Path, *argv: str, absent: str = '') -> tuple[int, str]:
  absent = absent or ','.join(extras.EXTRAS.keys() - BROUGHT)
  environment = os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
  command = [sys.executable, '-P', ROOT / 'tests/without.py', absent, *argv]
  process = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=200)
  return process.returncode, process.stderr


@pytest.mark.parametrize('extra', ['input', 'sample', 'chinese', 'crawl', 'beam', 'ray', 'plot', 'gcs', 'tasks', 'onnx',
                                   'peers', 'tensorboard', 'text', 'wandb', 'mlflow'])
def test_every_package_of_an_extra_is_known(extra):
  known = {name for name, brought in extras.EXTRAS.items() if brought in (extra, INCLUDED.get(extra))}
  assert known == modules(extra)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
  """A folder with a text, a vocabulary, data and a run."""
  folder = tmp_path_factory.mktemp('core')
  corpora.make(folder)
  code, errors = call(folder, 'pretrain', 'tiny', '--data', 'data', '--run-dir', 'run', '--model.vocab-size',
                      str(len(corpora.TOKENS)), '--model.hidden-size', '16', '--model.layers', '1',
                      '--model.heads', '2', '--model.intermediate-size', '16', '--model.dtype', 'float32',
                      '--long.share', '0', '--batch.size', '8', '--batch.sequence-length', '32',
                      '--batch.predictions', '5', '--run.steps',
                      '2', '--optimizer.warmup-steps', '1', '--distributed.no-auto', absent='-')
  assert code == 0, errors
  return folder


NEEDS = {
    'vocabulary': (['--input', 'corpus.txt', '--kind', 'sentencepiece', '--output', 'spm.model'], 'text'),
    'prepare': (['--input', 'corpus.txt', '--vocabulary', 'vocab.txt', '--output', 'new'], 'text'),
    'inspect': (['gs://bucket/data'], 'gcs'),
    'pretrain': (['tiny', '--data', 'data', '--run-dir', 'gs://bucket/run'], 'gcs'),
    'finetune': (['classification', '--data', 'data', '--run-dir', 'gs://bucket/run', '--checkpoint', 'run'], 'gcs'),
    'evaluate': (['gs://bucket/run'], 'gcs'),
    'predict': (['gs://bucket/run', '--output', 'new'], 'gcs'),
    'verify': (['gs://bucket/run'], 'gcs'),
    'plot': (['run'], 'plot'),
    'report': (['run'], 'plot'),
    'runs': (['gs://bucket/runs'], 'gcs'),
    'tensorboard': (['run'], 'tensorboard'),
    'export': (['run', '--output', 'gs://bucket/export'], 'gcs'),
    'import': (['gs://bucket/run', '--output', 'new'], 'gcs'),
    'fill-mask': (['gs://bucket/run', 'one [MASK]'], 'gcs'),
    'features': (['gs://bucket/run', 'one'], 'gcs'),
    'score': (['gs://bucket/run', 'one'], 'gcs'),
    'next-sentence': (['gs://bucket/run', 'one', 'two'], 'gcs'),
    'benchmark': (['input', 'data', '--batch.sequence-length', '32', '--batch.predictions', '5',
                   '--peer', 'huggingface', '--seconds', '0.1'], 'peers'),
}


WITHOUT = {  # commands that need no extra, and what they do in a core install
    'launch-files': ['launch'],
    'supervise': ['--dry-run', '--', 'pretrain', 'tiny', '--data', 'data', '--run-dir', 'run-2'],
    'selftest': ['tiny'],
    'plan': ['tiny', '--batch-per-chip', '2', '--sequence-length', '32', '--json'],
}


@pytest.mark.slow
@pytest.mark.parametrize('command', COMMANDS)
def test_a_core_install_names_the_extra_or_does_the_work(folder, command):
  if command in WITHOUT:
    code, errors = call(folder, command, *WITHOUT[command])
    assert code == 0, errors
    return
  argv, extra = NEEDS[command]
  code, errors = call(folder, command, *argv)
  assert code == 2 and 'Traceback' not in errors, errors
  said = [line for line in errors.splitlines() if line.startswith('bert-jax:') and '→' not in line]
  assert len(said) == 1 and f'[{extra}]' in said[0], errors

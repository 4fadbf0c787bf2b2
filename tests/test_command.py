"""The command works where packages of others are called like ours, and says so where one stands in our place."""

import configparser
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests import corpora

ROOT = pathlib.Path(__file__).parent.parent


def call(*argv, before=(), house=ROOT, cwd=None) -> tuple[int, str, str]:
  """The command in a process that looks for packages in `before` first."""
  path = os.pathsep.join(map(str, [*before, house, *sys.path]))
  process = subprocess.run([sys.executable, '-P', '-m', 'bert_jax_command', *map(str, argv)], cwd=cwd,
                           env=os.environ | {'PYTHONPATH': path}, capture_output=True, text=True, timeout=300)
  return process.returncode, process.stdout, process.stderr


@pytest.fixture
def foreign(tmp_path) -> pathlib.Path:
  """A folder with packages that are not ours."""
  for name in ('launch', 'input_pipeline'):
    (tmp_path / 'foreign' / name).mkdir(parents=True)
    (tmp_path / 'foreign' / name / '__init__.py').write_text(f'raise RuntimeError("the {name} of others")\n')
  return tmp_path / 'foreign'


@pytest.mark.parametrize('where', ['on the path', 'in the working directory'])
def test_packages_of_others_do_not_disturb(foreign, tmp_path, where):
  (tmp_path / 'corpus.txt').write_text('\n\n'.join(corpora.text_of(i) for i in range(20)))
  (tmp_path / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  prepare = ['prepare', '--input', tmp_path / 'corpus.txt', '--vocabulary', tmp_path / 'vocab.txt', '--sequence-length',
             '32', '--workers', '2', '--output', tmp_path / 'data']  # workers are processes of their own
  options = {'before': [foreign]} if where == 'on the path' else {'cwd': foreign}
  code, _, errors = call(*prepare, **options)
  assert code == 0 and (tmp_path / 'data/manifest.json').exists(), errors
  code, _, errors = call('evaluate', tmp_path, **options)
  assert code == 2 and 'is no run directory' in errors


@pytest.mark.parametrize('theirs', ['raise RuntimeError("no node")\n', '__path__ = []\n'])
def test_a_package_in_the_place_of_ours_is_named(tmp_path, theirs):
  """As of two packages installed to one folder, the later of which overwrites."""
  house = tmp_path / 'house'
  for name in ('bert_jax', 'input_pipeline', 'launch'):
    shutil.copytree(ROOT / name, house / name, ignore=shutil.ignore_patterns('__pycache__'))
  shutil.copy(ROOT / 'bert_jax_command.py', house)
  assert call('--help', house=house)[0] == 0
  (house / 'launch' / '__init__.py').write_text(theirs)
  code, _, errors = call('--help', house=house)
  assert code == 2 and 'Traceback' not in errors
  assert 'the launch' in errors and 'environment of its own' in errors


def test_what_an_index_shows_links_to_nothing_that_is_only_here():
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  shown = (ROOT / setup['metadata']['long_description'].removeprefix('file: ')).read_text()
  assert not re.search(r'\]\((?!https?://)', shown)

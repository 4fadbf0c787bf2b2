"""The commands of README.md and docs/guide.md, line by line as in a fresh shell, on a small corpus; and their Python.

The lines run as they stand, in one folder, which at first holds what the text says that a reader brings: `corpus`,
`sentences.txt` and `reviews.csv`. Four stand for what needs a network or minutes: `git clone` makes a folder of links
to this working tree, `python -m venv` a folder with bin/activate, `source` puts that folder's bin on the path, and `pip
install` puts `bert-jax` into it, which finds only the packages of the extras that the line names. Lines of `bert-jax`
that need no shell run in one process, which imports once. A block that is not run says why in a comment before it.
"""

import collections
import dataclasses
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import stat
import subprocess
import sys

import jax
import numpy as np
import pytest

from launch import extras
from tests import buckets, compiling, pages
from tests.test_extras import BROUGHT, SETUP, modules

SHELL = re.compile(r'[<>|&;$*~`]')  # in a line outside of quotes: a shell reads it
SYLLABLES = [onset + rest for onset in 'b d f g k l m n p r s t v z st tr ch'.split()
             for rest in 'a e i o u an er on'.split()]


def write_corpus(folder: pathlib.Path) -> None:
  """A megabyte of made-up words, as frequent as words are: 600 documents in three files, a sentence a line."""
  draw = random.Random(0)
  words = list(dict.fromkeys(''.join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(6000)))
  weights = [1 / (rank + 5) for rank in range(len(words))]
  sentence = lambda: ' '.join(draw.choices(words, weights, k=draw.randint(5, 20))).capitalize() + '.'
  documents = ['\n'.join(sentence() for _ in range(draw.randint(5, 30))) for _ in range(600)]
  (folder / 'corpus').mkdir()
  for part in range(3):
    (folder / f'corpus/{part}.txt').write_text('\n\n'.join(documents[part::3]))
  reviews = (f'"{sentence()}",{draw.choice(["good", "bad"])}' for _ in range(64))
  (folder / 'reviews.csv').write_text('\n'.join(['text,label', *reviews]) + '\n')
  (folder / 'sentences.txt').write_text('\n'.join(sentence() for _ in range(5)) + '\n')


@dataclasses.dataclass
class Shell:
  """A fresh shell in a folder; `path`: what its lines put before PATH."""
  folder: pathlib.Path
  path: list[str] = dataclasses.field(default_factory=list)
  absent: str = ''
  said: collections.Counter = dataclasses.field(default_factory=collections.Counter)  # lines run, by command

  @property
  def environment(self) -> dict[str, str]:
    known = os.pathsep.join([*self.path, os.environ['PATH']])
    return os.environ | {'PATH': known, 'PYTHONPATH': os.pathsep.join([str(pages.ROOT), *sys.path]),
                         'XLA_FLAGS': compiling.FLAGS, 'PYTHONWARNINGS': 'ignore'}

  def run(self, text: str) -> None:
    """These lines, none of which may fail."""
    waiting: list[list[str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
      words = shlex.split(line, comments=True)
      needs_shell = SHELL.search(re.sub(r"'[^']*'", '', line))
      if words[:1] == ['bert-jax'] and not needs_shell:
        waiting.append(words[1:])
      elif words:
        self.in_one(waiting)
        waiting = []
        stands_for = STAND_INS.get(tuple(words[:2])) or STAND_INS.get((words[0],))
        if stands_for:
          stands_for(self, words)
        else:
          done = subprocess.run(['bash', '-ec', line], cwd=self.folder, env=self.environment, capture_output=True,
                                text=True, timeout=buckets.SECONDS)
          assert done.returncode == 0, (line, done.stderr)
          self.said[words[0]] += 1
    self.in_one(waiting)

  def in_one(self, commands: list[list[str]]) -> None:
    """Lines of `bert-jax`, in turn in one process."""
    if not commands:
      return
    assert shutil.which('bert-jax', path=os.pathsep.join(self.path)), f'bert-jax is not on the path: {commands[0]}'
    argv = [word for command in commands for word in (*command, '+')]
    done = subprocess.run([sys.executable, '-P', pages.ROOT / 'tests/without.py', self.absent, *argv], cwd=self.folder,
                          env=self.environment, capture_output=True, text=True, timeout=buckets.SECONDS)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for command, result in zip(commands, found):
      assert result['code'] == 0, ('bert-jax', *command, result['errors'])
      self.said[command[0]] += 1
    assert len(found) == len(commands), done.stderr


def clone(shell: Shell, words: list[str]) -> None:
  target = shell.folder / words[-1]
  target.mkdir()
  for path in pages.ROOT.iterdir():
    if not path.name.startswith('.'):
      (target / path.name).symlink_to(path)


def venv(shell: Shell, words: list[str]) -> None:
  assert words[:3] == ['python3', '-m', 'venv'], words
  (shell.folder / words[3] / 'bin').mkdir(parents=True)
  (shell.folder / words[3] / 'bin/activate').touch()


def source(shell: Shell, words: list[str]) -> None:
  assert (shell.folder / words[1]).is_file(), words
  shell.path.insert(0, str((shell.folder / words[1]).parent))


def install(shell: Shell, words: list[str]) -> None:
  found = re.fullmatch(r'(\./[\w./-]+)\[([\w,-]+)\]', words[-1])
  assert words[1:3] == ['install', '-e'] and found, words
  named = set(found[2].split(','))
  assert (shell.folder / found[1] / 'setup.cfg').exists() and named <= set(SETUP['options.extras_require']), words
  there = BROUGHT.union(*map(modules, named))
  shell.absent = ','.join(module for module in extras.EXTRAS if module not in there)
  command = pathlib.Path(shell.path[0]) / 'bert-jax'
  command.write_text(f'#!/bin/sh\nexec {sys.executable} -P {pages.ROOT}/tests/without.py {shell.absent} "$@"\n')
  command.chmod(command.stat().st_mode | stat.S_IXUSR)


STAND_INS = {('git', 'clone'): clone, ('python3', '-m'): venv, ('source',): source, ('pip', 'install'): install}


def to_run(page: pathlib.Path, language: str, mark: tuple[str, str] | None = None) -> list[pages.Block]:
  return [block for block in pages.blocks(page) if block.language == language and block.mark == mark]


def run_python(page: pathlib.Path, mark: tuple[str, str] | None = None) -> dict:
  """The names that the page's Python leaves."""
  names: dict = {'__name__': page.name}
  for block in to_run(page, 'python', mark):
    exec(compile('\n' * block.line + block.text, str(page), 'exec'), names)
  return names


@pytest.fixture(scope='module')
def shell(tmp_path_factory) -> Shell:
  """The folder in which all of the README's commands were run."""
  shell = Shell(tmp_path_factory.mktemp('reader'))
  write_corpus(shell.folder)
  shell.run('\n'.join(block.text for block in to_run(pages.README, 'sh')))
  return shell


def test_the_readmes_commands(shell):
  assert {'vocabulary', 'prepare', 'inspect', 'pretrain', 'evaluate', 'plot', 'export', 'fill-mask', 'features',
          'finetune'} <= set(shell.said) and shell.said['evaluate'] == 2
  run = shell.folder / 'runs/mine'
  assert (run / 'export/model.safetensors').exists() and (run / 'loss.png').exists()
  assert json.loads((run / 'evaluation.json').read_text())['step'] == 50
  assert json.loads((shell.folder / 'runs/reviews/evaluation.json').read_text())['accuracy'] >= 0
  assert np.load(shell.folder / 'vectors.npy').shape == (5, 128)


def test_the_readmes_python(shell, monkeypatch):
  monkeypatch.chdir(shell.folder)
  assert run_python(pages.README)['vectors'].shape == (2, 128)


def test_the_python_page(shell, monkeypatch):
  monkeypatch.chdir(shell.folder)
  names = run_python(pages.PYTHON)
  assert len(names['tokens'][0]) == 3 and names['nats'].shape == (2,) and 0 <= names['follows'][0] <= 1
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(names['gradient']))


@pytest.mark.peers
def test_the_readmes_transformers(shell, monkeypatch):
  monkeypatch.chdir(shell.folder)
  names = run_python(pages.README, ('run', 'peers'))
  assert names['scores'].shape[-1] == 4096


@pytest.mark.docs
def test_the_guides_commands(shell):
  """They go on in the README's folder, in a shell of their own with the same environment."""
  new = dataclasses.replace(shell, said=collections.Counter())
  new.run('\n'.join(block.text for block in to_run(pages.GUIDE, 'sh')))
  assert {'vocabulary', 'prepare', 'pretrain', 'report', 'verify'} <= set(new.said)
  assert (shell.folder / 'runs/longer/checkpoints/20').exists() and (shell.folder / 'runs/tiny/checkpoints/20').exists()


def test_marks_are_of_blocks_that_somebody_runs():
  """Each mark says why a block is not run, or where: `peers` is test_the_readmes_transformers."""
  marks = {block.mark for page in pages.PAGES for block in pages.blocks(page) if block.mark}
  assert {where for what, where in marks if what == 'run'} == {'peers'}
  assert all(len(why.split()) > 2 for what, why in marks if what == 'not run')


def test_a_line_that_fails_is_told(tmp_path):
  shell = Shell(tmp_path)
  with pytest.raises(AssertionError, match='not on the path'):
    shell.run('bert-jax inspect nowhere')
  shell.run("git clone ADDRESS there\npython3 -m venv there/.venv\nsource there/.venv/bin/activate\n"
            "pip install -e './there[input]'  # words")
  assert 'matplotlib' in shell.absent and 'tensorflow' not in shell.absent
  with pytest.raises(AssertionError, match='nowhere'):
    shell.run('bert-jax inspect nowhere')
  shell.run('bert-jax help > said.txt')
  assert 'pretrain' in (tmp_path / 'said.txt').read_text()
  with pytest.raises(AssertionError, match='exit 3'):
    shell.run('exit 3')

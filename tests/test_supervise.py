"""A supervised run comes through kill -9 and ends as one that nobody disturbed; what cannot be mended ends it."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import corpora
import pytest

import bert_jax
from bert_jax import checkpoint, metrics
from bert_jax.errors import STOPPED

ROOT = pathlib.Path(bert_jax.__file__).parents[1]
SETTINGS = ['--model.hidden-size', '16', '--model.layers', '1', '--model.heads', '2', '--model.intermediate-size', '16',
            '--model.dtype', 'float32', '--long.share', '0', '--batch.size', '8', '--batch.sequence-length', '32',
            '--batch.predictions', '5', '--optimizer.warmup-steps', '1', '--distributed.no-auto',
            '--run.log-every', '1', '--run.checkpoint-every', '5']
BERT_JAX = [sys.executable, '-P', '-m', 'bert_jax_command']
ENVIRONMENT = os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('supervised')
  corpora.make(folder)
  return folder


def command(run: str, steps: int, *more: str) -> list[str]:
  return ['pretrain', 'tiny', '--data', 'data', '--run-dir', run, '--model.vocab-size', str(len(corpora.TOKENS)),
          *SETTINGS, '--run.steps', str(steps), *more]


def start(folder: pathlib.Path, *argv: str, fruitless: int = 3) -> subprocess.Popen:
  supervised = ['supervise', '--wait-seconds', '0.1', '--fruitless', str(fruitless), '--', *argv]
  return subprocess.Popen([*BERT_JAX, *supervised], cwd=folder, text=True, stderr=subprocess.PIPE, env=ENVIRONMENT)


def child_of(process: subprocess.Popen) -> int:
  return int(pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()[0])


def wait_for(what, seconds: float = 120):
  end = time.monotonic() + seconds
  while not what():
    assert time.monotonic() < end
    time.sleep(0.05)


@pytest.mark.slow
def test_kill_9_costs_only_time(folder):
  done = subprocess.run([*BERT_JAX, *command('alone', 60)], cwd=folder, timeout=300, capture_output=True,
                        env=ENVIRONMENT)
  assert done.returncode == 0, done.stderr
  process = start(folder, *command('killed', 60))
  for least in (5, 20):
    wait_for(lambda least=least: (folder / 'killed/checkpoints' / str(least) / 'manifest.json').exists())
    os.kill(child_of(process), signal.SIGKILL)
  said = process.communicate(timeout=300)[1]
  assert process.returncode == 0 and said.count('starting again') in (1, 2), said
  one, other = (checkpoint.load(folder / name) for name in ('alone', 'killed'))
  same = [(a == b).all() for a, b in zip(leaves(one.params), leaves(other.params), strict=True)]
  assert all(same) and one.step == other.step == 60
  losses = lambda name: [(line['step'], line['loss']) for line in metrics.read(folder / name)]
  assert losses('alone') == losses('killed')


def leaves(tree) -> list:
  import jax
  return jax.device_get(jax.tree.leaves(tree))


@pytest.mark.slow
def test_sigterm_is_handed_on_and_what_comes_again_ends_it(folder):
  process = start(folder, *command('stopped', 100_000))
  wait_for(lambda: (folder / 'stopped/checkpoints/5/manifest.json').exists())
  process.send_signal(signal.SIGTERM)
  said = process.communicate(timeout=120)[1]
  assert process.returncode == STOPPED and 'starting again' not in said, said
  for argv, code in ((command('wrong', 10, '--batch.size', '0'), 2),
                     (command('stopped', 100_000, '--run.seed', '1'), 8)):
    process = start(folder, *argv)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == code and 'starting again' not in said, said


@pytest.mark.slow
def test_it_gives_up_where_nothing_new_comes(folder):
  """A run that is killed before its first checkpoint, each time."""
  process = start(folder, *command('never', 100_000, '--run.checkpoint-every', '100000'), fruitless=1)
  for _ in range(2):
    wait_for(lambda: pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split() != [])
    time.sleep(2)
    os.kill(child_of(process), signal.SIGKILL)
    time.sleep(0.5)
  said = process.communicate(timeout=120)[1]
  assert process.returncode == 137 and said.count('starting again') == 1 and 'giving up' in said, said

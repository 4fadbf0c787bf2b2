"""SIGTERM at any moment: what is new is saved at once, and who goes on ends as one that nobody disturbed."""

import dataclasses
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
from input_pipeline.prepare import corpus

ROOT = pathlib.Path(bert_jax.__file__).parents[1]
ENVIRONMENT = os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path]), 'JAX_PLATFORMS': 'cpu',
                            'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1',
                            'XLA_FLAGS': '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'}
SETTINGS = ['--model.hidden-size', '16', '--model.layers', '1', '--model.heads', '2', '--model.intermediate-size', '16',
            '--model.dtype', 'float32', '--batch.size', '8', '--batch.sequence-length', '32',
            '--batch.predictions', '5', '--long.share', '0.5', '--long.sequence-length', '64',
            '--long.predictions', '10', '--optimizer.warmup-steps', '1', '--distributed.no-auto',
            '--run.steps', '16', '--run.log-every', '1', '--run.checkpoint-every', '5', '--run.evaluate-every', '6',
            '--run.evaluation-rows', '16']
SOON = 30  # seconds; of a machine with much else to do


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('stopping')
  prepare, _ = corpora.make(folder)
  for length in (32, 64):
    corpus.prepare(dataclasses.replace(prepare, sequence_length=length, output=str(folder / 'both' / str(length))),
                   progress=False)
  return folder


def command(run: str) -> list[str]:
  return [sys.executable, '-P', '-m', 'tests.stopping', 'pretrain', 'tiny', '--data', 'both', '--run-dir', run,
          '--model.vocab-size', str(len(corpora.TOKENS)), *SETTINGS]


def to_the_end(folder: pathlib.Path, run: str) -> tuple[list, list]:
  """Goes on to the last step; the log's lines without what clocks say, and the parameters."""
  done = subprocess.run(command(run), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
  assert done.returncode == 0, done.stderr
  lines = [{name: value for name, value in line.items() if name.endswith(('loss', 'accuracy', 'step', 'kind'))}
           for line in metrics.read(folder / run)]
  import jax
  return lines, [leaf.tobytes() for leaf in jax.device_get(jax.tree.leaves(checkpoint.load(folder / run).params))]


@pytest.fixture(scope='module')
def undisturbed(folder):
  lines, parameters = to_the_end(folder, 'undisturbed')
  assert [line['step'] for line in lines if line['kind'] == 'validation'] == [6, 12]
  return lines, parameters


@pytest.mark.slow
@pytest.mark.parametrize('place, first, steps', [
    ('evaluation', 3, (6,)), ('data', 3, (2, 3, 4, 5, 6)), ('compilation', 3, (8,)), ('save', 3, (6,)),
    ('save', 8, (11,)), ('finish', 1, (16,))])
@pytest.mark.parametrize('signals', [1, 2])
def test_a_signal_at_any_moment(place, first, steps, signals, folder, undisturbed):
  run = f'{place}{first}{signals}'
  process = subprocess.Popen(command(run), cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env=ENVIRONMENT | {'AT': place, 'FROM': str(first)})
  assert process.stdout.readline() == 'at it\n', process.communicate()[1]
  begin = time.monotonic()
  for _ in range(signals):
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
  said = process.communicate(timeout=300)[1]
  print(f'{place}: {time.monotonic() - begin:.1f} s')
  assert process.returncode == STOPPED or place == 'finish', said
  assert time.monotonic() - begin < SOON, said
  with checkpoint.manager(folder / run) as checkpoints:
    assert checkpoints.latest_step() in steps, said
  assert to_the_end(folder, run) == undisturbed

"""A run that is killed -9, wherever the kill falls, and started again leaves what an undisturbed one leaves."""

import dataclasses
import json
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from bert_jax import checkpoint, config as cfg, metrics, recipes, run_directory, train
from tests import synthetic

VOCABULARY, STEPS = 120, 60
TIMES = ('tokens_per_second', 'steps_per_second', 'data_stall_share', 'minutes', 'mfu')
PROGRAM = '''
import json, sys
from bert_jax import config as cfg, train
train.train(cfg.from_json(cfg.Config, json.loads(sys.argv[1])), sys.argv[2], sys.argv[3], progress=False)
'''


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('killed') / 'data', vocabulary_size=VOCABULARY, pieces=300,
                              documents=30, sequence_length=32, splits=('train', 'validation'))


# What is due falls on different steps, some of it on the same; LAMB tells its trust ratios in lines of their own.
CONFIG = cfg.Config(
    model=recipes.model_of(1, 64, vocab_size=VOCABULARY, dtype='float32'),
    batch=cfg.BatchConfig(size=8, sequence_length=32, predictions=5),
    optimizer=cfg.Optimizer(name='lamb', peak_learning_rate=1e-3, warmup_steps=5), mesh=cfg.MeshShape(data=1),
    run=cfg.Run(steps=STEPS, log_every=7, checkpoint_every=4, evaluate_every=6, evaluation_rows=16))


@pytest.fixture(scope='module')
def straight(data, tmp_path_factory):
  run_dir = tmp_path_factory.mktemp('straight') / 'run'
  train.train(CONFIG, data, run_dir, devices=jax.devices()[:1], progress=False)
  return run_dir


def lines(run_dir):
  """Those of metrics.jsonl as they stand there, less what is a time."""
  found = [json.loads(line) for line in (run_dir / run_directory.LOG).read_text().splitlines()]
  return [{name: value for name, value in line.items() if name not in TIMES} for line in found]


def assert_same(run_dir, straight):
  assert lines(run_dir) == lines(straight)
  mine, theirs = (checkpoint.load(path) for path in (run_dir, straight))
  assert mine.step == theirs.step == STEPS
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), mine.params, theirs.params)
  strangers = {path.name for path in run_dir.iterdir()} ^ {path.name for path in straight.iterdir()}
  assert not {name for name in strangers if not name.endswith('.tmp')}


def test_what_was_due_at_a_saved_step_is_made_up(straight, data, tmp_path):
  """A signal comes where an evaluation is due: the step is saved, and the process ends."""
  for step in (12, 36):
    train.train(CONFIG, data, tmp_path / 'run', devices=jax.devices()[:1], progress=False, stop=step.__eq__)
    evaluated = [line['step'] for line in metrics.read(tmp_path / 'run') if line['kind'] == metrics.VALIDATION]
    assert evaluated == list(range(6, step, 6))
  train.train(CONFIG, data, tmp_path / 'run', devices=jax.devices()[:1], progress=False)
  assert_same(tmp_path / 'run', straight)


def test_a_run_that_was_killed_as_it_began_begins_again(straight, data, tmp_path):
  record = run_directory.read(straight)
  files = run_directory.vocabulary_files(straight)
  assert files
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / run_directory.LOCK).touch()
  (tmp_path / 'run' / f'.{run_directory.CONFIG}.77.tmp').write_text('{')
  assert run_directory.check(tmp_path / 'run', record) is None
  run_directory.open_run(tmp_path / 'run', record, files)
  for name in files:
    (tmp_path / 'run' / name).unlink()  # config.json is written first
  assert run_directory.open_run(tmp_path / 'run', record, files) == record
  assert run_directory.vocabulary_files(tmp_path / 'run') == files


@pytest.mark.slow
@pytest.mark.parametrize('kills', [30])
def test_kills_at_random_moments_change_nothing(straight, data, tmp_path, kills):
  """Of a run that ends before all kills have come, another one is begun."""
  moments, number = random.Random(time.time_ns()), 0
  settings = json.dumps(dataclasses.asdict(CONFIG))
  run_dir = tmp_path / f'run{number}'
  while kills:
    process = subprocess.Popen([sys.executable, '-c', PROGRAM, settings, str(data), str(run_dir)])
    begin = time.monotonic()
    while process.poll() is None and not (run_dir / run_directory.LOG).exists() and time.monotonic() - begin < 300:
      time.sleep(0.01)
    wait = moments.uniform(0, 3)
    print(f'kill {kills} after {wait:.2f} s')
    try:
      process.wait(wait)
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      kills -= 1
    if process.wait() == 0 or not kills:
      if process.returncode:
        subprocess.run([sys.executable, '-c', PROGRAM, settings, str(data), str(run_dir)], check=True)
      assert_same(run_dir, straight)
      number += 1
      run_dir = tmp_path / f'run{number}'

"""A clock that is set forth or back, or stands, changes nothing: intervals go by one that nobody sets."""

import ast
import pathlib
import time

import jax
import numpy as np
import pytest

import bert_jax
from bert_jax import checkpoint, config as cfg, metrics, recipes, train
from input_pipeline import locking
from input_pipeline.errors import LockError
from tests import synthetic

ROOT = pathlib.Path(bert_jax.__file__).parents[1]
CLOCK = time.time
# Who asks what time it is: for people to read, or to tell one reading of a pipe from another.
LABELS = {'bert_jax/board.py': 2, 'bert_jax/metrics.py': 1, 'input_pipeline/input_files.py': 1,
          'input_pipeline/locking.py': 1}


def test_intervals_are_measured_by_a_clock_that_nobody_sets():
  found: dict[str, int] = {}
  for path in (path for room in ('bert_jax', 'launch', 'input_pipeline') for path in (ROOT / room).rglob('*.py')):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Call) and ast.unparse(node.func) in (
          'time.time', 'time.time_ns', 'time.gmtime', 'time.localtime', 'datetime.now', 'datetime.datetime.now',
          'datetime.datetime.utcnow'):
        name = str(path.relative_to(ROOT))
        found[name] = found.get(name, 0) + 1
  assert found == LABELS


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # of the save that Orbax gives up
def test_a_run_whose_clock_is_set_while_it_saves(tmp_path, monkeypatch):
  """Forth by a day in one save, back by two in the next."""
  data = synthetic.write_data(tmp_path / 'data', vocabulary_size=64, pieces=60, documents=12, sequence_length=16)
  config = cfg.Config(
      model=recipes.model_of(1, 64, vocab_size=64, dtype='float32'), mesh=cfg.MeshShape(data=1),
      batch=cfg.BatchConfig(size=8, sequence_length=16, predictions=4), optimizer=cfg.Optimizer(warmup_steps=2),
      run=cfg.Run(steps=12, log_every=1, checkpoint_every=3, keep_checkpoints=9, max_minutes=30.0))
  begin = lambda name: train.train(config, data, tmp_path / name, devices=jax.devices()[:1], progress=False)
  sound = begin('sound')
  offset, jumps, complete = [0.0], [86400.0, -2 * 86400.0], checkpoint.complete

  def jumping(*arguments):
    if jumps:
      offset[0] += jumps.pop(0)
    return complete(*arguments)

  monkeypatch.setattr(time, 'time', lambda: CLOCK() + offset[0])
  monkeypatch.setattr(checkpoint, 'complete', jumping)
  disturbed = begin('disturbed')
  assert not jumps and abs(time.time() - CLOCK() + 86400) < 1  # it was set, twice
  assert sound.reason == disturbed.reason == 'steps'
  for a, b in zip(jax.tree.leaves(sound.state), jax.tree.leaves(disturbed.state), strict=True):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
  with checkpoint.manager(tmp_path / 'disturbed') as checkpoints:
    saved = checkpoints.all_steps()
  assert saved[-1] == 12 and len(saved) >= 3
  lines = metrics.read(tmp_path / 'disturbed')
  assert all(0 <= line['minutes'] < 30 and line['steps_per_second'] > 0 for line in lines)


@pytest.mark.parametrize('clock', [lambda: 1e9, lambda: CLOCK() - 3600 * CLOCK() % 7])
def test_the_owner_of_a_lock_lives_whatever_its_clock_says(clock, tmp_path, monkeypatch):
  """One that stands still, and one that jumps; the other looks from another host."""
  monkeypatch.setattr(locking, 'BEAT_SECONDS', 0.2)
  monkeypatch.setattr(locking, 'SETTLE_SECONDS', 0.01)
  monkeypatch.setattr(time, 'time', clock)
  first, second = (locking.Lock(tmp_path / 'run' / 'lock.json') for _ in range(2))
  for lock, host in ((first, 'here'), (second, 'there')):
    lock._lock_file = lambda path: False
    lock.owner['host'] = host
  first.acquire()
  try:
    for _ in range(2):
      with pytest.raises(LockError, match='is at work there'):
        second.acquire()
    first.check()
  finally:
    first.release()
  second.acquire()  # the control
  second.release()

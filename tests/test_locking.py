"""One process at a time in a directory: refused by name, taken over from the dead, lost by the silent."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest

from bert_jax import config as cfg, run_directory, train
from input_pipeline import locking
from input_pipeline.errors import LockError
from tests import synthetic

ROOT = pathlib.Path(__file__).parent.parent
HOLD = '''
import sys, time
from input_pipeline import locking, storage
lock = locking.Lock(storage.path(sys.argv[1]))
if sys.argv[2] == 'beat':
  locking.BEAT_SECONDS = 0.2
  lock._lock_file = lambda path: False
lock.acquire()
print('held', flush=True)
time.sleep(60)
'''


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'run' / run_directory.LOCK


def holder(path, kind: str) -> subprocess.Popen:
  """Another process that has the lock."""
  process = subprocess.Popen([sys.executable, '-c', HOLD, str(path), kind], stdout=subprocess.PIPE, text=True, cwd=ROOT)
  assert process.stdout.readline() == 'held\n'
  return process


def lock_of(path, kind: str) -> locking.Lock:
  lock = locking.Lock(path)
  if kind == 'beat':  # as on a disk that knows no locks
    lock._lock_file = lambda path: False
  return lock


@pytest.mark.parametrize('kind', ['system', 'beat'])
def test_a_second_process_is_refused_by_name_until_the_first_is_dead(path, kind, monkeypatch):
  monkeypatch.setattr(locking, 'BEAT_SECONDS', 0.2)
  monkeypatch.setattr(locking, 'SETTLE_SECONDS', 0.01)
  process = holder(path, kind)
  try:
    with pytest.raises(LockError, match=f'process {process.pid} on .*, since 20.* is at work there') as caught:
      lock_of(path, kind).acquire()
    assert caught.value.exit_code == 2 and '\n' not in str(caught.value)
  finally:
    process.send_signal(signal.SIGKILL)
    process.wait()
  assert path.exists()
  lock = lock_of(path, kind)
  lock.acquire()  # at once
  assert json.loads(path.read_text())['pid'] == os.getpid()
  lock.check()
  lock.release()
  assert not path.exists()


@pytest.mark.parametrize('kind', ['system', 'beat'])
def test_a_lock_that_was_released_is_free(path, kind, monkeypatch):
  monkeypatch.setattr(locking, 'SETTLE_SECONDS', 0.01)
  for _ in range(3):
    lock = lock_of(path, kind)
    lock.acquire()
    assert path.exists()
    lock.release()
    lock.release()
  assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize('content', ['', '[]', 'mine', '{"host": "elsewhere", "pid": 1}', '{"beat": null}'])
def test_a_silent_owner_elsewhere_is_waited_for_and_then_replaced(path, content, monkeypatch, capsys):
  monkeypatch.setattr(locking, 'BEAT_SECONDS', 0.2)
  monkeypatch.setattr(locking, 'SETTLE_SECONDS', 0.01)
  path.parent.mkdir()
  path.write_text(content)
  lock, start = lock_of(path, 'beat'), time.monotonic()
  lock.acquire()
  assert time.monotonic() - start > locking.SILENCE * 0.2
  assert 'waiting up to' in capsys.readouterr().err
  lock.release()


def test_an_owner_elsewhere_that_lives_is_not_replaced(path, monkeypatch):
  monkeypatch.setattr(locking, 'BEAT_SECONDS', 0.3)
  first = lock_of(path, 'beat')
  first.owner = first.owner | {'host': 'elsewhere'}
  first.acquire()
  with pytest.raises(LockError, match='on elsewhere'):
    lock_of(path, 'beat').acquire()
  first.release()


def test_an_owner_that_was_replaced_learns_of_it(path, monkeypatch):
  """In a bucket, where a write says whether the object is still what it was; here a disk plays that part."""
  monkeypatch.setattr(locking, 'BEAT_SECONDS', 0.1)
  monkeypatch.setattr(locking, 'SETTLE_SECONDS', 0.01)
  first = lock_of(path, 'beat')
  first._write = lambda generation: first_time(first, generation)

  def first_time(lock, generation):
    if path.exists() and json.loads(path.read_text())['owner'] != lock.owner['owner']:
      return False
    path.write_bytes(lock._content())
    return True

  first.acquire()
  path.write_text(json.dumps({'owner': 'another', 'host': 'elsewhere', 'pid': 7, 'since': 'noon'}))
  deadline = time.monotonic() + 10
  while first.lost is None and time.monotonic() < deadline:
    time.sleep(0.02)
  with pytest.raises(LockError, match='process 7 on elsewhere, since noon, has taken this run over'):
    first.check()
  first.release()
  assert json.loads(path.read_text())['owner'] == 'another'  # it is not ours to remove


def test_two_runs_in_one_directory(tmp_path):
  data = synthetic.write_data(tmp_path / 'data', vocabulary_size=40, pieces=50, documents=20, sequence_length=16,
                              splits=('train', 'validation'))
  model = cfg.Model(vocab_size=40, hidden_size=8, layers=1, heads=2, intermediate_size=16, max_positions=16,
                    dtype='float32')
  config = cfg.Config(model=model, batch=cfg.BatchConfig(size=8, sequence_length=16, predictions=3),
                      optimizer=cfg.Optimizer(warmup_steps=0), mesh=cfg.MeshShape(data=1), run=cfg.Run(steps=2))
  process = holder(tmp_path / 'run' / run_directory.LOCK, 'system')
  try:
    with pytest.raises(LockError, match=f'run is in use: process {process.pid}'):
      train.train(config, data, tmp_path / 'run', devices=jax.devices()[:1], progress=False)
    assert {path.name for path in (tmp_path / 'run').iterdir()} == {run_directory.LOCK}
  finally:
    process.kill()
    process.wait()
  assert train.train(config, data, tmp_path / 'run', devices=jax.devices()[:1], progress=False).step == 2
  assert not (tmp_path / 'run' / run_directory.LOCK).exists()

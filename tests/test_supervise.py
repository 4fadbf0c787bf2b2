"""A supervised run comes through kill -9 and ends as one that nobody disturbed; what cannot be mended ends it."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import corpora
import pytest

import bert_jax
from bert_jax import checkpoint, manifest, metrics, run_directory
from bert_jax.errors import GAVE_UP, STOPPED
from launch import supervise as supervising

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


def make_run(run_dir: pathlib.Path) -> pathlib.Path:
  run_dir.mkdir()
  (run_dir / run_directory.CONFIG).write_text('{"vocabulary": null}')
  return run_dir


def save(run_dir: pathlib.Path, step: int) -> None:
  """A step that says that it is whole."""
  whole = manifest.Manifest(step, run_directory.fingerprints(run_dir), finished=True)
  manifest.write(run_dir / run_directory.CHECKPOINTS / str(step), whole)


def fruitless(run_dir: pathlib.Path, attempt: int) -> int:
  return supervising.fruitless_before(str(run_dir), attempt, supervising.newest_step(str(run_dir)))


def test_starts_by_a_launcher_are_counted_in_the_run(tmp_path):
  assert [fruitless(tmp_path / 'run', attempt) for attempt in (0, 1, 4)] == [0, 1, 4]  # none came so far as a run
  run_dir = make_run(tmp_path / 'run')
  assert [fruitless(run_dir, attempt) for attempt in (2, 3, 3, 4)] == [0, 1, 1, 2]
  save(run_dir, 10)
  assert [fruitless(run_dir, attempt) for attempt in (5, 5, 6, 6, 5, 8)] == [0, 0, 1, 1, 0, 3]  # in any order
  save(run_dir, 20)
  assert [fruitless(run_dir, attempt) for attempt in (9, 10)] == [0, 1]
  assert [fruitless(run_dir, attempt) for attempt in (0, 1, 2)] == [0, 1, 2]  # another job of the launcher
  for content in ('', '[]', '{"step": 20}', '{"step": 20, "attempt": null}', '7'):
    (run_dir / supervising.ATTEMPTS).write_text(content)
    assert [fruitless(run_dir, attempt) for attempt in (5, 6)] == [0, 1]


def test_a_launcher_is_told_to_stop_where_its_starts_bring_nothing(tmp_path, capfd):
  run_dir = make_run(tmp_path / 'run')
  save(run_dir, 1234)
  begin = lambda attempt: supervising.Supervisor(['--help'], str(run_dir), attempt=attempt).run()
  assert [begin(attempt) for attempt in range(5)] == [0, 0, 0, 0, GAVE_UP]
  said = capfd.readouterr().err
  assert said.count('giving up') == 1 and 'this is start 5; step 1,234 is saved' in said
  save(run_dir, 1235)
  assert begin(5) == 0


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
@pytest.mark.parametrize('victim', [0, 1])
def test_two_processes_with_a_supervisor_each_come_through_kill_9(folder, victim):
  run, processes = f'two{victim}', []
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  for number in range(2):
    processes.append(start(folder, *command(run, 60), '--distributed.coordinator', f'127.0.0.1:{port}',
                           '--distributed.processes', '2', '--distributed.process-id', str(number)))
  wait_for(lambda: (folder / run / 'checkpoints/5/manifest.json').exists())
  os.kill(child_of(processes[victim]), signal.SIGKILL)
  said = [process.communicate(timeout=300)[1] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], said
  assert 'ended with 137' in said[victim] and all('starting again' in text for text in said), said
  assert checkpoint.load(folder / run).step == 60


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
  assert process.returncode == GAVE_UP and 'ended with 137' in said, said
  assert said.count('starting again') == 1 and 'giving up' in said, said

"""`prepare` on Ray on the nodes of a SLURM job: what is started where, how it ends. srun and scontrol are scripts."""

import os
import pathlib
import shlex
import subprocess
import sys

import corpora
import pytest

from tests import ray_cluster

ROOT = pathlib.Path(__file__).parent.parent
SCRIPT = ROOT / 'launch/slurm/prepare.sbatch'
# Both nodes of a job on this machine: what srun starts on each, until srun is ended.
SRUN = '''
while [ "$1" != bash ]; do shift; done
trap 'kill $(jobs -p); wait; exit 143' TERM
for node in 0 1; do SLURM_NODEID=$node "$@" > "$(dirname "$0")/node-$node.log" 2>&1 & done
wait
'''
# What listens as Ray's head does.
LISTENS = '''
import socket, sys, time
if '--head' not in sys.argv:
  sys.exit(time.sleep(99))
port = next(word for word in sys.argv if word.startswith('--port='))
with socket.create_server(('127.0.0.1', int(port.removeprefix('--port=')))) as server:
  while True:
    server.accept()
'''


def fake(folder: pathlib.Path, name: str, body: str) -> pathlib.Path:
  path = folder / name
  path.write_text(f'#!/usr/bin/env bash\necho "$0 $(printf "[%s]" "$@")" >> "$0.log"\n{body}\n')
  path.chmod(0o755)
  return path


@pytest.fixture
def nodes(tmp_path):
  folder = tmp_path / 'bin'
  folder.mkdir()
  fake(folder, 'srun', SRUN)
  fake(folder, 'scontrol', 'printf "127.0.0.1\\nother\\n"')
  return folder


def start(folder: pathlib.Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
  settings = {'SLURM_JOB_ID': '77', 'SLURM_JOB_NODELIST': 'n[1-2]', 'PORT': str(ray_cluster.free_port()),
              'PATH': f'{folder}:{os.environ["PATH"]}'}
  return subprocess.run(['bash', SCRIPT, *words], env=os.environ | settings | environment, capture_output=True,
                        text=True, timeout=300)


def test_a_dry_run_prints_all_and_runs_nothing(nodes):
  done = start(nodes, '--input', 'a b', '--output', 'out', '--', '--namespace=mine', DRY_RUN='1', PORT='20076')
  assert done.returncode == 0, done.stderr
  assert '+ srun --overlap --label bash -c' in done.stderr
  assert ('+ bert-jax prepare --input a\\ b --output out --engine ray -- --address=n\\[1-2\\]:20076 '
          '--_temp_dir=/tmp/ray-77 --namespace=mine\n') in done.stderr
  assert not list(nodes.glob('*.log'))


@pytest.mark.parametrize('words', [['--engine', 'beam'], ['--', '--address=auto'], ['--engine=ray']])
def test_what_the_job_itself_says_is_refused(nodes, words):
  done = start(nodes, '--input', 'a', *words)
  assert done.returncode == 2 and 'leave --' in done.stderr and not list(nodes.glob('*.log'))


@pytest.mark.parametrize('code', [0, 2, 7])
def test_every_word_arrives_and_the_code_is_that_of_prepare(nodes, code):
  ray = fake(nodes, 'ray', f'exec {sys.executable} -c {shlex.quote(LISTENS)} "$@"')
  command = fake(nodes, 'bert-jax', f'exit {code}')
  done = start(nodes, '--input', "it's; a b", '', '--', '--namespace=m n')
  assert done.returncode == code, done.stderr
  assert '[prepare][--input][it\'s; a b][][--engine][ray][--][--address=127.0.0.1:' in (
      command.with_name('bert-jax.log').read_text())
  assert command.with_name('bert-jax.log').read_text().rstrip().endswith('[--_temp_dir=/tmp/ray-77][--namespace=m n]')
  started = ray.with_name('ray.log').read_text()
  assert started.count('[start]') == 2 and started.count('[--head]') == 1 and '[--address=127.0.0.1:' in started


def test_a_ray_that_does_not_start_ends_the_job(nodes):
  fake(nodes, 'ray', 'exit 1')
  command = fake(nodes, 'bert-jax', '')
  done = start(nodes, '--input', 'a', WAIT='20')
  assert done.returncode == 7 and 'Ray does not answer at 127.0.0.1:' in done.stderr
  assert not command.with_name('bert-jax.log').exists()


@pytest.mark.ray
def test_the_shards_of_two_nodes(nodes, tmp_path):
  """With Ray itself in the place of the stub, and what the script starts in the end gone."""
  made, manifest = corpora.make(tmp_path)
  done = start(nodes, '--input', made.input, '--vocabulary', made.vocabulary, '--output', str(tmp_path / 'new'),
               '--sequence-length', '32', '--shards', '3', '--validation-share', '0.1', SLURM_JOB_ID=str(os.getpid()),
               RAY=f'{sys.executable} -m ray.scripts.scripts', BERT_JAX=f'{sys.executable} -m bert_jax_command',
               PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]), RAY_worker_niceness='0')
  assert done.returncode == 0, done.stderr
  wanted = {path.name: path.read_bytes() for path in pathlib.Path(made.output).iterdir()}
  found = {path.name: path.read_bytes() for path in (tmp_path / 'new').iterdir()}
  assert found == wanted and manifest.counts['duplicates'] == 10

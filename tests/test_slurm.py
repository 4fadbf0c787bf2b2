"""launch/slurm/pretrain.sbatch on a real SLURM with two virtual nodes: what ends a job, what brings it back, and by
which code. Most tasks are small programs that end as told; a run of two processes is the real one."""

import pathlib
import sys
import time

import corpora
import pytest
import slurm_cluster
import test_supervise

from bert_jax import checkpoint
from bert_jax.errors import GAVE_UP, STOPPED, ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    not slurm_cluster.possible(), reason='needs root, apt-get and namespaces for a SLURM of its own')]

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / 'launch/slurm/pretrain.sbatch'
# A task: at start number SLURM_RESTART_COUNT what stands there in OUTCOME_<task> or OUTCOME; the last of them after it.
TASK = '''#!{python}
import os, signal, sys, time
told = os.environ.get('OUTCOME_' + os.environ['SLURM_PROCID'], os.environ['OUTCOME']).split(',')
what = told[min(int(os.environ.get('SLURM_RESTART_COUNT', 0)), len(told) - 1)]
terms = []
def term(number, frame):
  terms.append(number)
  if what == 'save' or len(terms) == 2:
    time.sleep(1)
    sys.exit(3)
print('task', os.environ['SLURM_PROCID'], sys.argv[1:], flush=True)
if what in ('save', 'late'):  # late: only at the second SIGTERM
  signal.signal(signal.SIGTERM, term)
if what.isdecimal():
  time.sleep(1)
  sys.exit(int(what))
time.sleep(600)
'''
ARGUMENTS = 'base', '--data', '/shared/with space', '--run-dir', '/shared/runs/my-run/', '--run.steps', '7'
ENDED = 'COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT'
SECONDS = 1800  # in which a real run has come so far; a machine with much else to do takes long to start two processes


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
  folder = tmp_path_factory.mktemp('slurm')
  (folder / 'task').write_text(TASK.format(python=sys.executable))
  (folder / 'task').chmod(0o755)
  with slurm_cluster.cluster(slurm_cluster.unpacked(folder), folder / 'work') as made:
    yield made


def submit(cluster, outcome='save', *options, **more):
  return cluster.submit(SCRIPT, *ARGUMENTS, options=options, BERT_JAX=str(cluster.work.parent / 'task'),
                        OUTCOME=outcome, LOOK_SECONDS='1', **more)


def begun(cluster, number):
  """Waits until both tasks are at work."""
  cluster.wait(number, ('RUNNING',))
  test_supervise.wait_for(lambda: cluster.log(number).count(': task ') == 2)
  time.sleep(0.5)


def stays(cluster, number, seconds=4):
  """The job, which is still as it was after some seconds."""
  before = cluster.job(number)
  time.sleep(seconds)
  after = cluster.job(number)
  assert all(before[name] == after[name] for name in ('JobState', 'Restarts'))
  return after


@pytest.mark.parametrize('first, code', [('2', 2), ('1', 1), ('9', 9), ('127', 127)])
def test_what_comes_again_ends_the_job_with_its_code(cluster, first, code):
  """The other task is ended by SIGTERM, in whatever it was: 143 or 3."""
  number = submit(cluster, 'save' if code == 2 else 'nothing', OUTCOME_1=first)
  job = cluster.wait(number, ENDED)
  assert (job['JobState'], job['ExitCode'], job['Restarts'], job['JobName']) == ('FAILED', f'{code}:0', '0', 'my-run')
  assert "'--attempt', '0', '--', 'pretrain', 'base', '--data', '/shared/with space', '--run" in cluster.log(number)
  assert "'--run.steps', '7']" in cluster.log(number)


@pytest.mark.parametrize('first', ['137', '7', '3'])
def test_what_may_pass_is_queued_again(cluster, first):
  number = submit(cluster, 'save,0', OUTCOME_1=f'{first},0')
  job = cluster.again(number)
  assert cluster.wait(number, ENDED, restarts=1)['ExitCode'] == '0:0' and job['JobName'] == 'my-run'
  assert f'ended with {first}; queued again (restart 1)' in cluster.log(number)
  assert "'--attempt', '1'" in cluster.log(number)


def test_scancel_stays_cancelled(cluster):
  number = submit(cluster)
  begun(cluster, number)
  cluster.run('scancel', str(number))
  assert cluster.wait(number, ('CANCELLED',))['Restarts'] == '0'
  assert stays(cluster, number)['JobState'] == 'CANCELLED'
  assert f'ended with {STOPPED}; not queued again from here: JobState=COMPLETING' in cluster.log(number)


def test_what_somebody_queues_again_is_so_once(cluster):
  number = submit(cluster, 'save,0')
  begun(cluster, number)
  cluster.run('scontrol', 'requeue', str(number))
  cluster.again(number)
  assert cluster.wait(number, ('COMPLETED',), restarts=1)['Restarts'] == '1'
  assert 'not queued again from here' in cluster.log(number)


def test_preemption(cluster):
  number = submit(cluster, 'save,0')
  begun(cluster, number)
  cluster.run('sbatch', '--partition=urgent', '--exclusive', '--nodes=2', '--output=/dev/null', '--wrap', 'sleep 2')
  cluster.again(number)
  assert cluster.wait(number, ('COMPLETED',), restarts=1)['Restarts'] == '1'


@pytest.mark.parametrize('outcome', ['save,0', 'late,0'])
def test_time_limit(cluster, outcome):
  """Saved before it, and only when SLURM ends the job."""
  number = submit(cluster, outcome, '--time=1', '--signal=TERM@30')
  cluster.again(number, seconds=150)
  assert cluster.wait(number, ('COMPLETED',), restarts=1)['Restarts'] == '1'
  assert f'ended with {STOPPED}; queued again' in cluster.log(number)


def real(cluster):
  return {'BERT_JAX': ' '.join(test_supervise.BERT_JAX), 'PYTHONPATH': test_supervise.ENVIRONMENT['PYTHONPATH'],
          'JAX_PLATFORMS': 'cpu',
          'XLA_FLAGS': '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  corpora.make(folder)
  return folder


def test_the_budget_of_restarts_is_that_of_supervise(cluster, data):
  """Starts that are killed with all that they are, before they have made anything: supervise ends the fifth."""
  script = data / 'killed'
  script.write_text('#!/bin/bash\nif (($3 < 4)); then kill -9 $$; fi\n' + ' '.join(test_supervise.BERT_JAX) + ' "$@"\n')
  script.chmod(0o755)
  number = cluster.submit(SCRIPT, *ARGUMENTS, LOOK_SECONDS='1', **real(cluster) | {'BERT_JAX': str(script)})
  for restarts in range(1, 5):
    cluster.again(number, restarts)
  job = cluster.wait(number, ENDED, restarts=4)
  assert (job['JobState'], job['ExitCode'], job['Restarts']) == ('FAILED', f'{GAVE_UP}:0', '4')
  assert 'giving up' in cluster.log(number)


def test_a_run_of_two_processes(cluster, data):
  """Queued again on its way, it goes on and is done (kill -9: test_supervise.py); then a wrong setting."""
  from bert_jax import run_directory
  command = test_supervise.command('run', 60, '--run.checkpoint-every', '5')[1:]
  command = [word for word in command if word != '--distributed.no-auto']
  command = [str(data / word) if word in ('data', 'run') else word for word in command]
  number = cluster.submit(SCRIPT, *command, LOOK_SECONDS='1', **real(cluster))
  saved = lambda step: (data / f'run/{run_directory.CHECKPOINTS}/{step}/manifest.json').exists()
  test_supervise.wait_for(lambda: saved(5) or cluster.job(number)['JobState'] in ENDED, SECONDS)
  cluster.run('scontrol', 'requeue', str(number))
  cluster.again(number)
  assert cluster.wait(number, ENDED, SECONDS, restarts=1)['ExitCode'] == '0:0', cluster.log(number)
  said = cluster.log(number)
  assert said.count('2 processes') == 2 and 'resuming from step' in said and '--attempt 1' in said, said
  assert checkpoint.load(data / 'run').step == 60
  number = cluster.submit(SCRIPT, *command, '--batch.size', '0', LOOK_SECONDS='1', **real(cluster))
  job = cluster.wait(number, ENDED, SECONDS)
  assert (job['ExitCode'], job['Restarts']) == (f'{ConfigError.exit_code}:0', '0')

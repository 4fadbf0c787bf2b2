"""Two processes of four devices: the losses of one of eight, one checkpoint, one end; starts that cannot succeed."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from bert_jax import checkpoint, config as cfg, distributed, metrics, program as program_lib, recipes, train
from tests import compiling, synthetic, worker

VOCABULARY, STEPS, SECONDS = 64, 6, 500  # a limit for a machine with much else to do
FLAGS = compiling.flags(4)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('distributed') / 'data', vocabulary_size=VOCABULARY, pieces=100,
                              documents=20, sequence_length=16, splits=('train', 'validation'))


@pytest.fixture(scope='module')
def config():
  """What ARGUMENTS make, for a run in this process. max_minutes makes the processes ask process 0 for the time."""
  tiny, of = recipes.recipe('tiny'), dataclasses.replace
  return of(
      tiny, model=recipes.model_of(1, 64, vocab_size=VOCABULARY, dtype='float32'), long=cfg.Long(),
      mesh=cfg.MeshShape(data=2, fsdp=4),
      batch=of(tiny.batch, size=16, sequence_length=16, predictions=4),
      optimizer=of(tiny.optimizer, warmup_steps=2),
      run=of(tiny.run, steps=STEPS, max_minutes=60.0, log_every=1, evaluate_every=4, evaluation_rows=24))


ARGUMENTS = (
    'pretrain tiny --model.layers 1 --model.hidden-size 64 --model.heads 1 --model.intermediate-size 256 '
    f'--model.dtype float32 --model.vocab-size {VOCABULARY} --long.share 0 '
    '--model.unroll 1 --mesh.data 2 --run.log-every 1 --batch.size 16 --batch.sequence-length 16 --batch.predictions 4 '
    '--optimizer.warmup-steps 2 --mesh.fsdp 4 --run.max-minutes 60 --run.evaluate-every 4 '
    '--run.evaluation-rows 24').split()


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def launch(arguments, process_id: int, port: int, processes: int = 2, **env) -> subprocess.Popen:
  command = [sys.executable, '-m', 'tests.worker', *map(str, arguments),
             '--distributed.coordinator', f'127.0.0.1:{port}', '--distributed.processes', str(processes),
             '--distributed.process-id', str(process_id)]
  env = os.environ | {'XLA_FLAGS': FLAGS} | env
  return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def launch_pair(data, run_dir, *more, second=(), victim=1, **env) -> list[subprocess.Popen]:
  """`second` is of process 1 alone, and `env` of the process `victim`."""
  arguments, port = [*ARGUMENTS, '--data', data, '--run-dir', run_dir, *more], free_port()
  return [launch([*arguments, *(second if number else ())], number, port, **(env if number == victim else {}))
          for number in range(2)]


def ends(processes) -> list[tuple[int, str]]:
  """The exit code and stderr of each; none outlives the test."""
  processes = list(processes)
  try:
    errors = [process.communicate(timeout=SECONDS)[1] for process in processes]
    return [(process.returncode, error) for process, error in zip(processes, errors)]
  finally:
    for process in processes:
      process.kill()


@pytest.fixture(scope='module')
def pair(data, tmp_path_factory):
  run_dir = tmp_path_factory.mktemp('pair') / 'run'
  results = ends(launch_pair(data, run_dir, '--run.steps', STEPS))
  assert [code for code, _ in results] == [0, 0], results
  return run_dir


def alone(config, data, run_dir):
  return train.train(config, data, run_dir, engine='threads', progress=False)


def test_losses_of_one_process(pair, data, config, tmp_path):
  alone(config, data, tmp_path / 'run')
  mine, theirs = metrics.read(pair), metrics.read(tmp_path / 'run')
  assert [(line['step'], line['kind']) for line in mine] == [(line['step'], line['kind']) for line in theirs]
  assert [line['kind'] for line in mine].count('validation') == 1 and len(mine) == STEPS + 1
  for a, b in zip(mine, theirs):
    assert abs(a['loss'] - b['loss']) < 1e-5 and abs(a['mlm_loss'] - b['mlm_loss']) < 1e-5
    assert a['mlm_accuracy'] == b['mlm_accuracy']


@pytest.mark.parametrize('shape, devices', [(cfg.MeshShape(data=8), 8), (cfg.MeshShape(data=1), 1)])
def test_one_process_restores_what_two_saved(pair, config, shape, devices):
  program = program_lib.of(dataclasses.replace(config, mesh=shape), jax.devices()[:devices])
  with checkpoint.manager(pair) as checkpoints:
    state, meta = checkpoint.restore(checkpoints, program.abstract)
  assert meta.step == int(state.step) == STEPS
  assert worker.digest(state) == (pair / 'digest').read_text()


def test_sigterm_to_one_stops_both_at_one_step(data, config, tmp_path):
  run_dir = tmp_path / 'run'
  processes = launch_pair(data, run_dir, '--run.steps', '1000000')
  deadline = time.monotonic() + SECONDS
  alive = lambda: all(process.poll() is None for process in processes)
  while time.monotonic() < deadline and not metrics.read(run_dir) and alive():
    time.sleep(0.1)
  processes[1].send_signal(signal.SIGTERM)
  results = ends(processes)
  assert [code for code, _ in results] == [3, 3], results
  with checkpoint.manager(run_dir) as checkpoints:
    stopped = checkpoints.latest_step()
  assert stopped == metrics.read(run_dir)[-1]['step'] > 0
  over = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=1_000_000, max_minutes=1e-6))
  assert alone(over, data, run_dir).resumed_from == stopped


def test_processes_that_do_not_agree_say_on_what(data, tmp_path):
  for code, errors in ends(launch_pair(data, tmp_path / 'run', '--run.steps', STEPS, second=['--optimizer.b1', '0.8'])):
    assert code == 2 and 'do not agree on optimizer.b1' in errors, errors
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_sigterm_to_one_in_an_evaluation_leaves_it_to_who_goes_on(data, tmp_path, monkeypatch):
  """Six batches of ten seconds each: both leave it after the same one, saved."""
  monkeypatch.setenv('EVALUATION_SECONDS', '10')
  arguments = '--run.steps', '6', '--run.evaluate-every', '4', '--run.evaluation-rows', '96'
  processes = launch_pair(data, tmp_path / 'run', *arguments)
  while not (line := processes[1].stderr.readline()).startswith('evaluating'):
    assert line, processes[1].wait()
  begin = time.monotonic()
  processes[1].send_signal(signal.SIGTERM)
  results = ends(processes)
  assert [code for code, _ in results] == [3, 3] and time.monotonic() - begin < 50, results
  with checkpoint.manager(tmp_path / 'run') as checkpoints:
    assert checkpoints.all_steps() == [4]
  assert [line['kind'] for line in metrics.read(tmp_path / 'run')] == ['train'] * 4
  monkeypatch.delenv('EVALUATION_SECONDS')
  assert [code for code, _ in ends(launch_pair(data, tmp_path / 'run', *arguments))] == [0, 0]
  found = [(line['step'], line['kind']) for line in metrics.read(tmp_path / 'run')]
  assert found == [*((step, 'train') for step in (1, 2, 3, 4)), (4, 'validation'), (5, 'train'), (6, 'train')]

# ---------------------------------------------------------------- saves that fail


@pytest.fixture(scope='module')
def undisturbed(data, tmp_path_factory):
  run_dir = tmp_path_factory.mktemp('undisturbed') / 'run'
  assert [code for code, _ in ends(launch_pair(data, run_dir, *SAVING))] == [0, 0]
  return (run_dir / 'digest').read_text()


SAVING = ('--run.steps', '40', '--run.checkpoint-every', '10', '--run.keep-checkpoints', '9',
          '--run.evaluate-every', '0', '--run.evaluation-rows', str(cfg.Run().evaluation_rows))


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_a_save_that_fails_in_one_process_is_tried_again_by_all(victim, data, undisturbed, tmp_path):
  """A process that may write to no file, until it has heard that a save failed."""
  limits = {'LIMIT_AT': '5', 'UNTIL_FAILED': '1'}
  results = ends(launch_pair(data, tmp_path / 'run', *SAVING, victim=victim, **limits))
  assert [code for code, _ in results] == [0, 0], results
  assert all(text.count('has heard of a save that failed') == 1 for _, text in results), results
  assert results[0][1].count('trying again') == 1 and 'File too large' in results[0][1], results
  assert (tmp_path / 'run' / 'digest').read_text() == undisturbed
  with checkpoint.manager(tmp_path / 'run') as checkpoints:
    saved = checkpoints.all_steps()
  assert 10 not in saved and saved[-3:] == [20, 30, 40], saved  # and between them the one that was tried again


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_saves_that_go_on_failing_in_one_process_end_all_alike(victim, data, tmp_path):
  begin = time.monotonic()
  results = ends(launch_pair(data, tmp_path / 'run', *SAVING, '--run.steps', '100000', victim=victim, LIMIT_AT='5'))
  assert [code for code, _ in results] == [7, 7] and time.monotonic() - begin < SECONDS / 2, results
  assert all(text.count('has heard of a save that failed') == 2 for _, text in results), results
  with checkpoint.manager(tmp_path / 'run') as checkpoints:
    assert checkpoints.all_steps() == []

# ---------------------------------------------------------------- the start


def test_alone_nothing_is_started(monkeypatch):
  for name in list(os.environ):
    if name.startswith(('SLURM_', 'TPU_', 'OMPI_', 'JAX_COORDINATOR', 'KUBERNETES_')):
      monkeypatch.delenv(name)
  code = ('from bert_jax import config as cfg, distributed; import jax\n'
          'for auto in (False, True):\n'
          '  distributed.start(cfg.Distributed(auto=auto)); print(jax.distributed.is_initialized())')
  ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert ran.stdout == 'False\nFalse\n' and not ran.returncode, ran.stderr


def test_slurm_is_detected():
  """JAX's own detection, as srun starts two tasks on one node."""
  code = ('from bert_jax import config as cfg, distributed; distributed.start(cfg.Distributed()); import jax; '
          'print(jax.process_index(), jax.process_count(), jax.device_count())')
  port = str(free_port())
  env = {'SLURM_JOB_ID': '7', 'SLURM_STEP_NODELIST': 'localhost', 'SLURM_NTASKS': '2', 'XLA_FLAGS': FLAGS,
         'JAX_COORDINATOR_PORT': port, 'JAX_COORDINATOR_BIND_ADDRESS': f'127.0.0.1:{port}'}
  tasks = [subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=os.environ | env | {'SLURM_PROCID': str(i), 'SLURM_LOCALID': str(i)}) for i in range(2)]
  outputs = [task.communicate(timeout=SECONDS) for task in tasks]
  assert [out.splitlines()[-1] for out, _ in outputs] == ['0 2 8', '1 2 8'], outputs


@pytest.mark.reliability(28)
@pytest.mark.parametrize('process_id', [0, 1])
def test_others_that_do_not_come_are_one_sentence(process_id, tally):
  code = ('from bert_jax import config as cfg, distributed; '
          f'distributed.start(cfg.Distributed("127.0.0.1:{free_port()}", 2, {process_id}, initialization_seconds=2))')
  ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=SECONDS)
  assert ran.returncode == distributed.FAILED
  assert 'bert-jax: 2 processes did not all meet' in ran.stderr.splitlines()[-1] and 'Traceback' not in ran.stderr
  tally.fault(True, detected=True)
  alone = subprocess.run([sys.executable, '-c', code.replace(', 2, ', ', 1, ').replace(f', {process_id}, i', ', 0, i')
                            .replace('=2)', '=60)')],
                         capture_output=True, text=True, timeout=SECONDS)
  tally.control(alone.returncode == 0)


@pytest.mark.reliability(28)
def test_a_port_that_is_taken(tally):
  distributed.check_port(f'127.0.0.1:{free_port()}')
  tally.control()
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    with pytest.raises(cfg.ConfigError, match='port .* in use'):
      distributed.start(cfg.Distributed(f'127.0.0.1:{taken.getsockname()[1]}', 2, 0))
    tally.fault(True, detected=True)


@pytest.mark.parametrize('settings, message', [
    (dict(coordinator='somewhere'), 'wanted host:port'),
    (dict(coordinator='host:1', processes=2, process_id=2), 'wanted 0 … 1'),
    (dict(coordinator='host:1', processes=2, auto=False), '--distributed.process-id is missing'),
])
def test_settings_that_cannot_work(settings, message):
  with pytest.raises(cfg.ConfigError, match=message):
    cfg.Distributed(**settings)


LISTENERS = '''
import sys
from bert_jax import config as cfg, distributed
distributed.start(cfg.Distributed(sys.argv[1], 1, 0))
print(*sorted({line.split()[1].split(':')[0] for name in ('/proc/net/tcp', '/proc/net/tcp6')
               for line in open(name).readlines()[1:]
               if line.split()[3] == '0A' and line.split()[1].endswith(f':{int(sys.argv[2]):04X}')}))
'''


def own_address() -> str:
  """The address of this machine by which it would reach others; the loopback's where it reaches none."""
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
      probe.connect(('198.51.100.1', 9))  # of no machine; nothing is sent
    except OSError:
      return '127.0.0.1'
    return probe.getsockname()[0]


@pytest.mark.reliability(33)
def test_the_port_of_one_machine_is_not_open_to_others(tally):
  """By what the kernel says; 0100007F is 127.0.0.1. The control: what is open to all is so, and is said to be."""
  found, said = {}, {}
  for host in ('127.0.0.1', '0.0.0.0', own_address()):
    port = free_port()
    ran = subprocess.run([sys.executable, '-c', LISTENERS, f'{host}:{port}', str(port)], capture_output=True, text=True,
                         timeout=SECONDS)
    assert ran.returncode == 0, ran.stderr
    found[host], said[host] = ran.stdout.splitlines()[-1].split(), 'listens on every interface' in ran.stderr
  assert {host for host, told in said.items() if told} == {'0.0.0.0'}
  own = socket.inet_aton(own_address())[::-1].hex().upper()
  assert all(address.endswith(own) for address in found[own_address()])
  tally.control(any(not address.strip('0') for address in found['0.0.0.0']))
  tally.fault(found['127.0.0.1'], survived=all(address.endswith('0100007F') for address in found['127.0.0.1']))


@pytest.mark.parametrize('coordinator, address', [
    ('127.0.0.1:80', '127.0.0.1:80'), ('localhost:80', 'localhost:80'), ('[::1]:80', '[::1]:80'),
    ('198.51.100.1:80', None), ('host-0:80', None), ('0.0.0.0:80', None), (None, None),
])
def test_the_coordinator_of_one_machine_listens_to_that_machine_alone(coordinator, address):
  assert distributed.bind_address(coordinator) == address

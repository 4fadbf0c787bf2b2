"""Every command with every path on gs://, against a server on the loopback: what comes out is what local paths give."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from bert_jax import run_directory
from tests import corpora
from tests.bucket_server import Faults, Server

pytestmark = pytest.mark.slow
pytest.importorskip('gcsfs', reason="gcsfs is not installed: pip install 'bert_jax[gcs]'")
pytest.importorskip('google.cloud.storage', reason="gcsfs is not installed: pip install 'bert_jax[gcs]'")

ROOT = pathlib.Path(__file__).parent.parent
BUCKET = 'gs://bucket'
TIMED = {'tokens_per_second', 'steps_per_second', 'data_stall_share', 'minutes', 'mfu'}
RUN = ['--model.vocab-size', str(len(corpora.TOKENS)), '--model.hidden-size', '16', '--model.layers', '2',
       '--model.heads', '2', '--model.intermediate-size', '32', '--model.max-positions', '32', '--model.dtype',
       'float32', '--long.share', '0', '--batch.size', '8', '--batch.sequence-length', '32', '--batch.predictions', '5',
       '--run.steps', '12',
       '--optimizer.warmup-steps', '2', '--run.log-every', '2', '--run.checkpoint-every', '4', '--run.evaluate-every',
       '4', '--run.evaluation-rows', '16', '--run.keep-checkpoints', '2', '--distributed.no-auto']
WITHOUT = [sys.executable, '-P', str(ROOT / 'tests/without.py')]


@pytest.fixture(scope='module')
def server():
  with Server('bucket') as server:
    yield server


@pytest.fixture
def healthy(server):
  """The server, without faults after the test."""
  server.faults = Faults()
  yield server
  server.faults = Faults()


def start(server, *argv, absent: str = '-', cwd=ROOT) -> subprocess.Popen:
  environment = os.environ | server.environment() | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path]),
                                                     'XLA_FLAGS': '', 'PYTHONWARNINGS': 'ignore'}
  return subprocess.Popen([*WITHOUT, absent, *map(str, argv)], env=environment, cwd=cwd,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def call(server, *argv, absent: str = '-', cwd=ROOT) -> tuple[int, str, str]:
  process = start(server, *argv, absent=absent, cwd=cwd)
  out, errors = process.communicate(timeout=300)
  return process.returncode, out, errors


def done(server, *argv, **options) -> str:
  code, out, errors = call(server, *argv, **options)
  assert code == 0, errors
  return out


def sentence(server, *argv, absent: str = '-', within: float = 25) -> tuple[int, str]:
  """(exit code, what it says) of a command that fails, by one sentence and soon; imports on a busy machine count."""
  start = time.monotonic()
  code, _, errors = call(server, *argv, absent=absent)
  lines = [line for line in errors.splitlines() if line.startswith('bert-jax:')]
  assert 'Traceback' not in errors and len(lines) == 1, errors
  assert time.monotonic() - start < within
  return code, lines[0]


def whole_way(server, base: str, name: str, absent: str) -> None:
  """From text to an export, below `base`, where corpus.txt is."""
  options = {'absent': absent}
  done(server, 'vocabulary', '--input', f'{base}/corpus.txt', '--size', '70', '--output', f'{base}/{name}/trained.txt',
       **options)
  done(server, 'prepare', '--input', f'{base}/corp*.txt', '--vocabulary', f'{base}/vocab.txt',
       '--sequence-length', '32', '--validation-share', '0.2', '--output', f'{base}/{name}/data', **options)
  assert 'train:' in done(server, 'inspect', f'{base}/{name}/data', '--examples', '1', **options)
  run = f'{base}/{name}/run'
  done(server, 'pretrain', 'tiny', '--data', f'{base}/{name}/data', '--run-dir', run, *RUN, **options)
  found = json.loads(done(server, 'evaluate', run, '--json', **options))
  assert found['step'] == 12
  done(server, 'plot', run, **options)
  assert done(server, 'export', run, **options).strip() == f'{run}/export'
  done(server, 'export', run, **options)  # replaces it
  assert 'results' in done(server, 'fill-mask', f'{run}/export', 'one [MASK] three .', '--json', **options)


def lines_of(text: str) -> list[dict]:
  return [{name: value for name, value in json.loads(line).items() if name not in TIMED} for line in text.splitlines()]


@pytest.fixture(scope='module')
def local(server, tmp_path_factory) -> pathlib.Path:
  """The whole way on a disk."""
  base = tmp_path_factory.mktemp('local')
  texts = {'corpus.txt': '\n\n'.join(corpora.text_of(i) for i in range(120)),
           'vocab.txt': '\n'.join(corpora.TOKENS) + '\n'}
  for name, text in texts.items():
    (base / name).write_text(text)
    server.put('bucket', name, text.encode())
  whole_way(server, str(base), 'way', '-')
  return base / 'way'


def segments(server, prefix: str) -> list[dict]:
  return lines_of(''.join(data.decode() for data in server.files('bucket', f'{prefix}/metrics/').values()))


@pytest.mark.parametrize('absent', ['-', 'tensorflow,tensorflow_datasets'])
def test_all_commands_on_a_bucket_give_what_local_paths_give(server, local, absent):
  name = 'way' if absent == '-' else 'bare'
  whole_way(server, BUCKET, name, absent)
  found = server.files('bucket', f'{name}/')
  here = {str(path.relative_to(local)): path.read_bytes() for path in local.rglob('*') if path.is_file()}
  stem = lambda names: {name for name in names if not re.search('checkpoints/|tensorboard/|metrics', name)}
  assert stem(found) == stem(here)
  for file in stem(here) - {'run/config.json', 'run/loss.png', 'data/manifest.json', 'run/export/README.md',
                            'run/export/bert_jax_export.json'}:
    assert found[file] == here[file], file
  assert segments(server, f'{name}/run') == lines_of((local / 'run/metrics.jsonl').read_text())
  assert [name for name in found if 'tensorboard/events' in name]
  assert {name.split('/')[2] for name in found if 'checkpoints/' in name} == {'8', '12'}


def test_a_run_that_is_killed_in_a_save_goes_on_from_elsewhere_to_the_same_end(healthy, local, tmp_path):
  run = ['pretrain', 'tiny', '--data', local / 'data', '--run-dir', f'{BUCKET}/killed', *RUN]
  process = start(healthy, *run)
  deadline = time.monotonic() + 120
  written = lambda: healthy.files('bucket', 'killed/checkpoints/8/')
  while not written() and time.monotonic() < deadline:
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert written() and b'"finished": true' not in written()['manifest.json']
  done(healthy, *run, cwd=tmp_path)
  done(healthy, 'export', f'{BUCKET}/killed')
  assert segments(healthy, 'killed') == lines_of((local / 'run/metrics.jsonl').read_text())
  assert healthy.files('bucket', 'killed/export/')['model.safetensors'] == (
      local / 'run/export/model.safetensors').read_bytes()
  assert not list(tmp_path.iterdir())


def test_a_storage_that_fails_now_and_then_changes_nothing(healthy, local):
  healthy.faults = Faults(share=0.1, drop=0.02)
  done(healthy, 'pretrain', 'tiny', '--data', local / 'data', '--run-dir', f'{BUCKET}/weather', *RUN)
  done(healthy, 'export', f'{BUCKET}/weather')
  assert segments(healthy, 'weather') == lines_of((local / 'run/metrics.jsonl').read_text())
  assert healthy.files('bucket', 'weather/export/')['model.safetensors'] == (
      local / 'run/export/model.safetensors').read_bytes()


def commands_that_write(local: pathlib.Path, bucket: str) -> dict[str, list]:
  texts, data = local.parent, local / 'data'
  return {
      'vocabulary': ['--input', texts / 'corpus.txt', '--size', '70', '--output', f'{bucket}/v.txt'],
      'prepare': ['--input', texts / 'corpus.txt', '--vocabulary', texts / 'vocab.txt', '--output', f'{bucket}/d'],
      'pretrain': ['tiny', '--data', data, '--run-dir', f'{bucket}/r', *RUN],
      'export': [local / 'run', '--output', f'{bucket}/e']}


@pytest.mark.parametrize('command', ['vocabulary', 'prepare', 'pretrain', 'export'])
def test_what_cannot_be_written_is_known_before_the_work(healthy, local, command):
  before = healthy.files('bucket')
  there = commands_that_write(local, BUCKET)[command]
  code, said = sentence(healthy, command, *commands_that_write(local, 'gs://missing')[command])
  assert code == 2 and "there is no bucket 'missing'" in said
  healthy.faults = Faults(read_only=True)
  code, said = sentence(healthy, command, *there)
  assert code == 2 and 'storage.objects.create' in said
  assert healthy.files('bucket') == before


@pytest.mark.parametrize('faults, code, words', [
    (Faults(deny=403), 2, 'no right'), (Faults(deny=401), 2, 'no credentials'),
    (Faults(read_only=True), 2, 'written to'), (Faults(share=1.0), 7, 'no answer'),
    (Faults(drop=1.0), 7, 'no answer'), (Faults(seconds=30.0), 7, 'no answer')])
def test_a_probe_ends_within_ten_seconds(healthy, faults, code, words):
  healthy.faults = faults
  script = '''
import time
import fsspec, gcsfs
from input_pipeline import storage
begin = time.monotonic()
try:
  storage.probe('gs://bucket/new/run', '--run-dir', checkpoints=True)
except Exception as error:
  print(time.monotonic() - begin, error.exit_code, error)
'''
  environment = os.environ | healthy.environment() | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
  out = subprocess.run([sys.executable, '-P', '-c', script], env=environment, capture_output=True, text=True).stdout
  seconds, found, said = out.split(' ', 2)
  assert float(seconds) < 10 and int(found) == code and words in said


def test_a_probe_passes_where_storage_is_slow(healthy):
  healthy.faults = Faults(seconds=1.0)
  script = "from input_pipeline import storage\nstorage.probe('gs://bucket/new/run', checkpoints=True)"
  environment = os.environ | healthy.environment() | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
  subprocess.run([sys.executable, '-P', '-c', script], env=environment, check=True)
  assert not [name for name in healthy.files('bucket') if 'probe' in name]


@pytest.mark.parametrize('command', ['vocabulary', 'prepare', 'pretrain', 'export'])
def test_a_library_that_is_missing_is_named_with_its_extra(healthy, local, command):
  code, said = sentence(healthy, command, *commands_that_write(local, BUCKET)[command], absent='gcsfs')
  assert code == 2 and 'bert_jax[gcs]' in said
  code, said = sentence(healthy, command, *commands_that_write(local, 's3://bucket')[command], absent='s3fs')
  assert code == 2 and 's3fs' in said


def test_checkpoints_need_a_library_of_their_own(healthy, local):
  there = commands_that_write(local, BUCKET)['pretrain']
  code, said = sentence(healthy, 'pretrain', *there, absent='google.cloud.storage')
  assert code == 2 and 'bert_jax[gcs]' in said
  code, said = sentence(healthy, 'pretrain', *commands_that_write(local, 'memory://bucket')['pretrain'])
  assert code == 2 and 'not on memory://' in said


def test_a_folder_with_only_its_placeholder_is_a_new_run(healthy, local):
  healthy.put('bucket', 'placeholder/', b'')
  done(healthy, 'pretrain', 'tiny', '--data', local / 'data', '--run-dir', f'{BUCKET}/placeholder', *RUN,
       '--run.steps', '2')
  assert run_directory.CONFIG in healthy.files('bucket', 'placeholder/')

"""Every command, with streams of any encoding, closed, full, or whose reader has left: a table of exit codes.

What is written to files is the same; other commands end with the documented code and at most one sentence.
"""

import codecs
import io
import json
import os
import pathlib
import subprocess
import sys

import pytest
import synthetic
from hypothesis import given, strategies as st

from bert_jax import metrics
from bert_jax.errors import CheckpointError, ConfigError
from launch import streams
from launch.commands.table import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]
LATIN = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}  # as where there is no UTF-8
# condition -> (what the shell puts after the command, variables of the environment, exit code where all is well)
CONDITIONS = {
    'usual': ('', {}, 0), 'ascii': ('', {'LANG': 'C', 'PYTHONIOENCODING': 'ascii'}, 0), 'no UTF-8': ('', LATIN, 0),
    'output closed': ('>&-', {}, 0), 'output full': ('>/dev/full', {}, CheckpointError.exit_code),
    'errors closed': ('2>&-', {}, 0), 'errors full': ('2>/dev/full', {}, 0), 'all closed': ('>&- 2>&- <&-', {}, 0),
    'reader gone': ('| true', {}, 0)}
TRAIN = ('pretrain tiny --data data --run-dir run --model.vocab-size 64 --model.hidden-size 16 --model.layers 1 '
         '--model.heads 2 --model.intermediate-size 32 --model.max-positions 16 --model.dtype float32 --long.share 0 '
         '--batch.size 8 --batch.sequence-length 16 --batch.predictions 3 --run.steps 4 --run.log-every 1 '
         '--optimizer.warmup-steps 1 --distributed.no-auto')


def shell(line, folder, variables):
  """(exit code, output, errors) of `bert-jax LINE`, the command's own where it is at the head of a pipe."""
  program = f'{sys.executable} -P -m bert_jax_command {line}'
  return subprocess.run(['bash', '-c', f'{program}; exit ${{PIPESTATUS[0]}}'], cwd=folder, timeout=300, env={
      name: value for name, value in os.environ.items() if name not in ('LANG', 'LC_ALL')}
      | {'PYTHONPATH': str(ROOT), 'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=0', 'JAX_PLATFORMS': 'cpu'} | variables,
      capture_output=True)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('streams')
  synthetic.write_data(folder / 'data', vocabulary_size=64, pieces=40, documents=8, sequence_length=16,
                       splits=('train', 'validation'))
  return folder


def check(done, condition, fine=0):
  _, _, code = CONDITIONS[condition]
  errors = done.stderr.decode()
  assert done.returncode == (code or fine), errors
  assert 'Traceback' not in errors and 'Exception ignored' not in errors
  if code or fine:
    lines = errors.splitlines()
    assert len(lines) == ('errors' not in condition and 'all' not in condition)


@pytest.mark.parametrize('condition', CONDITIONS)
def test_help(folder, condition):
  after, variables, _ = CONDITIONS[condition]
  done = shell(f'prepare --help {after}', folder, variables)
  check(done, condition)
  if condition in ('usual', 'ascii', 'no UTF-8', 'errors closed', 'errors full'):
    text = done.stdout.decode('ascii' if condition == 'ascii' else 'utf-8')
    assert '--sequence-length' in text and not done.stderr


@pytest.mark.parametrize('condition', ['errors closed', 'errors full', 'ascii', 'usual'])
def test_a_command_that_is_none(folder, condition):
  after, variables, _ = CONDITIONS[condition]
  check(shell(f'naïve {after}', folder, variables), condition, ConfigError.exit_code)


@pytest.mark.slow
@pytest.mark.parametrize('condition', CONDITIONS)
@pytest.mark.parametrize('command', [*COMMANDS, 'inspect data', 'plan tiny --json'])
def test_table(folder, command, condition):
  after, variables, _ = CONDITIONS[condition]
  line = command if ' ' in command else f'{command} --help'
  done = shell(f'{line} {after}', folder, variables)
  fine = {'pretrain': 0}.get(command, CONDITIONS[condition][2])
  assert done.returncode == fine and b'Traceback' not in done.stderr and b'Exception ignored' not in done.stderr
  assert done.stderr.count(b'\n') <= 1


@pytest.mark.slow
@pytest.mark.parametrize('condition', CONDITIONS)
def test_training_goes_on(folder, tmp_path, condition):
  """And nothing on standard error is not ours: no line of libtpu, absl, oneDNN or XLA."""
  after, variables, _ = CONDITIONS[condition]
  (tmp_path / 'data').symlink_to(folder / 'data')
  done = shell(f'{TRAIN} {after}', tmp_path, variables)
  errors = done.stderr.decode()
  assert done.returncode == 0 and 'Traceback' not in errors
  steps = [line['step'] for line in metrics.read(tmp_path / 'run') if line['kind'] == 'train']
  assert steps == [1, 2, 3, 4]
  assert (tmp_path / 'run' / 'checkpoints' / '4').is_dir()
  strange = [line for line in errors.splitlines() if any(name in line for name in (
      'libtpu', 'absl', 'oneDNN', 'xla', 'XLA', 'E0000', 'W0000', 'I0000'))]
  assert not strange

# ---------------------------------------------------------------- in this process


@given(st.text(), st.sampled_from(['ascii', 'latin-1', 'utf-8', 'cp437']))
def test_what_an_encoding_lacks_is_escaped_as_json_has_it(text, encoding):
  codecs.register_error(streams.ESCAPES, streams.escaped)
  written = json.dumps({'text': text}, ensure_ascii=False).encode(encoding, streams.ESCAPES)
  assert json.loads(written.decode(encoding)) == {'text': text}


@given(st.lists(st.text(max_size=20), max_size=5), st.sampled_from(['closed', 'full', 'reader gone']))
def test_a_patient_stream_takes_all(texts, condition):
  read, write = os.pipe()
  os.close(read)
  if condition == 'full':
    os.close(write)
    write = os.open('/dev/full', os.O_WRONLY)
  elif condition == 'closed':
    os.close(write)
  stream = io.TextIOWrapper(io.BufferedWriter(streams.Patient(write)), 'ascii', 'backslashreplace', write_through=True)
  for text in texts:
    print(text, file=stream, flush=True)
  stream.detach().detach()
  if condition != 'closed':
    os.close(write)


def test_what_can_be_written_is(tmp_path):
  with open(tmp_path / 'out', 'wb') as file:
    stream = io.TextIOWrapper(io.BufferedWriter(streams.Patient(file.fileno())), 'utf-8', write_through=True)
    print('naïve\n' * 10_000, file=stream, end='', flush=True)
  assert (tmp_path / 'out').read_text() == 'naïve\n' * 10_000

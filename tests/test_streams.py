"""Every command, with streams of any encoding, closed, full, or whose reader has left: a table of exit codes.

What is written to files is the same; other commands end with the documented code and at most one sentence.
"""

import codecs
import functools
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from hypothesis import given, strategies as st

from bert_jax import metrics
from bert_jax.errors import CheckpointError, ConfigError
from launch import streams
from launch.commands.table import COMMANDS
from tests import children, corpora, synthetic, troubles

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


ROWS = '--model.dtype float32 --run.log-every 1 --optimizer.warmup-steps 1 --distributed.no-auto'
BATCH = '--batch.size 8 --batch.sequence-length 32 --batch.predictions 5'
# What each command is asked for, NEW being a place of its own.
LINES = {
    'vocabulary': 'vocabulary --input corpus.txt --output NEW.txt --size 60',
    'prepare': 'prepare --input corpus.txt --vocabulary vocab.txt --output NEW --sequence-length 32',
    'inspect': 'inspect data --examples 1',
    'pretrain': f'pretrain tiny --data data --run-dir NEW --model.vocab-size {len(corpora.TOKENS)} --model.layers 1 '
                f'--model.hidden-size 16 --model.heads 2 --model.intermediate-size 16 --long.share 0 {BATCH} '
                f'--run.steps 2 {ROWS}',
    'finetune': f'finetune classification --data tables --run-dir NEW --checkpoint run --epochs 1 --batch.size 8 '
                f'{ROWS}',
    'supervise': 'supervise --help', 'evaluate': 'evaluate run', 'plot': 'plot run',
    'report': 'report run --output NEW',
    'predict': 'predict tuned --data tables/validation.jsonl --output NEW',
    'plan': 'plan tiny --batch-per-chip 2 --sequence-length 32',
    'benchmark': f'benchmark input data {BATCH} --seconds 0.1', 'verify': 'verify run',
    'import': 'import exported --output NEW', 'export': 'export run --output NEW', 'launch-files': 'launch-files NEW',
    'fill-mask': "fill-mask run 'one [MASK] three \u2026'", 'features': "features run 'one two'",
    'score': "score run 'one two' --json", 'next-sentence': 'next-sentence run one two'}
SAID = re.compile('Traceback|Exception ignored|libtpu|absl|oneDNN|xla|XLA|^[EWIF]\\d{4}|tensorflow', re.M)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A folder with all that LINES name."""
  folder = tmp_path_factory.mktemp('made')
  corpora.make(folder)
  (folder / 'tables').mkdir()
  for split in ('train', 'validation'):
    (folder / 'tables' / f'{split}.jsonl').write_text('\n'.join(
        json.dumps({'text': word, 'label': word[0]}) for word in corpora.WORDS * 2))
  for command, name in (('pretrain', 'run'), ('finetune', 'tuned'), ('export', 'exported')):
    with children.Child(folder / 'made.txt', *shlex.split(LINES[command].replace('NEW', name))) as child:
      assert child.end() == 0, child.said
  return folder


def files(place):
  """What is there, without what has a name of chance: the events of TensorBoard, the arrays of a checkpoint."""
  return {str(path.relative_to(place)) for path in place.rglob('*')
          if not {'tensorboard', 'state'} & set(path.relative_to(place).parts)}


@pytest.mark.slow
@pytest.mark.parametrize('command', COMMANDS)
def test_table(made, tmp_path, command):
  """At its work: the exit code of the documents, its files, one sentence where it fails, no line that is not ours."""
  assert LINES.keys() == COMMANDS.keys()
  written = {}
  for condition, (_, _, fault) in CONDITIONS.items():
    place = tmp_path / condition.replace(' ', '-')
    out, errors = (tmp_path / f'{place.name}.{name}' for name in ('out', 'errors'))
    line = shlex.split(LINES[command].replace('NEW', str(place)))
    with children.Child(out, *line, prepare=functools.partial(troubles.streams, condition, str(errors)),
                        cwd=made) as child:
      code = child.end()
    said = errors.read_text(errors='replace')
    trains = command in streams.TRAINS and '--help' not in line
    assert code == (0 if trains else fault), (condition, said)
    assert not SAID.search(said), (condition, said)
    lines = said.splitlines()
    assert trains or all(line.startswith('bert-jax: ') for line in lines), (condition, said)  # which text it reads …
    assert trains or code == 0 or lines[-1].startswith('bert-jax: standard output'), (condition, said)
    written[condition] = files(place) if place.is_dir() else place.exists() or place.with_suffix('.txt').exists()
    if condition in ('ascii', 'no UTF-8'):
      out.read_bytes().decode('ascii')
  assert all(found == written['usual'] for found in written.values()), written


def test_the_table_is_in_the_documents():
  rows = re.findall(r'^\| ([a-zA-Z8 -]+?) \| (\d) \| (\d) \|$', (ROOT / 'docs' / 'checkpoints.md').read_text(), re.M)
  assert {name: (int(trains), int(other)) for name, trains, other in rows} == {
      name: (0, code) for name, (_, _, code) in CONDITIONS.items()}


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

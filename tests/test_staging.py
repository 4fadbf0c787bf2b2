"""A job that is killed while its data comes to its place leaves nothing strange to the next one, and nothing mixed."""

import dataclasses
import pathlib
import signal
import subprocess
import sys

import corpora
import pytest

from input_pipeline import records
from input_pipeline.prepare import corpus
from tests import buckets

ROOT = pathlib.Path(__file__).parent.parent
SHARDS = 40  # many, so that there is time to kill between two of them
# A process that ends as by kill -9 when some of its files have come to their place.
DIES = '''
import os, sys
from input_pipeline import places
from launch import cli
move, moves = places._move, []
def dies(*arguments):
  moves.append(arguments)
  if len(moves) == 4:
    os._exit(137)
  move(*arguments)
places._move = dies
cli.run(sys.argv[1:])
'''


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_killed_while_files_move_into_the_working_directory(tmp_path):
  made, _ = corpora.make(tmp_path)
  here = tmp_path / 'here'
  here.mkdir()
  argv = ['prepare', '--input', made.input, '--vocabulary', made.vocabulary, '--output', '.', '--sequence-length', '32',
          '--shards', '3', '--validation-share', '0.1']
  died = subprocess.run([sys.executable, '-c', DIES, *argv], cwd=here, capture_output=True, text=True,
                        env={'PYTHONPATH': str(ROOT)})
  assert died.returncode == 137, died.stderr
  assert [path.name for path in here.glob('pieces-*')] and not (here / records.MANIFEST).exists()
  ended = subprocess.run([sys.executable, '-m', 'bert_jax_command', *argv], cwd=here, capture_output=True, text=True,
                         env={'PYTHONPATH': str(ROOT)})
  assert ended.returncode == 0, ended.stderr
  assert files_of(here) == files_of(pathlib.Path(made.output))


def prepare(base: str, output: str, *more: str) -> list[str]:
  return ['prepare', '--input', f'{base}/corpus.txt', '--vocabulary', f'{base}/vocab.txt', '--output', output,
          '--sequence-length', '32', '--validation-share', '0.1', *more]


@pytest.mark.bucket
def test_killed_while_files_come_into_a_bucket(healthy, tmp_path):
  made, _ = corpora.make(tmp_path)
  data, output = lambda: healthy.files('bucket', 'killed/data/'), 'gs://bucket/killed/data'
  for name in ('corpus.txt', 'vocab.txt'):
    healthy.put('bucket', f'killed/{name}', (tmp_path / name).read_bytes())
  many = prepare('gs://bucket/killed', output, '--shards', str(SHARDS))
  job = buckets.start(healthy, *many)
  while not data() and job.poll() is None:
    pass
  job.send_signal(signal.SIGKILL)
  job.communicate()
  assert data() and records.MANIFEST not in data()
  healthy.put('bucket', 'killed/.data.partial/shared-other-1-2/pieces-train.tfrecord-00000-of-00099', b'of a zombie')
  # the same command again; then other data over it, of fewer shards; nothing of the first is left
  few = ['--shards', '3', '--overwrite']
  buckets.done(healthy, many, prepare('gs://bucket/killed', output, *few))
  [(code, said)] = buckets.sentences(healthy, prepare('gs://bucket/killed', 'gs://bucket/killed'))
  assert code == 2 and 'was not made by' in said  # what is somebody's stays somebody's
  wanted = files_of(pathlib.Path(made.output))
  found = data()
  assert found.keys() == wanted.keys()
  assert [name for name in wanted if name != records.MANIFEST and found[name] != wanted[name]] == []
  assert healthy.files('bucket', 'killed/').keys() == {*(f'data/{name}' for name in wanted), 'corpus.txt', 'vocab.txt'}


@pytest.mark.bucket
@pytest.mark.parametrize('engine', [pytest.param('beam', marks=pytest.mark.beam),
                                    pytest.param('ray', marks=pytest.mark.ray)])
def test_an_engine_publishes_in_a_bucket_what_processes_publish_on_a_disk(healthy, tmp_path, engine, request):
  own = ['--', *request.getfixturevalue('ray_nodes').direct] if engine == 'ray' else []
  made, _ = corpora.make(tmp_path)
  corpus.prepare(dataclasses.replace(made, shards=5, output=str(tmp_path / 'five')), progress=False)
  for shards, more in (('5', []), ('3', ['--overwrite'])):
    flags = ['--shards', shards, '--engine', engine, *more, *own]
    buckets.done(healthy, prepare(str(tmp_path), f'gs://bucket/{engine}/data', *flags))
    wanted = files_of(pathlib.Path(made.output if shards == '3' else tmp_path / 'five'))
    found = healthy.files('bucket', f'{engine}/')
    assert found.keys() == {f'data/{name}' for name in wanted}
    assert [name for name in wanted if name != records.MANIFEST and found[f'data/{name}'] != wanted[name]] == []

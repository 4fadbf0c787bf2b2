"""Beam's portable runner, its workers in processes and a folder of their own: the same shards, the same words."""

import dataclasses
import os
import pathlib
import shutil
import sys

import corpora
import pytest

from input_pipeline import records
from input_pipeline.errors import EngineError
from input_pipeline.prepare import corpus
from tests import beam_cluster

pytestmark = pytest.mark.beam
ROOT = pathlib.Path(__file__).parent.parent
PATH = os.pathsep.join([str(ROOT), *sys.path])


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return corpora.make(tmp_path_factory.mktemp('corpus'))


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
  with beam_cluster.portable(tmp_path_factory.mktemp('cluster') / 'workers', PATH) as found:
    yield found


def relative(made, folder: pathlib.Path, monkeypatch, **changes):
  """The settings with paths that only this working directory knows; workers have another."""
  for name in ('corpus.txt', 'vocab.txt'):
    shutil.copy(pathlib.Path(made[0].input).parent / name, folder)
  monkeypatch.chdir(folder)
  return dataclasses.replace(made[0], input='corpus.txt', vocabulary='vocab.txt', output='data', engine='beam',
                             **changes)


def files_of(folder) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def test_relative_paths_and_a_vocabulary_by_its_bytes(made, cluster, tmp_path, monkeypatch):
  prepare = relative(made, tmp_path, monkeypatch)
  corpus.prepare(prepare, arguments=cluster)
  ours, found = files_of(made[0].output), files_of('data')
  assert found.keys() == ours.keys()
  assert [name for name in ours if name != records.MANIFEST and found[name] != ours[name]] == []
  manifest = records.read_manifest(tmp_path / 'data')
  assert (manifest.splits, manifest.counts) == (made[1].splits, made[1].counts)
  assert {path.name for path in tmp_path.iterdir()} == {'corpus.txt', 'vocab.txt', 'data'}


def test_a_bad_document_is_one_sentence_and_the_rest_is_in_a_log(made, cluster, tmp_path, monkeypatch, capfd):
  prepare = relative(made, tmp_path, monkeypatch)
  with (tmp_path / 'corpus.txt').open('ab') as file:
    file.write(b'\n\nA \xff byte.\n')
  with pytest.raises(records.DataError, match='corpus.txt is not UTF-8: byte 0xff at byte .* with iconv') as error:
    corpus.prepare(prepare, arguments=cluster, progress=False)
  said, log = str(error.value), pathlib.Path(str(error.value).rpartition('(more in ')[2].rstrip(')'))
  assert '\n' not in said and 'Traceback' in log.read_text()
  assert capfd.readouterr().err == ''
  log.unlink()
  assert {path.name for path in tmp_path.iterdir()} == {'corpus.txt', 'vocab.txt'}


def test_nobody_at_the_endpoint_is_one_sentence(made, tmp_path, monkeypatch, capfd):
  prepare = relative(made, tmp_path, monkeypatch)
  port = beam_cluster._free_port()
  arguments = ['--runner=PortableRunner', f'--job_endpoint=localhost:{port}', '--environment_type=LOOPBACK',
               '--job_server_timeout=2']
  with pytest.raises(EngineError, match='^--engine beam: .*; all that was told is in .*log$') as error:
    corpus.prepare(prepare, arguments=arguments, progress=False)
  assert '\n' not in str(error.value) and capfd.readouterr().err == ''
  pathlib.Path(str(error.value).rpartition(' ')[2]).unlink()
  assert {path.name for path in tmp_path.iterdir()} == {'corpus.txt', 'vocab.txt'}


def test_workers_without_the_project_are_named_before_the_work(made, tmp_path, monkeypatch):
  prepare = relative(made, tmp_path, monkeypatch)
  (tmp_path / 'strange/input_pipeline').mkdir(parents=True)  # as of somebody else, before ours
  (tmp_path / 'strange/input_pipeline/__init__.py').write_text('')
  with beam_cluster.portable(tmp_path / 'workers', f'{tmp_path}/strange') as cluster:
    with pytest.raises(records.DataError, match='of --engine beam (lack|have another|has another)') as error:
      corpus.prepare(prepare, arguments=cluster, progress=False)
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'data').exists()

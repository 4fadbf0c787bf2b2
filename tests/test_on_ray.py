"""Ray with nodes of their own: what fails on them changes no byte, or is one sentence, and nothing is mixed."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import corpora
import pytest

from input_pipeline import records
from input_pipeline.engines import ray_jobs
from input_pipeline.errors import EngineError, StorageError
from input_pipeline.prepare import corpus, on_ray, ray_plan
from input_pipeline.text import sources
from tests import ray_cluster

pytestmark = pytest.mark.ray
ROOT = pathlib.Path(__file__).parent.parent
LOST = 'a node'
SECONDS = 300  # a limit for a machine with much else to do
# In the order in which their tasks begin.
STAGES = ['_split', '_make_runs', '_rows_of', '_drop_copies', '_rename', '_decide_group', '_select_of', '_spread_of',
          '_write']


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return corpora.make(tmp_path_factory.mktemp('corpus'))


@pytest.fixture
def small(monkeypatch):
  """Many tasks of every stage, whatever the size of the corpus."""
  monkeypatch.setattr(sources, 'CHUNK_BYTES', 1500)
  sizes = functools.partial(ray_plan.Sizes, run=6000, value=8000, fan=3, least=1, part_tokens=900)
  monkeypatch.setattr(on_ray, 'Sizes', sizes)


def on(made, folder: pathlib.Path, **changes):
  """The settings of a job on Ray, in a folder with its text."""
  for name in ('corpus.txt', 'vocab.txt'):
    shutil.copy(pathlib.Path(made[0].input).parent / name, folder)
  return dataclasses.replace(made[0], input=str(folder / 'corpus.txt'), vocabulary=str(folder / 'vocab.txt'),
                             output=str(folder / 'data'), engine='ray', **changes)


def same_as(made, folder: pathlib.Path) -> None:
  """Shards as one process makes them, and nothing beside them."""
  wanted, found = pathlib.Path(made[0].output), folder / 'data'
  assert {path.name for path in found.iterdir()} == {path.name for path in wanted.iterdir()}
  assert [path.name for path in wanted.iterdir()
          if path.name != records.MANIFEST and path.read_bytes() != (found / path.name).read_bytes()] == []
  manifest = records.read_manifest(found)
  assert (manifest.splits, manifest.counts) == (made[1].splits, made[1].counts)
  assert {path.name for path in folder.iterdir()} == {'corpus.txt', 'vocab.txt', 'data'}


def nothing_made(folder: pathlib.Path) -> None:
  assert {path.name for path in folder.iterdir()} == {'corpus.txt', 'vocab.txt'}


def log_of(error: Exception) -> pathlib.Path:
  """The file that a sentence names."""
  said = str(error)
  assert '\n' not in said
  return pathlib.Path(said.rpartition(' ')[2].rstrip(')'))

# ---------------------------------------------------------------- what is known before the work


def test_relative_paths_and_a_cluster_that_this_machine_is_not_part_of(made, ray_nodes, tmp_path, monkeypatch, capfd):
  prepare = on(made, tmp_path)
  monkeypatch.chdir(tmp_path)
  corpus.prepare(dataclasses.replace(prepare, input='corpus.txt', vocabulary='vocab.txt', output='data'),
                 arguments=ray_nodes.by_proxy, progress=False)
  assert capfd.readouterr().err.count('\n') == capfd.readouterr().err.count('waits for a free CPU')
  same_as(made, tmp_path)


@pytest.mark.parametrize('scheme', ['', 'ray://'])
def test_nobody_at_the_address_is_one_sentence_at_once(made, tmp_path, capfd, scheme):
  began = time.monotonic()
  with pytest.raises(EngineError, match=f'no cluster answers at {scheme}127.0.0.1:.* --address') as error:
    corpus.prepare(on(made, tmp_path), arguments=[f'--address={scheme}127.0.0.1:{ray_cluster.free_port()}'])
  assert time.monotonic() - began < 30 and '\n' not in str(error.value) and capfd.readouterr().err == ''
  nothing_made(tmp_path)


def test_another_project_on_the_workers_is_named_before_the_work(made, ray_nodes, tmp_path, monkeypatch):
  prepare = on(made, tmp_path)
  monkeypatch.chdir(tmp_path)  # workers of this machine look into the folder of the driver first
  strange = tmp_path.parent / f'{tmp_path.name}-strange' / 'input_pipeline'
  strange.mkdir(parents=True)
  (strange / '__init__.py').write_text('')
  with pytest.raises(records.DataError, match='of --engine ray (lack|have another|has another)') as error:
    corpus.prepare(prepare, arguments=[*ray_nodes.direct, f'--runtime_env={{"py_modules": ["{strange}"]}}'],
                   progress=False)
  log_of(error.value).unlink()
  nothing_made(tmp_path)


def test_the_project_comes_by_a_file_that_says_what_workers_need(made, ray_nodes, tmp_path, monkeypatch):
  """As working_dir, by YAML."""
  prepare = on(made, tmp_path)
  env = tmp_path.parent / f'{tmp_path.name}.yaml'
  shutil.copytree(ROOT / 'input_pipeline', tmp_path.parent / f'{tmp_path.name}-house' / 'input_pipeline',
                  ignore=shutil.ignore_patterns('__pycache__'))
  env.write_text(f'working_dir: {tmp_path.parent}/{tmp_path.name}-house\n')
  corpus.prepare(prepare, arguments=[*ray_nodes.direct, '--runtime_env', str(env)], progress=False)
  same_as(made, tmp_path)

# ---------------------------------------------------------------- what fails in the work


def test_a_bad_document_is_one_sentence_and_the_rest_is_in_a_log(made, ray_nodes, tmp_path, capfd):
  prepare = on(made, tmp_path)
  with (tmp_path / 'corpus.txt').open('ab') as file:
    file.write(b'\n\nA \xff byte.\n')
  with pytest.raises(records.DataError, match='corpus.txt is not UTF-8: byte 0xff at byte .* with iconv') as error:
    corpus.prepare(prepare, arguments=ray_nodes.direct, progress=False)
  log = log_of(error.value)
  assert 'Traceback' in log.read_text()
  assert not [line for line in capfd.readouterr().err.splitlines() if 'waits for a free CPU' not in line]
  log.unlink()
  nothing_made(tmp_path)


def test_workers_and_a_node_that_are_killed_change_nothing(made, small, tmp_path):
  """One worker in each stage, and a node while it holds runs."""
  prepare, killed = on(made, tmp_path), []
  with ray_cluster.running(3) as cluster:
    ended = threading.Event()

    def kill() -> None:
      left = list(STAGES)
      while left and not ended.is_set():
        found = next(((process, task) for node in cluster.nodes for process, task in node.tasks().items()
                      if task in left), None)
        if found:
          process, task = found
          if task not in STAGES[:2] and LOST not in killed:
            cluster.nodes[2].kill()
            killed.append(LOST)
          else:
            with contextlib.suppress(ProcessLookupError):
              os.kill(process, signal.SIGKILL)
              killed.append(task)
          left = left[left.index(task) + 1:]  # those before may have passed unseen

    killer = threading.Thread(target=kill)
    killer.start()
    try:
      corpus.prepare(prepare, arguments=cluster.direct, progress=False)
    finally:
      ended.set()
      killer.join()
    same_as(made, tmp_path)
  assert LOST in killed and len(killed) >= 4, killed


def test_a_head_that_is_lost_is_one_sentence(made, small, tmp_path):
  """Ray's libraries end the process that they are in, after a minute."""
  prepare = on(made, tmp_path)
  with ray_cluster.running(2) as cluster:
    ended = threading.Event()

    def kill() -> None:
      while not ended.is_set() and not any('_make_runs' in node.tasks().values() for node in cluster.nodes):
        time.sleep(0.01)
      cluster.nodes[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
      with pytest.raises(EngineError, match='--engine ray: .* all that was told is in ') as error:
        corpus.prepare(prepare, arguments=cluster.direct, progress=False)
    finally:
      ended.set()
      killer.join()
  log_of(error.value).unlink()
  nothing_made(tmp_path)


@pytest.mark.parametrize('said', [
    'Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1\nThis process …',
    'Python minor versions differ between client and server: client is 3.11.7, server is 3.10.1'])
def test_another_ray_on_the_cluster_is_one_sentence(said):
  kind, error = ray_jobs._of_error(RuntimeError(said))
  assert kind == 'failed' and isinstance(error, records.DataError)
  assert '3.10.1' in str(error) and '\n' not in str(error)


def command(prepare, cluster: ray_cluster.Cluster) -> subprocess.Popen:
  argv = ['prepare', '--input', prepare.input, '--vocabulary', prepare.vocabulary, '--output', prepare.output,
          '--sequence-length', '32', '--shards', '3', '--validation-share', '0.1', '--engine', 'ray', '--',
          *cluster.direct]
  return subprocess.Popen([sys.executable, '-m', 'bert_jax_command', *argv], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, start_new_session=True,
                          env=os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path]),
                                            'TMPDIR': str(pathlib.Path(prepare.output).parent.parent)})


def test_a_driver_that_is_ended_ends_its_tasks_and_begins_again(made, tmp_path):
  prepare = on(made, tmp_path)
  with (tmp_path / 'corpus.txt').open('a') as file:  # more of the same: copies, which change no shard
    file.write(('\n\n' + (tmp_path / 'corpus.txt').read_text()) * 100)
  with ray_cluster.running(1) as cluster:
    [node] = cluster.nodes
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGINT, 130)):
      for _ in range(5):
        driver = command(prepare, cluster)
        while '_make_runs' not in node.tasks().values() and driver.poll() is None:
          time.sleep(0.01)
        if driver.returncode != 0:
          break
        shutil.rmtree(tmp_path / 'data')  # it was done before it was seen at work
      driver.send_signal(number)
      _, said = driver.communicate(timeout=SECONDS)
      assert driver.returncode == code and 'Traceback' not in said, said
      wait_until(lambda: not {'_split', '_make_runs'} & set(node.tasks().values()))
      assert not (tmp_path / 'data').exists()
    driver = command(prepare, cluster)
    out, said = driver.communicate(timeout=SECONDS)
    assert driver.returncode == 0, said
  assert {path.name for path in tmp_path.iterdir()} == {'corpus.txt', 'vocab.txt', 'data'}
  found = records.read_manifest(tmp_path / 'data')
  assert [(split.pieces, [shard.sha256 for shard in split.shards]) for split in found.splits.values()] == [
      (split.pieces, [shard.sha256 for shard in split.shards]) for split in made[1].splits.values()]


def wait_until(true) -> None:
  deadline = time.monotonic() + SECONDS
  while not true():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def test_an_output_that_is_not_shared_and_a_disk_that_is_full(made, tmp_path):
  """Nodes with mounts of their own."""
  if subprocess.run(['unshare', '--mount', 'true'], capture_output=True).returncode:
    pytest.skip('needs the right to mount a disk')
  prepare, place = on(made, tmp_path), tmp_path / 'place'
  place.mkdir()
  tiny = tmp_path.parent / f'{tmp_path.name}-tiny'
  tiny.mkdir()
  with ray_cluster.running(0) as cluster:
    cluster.add()
    cluster.add(before=f'mount -t tmpfs none {place}')
    with pytest.raises(records.DataError, match='--output .* is not shared: .* a bucket or a shared disk') as error:
      corpus.prepare(dataclasses.replace(prepare, output=str(place / 'data')), arguments=cluster.direct, progress=False)
    log_of(error.value).unlink()
    place.rmdir()
    nothing_made(tmp_path)
  with ray_cluster.running(0) as cluster:
    cluster.add(before=f'mount -t tmpfs -o size=8k none {tiny}', TMPDIR=str(tiny))
    with pytest.raises((StorageError, OSError), match='No space left on device') as error:
      corpus.prepare(prepare, arguments=cluster.direct, progress=False)
    assert '\n' not in str(error.value)
    nothing_made(tmp_path)

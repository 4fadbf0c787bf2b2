"""Weights & Biases and MLflow, where they keep all on this machine: they get each figure of a run's log, in one run of
theirs however often ours goes on; what they fail at is told, and changes nothing."""

import csv
import json
import os
import re
import signal
import struct
import sys
import threading

import pytest

from bert_jax import metrics, trackers
from launch import cli
from tests import buckets, children

SECRETS = {'WANDB_API_KEY': '5ec2e7' * 6 + 'abcd', 'MLFLOW_TRACKING_PASSWORD': 'pass5ec2e7word'}
FAILED = re.compile(r'bert-jax: --log-to (\w+): .*: training goes on, and its lines wait')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  folder = tmp_path_factory.mktemp('trackers')
  children.write_data(folder)
  return folder


def environment(place) -> dict[str, str]:
  """Nothing of it leaves this machine."""
  return SECRETS | {'WANDB_MODE': 'offline', 'MLFLOW_TRACKING_URI': (place / 'mlruns').as_uri(), 'HOME': str(place),
                    'MLFLOW_ALLOW_FILE_STORE': 'true', 'MLFLOW_DISABLE_TELEMETRY': 'true'}


def of_log(run) -> dict[tuple[str, int], float]:
  """{('train/loss', 20): 6.91}: each figure of a run's log."""
  return {(f'{line["kind"]}/{name}', line['step']): value for line in metrics.read(run) for name, value in line.items()
          if name not in ('step', 'kind', metrics.TIME)}


# ---------------------------------------------------------------- what they have


def of_mlflow(store) -> list[tuple[object, dict[tuple[str, int], float]]]:
  """(the run, its figures) of each run in a folder of MLflow's."""
  os.environ |= {'MLFLOW_ALLOW_FILE_STORE': 'true', 'MLFLOW_DISABLE_TELEMETRY': 'true'}
  import mlflow
  client = mlflow.MlflowClient(tracking_uri=store.as_uri())
  experiment = client.get_experiment_by_name(trackers.PROJECT)
  runs = client.search_runs([experiment.experiment_id]) if experiment else []
  return [(run, {(name, point.step): point.value for name in run.data.metrics
                 for point in client.get_metric_history(run.info.run_id, name)}) for run in runs]


def records(path):
  """The records of a file of Weights & Biases: a LevelDB log, whose blocks of 32 KiB have parts of records."""
  from wandb.proto import wandb_internal_pb2
  data, place, whole = path.read_bytes(), 7, b''
  while place + 7 <= len(data):
    if (left := 32768 - place % 32768) < 7:
      place += left
      continue
    _, size, kind = struct.unpack('<IHB', data[place:place + 7])
    whole += data[place + 7:place + 7 + size]
    place += 7 + size
    if kind in (1, 4):  # whole, or its last part
      yield wandb_internal_pb2.Record.FromString(whole)
      whole = b''


def of_wandb(run) -> tuple[set[str], dict[str, object], dict[tuple[str, int], float]]:
  """(their runs' ids, the settings, the figures) of a run of ours."""
  ids, settings, found = set(), {}, {}
  for path in sorted((run / 'wandb').glob('offline-run-*/*.wandb')):
    for record in records(path):
      kind = record.WhichOneof('record_type')
      if kind == 'run':
        ids.add(record.run.run_id)
      for item in (*record.config.update, *record.run.config.update):
        settings[item.key or '.'.join(item.nested_key)] = json.loads(item.value_json)
      if kind == 'history':
        line = {item.key or '.'.join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        found |= {(name, line['step']): value for name, value in line.items() if '/' in name}
  return ids, settings, found


# ---------------------------------------------------------------- with their packages


@pytest.mark.trackers
@pytest.mark.parametrize('name', ['wandb', 'mlflow'])
def test_each_figure_is_there_in_one_run_that_goes_on(place, tmp_path, name):
  run, environ = tmp_path / 'run', environment(tmp_path)
  command = children.pretrain(place / 'data', run, 600, 100, '--run.evaluate-every', 100, '--run.log-every', 20,
                              '--log-to', name)
  with children.Child(tmp_path / 'out', *command, **environ) as child:
    child.until(lambda: of_log(run) if (run / 'metrics.jsonl').exists() else None)
    child.tell(signal.SIGTERM)
    assert child.end() in (0, 3), child.said
  with children.Child(tmp_path / 'out', *command, **environ) as child:
    assert child.end() == 0, child.said
  assert child.said.count(f'{name} has this run as') == 2 and 'did not reach' not in child.said
  assert ('train/loss', 600) in of_log(run) and ('validation/loss', 600) in of_log(run)
  if name == 'wandb':
    ids, settings, found = of_wandb(run)
    assert len(ids) == 1 and settings['model.layers'] == 1 and settings['recipe'] == 'tiny'
  else:
    (theirs, found), = of_mlflow(tmp_path / 'mlruns')
    assert theirs.data.params['model.layers'] == '1' and theirs.info.status == 'FINISHED'
  assert found == pytest.approx(of_log(run), nan_ok=True)
  ours = [child.said.encode(), *(path.read_bytes() for path in run.rglob('*') if path.is_file())]
  assert not [secret for secret in SECRETS.values() for text in ours if secret.encode() in text]


@pytest.mark.trackers
def test_each_seed_of_a_task_is_a_run_of_its_own(place, tmp_path):
  pretrained = tmp_path / 'pretrained'
  with children.Child(tmp_path / 'out', *children.pretrain(place / 'data', pretrained, 2, 2)) as child:
    assert child.end() == 0, child.said
  (tmp_path / 'table').mkdir()
  for split in ('train', 'validation'):
    with (tmp_path / 'table' / f'{split}.csv').open('w', newline='') as file:
      csv.writer(file).writerows([['text', 'label'], *(['a b', f'l{i % 2}'] for i in range(20))])
  with children.Child(tmp_path / 'out', 'finetune', 'classification', '--checkpoint', pretrained, '--data',
                      tmp_path / 'table', '--run-dir', tmp_path / 'runs', '--seeds', 2, '--epochs', 1,
                      '--batch.max-length', 16, '--run.log-every', 1, '--log-to', 'mlflow',
                      **environment(tmp_path)) as child:
    assert child.end() == 0, child.said
  found = {run.info.run_name: figures for run, figures in of_mlflow(tmp_path / 'mlruns')}
  runs = [tmp_path / 'runs' / seed for seed in ('seed-1', 'seed-2')]
  assert found == {str(run)[-trackers.NAME_LETTERS:]: pytest.approx(of_log(run)) for run in runs}
  assert all(('validation/accuracy', 1) in figures or len(figures) > 3 for figures in found.values())


@pytest.mark.trackers
@pytest.mark.parametrize('name', ['wandb', 'mlflow'])
def test_a_server_that_is_not_there_is_told_and_changes_nothing(place, tmp_path, name):
  away = {'WANDB_MODE': 'online', 'WANDB_BASE_URL': 'http://127.0.0.1:1', 'WANDB_INIT_TIMEOUT': '5',
          'MLFLOW_HTTP_REQUEST_MAX_RETRIES': '0',
          'MLFLOW_TRACKING_URI': f'http://me:{SECRETS["MLFLOW_TRACKING_PASSWORD"]}@127.0.0.1:1'}
  for run, more in (('run', ('--log-to', name)), ('straight', ())):
    with children.Child(tmp_path / f'{run}.out', *children.pretrain(
        place / 'data', tmp_path / run, 4, 2, *more), **environment(tmp_path) | away) as child:
      assert child.end() == 0, child.said
    if more:
      assert FAILED.findall(child.said) == [name] and f'lines of the log did not reach {name}' in child.said
      assert not any(secret in child.said for secret in SECRETS.values()), child.said
  assert children.log(tmp_path / 'run') == children.log(tmp_path / 'straight')
  assert children.digest(tmp_path / 'run') == children.digest(tmp_path / 'straight')


@pytest.mark.trackers
def test_only_process_0_tells(place, tmp_path):
  port, run = buckets.free_port(), tmp_path / 'run'
  command = children.pretrain(place / 'data', run, 4, 2, '--log-to', 'mlflow')
  pair = [children.Child(tmp_path / f'out-{number}', *command, *children.of_two(number, port, 60),
                         **environment(tmp_path)) for number in range(2)]
  for child in pair:
    with child:
      assert child.end() == 0, child.said
  assert 'mlflow' not in pair[1].said
  (_, found), = of_mlflow(tmp_path / 'mlruns')
  assert found == pytest.approx(of_log(run))


# ---------------------------------------------------------------- without them


class Failing:
  """Takes lines only while `open` is set."""
  where = 'nowhere'
  open, taken, endings = threading.Event(), list[trackers.Line](), list[str]()

  package = staticmethod(lambda: None)

  def __init__(self, run):
    if not self.open.is_set():
      raise OSError(f'no route to https://me:{SECRETS["MLFLOW_TRACKING_PASSWORD"]}@host')

  def send(self, lines):
    self.taken.extend(lines)

  def close(self, ending):
    self.endings.append(ending)


def test_lines_wait_for_one_that_fails_in_their_order(monkeypatch, capsys):
  monkeypatch.setitem(trackers.TRACKERS, 'failing', Failing)
  follower = trackers.Follower('failing', trackers.Followed('id', 'run', {}, None), again_seconds=0.0)
  follower.write(1, 'train', {'loss': 2.0}, 10.0)
  follower.write(2, 'train', {'loss': 1.0}, 11.0)
  while not follower.told:
    follower.thread.join(0.01)
  Failing.open.set()
  follower.write(3, 'validation', {'loss': 1.5}, 12.0)
  follower.close('steps')
  assert Failing.taken == [trackers.Line(1, {'train/loss': 2.0}, 10.0), trackers.Line(2, {'train/loss': 1.0}, 11.0),
                           trackers.Line(3, {'validation/loss': 1.5}, 12.0)]
  assert Failing.endings == ['steps']
  said = capsys.readouterr().err.splitlines()
  assert len([line for line in said if FAILED.match(line)]) == 1 and 'https://…@host' in said[0], said
  assert said[1:] == ['bert-jax: failing has this run as nowhere', 'bert-jax: failing takes lines again']


@pytest.mark.parametrize('name', list(trackers.TRACKERS))
def test_one_that_is_not_installed_is_one_sentence_before_the_work(place, tmp_path, monkeypatch, capsys, name):
  monkeypatch.setitem(sys.modules, name, None)
  monkeypatch.setattr(sys, 'argv', ['bert-jax', *map(str, children.pretrain(
      place / 'data', tmp_path / 'run', 2, 2, '--log-to', name))])
  with pytest.raises(SystemExit) as ended:
    cli.main()
  assert ended.value.code == 2 and not (tmp_path / 'run').exists()
  assert f"this needs {name}, which is not installed here: pip install 'bert_jax[{name}]'" in capsys.readouterr().err

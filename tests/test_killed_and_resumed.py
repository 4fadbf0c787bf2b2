"""A run that is killed -9, wherever the kill falls, and started again leaves what an undisturbed one leaves."""

import dataclasses
import functools
import json
import os
import pathlib
import random
import signal
import time

import jax
import pytest

from bert_jax import checkpoint, config as cfg, metrics, recipes, run_directory, train
from tests import children, states, synthetic

VOCABULARY, STEPS = 120, 60
TIMES = ('tokens_per_second', 'steps_per_second', 'data_stall_share', 'minutes', 'mfu', 'time')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('killed') / 'data', vocabulary_size=VOCABULARY, pieces=300,
                              documents=30, sequence_length=32, splits=('train', 'validation'))


# What is due falls on different steps, some of it on the same; LAMB tells its trust ratios in lines of their own.
PLAIN = cfg.Config(
    model=recipes.model_of(1, 64, vocab_size=VOCABULARY, dtype='float32'),
    batch=cfg.BatchConfig(size=8, sequence_length=32, predictions=5),
    optimizer=cfg.Optimizer(name='lamb', peak_learning_rate=1e-3, warmup_steps=5), mesh=cfg.MeshShape(data=1),
    run=cfg.Run(steps=STEPS, log_every=7, checkpoint_every=4, evaluate_every=6, evaluation_rows=16))


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """With both probes beside every second evaluation."""
  folder = synthetic.write_probed(tmp_path_factory.mktemp('probed'), VOCABULARY)
  return dataclasses.replace(PLAIN, probe=cfg.Probe(12, str(folder / 'pairs.jsonl'), 'classification', str(folder), 8))


@pytest.fixture(scope='module')
def straight(config, data, tmp_path_factory):
  run_dir = tmp_path_factory.mktemp('straight') / 'run'
  train.train(config, data, run_dir, devices=jax.devices()[:1], progress=False)
  return run_dir


def lines(run_dir):
  """Those of metrics.jsonl as they stand there, less what is a time."""
  found = [json.loads(line) for line in (run_dir / run_directory.LOG).read_text().splitlines()]
  return [{name: value for name, value in line.items() if name not in TIMES} for line in found]


def assert_same(run_dir, straight):
  assert lines(run_dir) == lines(straight)
  mine, theirs = (checkpoint.load(path) for path in (run_dir, straight))
  assert mine.step == theirs.step == STEPS
  states.assert_same(mine.params, theirs.params, run_dir, straight)
  figures = {'probe_pairs_accuracy', 'probe_classification_accuracy'}
  probed = [line['step'] for line in lines(run_dir) if figures <= set(line)]
  assert probed == list(range(12, STEPS + 1, 12))
  strangers = {path.name for path in run_dir.iterdir()} ^ {path.name for path in straight.iterdir()}
  assert not {name for name in strangers if not name.endswith('.tmp')}


def test_what_was_due_at_a_saved_step_is_made_up(config, straight, data, tmp_path):
  """A signal comes where an evaluation is due, with probes: the step is saved, and the process ends."""
  for step in (12, 36):
    train.train(config, data, tmp_path / 'run', devices=jax.devices()[:1], progress=False, stop=step.__eq__)
    evaluated = [line['step'] for line in metrics.read(tmp_path / 'run') if line['kind'] == metrics.VALIDATION]
    assert evaluated == list(range(6, step, 6))
  train.train(config, data, tmp_path / 'run', devices=jax.devices()[:1], progress=False)
  assert_same(tmp_path / 'run', straight)


def test_a_run_that_was_killed_as_it_began_begins_again(config, straight, data, tmp_path):
  record = run_directory.read(straight)
  files = run_directory.vocabulary_files(straight)
  assert files
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / run_directory.LOCK).touch()
  (tmp_path / 'run' / f'.{run_directory.CONFIG}.77.tmp').write_text('{')
  assert run_directory.check(tmp_path / 'run', record) is None
  run_directory.open_run(tmp_path / 'run', record, files)
  for name in files:
    (tmp_path / 'run' / name).unlink()  # config.json is written first
  assert run_directory.open_run(tmp_path / 'run', record, files) == record
  assert run_directory.vocabulary_files(tmp_path / 'run') == files


def trained(settings: str, data: str, run_dir: str, step_file: str) -> None:
  """What a child does; its file has the number of the last step that was done."""
  train.train(cfg.from_json(cfg.Config, json.loads(settings)), data, run_dir, devices=jax.devices()[:1], progress=False,
              stop=lambda step: bool(pathlib.Path(step_file).write_text(str(step))) and False)


@pytest.mark.slow
@pytest.mark.parametrize('kills', [30])
def test_kills_at_random_moments_change_nothing(config, straight, data, tmp_path, kills):
  """Four of five fall within the steps, saves, evaluations and probes that follow a step of this process, the others
  anywhere from its beginning on. Of a run that ends before all kills have come, another one is begun."""
  seed, number, fell, code = time.time_ns(), 0, [], None
  print(f'moments by {seed}')
  moments, file = random.Random(seed), tmp_path / 'step'
  settings = json.dumps(dataclasses.asdict(config))
  done = lambda: int(file.read_text() or 0) if file.exists() else 0

  def until(child, step: int) -> None:
    end = time.monotonic() + children.SECONDS
    while child.alive and done() < step and time.monotonic() < end:
      time.sleep(0.001)

  while len(fell) < kills or code != 0:
    run_dir = tmp_path / f'run{number}'
    file.unlink(missing_ok=True)
    work = functools.partial(trained, settings, str(data), str(run_dir), str(file))
    with children.Child(tmp_path / f'said{number}', prepare=work, XLA_FLAGS=os.environ['XLA_FLAGS']) as child:
      if len(fell) < kills:
        if moments.random() < 0.8:
          until(child, 1)
          until(child, done() + moments.randint(0, STEPS // 2))
          child.process.join(moments.uniform(0, 0.1))
        else:
          child.process.join(moments.uniform(0, 10))
        if child.kill():
          fell.append((number, done()))
          print(f'kill {len(fell)}: of run {number} after its step {fell[-1][1]}', flush=True)
      code = child.end()
    assert code in (0, -signal.SIGKILL), child.said
    if code == 0:
      assert_same(run_dir, straight)
      number += 1
      print(f'{number} runs are as the one that nobody disturbed', flush=True)
  assert len({step for _, step in fell}) > kills / 3

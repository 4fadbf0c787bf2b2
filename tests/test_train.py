"""Training: it learns, stops, resumes bit for bit, on another mesh too, and refuses what is not its own."""

import dataclasses
import pickle
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from bert_jax import (
  checkpoint,
  choices,
  config as cfg,
  evaluate,
  metrics,
  program as program_lib,
  recipes,
  run_directory,
  train,
)
from bert_jax.errors import DriftError, NonFiniteError
from input_pipeline.errors import DataError
from tests import children, synthetic

VOCABULARY, STEPS = 120, 40
MESHES = [(cfg.MeshShape(data=2), 2), (cfg.MeshShape(data=4), 4), (cfg.MeshShape(data=2, fsdp=4), 8),
          (cfg.MeshShape(fsdp=8), 8)]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('train') / 'data', vocabulary_size=VOCABULARY, pieces=300,
                              documents=30, sequence_length=32, splits=('train', 'validation'))


@pytest.fixture(scope='module')
def config():
  """Dropout, two microbatches and a log line that no stop falls on: all that could make a resumed run differ."""
  return cfg.Config(
      model=recipes.model_of(2, 64, vocab_size=VOCABULARY, dtype='float32'),
      batch=cfg.BatchConfig(size=16, sequence_length=32, predictions=5),
      optimizer=cfg.Optimizer(peak_learning_rate=1e-3, warmup_steps=5), mesh=cfg.MeshShape(data=1),
      run=cfg.Run(steps=STEPS, microbatches=2, log_every=8, checkpoint_every=10, evaluate_every=20, evaluation_rows=64))


@pytest.fixture(scope='module')
def straight(data, config, tmp_path_factory):
  run_dir = tmp_path_factory.mktemp('straight') / 'run'
  return run_dir, run(config, data, run_dir)


def run(config, data, run_dir, stop_at: int | None = None, devices: int = 1):
  """`train`, which is asked to stop after step `stop_at` as a signal asks."""
  return train.train(config, data, run_dir, devices=jax.devices()[:devices], progress=False,
                     stop=lambda step: step == stop_at)


def losses(run_dir):
  names = 'loss', 'mlm_loss', 'nsp_loss', 'mlm_accuracy', 'nsp_accuracy', 'gradient_norm', 'learning_rate'
  return [[line['step'], line['kind']] + [float(line[name]).hex() for name in names if name in line]
          for line in metrics.read(run_dir)]


def equal(a, b) -> bool:
  return all(jax.tree.leaves(jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), a, b)))


FIRST_STEP = '''
import pickle, sys
import jax
from bert_jax import train
heavy, found = {'tensorflow', 'torch', 'tensorboardX', 'keras', 'transformers'}, []
with open(sys.argv[1], 'rb') as file:
  args = pickle.load(file)
train.train(*args, devices=jax.devices()[:1], progress=False,
            stop=lambda step: found.append(sorted(heavy & set(sys.modules))) or True)
print(found)
'''


def test_the_first_step_waits_for_no_library_that_it_does_not_need(data, config, tmp_path):
  """On a CPU: TensorFlow, and torch by way of tensorboardX, took half of a second start."""
  (tmp_path / 'args').write_bytes(pickle.dumps((config, data, tmp_path / 'run')))
  done = subprocess.run([sys.executable, '-c', FIRST_STEP, tmp_path / 'args'], capture_output=True, text=True,
                        timeout=children.SECONDS)
  assert done.stdout.strip() == '[[]]', done.stdout + done.stderr


@pytest.mark.reliability(1)
def test_resume_is_bit_exact_at_random_steps(straight, data, config, tmp_path, tally):
  run_dir, whole = straight
  again = run(config, data, tmp_path / 'again')
  tally.control(losses(tmp_path / 'again') == losses(run_dir) and equal(again.state, whole.state))
  seed = time.time_ns() % 10**6
  chance = random.Random(seed)
  stops = sorted({config.run.evaluate_every, *chance.sample(range(1, STEPS), 4)})
  tally.note(f'seed {seed}: stopped at {", ".join(map(str, stops))}')
  for stop in stops:
    assert run(config, data, tmp_path / 'run', stop).reason == 'signal'
    due = stop, metrics.VALIDATION  # for which a signal leaves no time: it comes after the resume
    tally.fault(stop < STEPS, survived=True, exact=losses(tmp_path / 'run') == [
        line for line in losses(run_dir) if line[0] <= stop and tuple(line[:2]) != due])
  resumed = run(config, data, tmp_path / 'run')
  assert resumed.resumed_from == stops[-1] and resumed.step == whole.step == STEPS
  tally.fault(True, survived=True, exact=losses(tmp_path / 'run') == losses(run_dir) and equal(
      resumed.state, whole.state))


def test_a_finished_run_is_left_as_it_is(straight, data, config):
  run_dir, whole = straight
  before = losses(run_dir)
  again = run(config, data, run_dir)
  assert again.reason == 'steps' and again.resumed_from == STEPS
  assert equal(again.state, whole.state)
  assert losses(run_dir) == before


def test_what_a_run_keeps(straight, config):
  run_dir, _ = straight
  with checkpoint.manager(run_dir) as checkpoints:
    assert sorted(checkpoints.all_steps()) == [20, 30, 40]
  lines = metrics.read(run_dir)
  assert [line['step'] for line in lines if line['kind'] == 'train'] == list(range(8, STEPS + 1, 8))
  assert [line['step'] for line in lines if line['kind'] == 'validation'] == [20, 40]
  assert list((run_dir / 'tensorboard').iterdir())
  assert run_directory.read(run_dir).config == choices.settle(config, jax.devices()[:1]).config


def test_lamb_tells_its_trust_ratios_by_name(data, config, tmp_path, capsys):
  lamb = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, name='lamb'),
                             run=dataclasses.replace(config.run, steps=16, evaluate_every=0))
  run(lamb, data, tmp_path / 'run', stop_at=8)
  # It goes on with the ratios, on another mesh.
  train.train(dataclasses.replace(lamb, mesh=cfg.MeshShape(fsdp=4)), data, tmp_path / 'run')
  lines = [line for line in metrics.read(tmp_path / 'run') if line['kind'] == 'trust_ratio']
  assert [line['step'] for line in lines] == [8, 16]
  assert {'encoder/blocks/0/query/kernel', 'encoder/blocks/1/query/kernel',
          'encoder/word_embeddings/embedding'} < set(lines[0])
  assert not any('bias' in name or 'norm' in name for name in lines[0])
  printed = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().err.splitlines()
             if line.startswith('  encoder/blocks/')}
  ratios = [lines[1][f'encoder/blocks/{layer}/output/kernel'] for layer in range(2)]
  assert printed['encoder/blocks/*/output/kernel'] == [f'{ratio:.3f}' for ratio in ratios]


@pytest.mark.reliability(3)
def test_restores_on_another_mesh(straight, data, config, tmp_path, tally):
  run_dir, whole = straight
  with checkpoint.manager(run_dir) as checkpoints:
    here = lambda mesh, devices: checkpoint.restore(checkpoints, program_lib.of(
        dataclasses.replace(config, mesh=mesh), jax.devices()[:devices]).abstract)[0]
    tally.control(equal(here(cfg.MeshShape(data=1), 1), whole.state))
    for mesh, devices in MESHES:
      tally.fault(devices > 1, survived=True, exact=equal(here(mesh, devices), whole.state))
  run(config, data, tmp_path / 'run', stop_at=20)
  # Three do not divide the rows, which empty ones fill up.
  for mesh, devices, stop in ((cfg.MeshShape(data=2, fsdp=4), 8, 25), (cfg.MeshShape(), 3, 30),
                              (cfg.MeshShape(data=1), 1, None)):
    result = run(dataclasses.replace(config, mesh=mesh), data, tmp_path / 'run', stop, devices)
  assert result.step == STEPS
  greatest = 0.0
  for mine, theirs in zip(metrics.read(tmp_path / 'run'), metrics.read(run_dir), strict=True):
    assert mine['step'] == theirs['step']
    greatest = max(greatest, abs(mine['loss'] - theirs['loss']))
  assert greatest < 1e-5
  tally.note(f'losses on 8 devices, then 3, then 1 differ from those of 1 by at most {greatest:.1e}')


def test_max_minutes_ends_a_run_for_good(data, config, tmp_path):
  timed = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=100_000, max_minutes=1e-6))
  first = run(timed, data, tmp_path / 'run')
  assert first.reason == 'minutes' and first.step < 100
  with checkpoint.manager(tmp_path / 'run') as checkpoints:
    assert checkpoints.latest_step() == (first.step or None)


DRIFTS = {'run.seed': ('run', {'seed': 1}), 'batch.seed': ('batch', {'seed': 1}), 'batch.size': ('batch', {'size': 32}),
          'batch.sequence_length': ('batch', {'sequence_length': 24}),
          'batch.predictions': ('batch', {'predictions': 4}),
          'batch.masking': ('batch', {'masking': cfg.Masking(share=0.1)}), 'run.steps': ('run', {'steps': STEPS + 1}),
          'optimizer.peak_learning_rate': ('optimizer', {'peak_learning_rate': 1e-4}),
          'optimizer.warmup_steps': ('optimizer', {'warmup_steps': 6}), 'optimizer.b1': ('optimizer', {'b1': 0.8}),
          'optimizer.name': ('optimizer', {'name': 'lamb'}), 'model.hidden_dropout': ('model', {'hidden_dropout': 0.2})}


@pytest.mark.reliability(17)
@pytest.mark.parametrize('name', DRIFTS)
def test_settings_that_drift_are_refused_by_name(straight, data, config, tally, name):
  run_dir, _ = straight
  free = dataclasses.replace(config, run=dataclasses.replace(config.run, log_every=3, checkpoint_every=7))
  tally.control(run(free, data, run_dir).resumed_from == STEPS)
  part, changes = DRIFTS[name]
  drifted = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **changes)})
  before = {path: path.read_bytes() for path in run_dir.rglob('*') if path.is_file()}
  with pytest.raises((cfg.ConfigError, DataError), match=name.replace('_', '.')):  # the shards may say it first
    run(drifted, data, run_dir)
  after = {path: path.read_bytes() for path in run_dir.rglob('*') if path.is_file()}
  tally.fault(drifted != config, detected=True, survived=before == after)


def test_refuses_what_is_not_its_own(straight, data, config, tmp_path):
  run_dir, _ = straight
  other = synthetic.write_data(tmp_path / 'other', vocabulary_size=VOCABULARY, pieces=300, documents=30,
                               sequence_length=32, seed=1, splits=('train', 'validation'))
  with pytest.raises(DriftError, match='other data'):
    run(config, other, run_dir)
  foreign = tmp_path / 'foreign'
  foreign.mkdir()
  (foreign / 'notes.txt').write_text('mine')
  with pytest.raises(cfg.ConfigError, match='no run of ours'):
    run(config, data, foreign)
  assert [path.name for path in foreign.iterdir()] == ['notes.txt']


@pytest.mark.parametrize('change, message', [
    (dict(model=recipes.model_of(2, 64, vocab_size=VOCABULARY + 1)), 'model.vocab-size 120'),
    (dict(batch=cfg.BatchConfig(size=16, sequence_length=64)), 'sequence-length'),
    (dict(mesh=cfg.MeshShape(data=3)), 'mesh.data 3'),
    (dict(batch=cfg.BatchConfig(size=15, sequence_length=32, predictions=5), mesh=cfg.MeshShape(data=1, fsdp=1)),
     'batch.size 15'),
])
def test_bad_settings_leave_nothing_behind(data, config, tmp_path, change, message):
  with pytest.raises(ValueError, match=message):
    run(dataclasses.replace(config, **change), data, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.reliability(24)
def test_steps_that_are_not_finite_end_a_run(straight, data, config, tmp_path, monkeypatch, tally):
  tally.control(straight[1].step == STEPS)
  monkeypatch.setattr(metrics, 'MOST_SKIPPED', 3)
  huge = dataclasses.replace(config.optimizer, peak_learning_rate=1e38, warmup_steps=0, clip_norm=0.0)
  wild = dataclasses.replace(config, optimizer=huge)
  with pytest.raises(NonFiniteError, match='3 steps in a row'):
    run(wild, data, tmp_path / 'run')
  with checkpoint.manager(tmp_path / 'run') as checkpoints:
    tally.fault(True, detected=True, survived=not checkpoints.all_steps())


def test_learns_a_language_that_can_be_learnt(tmp_path):
  """Each piece is about one of 8 topics with 6 words each, so the words that are seen tell of those that are masked."""
  rng = np.random.default_rng(0)
  made = [(i % 40, [14, 14]) for i in range(400)]
  topics = lambda total: 5 + np.repeat(rng.integers(0, 8, total // 28), 28) * 6 + rng.integers(0, 6, total)
  data = synthetic.write_data(tmp_path / 'data', vocabulary_size=53, sequence_length=32, made=made, ids=topics,
                              splits=('train', 'validation'))
  config = cfg.Config(
      model=recipes.model_of(2, 64, vocab_size=53, dtype='float32', hidden_dropout=0.0, attention_dropout=0.0),
      objective='mlm_sop', batch=cfg.BatchConfig(size=32, sequence_length=32, predictions=5, pairs='sop'),
      optimizer=cfg.Optimizer(peak_learning_rate=1e-3, warmup_steps=20, schedule='linear'),
      mesh=cfg.MeshShape(data=1), run=cfg.Run(steps=120, log_every=40))
  run(config, data, tmp_path / 'run')
  figures = evaluate.evaluate(tmp_path / 'run', progress=False)
  assert figures['mlm_loss'] < figures['unigram_loss'] - 0.4
  assert 0 < figures['sop_loss'] < 1 and 'nsp_loss' not in figures
  assert figures['sequences'] == 400
  assert run_directory.figures(tmp_path / 'run') == figures | {run_directory.COPIES: 0.0}


@pytest.mark.parametrize('pack', [False, True])
def test_learns_from_left_to_right(tmp_path, pack):
  """Each second token follows from the one before it, the others are free: a reader from the left can know half."""
  rng = np.random.default_rng(0)
  made = [(i % 40, [14, 14] if i % 4 else [14]) for i in range(400)]

  def couples(total):
    first = rng.integers(0, 24, total // 2)
    return 5 + np.stack([first, 24 + first], axis=1).reshape(-1)

  data = synthetic.write_data(tmp_path / 'data', vocabulary_size=53, sequence_length=32, made=made, ids=couples,
                              splits=('train', 'validation'))
  config = recipes.left_to_right(cfg.Config(
      model=recipes.model_of(2, 64, vocab_size=53, dtype='float32', hidden_dropout=0.0, attention_dropout=0.0),
      batch=cfg.BatchConfig(size=32, sequence_length=32, pack=pack, pairs_per_row=2 if pack else 1),
      optimizer=cfg.Optimizer(peak_learning_rate=3e-3, warmup_steps=20, schedule='linear'),
      mesh=cfg.MeshShape(data=1), run=cfg.Run(steps=100, log_every=50)))
  run(config, data, tmp_path / 'run')
  figures = evaluate.evaluate(tmp_path / 'run', progress=False)
  assert set(figures) == {'loss', 'lm_loss', 'lm_accuracy', 'unigram_loss', 'documents', 'sequences', 'step'}
  tokens = np.where(np.arange(400) % 4, 28, 14)
  # After each piece comes a [SEP], known only by where it stands.
  floor = (tokens / 2).sum() * np.log(24) / (tokens + 1).sum()
  assert figures['unigram_loss'] == pytest.approx(np.log(48), rel=.03)
  assert floor - .05 < figures['lm_loss'] < floor + .25 and figures['lm_accuracy'] > .48


def test_sigterm_saves_and_says_so(data, tmp_path):
  """A real process, a real signal: exit code 3, and the next run goes on from there."""
  command = [sys.executable, '-m', 'launch.cli', 'pretrain', 'tiny', '--data', str(data),
             '--run-dir', str(tmp_path / 'run'), '--model.vocab-size', str(VOCABULARY), '--model.dtype', 'float32',
             '--batch.sequence-length', '32', '--batch.predictions', '5', '--batch.size', '8', '--long.share', '0',
             '--run.steps', '100000', '--run.log-every', '1']
  process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
  deadline = time.time() + 120
  while time.time() < deadline and not metrics.read(tmp_path / 'run'):
    time.sleep(0.2)
  process.send_signal(signal.SIGTERM)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 3, errors
  with checkpoint.manager(tmp_path / 'run') as checkpoints:
    assert checkpoints.latest_step() == metrics.read(tmp_path / 'run')[-1]['step'] > 0

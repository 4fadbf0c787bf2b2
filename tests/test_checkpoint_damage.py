"""Damaged checkpoints: every byte of every file is fair game, and none is used; an older step is, or a sentence tells.

Each fault is proved to have changed something, and the same checks pass where there is none.
"""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from bert_jax import (
    checkpoint,
    config as cfg,
    manifest as manifest_lib,
    metrics,
    run_directory,
    steps,
    train,
    verify,
)
from bert_jax.convert import exchange
from bert_jax.errors import CheckpointError, DamageError, NonFiniteError
from input_pipeline import records, storage
from input_pipeline.errors import DataError
from launch import cli
from tests import parameters, states, synthetic
from tests.saves import MODEL, SETTINGS, abstract_of, state_of

STEPS = 3, 7, 9


def write(directory, template, vocabulary) -> None:
  parameters.write_run(directory, SETTINGS, vocabulary, steps=())
  with checkpoint.manager(directory) as checkpoints:
    for step in STEPS:
      checkpoint.save(checkpoints, state_of(step, template), checkpoint.Meta(step, 0.0, {}, ''))


@pytest.fixture(scope='module')
def template():
  return parameters.random(MODEL)


@pytest.fixture(scope='module')
def sound(tmp_path_factory, template):
  """Two runs of the same settings."""
  base = tmp_path_factory.mktemp('sound')
  (base / 'vocabulary').mkdir()
  synthetic.write_vocabulary(base / 'vocabulary', MODEL.vocab_size)
  for name in ('run', 'other'):
    write(base / name, template, base / 'vocabulary')
  return base


@pytest.fixture
def run(sound, tmp_path):
  return shutil.copytree(sound / 'run', tmp_path / 'run')


def taken(run, template) -> int:
  """The step that is used, of which every number is as it was saved. Raises DamageError."""
  loaded = checkpoint.load(run)
  jax.tree.map(lambda mine, saved: np.testing.assert_array_equal(np.asarray(mine), np.asarray(saved)),
               loaded.params, state_of(loaded.step, template).params)
  return loaded.step


def step_of(run, number) -> pathlib.Path:
  return pathlib.Path(run) / run_directory.CHECKPOINTS / str(number)


def files_of(directory) -> list[pathlib.Path]:
  return sorted(path for path in directory.rglob('*') if path.is_file())


def contents(directory) -> dict[str, bytes]:
  return {str(path.relative_to(directory)): path.read_bytes() for path in files_of(directory)}


# ---------------------------------------------------------------- faults of a step's files

def flip(path, draw):
  data = bytearray(path.read_bytes())
  data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
  path.write_bytes(data)


def truncate(path, draw):
  path.write_bytes(path.read_bytes()[:draw.randrange(path.stat().st_size)])


def append(path, draw):
  path.write_bytes(path.read_bytes() + draw.randbytes(draw.randrange(1, 9)))


def zero(path, draw):
  path.write_bytes(bytes(path.stat().st_size))


def remove(path, draw):
  path.unlink()


def swap(path, draw):
  """With another file of the step."""
  others = [other for other in files_of(top(path))
            if other.read_bytes() != path.read_bytes()]
  exchange_contents(path, draw.choice(others))


def swap_steps(path, draw):
  """With the file of an older step, of the same name where there is one."""
  older = step_of(top(path).parents[1], 7)
  same = older / path.relative_to(top(path))
  exchange_contents(path, same if same.exists() and same.read_bytes() != path.read_bytes()
                    else draw.choice([file for file in files_of(older) if file.read_bytes() != path.read_bytes()]))


def top(path) -> pathlib.Path:
  """The step that a file is of."""
  return next(parent for parent in path.parents if parent.parent.name == run_directory.CHECKPOINTS)


def exchange_contents(one, other):
  first, second = one.read_bytes(), other.read_bytes()
  one.write_bytes(second)
  other.write_bytes(first)


FAULTS = {fault.__name__: fault for fault in (flip, truncate, append, zero, remove, swap, swap_steps)}
MINE = [name for name in FAULTS if name != 'swap_steps']  # that leave other steps as they are


def damage(run, step: int, seed: int) -> str:
  """One fault in one file of a step; its name, and the file's. Raises where nothing changed."""
  draw, before = random.Random(seed), contents(run)
  name = list(FAULTS)[seed % len(FAULTS)]
  files = [path for path in files_of(step_of(run, step)) if path.stat().st_size]
  path = files[seed // len(FAULTS) % len(files)]
  FAULTS[name](path, draw)
  assert contents(run) != before
  return name


def test_a_sound_run_is_used_and_called_sound(run, template, capsys):
  assert taken(run, template) == 9
  assert capsys.readouterr().err == ''
  report = verify.verify(run)
  assert report.sound and {item.state for item in report.items} == {'sound'}
  assert [item.name for item in report.items][2:] == [f'step {step}' for step in STEPS]


def one_fault(run, template, tally, seed: int, load: bool) -> None:
  tally.control(next(steps.sound(steps.look(run, run_directory.fingerprints(run)), [])).number == 9)
  kind = damage(run, 9, seed)
  found = steps.look(run, run_directory.fingerprints(run))
  rejected = []
  best = next(steps.sound(found, rejected))
  # a swap between steps damages both, unless the older one got a file that it does not read
  assert best.number in ((7,) if kind != 'swap_steps' else (3,)), rejected
  assert rejected[0].number == 9 and rejected[0].reason and '\n' not in rejected[0].reason
  exact = taken(run, template) == best.number if load else None
  tally.fault(kind, detected=not verify.verify(run).sound, survived=True, exact=exact)


@pytest.mark.reliability(14)
@pytest.mark.parametrize('seed', range(200))
def test_each_fault_is_found_and_an_older_step_taken(run, template, tally, seed):
  one_fault(run, template, tally, seed, load=seed % 10 == 0)


@pytest.mark.slow
@pytest.mark.reliability(14)
@pytest.mark.parametrize('seed', range(200, 400))
def test_two_hundred_more(run, template, tally, seed):
  one_fault(run, template, tally, seed, load=True)


@pytest.mark.reliability(14)
@pytest.mark.parametrize('seed', range(8))
def test_where_no_step_is_sound_none_is_used(run, template, tally, seed):
  tally.control(taken(run, template) == 9)
  for step in STEPS:
    damage(run, step, MINE.index(MINE[seed % len(MINE)]) + len(FAULTS) * (seed + step))
  before = contents(run)
  with pytest.raises(DamageError, match='none of the 2 older ones can') as caught:
    checkpoint.load(run)
  assert caught.value.exit_code == 2 and '\n' not in str(caught.value)
  with checkpoint.manager(run) as checkpoints, pytest.raises(DamageError):
    checkpoint.restore(checkpoints, abstract_of(template))
  tally.fault(True, detected=True, survived=contents(run) == before)  # nothing of it was deleted


# ---------------------------------------------------------------- entries that are no step of this run


def rename(run, sound):
  step_of(run, 7).rename(step_of(run, 70))


def copy(run, sound):
  shutil.copytree(step_of(run, 7), step_of(run, 70))


def foreign(run, sound):
  """The same step of another run of the same settings."""
  shutil.rmtree(step_of(run, 9))
  shutil.copytree(step_of(sound / 'other', 9), step_of(run, 9))


def half_deleted(run, sound):
  shutil.rmtree(step_of(run, 9) / steps.STATE)


def without_manifest(run, sound):
  (step_of(run, 9) / manifest_lib.NAME).unlink()


STRAYS = {'renamed': (rename, 9), 'copied': (copy, 9), 'of another run': (foreign, 7),
          'half deleted': (half_deleted, 7), 'without its manifest': (without_manifest, 7),
          'an empty folder': (lambda run, sound: step_of(run, 99).mkdir(), 9),
          'a file': (lambda run, sound: step_of(run, 123).write_text('mine'), 9),
          'notes': (lambda run, sound: (step_of(run, 'notes').mkdir(), step_of(run, 'notes/1').mkdir()), 9),
          "Orbax's half": (lambda run, sound: step_of(run, '12.orbax-checkpoint-tmp').mkdir(), 9),
          'a long number': (lambda run, sound: step_of(run, '0012').mkdir(), 9),
          'another digit': (lambda run, sound: step_of(run, '²').mkdir(), 9)}


@pytest.mark.reliability(15)
@pytest.mark.parametrize('name', STRAYS)
def test_what_is_no_step_of_this_run_is_neither_used_nor_deleted(run, sound, template, name, tally):
  fault, expected = STRAYS[name]
  tally.control(taken(run, template) == 9)
  there = sorted(step_of(run, 'x').parent.rglob('*'))
  fault(run, sound)
  assert sorted(step_of(run, 'x').parent.rglob('*')) != there or name == 'of another run'
  before = contents(run), sorted(pathlib.Path(run).rglob('*'))
  assert taken(run, template) == expected
  with checkpoint.manager(run) as checkpoints:
    _, meta = checkpoint.restore(checkpoints, abstract_of(template))
  assert meta.step == expected
  same = (contents(run), sorted(pathlib.Path(run).rglob('*'))) == before
  tally.fault(True, survived=same, exact=same)


def test_saving_where_something_stands_moves_it_aside(run, template):
  step_of(run, 20).mkdir()
  (step_of(run, 20) / 'mine.txt').write_text('mine')
  flip(step_of(run, 9) / manifest_lib.NAME, random.Random(0))
  damaged = contents(step_of(run, 9))
  with checkpoint.manager(run) as checkpoints:
    checkpoint.restore(checkpoints, abstract_of(template))
    for step in (9, 20):
      checkpoint.save(checkpoints, state_of(step, template), checkpoint.Meta(step, 0.0, {}, ''))
  assert taken(run, template) == 20
  assert contents(step_of(run, '9.aside')) == damaged
  assert contents(step_of(run, '20.aside')) == {'mine.txt': b'mine'}


def test_only_steps_that_are_known_to_be_sound_make_older_ones_superfluous(run, template):
  damage(run, 9, len(FAULTS))  # not its manifest, by which it is ours
  with checkpoint.manager(run, keep=2) as checkpoints:
    assert checkpoint.restore(checkpoints, abstract_of(template))[1].step == 7
    checkpoint.save(checkpoints, state_of(11, template), checkpoint.Meta(11, 0.0, {}, ''))
    checkpoint.finish(checkpoints)
    assert checkpoints.all_steps() == [7, 9, 11]  # 3 is removed: 7 and 11 are sound
    checkpoint.save(checkpoints, state_of(13, template), checkpoint.Meta(13, 0.0, {}, ''))
  assert [step.number for step in steps.look(run, run_directory.fingerprints(run))] == [11, 13]


@pytest.mark.parametrize('cut', ['before the manifest', 'before the arrays', 'in the arrays', 'in a removal'])
def test_what_is_left_of_a_save_that_was_cut_off_is_swept(run, template, cut):
  fingerprints = run_directory.fingerprints(run)
  if cut == 'in a removal':
    manifest_lib.write(step_of(run, 3), manifest_lib.Manifest(3, fingerprints))
    files_of(step_of(run, 3) / steps.STATE)[0].unlink()
    half = step_of(run, 3)
  elif cut == 'before the manifest':
    half = step_of(run, '.12.half')
    half.mkdir()
  else:
    half = step_of(run, 12)
    manifest_lib.write(half, manifest_lib.Manifest(12, fingerprints))
    if cut == 'in the arrays':
      shutil.copytree(step_of(run, 9) / steps.STATE, half / steps.STATE)
  assert taken(run, template) == 9 and half.exists()  # who only reads removes nothing
  assert verify.verify(run).sound
  with checkpoint.manager(run) as checkpoints:
    assert checkpoint.restore(checkpoints, abstract_of(template))[1].step == 9
  assert not half.exists()


@pytest.mark.parametrize('name', [run_directory.CONFIG, records.VOCABULARY])
def test_a_run_whose_own_files_were_changed_is_refused(run, name):
  path = pathlib.Path(run) / name
  text = path.read_text()
  path.write_text(text.replace('"layers": 1', '"layers":  1') if name.endswith('json') else
                  '\n'.join(reversed(text.splitlines())) + '\n')
  assert path.read_text() != text
  with pytest.raises(DamageError, match=f'the {name} of the run is not what it was') as caught:
    exchange.load(run)
  assert '\n' not in str(caught.value)
  assert not verify.verify(run).sound


def test_a_step_that_is_named_is_used_or_refused(run, template):
  assert checkpoint.load(step_of(run, 7)).step == checkpoint.load(run, 7).step == 7
  damage(run, 7, 0)
  for path, step in ((step_of(run, 7), None), (run, 7)):
    with pytest.raises(DamageError, match='step 7 cannot be used'):
      checkpoint.load(path, step)
  assert not verify.verify(step_of(run, 7)).sound and verify.verify(step_of(run, 9)).sound
  with pytest.raises(cfg.ConfigError, match='no checkpoint of step 8'):
    checkpoint.load(run, 8)


@pytest.mark.reliability(16)
@pytest.mark.parametrize('change, says', [
    (lambda x: jax.ShapeDtypeStruct(x.shape, np.int32, sharding=x.sharding), r'as float32\[.*wanted int32'),
    (lambda x: jax.ShapeDtypeStruct((*x.shape, 2), x.dtype, sharding=x.sharding), r'wanted float32\[.*, 2\]')])
def test_arrays_of_another_type_or_shape_are_refused(run, template, tally, change, says):
  abstract = abstract_of(template)
  with checkpoint.manager(run) as checkpoints:
    tally.control(checkpoint.restore(checkpoints, abstract)[1].step == 9)
  abstract = dataclasses.replace(abstract, params=jax.tree.map(change, abstract.params))
  with checkpoint.manager(run) as checkpoints, pytest.raises(DamageError, match=says):
    checkpoint.restore(checkpoints, abstract)
  tally.fault(True, detected=True)


@pytest.mark.reliability(16)
@pytest.mark.parametrize('names', [('nothing', 'more'), ('everything',)], ids=['one more', 'another name'])
def test_arrays_that_are_missing_are_refused(run, template, tally, names):
  sound = abstract_of(template)
  with checkpoint.manager(run) as checkpoints:
    tally.control(checkpoint.restore(checkpoints, sound)[1].step == 9)
  abstract = dataclasses.replace(sound, opt_state={name: sound.skipped for name in names})
  with checkpoint.manager(run) as checkpoints, pytest.raises(DamageError, match=f'it lacks opt_state/{names[-1]}'):
    checkpoint.restore(checkpoints, abstract)
  tally.fault(True, detected=True)


@pytest.mark.reliability(16)
def test_arrays_that_changed_their_names_are_refused(run, template, tally):
  """Two of different shapes, as where the fields of a tuple came in another order."""
  abstract = abstract_of(template)
  first, second = abstract.params['encoder']['word_embeddings'], abstract.params['encoder']['position_embeddings']
  assert jax.tree.map(lambda x: x.shape, first) != jax.tree.map(lambda x: x.shape, second)
  with checkpoint.manager(run) as checkpoints:
    tally.control(checkpoint.restore(checkpoints, abstract)[1].step == 9)
  encoder = abstract.params['encoder'] | {'word_embeddings': second, 'position_embeddings': first}
  abstract = dataclasses.replace(abstract, params=abstract.params | {'encoder': encoder})
  with checkpoint.manager(run) as checkpoints, pytest.raises(DamageError, match='embedding'):
    checkpoint.restore(checkpoints, abstract)
  tally.fault(True, detected=True)

# ---------------------------------------------------------------- steps from before there were manifests


def write_old(run, step: int, template) -> None:
  """As the manager of Orbax wrote it, with three items."""
  mode = ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)
  handlers = {'params': ocp.StandardCheckpointHandler(), 'opt_state': ocp.StandardCheckpointHandler(),
              'meta': ocp.JsonCheckpointHandler()}
  state = state_of(step, template)
  with ocp.CheckpointManager(os.fspath(run / run_directory.CHECKPOINTS), item_handlers=handlers,
                             options=ocp.CheckpointManagerOptions(atomicity_options=mode)) as manager:
    manager.save(step, force=True, args=ocp.args.Composite(
        params=ocp.args.StandardSave(state.params),
        opt_state=ocp.args.StandardSave({'opt_state': state.opt_state, 'skipped': jax.device_put(state.skipped)}),
        meta=ocp.args.JsonSave(dataclasses.asdict(checkpoint.Meta(step, 1.5, {}, 'print')))))


@pytest.mark.reliability(35)
def test_a_step_from_before_is_read_and_said_to_be_unverified(run, template, capsys, tally):
  tally.control(taken(run, template) == 9)
  write_old(run, 15, template)
  assert taken(run, template) == 15
  told = 'it is used unverified' in capsys.readouterr().err
  tally.fault(step_of(run, 15).exists(), detected=told, survived=True, exact=True)
  with checkpoint.manager(run, keep=1) as checkpoints:
    state, meta = checkpoint.restore(checkpoints, abstract_of(template))
    assert dataclasses.replace(meta, unsent=()) == checkpoint.Meta(15, 1.5, {}, 'print')
    jax.tree.map(np.testing.assert_array_equal, state.params, state_of(15, template).params)
    assert {item.name: item.state for item in verify.verify(run).items}['step 15'] == 'unverified'
    checkpoint.save(checkpoints, state_of(16, template), checkpoint.Meta(16, 0.0, {}, ''))
  assert [step.number for step in steps.look(run, run_directory.fingerprints(run))] == [16]


@pytest.mark.reliability(35)
@pytest.mark.parametrize('name', ['meta/metadata', steps.OLD_MARKER, 'params/_METADATA'])
def test_a_step_from_before_that_is_damaged_is_not_used(run, template, name, tally, capsys):
  write_old(run, 15, template)
  tally.control(taken(run, template) == 15)
  remove(step_of(run, 15) / name, None)
  with checkpoint.manager(run) as checkpoints:
    assert checkpoint.restore(checkpoints, abstract_of(template))[1].step == 9
  tally.fault(not (step_of(run, 15) / name).exists(), detected='step 15 cannot be used' in capsys.readouterr().err,
              survived=True)

# ---------------------------------------------------------------- numbers


@pytest.mark.reliability(24)
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_saved(run, template, value, tally):
  tally.control(checkpoint.arrays.finite(checkpoint.arrays.tree_of(state_of(20, template))))
  state = state_of(20, template)
  wild = dataclasses.replace(state, opt_state={'nothing': jax.device_put(np.float32([0, value]))})
  with pytest.raises(NonFiniteError, match='step 20'), checkpoint.manager(run, keep=1) as checkpoints:
    checkpoint.save(checkpoints, wild, checkpoint.Meta(20, 0.0, {}, ''))
  assert not step_of(run, 20).exists() and taken(run, template) == 9
  assert [step.number for step in steps.look(run, run_directory.fingerprints(run))] == [3, 7, 9]
  tally.fault(not np.isfinite(wild.opt_state['nothing']).all(), detected=True, survived=True)


def test_what_is_not_finite_is_never_used_or_exported(run, template, monkeypatch):
  state = state_of(20, template)
  wild = dataclasses.replace(state, params=jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(np.nan), state.params))
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint.arrays, 'finite', lambda tree: True)
    with checkpoint.manager(run) as checkpoints:
      checkpoint.save(checkpoints, wild, checkpoint.Meta(20, 0.0, {}, ''))
    loaded = checkpoint.load(run)
  assert np.isnan(jax.tree.leaves(loaded.params)[0]).any()
  assert taken(run, template) == 9
  monkeypatch.setattr(exchange, 'load', lambda source: loaded)
  with pytest.raises(DataError, match='not finite'):
    exchange.export('huggingface', run)
  assert not (pathlib.Path(run) / 'export').exists()

# ---------------------------------------------------------------- saves that fail


def test_a_save_that_fails_is_told_and_made_good_by_the_next(run, template, monkeypatch, capsys):
  with checkpoint.manager(run) as checkpoints:
    with monkeypatch.context() as patch:
      patch.setattr(storage, 'free_bytes', lambda directory: 10)
      checkpoint.save(checkpoints, state_of(20, template), checkpoint.Meta(20, 0.0, {}, ''))
      deadline = time.monotonic() + 20
      while not checkpoint.failed(checkpoints) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 'free' in capsys.readouterr().err and not step_of(run, 20).exists()
    assert not checkpoint.failed(checkpoints)  # it is said once
    checkpoint.save(checkpoints, state_of(21, template), checkpoint.Meta(21, 0.0, {}, ''))
  assert taken(run, template) == 21


def test_a_save_that_fails_deletes_nothing_of_others(run, template, monkeypatch):
  step_of(run, 20).mkdir()
  (step_of(run, 20) / 'mine.txt').write_text('mine')
  monkeypatch.setattr(storage, 'free_bytes', lambda directory: 10)
  with pytest.raises(CheckpointError), checkpoint.manager(run) as checkpoints:
    checkpoint.save(checkpoints, state_of(20, template), checkpoint.Meta(20, 0.0, {}, ''))
  assert contents(step_of(run, 20)) == {'mine.txt': b'mine'}


@pytest.mark.reliability(19)
@pytest.mark.parametrize('where', ['the disk', 'Orbax', 'the manifest'])
def test_a_last_save_that_fails_ends_with_7(run, template, where, monkeypatch, tally):
  called = []

  def fail(*_, **__):
    called.append(1)
    raise OSError(28, 'No space left on device')

  with checkpoint.manager(run) as checkpoints:
    checkpoint.save(checkpoints, state_of(10, template), checkpoint.Meta(10, 0.0, {}, ''))
  tally.control(taken(run, template) == 10)
  with pytest.raises(CheckpointError, match='step 20 could not be written') as caught:
    with checkpoint.manager(run) as checkpoints:
      owner, name = {'the disk': (storage, 'free_bytes'), 'Orbax': (checkpoints.orbax, 'save'),
                     'the manifest': (manifest_lib, 'take')}[where]
      monkeypatch.setattr(owner, name, fail)
      checkpoint.save(checkpoints, state_of(20, template), checkpoint.Meta(20, 0.0, {}, ''))
  assert caught.value.exit_code == 7 and '\n' not in str(caught.value)
  assert not step_of(run, 20).exists() and taken(run, template) == 10
  tally.fault(called, detected=True, survived=True)


def test_saves_that_go_on_failing_end_a_run(run, template, monkeypatch):
  monkeypatch.setattr(storage, 'free_bytes', lambda directory: 10)
  with pytest.raises(CheckpointError, match='10|free'):
    with checkpoint.manager(run) as checkpoints:
      for step in range(20, 20 + checkpoint.TRIES + 1):
        checkpoint.save(checkpoints, state_of(step, template), checkpoint.Meta(step, 0.0, {}, ''))
  assert checkpoints.failures == checkpoint.TRIES and taken(run, template) == 9

# ---------------------------------------------------------------- whole commands


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """(data, config, a run's directory, its result) of 12 steps with a checkpoint at each fourth."""
  base = tmp_path_factory.mktemp('trained')
  data = synthetic.write_data(base / 'data', vocabulary_size=40, pieces=100, documents=20, sequence_length=16,
                              splits=('train', 'validation'))
  config = dataclasses.replace(SETTINGS, run=cfg.Run(steps=12, checkpoint_every=4, log_every=3))
  return data, config, base / 'run', train.train(config, data, base / 'run', devices=jax.devices()[:1], progress=False)


def lines(run) -> list:
  names = 'step', 'kind', 'loss', 'gradient_norm', 'learning_rate', 'skipped_steps'
  return [[line.get(name) for name in names] for line in metrics.read(run)]


def test_a_damaged_run_trains_on_to_the_same_end(trained, tmp_path, capsys):
  data, config, straight, whole = trained
  run = shutil.copytree(straight, tmp_path / 'run')
  for step in (8, 12):
    damage(run, step, step)
  capsys.readouterr()
  result = train.train(config, data, run, devices=jax.devices()[:1], progress=False)
  said = capsys.readouterr().err
  assert result.resumed_from == 4 and 'step 12 cannot be used' in said and 'step 4 is taken' in said
  states.assert_same(result.state, whole.state, run, straight)
  assert lines(run) == lines(straight)
  names = {path.name for path in (run / run_directory.CHECKPOINTS).iterdir()}
  assert names == {'4', '8', '12', '8.aside', '12.aside'}


def test_a_run_whose_steps_are_all_damaged_does_not_begin_anew(trained, tmp_path):
  data, config, straight, _ = trained
  run = shutil.copytree(straight, tmp_path / 'run')
  for step in (4, 8, 12):
    (step_of(run, step) / manifest_lib.NAME).unlink()
  before = contents(run)
  with pytest.raises(DamageError, match='move what is there away, and metrics.jsonl, to begin at step 0'):
    train.train(config, data, run, devices=jax.devices()[:1], progress=False)
  assert contents(run) == before


def test_a_failed_save_of_a_run_is_made_good_by_the_next_step(trained, tmp_path, monkeypatch, capsys):
  data, config, straight, whole = trained
  take, calls = manifest_lib.take, []

  def fail_once(directory):
    calls.append(directory)
    if len(calls) == 1:
      raise OSError(28, 'No space left on device')
    return take(directory)

  monkeypatch.setattr(manifest_lib, 'take', fail_once)
  long = dataclasses.replace(config, run=dataclasses.replace(config.run, keep_checkpoints=9))
  result = train.train(long, data, tmp_path / 'run', devices=jax.devices()[:1], progress=False)
  assert 'step 4 could not be written' in capsys.readouterr().err
  saved = [step.number for step in steps.look(tmp_path / 'run', run_directory.fingerprints(tmp_path / 'run'))]
  assert saved[-2:] == [8, 12] and 4 not in saved, saved
  states.assert_same(result.state, whole.state, tmp_path / 'run', straight)
  assert not (tmp_path / 'run' / run_directory.LOCK).exists()


def test_verify_says_what_is_sound(trained, tmp_path, capsys):
  data, _, straight, _ = trained
  run = shutil.copytree(straight, tmp_path / 'run')
  assert cli.run(['export', str(run)]) == 0
  capsys.readouterr()
  for path in (run, data, run / 'export', step_of(run, 12)):
    assert cli.run(['verify', str(path), '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['sound'] and found['items'] and {item['state'] for item in found['items']} == {'sound'}
  damage(run, 12, 0)
  assert cli.run(['verify', str(run)]) == 2
  table = capsys.readouterr().out
  assert [line.split()[:3] for line in table.splitlines() if line.startswith('step')] == [
      ['step', '4', 'sound'], ['step', '8', 'sound'], ['step', '12', 'damaged']]
  bad = shutil.copytree(data, tmp_path / 'data')
  shard = next(path for path in bad.iterdir() if 'train.tfrecord' in path.name and path.stat().st_size)
  flip(shard, random.Random(0))
  assert cli.run(['verify', str(bad), '--json']) == 2
  states = {item['name']: item['state'] for item in json.loads(capsys.readouterr().out)['items']}
  assert states == {'vocabulary': 'sound', 'train': 'damaged', 'validation': 'sound'}
  with pytest.raises(cfg.ConfigError, match='no run, no prepared data and no export'):
    verify.verify(tmp_path)


@pytest.mark.parametrize('name', ['model.safetensors', 'config.json', 'vocab.txt'])
@pytest.mark.parametrize('fault', ['flip', 'truncate', 'remove'])
def test_an_export_is_checked_when_it_is_read(trained, tmp_path, name, fault):
  export = exchange.export('huggingface', trained[2], tmp_path / 'export')
  assert exchange.load(export).tokenizer().tokens
  (export / 'README.md').write_text('a card of my own')
  exchange.load(export)
  FAULTS[fault](pathlib.Path(export) / name, random.Random(0))
  with pytest.raises((DataError, cfg.ConfigError)) as caught:
    exchange.load(export).tokenizer()
  assert '\n' not in str(caught.value) and not verify.verify(export).sound


@pytest.mark.reliability(15)
@pytest.mark.parametrize('there', ['nothing', 'a link to a disk that is not there', 'a file'])
def test_a_run_whose_checkpoints_are_gone_keeps_its_log_and_does_not_begin_anew(trained, tmp_path, there, tally):
  data, config, straight, _ = trained
  run = shutil.copytree(straight, tmp_path / 'run')
  go = lambda: train.train(config, data, run, devices=jax.devices()[:1], progress=False)
  tally.control(go().resumed_from == 12)
  folder = run / run_directory.CHECKPOINTS
  shutil.rmtree(folder)
  if there == 'a file':
    folder.write_text('mine')
  elif there != 'nothing':
    folder.symlink_to(tmp_path / 'disk/checkpoints')
  before = contents(run)
  with pytest.raises(DamageError, match='no checkpoint, and the log of the run goes to step 12|is a file'):
    go()
  tally.fault(not folder.is_dir(), detected=True, survived=contents(run) == before)
  (run / run_directory.LOG).unlink()
  if there == 'a file':
    folder.unlink()
  result = go()  # somebody has decided
  assert result.resumed_from is None and result.step == 12 and lines(run) == lines(straight)

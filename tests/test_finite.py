"""What a step makes is finite, or is not taken: of every optimizer, on every mesh, however it comes about."""

import dataclasses
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import (
    checkpoint,
    config as cfg,
    finite,
    optimizer,
    program as program_lib,
    recipes,
    run_directory,
    steps,
    train,
)
from bert_jax.errors import NonFiniteError
from tests import synthetic

VOCABULARY = 120
WILD = {'no epsilon': dict(epsilon=0.0), 'a rate that overflows': dict(peak_learning_rate=3e38, clip_norm=0.0)}
ON_ONE, ON_EIGHT = cfg.MeshShape(data=1), cfg.MeshShape(data=2, fsdp=2, tensor=2)


def wild(config: cfg.Config, how: str, name: str, mesh=ON_ONE, microbatches: int = 1) -> cfg.Config:
  settings = dataclasses.replace(config.optimizer, name=name, warmup_steps=0, **WILD[how])
  return dataclasses.replace(config, optimizer=settings, mesh=mesh,
                             run=dataclasses.replace(config.run, microbatches=microbatches))


def hard_gradients(params, how: str):
  """Finite ones, which these settings cannot bear: an element that is 0 in one array, or all of them large."""
  leaves, tree = jax.tree.flatten(params)
  large = 1e3 if how != 'no epsilon' else 1e-3
  grads = [jnp.full_like(x, large) for x in leaves]
  if how == 'no epsilon':
    grads[-1] = grads[-1].at[(0,) * grads[-1].ndim].set(0)
  return jax.tree.unflatten(tree, grads)


@pytest.mark.parametrize('how, name, mesh', [
    ('no epsilon', 'bert_adamw', ON_EIGHT), ('a rate that overflows', 'adamw', ON_ONE),
    *(pytest.param(how, name, mesh, marks=pytest.mark.slow) for how in WILD for name in optimizer.OPTIMIZERS
      for mesh in (ON_ONE, ON_EIGHT))])
def test_a_result_that_is_not_finite_changes_nothing(tiny, how, name, mesh):
  program = program_lib.of(wild(tiny, how, name, mesh), jax.devices()[:1] if mesh == ON_ONE else jax.devices())
  assert program.guarded
  after = program.init()
  grads = hard_gradients(after.params, how)
  step = jax.jit(functools.partial(program_lib.update, program), donate_argnums=0)
  done = -1
  while not int(after.skipped) and done < 3:  # two steps of 3e38 are more than 32 bits hold, one need not be
    done += 1
    before = jax.tree.map(np.array, after)
    after, told = step(after, grads, jnp.array(True))
  jax.tree.map(np.testing.assert_array_equal, (before.params, before.opt_state), (after.params, after.opt_state))
  assert (int(after.step), int(after.skipped), int(told['skipped'])) == (done + 1, 1, 1)
  assert done == 0 or how != 'no epsilon'
  good = jax.tree.map(lambda x: np.isfinite(x).all(), (after.params, after.opt_state))
  assert all(jax.tree.leaves(good)) and told['gradient_norm'] > 0


def test_the_published_runs_need_no_look():
  """So that their steps cost what they did."""
  for name in ('base', 'large'):
    config = recipes.recipe(name)
    assert finite.stays_finite(config.optimizer, config.run.steps)
    for change in (dict(epsilon=0.0), dict(clip_norm=0.0), dict(name='lamb'), dict(peak_learning_rate=1e38)):
      assert not finite.stays_finite(dataclasses.replace(config.optimizer, **change), config.run.steps)


def magnitudes(greatest: int):
  return st.floats(-30, greatest).map(lambda power: 10.0**power)


@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(name=st.sampled_from(['bert_adamw', 'adamw']), rate=magnitudes(14), epsilon=magnitudes(6),
                  clip=magnitudes(9), decay=st.floats(0, 1), b1=st.floats(0, 0.9999), b2=st.floats(0, 0.9999),
                  steps=st.integers(1, 10**8))
def test_what_is_proved_holds_at_the_ends_of_it(name, rate, epsilon, clip, decay, b1, b2, steps):
  """From the greatest numbers that the proof begins with, with the gradients that the clip lets through."""
  o = cfg.Optimizer(name=name, peak_learning_rate=rate, epsilon=epsilon, clip_norm=clip, weight_decay=decay, b1=b1,
                    b2=b2, warmup_steps=0, schedule='constant')
  hypothesis.assume(finite.stays_finite(o, steps))
  ends = np.float32([finite.MODERATE, -finite.MODERATE, 0])
  p, m, g = (jnp.array(x.ravel()) for x in np.meshgrid(ends, ends, np.float32([clip, -clip, 0])))
  tx, _ = optimizer.make(o, steps, optimizer.Traits({'kernel': True}, {'kernel': False}))
  params, state = {'kernel': p}, tx.init({'kernel': p})
  state = jax.tree.map(lambda x: x if x.ndim == 0 else m, state)
  state = jax.tree.map_with_path(lambda path, x: jnp.zeros_like(x) if 'nu' in str(path) else x, state)
  for _ in range(3):
    updates, state = tx.update({'kernel': g}, state, params)
    params = jax.tree.map(lambda p, u: p - jnp.float32(rate) * u, params, updates)
    assert bool(finite.all_finite(params, state))
    g = -g


# ---------------------------------------------------------------- whole runs


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('finite') / 'data', vocabulary_size=VOCABULARY, pieces=300,
                              documents=30, sequence_length=32, splits=('train', 'validation'))


CONFIG = cfg.Config(
    model=recipes.model_of(1, 64, vocab_size=VOCABULARY, dtype='float32', heads=2),
    batch=cfg.BatchConfig(size=16, sequence_length=32, predictions=5),
    run=cfg.Run(steps=40, log_every=4, checkpoint_every=3, keep_checkpoints=2), optimizer=cfg.Optimizer(warmup_steps=0))


def end_of(config, data, run_dir, devices):
  with pytest.raises(NonFiniteError) as ended:
    train.train(config, data, run_dir, devices=devices, progress=False)
  found = steps.look(run_dir, run_directory.fingerprints(run_dir))
  assert found and all(step.kind == steps.WHOLE for step in found)
  for step in found:
    params = checkpoint.load(run_dir, step.number).params
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
  assert f'step {found[-1].number} is finite' in str(ended.value)
  assert not (run_dir / 'export').exists()
  return str(ended.value)


def test_a_short_run_that_learnt_nothing_says_so(data, tmp_path, capsys):
  config = wild(CONFIG, 'no epsilon', 'bert_adamw')
  config = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=5))
  assert '5 of the 5 steps changed nothing' in end_of(config, data, tmp_path / 'run', jax.devices()[:1])
  assert capsys.readouterr().err.count('changed nothing, as its loss') == 5


@pytest.mark.slow
@pytest.mark.parametrize('microbatches', [1, 2])
@pytest.mark.parametrize('mesh', [ON_ONE, ON_EIGHT], ids=['1', '2x2x2'])
@pytest.mark.parametrize('name', ['adamw', 'bert_adamw', 'lamb'])
@pytest.mark.parametrize('how', WILD)
def test_runs_that_are_not_finite_end_with_sound_checkpoints(data, tmp_path, how, name, mesh, microbatches):
  config = wild(CONFIG, how, name, mesh, microbatches)
  devices = jax.devices()[:1] if mesh == ON_ONE else jax.devices()
  assert 'changed nothing' in end_of(config, data, tmp_path / 'run', devices)

"""The train step: microbatches, batches that are not finite, donation, the first step, learning."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives, optimizer, step as step_lib, synthetic
from bert_jax.parallel import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class Trainer:
  """A step compiled once for the module."""
  graphdef: object
  abstract: step_lib.TrainState
  mesh: jax.sharding.Mesh
  create: object
  step: object


@pytest.fixture(scope='module')
def trainer(tiny):
  mesh = mesh_lib.make_mesh(tiny.mesh, jax.devices()[:1])
  graphdef, abstract = step_lib.abstract_state(tiny, mesh)
  return Trainer(graphdef, abstract, mesh, lambda: step_lib.create_state(tiny, abstract),
                 step_lib.jit_train_step(graphdef, tiny, mesh, abstract))


def batch_of(seed=0):
  return synthetic.batch(64, 16, 16, 4, seed=seed, shortest=.4)


def copy(tree):
  return jax.tree.map(lambda x: np.array(x), tree)


def equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_gradient_of_microbatches_is_that_of_the_batch(still, trainer):
  """However unevenly their predictions are spread: sums are added, never means."""
  params, batch = trainer.create().params, batch_of()
  batch['masked_lm_weights'][1::4] = 0  # one microbatch in four predicts nothing, another little
  batch['masked_lm_weights'][2::4, 1:] = 0
  batch['next_sentence_weights'][3::4] = 0
  graphdef = step_lib.abstract_state(still, mesh_lib.make_mesh(still.mesh, jax.devices()[:1]))[0]

  def of(count):
    config = dataclasses.replace(still, run=dataclasses.replace(still.run, microbatches=count))
    return jax.jit(functools.partial(step_lib.gradients, graphdef, config, trainer.mesh))(params, batch, None)
  (grads, sums), (part_grads, part_sums) = of(1), of(4)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), grads, part_grads)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), sums, part_sums)
  assert float(sums['mlm'].weight) == batch['masked_lm_weights'].sum()


def test_dropout_is_the_same_whatever_the_microbatches(tiny, trainer):
  params, seed = trainer.create().params, jax.random.key(5)

  def of(count):
    config = dataclasses.replace(tiny, run=dataclasses.replace(tiny.run, microbatches=count))
    return jax.jit(functools.partial(step_lib.gradients, trainer.graphdef, config, trainer.mesh))(params, batch_of(), seed)
  (grads, sums), (part_grads, part_sums) = of(1), of(4)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), grads, part_grads)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), sums, part_sums)


def test_the_first_step_has_rate_zero_and_moves_moments_alone(trainer):
  state = trainer.create()
  before = copy(state)
  after, report = trainer.step(state, batch_of())
  assert float(report['learning_rate']) == 0 and float(report['gradient_norm']) > 0
  equal(before.params, copy(after.params))
  assert all(np.any(x) for x in jax.tree.leaves(after.opt_state))
  assert (int(after.step), int(after.skipped)) == (1, 0)
  assert float(report['terms']['mlm'].weight) == batch_of()['masked_lm_weights'].sum()


@pytest.mark.parametrize('where', ['params', 'batch'])
def test_what_is_not_finite_changes_nothing_and_is_counted(trainer, where):
  state, _ = trainer.step(trainer.create(), batch_of())
  batch = batch_of(1)
  if where == 'params':
    state.params['mlm_bias'] = state.params['mlm_bias'].at[3].set(jnp.inf)
  else:
    batch['masked_lm_weights'][2, 0] = np.nan
  before = copy(state)
  after, report = trainer.step(state, batch)
  equal((before.params, before.opt_state), copy((after.params, after.opt_state)))
  assert int(after.step) == 2 and int(after.skipped) == 1 == int(report['skipped'])
  if where == 'batch':  # and the run goes on
    on, report = trainer.step(after, batch_of(2))
    assert int(on.skipped) == 1 and float(report['learning_rate']) > 0
    assert (np.asarray(on.params['mlm_bias']) != before.params['mlm_bias']).any()


def test_the_old_state_is_given_up(trainer):
  state = trainer.create()
  trainer.step(state, batch_of())
  assert all(x.is_deleted() for x in jax.tree.leaves((state.params, state.opt_state)))


def test_steps_repeat_bit_for_bit_and_depend_on_their_number(trainer):
  runs = []
  for _ in range(2):
    state, reports = trainer.create(), []
    for _ in range(3):
      state, report = trainer.step(state, batch_of())
      reports.append(copy(report))
    runs.append((copy(state), reports))
  equal(runs[0], runs[1])
  first, second, _ = runs[0][1]
  assert float(first['terms']['mlm'].loss) != float(second['terms']['mlm'].loss)  # the rate was 0: other dropout alone
  assert trainer.step._cache_size() == 1


def test_the_update_is_the_clipped_gradient_times_the_rate(still, trainer):
  """One step written out, with a norm above the limit of the clip."""
  limit = .01
  config = dataclasses.replace(still, optimizer=dataclasses.replace(still.optimizer, clip_norm=limit, warmup_steps=0))
  state, batch = trainer.create(), batch_of()
  before = copy(state.params)
  one = jax.jit(functools.partial(step_lib.train_step, trainer.graphdef, config, trainer.mesh, jax.random.key(0)))
  after, report = one(state, batch)
  graphdef = step_lib.abstract_state(still, mesh_lib.make_mesh(still.mesh, jax.devices()[:1]))[0]
  grads, _ = jax.jit(functools.partial(step_lib.gradients, graphdef, still, trainer.mesh))(before, batch, None)
  norm = np.sqrt(sum(float((np.asarray(g, np.float64)**2).sum()) for g in jax.tree.leaves(grads)))
  assert norm > limit and float(report['gradient_norm']) == pytest.approx(norm, rel=1e-5)
  decays = optimizer.decayed(before)

  def expected(p, g, decay):
    g = np.asarray(g, np.float64) * limit / norm
    return p - 1e-3 * (.1 * g / (np.sqrt(.001) * np.abs(g) + 1e-6) + .01 * decay * p)
  wanted = jax.tree.map(expected, before, grads, decays)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), copy(after.params), wanted)


def test_a_batch_is_learnt(trainer):
  state, losses = trainer.create(), []
  for _ in range(9):
    state, report = trainer.step(state, batch_of())
    losses.append(float(objectives.loss_of(report['terms'], {t: s.weight for t, s in report['terms'].items()})))
  assert losses[-1] < losses[0] - .02


def test_evaluation_has_no_dropout_and_repeats(tiny, trainer):
  step = step_lib.jit_eval_step(trainer.graphdef, tiny, trainer.mesh)
  params = trainer.create().params
  equal(copy(step(params, batch_of())), copy(step(params, batch_of())))
  assert set(step(params, batch_of())) == {'mlm', 'nsp'}

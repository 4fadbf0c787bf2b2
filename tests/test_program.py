"""The train step: microbatches, batches that are not finite, donation, the first step, learning."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import objectives, optimizer, program as program_lib, synthetic
from bert_jax.parallel import mesh as mesh_lib


def program_of(config):
  return program_lib.of(config, jax.devices()[:1])


def gradients_of(program):
  """(params, batch, dropout's seed) -> (gradients, sums)."""
  return jax.jit(functools.partial(program_lib.gradients, program))


@pytest.fixture(scope='module')
def program(tiny):
  """A program whose step is compiled once for the module."""
  return program_of(tiny)


def batch_of(seed=0):
  return synthetic.batch(64, 16, 16, 4, seed=seed, shortest=.4)


def copy(tree):
  return jax.tree.map(lambda x: np.array(x), tree)


def equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_gradient_of_microbatches_is_that_of_the_batch(still, program):
  """However unevenly their predictions are spread: sums are added, never means."""
  params, batch = program.init().params, batch_of()
  batch['masked_lm_weights'][1::4] = 0  # one microbatch in four predicts nothing, another little
  batch['masked_lm_weights'][2::4, 1:] = 0
  batch['next_sentence_weights'][3::4] = 0

  def of(count):
    config = dataclasses.replace(still, run=dataclasses.replace(still.run, microbatches=count))
    return gradients_of(program_of(config))(params, batch, None)
  (grads, sums), (part_grads, part_sums) = of(1), of(4)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), grads, part_grads)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), sums, part_sums)
  assert float(sums['mlm']['weight']) == batch['masked_lm_weights'].sum()


def test_dropout_is_the_same_whatever_the_microbatches(tiny, program):
  params, seed = program.init().params, jax.random.key(5)

  def of(count):
    config = dataclasses.replace(tiny, run=dataclasses.replace(tiny.run, microbatches=count))
    return gradients_of(program_of(config))(params, batch_of(), seed)
  (grads, sums), (part_grads, part_sums) = of(1), of(4)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), grads, part_grads)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), sums, part_sums)


def test_the_first_step_has_rate_zero_and_moves_moments_alone(program):
  state = program.init()
  before = copy(state)
  after, report = program.train_step(state, batch_of())
  assert float(report['learning_rate']) == 0 and float(report['gradient_norm']) > 0
  equal(before.params, copy(after.params))
  assert all(np.any(x) for x in jax.tree.leaves(after.opt_state))
  assert (int(after.step), int(after.skipped)) == (1, 0)
  assert float(report['terms']['mlm']['weight']) == batch_of()['masked_lm_weights'].sum()


@pytest.mark.reliability(24)
@pytest.mark.parametrize('where', ['params', 'batch'])
def test_what_is_not_finite_changes_nothing_and_is_counted(program, where, tally):
  state, report = program.train_step(program.init(), batch_of())
  tally.control(not int(report['skipped']))
  batch = batch_of(1)
  if where == 'params':
    head = state.params['masked_tokens']
    head['bias'] = head['bias'].at[3].set(jnp.inf)
  else:
    batch['masked_lm_weights'][2, 0] = np.nan
  before = copy(state)
  after, report = program.train_step(state, batch)
  equal((before.params, before.opt_state), copy((after.params, after.opt_state)))
  tally.fault(True, detected=int(report['skipped']) == 1, survived=True, exact=True)
  assert int(after.step) == 2 and int(after.skipped) == 1 == int(report['skipped'])
  if where == 'batch':  # and the run goes on
    on, report = program.train_step(after, batch_of(2))
    assert int(on.skipped) == 1 and float(report['learning_rate']) > 0
    assert (np.asarray(on.params['masked_tokens']['bias']) != before.params['masked_tokens']['bias']).any()


def test_the_old_state_is_given_up(program):
  state = program.init()
  program.train_step(state, batch_of())
  assert all(x.is_deleted() for x in jax.tree.leaves((state.params, state.opt_state)))


def test_steps_repeat_bit_for_bit_and_depend_on_their_number(program):
  runs = []
  for _ in range(2):
    state, reports = program.init(), []
    for _ in range(3):
      state, report = program.train_step(state, batch_of())
      reports.append(copy(report))
    runs.append((copy(state), reports))
  equal(runs[0], runs[1])
  first, second, _ = runs[0][1]
  # The rate was 0, so that only dropout is other.
  assert float(first['terms']['mlm']['loss']) != float(second['terms']['mlm']['loss'])
  assert program.train_step._cache_size() == 1


def test_the_update_is_the_clipped_gradient_times_the_rate(still, program):
  """One step written out, with a norm above the limit of the clip."""
  limit = .01
  config = dataclasses.replace(still, optimizer=dataclasses.replace(still.optimizer, clip_norm=limit, warmup_steps=0))
  state, batch = program.init(), batch_of()
  before = copy(state.params)
  one = jax.jit(functools.partial(program_lib.train_step, program_of(config), jax.random.key(0)))
  after, report = one(state, batch)
  grads, _ = gradients_of(program_of(still))(before, batch, None)
  norm = np.sqrt(sum(float((np.asarray(g, np.float64)**2).sum()) for g in jax.tree.leaves(grads)))
  assert norm > limit and float(report['gradient_norm']) == pytest.approx(norm, rel=1e-5)
  decays = optimizer.decayed(before)

  def expected(p, g, decay):
    g = np.asarray(g, np.float64) * limit / norm
    return p - 1e-3 * (.1 * g / (np.sqrt(.001) * np.abs(g) + 1e-6) + .01 * decay * p)
  wanted = jax.tree.map(expected, before, grads, decays)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), copy(after.params), wanted)


def test_a_batch_is_learnt(program):
  state, losses = program.init(), []
  for _ in range(9):
    state, report = program.train_step(state, batch_of())
    losses.append(float(objectives.loss_of(report['terms'], {t: s['weight'] for t, s in report['terms'].items()})))
  assert losses[-1] < losses[0] - .02


def test_evaluation_has_no_dropout_and_repeats(program, still):
  step, params = program.evaluation_step, program.init().params
  sums, kept = step(params, batch_of())
  equal(copy(sums), copy(step(params, batch_of())[0]))
  equal(copy(sums), copy(program_of(still).evaluation_step(params, batch_of())[0]))
  assert set(sums) == {'mlm', 'nsp'} and kept == {}


def test_no_moment_is_copied(program, tiny):
  """On CPU, where each pass over the moments of a large vocabulary counts."""
  compiled = program.train_step.lower(program.init(), mesh_lib.put_batch(batch_of(), program.mesh)).compile()
  shape = f'f32[{tiny.model.vocab_size},{tiny.model.hidden_size}]'
  copied = [line for line in compiled.as_text().splitlines() if f'= {shape}' in line and ' copy(' in line]
  assert shape in compiled.as_text() and not copied

"""Optimizers against optax; schedules; what decays; layers in LAMB."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bert_jax import config as cfg, optimizer
from bert_jax.model import build
from bert_jax.objectives import PRETRAINING_HEADS
from bert_jax.parallel import mesh

SETTINGS = cfg.Optimizer(peak_learning_rate=.01, warmup_steps=3, weight_decay=.1)
STEPS = 8


def parameters(rng, layers=3):
  stack = lambda *shape: jnp.asarray(rng.normal(size=(layers, *shape)), jnp.float32)
  return {'blocks': {'query': {'kernel': stack(4, 4), 'bias': stack(4)},
                     'output_norm': {'scale': stack(4), 'bias': stack(4)}},
          'word_embeddings': {'embedding': jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)},
          'masked_tokens': {'bias': jnp.asarray(rng.normal(size=6), jnp.float32)}}


def traits(params):
  """Their names say what decays, as on the real model, and what is a stack of layers."""
  stacked = jax.tree.map_with_path(lambda path, _: mesh.path_name(path).startswith('blocks/'), params)
  return optimizer.Traits(optimizer.decayed(params), stacked)


def run(settings, steps=STEPS, seed=0):
  """[parameters after each step], [gradients of each step], of the optimizer as the train step uses it."""
  rng = np.random.default_rng(seed)
  params = parameters(rng)
  tx, schedule = optimizer.make(settings, steps, traits(params))
  state, history, gradients = tx.init(params), [params], []

  @jax.jit
  def update(step, gradient, state, params):
    updates, state = tx.update(gradient, state, params)
    return jax.tree.map(lambda p, u: p - schedule(step) * u, params, updates), state

  for step in range(steps):
    gradients.append(jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params))
    params, state = update(jnp.int32(step), gradients[-1], state, params)
    history.append(params)
  return history, gradients


def follow(tx, params, gradients):
  """The parameters after `gradients`, by an optimizer of optax, which subtracts by itself."""
  update, state = jax.jit(tx.update), tx.init(params)
  for gradient in gradients:
    updates, state = update(gradient, state, params)
    params = jax.tree.map(jnp.add, params, updates)
  return params


def leaves(tree):
  return {mesh.path_name(path): np.asarray(x, np.float64) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def test_adamw_is_that_of_optax():
  settings = dataclasses.replace(SETTINGS, name='adamw', schedule='constant', warmup_steps=0)
  history, gradients = run(settings)
  tx = optax.adamw(.01, .9, .999, 1e-6, weight_decay=.1, mask=optimizer.decayed)
  params = follow(tx, history[0], gradients)
  for name, x in leaves(history[-1]).items():
    np.testing.assert_allclose(x, leaves(params)[name], atol=2e-6, err_msg=name)


def test_lamb_sees_layers_not_the_stack_of_layers():
  """Stacked layers move as if each were a parameter of its own, in optax's LAMB; only what decays has a ratio."""
  settings = dataclasses.replace(SETTINGS, name='lamb', schedule='constant', warmup_steps=0)
  history, gradients = run(settings)
  unstack = lambda tree: {**tree, 'blocks': [jax.tree.map(lambda x, i=i: x[i], tree['blocks']) for i in range(3)]}
  tx = optax.chain(optax.scale_by_adam(.9, .999, 1e-6), optax.add_decayed_weights(.1, optimizer.decayed),
                   optax.masked(optax.scale_by_trust_ratio(), optimizer.decayed), optax.scale_by_learning_rate(.01))
  params = follow(tx, unstack(history[0]), map(unstack, gradients))
  for name, x in leaves(unstack(history[-1])).items():
    np.testing.assert_allclose(x, leaves(params)[name], atol=2e-6, err_msg=name)


def test_decay_is_chosen_by_name_on_the_real_model():
  about = optimizer.traits(build.describe(cfg.Model(), PRETRAINING_HEADS)[2])
  named = lambda tree: {mesh.path_name(path): yes for path, yes in jax.tree.leaves_with_path(tree)}
  names, stacks = named(about.decayed), named(about.stacked)
  for name, yes in names.items():
    assert yes == (name.endswith('/kernel') or name.endswith('/embedding')), name
    assert stacks[name] == name.startswith('encoder/blocks/'), name
  assert names['masked_tokens/bias'] is False and names['encoder/blocks/output_norm/scale'] is False
  assert names['encoder/blocks/query/bias'] is False
  assert all(names[f'encoder/{kind}_embeddings/embedding'] for kind in ('word', 'position', 'token_type'))


@pytest.mark.parametrize('schedule, final, expected', [
    ('bert', 0, {0: 0, 1: .1, 9: .9, 10: .9, 50: .5, 99: .01, 100: 0, 150: 0}),  # drops at 10: decay counts from step 0
    ('bert', .2, {5: .5, 10: .92, 50: .6, 100: .2, 150: .2}),
    ('linear', 0, {0: 0, 1: .1, 9: .9, 10: 1, 55: .5, 100: 0, 150: 0}),
    ('linear', .2, {10: 1, 55: .6, 100: .2, 150: .2}),
    ('cosine', 0, {0: 0, 1: .1, 9: .9, 10: 1, 40: .75, 55: .5, 70: .25, 100: 0, 150: 0}),
    ('cosine', .2, {10: 1, 55: .6, 100: .2, 150: .2}),
    ('wsd', 0, {0: 0, 1: .1, 9: .9, 10: 1, 55: 1, 75: 1, 80: .8, 95: .2, 100: 0, 150: 0}),
    ('wsd', .2, {10: 1, 75: 1, 80: .84, 100: .2, 150: .2}),
    ('constant', 0, {0: 0, 1: .1, 9: .9, 10: 1, 55: 1, 150: 1}),
])
def test_schedules_at_chosen_steps(schedule, final, expected):
  share = {'decay_share': .25} if schedule == 'wsd' else {}
  settings = cfg.Optimizer(schedule=schedule, peak_learning_rate=1., final_learning_rate=final, warmup_steps=10,
                           **share)
  rate = optimizer.learning_rate(settings, 100)
  got = {step: float(rate(jnp.int32(step))) for step in expected}
  assert got == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('schedule', optimizer.SCHEDULES)
def test_without_warmup_the_first_rate_is_the_peak(schedule):
  rate = optimizer.learning_rate(cfg.Optimizer(schedule=schedule, peak_learning_rate=.5, warmup_steps=0), 100)
  assert float(rate(jnp.int32(0))) == .5


def test_cosine_is_that_of_optax():
  settings = cfg.Optimizer(schedule='cosine', peak_learning_rate=.3, final_learning_rate=.03, warmup_steps=7)
  rate = optimizer.learning_rate(settings, 60)
  theirs = optax.warmup_cosine_decay_schedule(0., .3, 7, 60, .03)
  found, wanted = [rate(jnp.int32(step)) for step in range(70)], [theirs(step) for step in range(70)]
  np.testing.assert_allclose(found, wanted, atol=1e-7)


@pytest.mark.parametrize('schedule, step', [('bert', 75), ('linear', 75), ('wsd', 90)])
def test_power_of_the_decay(schedule, step):
  share = {'decay_share': .4} if schedule == 'wsd' else {}
  settings = cfg.Optimizer(schedule=schedule, peak_learning_rate=1., warmup_steps=0, decay_power=.5, **share)
  rate = optimizer.learning_rate(settings, 100)
  assert float(rate(jnp.int32(step))) == pytest.approx(.5)


@pytest.mark.parametrize('limit, scale', [(1., .1), (10., 1), (20., 1), (0, 1)])
def test_clip_scales_all_gradients_alike_and_only_down(limit, scale):
  grads = {'a': jnp.array([6.]), 'b': jnp.array([0., 8.])}
  clipped = optimizer.clip_by_global_norm(limit, optax.tree.norm(grads), grads)
  np.testing.assert_allclose(clipped['a'], [6 * scale], rtol=1e-6)
  np.testing.assert_allclose(clipped['b'], [0, 8 * scale], rtol=1e-6)


@pytest.mark.parametrize('name, value', [('final_learning_rate', 5e-5), ('decay_power', 2.), ('decay_share', .5)])
def test_a_setting_of_the_decay_changes_the_rate_or_is_refused(name, value):
  """What IDLE says of each schedule is so."""
  for schedule in optimizer.SCHEDULES:
    plain = cfg.Optimizer(schedule=schedule, warmup_steps=2)
    if name in optimizer.UNREAD.get(schedule, ()):
      with pytest.raises(cfg.ConfigError, match=f'optimizer.{name}'):
        dataclasses.replace(plain, **{name: value})
      continue
    steps = np.arange(20)
    other = dataclasses.replace(plain, **{name: value})
    assert not np.allclose(*(optimizer.learning_rate(o, 20)(steps) for o in (plain, other)), rtol=1e-3), schedule

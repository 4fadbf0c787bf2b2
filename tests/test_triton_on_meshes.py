"""The kernels for NVIDIA GPUs on meshes, and their gradients as finite differences see them, by Pallas' interpreter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import pallas as pl

from bert_jax import config as cfg, objectives, program as program_lib, selftest, synthetic
from bert_jax.config import ConfigError, Model
from bert_jax.model import build, triton_activation, triton_attention, triton_norm
from bert_jax.model.attention import Place
from bert_jax.parallel import mesh as mesh_lib
from tests.test_triton import GPU, SEED, pairs_of, summed

STEPS = 3


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
  monkeypatch.setattr(pl, 'pallas_call', functools.partial(pl.pallas_call, interpret=True))
  monkeypatch.setattr(program_lib, 'place_of', lambda mesh: Place('gpu', mesh.shape['tensor']))


def small(**changes) -> Model:
  return Model(**dict(vocab_size=64, hidden_size=32, layers=1, heads=2, intermediate_size=64, max_positions=64,
                      attention='triton', dtype='float32') | changes)


def config_of(rows, shape, **changes) -> cfg.Config:
  return cfg.Config(model=small(**changes), batch=cfg.BatchConfig(size=rows, sequence_length=16, predictions=4),
                    mesh=cfg.MeshShape(*shape), optimizer=cfg.Optimizer(peak_learning_rate=1e-3, warmup_steps=1),
                    run=cfg.Run(steps=10))


def train(config):
  """(losses and gradients' norms of some steps on packed and padded rows; the last parameters)"""
  devices = jax.devices()[:max(config.mesh.data, 1) * max(config.mesh.fsdp, 1) * max(config.mesh.tensor, 1)]
  program = program_lib.of(config, devices)
  state, found = program.init(), []
  for seed in range(STEPS):
    batch = synthetic.batch(64, config.batch.size, 16, 4, 3, seed=seed, shortest=.4)
    state, report = program.train_step(state, mesh_lib.put_batch(batch, program.mesh))
    terms = report['terms']
    found.append((float(objectives.loss_of(terms, {name: sums['weight'] for name, sums in terms.items()})),
                  float(report['gradient_norm'])))
  return np.array(found), jax.device_get(state.params)


@functools.cache
def straight(rows):
  """By the kernels on one device."""
  return train(config_of(rows, (1, 1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize('rows, shape, changes', [
    (4, (2, 1, 1), {}), (4, (1, 2, 1), {}), (4, (2, 2, 1), {}), (4, (3, 1, 1), {}),
    (4, (2, 1, 2), {'attention': 'auto'}), (4, (1, 1, 2), {'attention': 'auto'})])
def test_a_mesh_of_devices_makes_what_one_makes(rows, shape, changes):
  """Where heads are shared out the kernels have no part, and plain JAX makes the same; three devices do not divide the
  rows, and a row without a token goes through the kernels."""
  losses, params = train(config_of(rows, shape, **changes))
  want, wanted = straight(rows)
  np.testing.assert_allclose(losses, want, atol=2e-5)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), params, wanted)


def test_heads_that_are_shared_out_are_not_for_the_kernels():
  with pytest.raises(ConfigError, match="'triton' is not for gpu, .*mesh.tensor 2"):
    program_lib.of(config_of(4, (1, 1, 2)), jax.devices()[:2])


def difference(f, x, direction, epsilon: float) -> float:
  """The derivative of f, which gives float64 from numbers of 32 bits, along a direction, by four values."""
  at = lambda far: f(jax.tree.map(lambda a, b: a + np.float32(far * epsilon) * b, x, direction))
  return float((8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * epsilon))


def compare(f, x, epsilon: float, tolerance: float = 1e-4):
  """The gradient of <weights, f(x)> and its finite difference, along the gradient and along random directions.

  Of these a share `tolerance` of the gradient's norm may be off, for numbers of the size 1 in a direction. Along the
  gradient f bends more, and smaller steps will do.
  """
  f = jax.jit(f)
  shape = jax.eval_shape(f, x).shape
  weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)
  total = lambda x: float((np.asarray(f(x), np.float64) * weights).sum())
  gradient = jax.jit(lambda x: jax.vjp(f, x)[1](jnp.asarray(weights))[0])(x)
  flat = lambda tree: np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])
  norm, size, random = np.linalg.norm(flat(gradient)), flat(gradient).size, np.random.default_rng(2)
  along = jax.tree.map(lambda g: np.asarray(g, np.float32) * np.float32(size**.5 / norm), gradient)
  assert abs(difference(total, x, along, epsilon / 16) - norm * size**.5) < tolerance * norm * size**.5
  for _ in range(2):
    direction = jax.tree.map(lambda a: random.normal(size=a.shape).astype(np.float32), x)
    assert abs(difference(total, x, direction, epsilon) - flat(gradient) @ flat(direction)) < tolerance * norm


@pytest.mark.parametrize('T, K, H, direction, rate', [
    (32, 16, 2, 0, .1), *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        (48, 24, 1, 1, .2), (64, 8, 3, -1, 0.), (16, 64, 1, 0, .4), (96, 32, 1, 0, .1)))])
def test_the_gradient_of_attention_is_its_finite_difference(T, K, H, direction, rate):
  """With biases, packing, padding and dropout, in one block a row and in several."""
  pairs, B = jnp.asarray(pairs_of(4, T, T)), 4
  numbers = jnp.arange(B * T, dtype=jnp.uint32).reshape(B, T)

  def f(x):
    sums = summed(x['bias'], *triton_attention.backward_programs(B, T, K, 4))
    return triton_attention.attention(x['qkv'], x['bias'], sums, pairs, numbers, triton_attention.bounds(pairs, K, 4),
                                      SEED[None], 0, rate, direction)

  keys = jax.random.split(jax.random.key(T))
  compare(f, {'qkv': jax.random.normal(keys[0], (B, T, 3, H, K)), 'bias': jax.random.normal(keys[1], (3, H, K))},
          epsilon=.02)


@pytest.mark.slow
@pytest.mark.parametrize('D, rate', [(40, .2), (64, 0.)])
def test_the_gradient_of_what_follows_a_product_is_its_finite_difference(D, rate):
  numbers, N = jnp.arange(24, dtype=jnp.uint32), 24
  sums = lambda x: summed(x['vectors'], triton_norm.backward_programs(N))
  f = lambda x: jnp.stack(triton_norm.add_norm(x['h'], x['x'], x['vectors'], sums(x), numbers, SEED[None], 0, rate,
                                               1e-12))
  keys = jax.random.split(jax.random.key(D), 3)
  shapes = {'h': (N, D), 'x': (N, D), 'vectors': (3, D)}
  compare(f, {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items())}, epsilon=.02)


@pytest.mark.parametrize('activation', ['gelu', pytest.param('gelu_tanh', marks=pytest.mark.slow)])
def test_the_gradient_of_the_feed_forward_is_its_finite_difference(activation):
  keys, shapes = jax.random.split(jax.random.key(3), 4), {
      'x': (32, 16), 'first': (16, 48), 'bias': (48,), 'second': (48, 16)}

  def f(x):
    sums = summed(x['bias'], triton_activation.backward_programs(32))
    return triton_activation.feed_forward(x['x'], x['first'], x['bias'], sums, x['second'], activation)

  compare(f, {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items())}, epsilon=.01)


@pytest.mark.slow
@pytest.mark.parametrize('changes', [
    {}, {'causal': True}, {'layers': 2, 'hidden_dropout': .3}, {'heads': 4, 'activation': 'gelu_tanh'}])
def test_the_gradient_of_fused_layers_is_their_finite_difference(changes):
  model = small(**changes)
  graphdef, _, _ = build.describe(model, {}, GPU)
  batch = synthetic.batch(64, 3, 32, 1, 2, shortest=.5)
  batch['pair_ids'][2] = 0
  params = selftest.parameters(model, jax.random.key(4))
  f = lambda params: nnx.merge(graphdef, params).encoder(batch, jax.random.key(5))
  compare(f, params, epsilon=2e-3)

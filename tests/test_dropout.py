"""Dropout masks: the rate, independence, the same mask backward, the same mask on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

from bert_jax.dropout import dropout, keep_mask

SHAPE = (8, 4, 64, 128)
SEED = jnp.uint32(123456789)


def four_sigma(rate, count):
  return 4 * (rate * (1 - rate) / count) ** .5


@pytest.mark.parametrize('rate', [.1, .5, .9])
def test_rate_is_kept_overall_and_along_every_axis(rate):
  dropped = ~np.asarray(keep_mask(SHAPE, rate, SEED))
  assert abs(dropped.mean() - rate) < four_sigma(rate, dropped.size)
  for axis in range(len(SHAPE)):
    shares = np.moveaxis(dropped, axis, 0).reshape(SHAPE[axis], -1).mean(1)
    assert np.abs(shares - rate).max() < 1.5 * four_sigma(rate, dropped.size // SHAPE[axis])


def test_mean_is_preserved_and_survivors_are_scaled():
  y = np.asarray(dropout(jnp.ones(SHAPE), .1, SEED))
  np.testing.assert_allclose(np.unique(y), [0, 1 / .9], rtol=1e-6)
  assert abs(y.mean() - 1) < four_sigma(.1, y.size) / .9


def test_backward_draws_the_forward_mask():
  x = jax.random.normal(jax.random.key(0), SHAPE)
  y, pull = jax.vjp(lambda x: dropout(x, .3, SEED), x)
  gradient, = pull(jnp.ones(SHAPE))
  mask = np.asarray(keep_mask(SHAPE, .3, SEED))
  np.testing.assert_array_equal(gradient, np.where(mask, np.float32(1) / np.float32(1 - .3), 0).astype(np.float32))
  np.testing.assert_array_equal(np.asarray(y) != 0, mask)


@pytest.mark.parametrize('other', [SEED + 1, SEED ^ jnp.uint32(1 << 31), jnp.uint32(0)])
def test_seeds_are_independent(other):
  a, b = ~np.asarray(keep_mask(SHAPE, .1, SEED)), ~np.asarray(keep_mask(SHAPE, .1, other))
  assert abs((a & b).mean() - .01) < four_sigma(.01, a.size)


def test_neighbours_are_independent():
  dropped = ~np.asarray(keep_mask(SHAPE, .5, SEED))
  for axis in range(len(SHAPE)):
    both = (dropped & np.roll(dropped, 1, axis)).mean()
    assert abs(both - .25) < four_sigma(.25, dropped.size)


def test_a_slice_of_a_large_array_needs_no_large_array():
  """Elements are numbered by rows and columns, so 2^32 of them do not wrap: two rows never share a mask."""
  jaxpr = jax.make_jaxpr(lambda s: keep_mask((2048, 64, 512, 512), .5, s))(SEED)
  assert jaxpr.out_avals[0].shape == (2048, 64, 512, 512)
  rows = np.packbits(np.asarray(keep_mask((64, 1024, 64), .5, SEED)).reshape(-1, 64), axis=1)
  assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize('spec', [P(('a', 'b')), P('a', 'b'), P(None, None, 'a', 'b')])
def test_mask_is_the_same_on_any_mesh(spec):
  mesh = jax.make_mesh((2, 4), ('a', 'b'), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  draw = jax.jit(lambda x, s: dropout(x, .1, s), out_shardings=NamedSharding(mesh, spec))
  x = jnp.ones(SHAPE)
  y = draw(jax.device_put(x, NamedSharding(mesh, spec)), SEED)
  assert len({str(shard.index) for shard in y.addressable_shards}) == 8
  np.testing.assert_array_equal(y != 0, dropout(x, .1, SEED) != 0)


def test_no_seed_or_no_rate_is_the_input_itself():
  x = jnp.ones(SHAPE)
  assert dropout(x, .1, None) is x and dropout(x, 0., SEED) is x

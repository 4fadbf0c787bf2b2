"""Dropout masks: the rate, independence, the same mask backward, the same mask on any mesh."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

from bert_jax.model import dropout as dropout_lib

SHAPE = (8, 4, 64, 128)
SEED = jnp.uint32(123456789)


def numbers(shape):  # -> [... 1]
  """Each row's own."""
  return jnp.arange(np.prod(shape[:-1]), dtype=jnp.uint32).reshape(*shape[:-1], 1)


def keep_mask(shape, rate, seed):
  return dropout_lib.keep_mask(numbers(shape), shape[-1], rate, seed)


def dropout(x, rate, seed):
  return dropout_lib.dropout(x, numbers(x.shape), rate, seed)


def four_sigma(rate, count):
  return 4 * (rate * (1 - rate) / count) ** .5


@pytest.mark.parametrize('rate', [.1, .5, .9])
def test_rate_is_kept_overall_and_along_every_axis(rate):
  dropped = ~np.asarray(keep_mask(SHAPE, rate, SEED))
  assert abs(dropped.mean() - rate) < four_sigma(rate, dropped.size)
  for axis in range(len(SHAPE)):
    shares = np.moveaxis(dropped, axis, 0).reshape(SHAPE[axis], -1).mean(1)
    assert np.abs(shares - rate).max() < 1.5 * four_sigma(rate, dropped.size // SHAPE[axis])


@pytest.mark.parametrize('rate', [math.nextafter(1, 0), 1 - 1e-10, 5e-324])
def test_rates_next_to_1_and_0_can_be_drawn(rate):
  assert np.asarray(keep_mask(SHAPE, rate, SEED)).mean() == (rate < .5)


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


@pytest.mark.parametrize('rate', [.1, .5])
@pytest.mark.parametrize('seed', [0, 1, 2**32 - 1, 123456789])
def test_rows_and_columns_are_independent_pair_by_pair(rate, seed):
  """Numbers of drops as those of coins: by chi squared over rows, columns and pairs of them, and by products of the
  corners of rectangles and of three rows, which a pattern that repeats would show."""
  N, W = 2048, 256
  mask = dropout_lib.keep_mask(jnp.arange(N, dtype=jnp.uint32)[:, None], W, rate, jnp.uint32(seed))
  off, variance = (~np.asarray(mask)).astype(float) - rate, rate * (1 - rate)
  coins = (np.random.default_rng(seed).random((N, W)) < rate) - rate
  squares = lambda table: (table.T @ table)[np.triu_indices(table.shape[1], 1)]**2 / (variance**2 * len(table))
  for table, coin in ((off, coins), (off.T, coins.T)):
    count, width = table.shape
    assert abs((table.sum(0)**2 / (variance * count)).mean() - 1) < 5 * (2 / width)**.5
    pairs = squares(table)
    assert abs(pairs.mean() - 1) < 5 * (2 / pairs.size)**.5 + .01 and pairs.max() < 1.5 * squares(coin).max()
    far = table.shape[0] // 2
    three = table[:far] * table[1:far + 1] * table[2:far + 2]
    assert abs(three.sum()) < 5 * (variance**3 * three.size)**.5
  for step in (1, 7, 128):
    corners = off[:-step, :-step] * off[step:, :-step] * off[:-step, step:] * off[step:, step:]
    assert abs(corners.sum()) < 5 * (variance**4 * corners.size)**.5


def test_layers_and_steps_are_independent():
  """Seeds as the encoder draws them: of 3 places in each of 12 layers, in two steps that follow each other."""
  key = jax.random.key(1)
  seeds = jnp.concatenate([jax.random.bits(jax.random.fold_in(key, step), (37,), jnp.uint32) for step in (5, 6)])
  masks = jax.vmap(lambda seed: keep_mask((256, 64), .1, seed))(seeds)
  off = (~np.asarray(masks)).reshape(len(seeds), -1) - .1
  pairs = (off @ off.T)[np.triu_indices(len(seeds), 1)]**2 / (.09**2 * off.shape[1])
  assert abs(pairs.mean() - 1) < 5 * (2 / pairs.size)**.5 and pairs.max() < 30


def test_no_two_rows_share_a_mask_and_a_row_keeps_its_own_wherever_it_stands():
  rows = np.packbits(np.asarray(keep_mask((64 * 1024, 64), .5, SEED)), axis=1)
  assert len(np.unique(rows, axis=0)) == len(rows)
  alone = dropout_lib.keep_mask(jnp.full((1, 1), 4321, jnp.uint32), 64, .5, SEED)
  np.testing.assert_array_equal(np.packbits(np.asarray(alone)), rows[4321])


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

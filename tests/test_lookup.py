"""Rows by number: both ways of looking them up and of adding up their gradients are those of indexing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.model import heads, lookup

IDS = np.array([3, 0, 3, 7, 7, 7], np.int32)


@pytest.fixture(params=['tpu', 'gpu', 'other'])
def way(request, monkeypatch):
  """Runs what the platform's branch would be."""
  def chosen(tpu, other, *arrays, gpu=None):
    return {'tpu': tpu, 'gpu': gpu or other, 'other': other}[request.param](*arrays)
  for module in (lookup, heads):
    monkeypatch.setattr(module, 'by_platform', chosen)


@pytest.mark.parametrize('size', [8, lookup.SMALL + 1])
def test_rows(way, size):
  table = jax.random.normal(jax.random.key(0), (size, 5))
  g = jax.random.normal(jax.random.key(1), (6, 5))
  got, pull = jax.vjp(lambda table: lookup.take_rows(table, IDS), table)
  np.testing.assert_array_equal(got, np.asarray(table)[IDS])
  want = np.zeros((size, 5))
  np.add.at(want, IDS, np.asarray(g, np.float64))
  np.testing.assert_allclose(pull(g)[0], want, atol=1e-6)


def test_many_gradients_of_one_row_add_up_in_16_bits_too():
  """4,096 of one row, as [PAD] and [MASK] have: a sum in 16 bits would stand still at 256."""
  table, ids = jnp.zeros((lookup.SMALL + 1, 2), jnp.bfloat16), jnp.full((4096,), 3, jnp.int32)
  _, pull = jax.vjp(lambda table: lookup.take_rows(table, ids), table)
  assert pull(jnp.ones((4096, 2), jnp.bfloat16))[0][3].tolist() == [4096, 4096]


@pytest.mark.parametrize('vocabulary', [64, 100])
def test_scores_of_the_vocabulary(way, vocabulary):
  x, table, bias = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(
      [(6, 8), (vocabulary, 8), (vocabulary,)]))
  g = jax.random.normal(jax.random.key(3), (6, vocabulary))
  of = lambda x, table, bias: x @ table.T + bias[None]
  (got, pull), (want, pull_plain) = (jax.vjp(f, x, table, bias) for f in (heads.vocabulary_scores, of))
  for a, b in zip((got, *pull(g)), (want, *pull_plain(g))):
    np.testing.assert_allclose(a, b, atol=2e-6 * np.sqrt(vocabulary))


def test_one_of_each(way):
  x, g = jax.random.normal(jax.random.key(0), (6, 8)), jax.random.normal(jax.random.key(1), (6,))
  got, pull = jax.vjp(lambda x: lookup.one_of_each(x, IDS), x)
  np.testing.assert_array_equal(got, np.asarray(x)[np.arange(6), IDS])
  want = np.zeros((6, 8), np.float32)
  want[np.arange(6), IDS] = g
  np.testing.assert_array_equal(pull(g)[0], want)


def test_rows_of_each_in_a_batch():
  x = jax.random.normal(jax.random.key(0), (2, 8, 5))
  ids = jnp.asarray(IDS.reshape(2, 3))
  want = np.take_along_axis(np.asarray(x), IDS.reshape(2, 3, 1), axis=1)
  np.testing.assert_array_equal(jax.jit(jax.vmap(lookup.take_rows))(x, ids), want)

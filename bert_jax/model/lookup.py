"""Rows of a table by number, the way each chip is good at: a product with one-hot rows on TPU, a gather elsewhere, and
on GPUs a gather whose gradient is a product where the table is small.

JAX's own way is a gather, whose gradient is a scatter. For a scatter TPU's compiler (libtpu 0.0.42) sorts, and each of
them takes it as long to compile as a few layers. So on TPU `take_rows` multiplies by one-hot rows where the
table is small, and `one_of_each` compares and adds. The gain is not measured by itself: see
`bert-jax plan base --topology v5e:4x4 --batch-per-chip 64`, with and without `--model.plain lookup one_of_each`. On CPU
(jaxlib 0.10.2) one-hot rows lose: 467 ms against 1.8 for 4,096 rows of [30522, 256], and 58 against 36 for
cross-entropy on [640, 30522], forward and backward.

A GPU adds up a scatter by atomic operations, one after the other where rows meet, and of 16 bits by a loop of
comparisons: the 8,192 gradients of two token types took 21 to 26 ms of a step of 39 on an H200 (jax 0.11.2). Nor can 16
bits add up many small numbers: beyond 256 equal ones the sum stands still. So what is scattered is added in float32.

N numbers, V rows of the table, D columns.
"""

import jax
import jax.numpy as jnp

SMALL = 1024  # rows of a table: products of so many columns cost less than a scatter


def by_platform(tpu, other, *arrays, gpu=None):
  gpus = {} if gpu is None else {'cuda': gpu, 'rocm': gpu}
  return jax.lax.platform_dependent(*arrays, tpu=tpu, **gpus, default=other)


def one_hot(ids, size: int, dtype):  # [N] -> [N V]
  return (ids[:, None] == jnp.arange(size)[None]).astype(dtype)


def exact_product(x, y):
  """x @ y of which x only chooses: float32 must not be rounded on its way."""
  return jnp.matmul(x, y, precision='highest')


@jax.custom_vjp
def take_rows(table: jax.Array, ids: jax.Array) -> jax.Array:  # [V D], int32 [N] -> [N D]
  """table[ids]"""
  gather = lambda table, ids: table[ids]
  if len(table) > SMALL:
    return gather(table, ids)
  return by_platform(lambda table, ids: exact_product(one_hot(ids, len(table), table.dtype), table), gather, table, ids)


def _take_rows_backward(residuals, g):
  (size, _), ids = residuals[0].shape, residuals[1]
  narrow = lambda g, ids: jnp.zeros((size, g.shape[1]), g.dtype).at[ids].add(g)  # TPU's compiler sorts them first
  scatter = lambda g, ids: narrow(g.astype(jnp.promote_types(g.dtype, jnp.float32)), ids).astype(g.dtype)
  if size > SMALL:
    return by_platform(narrow, scatter, g, ids), None
  product = lambda g, ids: exact_product(one_hot(ids, size, g.dtype).T, g)
  return by_platform(product, scatter, g, ids, gpu=product), None


take_rows.defvjp(lambda table, ids: (take_rows(table, ids), (jnp.zeros((len(table), 0)), ids)), _take_rows_backward)


@jax.custom_vjp
def one_of_each(x: jax.Array, ids: jax.Array) -> jax.Array:  # [N V], int32 [N] -> [N]
  """x[n, ids[n]] for every n"""
  choose = lambda x, ids: jnp.where(ids[:, None] == jnp.arange(x.shape[1])[None], x, 0).sum(axis=1)
  return by_platform(choose, lambda x, ids: jnp.take_along_axis(x, ids[:, None], axis=1)[:, 0], x, ids)


def _one_of_each_backward(residuals, g):
  (_, width), ids = residuals[0].shape, residuals[1]
  choose = lambda g, ids: jnp.where(ids[:, None] == jnp.arange(width)[None], g[:, None], 0)
  scatter = lambda g, ids: jnp.zeros((len(g), width), g.dtype).at[jnp.arange(len(g)), ids].set(g)
  return by_platform(choose, scatter, g, ids, gpu=choose), None  # there it joins the gradient of softmax


one_of_each.defvjp(lambda x, ids: (one_of_each(x, ids), (jnp.zeros((0, x.shape[1])), ids)), _one_of_each_backward)


"""Dropout whose mask is a hash of the element's place and a seed: nothing is stored, any mesh draws the same mask.

The backward pass draws the mask again, so dropout costs no memory; and an integer hash fuses with its neighbours, where the bits of a
random generator are an array of their own.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np


def _mix(x: jax.Array) -> jax.Array:
  """A bijection of 32-bit words in which every bit depends on all (the 'lowbias32' constants of Wellons' hash prospector)."""
  x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
  x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
  return x ^ (x >> 16)


def keep_mask(shape: tuple[int, ...], rate: float, seed: jax.Array) -> jax.Array:
  """bool[shape], False with probability `rate`.

  The rows are hashed first: one index of 32 bits would not number the elements of a pod's batch; and before the seed comes in, or the
  masks of two seeds would be the same but for a shift.
  """
  rows = jnp.zeros((*shape[:-1], 1), jnp.uint32)
  for axis in range(len(shape) - 1):
    stride = math.prod(shape[axis + 1:-1]) % 2**32
    rows += jax.lax.broadcasted_iota(jnp.uint32, rows.shape, axis) * np.uint32(stride)
  columns = jax.lax.broadcasted_iota(jnp.uint32, shape, len(shape) - 1)
  return _mix(_mix(_mix(rows) + seed) + columns * np.uint32(0x9E3779B9)) >= np.uint32(round(rate * 2**32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _dropout(x, rate, seed):
  return jnp.where(keep_mask(x.shape, rate, seed), x / (1 - rate), 0).astype(x.dtype)


def _forward(x, rate, seed):
  return _dropout(x, rate, seed), seed


def _backward(rate, seed, g):
  return _dropout(g, rate, seed), None


_dropout.defvjp(_forward, _backward)


def dropout(x: jax.Array, rate: float, seed: jax.Array | None) -> jax.Array:
  """`x` with a share `rate` of its elements zero and the others scaled up; `x` itself where `seed` (uint32) is None. [...] -> [...]"""
  return x if seed is None or rate == 0 else _dropout(x, rate, seed)

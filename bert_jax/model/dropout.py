"""Dropout whose mask is a hash of the element's place and a seed: nothing is stored, any mesh and any microbatches draw the same mask.

The backward pass draws the mask again, so dropout costs no memory; and an integer hash fuses with its neighbours, where the bits of a
random generator are an array of their own. An element's place is the number of its token in the global batch, and its column.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def mix(x: jax.Array) -> jax.Array:
  """A bijection of 32-bit words in which every bit depends on all (the 'lowbias32' constants of Wellons' hash prospector)."""
  x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
  return x ^ (x >> np.uint32(16))


def keep_mask(numbers: jax.Array, width: int, rate: float, seed: jax.Array) -> jax.Array:  # uint32 [... 1] -> bool [... width]
  """False with probability `rate`, for rows that are called by their `numbers`.

  The numbers are hashed before the seed comes in, or the masks of two seeds would be the same but for a shift.
  """
  columns = jax.lax.broadcasted_iota(jnp.uint32, (*numbers.shape[:-1], width), numbers.ndim - 1)
  return mix(mix(mix(numbers) + seed) + columns * np.uint32(0x9E3779B9)) >= np.uint32(round(rate * 2**32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dropout(x, numbers, rate, seed):
  return jnp.where(keep_mask(numbers, x.shape[-1], rate, seed), x / (1 - rate), 0).astype(x.dtype)


def _forward(x, numbers, rate, seed):
  return _dropout(x, numbers, rate, seed), (numbers, seed)


def _backward(rate, residuals, g):
  numbers, seed = residuals
  return _dropout(g, numbers, rate, seed), None, None


_dropout.defvjp(_forward, _backward)


def dropout(x: jax.Array, numbers: jax.Array, rate: float, seed: jax.Array | None) -> jax.Array:  # [... D], uint32 [... 1] -> [... D]
  """`x` with a share `rate` of its elements zero and the others scaled up; `x` itself where `seed` (uint32) is None.

  `numbers`: what tells each row of x from all others that draw with the same seed.
  """
  return x if seed is None or rate == 0 else _dropout(x, numbers, rate, seed)

"""Dropout whose mask is a hash of the element's place and a seed: any mesh and any microbatches draw the same mask.

An element's place is the number of its token in the global batch, and its column. Nothing is stored: the backward pass
draws the mask again, by a derivative of its own.

What the usual way costs: the bits of a random generator are an array of their own, which is kept or drawn by slow code;
a hash fuses with its neighbours. CPU (jaxlib 0.10.2), forward and backward of [4096, 256] and of [32, 4, 128, 128]: 2.5
and 11.8 ms by threefry, 11 and 21 by rbg, 0.3 and 0.9 by a hash; the step of `mini` 1,340 -> 1,166 ms. By TPU's
compiler (libtpu 0.0.42) a hash is dear on v6e, whose vector unit decides: hence one multiplication an element.
`bert-jax benchmark step mini --batch.size 32 --model.dtype float32`, with and without
`--model.hidden-dropout 0 --model.attention-dropout 0`, shows what is left (docs/performance.md).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

GREATEST = 2**32 - 1  # of 32 bits
MASKS = 'multiply-add'  # how masks are drawn: a run goes on only with those that it began with


def mix(x: jax.Array) -> jax.Array:
  """A bijection of 32-bit numbers, of whose result every bit depends on all (Wellons' 'lowbias32' constants).

  1 becomes 0x688990c0, 2 becomes 0xd1132181, 3 becomes 0x53f1e9dd: neighbours have nothing in common.
  """
  x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
  return x ^ (x >> np.uint32(16))


def keep_mask(numbers: jax.Array, width: int, rate: float, seed: jax.Array) -> jax.Array:
  """uint32 [... 1] -> bool [... width]: False with probability `rate`, for rows that are called by their `numbers`.

  Of row r and column c: hash(r) a(c) + b(c), with an odd a and a b of the column's own, both hashes of c and the seed.
  Over a and b such numbers are independent pair by pair (Dietzfelbinger 1996, "Universal hashing and k-wise independent
  random variables via integer arithmetic without primes"), and cost one multiplication an element.
  The numbers are hashed before the seed comes in, or the masks of two seeds would be the same but for a shift.
  With rate 0.25 what comes below 0.25 * 2^32 = 0x40000000 is dropped. The first columns of row 1 with the seed 7 come
  to 0x2288c47a, 0x7eda5b61, 0x8a2ebb76, 0xd251b4a9: the first is dropped, the others are kept.
  """
  columns = jax.lax.broadcasted_iota(jnp.uint32, (*(1,) * (numbers.ndim - 1), width), numbers.ndim - 1)
  return drawn(mix(numbers), columns, seed) >= threshold(rate)


def drawn(rows: jax.Array, columns: jax.Array, seed: jax.Array) -> jax.Array:
  """uint32, uint32 -> uint32: what `keep_mask` compares, of rows' hashed numbers and of columns' numbers."""
  columns = mix(columns * np.uint32(0x9E3779B9) + mix(seed))
  return mix(rows + seed) * (columns | np.uint32(1)) + mix(columns)


def threshold(rate: float) -> np.uint32:
  """What is below it is dropped; a rate next to 1 would round to 2^32."""
  return np.uint32(min(round(rate * 2**32), GREATEST))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dropout(x, numbers, rate, seed):
  return jnp.where(keep_mask(numbers, x.shape[-1], rate, seed), x / (1 - rate), 0).astype(x.dtype)


def _forward(x, numbers, rate, seed):
  return _dropout(x, numbers, rate, seed), (numbers, seed)


def _backward(rate, residuals, g):
  numbers, seed = residuals
  return _dropout(g, numbers, rate, seed), None, None


_dropout.defvjp(_forward, _backward)


def dropout(x: jax.Array, numbers: jax.Array, rate: float, seed: jax.Array | None) -> jax.Array:
  """[... D], uint32 [... 1] -> [... D]: a share `rate` of x's elements zero, the others scaled up.

  `x` itself where `seed` (uint32) is None.
  `numbers`: what tells each row of x from all others that draw with the same seed.
  """
  return x if seed is None or rate == 0 else _dropout(x, numbers, rate, seed)

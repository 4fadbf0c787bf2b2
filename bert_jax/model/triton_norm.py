"""What follows a product in a layer, for NVIDIA GPUs: its bias, dropout, the residual and LayerNorm in one kernel.

XLA makes four passes of the forward and six of the backward direction (jax 0.10.2, H100); here each array is read once
and written once. The gradients of bias, scale and shift come as sums of some rows each, which triton_sums adds up.

N rows, D columns, C a power of 2 of at least D, R rows of a step, P programs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl

from bert_jax.model import triton
from bert_jax.model.dropout import drawn, mix, threshold

ROWS, WARPS = 4, 4  # of a step
PROGRAMS = 512  # of the backward pass, each of which leaves one row of sums


def drop(x, seeds, numbers, rate: float):  # [R C], [1], [R]
  """Dropout of rows that are called by their numbers."""
  columns = jnp.arange(x.shape[1], dtype=jnp.uint32)[None, :]
  kept = drawn(mix(numbers)[:, None], columns, seeds[0]) >= threshold(rate)
  return jnp.where(kept, x * np.float32(1 / (1 - rate)), 0)


def read(ref, inside):  # [R C] or [C], [C] -> float32
  """What stands in the columns of `inside`, and zeros."""
  mask = inside[None] if len(ref.shape) > 1 else inside
  return triton.load(ref, mask=mask, other=0).astype(jnp.float32)


def forward_kernel(seeds, numbers, h, x, vectors, y, normalized, deviation, *, D, rate, epsilon):
  inside = jnp.arange(h.shape[1]) < D
  bias, scale, shift = (read(vectors.at[jnp.int32(i), :], inside)[None, :] for i in range(3))
  total = read(h, inside) + bias
  if rate:
    total = drop(total, seeds, numbers[...], rate)
  total += read(x, inside)
  off = jnp.where(inside[None], total - total.sum(axis=1)[:, None] * np.float32(1 / D), 0)
  inverse = jax.lax.rsqrt((off * off).sum(axis=1) * np.float32(1 / D) + np.float32(epsilon))
  off *= inverse[:, None]
  triton.store(normalized, off.astype(normalized.dtype), mask=inside[None])
  triton.store(y, (off * scale + shift).astype(y.dtype), mask=inside[None])
  deviation[...] = inverse


def backward_kernel(seeds, numbers, g, more, normalized, deviation, vectors, sums, dx, *dh, D, rate, steps):
  """`dh`: a reference where there is dropout; without it h has the gradient of x."""
  inside = jnp.arange(g.shape[1]) < D
  scale = read(vectors.at[jnp.int32(1), :], inside)[None, :]

  def step(i, found):
    rows = pl.ds(i * ROWS, ROWS)
    above = read(g.at[rows, :], inside) + read(more.at[rows, :], inside)
    unit = read(normalized.at[rows, :], inside)
    inner = above * scale
    mean, slope = (each.sum(axis=1)[:, None] * np.float32(1 / D) for each in (inner, inner * unit))
    inner = jnp.where(inside[None], (inner - mean - unit * slope) * deviation[rows][:, None], 0)
    triton.store(dx.at[rows, :], inner.astype(dx.dtype), mask=inside[None])
    if rate:
      inner = drop(inner, seeds, numbers[rows], rate)
      triton.store(dh[0].at[rows, :], inner.astype(dx.dtype), mask=inside[None])
    return tuple(old + new.sum(axis=0) for old, new in zip(found, (inner, above * unit, above)))

  for i, value in enumerate(jax.lax.fori_loop(0, steps, step, (jnp.zeros(inside.shape, jnp.float32),) * 3)):
    triton.store(sums.at[jnp.int32(i), :], value, mask=inside)


def backward_programs(N: int) -> int:
  """How many rows of sums there are of N rows."""
  return N // (triton.steps(N // ROWS, PROGRAMS) * ROWS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7, 8))
def add_norm(h, x, vectors, sums, numbers, seeds, which, rate, epsilon):
  """LayerNorm(dropout(h + bias) + x), twice, as it is read twice: the gradients of both come together in the kernel.

  [N D] x 2; bias, scale and shift [3 D], whose gradient goes to `sums`, [P 3 D] of triton_sums.rows_of; uint32 [N],
  uint32 [n] -> two of [N D]; N is a multiple of 4. `numbers` and seeds[which] are those of dropout.dropout, which it
  draws as.
  """
  return _forward(h, x, vectors, sums, numbers, seeds, which, rate, epsilon)[0]


def _specs(D: int, rows: int, which: int):
  """(the seed, some rows of numbers, some rows, the three vectors)"""
  C = pl.next_power_of_2(D)
  return (pl.BlockSpec((1,), lambda i: (which,)), pl.BlockSpec((rows,), lambda i: (i,)),
          pl.BlockSpec((rows, C), lambda i: (i, 0)), pl.BlockSpec((3, C), lambda i: (0, 0)))


def _forward(h, x, vectors, sums, numbers, seeds, which, rate, epsilon):
  del sums
  N, D = h.shape
  one, thin, wide, row = _specs(D, ROWS, which)
  like = jax.ShapeDtypeStruct((N, D), h.dtype)
  y, normalized, deviation = pl.pallas_call(
      functools.partial(forward_kernel, D=D, rate=rate, epsilon=epsilon), grid=(N // ROWS,),
      in_specs=[one, thin, wide, wide, row], out_specs=[wide, wide, thin],
      out_shape=[like, like, jax.ShapeDtypeStruct((N,), jnp.float32)],
      compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
  )(seeds, numbers, h, x, vectors)
  y, normalized, deviation = (checkpoint_name(array, name) for array, name in (
      (y, 'y'), (normalized, 'normalized'), (deviation, 'scale')))
  return (y, y), (normalized, deviation, vectors, numbers, seeds)


def _backward(which, rate, epsilon, residuals, gradients):
  normalized, deviation, vectors, numbers, seeds = residuals
  N, D = normalized.shape
  P = backward_programs(N)
  rows, steps = N // P, N // P // ROWS
  one, thin, wide, row = _specs(D, rows, which)
  like = [jax.ShapeDtypeStruct((N, D), normalized.dtype)] * (2 if rate else 1)
  sums, dx, *dh = pl.pallas_call(
      functools.partial(backward_kernel, D=D, rate=rate, steps=steps), grid=(P,),
      in_specs=[one, thin, wide, wide, wide, thin, row],
      out_specs=[pl.BlockSpec((None, *row.block_shape), lambda i: (i, 0, 0)), *[wide] * len(like)],
      out_shape=[jax.ShapeDtypeStruct((P, 3, D), jnp.float32), *like],
      compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
  )(seeds, numbers, *gradients, normalized, deviation, vectors)
  return (*dh, dx)[0], dx, None, sums, None, None


add_norm.defvjp(_forward, _backward)

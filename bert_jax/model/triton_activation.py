"""The feed-forward's second half for NVIDIA GPUs: bias, activation and product, the backward pass of the first two in
one kernel.

That pass gives the gradient, the activation once more (for the product's own gradient, so that it need not be kept) and
sums of rows for the bias. XLA (jax 0.11.2, H100) makes passes of their own of them, one in float32.

N rows, F feed-forward, D hidden, R rows of a step, W columns of a program, P programs along the rows.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from bert_jax.model import triton
from bert_jax.model.layers import TERMS, activate, gelu_and_slope

ROWS, COLUMNS, WARPS = 4, 512, 4  # of a step
PROGRAMS = 256  # along the rows, each of which leaves one row of sums


def backward_kernel(h, bias, g, dh, activated, sums, *, activation, F, steps):
  W = h.shape[1]
  inside = pl.program_id(1) * W + jnp.arange(W) < F
  of_columns = triton.load(bias, mask=inside, other=0).astype(jnp.float32)[None, :]

  def step(i, found):
    rows = pl.ds(i * ROWS, ROWS)
    read = lambda ref: triton.load(ref.at[rows, :], mask=inside[None], other=0).astype(jnp.float32)
    write = lambda ref, value: triton.store(ref.at[rows, :], value.astype(ref.dtype), mask=inside[None])
    value, slope = gelu_and_slope(read(h) + of_columns, TERMS[activation])
    gradient = read(g) * slope
    write(activated, value)
    write(dh, gradient)
    return found + gradient.sum(axis=0)

  triton.store(sums, jax.lax.fori_loop(0, steps, step, jnp.zeros((W,), jnp.float32)), mask=inside)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def activated_product(h, bias, kernel, activation):  # [N F], [F], [F D] -> [N D]
  """activation(h + bias) kernel, of 16-bit numbers; N is a multiple of 4."""
  return activate(activation, h + bias[None].astype(h.dtype)) @ kernel


def _forward(h, bias, kernel, activation):
  return activated_product(h, bias, kernel, activation), (h, bias, kernel)


def _backward(activation, residuals, g):
  h, bias, kernel = residuals
  N, F = h.shape
  steps = triton.steps(N // ROWS, PROGRAMS)
  P, W = N // (ROWS * steps), min(COLUMNS, pl.next_power_of_2(F))
  wide, row = pl.BlockSpec((steps * ROWS, W), lambda i, j: (i, j)), pl.BlockSpec((W,), lambda i, j: (j,))
  like = jax.ShapeDtypeStruct((N, F), h.dtype)
  dh, activated, sums = pl.pallas_call(
      functools.partial(backward_kernel, activation=activation, F=F, steps=steps),
      grid=(P, pl.cdiv(F, W)), in_specs=[wide, row, wide],
      out_specs=[wide, wide, pl.BlockSpec((None, W), lambda i, j: (i, j))],
      out_shape=[like, like, jax.ShapeDtypeStruct((P, F), jnp.float32)],
      compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
  )(h, bias, g @ kernel.T)
  return dh, sums.sum(axis=0).astype(bias.dtype), activated.T @ g


activated_product.defvjp(_forward, _backward)

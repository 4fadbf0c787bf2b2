"""The feed-forward for NVIDIA GPUs: what stands between its two products is a part of them, one kernel each way.

Forward, the first product gives its result, which is kept, and the activation of that and the bias. Backward, the
product with the second kernel ends in the gradient before the activation, the activation once more (for the second
kernel's own gradient, so that it need not be kept) and sums of rows for the bias. XLA (jax 0.10.2, H100) writes each
product and reads it again, as its products end in nothing but what it can multiply them by. The other four products
are the compiler's.

N rows, D hidden, F feed-forward; of a program R rows, C columns, S of a step along what is added up.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl

from bert_jax.model import triton
from bert_jax.model.layers import value_and_slope
from bert_jax.model.triton_attention import dot

LEAST = 16  # rows or columns of a block: tensor cores take no fewer


@dataclasses.dataclass(frozen=True)
class Blocks:
  """What a program makes, in numbers of 16 bits; warps and stages are Triton's own settings."""
  rows: int
  columns: int
  step: int
  warps: int
  stages: int

  def of(self, N: int, F: int, D: int, itemsize: int) -> 'Blocks':
    """The same for arrays of this size: each a power of 2 that divides it."""
    largest = lambda size, most: min(size & -size, most)
    rows, columns = largest(N, self.rows), largest(F, self.columns)
    return Blocks(rows, columns, largest(D, max(2 * self.step // itemsize, LEAST)),
                  self.warps if rows * columns >= WIDE else self.warps // 2, self.stages)


# The largest that spill no registers, by ptxas 12.9 for an H100 and an RTX 4090, and whose stages fit the 99 kB that a
# block may have on Ada: the fewer, the less is read twice. 128 by 256 spill 2,656 bytes a thread on the way back.
FORWARD, BACKWARD = Blocks(128, 256, 32, 8, 4), Blocks(128, 128, 64, 8, 3)
WIDE = 128 * 128  # numbers of a block that are for eight warps


def supported(rows: int, hidden: int, intermediate: int) -> bool:
  """Whether the kernels take arrays of such widths."""
  return all(size % LEAST == 0 for size in (rows, hidden, intermediate))


def product(a, b, step: int, turned: bool = False):  # references to [R D] and [D C], or turned [C D] -> [R C] float32
  """a b, added up in float32."""
  def add(i, total):
    at = pl.ds(i * step, step)
    right = triton.load(b.at[:, at]).T if turned else triton.load(b.at[at, :])
    return total + dot(triton.load(a.at[:, at]), right)

  R, D = a.shape
  return jax.lax.fori_loop(0, D // step, add, jnp.zeros((R, b.shape[0 if turned else 1]), jnp.float32))


def with_bias(h, bias):  # [R C], reference to [C] -> [R C] float32
  return h.astype(jnp.float32) + triton.load(bias).astype(jnp.float32)[None, :]


def forward_kernel(x, first, bias, h, activated, *, activation, step):
  made = product(x, first, step).astype(h.dtype)
  triton.store(h, made)
  value, _ = value_and_slope(activation, with_bias(made, bias), h.dtype)
  triton.store(activated, value.astype(h.dtype))


def backward_kernel(g, second, h, bias, dh, activated, sums, *, activation, step):
  above = product(g, second, step, turned=True)
  value, slope = value_and_slope(activation, with_bias(triton.load(h), bias), h.dtype)
  gradient = above * slope
  triton.store(dh, gradient.astype(h.dtype))
  triton.store(activated, value.astype(h.dtype))
  triton.store(sums, gradient.sum(axis=0))


def _call(kernel, blocks: Blocks, activation, N: int, F: int, D: int, dtype, results, specs, *arrays):
  blocks = blocks.of(N, F, D, dtype.itemsize)
  wide = pl.BlockSpec((blocks.rows, blocks.columns), lambda i, j: (i, j))
  known = {'left': pl.BlockSpec((blocks.rows, D), lambda i, j: (i, 0)),
           'right': pl.BlockSpec((D, blocks.columns), lambda i, j: (0, j)),
           'turned': pl.BlockSpec((blocks.columns, D), lambda i, j: (j, 0)),
           'bias': pl.BlockSpec((blocks.columns,), lambda i, j: (j,)), 'wide': wide,
           'sums': pl.BlockSpec((None, blocks.columns), lambda i, j: (i, j))}
  shapes = {'wide': jax.ShapeDtypeStruct((N, F), dtype),
            'sums': jax.ShapeDtypeStruct((N // blocks.rows, F), jnp.float32)}
  return pl.pallas_call(
      functools.partial(kernel, activation=activation, step=blocks.step), grid=(N // blocks.rows, F // blocks.columns),
      in_specs=[known[name] for name in specs], out_specs=[known[name] for name in results],
      out_shape=[shapes[name] for name in results], metadata={'flops': str(2 * N * F * D)},  # for `bert-jax plan`
      compiler_params=triton.CompilerParams(num_warps=blocks.warps, num_stages=blocks.stages),
  )(*arrays)


def backward_programs(N: int) -> int:
  """How many rows of sums there are of N rows."""
  return N // min(N & -N, BACKWARD.rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def feed_forward(x, first, bias, sums, second, activation):  # [N D], [D F], [F], [P F], [F D] -> [N D]
  """activation(x first + bias) second, of sizes that are `supported`.

  `sums`: of triton_sums.rows_of, has the gradient of the bias.
  """
  return _forward(x, first, bias, sums, second, activation)[0]


def _forward(x, first, bias, sums, second, activation):
  del sums
  (N, D), F = x.shape, first.shape[1]
  h, activated = _call(forward_kernel, FORWARD, activation, N, F, D, x.dtype, ('wide', 'wide'),
                       ('left', 'right', 'bias'), x, first, bias)
  return activated @ second, (x, first, bias, second, checkpoint_name(h, 'intermediate'))


def _backward(activation, residuals, g):
  x, first, bias, second, h = residuals
  (N, D), F = x.shape, first.shape[1]
  dh, activated, sums = _call(backward_kernel, BACKWARD, activation, N, F, D, x.dtype, ('wide', 'wide', 'sums'),
                              ('left', 'turned', 'wide', 'bias'), g, second, h, bias)
  return dh @ first.T, x.T @ dh, None, sums, activated.T @ g


feed_forward.defvjp(_forward, _backward)

"""For NVIDIA GPUs: the gradients of a layer's vectors, from the rows of sums that its kernels leave, in one kernel.

Biases, scales and shifts are read by four kernels of a layer, whose backward passes have many programs; each of these
leaves one row of sums. XLA (jax 0.10.2) adds them up by a kernel for each, four a layer.

P rows of one of them, C columns; of a program R rows of a step, W columns.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from bert_jax.model import triton

ROWS, COLUMNS, WARPS = 64, 64, 4  # of a step


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def rows_of(vectors: tuple[jax.Array, ...], counts: tuple[tuple[int, ...], ...]):  # [...] each -> [*count ...] each
  """Zeros that nobody reads, as many rows of each vector as a kernel leaves sums: their gradient is the vector's."""
  return tuple(jnp.zeros((*count, *vector.shape), jnp.float32) for vector, count in zip(vectors, counts, strict=True))


def sum_kernel(*references, columns: tuple[int, ...], rows: tuple[int, ...]):  # [P W] each, [W] each
  own, at = pl.program_id(1), pl.program_id(0) * COLUMNS
  for number, (sums, total) in enumerate(zip(references[:len(rows)], references[len(rows):])):
    @pl.when((own == number) & (at < columns[number]))
    def _(number=number, sums=sums, total=total):
      inside = at + jnp.arange(COLUMNS) < columns[number]

      def add(i, found):
        there = i * ROWS + jnp.arange(ROWS) < rows[number]
        return found + triton.load(sums.at[pl.ds(i * ROWS, ROWS), :], mask=there[:, None] & inside[None], other=0)

      found = jax.lax.fori_loop(0, pl.cdiv(rows[number], ROWS), add, jnp.zeros((ROWS, COLUMNS), jnp.float32))
      triton.store(total, found.sum(axis=0), mask=inside)


def sums_of(arrays: list[jax.Array]) -> list[jax.Array]:  # [P C] each -> [C] each
  """The sums over the rows of each."""
  rows, columns = ([array.shape[axis] for array in arrays] for axis in range(2))
  specs = [_specs(*array.shape) for array in arrays]
  return pl.pallas_call(
      functools.partial(sum_kernel, columns=tuple(columns), rows=tuple(rows)),
      grid=(pl.cdiv(max(columns), COLUMNS), len(arrays)),
      in_specs=[sums for sums, _ in specs], out_specs=[total for _, total in specs],
      out_shape=[jax.ShapeDtypeStruct((C,), jnp.float32) for C in columns],
      compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
  )(*arrays)


def _specs(P: int, C: int) -> tuple[pl.BlockSpec, pl.BlockSpec]:
  """Of rows of sums, and of their sums. Programs whose columns are beyond these do nothing."""
  at = lambda i: jnp.minimum(i, pl.cdiv(C, COLUMNS) - 1)
  return (pl.BlockSpec((pl.cdiv(P, ROWS) * ROWS, COLUMNS), lambda i, _: (0, at(i))),
          pl.BlockSpec((COLUMNS,), lambda i, _: (at(i),)))


def _backward(counts, vectors, gradients):
  found = sums_of([gradient.reshape(math.prod(count), -1) for gradient, count in zip(gradients, counts)])
  return tuple(total.reshape(vector.shape).astype(vector.dtype) for total, vector in zip(found, vectors)),


rows_of.defvjp(lambda vectors, counts: (rows_of(vectors, counts), vectors), _backward)

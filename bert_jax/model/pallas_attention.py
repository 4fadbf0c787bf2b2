"""Attention for TPU as one Pallas kernel a direction: scores, softmax and dropout never leave the chip's fast memory.

XLA writes scores, weights and dropout masks, [B H T T] each, to memory and reads them back (libtpu 0.0.42). A BERT row
is short: all keys of a head fit beside all its queries, so that no running maximum is needed and nothing but q, k and v
is kept for the backward pass, which computes the weights again and draws the dropout mask again. The compiler tells no
cycles of a kernel, so its gain in time is not known. What it saves in memory is seen by
`bert-jax plan base --topology v5e:4x4 --batch-per-chip 64`, with and without `--model.attention xla`.

B rows, T tokens, H heads, K head width, D = H K, W columns of D (whole heads) that one program works on.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from bert_jax.model.dropout import keep_mask

LANES = 128  # of a vector register: blocks are cut at multiples
BLOCK = 128 * 1024  # elements of q that a program takes, where heads are narrow enough: fewer programs than heads
LONGEST = 1024  # tokens: [T T] scores in float32 and their gradients have to fit into 16 MiB or more
HIDDEN = -1e9


def supported(tokens: int, heads: int, head_width: int) -> bool:
  """Whether the kernel takes rows of so many tokens and such heads."""
  return tokens % LANES == 0 and tokens <= LONGEST and (heads * head_width) % math.lcm(LANES, head_width) == 0


def block_width(T: int, D: int, K: int) -> int:
  """W: whole heads and whole registers that divide D, as many as BLOCK allows."""
  unit = math.lcm(LANES, K)
  counts = [n for n in range(1, D // unit + 1) if D % (n * unit) == 0 and T * n * unit <= BLOCK]
  return unit * max(counts, default=1)


def head_weights(q, k, same):  # [T K] x 2, [T T] -> [T T] float32
  scores = jax.lax.dot_general(q, k, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
  scores *= np.float32(q.shape[-1]**-0.5)
  scores = jnp.where(same, scores, HIDDEN)
  weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
  return weights / weights.sum(axis=-1, keepdims=True)


def each_head(body, same_ref, K: int, H: int, rate: float, direction: int, scalars, numbers, W: int):
  """Calls body(columns of the head, mask of what is seen, mask of what dropout keeps or None) for each head of a block.

  Both masks are [T T].
  """
  queries, keys = same_ref
  T = queries.shape[1]
  same = queries[0] == keys[0]  # [T 1] == [1 T]
  if direction:
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (T, T), axis) for axis in (0, 1))
    same &= row >= column if direction > 0 else row <= column
  first = scalars[1] + pl.program_id(1) * (W // K)
  for head in range(W // K):
    keep = None
    if rate:
      number = numbers[0] * np.uint32(H) + (first + head).astype(jnp.uint32)
      keep = keep_mask(number, T, rate, scalars[0].astype(jnp.uint32))
    body(slice(head * K, (head + 1) * K), same, keep)


def forward_kernel(scalars, q, k, v, queries, keys, numbers, out, *, K, H, rate, direction):
  def head(at, same, keep):
    weights = head_weights(q[0, :, at], k[0, :, at], same)
    if keep is not None:
      weights = jnp.where(keep, weights / (1 - rate), 0)
    out[0, :, at] = jnp.dot(weights.astype(q.dtype), v[0, :, at], preferred_element_type=jnp.float32).astype(out.dtype)

  each_head(head, (queries, keys), K, H, rate, direction, scalars, numbers, q.shape[-1])


def backward_kernel(scalars, q, k, v, g, queries, keys, numbers, dq, dk, dv, *, K, H, rate, direction):
  over_queries = (((0,), (0,)), ((), ()))

  def head(at, same, keep):
    weights = head_weights(q[0, :, at], k[0, :, at], same)
    drop = (lambda x: x) if keep is None else lambda x: jnp.where(keep, x / (1 - rate), 0)
    gradient = g[0, :, at]
    dv[0, :, at] = jax.lax.dot_general(drop(weights).astype(q.dtype), gradient, over_queries,
                                       preferred_element_type=jnp.float32).astype(dv.dtype)
    dw = drop(jax.lax.dot_general(gradient, v[0, :, at], (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32))
    ds = weights * (dw - (weights * dw).sum(axis=-1, keepdims=True)) * np.float32(K**-0.5)
    ds = ds.astype(q.dtype)
    dq[0, :, at] = jnp.dot(ds, k[0, :, at], preferred_element_type=jnp.float32).astype(dq.dtype)
    dk[0, :, at] = jax.lax.dot_general(ds, q[0, :, at], over_queries,
                                       preferred_element_type=jnp.float32).astype(dk.dtype)

  each_head(head, (queries, keys), K, H, rate, direction, scalars, numbers, q.shape[-1])


def call_kernel(kernel, outputs: int, products: int, arrays, pair_ids, numbers, scalars, *, K, H, rate, direction):
  """Runs `kernel` over rows and blocks of heads.

  arrays [B T D] each, pair_ids and numbers [B T], scalars [2] -> `outputs` x [B T D]
  """
  B, T, D = arrays[0].shape
  W = block_width(T, D, K)
  block = pl.BlockSpec((1, T, W), lambda b, h, _: (b, 0, h))
  column = pl.BlockSpec((1, T, 1), lambda b, h, _: (b, 0, 0))
  row = pl.BlockSpec((1, 1, T), lambda b, h, _: (b, 0, 0))
  like = jax.ShapeDtypeStruct((B, T, D), arrays[0].dtype)
  cost = pl.CostEstimate(flops=2 * products * B * T * T * D, transcendentals=B * T * T * (D // K),
                         bytes_accessed=(len(arrays) + outputs) * arrays[0].nbytes)
  return pl.pallas_call(
      functools.partial(kernel, K=K, H=H, rate=rate, direction=direction), out_shape=[like] * outputs,
      cost_estimate=cost,
      grid_spec=pltpu.PrefetchScalarGridSpec(
          num_scalar_prefetch=1, grid=(B, D // W), in_specs=[block] * len(arrays) + [column, row, column],
          out_specs=[block] * outputs),
      compiler_params=pltpu.CompilerParams(dimension_semantics=('parallel', 'parallel')),
  )(scalars, *arrays, pair_ids[:, :, None], pair_ids[:, None, :], numbers[:, :, None])


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7, 8, 9))
def flat_attention(q, k, v, pair_ids, numbers, scalars, K, H, rate,
                   direction):  # [B T D] x 3, [B T] x 2, [2] -> [B T D]
  return _forward(q, k, v, pair_ids, numbers, scalars, K, H, rate, direction)[0]


def _forward(q, k, v, pair_ids, numbers, scalars, K, H, rate, direction):
  out, = call_kernel(forward_kernel, 1, 2, (q, k, v), pair_ids, numbers, scalars, K=K, H=H, rate=rate,
                     direction=direction)
  return out, (q, k, v, pair_ids, numbers, scalars)


def _backward(K, H, rate, direction, residuals, g):
  q, k, v, pair_ids, numbers, scalars = residuals
  dq, dk, dv = call_kernel(
      backward_kernel, 3, 5, (q, k, v, g), pair_ids, numbers, scalars, K=K, H=H, rate=rate, direction=direction)
  return dq, dk, dv, None, None, None


flat_attention.defvjp(_forward, _backward)


def attend_heads(first_head, q, k, v, pair_ids, numbers, seed, *, rate, direction, all_heads):
  """[B T H K] x 3, [B T] x 2 -> [B T H K]: attention of some rows' heads `first_head`… out of `all_heads`.

  Dropout masks are drawn by these numbers of the heads, and by `seed` (uint32).
  """
  B, T, H, K = q.shape
  flat = lambda x: x.reshape(B, T, H * K)
  scalars = jnp.stack([jax.lax.bitcast_convert_type(seed, jnp.int32), jnp.asarray(first_head, jnp.int32)])
  out = flat_attention(flat(q), flat(k), flat(v), pair_ids, numbers, scalars, K, all_heads, rate, direction)
  return out.reshape(q.shape)

"""Attention for NVIDIA GPUs as one Pallas (Triton) kernel a direction: scores, softmax and dropout never leave a core.

A program owns some tokens of one head of one row and walks over blocks of the others, as FlashAttention-2 does
(arXiv:2307.08691), but only over those between the first and the last that are of its pairs: padding and packed
neighbours cost nothing. The forward pass keeps one number a token and head, the logarithm of the sum of exponentials;
the backward pass computes the weights from it and draws the dropout mask again, the same one as plain JAX draws.

Queries, keys and values come as one product's result, without their biases, which would cost a pass of their own: the
kernel adds what they change. The keys' bias adds the same number to all scores of a query, so it changes nothing.

B rows, T tokens, H heads, K head width, C a power of 2 of at least K, Q tokens that a program owns, S tokens of a step.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl

from bert_jax.model import triton
from bert_jax.model.dropout import drawn, mix, threshold

LEAST = 16  # tokens of a block: tensor cores take no fewer
LONGEST = 1 << 16
WIDEST = 128  # of a head
HIDDEN, LOWEST = -1e30, -1e20  # a score that is not seen; what the greatest begins with, so that exp2 of the first is 0
LOG2_E = math.log2(math.e)


@dataclasses.dataclass(frozen=True)
class Blocks:
  """How one kernel is cut; the figures are of tokens, and of Triton's own settings."""
  own: int
  step: int
  warps: int
  stages: int

  def of(self, T: int, K: int, itemsize: int) -> 'Blocks':
    """As large as rows of T tokens allow, smaller where numbers are wider, and for more threads where heads are."""
    largest = T & -T  # the greatest power of 2 that divides T
    narrower = max(itemsize // 2, 1)
    own, step = (max(min(size // narrower, largest), min(LEAST, largest)) for size in (self.own, self.step))
    warps = self.warps * (2 if K > NARROW else 1)
    return dataclasses.replace(self, own=own, step=step, warps=warps, stages=self.stages if itemsize == 2 else 1)


# The largest whose programs keep all that they work on in registers, by ptxas 12.9 for an H100. Where 128 keys under
# 128 queries spilled 1,452 bytes a thread, the backward pass took three times as long as its bytes should (H200).
FORWARD, BACKWARD = Blocks(128, 32, 4, 3), Blocks(64, 32, 4, 2)
NARROW = 64  # columns of a head for which that holds
WHOLE = 64  # tokens of a row that one program of the backward pass takes whole, so that it has each score once


def supported(tokens: int, head_width: int) -> bool:
  """Whether the kernel takes rows of so many tokens and such heads."""
  return triton.AVAILABLE and tokens % LEAST == 0 and tokens <= LONGEST and 8 <= head_width <= WIDEST


def ranges(pair_ids, size: int):  # [B T] -> [B T/size 2] int32
  """Of each block of `size` tokens, from which token on and up to which there are tokens of its pairs.

  By the least and the greatest id of the block, padding being after all pairs: exact where each pair is in one piece.
  """
  B, T = pair_ids.shape
  ids = jnp.where(pair_ids == 0, jnp.iinfo(jnp.int32).max, pair_ids)
  blocks = ids.reshape(B, T // size, size)
  least, most = blocks.min(-1), blocks.max(-1)
  of = (ids[:, None] >= least[..., None]) & (ids[:, None] <= most[..., None])  # [B T/size T]
  at = jnp.arange(T, dtype=jnp.int32)[None, None]
  return jnp.stack([jnp.where(of, at, T).min(-1), jnp.where(of, at, -1).max(-1) + 1], -1)


def bounds(pair_ids, K: int, itemsize: int):  # [B T] -> two of [B … 2]
  """What the kernels of either direction read of the pairs, the same for each layer: of the smaller blocks, and of the
  larger ones what covers those that they are made of."""
  B, T = pair_ids.shape
  sizes = [blocks.own for blocks in (FORWARD.of(T, K, itemsize), backward_blocks(T, K, itemsize))]
  first, end = jnp.moveaxis(ranges(pair_ids, min(sizes)), -1, 0)
  of = lambda x, size: x.reshape(B, T // size, size // min(sizes))
  return tuple(jnp.stack([of(first, size).min(-1), of(end, size).max(-1)], -1) for size in sizes)


def backward_blocks(T: int, K: int, itemsize: int) -> Blocks:
  blocks = BACKWARD.of(T, K, itemsize)
  if T & -T == T and T <= WHOLE // max(itemsize // 2, 1) and K <= NARROW:
    return dataclasses.replace(blocks, own=T, step=T)
  return blocks


def inside(C: int, K: int):
  """The mask of a head's columns: those beyond K are the next head's."""
  return None if C == K else (jnp.arange(C) < K)[None]


def read(ref, at, K: int, part=None):  # [T C] or [T 3 C] -> [Q C]
  """Some tokens' part of a head; its columns beyond K are zeros."""
  mask = inside(ref.shape[-1], K)
  ref = ref.at[at, :] if part is None else ref.at[at, jnp.int32(part), :]
  return triton.load(ref) if mask is None else triton.load(ref, mask=mask, other=0)


def write(ref, at, value, K: int, part=None):  # [T C] or [T 3 C], [Q C]
  mask = inside(ref.shape[-1], K)
  triton.store(ref.at[at, :] if part is None else ref.at[at, jnp.int32(part), :], value.astype(ref.dtype), mask=mask)


def write_row(ref, value, K: int, part: int):  # [3 C], [C]
  C = ref.shape[-1]
  triton.store(ref.at[jnp.int32(part), :], value, mask=None if C == K else jnp.arange(C) < K)


def read_bias(ref, part: int, K: int):  # [3 C] -> [1 C] float32
  C = ref.shape[-1]
  row = ref.at[jnp.int32(part), :]
  row = triton.load(row) if C == K else triton.load(row, mask=jnp.arange(C) < K, other=0)
  return row.astype(jnp.float32)[None, :]


def dot(a, b):
  """a b, added up in float32; of float32 no digit is dropped."""
  return triton.dot(a, b, precision=jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None)


def along(a, row):  # [Q C], [1 C] -> [Q] float32
  return (a.astype(jnp.float32) * row).sum(axis=-1)


@dataclasses.dataclass(frozen=True)
class Head:
  """What a program knows of its head: who sees whom, and what dropout keeps."""
  ids: jax.Array  # reference to [T] int32
  numbers: jax.Array  # reference to [T] uint32
  seed: jax.Array  # uint32
  number: jax.Array  # uint32, of the head
  H: int
  rate: float
  direction: int

  def block(self, start, size: int) -> dict:
    """What both sides have of `size` tokens from `start` on, [size] each."""
    at = pl.ds(start, size)
    places = start + jnp.arange(size, dtype=jnp.int32)
    found = dict(places=places, ids=self.ids[at])
    if self.rate:
      found |= dict(rows=mix(self.numbers[at] * np.uint32(self.H) + self.number), columns=places.astype(jnp.uint32))
    return found

  def masks(self, queries: dict, keys: dict, turned: bool = False):  # -> seen [Q S], kept [Q S] or None; turned [S Q]
    """Which keys each query sees, and which of the weights dropout keeps."""
    row, column = ((lambda x: x[None, :]), (lambda x: x[:, None])) if turned else (
        (lambda x: x[:, None]), (lambda x: x[None, :]))
    seen = row(queries['ids']) == column(keys['ids'])
    if self.direction:
      seen &= row(queries['places']) >= column(keys['places']) if self.direction > 0 else (
          row(queries['places']) <= column(keys['places']))
    if not self.rate:
      return seen, None
    return seen, drawn(row(queries['rows']), column(keys['columns']), self.seed) >= threshold(self.rate)

  def steps(self, bounds, start, own: int, step: int, of_keys: bool):
    """(first, end) of the blocks of `step` tokens that a block of `own` from `start` on sees, or that see it."""
    first, end = bounds[0], bounds[1]
    ahead = self.direction * (-1 if of_keys else 1)  # 1: nothing after the own block counts
    if ahead > 0:
      end = jnp.minimum(end, start + own)
    elif ahead < 0:
      first = jnp.maximum(first, start)
    return jax.lax.div(first, step), jax.lax.div(end + (step - 1), step)


def forward_kernel(seeds, bounds, ids, numbers, qkv, bias, out, total, *, K, H, rate, direction, blocks):
  Q, S = blocks.own, blocks.step
  start = pl.program_id(0) * Q
  mine = pl.ds(start, Q)
  head = Head(ids, numbers, seeds[0], pl.program_id(2).astype(jnp.uint32), H, rate, direction)
  queries, own = head.block(start, Q), read(qkv, mine, K, 0)
  of_queries, of_values = read_bias(bias, 0, K), read_bias(bias, 2, K)

  def step(j, carry):
    out, greatest, total, kept_total = carry
    at, keys = pl.ds(j * S, S), head.block(j * S, S)
    k = read(qkv, at, K, 1)
    scores = (dot(own, k.T) + along(k, of_queries)[None, :]) * np.float32(LOG2_E * K**-0.5)  # [Q S]
    seen, kept = head.masks(queries, keys)
    scores = jnp.where(seen, scores, HIDDEN)
    greater = jnp.maximum(greatest, scores.max(axis=-1))
    before, weights = jnp.exp2(greatest - greater), jnp.exp2(scores - greater[:, None])
    total = total * before + weights.sum(axis=-1)
    if kept is not None:
      weights = jnp.where(kept, weights, 0)
      kept_total = kept_total * before + weights.sum(axis=-1)
    return (out * before[:, None] + dot(weights.astype(qkv.dtype), read(qkv, at, K, 2)), greater, total,
            kept_total if rate else total)

  none = jnp.zeros((Q,), jnp.float32)
  result, greatest, sums, kept_sums = jax.lax.fori_loop(
      *head.steps(bounds, start, Q, S, False), step,
      (jnp.zeros((Q, own.shape[-1]), jnp.float32), jnp.full((Q,), LOWEST, jnp.float32), none, none))
  result = (result + kept_sums[:, None] * of_values) / (sums * np.float32(1 - rate))[:, None]
  write(out, mine, result, K)
  total[mine] = greatest + jnp.log(sums) * np.float32(LOG2_E)


def weights_and_slopes(scores, total, masks, products, sums, rate):  # [Q S] and [Q 1], or turned [S Q] and [1 Q]
  """(weights after dropout times 1 - rate, the loss's gradient to the scores): one block of the backward pass."""
  seen, kept = masks
  weights = jnp.exp2(jnp.where(seen, scores, HIDDEN) - total)
  dropped = weights
  if kept is not None:
    products = jnp.where(kept, products * np.float32(1 / (1 - rate)), 0)
    dropped = jnp.where(kept, weights, 0)
  return dropped, weights * (products - sums)


def backward_kernel(seeds, bounds, ids, numbers, qkv, bias, out, total, g, gradient, sums_of_own, *, K, H, rate,
                    direction, blocks):
  Q, S, T = blocks.own, blocks.step, qkv.shape[0]
  whole = Q == S == T  # so that each score is computed once
  start = pl.program_id(0) * Q
  head = Head(ids, numbers, seeds[0], pl.program_id(2).astype(jnp.uint32), H, rate, direction)
  scale, dtype = np.float32(LOG2_E * K**-0.5), qkv.dtype
  mine = pl.ds(start, Q)
  nothing = jnp.zeros((Q, qkv.shape[-1]), jnp.float32)
  of_queries, of_values = read_bias(bias, 0, K), read_bias(bias, 2, K)
  sums_of = lambda at, g: (read(out, at, K).astype(jnp.float32) * g.astype(jnp.float32)).sum(axis=-1)

  own_k, own_v, mine_too = read(qkv, mine, K, 1), read(qkv, mine, K, 2), head.block(start, Q)
  of_own_k = along(own_k, of_queries)

  def of_keys(j, carry):  # the own keys under S queries, all turned: [Q S] of keys and queries
    dk, dv, slope_sums, _ = carry
    at = pl.ds(j * S, S)
    their_q, their_g = read(qkv, at, K, 0), read(g, at, K)
    dropped, slopes = weights_and_slopes(
        (dot(own_k, their_q.T) + of_own_k[:, None]) * scale, total[at][None, :],
        head.masks(head.block(j * S, S), mine_too, turned=True),
        dot(own_v, their_g.T) + along(their_g, of_values)[None, :], sums_of(at, their_g)[None, :], rate)
    slope_sums += slopes.sum(axis=1)
    slopes = slopes.astype(dtype)
    dq = dot(slopes.T, own_k) if whole else None
    return dk + dot(slopes, their_q), dv + dot(dropped.astype(dtype), their_g), slope_sums, dq

  sums = jnp.zeros((Q,), jnp.float32)
  if whole:
    dk, dv, sums, dq = of_keys(0, (nothing, nothing, sums, None))
  else:
    steps = head.steps(bounds, start, Q, S, True)
    dk, dv, sums = jax.lax.fori_loop(
        *steps, lambda j, carry: of_keys(j, (*carry, None))[:3], (nothing, nothing, sums))
  dk = (dk + sums[:, None] * of_queries) * np.float32(K**-0.5)
  dv *= np.float32(1 / (1 - rate))

  if not whole:
    own_q, own_g = read(qkv, mine, K, 0), read(g, mine, K)
    own_total, own_sums = total[mine][:, None], sums_of(mine, own_g)[:, None]
    own_products = along(own_g, of_values)[:, None]

    def of_own_queries(j, dq):
      at = pl.ds(j * S, S)
      k = read(qkv, at, K, 1)
      _, slopes = weights_and_slopes(
          (dot(own_q, k.T) + along(k, of_queries)[None, :]) * scale, own_total,
          head.masks(mine_too, head.block(j * S, S)), dot(own_g, read(qkv, at, K, 2).T) + own_products, own_sums, rate)
      return dq + dot(slopes.astype(dtype), k)

    dq = jax.lax.fori_loop(*head.steps(bounds, start, Q, S, False), of_own_queries, nothing)
  for part, value in enumerate((dq * np.float32(K**-0.5), dk, dv)):
    write(gradient, mine, value, K, part)
    write_row(sums_of_own, value.sum(axis=0), K, part)


def call_kernel(kernel, blocks: Blocks, products: int, inputs, outputs, bounds, pair_ids, numbers, seeds, which: int):
  """Runs `kernel` over blocks, rows and heads.

  `inputs` and `outputs`: [B T 3 H K], [3 H K], [B T H K], [B H T], or of each block of a row [B n 3 H K].
  """
  B, T, _, H, K = inputs[0].shape
  C = max(pl.next_power_of_2(K), LEAST)
  specs = {(B, T, 3, H, K): pl.BlockSpec((None, T, 3, None, C), lambda i, b, h: (b, 0, 0, h, 0)),
           (B, T, H, K): pl.BlockSpec((None, T, None, C), lambda i, b, h: (b, 0, h, 0)),
           (B, H, T): pl.BlockSpec((None, None, T), lambda i, b, h: (b, h, 0)),
           (B, T // blocks.own, 3, H, K): pl.BlockSpec((None, None, 3, None, C), lambda i, b, h: (b, i, 0, h, 0)),
           (3, H, K): pl.BlockSpec((3, None, C), lambda i, b, h: (0, h, 0))}
  row = pl.BlockSpec((None, T), lambda i, b, h: (b, 0))
  spec = lambda array: specs[array.shape]
  return pl.pallas_call(
      kernel, out_shape=outputs, grid=(T // blocks.own, B, H),
      metadata={'flops': str(2 * products * B * H * T * T * K)},  # for `bert-jax plan`: all blocks, those left out too

      in_specs=[pl.BlockSpec((1,), lambda i, b, h: (which,)), pl.BlockSpec((None, None, 2), lambda i, b, h: (b, i, 0)),
                row, row, *map(spec, inputs)],
      out_specs=[*map(spec, outputs)],
      compiler_params=triton.CompilerParams(num_warps=blocks.warps, num_stages=blocks.stages),
  )(seeds, bounds, pair_ids, numbers, *inputs)


def backward_programs(B: int, T: int, K: int, itemsize: int) -> tuple[int, int]:
  """How many rows of sums there are for a bias: of rows, and of blocks of a row."""
  return B, T // backward_blocks(T, K, itemsize).own


@functools.partial(jax.custom_vjp, nondiff_argnums=(7, 8, 9))
def attention(qkv, bias, sums, pair_ids, numbers, bounds, seeds, which, rate, direction):
  """attention.attend of queries, keys and values that are to be had by adding `bias`.

  [B T 3 H K]; [3 H K], whose gradient goes to `sums`, [B n 3 H K] of triton_sums.rows_of; [B T] x 2, two of [B … 2],
  uint32 [n] -> [B T H K]. Dropout draws by seeds[which].
  """
  return _forward(qkv, bias, sums, pair_ids, numbers, bounds, seeds, which, rate, direction)[0]


def _forward(qkv, bias, sums, pair_ids, numbers, bounds, seeds, which, rate, direction):
  del sums
  B, T, _, H, K = qkv.shape
  blocks = FORWARD.of(T, K, qkv.dtype.itemsize)
  kernel = functools.partial(forward_kernel, K=K, H=H, rate=rate, direction=direction, blocks=blocks)
  outputs = [jax.ShapeDtypeStruct((B, T, H, K), qkv.dtype), jax.ShapeDtypeStruct((B, H, T), jnp.float32)]
  out, total = call_kernel(kernel, blocks, 2, (qkv, bias), outputs, bounds[0], pair_ids, numbers, seeds, which)
  out, total = checkpoint_name(out, 'attended'), checkpoint_name(total, 'total')
  return out, (qkv, bias, pair_ids, numbers, bounds, seeds, out, total)


def _backward(which, rate, direction, residuals, g):
  qkv, bias, pair_ids, numbers, bounds, seeds, out, total = residuals
  B, T, _, H, K = qkv.shape
  blocks = backward_blocks(T, K, qkv.dtype.itemsize)
  kernel = functools.partial(backward_kernel, K=K, H=H, rate=rate, direction=direction, blocks=blocks)
  outputs = [jax.ShapeDtypeStruct(qkv.shape, qkv.dtype),
             jax.ShapeDtypeStruct((B, T // blocks.own, *bias.shape), jnp.float32)]
  products = 5 if blocks.own == blocks.step == T else 7
  gradient, sums = call_kernel(kernel, blocks, products, (qkv, bias, out, total, g), outputs, bounds[1], pair_ids,
                               numbers, seeds, which)
  return gradient, None, sums, None, None, None, None


attention.defvjp(_forward, _backward)


def attend(q, k, v, pair_ids, numbers, rate, seed, direction):
  """[B T H K] x 3, [B T] x 2 -> [B T H K]: attention.attend by this kernel."""
  rate, seed = (0.0, jnp.zeros((), jnp.uint32)) if seed is None else (rate, seed)
  qkv = jnp.stack([q, k, v], axis=2)
  B, T, *rest = qkv.shape
  bias, sums = jnp.zeros(rest), jnp.zeros((*backward_programs(B, T, q.shape[-1], q.dtype.itemsize), *rest))
  return attention(qkv, bias, sums, pair_ids, numbers, bounds(pair_ids, q.shape[-1], q.dtype.itemsize), seed[None], 0,
                   rate, direction)

"""A layer of the encoder on an NVIDIA GPU: its products by the compiler, and what stands between them by few kernels.

B rows, T tokens, N = B T tokens of all rows, D hidden, H heads, K head width.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from bert_jax.model import triton_activation, triton_attention, triton_norm, triton_sums
from bert_jax.model.layers import activate


@dataclasses.dataclass(frozen=True)
class Joined:
  """Parameters that are read together, joined in all layers at once: each that is taken from a stack is a kernel."""
  heads: jax.Array  # [L D 3D], the kernels of queries, keys and values
  heads_bias: jax.Array  # [L 3 H K]
  after_attention: jax.Array  # [L 3 D]: a bias, and the scale and shift of LayerNorm
  intermediate_bias: jax.Array  # [L F]
  after_all: jax.Array  # [L 3 D]


jax.tree_util.register_dataclass(Joined)


def join(blocks) -> Joined:
  """Of the stack of all layers."""
  three = blocks.query, blocks.key, blocks.value
  bias = jnp.stack([linear.bias[...] for linear in three], axis=1)  # [L 3 D]
  end = lambda linear, norm: jnp.stack([linear.bias[...], norm.scale[...], norm.bias[...]], axis=1)
  return Joined(
      jnp.concatenate([linear.kernel[...].astype(linear.dtype) for linear in three], axis=2),
      bias.reshape(*bias.shape[:2], blocks.settings.heads, -1), end(blocks.attention_output, blocks.attention_norm),
      blocks.intermediate.bias[...].astype(blocks.intermediate.dtype), end(blocks.output, blocks.output_norm))


def bounds(settings, pair_ids):
  """What the attention kernels read of the pairs, for all layers."""
  width = settings.hidden_size // settings.heads
  return triton_attention.bounds(pair_ids, width, jnp.dtype(settings.computes_in).itemsize)


def apply(block, joined: Joined, x, pair_ids, bounds, token_numbers, seeds):
  """encoder.Block of `x`, which comes twice and goes twice: for the products, and for the residual.

  [N D] x 2, [B T], `bounds`, [B T], [3] or None -> [N D] x 2; `joined` is the layer's own part.
  """
  s, (B, T) = block.settings, pair_ids.shape
  attention_rate, rate, seeds = (0.0, 0.0, jnp.zeros((3,), jnp.uint32)) if seeds is None else (
      s.attention_dropout, s.hidden_dropout, seeds)
  x, residual = x

  fused = triton_activation.supported(B * T, s.hidden_size, s.intermediate_size)
  vectors = [joined.heads_bias, joined.after_attention, joined.after_all, *[joined.intermediate_bias] * fused]
  norms = (triton_norm.backward_programs(B * T),)
  counts = [triton_attention.backward_programs(B, T, joined.heads_bias.shape[-1], x.dtype.itemsize), norms, norms,
            *[(triton_activation.backward_programs(B * T),)] * fused]
  of_heads, of_attention, of_all, *of_intermediate = triton_sums.rows_of(tuple(vectors), tuple(counts))

  def end(h, residual, vectors, sums, which):
    numbers = token_numbers.reshape(-1)
    return triton_norm.add_norm(h, residual, vectors, sums, numbers, seeds, which, rate, s.layer_norm_epsilon)

  with jax.named_scope('attention'):
    qkv = checkpoint_name(x @ joined.heads, 'qkv').reshape(B, T, *joined.heads_bias.shape)
    h = triton_attention.attention(qkv, joined.heads_bias, of_heads, pair_ids, token_numbers, bounds, seeds, 0,
                                   attention_rate, s.direction)
    x, residual = end(block.attention_output.unbiased(h.reshape(B * T, -1)), residual, joined.after_attention,
                      of_attention, 1)
  with jax.named_scope('feed_forward'):
    if fused:
      first, second = (linear.kernel[...].astype(x.dtype) for linear in (block.intermediate, block.output))
      h = triton_activation.feed_forward(x, first, joined.intermediate_bias, *of_intermediate, second, s.activation)
    else:
      h = checkpoint_name(block.intermediate.unbiased(x), 'intermediate') + joined.intermediate_bias[None]
      h = block.output.unbiased(activate(s.activation, h))
    return end(h, residual, joined.after_all, of_all, 2)

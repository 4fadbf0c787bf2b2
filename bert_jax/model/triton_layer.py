"""A layer of the encoder on an NVIDIA GPU: its products by the compiler, and what stands between them by few kernels.

B rows, T tokens, N = B T tokens of all rows, D hidden, H heads, K head width.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from bert_jax.model import triton_attention, triton_norm
from bert_jax.model.layers import activate
from bert_jax.model.triton_activation import activated_product


def supported(settings, tokens: int) -> bool:
  """Whether rows of so many tokens can go through these kernels, of the model `settings`."""
  return (triton_attention.supported(tokens, settings.hidden_size // settings.heads)
          and settings.hidden_size <= triton_norm.WIDEST)


def vectors(blocks):  # -> [L 3 H K], [L 3 D] x 2
  """All layers' biases of queries, keys and values; and what each half ends with: a bias, and the scale and shift of
  LayerNorm. Together, since each that is taken from a stack by itself is a kernel by itself."""
  heads = jnp.stack([linear.bias[...] for linear in (blocks.query, blocks.key, blocks.value)], axis=1)
  end = lambda linear, norm: jnp.stack([linear.bias[...], norm.scale[...], norm.bias[...]], axis=1)
  return (heads.reshape(*heads.shape[:2], blocks.settings.heads, -1), end(blocks.attention_output, blocks.attention_norm),
          end(blocks.output, blocks.output_norm))


def apply(block, vectors, x, pair_ids, bounds, token_numbers, seeds):
  """encoder.Block of `x`, which comes twice and goes twice: for the products, and for the residual.

  a layer's `vectors`, [N D] x 2, [B T], `triton_attention.bounds`, [B T], [3] or None -> [N D] x 2
  """
  s, (B, T) = block.settings, pair_ids.shape
  attention_rate, rate, seeds = (0.0, 0.0, jnp.zeros((3,), jnp.uint32)) if seeds is None else (
      s.attention_dropout, s.hidden_dropout, seeds)
  x, residual = x

  bias, after_attention, after_all = vectors

  def end(h, residual, vectors, which):
    return triton_norm.add_norm(h, residual, vectors, token_numbers.reshape(-1), seeds, which, rate, s.layer_norm_epsilon)

  with jax.named_scope('attention'):
    three = block.query, block.key, block.value
    kernel = jnp.concatenate([linear.kernel[...].astype(linear.dtype) for linear in three], axis=1)  # [D 3D]
    qkv = checkpoint_name(x @ kernel, 'qkv').reshape(B, T, *bias.shape)
    h = triton_attention.attention(qkv, bias, pair_ids, token_numbers, bounds, seeds, 0, attention_rate, s.direction)
    x, residual = end(block.attention_output.unbiased(h.reshape(B * T, -1)), residual, after_attention, 1)
  with jax.named_scope('feed_forward'):
    h = checkpoint_name(block.intermediate.unbiased(x), 'intermediate')
    if h.dtype.itemsize == 2:
      h = activated_product(h, block.intermediate.bias[...], block.output.kernel[...].astype(h.dtype), s.activation)
    else:
      h = block.output.unbiased(activate(s.activation, block.intermediate.biased(h)))
    return end(h, residual, after_all, 2)

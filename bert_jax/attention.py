"""Self-attention inside each pair of a row: one signature, several implementations.

B rows, T tokens, H heads, K head width.
"""

import jax
import jax.numpy as jnp

from bert_jax.dropout import dropout


def wide(dtype):
  """What scores are in: float32, or float64 where a proof asks for it."""
  return jnp.promote_types(dtype, jnp.float32)


def attend_xla(q, k, v, pair_ids, rate, seed):
  """Attention in plain JAX; scores and softmax in float32. [B T H K] x 3, [B T] -> [B T H K]"""
  scores = jnp.einsum('BTHK,BSHK->BHTS', q, k, preferred_element_type=wide(q.dtype)) * q.shape[-1]**-0.5
  same = pair_ids[:, None, :, None] == pair_ids[:, None, None, :]  # [B 1 T S]
  weights = jax.nn.softmax(jnp.where(same, scores, -1e9), axis=-1).astype(q.dtype)
  return jnp.einsum('BHTS,BSHK->BTHK', dropout(weights, rate, seed), v)


IMPLEMENTATIONS = {'xla': attend_xla}


def attend(q: jax.Array, k: jax.Array, v: jax.Array, pair_ids: jax.Array, *, rate: float = 0.0, seed: jax.Array | None = None,
           implementation: str = 'xla') -> jax.Array:
  """softmax(q k' / sqrt K) v over the tokens that have the same pair id. [B T H K] x 3, [B T] -> [B T H K]

  Padding (pair id 0) attends to padding alone, so it has no influence on any token, nor they on it. Dropout of `rate` falls on
  the attention weights where `seed` is given (google-research/bert modeling.py attention_layer).
  """
  return IMPLEMENTATIONS[implementation](q, k, v, pair_ids, rate, seed)

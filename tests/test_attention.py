"""Attention: the reference written out, both sides seen, no sight across pairs or of padding, dropout on the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.attention import IMPLEMENTATIONS, attend
from bert_jax.dropout import keep_mask

B, T, H, K = 2, 12, 3, 4
PAIRS = np.array([[1] * 12, [1] * 5 + [2] * 4 + [0] * 3], np.int32)


@pytest.fixture(scope='module')
def qkv():
  return [jax.random.normal(key, (B, T, H, K)) for key in jax.random.split(jax.random.key(0), 3)]


def weights_of(q, k, pairs):  # -> [B H T T]
  """Softmax of scaled scores over the equal pair ids, in float64 and one token at a time."""
  q, k = np.asarray(q, np.float64), np.asarray(k, np.float64)
  weights = np.zeros((B, H, T, T))
  for b, h, t in np.ndindex(B, H, T):
    seen = np.flatnonzero(pairs[b] == pairs[b, t])
    scores = np.array([q[b, t, h] @ k[b, s, h] for s in seen]) / np.sqrt(K)
    weights[b, h, t, seen] = np.exp(scores) / np.exp(scores).sum()
  return weights


@pytest.mark.parametrize('implementation', list(IMPLEMENTATIONS))
def test_attention_is_the_formula(qkv, implementation):
  q, k, v = qkv
  got = attend(q, k, v, jnp.asarray(PAIRS), implementation=implementation)
  want = np.einsum('BHTS,BSHK->BTHK', weights_of(q, k, PAIRS), np.asarray(v, np.float64))
  np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize('implementation', list(IMPLEMENTATIONS))
def test_influence_is_of_the_own_pair_and_of_both_sides(qkv, implementation):
  q, k, v = qkv
  for t in range(T):
    pull = jax.grad(lambda k, v, t=t: attend(q, k, v, jnp.asarray(PAIRS), implementation=implementation)[1, t].sum(), (0, 1))
    influence = [np.abs(g[1]).sum((1, 2)) > 0 for g in pull(k, v)]
    for seen in influence:
      np.testing.assert_array_equal(seen, PAIRS[1] == PAIRS[1, t])


def test_dropout_falls_on_the_weights(qkv):
  q, k, v = qkv
  seed = jnp.uint32(7)
  got = attend(q, k, v, jnp.asarray(PAIRS), rate=.25, seed=seed)
  kept = np.asarray(keep_mask((B, H, T, T), .25, seed))
  want = np.einsum('BHTS,BSHK->BTHK', weights_of(q, k, PAIRS) * kept / .75, np.asarray(v, np.float64))
  np.testing.assert_allclose(got, want, atol=2e-6)
  np.testing.assert_array_equal(attend(q, k, v, jnp.asarray(PAIRS), rate=.25), attend(q, k, v, jnp.asarray(PAIRS)))


def test_softmax_of_bfloat16_is_in_float32(qkv):
  """Scores whose difference bfloat16 cannot hold at their size still weigh differently."""
  one = jnp.ones((1, 2, 1, 256), jnp.bfloat16)
  k = one.at[0, 1, 0, 0].set(2.)  # scores 16 and 16.0625
  v = jnp.stack([jnp.zeros(256), jnp.ones(256)])[None, :, None].astype(jnp.bfloat16)
  got = float(attend(one, k, v, jnp.ones((1, 2), jnp.int32))[0, 0, 0, 0])
  assert got == pytest.approx(1 / (1 + np.exp(-1 / 16)), abs=.004) and got > .51

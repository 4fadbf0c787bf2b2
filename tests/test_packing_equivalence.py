"""Several pairs in one row are, in values and gradients, the same pairs in rows of their own; in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bert_jax import objectives
from bert_jax.model import build

LENGTHS = ((6, 7, 3), (5, 11))  # of the pairs of two rows of 16
T, P, S = 16, 6, 3


def pair(rng, length):
  """One pair as columns: ids, types, positions, and two predictions as (position, id)."""
  return dict(input_ids=rng.integers(5, 64, length), token_type_ids=np.arange(length) >= length // 2,
              position_ids=np.arange(length), places=rng.choice(np.arange(1, length), 2, replace=False),
              answers=rng.integers(5, 64, 2), label=rng.integers(2))


def rows_of(groups):
  """The batch that holds each group of pairs in one row."""
  B = len(groups)
  batch = {name: np.zeros((B, T), np.int32) for name in ('input_ids', 'token_type_ids', 'position_ids', 'pair_ids')}
  batch |= {name: np.zeros((B, P), np.int32) for name in ('masked_lm_positions', 'masked_lm_ids')}
  batch |= {name: np.zeros((B, S), np.int32) for name in ('cls_positions', 'next_sentence_labels')}
  batch |= {'masked_lm_weights': np.zeros((B, P), np.float32), 'next_sentence_weights': np.zeros((B, S), np.float32)}
  for b, group in enumerate(groups):
    start = 0
    for s, one in enumerate(group):
      end = start + len(one['input_ids'])
      for name in ('input_ids', 'token_type_ids', 'position_ids'):
        batch[name][b, start:end] = one[name]
      batch['pair_ids'][b, start:end] = s + 1
      slots = slice(2 * s, 2 * s + 2)
      batch['masked_lm_positions'][b, slots], batch['masked_lm_ids'][b, slots] = one['places'] + start, one['answers']
      batch['masked_lm_weights'][b, slots] = batch['next_sentence_weights'][b, s] = 1
      batch['cls_positions'][b, s], batch['next_sentence_labels'][b, s] = start, one['label']
      start = end
  return batch


@pytest.mark.parametrize('objective', ['mlm_nsp', 'left_to_right', 'right_to_left'])
def test_packed_pairs_are_the_unpacked_pairs(still, objective):
  objective = objectives.OBJECTIVES[objective]
  rng = np.random.default_rng(0)
  groups = [[pair(rng, length) for length in row] for row in LENGTHS]
  packed, single = rows_of(groups), rows_of([[one] for group in groups for one in group])
  config = still.model
  with jax.enable_x64(True):
    wide = dataclasses.replace(config, causal=objective.causal, right_to_left=objective.right_to_left)
    object.__setattr__(wide, 'dtype', 'float64')  # not among the choices: only proofs want it
    graphdef, shapes, _ = build.describe(wide, objective.heads)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) / 4), shapes)

    @jax.jit
    def grad(params, batch):
      def loss(params):
        model = nnx.merge(graphdef, params)
        sums, _ = objectives.term_sums(objective, model, batch)
        return objectives.loss_of(sums, objectives.totals(objective, batch)), (model.encoder(batch), sums)
      return jax.grad(loss, has_aux=True)(params)

    (grads, (hidden, sums)), (other_grads, (other_hidden, other_sums)) = grad(params, packed), grad(params, single)
  assert hidden.dtype == np.float64 and {term['loss'].dtype for term in sums.values()} == {np.dtype(np.float64)}
  np.testing.assert_allclose(hidden[packed['pair_ids'] > 0], other_hidden[single['pair_ids'] > 0], atol=1e-10)
  np.testing.assert_allclose(jax.tree.leaves(sums), jax.tree.leaves(other_sums), rtol=1e-10)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), grads, other_grads)
  merged = packed | {'pair_ids': np.minimum(packed['pair_ids'], 1)}
  with jax.enable_x64(True):
    assert np.abs(grad(params, merged)[1][0] - hidden).max() > 1e-3  # the pair ids are what keeps them apart

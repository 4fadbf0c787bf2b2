"""Batches of random tokens in the loader's layout, for benchmarks, plans and tests: no data, no vocabulary.

B rows, T tokens, P masked positions of a row, S pairs of a row.
"""

import jax
import numpy as np

from bert_jax import config as cfg
from bert_jax.parallel import mesh as mesh_lib

FIRST_TOKEN = 5  # below: special tokens


def batch(vocab_size: int, rows: int, length: int, predictions: int, pairs: int = 1, seed: int = 0,
          shortest: float = 1.0) -> dict[str, np.ndarray]:
  """Rows full of pairs of equal share; `shortest` < 1 ends each row with padding, from a random share of it on."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(FIRST_TOKEN, vocab_size, (rows, length), dtype=np.int32)
  ends = rng.integers(max(int(length * shortest), 4 * pairs), length + 1, rows)
  place = np.broadcast_to(np.arange(length), (rows, length))
  pair = np.minimum(place * pairs // length, pairs - 1)
  first = -(-pair * length // pairs)  # the [CLS] of each token's pair
  real = place < ends[:, None]
  within = place - first
  cls_positions = np.broadcast_to(-(-np.arange(pairs) * length // pairs), (rows, pairs)).astype(np.int32)
  random_order = np.where(real & (within > 0), rng.random((rows, length)), 2.0)
  order = np.argsort(random_order, axis=1, kind='stable')[:, :predictions]
  positions = np.sort(order, axis=1).astype(np.int32)
  weights = np.take_along_axis(real & (within > 0), positions, axis=1).astype(np.float32)
  integer = lambda x: np.where(real, x, 0).astype(np.int32)
  return dict(
      input_ids=integer(ids), token_type_ids=integer(within > length // pairs // 2), position_ids=integer(within),
      pair_ids=integer(pair + 1),
      masked_lm_positions=positions, masked_lm_weights=weights,
      masked_lm_ids=rng.integers(FIRST_TOKEN, vocab_size, (rows, predictions), dtype=np.int32),
      cls_positions=cls_positions, next_sentence_labels=rng.integers(0, 2, (rows, pairs), dtype=np.int32),
      next_sentence_weights=(cls_positions < ends[:, None]).astype(np.float32))


def abstract(config: cfg.Config, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes and the layout of a global batch of a run."""
  of, sharding = config.batch, mesh_lib.batch_sharding(mesh)
  rows = batch(config.model.vocab_size, 1, of.sequence_length, of.predictions, of.pairs_per_row)
  shape = lambda x: jax.ShapeDtypeStruct((of.size, *x.shape[1:]), x.dtype, sharding=sharding)
  return {name: shape(x) for name, x in rows.items()}

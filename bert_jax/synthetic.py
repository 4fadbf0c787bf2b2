"""Batches of random tokens in the loader's layout, for benchmarks, plans and tests: no data, no vocabulary.

B rows, T tokens, P masked positions of a row, S pairs of a row.
"""

import jax
import numpy as np

from bert_jax import config as cfg
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline.batches import packing

FIRST_TOKEN = 5  # below: special tokens
SHORTEST_PAIR = 5  # [CLS], two [SEP]s, a token of each segment
# How long English Wikipedia's pairs for rows of 512 are: (share of pairs, share of the row that these have at most),
# straight lines between, and the rest as long as the row. By the histogram of 16,279,552 pairs of arXiv:2107.02027
# (mean 255.83, median 204, 36.9 % up to 128, 23.4 % of 512); the mean of these lines is 260.
WIKIPEDIA = (0.0, 0.0), (0.369, 128 / 512), (0.5, 204 / 512), (0.766, 1.0)


def batch(vocab_size: int, rows: int, length: int, predictions: int, pairs: int = 1, seed: int = 0,
          shortest: float = 1.0) -> dict[str, np.ndarray]:
  """Rows full of pairs of equal share; `shortest` < 1 ends each row with padding, from a random share of it on."""
  rng = np.random.default_rng(seed)
  ids = rng.integers(FIRST_TOKEN, vocab_size, (rows, length), dtype=np.int32)
  ends = rng.integers(max(int(length * shortest), 4 * pairs), length + 1, rows)
  starts = np.broadcast_to(-(-np.arange(pairs) * length // pairs), (rows, pairs))
  return filled(rng, vocab_size, ids, starts, np.full((rows, pairs), length // pairs), ends, predictions)


def packed(vocab_size: int, rows: int, length: int, predictions: int, pairs: int, seed: int = 0
           ) -> dict[str, np.ndarray]:
  """Rows with up to `pairs` pairs as long as Wikipedia's (WIKIPEDIA, as shares of `length`), packed as the loader does.
  """
  rng = np.random.default_rng(seed)
  count, opened = 4 * rows, 0  # more rows than are asked for: the last ones that are opened stay half empty
  while opened < rows:
    count *= 2
    lengths = wikipedia_lengths(rng, count, length)
    row_of = packing.pack(lengths, length, pairs, None, seed)
    opened = row_of.max() + 1
  chosen = rng.permutation(opened)[:rows]
  sizes = np.zeros((rows, pairs), int)
  for place, row in enumerate(chosen):
    of = rng.permutation(lengths[row_of == row])
    sizes[place, :len(of)] = of
  ends = sizes.sum(1)
  starts = np.where(sizes > 0, np.cumsum(sizes, 1) - sizes, length)
  ids = rng.integers(FIRST_TOKEN, vocab_size, (rows, length), dtype=np.int32)
  return filled(rng, vocab_size, ids, starts, sizes, ends, predictions)


def wikipedia_lengths(rng: np.random.Generator, count: int, length: int) -> np.ndarray:  # -> [M]
  """Tokens of `count` pairs for rows of `length`, in random order: an even grid of the mix, so no draw is lucky."""
  shares = rng.permutation((np.arange(count) + rng.random(count)) / count)
  of_row = np.interp(shares, [share for share, _ in WIKIPEDIA], [most for _, most in WIKIPEDIA])
  return np.maximum(np.rint(of_row * length), SHORTEST_PAIR).astype(int)


def filled(rng: np.random.Generator, vocab_size: int, ids: np.ndarray, starts: np.ndarray, sizes: np.ndarray,
           ends: np.ndarray, predictions: int) -> dict[str, np.ndarray]:  # [B T], [B S], [B S], [B]
  """A batch of `ids` with pairs from `starts` on, to `ends`: the rest is padding. A pair that is not there starts at T.

  The second segment of a pair begins in the middle of its `sizes`.
  """
  rows, length = ids.shape
  place = np.broadcast_to(np.arange(length), ids.shape)
  pair = (place[:, :, None] >= starts[:, None, :]).sum(2) - 1
  real = place < ends[:, None]
  within = place - np.take_along_axis(starts, pair, axis=1)
  random_order = np.where(real & (within > 0), rng.random(ids.shape), 2.0)
  order = np.argsort(random_order, axis=1, kind='stable')[:, :predictions]
  positions = np.sort(order, axis=1).astype(np.int32)
  weights = np.take_along_axis(real & (within > 0), positions, axis=1).astype(np.float32)
  integer = lambda x: np.where(real, x, 0).astype(np.int32)
  return dict(
      input_ids=integer(ids), token_type_ids=integer(within > np.take_along_axis(sizes, pair, axis=1) // 2),
      position_ids=integer(within), pair_ids=integer(pair + 1),
      masked_lm_positions=positions, masked_lm_weights=weights,
      masked_lm_ids=rng.integers(FIRST_TOKEN, vocab_size, (rows, predictions), dtype=np.int32),
      cls_positions=np.where(starts < length, starts, 0).astype(np.int32),
      next_sentence_labels=rng.integers(0, 2, starts.shape, dtype=np.int32),
      next_sentence_weights=(starts < ends[:, None]).astype(np.float32))


def abstract(config: cfg.Config, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes and the layout of a global batch of a run, as mesh.put_batch makes it."""
  of, sharding = config.batch, mesh_lib.batch_sharding(mesh)
  size = mesh_lib.rows_of_device(of.size, mesh, config.run.parts) * mesh_lib.row_shards(mesh)
  rows = batch(config.model.vocab_size, 1, of.sequence_length, of.predictions, of.pairs_per_row)
  shape = lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=sharding)
  return {name: shape(x) for name, x in rows.items()}

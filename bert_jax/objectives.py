"""What is learnt: (model, batch, seed) -> sums of loss, weight and hits for each term; the loss is the sum of the terms' means.

B rows, P masked positions of a row, M = B P, S pairs of a row, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bert_jax.lookup import one_of_each
from bert_jax.model import Bert


class Sums(NamedTuple):
  """Sums over a batch: they add over microbatches, devices and steps, and means are taken last."""
  loss: jax.Array  # nats
  weight: jax.Array  # predictions that count
  hits: jax.Array


def cross_entropy(logits, labels, weights) -> Sums:  # [M V], [M], [M]
  """Weighted sums of -log softmax(logits)[label], and of labels that have the top score."""
  top = logits.max(axis=-1)
  of_label = one_of_each(logits, jnp.asarray(labels))
  loss = jax.nn.logsumexp(logits, axis=-1) - of_label
  return Sums((loss * weights).sum(), weights.sum(), ((of_label >= top) * weights).sum())


def masked_lm(model: Bert, hidden, batch) -> Sums:
  """arXiv:1810.04805 section 3.1, task 1; run_pretraining.py get_masked_lm_output."""
  logits = model.mlm_logits(hidden, batch['masked_lm_positions'])
  return cross_entropy(logits, batch['masked_lm_ids'].reshape(-1), batch['masked_lm_weights'].reshape(-1))


def next_sentence(model: Bert, hidden, batch) -> Sums:
  """Section 3.1, task 2; run_pretraining.py get_next_sentence_output: label 0 is next, 1 is random."""
  logits = model.nsp_logits(model.pool(hidden, batch['cls_positions']))
  return cross_entropy(logits.reshape(-1, 2), batch['next_sentence_labels'].reshape(-1), batch['next_sentence_weights'].reshape(-1))


TERMS = {'mlm': masked_lm, 'nsp': next_sentence}
WEIGHTS = {'mlm': 'masked_lm_weights', 'nsp': 'next_sentence_weights'}

# An objective is the terms that it adds up.
OBJECTIVES = {'mlm_nsp': ('mlm', 'nsp'), 'mlm': ('mlm',)}


def totals(objective: str, batch, axes: tuple[str, ...] = ()) -> dict[str, jax.Array]:
  """How many predictions each term has in the whole batch: what its mean divides by, known before the model runs.

  `axes`: mesh axes over which the batch's rows are shared out, where this runs on each device's own.
  """
  counts = {term: batch[WEIGHTS[term]].sum() for term in OBJECTIVES[objective]}
  return {term: jnp.maximum(count, 1) for term, count in (jax.lax.psum(counts, axes) if axes else counts).items()}


def evaluate(objective: str, model: Bert, batch, seed=None) -> dict[str, Sums]:
  """The sums of every term of `objective`. `seed` (a typed PRNG key) turns dropout on."""
  hidden = model.encode(batch, seed)
  return {term: TERMS[term](model, hidden, batch) for term in OBJECTIVES[objective]}


def loss_of(sums: dict[str, Sums], weights: dict[str, jax.Array]) -> jax.Array:
  """Sum of the terms' means; `weights` are the totals of the batch that `sums` may be only a part of."""
  return sum(sums[term].loss / weights[term] for term in sums)

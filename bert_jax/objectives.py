"""What is learnt: (model, batch, seed) -> sums of loss, weight and hits for each term; the loss is the sum of the terms' means.

B rows, T tokens, P masked positions of a row, M predictions of all rows, S pairs of a row, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bert_jax.model.bert import Bert
from bert_jax.model.lookup import one_of_each


class Sums(NamedTuple):
  """Sums over a batch: they add over microbatches, devices and steps, and means are taken last."""
  loss: jax.Array  # nats
  weight: jax.Array  # predictions that count
  hits: jax.Array


class Term(NamedTuple):
  """One kind of prediction."""
  logits: Callable  # (model, hidden [B T D], batch) -> [M classes]
  targets: Callable  # batch, of NumPy or JAX -> (labels [B ...], weights [B ...]), M each


def cross_entropy(logits, labels, weights) -> Sums:  # [M V], [M], [M]
  """Weighted sums of -log softmax(logits)[label], and of labels that have the top score."""
  top = logits.max(axis=-1)
  of_label = one_of_each(logits, jnp.asarray(labels))
  loss = jax.nn.logsumexp(logits, axis=-1) - of_label
  return Sums((loss * weights).sum(), weights.sum(), ((of_label >= top) * weights).sum())


def masked_logits(model: Bert, hidden, batch):
  """arXiv:1810.04805 section 3.1, task 1; run_pretraining.py get_masked_lm_output."""
  return model.mlm_logits(hidden, batch['masked_lm_positions'])


def masked_targets(batch):  # -> [B P], [B P]
  return batch['masked_lm_ids'], batch['masked_lm_weights']


def pair_logits(model: Bert, hidden, batch):
  """Section 3.1, task 2; run_pretraining.py get_next_sentence_output."""
  return model.nsp_logits(model.pool(hidden, batch['cls_positions'])).reshape(-1, 2)


def pair_targets(batch):  # -> [B S], [B S]
  """Next sentence: 0 is next, 1 is random. Sentence order (arXiv:1909.11942 section 3.1): 0 in order, 1 swapped."""
  return batch['next_sentence_labels'], batch['next_sentence_weights']


def following_logits(model: Bert, hidden, batch):
  """Section 5.1, LTR: at every token but a row's last."""
  B, T = batch['input_ids'].shape
  return model.mlm_logits(hidden, jnp.broadcast_to(jnp.arange(T - 1), (B, T - 1)))


def following_targets(batch):  # -> [B T-1], [B T-1]
  """The next token, from [CLS] to the last [SEP]; nothing where the next one is padding or of another pair."""
  pair, following = batch['pair_ids'][:, :-1], batch['pair_ids'][:, 1:]
  return batch['input_ids'][:, 1:], ((following == pair) & (following > 0)).astype('float32')


TERMS = {'mlm': Term(masked_logits, masked_targets), 'lm': Term(following_logits, following_targets),
         'nsp': Term(pair_logits, pair_targets), 'sop': Term(pair_logits, pair_targets)}

# An objective is the terms that it adds up; the one that predicts tokens comes first.
OBJECTIVES = {'mlm_nsp': ('mlm', 'nsp'), 'mlm_sop': ('mlm', 'sop'), 'mlm': ('mlm',), 'left_to_right': ('lm',)}


def totals(objective: str, batch, axes: tuple[str, ...] = ()) -> dict[str, jax.Array]:
  """How many predictions each term has in the whole batch: what its mean divides by, known before the model runs.

  `axes`: mesh axes over which the batch's rows are shared out, where this runs on each device's own.
  """
  counts = {term: TERMS[term].targets(batch)[1].sum() for term in OBJECTIVES[objective]}
  return {term: jnp.maximum(count, 1) for term, count in (jax.lax.psum(counts, axes) if axes else counts).items()}


def token_targets(objective: str, batch):  # -> [B ...], [B ...]
  """The tokens to predict, and their weights."""
  return TERMS[OBJECTIVES[objective][0]].targets(batch)


def sums_of(term: str, model: Bert, hidden, batch) -> Sums:
  labels, weights = TERMS[term].targets(batch)
  return cross_entropy(TERMS[term].logits(model, hidden, batch), labels.reshape(-1), weights.reshape(-1))


def evaluate(objective: str, model: Bert, batch, seed=None) -> dict[str, Sums]:
  """The sums of every term of `objective`. `seed` (a typed PRNG key) turns dropout on."""
  hidden = model.encode(batch, seed)
  return {term: sums_of(term, model, hidden, batch) for term in OBJECTIVES[objective]}


def loss_of(sums: dict[str, Sums], weights: dict[str, jax.Array]) -> jax.Array:
  """Sum of the terms' means; `weights` are the totals of the batch that `sums` may be only a part of."""
  return sum(sums[term].loss / weights[term] for term in sums)

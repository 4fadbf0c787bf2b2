"""What is learnt. An objective is a value: terms (logits, targets, a loss, figures), and the heads that they read.

B rows, T tokens, P masked positions of a row, M predictions of all rows, S pairs of a row, V vocabulary.

Sums travel and means are taken last: the sums of a term add up over microbatches, devices and steps.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp

from bert_jax.model.build import EncoderWithHeads, Heads, encoder_class
from bert_jax.model.heads import MaskedTokens, PairClasses, Pooler
from bert_jax.model.lookup import by_platform, one_of_each
from bert_jax.model.settings import Model
from input_pipeline.batches.config import BatchConfig

Sums = dict[str, jax.Array]  # 'loss' (nats, or another unit) and 'weight' (of predictions) always; others by name


def log_sum_and_top(logits):  # [M V] -> [M] x 2
  """(the logarithm of the sum of exponentials, the greatest) of each row.

  A GPU reads the logits once for both, where XLA (jax 0.10.2) makes two passes.
  """
  plainly = lambda logits: (jax.nn.logsumexp(logits, axis=-1), logits.max(axis=-1))
  return by_platform(plainly, plainly, logits, gpu=in_one_pass)


@jax.custom_vjp
def in_one_pass(logits):  # [M V] -> [M] x 2
  """`log_sum_and_top`, of which nothing has a gradient to the greatest."""
  def join(one, other):  # (the greatest, the sum of exponentials over that of the greatest) of parts of a row
    top = jnp.maximum(one[0], other[0])
    return top, one[1] * jnp.exp(one[0] - top) + other[1] * jnp.exp(other[0] - top)

  nothing = jnp.asarray(jnp.finfo(logits.dtype).min), jnp.zeros((), logits.dtype)
  top, total = jax.lax.reduce((logits, jnp.ones_like(logits)), nothing, join, (1,))
  return jnp.log(total) + top, top


def _in_one_pass_forward(logits):
  log_sum, top = in_one_pass(logits)
  return (log_sum, top), (logits, log_sum)


in_one_pass.defvjp(_in_one_pass_forward, lambda kept, g: (jnp.exp(kept[0] - kept[1][:, None]) * g[0][:, None],))


def cross_entropy(logits, labels, weights, plain: bool = False) -> Sums:  # [M V], [M], [M]
  """Weighted sums of -log softmax(logits)[label], and of labels that have the top score (hits)."""
  labels = jnp.asarray(labels)
  log_sum, top = log_sum_and_top(logits)
  of_label = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0] if plain else one_of_each(logits, labels)
  loss = log_sum - of_label
  return {'loss': (loss * weights).sum(), 'weight': weights.sum(), 'hits': ((of_label >= top) * weights).sum()}


def squared_error(predictions, labels, weights) -> Sums:  # [M], [M] float32, [M]
  """Weighted sum of (prediction - label)^2 (run_classifier.py of later GLUE code: regression of STS-B)."""
  return {'loss': (jnp.square(predictions - labels) * weights).sum(), 'weight': weights.sum()}


def mean_figures(sums: Mapping[str, float]) -> dict[str, float]:
  """Each sum over the weight: {'loss', and 'accuracy' of hits, …}."""
  names = {'hits': 'accuracy'}
  return {names.get(name, name): value / sums['weight'] for name, value in sums.items() if name != 'weight'}


@dataclasses.dataclass(frozen=True)
class Term:
  """One kind of prediction, the mean of whose loss is added to the objective's."""
  logits: Callable[[EncoderWithHeads, jax.Array, Mapping, jax.Array | None], jax.Array]
  """(model, hidden [B T D], batch, dropout's seed or None) -> [M ...]"""
  targets: Callable[[Mapping], tuple]
  """Batch, of NumPy or JAX arrays -> (labels [B ...], weights [B ...]), M each; of a row without a token (pair_ids 0
  throughout) the weight must be 0: an evaluation fills up its last batch with such rows."""
  flops: Callable[[Model, BatchConfig], float]
  """FLOP of the heads' forward pass for one row."""
  loss: Callable[..., Sums] = cross_entropy
  """(logits [M ...], labels [M ...], weights [M]) -> sums"""
  figures: Callable[[Mapping[str, float]], dict[str, float]] = mean_figures
  """Sums -> what the log and an evaluation say, each under the term's name: mlm_loss, mlm_accuracy."""
  keep: Callable[[jax.Array], Any] | None = None
  """Logits [M ...] -> a tree of arrays [M ...] that an evaluation keeps, for answers and figures that no sum gives."""
  predicts_tokens: bool = False
  """Whether labels are of the vocabulary, so that its unigram frequencies are a baseline."""
  ends: Literal['sep', 'cls'] | None = None
  """Which special token is among them."""

  heads: tuple[str, ...] | None = None
  """The heads that it reads, and so trains; None: all of the objective's."""
  classes: tuple[str, ...] = ()
  """What the scores of a term of few classes stand for, in words, for a model card."""


@dataclasses.dataclass(frozen=True)
class Objective:
  """Terms, the heads that they read, and what batches and model they want."""
  terms: Mapping[str, Term]
  heads: Heads
  pairs: tuple[str, ...] | None = None
  """The values of batch.pairs that it is about; None: any."""
  causal: bool = False
  """Whether each token may see only those before it."""
  right_to_left: bool = False
  """Of a causal one: only those after it."""
  masked: bool = True
  """Whether the batch has masks to predict."""
  frozen: tuple[str, ...] = ()
  """'encoder', or heads, whose parameters stay as they are; terms must take no gradient through a frozen encoder."""
  huggingface: str = ''
  """The class of transformers that computes the same loss, for comparisons; '': none."""

  def figures(self, sums: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """{'loss': sum of the terms' means, 'mlm_loss', 'mlm_accuracy' …}; a term without a prediction has none."""
    told = {name: term.figures(sums[name]) for name, term in self.terms.items() if sums[name]['weight']}
    loss = sum(sums[name]['loss'] / sums[name]['weight'] for name in told)
    figures = {f'{name}_{figure}': value for name, of_term in told.items() for figure, value in of_term.items()}
    return {'loss': loss} | figures

  def flops_per_row(self, settings: Model, batch: BatchConfig) -> float:
    """FLOP of one row's forward and backward pass without recomputation: backward costs twice the forward."""
    heads = sum(term.flops(settings, batch) for term in self.terms.values())
    encoder = encoder_class(settings).flops(settings, batch.sequence_length)
    return 3.0 * heads + (1.0 if 'encoder' in self.frozen else 3.0) * encoder

  def untrained(self) -> tuple[str, ...]:
    """The heads that no term reads: they keep the values that they began with."""
    read = {head for term in self.terms.values() for head in (self.heads if term.heads is None else term.heads)}
    return tuple(head for head in self.heads if head not in read)

  def token_term(self) -> Term | None:
    """The term that predicts tokens, if there is one."""
    return next((term for term in self.terms.values() if term.predicts_tokens), None)

# ---------------------------------------------------------------- the terms of pretraining


def masked_logits(model: EncoderWithHeads, hidden, batch, seed=None):
  """arXiv:1810.04805 section 3.1, task 1; run_pretraining.py get_masked_lm_output."""
  return model.masked_tokens(hidden, batch['masked_lm_positions'], model.encoder.word_embeddings)


def masked_targets(batch):  # -> [B P], [B P]
  return batch['masked_lm_ids'], batch['masked_lm_weights']


def pair_logits(model: EncoderWithHeads, hidden, batch, seed=None):
  """Section 3.1, task 2; run_pretraining.py get_next_sentence_output."""
  return model.pair_classes(model.pooler(hidden, batch['cls_positions'])).reshape(-1, 2)


def pair_targets(batch):  # -> [B S], [B S]
  """Next sentence: 0 is next, 1 is random. Sentence order (arXiv:1909.11942 section 3.1): 0 in order, 1 swapped."""
  return batch['next_sentence_labels'], batch['next_sentence_weights']


def pair_flops(settings: Model, batch: BatchConfig) -> float:
  return Pooler.flops(settings, batch.pairs_per_row) + PairClasses.flops(settings, batch.pairs_per_row)


def following_logits(model: EncoderWithHeads, hidden, batch, seed=None, first: int = 0):
  """Section 5.1, LTR: at every token but a row's last; from `first` 1 on, but its first."""
  B, T = batch['input_ids'].shape
  positions = jnp.broadcast_to(jnp.arange(first, first + T - 1)[None], (B, T - 1))
  return model.masked_tokens(hidden, positions, model.encoder.word_embeddings)


def following_targets(batch):  # -> [B T-1], [B T-1]
  """The next token, from [CLS] to the last [SEP]; nothing where the next one is padding or of another pair."""
  return batch['input_ids'][:, 1:], neighbours(batch)


def preceding_targets(batch):  # -> [B T-1], [B T-1]
  """The mirror image: the token before, from the last [SEP] to [CLS]."""
  return batch['input_ids'][:, :-1], neighbours(batch)


def neighbours(batch):  # -> [B T-1]
  """1 where a token and the next one are of one pair."""
  pair, following = batch['pair_ids'][:, :-1], batch['pair_ids'][:, 1:]
  return ((following == pair) & (following > 0)).astype('float32')


MLM = Term(masked_logits, masked_targets, lambda m, batch: MaskedTokens.flops(m, batch.predictions),
           predicts_tokens=True, heads=('masked_tokens',))
LM = Term(following_logits, following_targets, lambda m, batch: MaskedTokens.flops(m, batch.sequence_length - 1),
          predicts_tokens=True, ends='sep', heads=('masked_tokens',))
LM_BACKWARD = dataclasses.replace(LM, logits=functools.partial(following_logits, first=1), targets=preceding_targets,
                                  ends='cls')
NEXT = Term(pair_logits, pair_targets, pair_flops, heads=('pooler', 'pair_classes'), classes=('is next', 'is random'))
ORDER = dataclasses.replace(NEXT, classes=('in order', 'swapped'))

# Every objective makes all heads of pretraining, so that each export has the layout of BertForPreTraining; a head whose
# term is not among the objective's keeps its initial values.
PRETRAINING_HEADS: Heads = {'pooler': Pooler, 'masked_tokens': MaskedTokens, 'pair_classes': PairClasses}

# mlm: masked tokens; nsp: is the second segment the next; sop: are the two in order; lm: each token from those before,
# or from those after.
OBJECTIVES: dict[str, Objective] = {
    'mlm_nsp': Objective({'mlm': MLM, 'nsp': NEXT}, PRETRAINING_HEADS, pairs=('nsp', 'google'),
                         huggingface='BertForPreTraining'),
    'mlm_sop': Objective({'mlm': MLM, 'sop': ORDER}, PRETRAINING_HEADS, pairs=('sop',)),
    'mlm': Objective({'mlm': MLM}, PRETRAINING_HEADS),
    'left_to_right': Objective({'lm': LM}, PRETRAINING_HEADS, causal=True, masked=False),
    'right_to_left': Objective({'lm': LM_BACKWARD}, PRETRAINING_HEADS, causal=True, right_to_left=True, masked=False),
}

# ---------------------------------------------------------------- on a batch


def weight_sums(objective: Objective, batch) -> dict[str, jax.Array]:
  """How many predictions each term has in a batch, known before the model runs."""
  return {name: jnp.asarray(term.targets(batch)[1]).sum() for name, term in objective.terms.items()}


def totals(objective: Objective, batch) -> dict[str, jax.Array]:
  """What the mean of each term divides by: its predictions in the whole batch, 1 at least."""
  return {name: jnp.maximum(count, 1) for name, count in weight_sums(objective, batch).items()}


def term_sums(objective: Objective, model: EncoderWithHeads, batch, seed=None, kept: bool = False):
  """{term: sums}, and {term: tree of [B ...]} of what the terms keep: M/B predictions of each row.

  The second is empty unless `kept`. `seed` (a typed PRNG key) turns dropout on.
  """
  hidden = model.encoder(batch, seed)
  sums, kept_by_term = {}, {}
  for name, term in objective.terms.items():
    labels, weights = (jnp.asarray(x) for x in term.targets(batch))
    labels, weights = labels.reshape(-1, *labels.shape[weights.ndim:]), weights.reshape(-1)
    logits = term.logits(model, hidden, batch, seed)
    extra = {'plain': True} if term.loss is cross_entropy and 'one_of_each' in model.settings.plain else {}
    with jax.named_scope(f'{name}_loss'):
      sums[name] = term.loss(logits, labels, weights, **extra)
    if kept and term.keep:
      of_row = lambda x: x if len(x) == len(hidden) else x.reshape(len(hidden), -1, *x.shape[1:])
      kept_by_term[name] = jax.tree.map(of_row, term.keep(logits))
  return sums, kept_by_term


def loss_of(sums: Mapping[str, Sums], weights: Mapping[str, jax.Array]) -> jax.Array:
  """Sum of the terms' means; `weights` are the totals of the batch that `sums` may be only a part of."""
  return cast(jax.Array, sum(sums[term]['loss'] / weights[term] for term in sums))

"""What stands on the encoder: the pooler, and the heads of pretraining and of tasks.

B rows, T tokens, P positions of a row, M = B P of all rows, S pairs of a row (1 where rows are not packed), D hidden,
V vocabulary, C classes.

A head says beside its layers what its forward pass costs (`flops`), its names in other formats (`NAMES`), and what it
gives where each row is one text or pair (`outputs`), by the names of transformers' outputs.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.model.dropout import dropout
from bert_jax.model.layers import (
    Embedding,
    LayerMaker,
    activate,
    add_bias,
    add_bias_plainly,
    at_positions,
    parameter,
    sum_rows,
    wide,
)
from bert_jax.model.lookup import by_platform
from bert_jax.model.settings import Model

ALIGNED = 64  # columns: 128 bytes of 16-bit numbers


class Pooler(nnx.Module):
  """tanh of a dense layer on each pair's [CLS] (modeling.py BertModel)."""
  NAMES: ClassVar[Mapping[str, Mapping[str, str]]] = {'huggingface': {'dense': 'bert.pooler.dense'}}

  def __init__(self, settings: Model, rngs: nnx.Rngs):
    self.settings = settings
    self.dense = LayerMaker(settings, rngs).linear(settings.hidden_size, settings.hidden_size, ('embed', None))

  @staticmethod
  def flops(settings: Model, pairs: int) -> float:
    """FLOP of the forward pass at `pairs` [CLS] of a row."""
    return 2.0 * pairs * settings.hidden_size**2

  def __call__(self, hidden, cls_positions):  # [B T D], [B S] -> [B S D]
    with jax.named_scope('pooler'):
      return jnp.tanh(self.dense(at_positions(hidden, cls_positions, self.settings.plain)))

  def of_rows(self, hidden):  # [B T D] -> [B D]
    return self(hidden[:, :1], jnp.zeros((hidden.shape[0], 1), jnp.int32))[:, 0]

  def outputs(self, model, hidden):  # [B T D] -> {[B D]}
    return {'pooler_output': self.of_rows(hidden)}


def plain_scores(x, table, bias):  # [M D], [V D], [V] -> [M V]
  scores = jax.lax.dot_general(x, table, (((1,), (1,)), ((), ())), preferred_element_type=wide(x.dtype))
  return add_bias(scores, bias)


def aligned(array, axis: int = 0):  # [… V …] -> [… W …], W a multiple of ALIGNED
  more = -array.shape[axis] % ALIGNED
  return jnp.pad(array, [(0, more if at == axis else 0) for at in range(array.ndim)])


@jax.custom_vjp
def vocabulary_scores(x: jax.Array, table: jax.Array, bias: jax.Array) -> jax.Array:
  """x table' + bias. [M D], [V D], [V] -> [M V], in float32 or wider

  A GPU is slow at products where V is odd, as 30,522 is to its tensor cores, and where one side is in float32 and the
  other in 16 bits, as the gradient and the table are. So there the table gets rows of zeros, and the gradient is
  rounded to the type of x. Before, these products took 0.77 ms of base's step of 64 x 128 on an H200 (jax 0.11.2), at
  the chip's peak 0.18.
  """
  wider = lambda x, table, bias: plain_scores(x, aligned(table), aligned(bias))[:, :len(table)]
  return by_platform(plain_scores, plain_scores, x, table, bias, gpu=wider)


def _vocabulary_scores_backward(residuals, g):
  def narrow(x, table, bias, g):
    V, g = len(table), aligned(g.astype(x.dtype), axis=1)
    of_table = jax.lax.dot_general(g, x, (((0,), (0,)), ((), ())))  # [W D]
    return g @ aligned(table), of_table[:V], sum_rows(g)[:V].astype(bias.dtype)

  plainly = lambda x, table, bias, g: jax.vjp(plain_scores, x, table, bias)[1](g)
  return by_platform(plainly, plainly, *residuals, g, gpu=narrow)


vocabulary_scores.defvjp(lambda *arrays: (vocabulary_scores(*arrays), arrays), _vocabulary_scores_backward)


class MaskedTokens(nnx.Module):
  """Scores of the vocabulary at chosen positions; the decoder is the word embedding table.

  run_pretraining.py get_masked_lm_output.
  """
  NAMES: ClassVar[Mapping[str, Mapping[str, str]]] = {'huggingface': {
      'transform': 'cls.predictions.transform.dense', 'norm': 'cls.predictions.transform.LayerNorm',
      '': 'cls.predictions'}}

  def __init__(self, settings: Model, rngs: nnx.Rngs):
    make = LayerMaker(settings, rngs)
    self.settings = settings
    self.transform, self.norm = make.linear(settings.hidden_size, settings.hidden_size, ('embed', None)), make.norm()
    self.bias = parameter(jnp.zeros((settings.vocab_size,), jnp.float32), None)

  @staticmethod
  def flops(settings: Model, positions: int) -> float:
    """FLOP of the forward pass at `positions` of a row."""
    D = settings.hidden_size
    return 2.0 * positions * (D * D + D * settings.vocab_size)

  def __call__(self, hidden, positions, table: Embedding):  # [B T D], [B P] -> [M V] float32
    with jax.named_scope('masked_tokens'):
      h = at_positions(hidden, positions, self.settings.plain).reshape(-1, hidden.shape[-1])
      h = self.norm(activate(self.settings.activation, self.transform(h)))
      decoder = table.table().astype(h.dtype)
      if 'add_bias' not in self.settings.plain:
        return vocabulary_scores(h, decoder, self.bias[...])
      scores = jax.lax.dot_general(h, decoder, (((1,), (1,)), ((), ())), preferred_element_type=wide(h.dtype))
      return add_bias_plainly(scores, self.bias[...])

  def outputs(self, model, hidden):  # [B T D] -> {[B T V]}
    each = hidden.reshape(-1, 1, hidden.shape[-1])  # rows of one token: nothing depends on T, which may be a symbol
    logits = self(each, jnp.zeros(each.shape[:2], jnp.int32), model.encoder.word_embeddings)
    return {'prediction_logits': logits.reshape(*hidden.shape[:2], -1)}


class PairClasses(nnx.Module):
  """Two scores for each pair (run_pretraining.py get_next_sentence_output), in float32: 16 bits would often tie."""
  NAMES: ClassVar[Mapping[str, Mapping[str, str]]] = {'huggingface': {'dense': 'cls.seq_relationship'}}

  def __init__(self, settings: Model, rngs: nnx.Rngs):
    self.dense = LayerMaker(settings, rngs).linear(settings.hidden_size, 2, ('embed', None),
                                                   dtype=wide(settings.computes_in))

  @staticmethod
  def flops(settings: Model, pairs: int) -> float:
    """FLOP of the forward pass for `pairs` of a row."""
    return 4.0 * pairs * settings.hidden_size

  def __call__(self, pooled):  # [B S D] -> [B S 2] float32
    with jax.named_scope('pair_classes'):
      return self.dense(pooled)

  def outputs(self, model, hidden):  # [B T D] -> {[B 2]}
    return {'seq_relationship_logits': self(model.pooler.of_rows(hidden)[:, None])[:, 0]}


class Ends(nnx.Module):
  """Scores of each token as the first and as the last of an answer (run_squad.py create_model), in float32."""
  NAMES: ClassVar[Mapping[str, Mapping[str, str]]] = {'huggingface': {'dense': 'qa_outputs'}}

  def __init__(self, settings: Model, rngs: nnx.Rngs):
    self.dense = LayerMaker(settings, rngs).linear(settings.hidden_size, 2, ('embed', None),
                                                   dtype=wide(settings.computes_in))

  @staticmethod
  def flops(settings: Model, tokens: int) -> float:
    """FLOP of the forward pass for `tokens` of a row."""
    return 4.0 * tokens * settings.hidden_size

  def __call__(self, hidden):  # [B T D] -> [B T 2] float32
    with jax.named_scope('ends'):
      return self.dense(hidden)

  def outputs(self, model, hidden):  # [B T D] -> {[B T]}
    ends = self(hidden)
    return {'start_logits': ends[..., 0], 'end_logits': ends[..., 1]}


class Classes(nnx.Module):
  """Scores of C classes, or one number, from a pooled vector, after dropout (run_classifier.py create_model)."""
  NAMES: ClassVar[Mapping[str, Mapping[str, str]]] = {'huggingface': {'dense': 'classifier'}}

  def __init__(self, settings: Model, rngs: nnx.Rngs, count: int):
    self.settings = settings
    make = LayerMaker(settings, rngs)
    self.dense = make.linear(settings.hidden_size, count, ('embed', None), dtype=wide(settings.computes_in))

  @staticmethod
  def flops(settings: Model, count: int) -> float:
    """FLOP of the forward pass for one row."""
    return 2.0 * count * settings.hidden_size

  def __call__(self, pooled, row_numbers=None, seed=None):  # [B D], [B], key -> [B C] float32
    with jax.named_scope('classes'):
      if seed is not None:
        numbers = jnp.arange(len(pooled)) if row_numbers is None else row_numbers
        bits = jax.random.bits(jax.random.fold_in(seed, 1), (), jnp.uint32)
        pooled = dropout(pooled, numbers.astype(jnp.uint32)[:, None], self.settings.hidden_dropout, bits)
      return self.dense(pooled)

  def outputs(self, model, hidden):  # [B T D] -> {[B C]}
    return {'logits': self(model.pooler.of_rows(hidden))}


class TokenClasses(Classes):
  """The same of each token (arXiv:1810.04805 section 5.3)."""

  def outputs(self, model, hidden):  # [B T D] -> {[B T C]}
    return {'logits': self(hidden)}


class OneScore(Classes):
  """One score, by which choices compare (arXiv:1810.04805 section 4.4)."""

  def __init__(self, settings: Model, rngs: nnx.Rngs):
    super().__init__(settings, rngs, count=1)

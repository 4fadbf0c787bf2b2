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
    wide,
)
from bert_jax.model.settings import Model


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
      scores = jax.lax.dot_general(h, decoder, (((1,), (1,)), ((), ())), preferred_element_type=wide(h.dtype))
      return (add_bias_plainly if 'add_bias' in self.settings.plain else add_bias)(scores, self.bias[...])

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

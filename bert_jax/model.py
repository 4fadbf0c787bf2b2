"""BERT: embeddings, post-LayerNorm blocks, pooler, MLM and NSP heads (arXiv:1810.04805; google-research/bert modeling.py).

B rows, T tokens, N = B T tokens of all rows, P masked positions of a row, M = B P of all rows, S pairs of a row (1 where rows are not
packed), D hidden, H heads, K head width, F feed-forward, V vocabulary, L layers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bert_jax import config as cfg
from bert_jax.attention import attend, wide
from bert_jax.dropout import dropout
from bert_jax.mesh import constrain

SEEDS_PER_BLOCK = 3  # attention weights, attention output, feed-forward output


def gelu(x):
  """Exact GELU; jax.nn.gelu goes through erfc, which costs five times as much on CPU."""
  return x * 0.5 * (1 + jax.lax.erf(x * np.asarray(2**-0.5, x.dtype)))


ACTIVATIONS = {'gelu': gelu, 'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True)}

REMAT = {'full': jax.checkpoint_policies.nothing_saveable, 'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


def layers_of(config: cfg.Model, rngs: nnx.Rngs):
  """The three kinds of layer, all initialised as BERT's are: (linear, norm, embed)."""
  normal = jax.nn.initializers.truncated_normal(config.initializer_range)  # cut at two sigma, as tf.truncated_normal
  linear = functools.partial(nnx.Linear, dtype=config.dtype, kernel_init=normal, rngs=rngs)
  norm = functools.partial(nnx.LayerNorm, config.hidden_size, epsilon=config.layer_norm_epsilon, use_fast_variance=False,
                           dtype=config.dtype, rngs=rngs)
  embed = functools.partial(nnx.Embed, features=config.hidden_size, embedding_init=normal, dtype=config.dtype, rngs=rngs)
  return linear, norm, embed


class Block(nnx.Module):
  """One layer: attention and feed-forward, each with a residual and a LayerNorm behind it."""

  def __init__(self, config: cfg.Model, *, rngs: nnx.Rngs):
    linear, norm, _ = layers_of(config, rngs)
    D, F = config.hidden_size, config.intermediate_size
    self.config = config
    self.query, self.key, self.value = linear(D, D), linear(D, D), linear(D, D)
    self.attention_output, self.attention_norm = linear(D, D), norm()
    self.intermediate, self.output, self.output_norm = linear(D, F), linear(F, D), norm()

  def __call__(self, x, pair_ids, seeds=None):  # [N D], [B T], [3] -> [N D]
    config, (B, T) = self.config, pair_ids.shape
    of_attention, of_output, of_feed_forward = (None,) * SEEDS_PER_BLOCK if seeds is None else seeds
    heads = lambda f: constrain(f(x), 'batch', 'heads').reshape(B, T, config.heads, -1)
    h = attend(heads(self.query), heads(self.key), heads(self.value), pair_ids, rate=config.attention_dropout, seed=of_attention)
    h = constrain(self.attention_output(h.reshape(B * T, -1)), 'batch', None)
    x = self.attention_norm(x + dropout(h, config.hidden_dropout, of_output))
    h = ACTIVATIONS[config.activation](constrain(self.intermediate(x), 'batch', 'mlp'))  # [N F]
    h = constrain(self.output(h), 'batch', None)
    return self.output_norm(x + dropout(h, config.hidden_dropout, of_feed_forward))


class Bert(nnx.Module):
  """The encoder with both pretraining heads; the MLM decoder is the word embedding table."""

  def __init__(self, config: cfg.Model, *, rngs: nnx.Rngs):
    linear, norm, embed = layers_of(config, rngs)
    D = config.hidden_size
    self.config = config
    self.word_embeddings = embed(config.vocab_size)
    self.position_embeddings = embed(config.max_positions)
    self.token_type_embeddings = embed(config.type_vocab_size)
    self.embeddings_norm = norm()
    self.blocks = jax.vmap(lambda rngs: Block(config, rngs=rngs))(rngs.split(config.layers))  # leaves [L ...]
    self.pooler = linear(D, D)
    self.transform, self.transform_norm = linear(D, D), norm()
    self.mlm_bias = nnx.Param(jnp.zeros((config.vocab_size,), jnp.float32))
    self.next_sentence = linear(D, 2, dtype=wide(config.dtype))  # two scores of 8 bits would often tie

  def encode(self, batch, seed=None):  # {[B T]} -> [B T D]
    """The last hidden states of a batch. `seed` (a typed PRNG key) turns dropout on.

    Reads input_ids, token_type_ids, position_ids and pair_ids (0: padding; attention stays among equal ids), int32 [B T] each.
    """
    config, (B, T) = self.config, batch['input_ids'].shape
    count = 1 + config.layers * SEEDS_PER_BLOCK
    seeds = None if seed is None else jax.random.bits(seed, (count,), jnp.uint32)
    x = (lookup(self.word_embeddings, batch['input_ids']) + lookup(self.token_type_embeddings, batch['token_type_ids'])
         + lookup(self.position_embeddings, batch['position_ids']))
    x = constrain(self.embeddings_norm(constrain(x, 'batch', None)), 'batch', None)  # [N D]: products of two axes are faster than of three
    x = dropout(x, config.hidden_dropout, None if seeds is None else seeds[0])

    def step(x, layer):
      block, block_seeds = layer
      return block(x, batch['pair_ids'], block_seeds), None

    if config.remat != 'none':
      # A loop keeps forward and backward apart; unrolled, nothing but a barrier stops the compiler from running both copies at once.
      step = jax.checkpoint(step, policy=REMAT[config.remat], prevent_cse=config.unroll > 1)
    block_seeds = None if seeds is None else seeds[1:].reshape(config.layers, SEEDS_PER_BLOCK)
    x, _ = jax.lax.scan(step, x, (self.blocks, block_seeds), unroll=min(config.unroll, config.layers))
    return x.reshape(B, T, -1)

  def pool(self, hidden, cls_positions):  # [B T D], [B S] -> [B S D]
    """tanh of a dense layer on each pair's [CLS] (modeling.py BertModel)."""
    return jnp.tanh(self.pooler(gather(hidden, cls_positions)))

  def mlm_logits(self, hidden, positions):  # [B T D], [B P] -> [M V] float32
    """Scores of the vocabulary at the masked positions alone (run_pretraining.py get_masked_lm_output)."""
    h = gather(hidden, positions).reshape(-1, hidden.shape[-1])
    h = self.transform_norm(ACTIVATIONS[self.config.activation](self.transform(h)))
    table = whole_table(self.word_embeddings)
    scores = jax.lax.dot_general(h, table, (((1,), (1,)), ((), ())), preferred_element_type=wide(h.dtype))
    return add_bias(constrain(scores, 'batch', None), self.mlm_bias[...])

  def nsp_logits(self, pooled):  # [B S D] -> [B S 2] float32: is next, is random
    return self.next_sentence(pooled)


def whole_table(embed: nnx.Embed):  # -> [V D]
  """An embedding's table in the compute type, gathered from the devices that share its width: narrow first, then move."""
  return constrain(embed.embedding[...].astype(embed.dtype), None, None)


def lookup(embed: nnx.Embed, ids):  # [B T] -> [N D]
  return whole_table(embed)[ids.reshape(-1)]


def gather(x, positions):  # [B T D], [B P] -> [B P D]
  return jnp.take_along_axis(x, positions[..., None], axis=1)


@jax.custom_vjp
def add_bias(x, bias):  # [M V], [V] -> [M V]
  """x + bias, whose gradient sums the columns by a product with ones: XLA on CPU reduces a wide array's rows 30 times slower."""
  return x + bias


add_bias.defvjp(lambda x, bias: (x + bias, None), lambda _, g: (g, jnp.ones((g.shape[0],), g.dtype) @ g))


def parameter_count(params) -> int:
  return sum(x.size for x in jax.tree.leaves(params))


def build(config: cfg.Model, key: jax.Array):
  """(graphdef, parameters as a tree of plain arrays); under jax.eval_shape, shapes only."""
  graphdef, params = nnx.split(Bert(config, rngs=nnx.Rngs(params=key)))
  return graphdef, nnx.as_pure(params)

"""BERT: embeddings, post-LayerNorm blocks, pooler, MLM and NSP heads (arXiv:1810.04805; google-research/bert modeling.py).

B rows, T tokens, N = B T tokens of all rows, P masked positions of a row, M = B P of all rows, S pairs of a row (1 where rows are not
packed), D hidden, H heads, K head width, F feed-forward, V vocabulary, L layers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name as name

from bert_jax import config as cfg
from bert_jax.model.attention import attend, wide
from bert_jax.model.dropout import dropout
from bert_jax.model.lookup import rows
from bert_jax.parallel.mesh import constrain

BIAS_ROWS = 8  # of ones: a product with a single row would be made a sum again
SEEDS_PER_BLOCK = 3  # attention weights, attention output, feed-forward output


def gelu(x):
  """Exact GELU; jax.nn.gelu goes through erfc, which costs five times as much on CPU."""
  return x * 0.5 * (1 + jax.lax.erf(x * np.asarray(2**-0.5, x.dtype)))


ACTIVATIONS = {'gelu': gelu, 'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True)}

# What a layer keeps for its backward pass, by the names it gives them: 10 D numbers a token with the fused attention. All else is
# elementwise, and cheaper to compute again beside the products that want it than to write to memory and read back.
KEPT = ('qkv', 'weights', 'attended', 'normalized', 'scale', 'intermediate')
REMAT = {'elementwise': jax.checkpoint_policies.save_only_these_names(*KEPT), 'full': jax.checkpoint_policies.nothing_saveable}


def activate(config: cfg.Model, x):
  """The activation, evaluated in float32 whatever its input is in."""
  return ACTIVATIONS[config.activation](x.astype(wide(x.dtype))).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def normalize(x, epsilon, dtype):  # [... D] float32 -> [... D] dtype
  """(x - mean) / standard deviation. Its backward pass needs the result, rounded to `dtype`, and one number a row; not x."""
  return _normalize(x, epsilon, dtype)[0]


def _normalize(x, epsilon, dtype):
  mean = x.mean(axis=-1)
  if jnp.dtype(dtype).itemsize == 2:
    # As a difference, so that one pass has both: float32 loses less by that than the 16 bits of what was added up to x have lost.
    variance = jnp.maximum(jnp.square(x).mean(axis=-1) - jnp.square(mean), 0)
  else:
    variance = jnp.square(x - mean[..., None]).mean(axis=-1)
  scale = jax.lax.rsqrt(variance + epsilon)
  normalized, scale = name(((x - mean[..., None]) * scale[..., None]).astype(dtype), 'normalized'), name(scale, 'scale')
  return normalized, (normalized, scale)


def _normalize_backward(epsilon, dtype, residuals, g):
  normalized, scale = (r.astype(wide(dtype)) for r in residuals)
  g = g.astype(scale.dtype)
  inner = g - g.mean(axis=-1, keepdims=True) - normalized * (g * normalized).mean(axis=-1, keepdims=True)
  return (inner * scale[..., None],)


normalize.defvjp(_normalize, _normalize_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x, kernel, tag):  # [N D], [D E] -> [N E]
  """x @ kernel. Its backward pass reads x by the name `tag`, the forward pass x itself: what both read, jax.checkpoint copies first."""
  return x @ kernel


product.defvjp(lambda x, kernel, tag: (x @ kernel, (name(x, tag), kernel)), lambda tag, kept, g: (g @ kept[1].T, kept[0].T @ g))


class Linear(nnx.Module):
  """x W + b in `dtype`."""

  def __init__(self, inputs: int, outputs: int, *, dtype, initializer, rngs: nnx.Rngs):
    self.dtype = jnp.dtype(dtype)
    self.kernel = nnx.Param(initializer(rngs.params(), (inputs, outputs), jnp.float32))
    self.bias = nnx.Param(jnp.zeros((outputs,), jnp.float32))

  def __call__(self, x, keep: str = ''):  # [... D] -> [... E]
    """`keep`: the name by which REMAT is told to keep x [N D]."""
    x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
    return add_bias(product(x, kernel, keep) if keep else x @ kernel, self.bias[...].astype(self.dtype))


class LayerNorm(nnx.Module):
  """arXiv:1607.06450; statistics in float32."""

  def __init__(self, width: int, epsilon: float, dtype):
    self.epsilon, self.dtype = epsilon, jnp.dtype(dtype)
    self.scale, self.bias = nnx.Param(jnp.ones((width,), jnp.float32)), nnx.Param(jnp.zeros((width,), jnp.float32))

  def __call__(self, x, residual=None):  # [... D] -> [... D]
    x = x.astype(wide(self.dtype))
    x = normalize(x if residual is None else x + residual.astype(x.dtype), self.epsilon, self.dtype)
    return (x * beside(self.scale[...], x) + beside(self.bias[...], x)).astype(self.dtype)


def layers_of(config: cfg.Model, rngs: nnx.Rngs):
  """The three kinds of layer, all initialised as BERT's are: (linear, norm, embed)."""
  normal = jax.nn.initializers.truncated_normal(config.initializer_range)  # cut at two sigma, as tf.truncated_normal
  linear = functools.partial(Linear, dtype=config.dtype, initializer=normal, rngs=rngs)
  norm = functools.partial(LayerNorm, config.hidden_size, config.layer_norm_epsilon, config.dtype)
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

  def __call__(self, x, pair_ids, numbers, seeds=None):  # [N D], [B T], [B T], [3] -> [N D]
    config, (B, T) = self.config, pair_ids.shape
    of_attention, of_output, of_feed_forward = (None,) * SEEDS_PER_BLOCK if seeds is None else seeds
    drop = lambda h, seed: dropout(h, numbers.reshape(-1, 1), config.hidden_dropout, seed)
    heads = lambda linear: name(constrain(linear(x), None, 'heads'), 'qkv').reshape(B, T, config.heads, -1)
    h = attend(heads(self.query), heads(self.key), heads(self.value), pair_ids, numbers, rate=config.attention_dropout,
               seed=of_attention, causal=config.causal, implementation=config.attention)
    h = constrain(self.attention_output(h.reshape(B * T, -1), keep='attended'), None, None)
    x = self.attention_norm(drop(h, of_output), x)
    h = activate(config, name(constrain(self.intermediate(x), None, 'mlp'), 'intermediate'))  # [N F]
    h = constrain(self.output(h), None, None)
    return self.output_norm(drop(h, of_feed_forward), x)


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

    Reads input_ids, token_type_ids, position_ids and pair_ids (0: padding; attention stays among equal ids), int32 [B T] each; and, where
    the batch is a part of a larger one, rows [B], its rows' numbers there, by which dropout masks are drawn.
    """
    config, (B, T) = self.config, batch['input_ids'].shape
    count = 1 + config.layers * SEEDS_PER_BLOCK
    seeds = None if seed is None else jax.random.bits(seed, (count,), jnp.uint32)
    row_numbers = batch['rows'] if 'rows' in batch else jnp.arange(B)
    numbers = row_numbers.astype(jnp.uint32)[:, None] * jnp.uint32(T) + jnp.arange(T, dtype=jnp.uint32)[None]  # of tokens
    x = (lookup(self.word_embeddings, batch['input_ids']) + lookup(self.token_type_embeddings, batch['token_type_ids'])
         + lookup(self.position_embeddings, batch['position_ids']))
    x = self.embeddings_norm(x)  # [N D]: products of two axes are faster than of three
    x = dropout(x, numbers.reshape(-1, 1), config.hidden_dropout, None if seeds is None else seeds[0])

    def step(x, layer):
      block, block_seeds = layer
      return block(x, batch['pair_ids'], numbers, block_seeds), None

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
    h = self.transform_norm(activate(self.config, self.transform(h)))
    table = self.word_embeddings.embedding[...].astype(h.dtype)
    scores = jax.lax.dot_general(h, table, (((1,), (1,)), ((), ())), preferred_element_type=wide(h.dtype))
    return add_bias(scores, self.mlm_bias[...])

  def nsp_logits(self, pooled):  # [B S D] -> [B S 2] float32: is next, is random
    return self.next_sentence(pooled)


def lookup(embed: nnx.Embed, ids):  # [B T] -> [N D]
  return rows(embed.embedding[...].astype(embed.dtype), jnp.asarray(ids).reshape(-1))


def gather(x, positions):  # [B T D], [B P] -> [B P D]
  return jax.vmap(rows)(x, jnp.asarray(positions))


def beside(vector, x):  # [D], [... D] -> [1 … D]
  """`vector` with as many axes as x: NumPy's promotion of ranks is an error in the tests."""
  return jnp.expand_dims(vector, range(x.ndim - 1))


@jax.custom_vjp
def add_bias(x, bias):  # [... V], [V] -> [... V]
  """x + bias, whose gradient sums the rows by a product with ones.

  As a sum, XLA reads the gradient once more on TPU, four times slower than its memory; on CPU 30 times slower where rows are wide.
  """
  return x + beside(bias, x)


def _add_bias_backward(_, g):
  rows = g.reshape(-1, g.shape[-1])
  return g, (jnp.ones((BIAS_ROWS, len(rows)), g.dtype) @ rows)[0]


add_bias.defvjp(lambda x, bias: (x + beside(bias, x), None), _add_bias_backward)


def parameter_count(params) -> int:
  return sum(x.size for x in jax.tree.leaves(params))


def build(config: cfg.Model, key: jax.Array):
  """(graphdef, parameters as a tree of plain arrays); under jax.eval_shape, shapes only."""
  graphdef, params = nnx.split(Bert(config, rngs=nnx.Rngs(params=key)))
  return graphdef, nnx.as_pure(params)

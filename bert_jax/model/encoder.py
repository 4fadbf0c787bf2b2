"""BERT's encoder: embeddings and post-LayerNorm blocks (arXiv:1810.04805 section 3; google-research/bert modeling.py).

B rows, T tokens, N = B T tokens of all rows, D hidden, H heads, F feed-forward, V vocabulary, L layers.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from bert_jax.model import neighbours, triton_layer
from bert_jax.model.attention import ONE_CPU, Place, attend, choose_implementation
from bert_jax.model.dropout import dropout
from bert_jax.model.layers import LayerMaker, activate, stacked
from bert_jax.model.settings import Model
from bert_jax.parallel.mesh import constrain

SEEDS_PER_BLOCK = 3  # attention weights, attention output, feed-forward output


class Block(nnx.Module):
  """One layer: attention and feed-forward, each followed by a residual and a LayerNorm."""

  def __init__(self, settings: Model, rngs: nnx.Rngs):
    make = LayerMaker(settings, rngs)
    D, F = settings.hidden_size, settings.intermediate_size
    self.settings = settings
    self.query, self.key, self.value = (make.linear(D, D, ('embed', 'heads')) for _ in range(3))
    self.attention_output, self.attention_norm = make.linear(D, D, ('heads', 'embed')), make.norm()
    self.intermediate = make.linear(D, F, ('embed', 'mlp'))
    self.output, self.output_norm = make.linear(F, D, ('mlp', 'embed')), make.norm()

  def __call__(self, x, pair_ids, token_numbers, seeds, implementation):  # [N D], [B T] x 2, [3] or None -> [N D]
    s, (B, T) = self.settings, pair_ids.shape
    attention_seed, output_seed, feed_forward_seed = (None,) * SEEDS_PER_BLOCK if seeds is None else seeds
    drop = lambda h, seed: dropout(h, token_numbers.reshape(-1, 1), s.hidden_dropout, seed)
    heads = lambda linear: checkpoint_name(constrain(linear(x), None, 'heads'), 'qkv').reshape(B, T, s.heads, -1)
    with jax.named_scope('attention'):
      h = attend(heads(self.query), heads(self.key), heads(self.value), pair_ids, token_numbers,
                 rate=s.attention_dropout, seed=attention_seed, direction=s.direction, implementation=implementation)
      h = constrain(self.attention_output(h.reshape(B * T, -1), keep='attended'), None, None)
      x = self.attention_norm(drop(h, output_seed), x)
    with jax.named_scope('feed_forward'):
      h = checkpoint_name(constrain(self.intermediate(x), None, 'mlp'), 'intermediate')
      h = constrain(self.output(activate(s.activation, h)), None, None)  # [N F] -> [N D]
      return self.output_norm(drop(h, feed_forward_seed), x)


class BertEncoder(nnx.Module):
  """Token ids to hidden states; beside the layers, what the rest of the house asks an architecture for."""

  # What a layer keeps for its backward pass with `model.remat elementwise`, by the names it gives them: 10 D numbers a
  # token with the fused attention. All else is elementwise. To compute it again beside the products that want it is
  # cheaper than to write it to memory and read it back.
  KEPT = ('qkv', 'weights', 'attended', 'total', 'y', 'normalized', 'scale', 'intermediate')

  # Names in other formats: {format: {our module, or parameter: theirs}}; {} stands for the number of a layer.
  NAMES: ClassVar[Mapping[str, Mapping[str, str]]] = {'huggingface': {
      'word_embeddings': 'bert.embeddings.word_embeddings',
      'position_embeddings': 'bert.embeddings.position_embeddings',
      'token_type_embeddings': 'bert.embeddings.token_type_embeddings',
      'embeddings_norm': 'bert.embeddings.LayerNorm',
      'blocks/query': 'bert.encoder.layer.{}.attention.self.query',
      'blocks/key': 'bert.encoder.layer.{}.attention.self.key',
      'blocks/value': 'bert.encoder.layer.{}.attention.self.value',
      'blocks/attention_output': 'bert.encoder.layer.{}.attention.output.dense',
      'blocks/attention_norm': 'bert.encoder.layer.{}.attention.output.LayerNorm',
      'blocks/intermediate': 'bert.encoder.layer.{}.intermediate.dense',
      'blocks/output': 'bert.encoder.layer.{}.output.dense',
      'blocks/output_norm': 'bert.encoder.layer.{}.output.LayerNorm',
  }}
  # What other formats call the architecture in their settings.
  TYPES: ClassVar[Mapping[str, str]] = {'huggingface': 'bert'}

  def __init__(self, settings: Model, rngs: nnx.Rngs, place: Place = ONE_CPU):
    make = LayerMaker(settings, rngs)
    self.settings, self.place = settings, place
    self.word_embeddings = make.embedding(settings.vocab_size)
    self.position_embeddings = make.embedding(settings.max_positions)
    self.token_type_embeddings = make.embedding(settings.type_vocab_size)
    self.embeddings_norm = make.norm()
    self.blocks = stacked(lambda rngs: self.block(settings, rngs), settings.layers, rngs)
    if settings.neighbour_heads:
      self.look_at_neighbours()

  def look_at_neighbours(self):
    """Begins positions and some heads of the first layer as `neighbours` has it."""
    s, D = self.settings, self.settings.hidden_size
    self.position_embeddings.embedding[...] = neighbours.positions(s.max_positions, D, s.initializer_range)
    K = D // s.heads
    for head in range(s.neighbour_heads):
      kernels = neighbours.query_and_key(D, K, head)
      for linear, kernel in zip((self.blocks.query, self.blocks.key), kernels, strict=True):
        linear.kernel[...] = linear.kernel[...].at[0, :, head * K:(head + 1) * K].set(kernel)

  @staticmethod
  def block(settings: Model, rngs: nnx.Rngs) -> nnx.Module:
    """One layer: what an architecture that differs only in its layers replaces."""
    return Block(settings, rngs)

  @staticmethod
  def flops(settings: Model, tokens: int) -> float:
    """FLOP of the forward pass of one row of `tokens`: a product of [m k] and [k n] is 2 m k n.

    Each layer has four D x D projections and two D x F products on T tokens, and two products of T x T with D for
    attention. Embedding lookups, LayerNorm, softmax, GELU and dropout are left out, as is usual for MFU.
    """
    D, F, T = settings.hidden_size, settings.intermediate_size, tokens
    return float(settings.layers * (2 * T * (4 * D * D + 2 * D * F) + 4 * T * T * D))

  def __call__(self, batch, seed=None, every_layer=False):  # {[B T]} -> [B T D], or of every layer [L B T D]
    """The last hidden states of a batch, or those after each layer. `seed` (a typed PRNG key) turns dropout on.

    Reads input_ids, token_type_ids, position_ids and pair_ids (0: padding; attention stays among equal ids), int32
    [B T] each; and, where the batch is a part of a larger one, row_numbers [B], its rows' numbers there, by which
    dropout masks are drawn.
    """
    s, (B, T) = self.settings, batch['input_ids'].shape
    implementation = choose_implementation(s, self.place, T)
    seeds = None if seed is None else jax.random.bits(seed, (1 + s.layers * SEEDS_PER_BLOCK,), jnp.uint32)
    row_numbers = jnp.asarray(batch['row_numbers'] if 'row_numbers' in batch else jnp.arange(B)).astype(jnp.uint32)
    token_numbers = row_numbers[:, None] * jnp.uint32(T) + jnp.arange(T, dtype=jnp.uint32)[None]
    x = self.embed(batch)  # [N D]: products of two axes are faster than of three
    x = dropout(x, token_numbers.reshape(-1, 1), s.hidden_dropout, None if seeds is None else seeds[0])

    pair_ids, joined = jnp.asarray(batch['pair_ids']), None
    # Not another architecture's layers, nor those from which a workaround is left out, to measure it.
    fused = implementation == 'triton' and type(self.blocks) is Block and not s.plain
    if fused:
      bounds, joined, x = triton_layer.bounds(s, pair_ids), triton_layer.join(self.blocks), (x, x)

    def step(x, layer):
      block, joined, block_seeds = layer
      if fused:
        x = triton_layer.apply(block, joined, x, pair_ids, bounds, token_numbers, block_seeds)
      else:
        x = block(x, pair_ids, token_numbers, block_seeds, implementation)
      return x, (x[0] if fused else x) if every_layer else None

    policies = {'elementwise': jax.checkpoint_policies.save_only_these_names(*self.KEPT),
                'full': jax.checkpoint_policies.nothing_saveable}
    if s.remat != 'none':
      # A loop keeps forward and backward apart; unrolled, only a barrier stops the compiler from merging the copies.
      step = jax.checkpoint(step, policy=policies[s.remat], prevent_cse=s.layers_at_once > 1)
    block_seeds = None if seeds is None else seeds[1:].reshape(s.layers, SEEDS_PER_BLOCK)
    with jax.named_scope('layers'):
      x, of_layers = jax.lax.scan(step, x, (self.blocks, joined, block_seeds), unroll=s.layers_at_once)
      x = x[0] if fused else x
    return of_layers.reshape(s.layers, B, T, -1) if every_layer else x.reshape(B, T, -1)

  def embed(self, batch):  # {[B T]} -> [N D]
    """The sum of word, token type and position embeddings, normalized (modeling.py embedding_postprocessor)."""
    with jax.named_scope('embeddings'):
      x = (self.word_embeddings(batch['input_ids']) + self.token_type_embeddings(batch['token_type_ids'])
           + self.position_embeddings(batch['position_ids']))
      return self.embeddings_norm(x)


ENCODERS: dict[str, type[nnx.Module]] = {'bert': BertEncoder}

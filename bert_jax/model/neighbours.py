"""Heads of the first layer that begin by looking at a token's neighbours, for models that see little text.

The problem: a BERT learns little but how frequent words are until some head has found out which positions are near
which (a plateau of the MLM loss, then a fall). From random positions each place has to learn that by itself, from one
weak signal among T. Here positions begin as sines (arXiv:1706.03762 section 3.5), in which a step to the side is one
rotation for all places, and a head's query begins as the key turned by such a step. That weights are better begun with
than found is arXiv:2305.09828's point (there for the likeness of a token to itself). The model stays BERT's: only
initial values differ, and all of them are trained.

Letters: N positions, D hidden, K head width, F rates of a head, half its width.
"""

import jax.numpy as jnp

FASTEST, SLOWEST = jnp.pi, jnp.pi / 100  # of the sines, radians a position: neighbours differ, and so do far places
LOUDNESS = 2.0  # standard deviation of a position's numbers, in those of a word's: so a head hears positions over words
PEAK = 10.0  # the score of the neighbour that a head looks at, near 0 for all others


def rates(width: int):  # -> [D / 2]
  return FASTEST * (SLOWEST / FASTEST) ** (jnp.arange(width // 2) / (width // 2))


def positions(count: int, width: int, initializer_range: float):  # -> [N D]
  """Sines, then cosines, of each rate."""
  angle = jnp.arange(count)[:, None] * rates(width)[None]
  return LOUDNESS * initializer_range * 2**.5 * jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)


def distance(head: int) -> int:
  """1 before, 1 after, 2 before, 2 after …"""
  return (head // 2 + 1) * (1 if head % 2 else -1)


def query_and_key(width: int, head_width: int, head: int):  # -> [D K] x 2
  """Of a head whose scores are greatest at `distance(head)`: the key reads the fastest rates, the query turns them."""
  F = head_width // 2
  share = LOUDNESS**2 / (1 + LOUDNESS**2)  # of positions in the variance that the embeddings' LayerNorm makes 1
  gain = (PEAK * head_width**.5 / (2 * share * F))**.5
  rate = jnp.arange(F)
  sine, cosine = gain * jnp.sin(rates(width)[:F] * distance(head)), gain * jnp.cos(rates(width)[:F] * distance(head))
  empty, half = jnp.zeros((width, head_width)), width // 2
  key = empty.at[rate, rate].set(gain).at[half + rate, F + rate].set(gain)
  query = (empty.at[rate, rate].set(cosine).at[half + rate, rate].set(sine)
           .at[rate, F + rate].set(-sine).at[half + rate, F + rate].set(cosine))
  return query, key

"""Entities from the layers of a frozen encoder (arXiv:1810.04805 section 5.3, table 7): a BiLSTM reads them.

B rows, T tokens, L layers, D hidden, E states of the LSTM in one direction, C tags.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import jax
import jax.numpy as jnp
from flax import nnx

from bert_jax.fields import one_of
from bert_jax.model.dropout import dropout
from bert_jax.model.layers import LayerMaker, parameter, wide
from bert_jax.model.settings import Model
from bert_jax.objectives import Objective
from bert_jax.tasks import tagging
from bert_jax.tasks.tagging import Entities
from bert_jax.tasks.task import Defaults
from input_pipeline.ranges import Size, Within

LAST_LAYERS = 4
# Table 7's rows, by name: which of the embeddings and the layers after them [L+1 ...] are read; several are joined side
# by side, or, where SUMMED, added with weights that are learnt.
LAYERS: dict[str, Callable[[int], slice]] = {
    'embeddings': lambda L: slice(0, 1), 'second_to_last': lambda L: slice(L - 1, L),
    'last': lambda L: slice(L, L + 1), 'sum_of_last_four': lambda L: slice(max(L - LAST_LAYERS, 0) + 1, L + 1),
    'concat_of_last_four': lambda L: slice(max(L - LAST_LAYERS, 0) + 1, L + 1), 'sum_of_all': lambda L: slice(1, L + 1)}
SUMMED = 'sum_of_last_four', 'sum_of_all'

if TYPE_CHECKING:
  LayersName = str
else:
  LayersName = one_of(LAYERS)


@dataclasses.dataclass(frozen=True)
class Features(Entities):
  """How files are read, and what the tagger reads and is."""
  layers: LayersName = 'concat_of_last_four'
  """The states of the frozen encoder that are read, by the rows of table 7; sums have weights that are learnt."""
  lstm_layers: Annotated[int, Within(1, 64)] = 2
  """Layers of the BiLSTM (section 5.3)."""
  lstm_size: Size = 768
  """Numbers of its state, in each direction (section 5.3)."""


def count_of(settings: Model, own: Features) -> int:
  """How many layers are read."""
  return len(range(settings.layers + 1)[LAYERS[own.layers](settings.layers)])


class Lstm(nnx.Module):
  """A layer of an LSTM in one direction, with initial values as flax's LSTMCell has them (arXiv:1402.1128)."""

  def __init__(self, settings: Model, rngs: nnx.Rngs, inputs: int, size: int, backward: bool):
    make, self.backward = LayerMaker(settings, rngs), backward
    self.gates = make.linear(inputs, 4 * size, ('embed', None), dtype=wide(settings.computes_in),
                             initializer=jax.nn.initializers.lecun_normal())
    orthogonal = jax.nn.initializers.orthogonal()
    self.kernel = parameter(jnp.concatenate([orthogonal(rngs.params(), (size, size)) for _ in range(4)], 1), 'embed',
                            None)

  def __call__(self, x, real):  # [B T D], bool [B T] -> [B T E]
    """Padding leaves the state as it was: read backward, a row begins with its last token."""
    kernel = self.kernel[...]
    zeros = jnp.zeros((len(x), kernel.shape[0]), kernel.dtype)

    def step(state, token):
      h, c = state
      gates, is_real = token
      i, f, g, o = jnp.split(gates + h @ kernel, 4, axis=-1)
      new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
      new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
      state = jnp.where(is_real[:, None], new_h, h), jnp.where(is_real[:, None], new_c, c)
      return state, state[0]

    along = lambda x: jnp.swapaxes(x, 0, 1)
    _, states = jax.lax.scan(step, (zeros, zeros), (along(self.gates(x)), along(real)), reverse=self.backward)
    return along(states)


class Tagger(nnx.Module):
  """Layers of states, joined or added, then a BiLSTM, then scores of C tags; dropout before each and before the last.

  No other format has a name for it.
  """

  def __init__(self, settings: Model, rngs: nnx.Rngs, count: int, own: Features):
    self.settings, self.summed = settings, own.layers in SUMMED
    chosen = count_of(settings, own)
    if self.summed:
      self.scale = parameter(jnp.ones((chosen,)), None)
    widths = [settings.hidden_size * (1 if self.summed else chosen)] + [2 * own.lstm_size] * (own.lstm_layers - 1)
    self.lstms = nnx.List([Lstm(settings, rngs, width, own.lstm_size, backward)
                           for width in widths for backward in (False, True)])
    dense = LayerMaker(settings, rngs).linear
    self.dense = dense(2 * own.lstm_size, count, ('embed', None), dtype=wide(settings.computes_in))

  @staticmethod
  def flops(settings: Model, tokens: int, count: int, own: Features) -> float:
    """FLOP of the forward pass of one row. A step is counted as three of them; as nothing flows back to the layers, it
    is a sixth less with the paper's sizes."""
    E, others = own.lstm_size, own.lstm_layers - 1
    first = settings.hidden_size * (1 if own.layers in SUMMED else count_of(settings, own))
    products = 2 * 4 * E * (first + E + others * 3 * E) + 2 * E * count
    return 2.0 * tokens * products

  def __call__(self, layers, real, numbers, seed=None):  # [K B T D], bool [B T], [M], key -> [M C] float32
    rate, (B, T) = self.settings.hidden_dropout, real.shape
    drop = lambda x, i: dropout(x, numbers.reshape(B, T, 1), rate, None if seed is None else jax.random.bits(
        jax.random.fold_in(seed, i + 1), (), jnp.uint32))
    with jax.named_scope('tagger'):
      layers = layers.astype(wide(self.settings.computes_in))
      x = (jnp.einsum('k,kbtd->btd', jax.nn.softmax(self.scale[...]), layers) if self.summed
           else jnp.moveaxis(layers, 0, 2).reshape(B, T, -1))
      for i in range(0, len(self.lstms), 2):
        x = drop(x, i)
        x = jnp.concatenate([lstm(x, real) for lstm in self.lstms[i:i + 2]], -1)
      return self.dense(drop(x, len(self.lstms)).reshape(B * T, -1))


def logits(own: Features, model, hidden, batch, seed=None):  # -> [M C]
  """The encoder runs here as it does in an evaluation: `hidden`, with dropout, is not read, so that the compiler leaves
  it out, and no gradient is taken."""
  graphdef, params = nnx.split(model.encoder)
  encoder = nnx.merge(graphdef, jax.tree.map(jax.lax.stop_gradient, params))
  embeddings = encoder.embed(batch).reshape(1, *hidden.shape)
  every = jnp.concatenate([embeddings, encoder(batch, every_layer=True)])
  layers = every[LAYERS[own.layers](len(every) - 1)]
  return model.tagger(layers, batch['pair_ids'] > 0, tagging.token_numbers(hidden, batch), seed)


def objective(labels: tuple[str, ...], own: Any) -> Objective:
  head = functools.partial(Tagger, count=len(labels), own=own)
  flops = lambda settings, batch: Tagger.flops(settings, batch.sequence_length, len(labels), own)
  return Objective({'tags': tagging.term_of(functools.partial(logits, own), flops)}, {'tagger': head},
                   frozen=('encoder',))


# The paper gives no rate and no length of training for table 7: as is usual for an LSTM trained from random values.
DEFAULTS = Defaults(epochs=10, size=32, max_length=128, learning_rate=1e-3)
TAGGING = dataclasses.replace(tagging.TAGGING, objective=objective, settings=Features, defaults=DEFAULTS)

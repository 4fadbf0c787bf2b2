"""What a pretrained model makes of a few held-out rows: its likeliest tokens, its classes of pairs, its attention.

B rows, T tokens, P predictions of a row, K candidates, C classes, L layers, H heads, D hidden.
"""

import base64
import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import rows as row_lib
from bert_jax.checkpoint import Loaded
from bert_jax.model.attention import weigh
from bert_jax.objectives import Objective
from bert_jax.rows import Output

CANDIDATES = 5
SHOWN = 24  # predictions of a row, at most
LONGEST_PAIR = 48  # tokens whose attention is drawn: more would be unreadable


@dataclasses.dataclass(frozen=True)
class Token:
  """A token of a row, and what the model thought stands there, where it was asked."""
  text: str  # as the vocabulary has it
  seen: str  # what the model saw in its place
  segment: int
  continues: bool  # whether it is written without a space before it
  candidates: tuple[tuple[str, float], ...] = ()  # the likeliest first
  place: int = 0  # of the right one among all tokens; 1 is the likeliest


@dataclasses.dataclass(frozen=True)
class Row:
  """A held-out row with the model's predictions."""
  tokens: tuple[Token, ...]
  classes: tuple[tuple[str, float], ...] = ()  # of its pair, the likeliest first
  right: str = ''  # the right one


@dataclasses.dataclass(frozen=True)
class Attention:
  """The attention weights of one row: `weights` is base64 of uint8 [L H T T], 255 for 1."""
  tokens: tuple[str, ...]
  segments: tuple[int, ...]
  layers: int
  heads: int
  weights: str


def predicted(objective: Objective) -> Output:
  """Of each row: the likeliest tokens where some are predicted, the right ones' places, and the classes of its pair."""

  def of(model, batch):
    hidden, B = model.encoder(batch), len(batch['input_ids'])
    found = {}
    for name, term in objective.terms.items():
      logits = term.logits(model, hidden, batch, None)
      if term.predicts_tokens:
        labels = jnp.asarray(term.targets(batch)[0])  # [B P]
        scores = jax.nn.softmax(logits).reshape(*labels.shape, -1)
        right = jnp.take_along_axis(scores, labels[..., None], axis=2)
        top = jax.lax.top_k(scores, CANDIDATES)
        found['tokens'] = *top, 1 + (scores > right).sum(axis=2)
      elif term.classes:
        found[name] = jax.nn.softmax(logits).reshape(B, -1, len(term.classes))
    return found

  return Output(of, tuple(objective.heads.items()))


def attention_weights(model, batch):  # {[B T]} -> [B L H T T]
  """The weights of every layer and head, as plain JAX computes them."""
  encoder, s, (B, T) = model.encoder, model.settings, batch['input_ids'].shape
  after = encoder(batch, every_layer=True)  # [L B T D]
  into = jnp.concatenate([encoder.embed(batch).reshape(1, B, T, -1), after[:-1]])

  def of_layer(block, x):
    heads = lambda linear: linear(x.reshape(B * T, -1)).reshape(B, T, s.heads, -1)
    return weigh(heads(block.query), heads(block.key), batch['pair_ids'], s.direction)

  return jnp.moveaxis(jax.vmap(of_layer)(encoder.blocks, into), 0, 1)


ATTENTION = Output(attention_weights)


def look(loaded: Loaded, batch: Mapping[str, np.ndarray],
         continues: np.ndarray) -> tuple[list[Row], Attention | None]:  # {[B …]}, [V]
  """What the model makes of the rows of `batch`: one pair each, as a loader.Stream lays them out."""
  placed = row_lib.place(loaded, row_lib.mesh_of(), 'float32')
  tokens = placed.tokenizer.tokens
  params = {name: placed.params[name] for name in ('encoder', *loaded.objective.heads)}
  found = jax.device_get(row_lib.outputs(predicted(loaded.objective), placed.settings, placed.mesh, params, batch))
  of_row = lambda tree, i: jax.tree.map(lambda x: x[i], tree)
  made = [_row(of_row(dict(batch), i), of_row(found, i), loaded.objective, tokens, continues)
          for i in range(len(batch['input_ids']))]
  lengths = np.count_nonzero(batch['pair_ids'], axis=1)
  shortest = int(lengths.argmin())
  if lengths[shortest] > LONGEST_PAIR:
    return made, None
  row = {name: array[shortest:shortest + 1, :lengths[shortest]] for name, array in batch.items()
         if name in ('input_ids', 'token_type_ids', 'position_ids', 'pair_ids')}
  row['input_ids'] = unmasked({name: array[shortest] for name, array in batch.items()})[None, :lengths[shortest]]
  weights = jax.device_get(row_lib.outputs(ATTENTION, placed.settings, placed.mesh,
                                           {'encoder': placed.params['encoder']}, row))[0]  # [L H T T]
  return made, Attention(
      tuple(tokens[token] for token in row['input_ids'][0]), tuple(map(int, row['token_type_ids'][0])),
      *weights.shape[:2], base64.b64encode(np.rint(weights * 255).astype(np.uint8).tobytes()).decode())


def unmasked(row: Mapping[str, np.ndarray]) -> np.ndarray:  # {[T], [P]} -> [T]
  """The ids of a row before tokens were masked."""
  ids = row['input_ids'].copy()
  if 'masked_lm_positions' in row:
    real = row['masked_lm_weights'] > 0
    ids[row['masked_lm_positions'][real]] = row['masked_lm_ids'][real]
  return ids


def _row(row: Mapping[str, np.ndarray], found: Mapping, objective: Objective, tokens: Sequence[str],
         continues: np.ndarray) -> Row:
  """One row for the page. A model that predicts every token is shown at some of them."""
  original, used = unmasked(row), int(np.count_nonzero(row['pair_ids']))
  candidates: dict[int, tuple] = {}
  term = objective.token_term()
  if term is not None:
    batch = {name: array[None] for name, array in row.items()}
    asked = np.flatnonzero(np.asarray(term.targets(batch)[1])[0] > 0)
    first = 0 if term.ends == 'cls' else 1
    places = row['masked_lm_positions'] if objective.masked else np.arange(first, first + used)
    scores, top, right = found['tokens']
    for slot in asked[np.linspace(0, len(asked) - 1, min(SHOWN, len(asked))).astype(int)]:
      pairs = tuple((tokens[token], float(score)) for token, score in zip(top[slot], scores[slot]))
      candidates[int(places[slot])] = pairs, int(right[slot])
  made = tuple(Token(tokens[original[t]], tokens[row['input_ids'][t]], int(row['token_type_ids'][t]),
                     bool(continues[original[t]]), *candidates.get(t, ())) for t in range(used))
  for name, term in objective.terms.items():
    labels, weights = (np.asarray(x)[0] for x in term.targets({key: array[None] for key, array in row.items()}))
    if term.classes and weights[0] > 0:
      shares = sorted(zip(term.classes, map(float, found[name][0])), key=lambda pair: -pair[1])
      return Row(made, tuple(shares), term.classes[int(labels[0])])
  return Row(made)

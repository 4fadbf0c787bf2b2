"""Fills the [MASK]s of a text with what the model finds likely there.

B texts that run together, T tokens they are padded to, P masks of a text, M = B P, K candidates, V vocabulary.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bert_jax.checkpoint import Loaded
from bert_jax.errors import require
from bert_jax.model import build
from bert_jax.model.heads import MaskedTokens
from bert_jax.model.settings import Model
from input_pipeline.vocabulary.tokenizer import MASK, Tokenizer

ROWS = 8  # texts that run together
SHORTEST = 16  # the least that T and P are rounded up to: one compilation serves many texts
MASKS = 4

HEADS: build.Heads = {'masked_tokens': MaskedTokens}

Candidates = list[tuple[str, float]]  # (token, probability), the likeliest first


def fill_mask(loaded: Loaded, texts: Sequence[str], top_k: int = 5) -> list[list[Candidates]]:
  """For each text, for each [MASK] in it, its `top_k` likeliest tokens and their probabilities.

  Compiled once for each power of two that lengths are rounded up to; computed in float32. Raises ConfigError where a
  text has no [MASK] or is too long, where the checkpoint has no trained head for masked tokens, or where the vocabulary
  is not the model's.
  """
  model, params = loaded.model, loaded.params
  check(loaded)
  tokenizer = loaded.tokenizer()
  require(1 <= top_k <= model.vocab_size,
          f'--top-k {top_k}: wanted 1 to {model.vocab_size}, the tokens of the vocabulary')
  require(len(tokenizer.tokens) == model.vocab_size,
          f'the vocabulary has {len(tokenizer.tokens)} tokens, the model {model.vocab_size}: name the one that it was '
          'trained with')
  rows = [encode(tokenizer, text, model.max_positions) for text in texts]
  model = dataclasses.replace(model, dtype='float32', attention='auto')
  own = {name: params[name] for name in ('encoder', *HEADS)}
  groups: dict[int, list[int]] = {}
  for i, row in enumerate(rows):
    groups.setdefault(rounded_up(len(row), SHORTEST, model.max_positions), []).append(i)
  found: list[list[Candidates]] = [[] for _ in texts]
  for length, members in sorted(groups.items()):
    for start in range(0, len(members), ROWS):
      part = members[start:start + ROWS]
      ids, positions = pad([rows[i] for i in part], tokenizer, length)
      top, probabilities = jax.device_get(predict(model, top_k, own, ids, positions, tokenizer.pad_id))
      for i, row_top, row_probabilities in zip(part, top, probabilities):
        masks = int((rows[i] == tokenizer.mask_id).sum())
        found[i] = [[(tokenizer.tokens[token], float(p)) for token, p in zip(*slot)]
                    for slot in zip(row_top[:masks], row_probabilities[:masks])]
  return found


def check(loaded: Loaded) -> None:
  """Raises ConfigError where the checkpoint cannot fill masks."""
  require(not loaded.model.causal, 'this model was trained from left to right (model.causal): it knows no [MASK]')
  never = 'masked_tokens' not in loaded.objective.heads
  lacking = never or any(name.startswith('masked_tokens/') for name in loaded.fresh)
  origin = loaded.record and loaded.record.origin
  require(not lacking, 'this checkpoint has no head for masked tokens, so it cannot fill them: name '
          + (f'{origin.checkpoint}, which it was fine-tuned from, or ' if origin and never else '')
          + 'a run of `bert-jax pretrain`, or a Hugging Face directory of BertForPreTraining or BertForMaskedLM')
  require('masked_tokens' not in loaded.untrained(),
          'this run did not train its head for masked tokens: name one whose objective predicts them')


def encode(tokenizer: Tokenizer, text: str, limit: int) -> np.ndarray:  # -> [T] int32
  """[CLS] text [SEP], where each literal [MASK] is the token: the tokenizer itself takes it for text."""
  pieces = text.split(MASK)
  require(len(pieces) > 1,
          f'{short(text)!r} has no {MASK}: write {MASK}, in capitals and brackets, where a word is to be found')
  ids = [tokenizer.cls_id]
  for i, piece in enumerate(tokenizer.encode(pieces)):
    ids += [tokenizer.mask_id] * (i > 0) + piece.tolist()
  ids.append(tokenizer.sep_id)
  require(len(ids) <= limit, f'{short(text)!r} has {len(ids)} tokens with [CLS] and [SEP], and the model takes {limit} '
                                 '(model.max_positions): shorten it')
  return np.array(ids, np.int32)


def pad(rows: Sequence[np.ndarray], tokenizer: Tokenizer,
        length: int) -> tuple[np.ndarray, np.ndarray]:  # -> [B T], [B P]
  """Rows of one length, and where their masks are; unused places of both are padding."""
  places = [np.flatnonzero(row == tokenizer.mask_id) for row in rows]
  ids = np.full((ROWS, length), tokenizer.pad_id, np.int32)
  positions = np.zeros((ROWS, rounded_up(max(map(len, places)), MASKS, length)), np.int32)
  for i, (row, place) in enumerate(zip(rows, places)):
    ids[i, :len(row)], positions[i, :len(place)] = row, place
  return ids, positions


def rounded_up(size: int, least: int, most: int) -> int:
  """The next power of two, between `least` and `most`."""
  return min(max(least, 1 << (size - 1).bit_length()), most)


@functools.partial(jax.jit, static_argnames=('model', 'top_k'))
def predict(model: Model, top_k: int, params, ids, positions, pad_id):  # [B T], [B P] -> [B P K] int32, [B P K] float32
  """The likeliest tokens at `positions`, and their probabilities."""
  bert = nnx.merge(build.describe(model, HEADS)[0], params)
  batch = {'input_ids': ids, 'token_type_ids': jnp.zeros_like(ids), 'pair_ids': (ids != pad_id).astype(jnp.int32),
           'position_ids': jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)}
  with jax.default_matmul_precision('float32'):
    logits = bert.masked_tokens(bert.encoder(batch), positions, bert.encoder.word_embeddings)  # [M V]
  probabilities, top = jax.lax.top_k(jax.nn.softmax(logits), top_k)
  return top.reshape(*positions.shape, top_k), probabilities.reshape(*positions.shape, top_k)


def format_filled(text: str, found: Sequence[Candidates], width: int = 20) -> str:
  """For a terminal: the text with the likeliest tokens in it, then each mask's candidates with bars up to `width`."""
  lines = [filled(text, [candidates[0][0] for candidates in found])]
  longest = max(len(token) for candidates in found for token, _ in candidates)
  for number, candidates in enumerate(found, 1):
    if len(found) > 1:
      lines.append(f'  {MASK} {number}')
    lines += [f'  {token:<{longest}}  {p:6.1%}  {"█" * round(p * width)}'.rstrip() for token, p in candidates]
  return '\n'.join(lines)


def filled(text: str, tokens: Sequence[str]) -> str:
  """`text` with its masks replaced; a ##token joins the word before it, ▁ is a space."""
  pieces = text.split(MASK)
  result = pieces[0]
  for token, piece in zip(tokens, pieces[1:]):
    if token.startswith('##') and len(token) > 2:
      result, token = result.rstrip(), token[2:]
    result += re.sub('^▁', '' if not result or result[-1].isspace() else ' ', token).replace('▁', ' ') + piece
  return result


def short(text: str, limit: int = 60) -> str:
  return text if len(text) <= limit else text[:limit - 1] + '…'

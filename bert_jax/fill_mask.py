"""Fills the [MASK]s of a text with what the model finds likely there.

B texts that run together, T tokens they are padded to, t tokens of one, P masks of a text, M = B P, K candidates.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from bert_jax.checkpoint import Loaded
from bert_jax.errors import require
from bert_jax.model.heads import MaskedTokens
from bert_jax.rows import (
    BATCH_ROWS,
    Output,
    Pace,
    Placed,
    check_length,
    in_batches,
    named,
    rounded_up,
    windows,
)
from input_pipeline.vocabulary.tokenizer import MASK, Tokenizer

MASKS = 4  # the least that P is rounded up to: one compilation serves many texts

Candidates = list[tuple[str, float]]  # (token, probability), the likeliest first


def fill_mask(encoder: Placed, texts: Iterable[str], top_k: int = 5, *, batch_size: int = BATCH_ROWS,
              progress: bool = False) -> Iterator[list[Candidates]]:
  """For each text, for each [MASK] in it, its `top_k` likeliest tokens and their probabilities; texts may be endless.

  Raises ConfigError where a text has no [MASK] or is too long, where the checkpoint has no trained head for masked
  tokens, or where the vocabulary is not the model's.
  """
  check(encoder.loaded)
  size, tokenizer = encoder.settings.vocab_size, encoder.tokenizer
  require(1 <= top_k <= size, f'--top-k {top_k}: wanted 1 to {size}, the tokens of the vocabulary')
  rows = (encode(tokenizer, text, encoder.settings.max_positions) for text in texts)
  with in_batches(batch_size, progress, 'text') as pace:
    for window in windows(rows, len):
      yield from _filled(encoder, window, top_k, pace)


def _filled(encoder: Placed, rows: Sequence[np.ndarray], top_k: int, pace: Pace) -> list[list[Candidates]]:
  tokenizer = encoder.tokenizer
  places = [np.flatnonzero(row == tokenizer.mask_id) for row in rows]

  def make(members, B, T):
    P = rounded_up(max(len(places[i]) for i in members), MASKS, T)
    batch = encoder.pad([(rows[i], np.zeros_like(rows[i])) for i in members], B, T)
    batch['positions'] = np.zeros((B, P), np.int32)
    for place, i in enumerate(members):
      batch['positions'][place, :len(places[i])] = places[i]
    return batch

  found: list[list[Candidates]] = [[] for _ in rows]
  for members, (top, probabilities) in encoder.run(likeliest(top_k), list(map(len, rows)), make, pace):
    for i, row_top, row_probabilities in zip(members, top, probabilities):
      found[i] = [[(tokenizer.tokens[token], float(p)) for token, p in zip(*slot)]
                  for slot, _ in zip(zip(row_top, row_probabilities), places[i])]
    pace.done(len(members))
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
  """[CLS] text [SEP], where each literal [MASK] is the token, as other special tokens are."""
  found = tokenizer.marked.encode([text])[0].tolist()
  require(tokenizer.mask_id in found,
          f'{named(text)} has no {MASK}: write {MASK}, in capitals and brackets, where a word is to be found')
  ids = [tokenizer.cls_id, *found, tokenizer.sep_id]
  check_length(text, len(ids), limit)
  return np.array(ids, np.int32)


@functools.cache
def likeliest(top_k: int) -> Output:
  """The likeliest tokens at a row's `positions`, and their probabilities."""

  def of(model, batch):  # {[B T], positions [B P]} -> [B P K] int32, [B P K] float32
    positions = batch['positions']
    logits = model.masked_tokens(model.encoder(batch), positions, model.encoder.word_embeddings)  # [M V]
    probabilities, top = jax.lax.top_k(jax.nn.softmax(logits), top_k)
    return top.reshape(*positions.shape, top_k), probabilities.reshape(*positions.shape, top_k)

  return Output(of, (('masked_tokens', MaskedTokens),))


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

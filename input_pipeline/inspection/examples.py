"""Rows as the model sees them, for people: what the text was, with predicted tokens in braces, and what is masked.

Letters: T tokens of a row, P prediction slots, N pairs of a row, K tokens, V vocabulary.
"""

import numpy as np

from input_pipeline.batches import loader


def rows(stream: loader.Stream, tokens: list[str], examples: int) -> list[tuple[str, ...]]:
  """The first rows of the stream, each as lines."""
  if not examples:
    return []
  batch = stream.rows(0, min(examples, stream.rows_per_epoch))
  return [row_lines({name: array[i] for name, array in batch.items()}, tokens, stream)
          for i in range(len(batch['input_ids']))]


def row_lines(row: dict[str, np.ndarray], tokens: list[str],  # {[T]}, {[P]}, {[N]}
              stream: loader.Stream) -> tuple[str, ...]:
  seen, original = row['input_ids'], row['input_ids'].copy()
  predicted = row['masked_lm_positions'][row['masked_lm_weights'] > 0]
  original[predicted] = row['masked_lm_ids'][row['masked_lm_weights'] > 0]
  marked = np.zeros(len(seen), bool)
  marked[predicted] = True
  real, pairs = np.count_nonzero(row['pair_ids']), row['pair_ids'].max()
  lines = [f'row of {real} of {len(seen)} tokens, {pairs} pair(s), {len(predicted)} predicted']
  for pair in range(1, pairs + 1):
    lines.append(f'  pair {pair}: {meaning(row, pair - 1, stream.config.pairs)}')
    for segment in range(stream.separators):
      inside = (row['pair_ids'] == pair) & (row['token_type_ids'] == segment)
      for name, ids, marks in (('text', original, marked),
                               ('seen', seen, marked & (seen != stream.vocabulary.mask_id))):
        text = join(ids[inside], marks[inside], tokens, stream.kinds.continues)
        lines.append(f'    {"AB"[segment]} {name}  {text}')
  return tuple(lines)


def meaning(row: dict[str, np.ndarray], pair: int, pairs: str) -> str:
  if pairs == 'none':
    return 'one segment'
  label = row['next_sentence_labels'][pair]
  return f'label {label}, ' + {'sop': ('A comes before B', 'B comes before A')}.get(
      pairs, ('B follows A', 'B is of another document'))[label]


def join(ids: np.ndarray, marked: np.ndarray, tokens: list[str], continues: np.ndarray) -> str:  # [K], [K], [V], [V]
  """Text of token ids: parts of a word joined, predicted tokens in braces."""
  words: list[str] = []
  for token, mark in zip(ids, marked):
    part = tokens[token].removeprefix('##') if continues[token] else tokens[token].removeprefix('▁')
    part = f'{{{part}}}' if mark else part
    if continues[token] and words and not words[-1].endswith(']'):
      words[-1] += part
    else:
      words.append(part)
  return ' '.join(words)

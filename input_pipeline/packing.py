"""Rows of a batch: which pairs share a row, and the arrays that the model sees.

Letters: B rows, T tokens of a row, N pairs of a row at most, M pairs of the batch, L their tokens together.
"""

import numpy as np

from input_pipeline.records import Vocabulary


def place(pairs: dict[str, np.ndarray], row: np.ndarray, separators: int) -> dict[str, np.ndarray]:
  """Adds to a, b [M] where each pair goes: row [M], not falling; start of its [CLS] in the row, length, nth of the row."""
  length = pairs['a'] + pairs['b'] + 1 + separators
  first = np.searchsorted(row, row)
  before = np.cumsum(length) - length
  start = before - before[first] if len(row) else before
  return pairs | {'row': row, 'start': start, 'length': length, 'nth': np.arange(len(row)) - first}


def lay_out(tokens: np.ndarray, pairs: dict[str, np.ndarray], rows: int, row_length: int, separators: int,
            vocabulary: Vocabulary) -> dict[str, np.ndarray]:  # [window's tokens], {[M]} -> {[B T]}
  """[CLS] A [SEP] B [SEP] for each placed pair: input_ids, token_type_ids, position_ids, pair_ids.

  With one separator there is no B: [CLS] A [SEP]. `pairs` has a_start and b_start, places in tokens, beside what `place` adds.
  """
  length = pairs['length']
  ends = np.cumsum(length)
  run = np.repeat(np.arange(len(length), dtype=np.int32), length)  # [L] the pair of each token
  within = np.arange(len(run), dtype=np.int64) - (ends - length)[run]  # [L] its place in the pair
  where = within + (pairs['row'] * row_length + pairs['start'])[run]
  in_b = within > (pairs['a'] + 1)[run]
  shift = np.stack([pairs['a_start'] - 1, pairs['b_start'] - pairs['a'] - 2], 1).reshape(-1)  # [2 M]
  source = within + shift[run * np.int32(2) + in_b]
  arrays = {name: np.zeros(rows * row_length, np.int32) for name in ('input_ids', 'token_type_ids', 'position_ids', 'pair_ids')}
  arrays['input_ids'][:] = vocabulary.pad_id
  arrays['input_ids'][where] = np.take(tokens, source, mode='clip')
  arrays['token_type_ids'][where] = in_b
  arrays['position_ids'][where] = within
  arrays['pair_ids'][where] = (pairs['nth'] + 1)[run]
  start = pairs['row'] * row_length + pairs['start']
  arrays['input_ids'][start] = vocabulary.cls_id
  arrays['input_ids'][start + length - 1] = vocabulary.sep_id
  if separators == 2:
    arrays['input_ids'][start + 1 + pairs['a']] = vocabulary.sep_id
  return {name: array.reshape(rows, row_length) for name, array in arrays.items()}


def pair_slots(pairs: dict[str, np.ndarray], rows: int, slots: int, predict: bool) -> dict[str, np.ndarray]:
  # {[M]} -> {[B N]}
  """Each pair's [CLS] and label: cls_positions, next_sentence_labels, next_sentence_weights (all 0 without `predict`)."""
  where = pairs['row'] * slots + pairs['nth']
  positions, labels = (np.zeros(rows * slots, np.int32) for _ in range(2))
  weights = np.zeros(rows * slots, np.float32)
  positions[where] = pairs['start']
  if predict:
    labels[where] = pairs['label']
    weights[where] = 1
  shape = lambda array: array.reshape(rows, slots)
  return {'cls_positions': shape(positions), 'next_sentence_labels': shape(labels), 'next_sentence_weights': shape(weights)}

"""What a kind of task is: how examples become model inputs, which head and objective learn them, what an answer is.

B examples, T tokens.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bert_jax.objectives import Objective
from input_pipeline import storage


@dataclasses.dataclass(frozen=True)
class Task:
  """One kind of task."""
  read: Callable[[storage.Path], list[Any]]
  """A file of examples -> the examples. Raises DataError that names file and line."""
  labels: Callable[[Sequence[Any]], tuple[str, ...]]
  """The classes among the training examples; () where the task has none."""
  encode: Callable[..., dict[str, np.ndarray]]
  """(examples, tokenizer, length T, labels) -> arrays [B ...]: input_ids, token_type_ids, position_ids, pair_ids, and
  targets."""
  objective: Callable[[tuple[str, ...]], Objective]
  """Labels -> what is learnt."""
  best: str
  """The figure of an evaluation by which checkpoints compare, such as 'task_accuracy'; more is better."""

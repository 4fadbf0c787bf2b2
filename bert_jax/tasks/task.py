"""What a task is: how files become examples, rows, targets, answers, and the official figures of these.

    DATA -(read)-> examples -(rows)-> rows -(model, `keep` of the objective's terms)-> outputs -(answers)-> answers
    (examples, answers) -(metrics)-> figures, -(write)-> official files

B rows of a batch, T tokens of a row.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.objectives import Objective
from input_pipeline import storage
from input_pipeline.vocabulary.tokenizer import Tokenizer

Answer = dict[str, Any]  # what is said of one example, JSON-able


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a task is told beside what all are told. A kind that has such settings has a class below this one, with
  defaults and docstrings: its fields are flags, its checks raise ConfigError."""


@dataclasses.dataclass(frozen=True)
class Defaults:
  """The settings with which a task is fine-tuned where nothing else is said; a task cites where it has others from."""
  epochs: int = 3
  size: int = 32
  max_length: int = 128
  learning_rate: float = 3e-5


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
  """One row of the model's input, not padded, of an example; a long example may have several."""
  input_ids: np.ndarray  # [T] int32, as are the next three
  token_type_ids: np.ndarray
  position_ids: np.ndarray
  pair_ids: np.ndarray  # 1, or 1, 2 … of a row of several texts that do not see each other
  targets: Mapping[str, np.ndarray]
  """What is to be said of the row, by the name in the batch: arrays [...] of the same shapes in every row; zeros where
  the example has no label."""
  example: int
  """Its number among the examples."""
  token_targets: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  """The same by token: arrays [T], padded with zeros as the row is."""


@dataclasses.dataclass(frozen=True)
class Encoding:
  """By what examples become rows, and outputs answers."""
  tokenizer: Tokenizer
  max_length: int
  """Tokens of a row at most."""
  labels: tuple[str, ...]
  own: Any
  """The task's own settings, of the class Task.settings."""
  training: bool = False
  """Whether the rows are to be learnt from: an example that nothing can be learnt from needs no row then."""


@dataclasses.dataclass(frozen=True)
class Shown:
  """An example and its answer, for people."""
  text: str
  predicted: str
  wanted: str | None  # None: the example has no label
  right: bool


@dataclasses.dataclass(frozen=True)
class Task:
  """A task, or a kind of them. In a batch of rows stand, beside the model's inputs [B T], their targets [B ...] and
  `weight` [B]: 1, and 0 of a row that fills up a batch, all of which is 0."""
  files: Mapping[str, tuple[str, ...]]
  """{split: names of files, of which the first that is in DATA is read}: train, validation, test, and others such as
  validation_mismatched, which is evaluated beside validation."""
  read: Callable[[Any, Any], list[Any]]
  """(file, or what `find` gives; own settings) -> the examples. Raises DataError that names file and line."""
  labels: Callable[[Sequence[Any]], tuple[str, ...]]
  """The classes among the training examples; () where the task has none."""
  rows: Callable[[Sequence[Any], Encoding], list[Row]]
  """The rows of examples, in their order. Raises DataError, for a label that is not among `labels` too."""
  objective: Callable[[tuple[str, ...], Any], Objective]
  """(labels, own settings) -> what is learnt. `keep` of its terms gives what an evaluation keeps of each row."""
  answers: Callable[[Sequence[Any], Sequence[Row], Sequence[Mapping[str, Any]], Encoding], list[Answer]]
  """(examples, rows, outputs, encoding) -> an answer for each example. outputs[i] is {term: what it keeps of rows[i]},
  a tree of NumPy arrays; those [T] may be longer than the row."""
  metrics: Callable[[Sequence[Any], Sequence[Answer]], dict[str, float]]
  """The official figures of labelled examples, computed on the host: accuracy, f1, matthews, exact_match …"""
  best: str
  """The one of these by which checkpoints compare; more is better."""
  shown: Callable[[Any, Answer], Shown]
  """An example and its answer in words."""
  write: Callable[[storage.Path, Sequence[Any], Sequence[Answer], str], None] | None = None
  """(directory, examples, answers, split): writes the official files of predictions; None: there are none."""
  settings: type[Settings] = Settings
  defaults: Defaults = Defaults()
  find: Callable[[storage.PathLike, str, Any], Any | None] | None = None
  """(DATA, split, own settings) -> what `read` reads of it in place of a file, None where there is no such split: of a
  task whose DATA may be other than a folder with `files`. None: it is one."""
  labelled: Callable[[Sequence[Any]], object] = len
  """Raises DataError, which names the file, where it does not say what is right of the examples: nothing can be judged
  by them. By default any will do."""

"""Where the examples of a split are: in the file of DATA with a name that the task knows, or that was given."""

import dataclasses
from typing import Any

from bert_jax.errors import require
from bert_jax.tasks.task import Settings, Task
from input_pipeline import storage

BESIDE = 'validation_'  # what the names of splits begin with that are evaluated beside validation


def find(task: Task, data: storage.PathLike, split: str, own: Settings, name: str = '') -> Any | None:
  """What `task.read` reads of a split: its file, or what the task finds in DATA; None where there is none.

  `name`: of a file in DATA, in place of the names that are usual.
  """
  if task.find is not None and not name:
    return task.find(data, split, own)
  directory = storage.path(data)
  return next((directory / name for name in ((name,) if name else task.files.get(split, ()))
               if (directory / name).exists()), None)


def read(task: Task, data: storage.PathLike, split: str, own: Settings, name: str = '', limit: int = 0,
         other: str = '') -> list[Any]:
  """The examples of a split, the first `limit` of them where that is not 0.

  `other`: the file that was named for the other one of train and validation. Raises ConfigError, DataError.
  """
  path: Any = find(task, data, split, own, name)
  names = name or ' or '.join(task.files.get(split, ())) or f'file for a split {split!r}, nor would it have a name'
  require(path is not None, f'{data} has no {names}: wanted a directory with the task\'s files for '
          f'{", ".join(task.files)}, or the names of others (`bert-jax finetune --files.train`, --files.validation)')
  if other and not name and getattr(path, 'divided', False):  # one file for both, and another is meant for one
    require(split == 'train', f'{data} has no table for {split} beside {other}: name it '
            f'(`bert-jax finetune --files.{split}`)')
    path = dataclasses.replace(path, divided=False)
  examples = task.read(path, own)
  return examples[:limit] if limit else examples


def beside_validation(task: Task, data: storage.PathLike, own: Settings) -> list[str]:
  """The splits that are evaluated beside validation, of those that are there: 'validation_mismatched'."""
  return [split for split in task.files if is_beside(split) and find(task, data, split, own)]


def is_beside(split: str) -> bool:
  return split.startswith(BESIDE)


def figure(split: str, name: str) -> str:
  """What a figure of a split beside validation is called: mismatched_accuracy is of validation_mismatched."""
  return f'{split.removeprefix(BESIDE)}_{name}'

"""The examples of a task as rows, answered by a model batch by batch, and what the answers are worth.

B rows of a batch, T tokens.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax import evaluate as held_out, program as program_lib
from bert_jax.parallel import mesh as mesh_lib
from bert_jax.tasks import splits
from bert_jax.tasks.batches import STEP, Batches, choose_lengths
from bert_jax.tasks.settings import Finetune
from bert_jax.tasks.table import TASKS
from bert_jax.tasks.task import Answer, Encoding, Row, Task
from input_pipeline import storage
from input_pipeline.errors import DataError


@dataclasses.dataclass(frozen=True)
class Answered:
  """What a model says of the examples of a split."""
  answers: Sequence[Answer]
  figures: dict[str, float]  # the official ones, and those of the objective


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """The examples of a split as rows, with all that makes answers and figures of what a model says of them."""
  task: Task
  examples: Sequence[Any]
  rows: Sequence[Row]
  encoding: Encoding

  def batches(self, config: Finetune, lengths: tuple[int, ...] = (), index: int = 0, parts: int = 1) -> Batches:
    """Its rows as batches, of which this process has part `index` of `parts`. `lengths`: those that are compiled."""
    longest = -(-max(len(row.input_ids) for row in self.rows) // STEP) * STEP
    if not lengths:
      lengths = choose_lengths(self.rows, config.batch.lengths)
    elif lengths[-1] < longest:
      lengths = *lengths, longest
    return Batches(self.rows, config.batch.size, lengths, config.batch.seed, self.encoding.tokenizer.pad_id, index,
                   parts)

  def answer(self, program: program_lib.Program, params, config: Finetune, lengths: tuple[int, ...] = (),
             labelled: bool = True, progress: bool = False) -> Answered:
    """An answer for each example, and the figures of all of them where they are `labelled`."""
    batches = self.batches(config, lengths, *mesh_lib.process_slice(program.mesh))
    outputs: list[Any] = [None] * len(self.rows)
    members: list[np.ndarray] = []

    def local() -> Iterator[dict[str, np.ndarray]]:
      for numbers, batch in batches.once():
        members.append(numbers)
        yield batch

    def keep(kept) -> None:
      for place, number in enumerate(members.pop(0)):
        outputs[number] = jax.tree.map(lambda x, place=place: x[place], kept)

    found = held_out.figures(program, params, local(), count=batches.steps, keep=keep, progress=progress)
    answers = self.task.answers(self.examples, self.rows, outputs, self.encoding)
    return Answered(answers, found | self.task.metrics(self.examples, answers) if labelled else {})

  @functools.cached_property
  def fingerprint(self) -> str:
    """SHA-256 of the rows."""
    found = hashlib.sha256()
    for row in self.rows:
      for value in (row.input_ids, row.token_type_ids, *row.token_targets.values(), *row.targets.values()):
        found.update(np.ascontiguousarray(value).tobytes())
    return found.hexdigest()


def read(config: Finetune, data_dir: storage.PathLike, split: str) -> list[Any]:
  """The examples of a split of DATA. Raises ConfigError, DataError."""
  files = config.files
  own = {'train': (files.train, files.train_examples, files.validation),
         'validation': (files.validation, files.validation_examples, files.train)}
  return splits.read(TASKS[config.task], data_dir, split, config.own, *own.get(split, ()))


def split_of(config: Finetune, examples: list[Any], tokenizer, training: bool = False) -> Split:
  """These examples as rows. Raises DataError."""
  task = TASKS[config.task]
  encoding = Encoding(tokenizer.marked, config.batch.max_length, config.labels, config.own, training)
  rows = task.rows(examples, encoding)
  if not rows:
    raise DataError(f'none of the {len(examples)} examples gives a row to read: wanted one at least')
  return Split(task, examples, rows, encoding)


def held_out_splits(config: Finetune, data_dir: storage.PathLike, tokenizer) -> dict[str, Split]:
  """Validation, and what is evaluated beside it, by name. Raises ConfigError, DataError."""
  beside = [] if config.files.validation else splits.beside_validation(TASKS[config.task], data_dir, config.own)
  return {name: split_of(config, read(config, data_dir, name), tokenizer) for name in ('validation', *beside)}


def answer_all(found: dict[str, Split], program: program_lib.Program, params, config: Finetune,
               lengths: tuple[int, ...] = (), progress: bool = False) -> tuple[Answered, dict[str, float]]:
  """(the answers of validation, the figures of all splits): mismatched_accuracy is of validation_mismatched."""
  every = {name: split.answer(program, params, config, lengths, progress=progress) for name, split in found.items()}
  figures = dict(every['validation'].figures)
  for name, answered in every.items():
    if name != 'validation':
      figures |= {f'{name.removeprefix("validation_")}_{key}': value for key, value in answered.figures.items()}
  return every['validation'], figures

"""The examples of a task as rows, answered by a model batch by batch, and what the answers are worth.

B rows of a batch, T tokens.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from input_pipeline.text import tabular

PLACES = 'place', 'file', 'lines'  # fields of examples that say where they stand


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
      lengths = choose_lengths(self.rows, config.lengths_of(len(self.rows)))
    elif lengths[-1] < longest:
      lengths = *lengths, longest
    return Batches(self.rows, config.batch.size, lengths, config.batch.seed, self.encoding.tokenizer.pad_id, index,
                   parts)

  def answer(self, program: program_lib.Program, params, config: Finetune, lengths: tuple[int, ...] = (),
             labelled: bool = True, progress: bool = False, stopped: Callable[[], bool] | None = None) -> Answered:
    """An answer for each example, and the figures of all of them where they are `labelled`; see held_out.figures."""
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

    found = held_out.figures(program, params, local(), count=batches.steps, keep=keep, progress=progress,
                             stopped=stopped)
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


def fingerprint(found: Mapping[str, Sequence[Any]]) -> str:
  """SHA-256 of all that the examples of splits say, whatever their files are called and wherever they lie."""
  hashed = hashlib.sha256()
  for name, examples in sorted(found.items()):
    hashed.update(f'{name} {len(examples)}\n'.encode())
    for example in examples:
      says = [getattr(example, field.name) for field in dataclasses.fields(example) if field.name not in PLACES]
      hashed.update(f'{says!r}\n'.encode(errors='surrogatepass'))
  return hashed.hexdigest()


def copies(found: Split, training: Split) -> float:
  """The share of the rows of a split that are rows of training, too."""
  learnt = {row.input_ids.tobytes() for row in training.rows}
  return sum(row.input_ids.tobytes() in learnt for row in found.rows) / len(found.rows)


def all_of(config: Finetune, data_dir: storage.PathLike) -> dict[str, list[Any]]:
  """The examples that a run on DATA learns from and is evaluated on. Raises ConfigError, DataError."""
  return {split: read(config, data_dir, split) for split in ('train', *held_out_names(config, data_dir))}


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


def is_file(data: storage.PathLike) -> bool:
  """Whether DATA is one file, which is read whole where it is not what a run was trained on."""
  return not str(data).startswith(tabular.TFDS) and storage.path(data).is_file()


def of_file(config: Finetune, path: storage.PathLike, tokenizer) -> dict[str, Split]:
  """All of one file as `validation`. Raises DataError, where it does not say what is right too."""
  task = TASKS[config.task]
  examples = task.read(storage.path(path), config.own)
  task.labelled(examples)
  return {'validation': split_of(config, examples, tokenizer)}


def held_out_splits(config: Finetune, data_dir: storage.PathLike, tokenizer) -> dict[str, Split]:
  """Validation, and what is evaluated beside it, by name. Raises ConfigError, DataError."""
  task = TASKS[config.task]
  found = {name: read(config, data_dir, name) for name in held_out_names(config, data_dir)}
  for examples in found.values():
    task.labelled(examples)
  return {name: split_of(config, examples, tokenizer) for name, examples in found.items()}


def held_out_names(config: Finetune, data_dir: storage.PathLike) -> list[str]:
  """Validation, and the splits that are evaluated beside it."""
  task = TASKS[config.task]
  return ['validation', *([] if config.files.validation else splits.beside_validation(task, data_dir, config.own))]


def answer_all(found: dict[str, Split], program: program_lib.Program, params, config: Finetune,
               lengths: tuple[int, ...] = (), progress: bool = False,
               stopped: Callable[[], bool] | None = None) -> tuple[Answered, dict[str, float]]:
  """(the answers of validation, the figures of all splits): mismatched_accuracy is of validation_mismatched."""
  every = {name: split.answer(program, params, config, lengths, progress=progress, stopped=stopped)
           for name, split in found.items()}
  figures = dict(every['validation'].figures)
  for name, answered in every.items():
    if name != 'validation':
      figures |= {splits.figure(name, key): value for key, value in answered.figures.items()}
  return every['validation'], figures

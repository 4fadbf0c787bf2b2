"""Classes or a number for a text or a pair of texts (arXiv:1810.04805 section 4.1; BERT's run_classifier.py).

Examples are rows of any table (tables.py); the tasks of GLUE are such with columns and classes of their own (glue.py).

B examples, T tokens, C classes.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from bert_jax.model.heads import Classes, Pooler
from bert_jax.objectives import Objective, Term, squared_error
from bert_jax.tasks import metrics, tables
from bert_jax.tasks.task import Answer, Encoding, Row, Settings, Shown, Task
from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.text import given, tabular

_MANY = 20  # classes; more of them may be the numbers of another column


@dataclasses.dataclass(frozen=True)
class Example:
  """A text, or a pair of texts, and what is to be said of it."""
  text: str
  text_pair: str | None
  label: str | float | None
  """A class or a number; None: not known, as in a test set."""
  place: str = ''
  """Where it stands: 'train.tsv, line 3'."""
  index: str = ''
  """Its number in the file, where the file tells one."""

# ---------------------------------------------------------------- reading


def read(part: tables.Part | storage.Path, own: tables.Columns, number: bool = False) -> list[Example]:
  """The examples of a split of a user's table; labels are text, or numbers where `number`.

  Raises DataError, which names the file and the line.
  """
  found = []
  for name in tables.names_of(part):
    table = tabular.read(name)
    text, pair, label = tables.choose(table, own)
    if not isinstance(part, tables.Part) or part.split == 'train':
      tables.tell(f'{name}: the text is {text!r}{f", with {pair!r}" if pair else ""}, the label '
                  f'{repr(label) if label else "nowhere"}; --text-column, --text-pair-column and --label-column choose '
                  'others')
    for row in table.rows:
      first, second = text_of(row, text), text_of(row, pair) if pair and row.cells.get(pair) is not None else None
      if tables.takes(part, own.validation_share, first, second):
        said = None if not label else number_of(row, label) if number else class_of(row, label)
        found.append(Example(first, second, said, row.place))
  return checked(found, part, own.label_column or ', '.join(tables.LABELS[:4]) + ' …')


def checked(examples: list[Example], part: tables.Part | storage.Path, label: str) -> list[Example]:
  """The examples, which are some, and labelled where they are learnt or evaluated. Raises DataError."""
  split = part.split if isinstance(part, tables.Part) else ''
  if not examples:
    why = ', with the share that a hash holds out (--validation-share)' if getattr(part, 'divided', False) else ''
    raise DataError(f'{part} holds no example{f" for {split}" if split else ""}{why}: wanted one in each row')
  if is_labelled(part):
    labelled(examples, label)
  return examples


def is_labelled(part: tables.Part | storage.Path) -> bool:
  """Whether each example of it must have a label."""
  return isinstance(part, tables.Part) and part.split.startswith(('train', 'validation'))


def labelled(examples: Sequence[Example], label: str = '') -> Sequence[Example]:
  """The examples, each of which has a label. Raises DataError, which names the column `label`."""
  bare = next((example for example in examples if example.label is None), None)
  if bare:
    raise DataError(f'{bare.place} has no label: wanted one in each row' + (f', in a column {label}' if label else ''))
  return examples


def text_of(row: tabular.Row, column: str, empty: bool = False) -> str:
  """A text in a cell; `empty`: whether it may be. Raises DataError."""
  text = row.cells.get(column)
  if not isinstance(text, str):
    raise DataError(f'{row.place}: column {column!r} holds ' + ('nothing' if text is None else f'{text!r:.40}')
                    + ', wanted a text')
  if not text.strip() and not empty:
    raise DataError(f'{row.place}: the text in column {column!r} is empty: leave the row out, or choose another column')
  if '\0' in text:
    raise DataError(f'{row.place}: the text in column {column!r} has a NUL byte: is the file damaged, or binary?')
  return str(given.checked(text, row.place))


def class_of(row: tabular.Row, column: str) -> str | None:
  """A class in a cell; a whole number is one, by its digits. None: there is none. Raises DataError."""
  cell = row.cells.get(column)
  if isinstance(cell, float) and cell.is_integer():
    cell = int(cell)
  if cell is None or isinstance(cell, float) and math.isnan(cell) or isinstance(cell, str) and not cell.strip():
    return None
  if not isinstance(cell, str | int):
    raise DataError(f'{row.place}: the label (column {column!r}) is {cell!r:.40}: wanted text or a whole number, the '
                    'name of a class; the task `regression` takes other numbers')
  return str(given.checked(str(cell).strip(), row.place))


def number_of(row: tabular.Row, column: str, least: float = -math.inf, most: float = math.inf) -> float | None:
  """A finite number in a cell; None: there is none. Raises DataError."""
  cell = row.cells.get(column)
  if cell is None or isinstance(cell, str) and not cell.strip():
    return None
  try:
    found = math.nan if isinstance(cell, bool) or '_' in str(cell) else float(cell)
  except (ValueError, TypeError, OverflowError):
    found = math.nan
  if not math.isfinite(found) or not least <= found <= most:
    span = '' if math.isinf(most) else f' from {least:g} to {most:g}'
    raise DataError(f'{row.place}: the label (column {column!r}) is {str(cell)[:40]!r}: wanted a number{span}')
  return found


def classes(examples: Sequence[Example]) -> tuple[str, ...]:
  """The labels in their order. Raises DataError where there is only one, or so many that they are none."""
  metrics.check_installed()  # before the hours of training, not after them
  where = examples[0].place.rpartition(', ')[0]
  labels = tuple(sorted({str(example.label) for example in labelled(examples)}))
  if len(labels) < 2:
    raise DataError(f'{where}: the training examples have only the label {labels[0]!r}: wanted two classes at least')
  if len(labels) > _MANY and (len(labels) == len(examples) or _are_numbers(labels)):
    raise DataError(f'{where}: the {len(examples):,} training examples have {len(labels):,} labels, such as '
                    f'{labels[-1]!r:.40}: is it the right column? The task `regression` takes numbers')
  return labels


def _are_numbers(labels: Sequence[str]) -> bool:
  """Whether all are numbers, and some have a fraction."""
  try:
    return any(not float(label).is_integer() for label in labels)
  except (ValueError, OverflowError):
    return False


def none(examples: Sequence[Example]) -> tuple[str, ...]:
  """No classes: the labels are numbers. Raises DataError where one is missing."""
  metrics.check_installed()
  labelled(examples)
  return ()

# ---------------------------------------------------------------- rows


def rows(examples: Sequence[Example], encoding: Encoding) -> list[Row]:
  """[CLS] A [SEP], or [CLS] A [SEP] B [SEP], with the target `label`.

  Too long texts lose tokens from the end of the longer one (run_classifier.py _truncate_seq_pair). Raises DataError for
  a label that is not among the encoding's.
  """
  tokenizer = encoding.tokenizer
  firsts = tokenizer.encode([example.text for example in examples])
  seconds = tokenizer.encode([example.text_pair or '' for example in examples])
  numbers = label_numbers(examples, encoding.labels)
  found = []
  for i, example in enumerate(examples):
    specials = 2 if example.text_pair is None else 3
    a, b = truncate_pair(list(firsts[i]), list(seconds[i]), encoding.max_length - specials)
    ids = [tokenizer.cls_id, *a, tokenizer.sep_id] + ([] if example.text_pair is None else [*b, tokenizer.sep_id])
    types = np.zeros(len(ids), np.int32)
    types[len(a) + 2:] = 1
    found.append(Row(np.array(ids, np.int32), types, np.arange(len(ids), dtype=np.int32), np.ones(len(ids), np.int32),
                     {'label': numbers[i]}, i))
  return found


def truncate_pair(a: list[int], b: list[int], room: int) -> tuple[list[int], list[int]]:
  """The longer of both loses its last token until both fit."""
  while len(a) + len(b) > room:
    (a if len(a) > len(b) else b).pop()
  return a, b


def label_numbers(examples: Sequence[Example], labels: tuple[str, ...]) -> np.ndarray:
  """Numbers of classes [B] int32; without `labels` the examples' own numbers, float32. 0 where an example has none.

  Raises DataError.
  """
  if not labels:
    return np.array([0 if example.label is None else example.label for example in examples], np.float32)
  numbers: dict[Any, int] = {label: number for number, label in enumerate(labels)} | {None: 0}
  strange = next((example for example in examples if example.label not in numbers), None)
  if strange:
    raise DataError(f'{strange.place}: the label {strange.label!r:.60} is not among those of the training examples: '
                    f'{", ".join(labels)[:300]}')
  return np.array([numbers[example.label] for example in examples], np.int32)

# ---------------------------------------------------------------- what is learnt


def task_logits(model, hidden, batch, seed=None):  # -> [B C]
  """run_classifier.py create_model: a dense layer on the pooled output, with dropout before it."""
  first = jnp.zeros((len(hidden), 1), jnp.int32)
  return model.classifier(model.pooler(hidden, first)[:, 0], batch.get('row_numbers'), seed)


def task_targets(batch):  # -> [B], [B]
  return batch['label'], batch['weight']


def head_flops(settings, batch, count: int) -> float:
  return Pooler.flops(settings, 1) + Classes.flops(settings, count)


def of_classes(labels: tuple[str, ...], own: Settings) -> Objective:
  head = functools.partial(Classes, count=len(labels))
  term = Term(task_logits, task_targets, functools.partial(head_flops, count=len(labels)), keep=lambda logits: logits)
  return Objective({'task': term}, {'pooler': Pooler, 'classifier': head}, huggingface='BertForSequenceClassification')


def of_numbers(labels: tuple[str, ...], own: Settings) -> Objective:
  head = functools.partial(Classes, count=1)
  number = lambda model, hidden, batch, seed=None: task_logits(model, hidden, batch, seed)[:, 0]
  term = Term(number, task_targets, functools.partial(head_flops, count=1), squared_error, keep=lambda x: x)
  return Objective({'task': term}, {'pooler': Pooler, 'classifier': head}, huggingface='BertForSequenceClassification')

# ---------------------------------------------------------------- what is said of an example


def class_answers(examples: Sequence[Example], rows: Sequence[Row], outputs: Sequence[Mapping],
                  encoding: Encoding) -> list[Answer]:
  """{'label': the class with the top score, 'probabilities': {class: …}}."""
  def answer(logits):  # [C]
    p = np.exp(logits - logits.max())
    return {'label': encoding.labels[int(logits.argmax())],
            'probabilities': dict(zip(encoding.labels, map(float, p / p.sum())))}
  return [answer(np.asarray(output['task'], np.float64)) for output in outputs]


def number_answers(examples: Sequence[Example], rows: Sequence[Row], outputs: Sequence[Mapping],
                   encoding: Encoding) -> list[Answer]:
  """{'label': a number}."""
  return [{'label': float(output['task'])} for output in outputs]


def figures(examples: Sequence[Example], answers: Sequence[Answer], names: Sequence[str]) -> dict[str, float]:
  """These figures (metrics.METRICS) of the examples that have a label."""
  both = [(answer['label'], example.label) for example, answer in zip(examples, answers) if example.label is not None]
  if not both:
    return {}
  predictions, labels = zip(*both)
  return metrics.figures(names, predictions, labels, tuple(answers[0].get('probabilities', ())))


def shown(example: Example, answer: Answer, number: bool = False) -> Shown:
  """A number is right where it is off by less than half of 1."""
  text = example.text if example.text_pair is None else f'{example.text} ||| {example.text_pair}'
  found, wanted = answer['label'], example.label
  if number:
    return Shown(text, f'{found:.2f}', None if wanted is None else f'{wanted:.2f}',
                 wanted is not None and abs(found - float(wanted)) < .5)
  return Shown(text, found, wanted if wanted is None else str(wanted), found == wanted)


def write(directory: storage.Path, examples: Sequence[Example], answers: Sequence[Answer], split: str) -> None:
  """SPLIT_results.tsv, as run_classifier.py writes test_results.tsv: for each example the probabilities of the classes
  in their order, or the number."""
  rows = [answer.get('probabilities', {'': answer['label']}).values() for answer in answers]
  storage.write_whole(directory / f'{split}_results.tsv', ''.join('\t'.join(map(str, row)) + '\n' for row in rows))


FILES = {split: tuple(f'{split}.{kind}' for kind in ('csv', 'tsv', 'jsonl', 'parquet')) for split in tables.SPLITS}
CLASSIFICATION = Task(
    FILES, read, classes, rows, of_classes, class_answers, functools.partial(figures, names=('accuracy', 'f1')),
    'accuracy', shown, write, tables.Columns, find=tables.find, labelled=labelled)
REGRESSION = Task(
    FILES, functools.partial(read, number=True), none, rows, of_numbers, number_answers,
    functools.partial(figures, names=('pearson', 'spearman')), 'pearson', functools.partial(shown, number=True), write,
    tables.Columns, find=tables.find, labelled=labelled)

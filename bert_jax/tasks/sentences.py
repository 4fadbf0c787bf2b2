"""Classes or a number for a text or a pair of texts (arXiv:1810.04805 section 4.1; BERT's run_classifier.py).

Examples are lines of JSON: {"text": …, "text_pair": … or none, "label": …}.

B examples, T tokens, C classes.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from bert_jax.model.heads import Classes, Pooler
from bert_jax.objectives import Objective, Term, squared_error
from bert_jax.tasks.task import Answer, Encoding, Row, Settings, Shown, Task
from input_pipeline import storage
from input_pipeline.errors import DataError


@dataclasses.dataclass(frozen=True)
class Example:
  """A text, or a pair of texts, and what is to be said of it."""
  text: str
  text_pair: str | None
  label: str | float


def read(path: storage.Path, own: Settings, number: bool = False) -> list[Example]:
  """The examples of a file of JSON lines; labels are text, or numbers where `number`. Raises DataError."""
  del own
  examples = []
  try:
    lines = path.read_text(encoding='utf-8').split('\n')
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f'{path} cannot be read ({error}): wanted lines of JSON in UTF-8') from error
  for place, line in enumerate(lines, 1):
    if line.strip():
      examples.append(_example(line, f'{path}, line {place}', number))
  if not examples:
    raise DataError(f'{path} holds no example: wanted lines such as {{"text": "…", "label": "…"}}')
  return examples


def _example(line: str, place: str, number: bool) -> Example:
  try:
    fields = json.loads(line)
    text, pair, label = fields['text'], fields.get('text_pair'), fields['label']
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
    raise DataError(f'{place} is no example ({type(error).__name__}: {error}): wanted {{"text": …, "label": …}}, '
                    'and "text_pair" for pairs') from error
  if not isinstance(text, str) or not isinstance(pair, str | None):
    raise DataError(f'{place}: text is {type(text).__name__}, text_pair {type(pair).__name__}; wanted text')
  if number and not _is_number(label):
    raise DataError(f'{place}: label is {str(label):.40}; wanted a number, as the task is regression')
  if not number and not isinstance(label, str | int):
    raise DataError(f'{place}: label is {label!r}; wanted text or a whole number, the name of a class')
  return Example(text, pair, float(label) if number else str(label))


def _is_number(label) -> bool:
  """Whether it is a finite number that a float can hold; True and False are none."""
  try:
    return isinstance(label, int | float) and not isinstance(label, bool) and math.isfinite(float(label))
  except OverflowError:
    return False


def classes(examples: Sequence[Example]) -> tuple[str, ...]:
  """The labels in their order. Raises DataError where there is only one."""
  labels = tuple(sorted({str(example.label) for example in examples}))
  if len(labels) < 2:
    raise DataError(f'the training examples have only the label {", ".join(labels)}: wanted two classes at least')
  return labels


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
  """Numbers of classes [B] int32; without `labels` the examples' own numbers, float32. Raises DataError."""
  if not labels:
    return np.array([example.label for example in examples], np.float32)
  strange = sorted({str(example.label) for example in examples} - set(labels))
  if strange:
    raise DataError(f'the label {strange[0]!r} is not among those of the training examples: {", ".join(labels)}')
  return np.array([labels.index(str(example.label)) for example in examples], np.int32)

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


def class_answers(examples: Sequence[Example], rows: Sequence[Row], outputs: Sequence[Mapping], encoding: Encoding):
  """{'label': the class with the top score, 'probabilities': {class: …}}."""
  def answer(logits):  # [C]
    p = np.exp(logits - logits.max())
    return {'label': encoding.labels[int(logits.argmax())],
            'probabilities': dict(zip(encoding.labels, map(float, p / p.sum())))}
  return [answer(np.asarray(output['task'], np.float64)) for output in outputs]


def number_answers(examples: Sequence[Example], rows: Sequence[Row], outputs: Sequence[Mapping], encoding: Encoding):
  """{'label': a number}."""
  return [{'label': float(output['task'])} for output in outputs]


def accuracy(examples: Sequence[Example], answers: Sequence[Answer]) -> dict[str, float]:
  return {'accuracy': float(np.mean([example.label == answer['label'] for example, answer in zip(examples, answers)]))}


def correlations(examples: Sequence[Example], answers: Sequence[Answer]) -> dict[str, float]:
  """Pearson's r; 0 where either side is constant."""
  x, y = (np.array(side, np.float64) for side in zip(*((a['label'], e.label) for e, a in zip(examples, answers))))
  return {'pearson': float(np.corrcoef(x, y)[0, 1]) if len(x) > 1 and x.std() and y.std() else 0.0}


def shown(example: Example, answer: Answer, number: bool = False) -> Shown:
  """A number is right where it is off by less than half of 1."""
  text = example.text if example.text_pair is None else f'{example.text} ||| {example.text_pair}'
  found, wanted = answer['label'], example.label
  if number:
    return Shown(text, f'{found:.2f}', f'{wanted:.2f}', abs(found - float(wanted)) < .5)
  return Shown(text, found, str(wanted), found == wanted)


FILES = {split: (f'{split}.jsonl',) for split in ('train', 'validation', 'test')}
CLASSIFICATION = Task(FILES, read, classes, rows, of_classes, class_answers, accuracy, 'accuracy', shown)
REGRESSION = Task(FILES, functools.partial(read, number=True), lambda examples: (), rows, of_numbers, number_answers,
                  correlations, 'pearson', functools.partial(shown, number=True))

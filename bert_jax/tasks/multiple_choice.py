"""Multiple choice: which of some continuations goes on with a text best (arXiv:1810.04805 section 4.4, SWAG).

B rows, C choices of a row, T tokens of all choices of a row, D hidden.
"""

import csv
import dataclasses
import functools
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from bert_jax.errors import require
from bert_jax.model.heads import OneScore, Pooler
from bert_jax.objectives import Objective, Term
from bert_jax.tasks.sentences import truncate_pair
from bert_jax.tasks.task import Answer, Defaults, Encoding, Row, Settings, Shown, Task
from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.text import given

TEXT, ENDING, LABEL = 'startphrase', 'ending', 'label'  # columns of SWAG's train.csv; ending0, ending1 …
WANTED = f'{{"{TEXT}": "…", "choices": ["…", "…"], "answer": 0}}'
LEAST = 4  # tokens of a choice: [CLS], one of each text, [SEP] after each would be 5, of an empty text 4


@dataclasses.dataclass(frozen=True)
class Choice:
  """A text, what may go on with it, and which does."""
  text: str
  choices: tuple[str, ...]
  answer: int | None
  """None: the file does not say."""
  place: str = dataclasses.field(default='', compare=False)
  """Where it stands: 'train.csv, line 3'."""


def read(path: storage.Path, own: Settings) -> list[Choice]:
  """SWAG's original CSV, or lines of JSON {"startphrase": …, "choices": […], "answer": 2}. Raises DataError."""
  content = given.whole(path)
  read_all = _of_json if content.lstrip().startswith('{') else _of_csv
  found = list(read_all(content, path)) if content.strip() else []
  if not found:
    raise DataError(f'{path} holds no example: wanted CSV with the columns {TEXT}, {ENDING}0 …, {LABEL}, or lines of '
                    f'JSON such as {WANTED}')
  _, first = found[0]
  for place, example in found:
    if len(example.choices) != len(first.choices):
      raise DataError(f'{path}, line {place} has {len(example.choices)} choices, the first example has '
                      f'{len(first.choices)}: wanted as many everywhere')
    if (example.answer is None) != (first.answer is None):
      raise DataError(f'{path}, line {place} has {"no" if example.answer is None else "an"} answer, unlike the first '
                      'example: wanted one everywhere, or nowhere')
  return [example for _, example in found]


def _of_csv(content: str, path: storage.Path) -> Iterator[tuple[int, Choice]]:
  """(line, example) of SWAG's train.csv, val.csv and test.csv, which has no label."""
  lines = csv.reader(io.StringIO(content, newline=''), strict=True)
  try:
    heading = next(lines, [])
    endings = [name for name in heading if name.removeprefix(ENDING).isdecimal() and name.startswith(ENDING)]
    if TEXT not in heading or len(endings) < 2:
      raise DataError(f'{path}, line 1 has the columns {", ".join(heading)[:200]}: wanted {TEXT}, {ENDING}0, {ENDING}1 '
                      f'… and {LABEL}, as SWAG\'s train.csv has them')
    for values in lines:
      place = lines.line_num
      if not values:
        continue
      if len(values) != len(heading):
        raise DataError(f'{path}, line {place} has {len(values)} values: wanted {len(heading)}, as line 1 has columns')
      fields = dict(zip(heading, values))
      label: Any = fields.get(LABEL) or None
      if label and label.isascii() and label.isdecimal():
        label = int(label[:9])
      yield place, _example(fields[TEXT], [fields[name] for name in endings], label, f'{path}, line {place}')
  except csv.Error as error:
    raise DataError(f'{path}, line {lines.line_num}: {error}: wanted CSV') from error


def _of_json(content: str, path: storage.Path) -> Iterator[tuple[int, Choice]]:
  """(line, example)"""
  for number, line in enumerate(content.split('\n'), 1):
    if not line.strip():
      continue
    place = f'{path}, line {number}'
    try:
      fields = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise DataError(f'{place} is no JSON ({error}): wanted {WANTED}') from error
    if not isinstance(fields, Mapping) or TEXT not in fields or 'choices' not in fields:
      raise DataError(f'{place} has no {TEXT} or no choices: wanted {WANTED}')
    yield number, _example(fields[TEXT], fields['choices'], fields.get('answer'), place)


def _example(text: Any, choices: Any, answer: Any, place: str) -> Choice:
  if not isinstance(text, str) or not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
    raise DataError(f'{place}: {TEXT} is {str(text):.40}, and the choices are {str(choices):.40}: wanted text, and a '
                    'list of texts')
  if len(choices) < 2:
    raise DataError(f'{place} has {len(choices)} choices: wanted two at least')
  if answer is not None and (type(answer) is not int or not 0 <= answer < len(choices)):
    raise DataError(f'{place} says that {str(answer):.40} is right: wanted a whole number from 0 to {len(choices) - 1}')
  return Choice(text, tuple(choices), answer, place)


def check_answers(examples: Sequence[Choice], what: str) -> None:
  """Raises DataError where the file has no answers; one file has them of all its examples, or of none."""
  if examples[0].answer is None:
    raise DataError(f'{examples[0].place}: the examples to {what} on have no answer: wanted a file with the column '
                    f'{LABEL}, or "answer"')


def places(examples: Sequence[Choice]) -> tuple[str, ...]:
  """The names of the choices: '0', '1' … Raises DataError where the training file has no answers."""
  check_answers(examples, 'train')
  return tuple(map(str, range(len(examples[0].choices))))


def rows(examples: Sequence[Choice], encoding: Encoding) -> list[Row]:
  """All choices of an example in one row, none of which sees another: [CLS] text [SEP] choice [SEP] [CLS] text …

  The targets are `cls_positions` [C] and `label`. Each choice has an equal part of max_length. Raises DataError where
  an example has another number of choices than those that were trained on, ConfigError.
  """
  tokenizer, C = encoding.tokenizer, len(encoding.labels)
  room = encoding.max_length // C
  require(room > LEAST, f'batch.max_length is {encoding.max_length}: wanted {(LEAST + 1) * C} at least, as {C} choices '
          'share it')
  if len(examples[0].choices) != C:  # one file's examples have as many
    raise DataError(f'{examples[0].place}: the examples have {len(examples[0].choices)} choices: wanted {C}, as the '
                    'training examples have')
  texts = tokenizer.encode([example.text for example in examples])
  endings = iter(tokenizer.encode([choice for example in examples for choice in example.choices]))
  found = []
  for i, example in enumerate(examples):
    parts = [truncate_pair(list(texts[i]), list(next(endings)), room - 3) for _ in example.choices]
    ids = [[tokenizer.cls_id, *a, tokenizer.sep_id, *b, tokenizer.sep_id] for a, b in parts]
    types = [[0] * (len(a) + 2) + [1] * (len(b) + 1) for a, b in parts]
    lengths = np.array([len(of_choice) for of_choice in ids])
    begins = np.cumsum(lengths) - lengths
    flat = lambda lists: np.array([x for of_choice in lists for x in of_choice], np.int32)
    targets = {'cls_positions': begins.astype(np.int32), 'label': np.int32(example.answer or 0)}
    found.append(Row(flat(ids), flat(types), flat(map(range, lengths)),
                     np.repeat(np.arange(1, C + 1, dtype=np.int32), lengths), targets, i))
  return found

# ---------------------------------------------------------------- what is learnt


def choice_logits(model, hidden, batch, seed=None):  # -> [B C]
  """Section 4.4: the product of a vector with each choice's [CLS]; that is pooled, as transformers has it."""
  pooled = model.pooler(hidden, batch['cls_positions'])  # [B C D]
  B, C, D = pooled.shape
  numbers = jnp.asarray(batch['row_numbers'] if 'row_numbers' in batch else jnp.arange(B))
  each = numbers[:, None] * C + jnp.arange(C, dtype=numbers.dtype)[None]
  return model.choice(pooled.reshape(B * C, D), each.reshape(-1), seed).reshape(B, C)


def choice_targets(batch):  # -> [B], [B]
  return batch['label'], batch['weight']


def objective(labels: tuple[str, ...], own: Settings) -> Objective:
  C = len(labels)
  flops = lambda settings, batch: Pooler.flops(settings, C) + C * OneScore.flops(settings, 1)
  return Objective({'choice': Term(choice_logits, choice_targets, flops, keep=lambda logits: logits)},
                   {'pooler': Pooler, 'choice': OneScore}, huggingface='BertForMultipleChoice')

# ---------------------------------------------------------------- what is said of an example


def answers(examples: Sequence[Choice], rows: Sequence[Row], outputs: Sequence[Mapping],
            encoding: Encoding) -> list[Answer]:
  """{'answer': the number of the choice with the top score, 'probabilities': […]}."""
  found = []
  for output in outputs:
    logits = np.asarray(output['choice'], np.float64)  # [C]
    powers = np.exp(logits - logits.max())
    found.append({'answer': int(logits.argmax()), 'probabilities': (powers / powers.sum()).tolist()})
  return found


def accuracy(examples: Sequence[Choice], answers: Sequence[Answer]) -> dict[str, float]:
  """The share of right choices. Raises DataError where the file does not say which are."""
  check_answers(examples, 'evaluate')
  return {'accuracy': float(np.mean([example.answer == answer['answer']
                                     for example, answer in zip(examples, answers, strict=True)]))}


def shown(example: Choice, answer: Answer) -> Shown:
  wanted = None if example.answer is None else example.choices[example.answer]
  return Shown(example.text, example.choices[answer['answer']], wanted, answer['answer'] == example.answer)


# Section 4.4: batch 16, 2e-5, 3 epochs. 80 tokens a choice hold all of SWAG, but for a few.
SWAG = Task({'train': ('train.csv', 'train.jsonl'),
             'validation': ('val.csv', 'validation.csv', 'validation.jsonl'),
             'test': ('test.csv', 'test.jsonl')}, read, places, rows, objective, answers, accuracy, 'accuracy', shown,
            defaults=Defaults(3, 16, 320, 2e-5), labelled=functools.partial(check_answers, what='evaluate'))

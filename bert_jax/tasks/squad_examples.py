"""Questions on a text as SQuAD's files have them, 1.1 and 2.0, and CMRC 2018 in the same layout (arXiv:1606.05250,
arXiv:1806.03822, arXiv:1810.07366).

{"data": [{"paragraphs": [{"context": …, "qas": [
    {"id": …, "question": …, "answers": [{"text": …, "answer_start": …}], "is_impossible": false}]}]}]}
"""

import dataclasses
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.text import given

SPACE = ' \t\r\n\u202f'  # run_squad.py is_whitespace
# What BERT's tokenizer has as a word of its own wherever it stands: an ideograph (tokenization.py _is_chinese_char),
# and the punctuation of text without spaces.
ALONE = ('\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f'
         '\U0002b820-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f'
         '、。，！？：；（）《》〈〉「」『』【】“”‘’–—…·～')
WORD = re.compile(f'[{ALONE}]|[^{ALONE}{SPACE}]+')
NAMED = 5  # questions that a warning names
WANTED = {str: 'text', int: 'a whole number', list: 'a list', dict: 'an object', bool: 'true or false'}


@dataclasses.dataclass(frozen=True)
class Gold:
  """An answer of the file."""
  text: str
  start: int | None
  """Where in the context it begins; None: it does not stand there."""


@dataclasses.dataclass(frozen=True)
class Question:
  """A question on a context, which those of a paragraph share."""
  id: str
  question: str
  context: str
  answers: tuple[Gold, ...] | None
  """(): the text does not answer it; None: the file does not say."""
  place: str = dataclasses.field(default='', compare=False)
  """Where it stands: 'train.json: data[0].paragraphs[2].qas[1]'."""

  @property
  def unaligned(self) -> int:
    """How many of its answers do not stand where the file says."""
    return sum(answer.start is None for answer in self.answers or ())


def read(path: storage.Path, unanswerable: bool = False) -> list[Question]:
  """The questions of a file. `unanswerable`: whether some may have no answer, as in SQuAD 2.0.

  A warning names those whose answer is not in the context where the file says: nothing is learnt from these. Raises
  DataError, by file and place.
  """
  questions = list(_questions(_parsed(path), path, unanswerable))
  if not questions:
    raise DataError(f'{path} holds no question: wanted {{"data": [{{"paragraphs": [{{"context": …, "qas": […]}}]}}]}}')
  places: dict[str, str] = {}
  for place, question in questions:
    if question.id in places:
      raise DataError(f'{path}: {place} and {places[question.id]} both have the id {question.id!r:.60}: wanted each '
                      'once, as predictions go by it')
    places[question.id] = place
  given = {question.answers is not None for _, question in questions}
  if len(given) > 1:
    lacking = next(place for place, question in questions if question.answers is None)
    raise DataError(f'{path}: {lacking} has no "answers", other questions have: wanted them of all, or of none')
  wrong = [question for _, question in questions if question.unaligned]
  if wrong:
    names = ', '.join(question.id for question in wrong[:NAMED])
    more = f' and {len(wrong) - NAMED:,} more' if len(wrong) > NAMED else ''
    warnings.warn(f'{path}: {sum(question.unaligned for question in wrong):,} answers to {len(wrong):,} of '
                  f'{len(questions):,} questions do not stand in the context at their answer_start, and are not learnt '
                  f'from: {names}{more}', stacklevel=2)
  return [question for _, question in questions]


def check_answers(questions: Sequence[Question], what: str) -> None:
  """Raises DataError where the file has no answers; one file has them of all its questions, or of none."""
  if questions[0].answers is None:
    raise DataError(f'{questions[0].place}: the questions to {what} on have no "answers": wanted a file of SQuAD\'s '
                    'that has them')


def _parsed(path: storage.Path) -> Any:
  content = given.whole(path)
  try:
    return json.loads(content)
  except json.JSONDecodeError as error:
    raise DataError(f'{path}, line {error.lineno}, column {error.colno}: {error.msg}: wanted JSON as SQuAD has '
                    'it') from error
  except (RecursionError, ValueError) as error:  # nested too deep; a number of thousands of digits
    raise DataError(f'{path} is no JSON that can be read ({error}): wanted a file as SQuAD has them') from error


def _field(fields: Any, name: str, kind: type, place: str) -> Any:
  """fields[name], which must be of this kind. Raises DataError."""
  found = fields.get(name) if isinstance(fields, Mapping) else None
  if type(found) is not kind:
    what = f'{name} {json.dumps(found):.40}' if isinstance(fields, Mapping) and name in fields else f'no {name}'
    raise DataError(f'{place} has {what}: wanted {WANTED[kind]}')
  return found


def _questions(file: Any, path: storage.Path, unanswerable: bool) -> Iterator[tuple[str, Question]]:
  """(place in the file, question)."""
  for i, article in enumerate(_field(file, 'data', list, str(path))):
    for j, paragraph in enumerate(_field(article, 'paragraphs', list, f'{path}: data[{i}]')):
      place = f'data[{i}].paragraphs[{j}]'
      context = _field(paragraph, 'context', str, f'{path}: {place}')
      if not context.strip():
        raise DataError(f'{path}: {place} has an empty context: wanted the text that its questions are about')
      for k, fields in enumerate(_field(paragraph, 'qas', list, f'{path}: {place}')):
        yield f'{place}.qas[{k}]', _question(fields, context, f'{path}: {place}.qas[{k}]', unanswerable)


def _question(fields: Any, context: str, place: str, unanswerable: bool) -> Question:
  name, text = _field(fields, 'id', str, place), _field(fields, 'question', str, place)
  if 'answers' not in fields:
    return Question(name, text, context, None, place)
  answers = tuple(_gold(answer, context, f'{place}.answers[{i}]')
                  for i, answer in enumerate(_field(fields, 'answers', list, place)))
  if not answers and not unanswerable:
    raise DataError(f'{place} ({name:.60}) has no answer: every question of SQuAD 1.1 has one; the task squad2 takes '
                    'questions without')
  if unanswerable and 'is_impossible' in fields and _field(fields, 'is_impossible', bool, place) == bool(answers):
    raise DataError(f'{place} ({name:.60}) has is_impossible {json.dumps(fields["is_impossible"])} and {len(answers)} '
                    'answers: wanted answers where it is false, and none where it is true')
  return Question(name, text, context, answers, place)


def _gold(fields: Any, context: str, place: str) -> Gold:
  text, start = _field(fields, 'text', str, place), _field(fields, 'answer_start', int, place)
  return Gold(text, start if stands_at(text, context, start) else None)


def stands_at(text: str, context: str, start: int) -> bool:
  """Whether the words of `context` from character `start` on, as many as `text` touches, have it among them.

  run_squad.py read_squad_examples, which leaves out others in training.
  """
  if not text.strip() or not 0 <= start < len(context):
    return False
  if context.startswith(text, start):
    return True
  end = min(start + len(text), len(context))
  touched = [match.span() for match in WORD.finditer(context) if match.end() > start and match.start() < end]
  return bool(touched) and ' '.join(text.split()) in ' '.join(context[touched[0][0]:touched[-1][1]].split())

"""A tag for each word: named entities of CoNLL files, or other tags (arXiv:1810.04805 sections 4 and 5.3).

A word's tag is read at its first piece. B rows, T tokens of a row, M = B T of all rows, D hidden, C tags.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import jax.numpy as jnp
import numpy as np

from bert_jax.errors import require
from bert_jax.fields import one_of, require_fields
from bert_jax.model.heads import TokenClasses
from bert_jax.objectives import Objective, Term
from bert_jax.tasks import conll
from bert_jax.tasks.conll import OUTSIDE, SCHEMES, Columns, Sentence
from bert_jax.tasks.task import Answer, Encoding, Row, Settings, Shown, Task
from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.ranges import Within

if TYPE_CHECKING:
  SchemeName = str
else:
  SchemeName = one_of(SCHEMES)


Column = Annotated[int, Within(-1000, 1000)]


@dataclasses.dataclass(frozen=True)
class WordTags(Settings):
  """How files of words and tags are read."""
  word_column: Column = 0
  """Which column of a line is the word."""
  tag_column: Column = -1
  """Which column is its tag; -1: the last."""
  comment: str = ''
  """What lines begin with that are left out, such as '# '; by default none are: a # may begin a word."""
  context: bool = False
  """Whether a row is filled up with the words of its document before and after it, as in section 5.3; documents begin
  with -DOCSTART-, and a file without such lines is one."""

  def __post_init__(self):
    require_fields(self, 'own.')
    require(self.word_column != self.tag_column, f'own.word_column and own.tag_column are both {self.word_column}: '
            'wanted two columns')


@dataclasses.dataclass(frozen=True)
class Entities(WordTags):
  """How files of words and the tags of entities are read."""
  scheme: SchemeName = 'auto'
  """How tags mark entities: iob2, iob1 (also reads what is neither), bioes; auto: told by the file."""


def read(path: storage.Path, own: Any) -> list[Sentence]:
  columns = Columns(own.word_column, own.tag_column, own.comment)
  return conll.read(path, columns, getattr(own, 'scheme', ''))


def word_tags(examples: Sequence[Sentence]) -> tuple[str, ...]:
  """The tags of the training examples, in order. Raises DataError where there is only one, or none."""
  labels = tuple(sorted({tag for sentence in examples for tag in sentence.tags}))
  if len(labels) < 2:
    raise DataError(f'{examples[0].file} has {f"only the tag {labels[0]}" if labels else "words without tags"}: wanted '
                    'two tags at least to learn')
  return labels


def entity_tags(examples: Sequence[Sentence]) -> tuple[str, ...]:
  """O, and B- and I- of each type of entity of the training examples. Raises DataError where there is none."""
  import seqeval.metrics  # noqa: F401  that it is missing is better known before the training than after it
  kinds = sorted({tag[2:] for sentence in examples for tag in sentence.tags if tag != OUTSIDE})
  if not kinds:
    raise DataError(f'{examples[0].file} has {"no entity" if examples[0].tags else "words without tags"}: wanted tags '
                    'such as B-PER to learn')
  return OUTSIDE, *(f'{letter}-{kind}' for kind in kinds for letter in 'BI')

# ---------------------------------------------------------------- rows


def rows(examples: Sequence[Sentence], encoding: Encoding) -> list[Row]:
  """[CLS] words [SEP], each word scored in one row: `tag` [T] at its first piece, where `first` [T] is 1.

  A sentence, or with own.context a document, that is too long is cut into parts of half a row, and each is filled up
  with the words before and after it. A word without a piece is [UNK]. Raises DataError for a tag that is not among the
  encoding's.
  """
  number = {label: i for i, label in enumerate(encoding.labels)}
  for sentence in examples:
    for tag, line in zip(sentence.tags, sentence.lines):
      if tag not in number:
        raise DataError(f'{sentence.file}, line {line}: the tag {tag:.40} is not among those of the training examples: '
                        f'{", ".join(encoding.labels)}')
  return list(itertools.chain.from_iterable(
      _rows(first, sentences, number, encoding) for first, sentences in _texts(examples, encoding.own.context)))


def _texts(examples: Sequence[Sentence], context: bool) -> Iterator[tuple[int, Sequence[Sentence]]]:
  """The number of the first sentence, and the sentences, of each text whose words may be seen together."""
  key = (lambda i: (examples[i].file, examples[i].document)) if context else (lambda i: i)
  for _, found in itertools.groupby(range(len(examples)), key):
    numbers = list(found)
    yield numbers[0], [examples[i] for i in numbers]


def _rows(first: int, sentences: Sequence[Sentence], number: Mapping[str, int], encoding: Encoding) -> Iterator[Row]:
  """The rows of one text."""
  tokenizer, room = encoding.tokenizer, encoding.max_length - 2
  words = [word for sentence in sentences for word in sentence.words]
  tags = [number[tag] for sentence in sentences for tag in sentence.tags] or [0] * len(words)
  of_word = np.repeat(np.arange(first, first + len(sentences)), [len(sentence.words) for sentence in sentences])
  pieces = [ids[:room] if len(ids) else np.array([tokenizer.unk_id], np.int32) for ids in tokenizer.encode(words)]
  sizes = [len(ids) for ids in pieces]
  for start, end in parts(sizes, room):
    left, right = around(sizes, start, end, room)
    begins = 1 + np.cumsum([0, *sizes[left:right]])  # in the row, after [CLS]
    ids = np.concatenate([[tokenizer.cls_id], *pieces[left:right], [tokenizer.sep_id]]).astype(np.int32)
    zeros = np.zeros(len(ids), np.int32)
    at = begins[start - left:end - left]
    scored = {'first': zeros.astype(np.float32), 'tag': zeros.copy()}
    scored['first'][at], scored['tag'][at] = 1, tags[start:end]
    yield Row(ids, zeros, np.arange(len(ids), dtype=np.int32), zeros + 1, {}, int(of_word[start]), scored)


def parts(sizes: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
  """Runs of words (start, end) whose `sizes` in pieces fit: one of all where it fits, else of half the room."""
  most = room if sum(sizes) <= room else room // 2
  start, total = 0, 0
  for i, size in enumerate(sizes):
    if i > start and total + size > most:
      yield start, i
      start, total = i, 0
    total += size
  yield start, len(sizes)


def around(sizes: Sequence[int], start: int, end: int, room: int) -> tuple[int, int]:
  """The widest run of words about start … end that fits, with as many pieces on both sides as there can be."""
  left, right, used = start, end, sum(sizes[start:end])
  before = after = 0
  while True:
    to_left = left > 0 and used + sizes[left - 1] <= room
    to_right = right < len(sizes) and used + sizes[right] <= room
    if to_left and (before <= after or not to_right):
      left -= 1
      before += sizes[left]
      used += sizes[left]
    elif to_right:
      after += sizes[right]
      used += sizes[right]
      right += 1
    else:
      return left, right

# ---------------------------------------------------------------- what is learnt


def token_numbers(hidden, batch):  # [B T D], {[B ...]} -> [M]
  """What dropout knows each token by, as the encoder does."""
  B, T = hidden.shape[:2]
  numbers = jnp.asarray(batch.get('row_numbers', jnp.arange(B))).astype(jnp.uint32)
  return (numbers[:, None] * jnp.uint32(T) + jnp.arange(T, dtype=jnp.uint32)[None]).reshape(-1)


def tag_logits(model, hidden, batch, seed=None):  # -> [M C]
  """A dense layer on each token's last state, with dropout before it (figure 4 d)."""
  return model.tags(hidden.reshape(-1, hidden.shape[-1]), token_numbers(hidden, batch), seed)


def tag_targets(batch):  # -> [B T], [B T]
  return batch['tag'], batch['first']


def term_of(logits: Callable, flops: Callable) -> Term:
  """What any head that tags words learns and keeps: the number of each token's best tag [M]."""
  return Term(logits, tag_targets, flops, keep=lambda logits: logits.argmax(-1).astype(jnp.int32))


def objective(labels: tuple[str, ...], own: Settings) -> Objective:
  head = functools.partial(TokenClasses, count=len(labels))
  flops = lambda settings, batch: batch.sequence_length * TokenClasses.flops(settings, len(labels))
  return Objective({'tags': term_of(tag_logits, flops)}, {'tags': head}, huggingface='BertForTokenClassification')

# ---------------------------------------------------------------- what is said of an example


def answers(examples: Sequence[Sentence], rows: Sequence[Row], outputs: Sequence[Mapping[str, Any]],
            encoding: Encoding) -> list[Answer]:
  """{'words': […], 'tags': […]}: rows hold the words of all examples in their order, each scored once."""
  found = np.concatenate([np.asarray(output['tags'])[:len(row.input_ids)][row.token_targets['first'] > 0]
                          for row, output in zip(rows, outputs, strict=True)])
  tags = iter(found.tolist())
  return [{'words': list(sentence.words), 'tags': [encoding.labels[next(tags)] for _ in sentence.words]}
          for sentence in examples]


def entity_answers(examples, rows, outputs, encoding) -> list[Answer]:
  """The same in IOB2: where I- follows none of its type, an entity begins, as conlleval counts it."""
  return [answer | {'tags': list(conll.iob2(answer['tags']))} for answer in answers(examples, rows, outputs, encoding)]


def accuracy(examples: Sequence[Sentence], answers: Sequence[Answer]) -> dict[str, float]:
  """The share of words whose tag is right. Raises DataError where the file has no tags."""
  gold = itertools.chain.from_iterable(tags_of(examples))
  right = [a == b for a, b in zip(gold, itertools.chain.from_iterable(answer['tags'] for answer in answers))]
  return {'accuracy': sum(right) / len(right)}


def entity_figures(examples: Sequence[Sentence], answers: Sequence[Answer]) -> dict[str, float]:
  """Those of conll.figures. Raises DataError where the file has no tags."""
  return conll.figures(tags_of(examples), [answer['tags'] for answer in answers])


def tags_of(examples: Sequence[Sentence]) -> list[tuple[str, ...]]:
  if not examples[0].tags:
    raise DataError(f'{examples[0].file} has words without tags: wanted tags, by which answers are judged')
  return [sentence.tags for sentence in examples]


def write(directory: storage.Path, examples: Sequence[Sentence], answers: Sequence[Answer], split: str) -> None:
  """SPLIT.conll: word, its tag where the file has one, and the tag that was found; conlleval reads it."""
  conll.write(directory / f'{split}.conll', examples, [answer['tags'] for answer in answers])


def shown(sentence: Sentence, answer: Answer) -> Shown:
  told = lambda tags: ' '.join(f'{word}/{tag}' for word, tag in zip(sentence.words, tags) if tag != OUTSIDE)
  wanted = told(sentence.tags) if sentence.tags else None
  return Shown(' '.join(sentence.words), told(answer['tags']), wanted, list(sentence.tags) == answer['tags'])


# The names of the original files, and of a user's.
CONLL2003 = {'train': ('eng.train', 'train.txt'), 'validation': ('eng.testa', 'valid.txt', 'dev.txt'),
             'test': ('eng.testb', 'test.txt')}
WNUT17 = {'train': ('wnut17train.conll',), 'validation': ('emerging.dev.conll',), 'test': ('emerging.test.annotated',)}
NAMES = {'train': ('train',), 'validation': ('validation', 'valid', 'dev'), 'test': ('test',)}
FILES = {split: tuple(f'{name}{ending}' for name in names for ending in ('.conll', '.txt', '.tsv', '.bio'))
         for split, names in NAMES.items()}

WORD_TAGS = Task(FILES, read, word_tags, rows, objective, answers, accuracy, 'accuracy', shown, write, WordTags,
                 labelled=tags_of)
TAGGING = Task(FILES, read, entity_tags, rows, objective, entity_answers, entity_figures, 'f1', shown, write, Entities,
               labelled=tags_of)


def of_files(files: Mapping[str, tuple[str, ...]]) -> Task:
  return dataclasses.replace(TAGGING, files=files)

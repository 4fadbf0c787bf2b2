"""Contexts in windows (run_squad.py convert_examples_to_features): words, their pieces, and the rows of a question.

W words of a context, N pieces of it, K windows, T tokens of a window.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np

from bert_jax.errors import require
from bert_jax.fields import require_fields
from bert_jax.tasks.squad_examples import WORD, Question
from bert_jax.tasks.task import Encoding, Row, Settings
from input_pipeline.errors import DataError
from input_pipeline.ranges import Count, Within
from input_pipeline.vocabulary.tokenizer import Tokenizer

SPECIAL = 3  # [CLS] question [SEP] window [SEP]


@dataclasses.dataclass(frozen=True)
class Windows(Settings):
  """How questions and their contexts are cut, and how answers are chosen; the defaults are those of run_squad.py."""
  doc_stride: Count = 128
  """Pieces of a context from the beginning of one window to that of the next."""
  max_query_length: Count = 64
  """Pieces of a question at most; others are cut off."""
  n_best: Count = 20
  """Of a window, the starts and ends that are combined; and the answers of each question in nbest_predictions.json."""
  max_answer_length: Count = 30
  """Pieces of an answer at most."""
  null_threshold: Annotated[float, Within(-1e9, 1e9)] = 0.0
  """With unanswerable questions: no answer is given where its score is more than this above that of the best answer."""

  def __post_init__(self):
    require_fields(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Document:
  """A context in words and pieces.

  A word is what stands between white space, and each ideograph. SentencePiece knows no words that it would keep apart:
  each piece is one there.
  """
  text: str
  begins: np.ndarray  # [W] int64: characters
  ends: np.ndarray  # [W]
  ids: np.ndarray  # [N] int32
  word_of: np.ndarray  # [N] int64

  def pieces_of(self, start: int, end: int) -> tuple[int, int]:
    """The first and the last piece of the words that have the characters start … end - 1; last < first: none."""
    first, last = np.searchsorted(self.begins, [start, end - 1], 'right') - 1
    return (int(np.searchsorted(self.word_of, first, 'left')), int(np.searchsorted(self.word_of, last, 'right')) - 1)

  def words(self, first: int, last: int) -> slice:
    """The words that have the pieces first … last."""
    return slice(int(self.word_of[first]), int(self.word_of[last]) + 1)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Window(Row):
  """A row of a question, and what of its context it holds."""
  document: Document
  first: int
  """The piece of the context with which it begins."""
  offset: int
  """Where in the row that piece is."""
  has_most_context: np.ndarray
  """[pieces of the window] bool: whether a piece has no more context in another window."""


def documents(texts: Sequence[str], tokenizer: Tokenizer) -> list[Document]:
  """All texts at once: words come again, and the tokenizer's cache has them."""
  if tokenizer.kind != 'wordpiece':
    return [_document_of_pieces(text, tokenizer) for text in texts]
  spans = [np.array([match.span() for match in WORD.finditer(text)], np.int64).reshape(-1, 2) for text in texts]
  ids, sizes = tokenizer.encode_flat([text[start:end] for text, of_text in zip(texts, spans)
                                      for start, end in of_text.tolist()])
  words = np.cumsum([0, *map(len, spans)])
  pieces = np.concatenate([[0], np.cumsum(sizes)])[words]
  return [Document(text, of_text[:, 0], of_text[:, 1], ids[pieces[i]:pieces[i + 1]],
                   np.repeat(np.arange(len(of_text)), sizes[words[i]:words[i + 1]]))
          for i, (text, of_text) in enumerate(zip(texts, spans))]


def _document_of_pieces(text: str, tokenizer: Tokenizer) -> Document:
  ids, begins = tokenizer.encode([text])[0], tokenizer.offsets(text)
  bounds = [*begins.tolist(), len(text)]
  ends = np.array([begin + len(text[begin:end].rstrip()) for begin, end in zip(bounds, bounds[1:])], np.int64)
  return Document(text, begins, ends, ids, np.arange(len(ids)))


def spans(pieces: int, room: int, stride: int) -> list[tuple[int, int]]:
  """(first piece, pieces) of each window, of `room` pieces at most; one window at least."""
  found = [(0, min(pieces, room))]
  while (start := found[-1][0]) + found[-1][1] < pieces:
    start += min(found[-1][1], stride)
    found.append((start, min(pieces - start, room)))
  return found


def most_context(windows: Sequence[tuple[int, int]]) -> list[np.ndarray]:  # K x [pieces of the window] bool
  """Of each piece of each window whether the window is the one in which it has most context on its shorter side.

  run_squad.py _check_is_max_context: a longer window counts for a little more; of equal ones, the first.
  """
  if len(windows) == 1:
    return [np.ones(windows[0][1], bool)]
  scores = np.full((len(windows), sum(windows[-1])), -1.0)
  for i, (start, length) in enumerate(windows):
    place = np.arange(length)
    scores[i, start:start + length] = np.minimum(place, length - 1 - place) + .01 * length
  best = scores.argmax(axis=0)
  return [best[start:start + length] == i for i, (start, length) in enumerate(windows)]


def learnt_span(document: Document, answer: tuple[int, int], ids: np.ndarray) -> tuple[int, int] | None:
  """The pieces that are to be learnt of an answer; None: it has none.

  `answer`: its characters. `ids`: of its own pieces, which are looked for among those of the words that it touches
  (run_squad.py _improve_answer_span): of '(1895-1943).', 1895.
  """
  first, last = document.pieces_of(*answer)
  if last < first:
    return None
  for start in range(first, last + 2 - len(ids)) if len(ids) else ():
    if np.array_equal(document.ids[start:start + len(ids)], ids):
      return start, start + len(ids) - 1
  return first, last


def rows(questions: Sequence[Question], encoding: Encoding) -> list[Row]:
  """The windows of each question, with the targets `ends` [2], the places of the first and last token of its answer
  (0, 0 where the window does not hold it), and `known` [2], 0 where no answer is known.

  In training, questions whose answer is not known have no rows. Raises ConfigError, and DataError where all are so.
  """
  own, tokenizer = encoding.own, encoding.tokenizer
  least = own.max_query_length + SPECIAL + 1
  require(encoding.max_length >= least,
          f'batch.max_length is {encoding.max_length}: wanted {least} at least, as a question may have '
          f'{own.max_query_length} tokens (max_query_length)')
  texts = list(dict.fromkeys(question.context for question in questions))
  by_text = dict(zip(texts, documents(texts, tokenizer)))
  queries = tokenizer.encode([question.question for question in questions])
  golds = [next((gold for gold in question.answers or () if gold.start is not None), None) for question in questions]
  answers = tokenizer.encode([gold.text if gold else '' for gold in golds])
  found: list[Row] = []
  for i, question in enumerate(questions):
    document, gold = by_text[question.context], golds[i]
    span = gold and gold.start is not None and learnt_span(
        document, (gold.start, min(gold.start + len(gold.text), len(question.context))), answers[i])
    known = bool(span) or question.answers == ()
    if known or not encoding.training:
      found += _windows(i, queries[i][:own.max_query_length], document, span or None, known, encoding)
  if not found:
    raise DataError(f'{questions[0].place}: of the {len(questions):,} questions from here on none has an answer that '
                    'stands in its context at its answer_start: wanted one at least to learn from')
  return found


def _windows(number: int, query: np.ndarray, document: Document, answer: tuple[int, int] | None, known: bool,
             encoding: Encoding) -> Iterator[Window]:
  tokenizer, offset = encoding.tokenizer, len(query) + 2
  windows = spans(len(document.ids), encoding.max_length - len(query) - SPECIAL, encoding.own.doc_stride)
  for (first, length), most in zip(windows, most_context(windows)):
    ids = np.concatenate([[tokenizer.cls_id], query, [tokenizer.sep_id], document.ids[first:first + length],
                          [tokenizer.sep_id]]).astype(np.int32)
    T = len(ids)
    types = (np.arange(T) >= offset).astype(np.int32)
    ends = (0, 0)
    if answer and first <= answer[0] and answer[1] < first + length:
      ends = answer[0] - first + offset, answer[1] - first + offset
    targets = {'ends': np.array(ends, np.int32), 'known': np.full(2, known, np.float32)}
    yield Window(ids, types, np.arange(T, dtype=np.int32), np.ones(T, np.int32), targets, number, document=document,
                 first=first, offset=offset, has_most_context=most)

"""From the scores of windows to answers in the words of the context, and their files (run_squad.py write_predictions).

T tokens of a window.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bert_jax.tasks.squad_examples import SPACE, Question
from bert_jax.tasks.squad_windows import Document, Window
from bert_jax.tasks.task import Answer, Encoding
from input_pipeline import storage
from input_pipeline.vocabulary.tokenizer import Tokenizer

PREDICTIONS, N_BEST, NULL_ODDS = 'predictions.json', 'nbest_predictions.json', 'null_odds.json'
NOTHING = 'empty'  # run_squad.py's answer where no span is valid
WORDS = 1 << 16  # that are remembered
NO_ODDS = 1e6  # of no answer, where there is no other
ONE_SPACE = str.maketrans({c: ' ' for c in SPACE})


@dataclasses.dataclass(frozen=True)
class Span:
  """A possible answer: pieces first … last of the context; None: no answer."""
  document: Document | None
  first: int
  last: int
  start: float  # its scores
  end: float

  @property
  def score(self) -> float:
    return self.start + self.end


def answers(questions: Sequence[Question], rows: Sequence[Window], outputs: Sequence[Mapping], encoding: Encoding,
            unanswerable: bool = False) -> list[Answer]:
  """{'id', 'text', 'nbest': [{text, probability, start_logit, end_logit}]}, and with `unanswerable` 'null_odds', by how
  much the score of no answer is above that of the best one, and 'best', that one.

  `outputs`: {'span': [2 T]}, the scores of starts and ends.
  """
  own, cut = encoding.own, cutter(encoding.tokenizer)
  found: list[list[Span]] = [[] for _ in questions]
  none: list[Span | None] = [None] * len(questions)
  for row, output in zip(rows, outputs):
    scores = np.asarray(output['span'], np.float64)[:, :len(row.input_ids)]
    found[row.example] += candidates(row, scores, own.n_best, own.max_answer_length)
    null = Span(None, 0, 0, *scores[:, 0].tolist())
    if (least := none[row.example]) is None or null.score < least.score:
      none[row.example] = null
  return [_answer(question, spans, null if unanswerable else None, cut, encoding)
          for question, spans, null in zip(questions, found, none)]


def candidates(row: Window, scores: np.ndarray, n_best: int, longest: int) -> list[Span]:  # [2 T]
  """The valid spans of the `n_best` starts and ends of a window: in its context, the start where it has most of it."""
  starts, ends = np.argsort(-scores, axis=1, kind='stable')[:, :n_best] - row.offset
  pieces = len(row.has_most_context)
  starts, ends = (x[(x >= 0) & (x < pieces)] for x in (starts, ends))
  starts = starts[row.has_most_context[starts]]
  length = ends[None] - starts[:, None] + 1
  which, to = np.nonzero((length >= 1) & (length <= longest))
  starts, ends = starts[which], ends[to]
  return [Span(row.document, row.first + a, row.first + b, x, y) for a, b, x, y in zip(
      starts.tolist(), ends.tolist(), scores[0, starts + row.offset].tolist(), scores[1, ends + row.offset].tolist())]


def _answer(question: Question, spans: list[Span], null: Span | None, cut: Callable[[str], str] | None,
            encoding: Encoding) -> Answer:
  own, chosen = encoding.own, {}  # {text: span}, best first
  for span in sorted(spans + ([null] if null else []), key=lambda span: span.score, reverse=True):
    if len(chosen) >= own.n_best:
      break
    chosen.setdefault(text_of(span, encoding.tokenizer, cut), span)
  if null:
    chosen.setdefault('', null)
  if not chosen:
    chosen[NOTHING] = Span(None, 0, 0, 0.0, 0.0)
  scores = np.array([span.score for span in chosen.values()])
  powers = np.exp(scores - scores.max())
  nbest = [{'text': text, 'probability': float(p), 'start_logit': span.start, 'end_logit': span.end}
           for (text, span), p in zip(chosen.items(), powers / powers.sum())]
  if null is None:
    return {'id': question.id, 'text': nbest[0]['text'], 'nbest': nbest}
  best = next((text for text in chosen if text), '')
  odds = null.score - chosen[best].score if best else NO_ODDS
  return {'id': question.id, 'text': '' if odds > own.null_threshold else best, 'nbest': nbest, 'null_odds': odds,
          'best': best}


def text_of(span: Span, tokenizer: Tokenizer, cut: Callable[[str], str] | None) -> str:
  """What a span is in the context, by whole words without `cut`."""
  if (document := span.document) is None:
    return ''
  which = document.words(span.first, span.last)
  begins, ends = document.begins[which].tolist(), document.ends[which].tolist()
  text = ' '.join(filter(None, document.text[begins[0]:ends[-1]].translate(ONE_SPACE).split(' ')))
  if cut is None:
    return text
  pieces = ' '.join(tokenizer.tokens[i] for i in document.ids[span.first:span.last + 1].tolist())
  words = (cut(document.text[begin:end]) for begin, end in zip(begins, ends))
  return final_text(' '.join(pieces.replace(' ##', '').replace('##', '').split()), text, ' '.join(filter(None, words)))


def cutter(tokenizer: Tokenizer) -> Callable[[str], str] | None:
  """A word -> the words that BERT's rules make of it, before any is cut into pieces; None: there are no such rules."""
  if tokenizer.kind != 'wordpiece':
    return None
  from tokenizers import normalizers, pre_tokenizers
  normalize = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=None,
                                         lowercase=tokenizer.lower_case).normalize_str
  cut = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
  return functools.lru_cache(WORDS)(
      lambda word: ' '.join(part for part, _ in cut(normalize(word.encode('utf-8', 'replace').decode()))))


def final_text(pieces: str, text: str, tokenized: str) -> str:
  """The part of `text` that `pieces` are (run_squad.py get_final_text): of "Steve Smith's", of which they are
  'steve smith', Steve Smith.

  `tokenized`: the text as the tokenizer has it before it cuts words into pieces. The characters of both that are no
  spaces go together one by one; where there are more of one than of the other, or the pieces are not found, all of
  `text` is the answer.
  """
  start = tokenized.find(pieces)
  ours = [i for i, c in enumerate(text) if c != ' ']
  theirs = [i for i, c in enumerate(tokenized) if c != ' ']
  if start < 0 or not pieces or len(ours) != len(theirs):
    return text
  first = start - tokenized.count(' ', 0, start)
  return text[ours[first]:ours[first + len(pieces) - pieces.count(' ') - 1] + 1]


def write(directory: storage.Path, questions: Sequence[Question], answers: Sequence[Answer], split: str) -> None:
  """predictions.json, nbest_predictions.json, and where questions may have no answer null_odds.json, by their ids."""
  del questions, split
  files = {PREDICTIONS: 'text', N_BEST: 'nbest', NULL_ODDS: 'null_odds'}
  for file, key in files.items():
    if all(key in answer for answer in answers):
      content = {answer['id']: answer[key] for answer in answers}
      storage.write_whole(directory / file, json.dumps(content, indent=4) + '\n')

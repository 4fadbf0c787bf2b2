"""Exact match and F1 by the official rules: evaluate-v1.1.py and evaluate-v2.0.py of SQuAD, cmrc2018_evaluate.py.

Figures are per cent, as these programs print them. Q questions.
"""

import collections
import re
import string
from collections.abc import Callable, Sequence

import numpy as np

from bert_jax.tasks.squad_examples import Question, check_answers
from bert_jax.tasks.task import Answer

Score = Callable[[str, str], float]  # (prediction, an answer of the file) -> 0 to 1

ARTICLE = re.compile(r'\b(a|an|the)\b')
PUNCTUATION = str.maketrans('', '', string.punctuation)
# What cmrc2018_evaluate.py takes for punctuation; its '……' is no single character, and so never found.
CHINESE_PUNCTUATION = '-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』'
CHINESE = re.compile('[\u4e00-\u9fa5]')


def normal(text: str) -> str:
  """In lower case, without ASCII punctuation, articles, and other than single spaces (normalize_answer)."""
  return ' '.join(ARTICLE.sub(' ', text.lower().translate(PUNCTUATION)).split())


def exact(prediction: str, answer: str) -> float:
  return float(normal(prediction) == normal(answer))


def overlap(same: int, predicted: int, wanted: int) -> float:
  """F1 of `same` tokens of both."""
  return 2 * same / (predicted + wanted) if same else 0.0


def f1(prediction: str, answer: str) -> float:
  """Of the words that both have, as often as both have them; 0 where either has none, as in evaluate-v1.1.py."""
  a, b = normal(prediction).split(), normal(answer).split()
  return overlap(sum((collections.Counter(a) & collections.Counter(b)).values()), len(a), len(b))


def f1_or_nothing(prediction: str, answer: str) -> float:
  """The same, and 1 where both have no word (evaluate-v2.0.py)."""
  return f1(prediction, answer) or float(normal(prediction) == normal(answer) == '')


def chinese_normal(text: str) -> str:
  """In lower case, without punctuation (cmrc2018_evaluate.py remove_punctuation)."""
  return ''.join(c for c in text.lower().strip() if c not in CHINESE_PUNCTUATION)


def chinese_words(text: str) -> list[str]:
  """Each Chinese character, and the words of what stands between (cmrc2018_evaluate.py mixed_segmentation).

  The original also looks for sentences there, by a model that the package does not hold: the two differ only where a
  full stop and a space stand within one answer's Latin text.
  """
  import nltk
  words, run = [], ''
  for c in [*(c for c in text.lower().strip() if c not in CHINESE_PUNCTUATION), '']:
    if c and not CHINESE.match(c):
      run += c
      continue
    words += nltk.word_tokenize(run, preserve_line=True) if run else []
    words += [c] if c else []
    run = ''
  return words


def longest_common_run(a: Sequence[str], b: Sequence[str]) -> int:
  """The length of the longest run of words that both have (cmrc2018_evaluate.py find_lcs)."""
  before, best = [0] * (len(b) + 1), 0
  for x in a:
    now = [0] * (len(b) + 1)
    for j, y in enumerate(b):
      now[j + 1] = before[j] + 1 if x == y else 0
    before, best = now, max(best, *now)
  return best


def chinese_exact(prediction: str, answer: str) -> float:
  return float(chinese_normal(prediction) == chinese_normal(answer))


def chinese_f1(prediction: str, answer: str) -> float:
  a, b = chinese_words(prediction), chinese_words(answer)
  return overlap(longest_common_run(a, b), len(a), len(b))


def best_of(score: Score, prediction: str, answers: Sequence[str]) -> float:
  return max(score(prediction, answer) for answer in answers)


def figures(questions: Sequence[Question], answers: Sequence[Answer], exact: Score = exact,
            f1: Score = f1) -> dict[str, float]:
  """exact_match and f1, of each question the best of its answers; how many answers do not align. Raises DataError."""
  check_answers(questions, 'evaluate')
  texts = [[gold.text for gold in question.answers or ()] for question in questions]
  mean = lambda score: 100 * float(np.mean([best_of(score, answer['text'], of_question)
                                            for answer, of_question in zip(answers, texts, strict=True)]))
  return {'exact_match': mean(exact), 'f1': mean(f1), 'unaligned_answers': unaligned(questions)}


def chinese_figures(questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
  """As cmrc2018_evaluate.py; `average` is that of exact_match and f1."""
  found = figures(questions, answers, chinese_exact, chinese_f1)
  return {'average': (found['exact_match'] + found['f1']) / 2} | found


def unaligned(questions: Sequence[Question]) -> int:
  return sum(question.unaligned for question in questions)


def figures_with_unanswerable(questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
  """As evaluate-v2.0.py: of all questions, of those with an answer and of those without; and the best that another
  null_threshold would give, with that threshold. Raises DataError."""
  check_answers(questions, 'evaluate')
  golds = [[gold.text for gold in question.answers or () if normal(gold.text)] or [''] for question in questions]
  answered = np.array([bool(question.answers) for question in questions])
  found = {'exact_match': 0.0, 'f1': 0.0}  # first
  for name, score in (('exact_match', exact), ('f1', f1_or_nothing)):
    of = lambda key, score=score: np.array([best_of(score, answer[key], texts)
                                            for answer, texts in zip(answers, golds, strict=True)])
    scores = of('text')
    for part, which in (('', answered | True), ('answered_', answered), ('unanswerable_', ~answered)):
      if which.any():
        found[part + name] = 100 * float(scores[which].mean())
    found[f'best_{name}'], found[f'best_{name}_threshold'] = best_threshold(
        np.where(answered, of('best'), 0), answered, np.array([answer['null_odds'] for answer in answers]))
  return found | {'unaligned_answers': unaligned(questions)}


def best_threshold(scores: np.ndarray, answered: np.ndarray, odds: np.ndarray) -> tuple[float, float]:  # [Q] x 3
  """(the best mean score in per cent, the least threshold that gives it), where a question is left without an answer
  whose odds are more than the threshold (evaluate-v2.0.py find_best_thresh).

  `scores`: of the best answer of each; where there is none, no answer scores 1.
  """
  order = np.argsort(odds, kind='stable')
  gains = np.where(answered, scores, -1.0)[order]  # of answering instead of not
  totals = (~answered).sum() + np.concatenate([[0], np.cumsum(gains)])
  odds = odds[order]
  # Questions of equal odds are answered together.
  possible = np.concatenate([[True], np.append(odds[1:] > odds[:-1], True)])
  best = int(np.argmax(np.where(possible, totals, -np.inf)))
  threshold = odds[best - 1] if best else np.nextafter(odds[0], -np.inf)
  return 100 * float(totals[best] / len(odds)), float(threshold)

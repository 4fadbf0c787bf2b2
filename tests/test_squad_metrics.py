"""The figures of question answering against readings of the official rules that are written here, in other ways."""

import pathlib
import random
import string

import hypothesis
import hypothesis.strategies as st
import nltk
import numpy as np
import pytest

from bert_jax.tasks import squad_examples, squad_metrics as ours
from bert_jax.tasks.squad_examples import Gold, Question

DATA = pathlib.Path(__file__).parents[1] / '../shared/data/tasks'
needs_data = pytest.mark.skipif(not DATA.exists(), reason='../shared/data is not here')
# Articles in words and alone, punctuation of ASCII and other, spaces of many kinds, accents, other scripts, nothing.
PIECES = ['a', 'an', 'the', 'The', 'A', 'theme', 'anthem', 'cat', 'Café', 'İ', 'ß', 'x_y', "'s", '.', ',', '-', '–',
          '“', '”', '(', ')', '3.5', '$', '٣', 'ⅷ', '北', '京', '，', '。', '…', '·', ' ', '  ', '\u00a0', '\u3000',
          '\n', '\u200b', '']
texts = st.lists(st.sampled_from(PIECES), max_size=7).map(''.join)

# ---------------------------------------------------------------- SQuAD's rules, read again


def words(text):
  """Lower case; no ASCII punctuation; a, an and the go where they are whole words; the rest falls apart at spaces."""
  kept = [c for c in text.lower() if c not in string.punctuation]
  runs, word = [], ''
  for c in [*kept, ' ']:
    if c.isalnum():
      word += c
    else:
      runs += [' ' if word in ('a', 'an', 'the') else word, c]
      word = ''
  return ''.join(runs).split()


def f1(prediction, answer, both_empty):
  a, b = words(prediction), words(answer)
  rest, same = list(b), 0
  for word in a:
    if word in rest:
      rest.remove(word)
      same += 1
  if both_empty and not (a and b):
    return float(a == b)
  if same == 0:
    return 0.0
  precision, recall = same / len(a), same / len(b)
  return 2 * precision * recall / (precision + recall)


@hypothesis.settings(deadline=None)
@hypothesis.given(texts, texts)
def test_squad(prediction, answer):
  assert ours.normal(prediction).split() == words(prediction)
  assert ours.exact(prediction, answer) == (' '.join(words(prediction)) == ' '.join(words(answer)))
  assert ours.f1(prediction, answer) == pytest.approx(f1(prediction, answer, both_empty=False))
  assert ours.f1_or_nothing(prediction, answer) == pytest.approx(f1(prediction, answer, both_empty=True))


def figures(golds, predictions, both_empty):
  score = lambda of: 100 * sum(max(of(p, g) for g in gold) for gold, p in zip(golds, predictions)) / len(golds)
  return {'exact_match': score(lambda p, g: words(p) == words(g)), 'f1': score(lambda p, g: f1(p, g, both_empty))}


def variants(golds, draw):
  """Gold, shuffled, cut off, and adversarial answers."""
  first = [gold[0] for gold in golds]
  yield 'gold', first
  yield 'shuffled', draw.sample(first, len(first))
  yield 'truncated', [text[:draw.randint(0, len(text))] for text in first]
  yield 'adversarial', [draw.choice(['', 'the', f'the {text}', f'{text.upper()}!!', f'“{text}”', f'{text}\u00a0{text}',
                                     ' '.join(reversed(text.split())), text.replace(' ', '  '), f'{text}, an'])
                        for text in first]


@needs_data
def test_squad_on_real_answers():
  questions = squad_examples.read(DATA / 'squad/dev-v1.1.json')[:1000]
  golds = [[gold.text for gold in question.answers] for question in questions]
  seen = {}
  for name, predictions in variants(golds, random.Random(0)):
    found = ours.figures(questions, [{'text': text} for text in predictions])
    assert found.pop('unaligned_answers') == 0
    assert found == pytest.approx(figures(golds, predictions, both_empty=False))
    seen[name] = found
  assert seen['gold'] == {'exact_match': 100, 'f1': 100}
  assert seen['shuffled']['f1'] < 10 < seen['truncated']['f1'] < 95 and seen['adversarial']['exact_match'] < 95

# ---------------------------------------------------------------- SQuAD 2.0


odds = st.integers(-3, 3).map(float)


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(st.tuples(texts, st.lists(texts, max_size=3), odds), min_size=1, max_size=12))
def test_squad_with_questions_that_have_no_answer(rows):
  questions = [Question(str(i), 'q', 'c', tuple(Gold(text, 0) for text in golds))
               for i, (_, golds, _) in enumerate(rows)]
  at = lambda threshold: [{'text': '' if odds > threshold else best, 'best': best, 'null_odds': odds}
                          for best, _, odds in rows]
  found = ours.figures_with_unanswerable(questions, at(0.0))
  golds = [[text for text in of_question if words(text)] or [''] for _, of_question, _ in rows]
  both = lambda which, threshold: figures([golds[i] for i in which], [at(threshold)[i]['text'] for i in which], True)
  everything = range(len(rows))
  for part, which in (('', everything), ('answered_', [i for i in everything if rows[i][1]]),
                      ('unanswerable_', [i for i in everything if not rows[i][1]])):
    wanted = both(which, 0.0) if which else {}
    assert {name: found.get(part + name) for name in wanted} == pytest.approx(wanted)
    assert which or part + 'f1' not in found
  # evaluate-v2.0.py counts no question with an answer as right that is left without one, even where its answer
  # has no word; nor one without as right that is answered.
  answered = [bool(golds) for _, golds, _ in rows]
  for name in ('exact_match', 'f1'):
    score = lambda p, g, name=name: float(words(p) == words(g)) if name == 'exact_match' else f1(p, g, True)
    of = lambda threshold, score=score: 100 * np.mean([
        float(not has) if odds > threshold else has * max(score(best, g) for g in gold)
        for has, gold, (best, _, odds) in zip(answered, golds, rows)])
    assert found[f'best_{name}'] == pytest.approx(max(map(of, (-4.0, *(odds for *_, odds in rows)))))
    assert of(found[f'best_{name}_threshold']) == pytest.approx(found[f'best_{name}'])

# ---------------------------------------------------------------- CMRC 2018


MARKS = set('-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』')


def chinese_words(text):
  parts, run = [], []
  for c in text.lower().strip():
    if c in MARKS:
      continue
    if 0x4e00 <= ord(c) <= 0x9fa5:
      parts += nltk.word_tokenize(''.join(run), preserve_line=True) + [c]
      run = []
    else:
      run.append(c)
  return parts + nltk.word_tokenize(''.join(run), preserve_line=True)


def chinese_f1(prediction, answer):
  a, b = chinese_words(prediction), chinese_words(answer)
  runs = lambda words: {tuple(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
  same = max(map(len, runs(a) & runs(b)), default=0)
  if same == 0:
    return 0.0
  precision, recall = same / len(a), same / len(b)
  return 2 * precision * recall / (precision + recall)


def chinese_exact(prediction, answer):
  plain = lambda text: [c for c in text.lower().strip() if c not in MARKS]
  return float(plain(prediction) == plain(answer))


@hypothesis.settings(deadline=None)
@hypothesis.given(texts, texts)
def test_cmrc(prediction, answer):
  assert ours.chinese_exact(prediction, answer) == chinese_exact(prediction, answer)
  assert ours.chinese_f1(prediction, answer) == pytest.approx(chinese_f1(prediction, answer))


@needs_data
def test_cmrc_on_real_answers():
  with pytest.warns(UserWarning, match='5 answers to 5 of 1,002 questions .*TRIAL_210_QUERY_0'):
    questions = squad_examples.read(DATA / 'cmrc2018/cmrc2018_trial.json')
  assert ours.unaligned(questions) == 5
  questions = questions[:60]
  golds = [[gold.text for gold in question.answers] for question in questions]
  for name, predictions in variants(golds, random.Random(0)):
    found = ours.chinese_figures(questions, [{'text': text} for text in predictions])
    wanted = [100 * np.mean([max(score(p, g) for g in gold) for gold, p in zip(golds, predictions)])
              for score in (chinese_exact, chinese_f1)]
    assert [found['exact_match'], found['f1']] == pytest.approx(wanted)
    assert found['average'] == pytest.approx(np.mean(wanted))
    assert name != 'gold' or wanted == [100, 100]

"""Question answering: where in a text the answer to a question begins and ends (arXiv:1810.04805 sections 4.2 and 4.3;
BERT's run_squad.py).

B rows, T tokens.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp

from bert_jax.model.heads import Ends
from bert_jax.objectives import Objective, Term
from bert_jax.tasks import squad_answers, squad_examples, squad_metrics, squad_windows
from bert_jax.tasks.squad_examples import Question
from bert_jax.tasks.squad_windows import Windows
from bert_jax.tasks.task import Answer, Defaults, Shown, Task
from input_pipeline import storage

OUTSIDE = -1e9  # the score of padding: it has no share in the softmax, however long the rows of a batch are


def span_logits(model, hidden, batch, seed=None):  # -> [2 B T]
  """run_squad.py create_model, but for padding: starts and ends of row 0, of row 1 …"""
  scores = jnp.where((batch['pair_ids'] > 0)[:, None], model.ends(hidden).swapaxes(1, 2), OUTSIDE)  # [B 2 T]
  return scores.reshape(-1, scores.shape[-1])


def span_targets(batch):  # -> [B 2], [B 2]
  """The loss is so the mean of those of starts and ends."""
  return batch['ends'], batch['weight'][:, None] * batch['known']


TERM = Term(span_logits, span_targets, lambda settings, batch: Ends.flops(settings, batch.sequence_length),
            keep=lambda logits: logits)


def objective(labels: tuple[str, ...], own: Windows) -> Objective:
  return Objective({'span': TERM}, {'ends': Ends}, huggingface='BertForQuestionAnswering')


def no_labels(questions: Sequence[Question]) -> tuple[str, ...]:
  """(): there are no classes. Raises DataError where the training file has no answers."""
  squad_examples.check_answers(questions, 'train')
  return ()


def no_labels_chinese(questions: Sequence[Question]) -> tuple[str, ...]:
  """As no_labels."""
  import nltk  # noqa: F401  that it is missing is better known before the training than after it
  return no_labels(questions)


def read(path: storage.Path, own: Windows, unanswerable: bool = False) -> list[Question]:
  return squad_examples.read(path, unanswerable)


def shown(question: Question, answer: Answer) -> Shown:
  """The question with its context, and whether the answer is one of the file's."""
  golds = [gold.text for gold in question.answers or ()] or ['']
  right = squad_metrics.best_of(squad_metrics.exact, answer['text'], golds) > 0
  wanted = None if question.answers is None else ' | '.join(dict.fromkeys(golds))
  return Shown(f'{question.question} ({question.context})', answer['text'], wanted, right)


def task(train: tuple[str, ...], validation: tuple[str, ...], test: tuple[str, ...], defaults: Defaults,
         metrics=squad_metrics.figures, unanswerable: bool = False, labels=no_labels) -> Task:
  """Question answering on these files."""
  return Task({'train': train, 'validation': validation, 'test': test},
              functools.partial(read, unanswerable=unanswerable), labels, squad_windows.rows, objective,
              functools.partial(squad_answers.answers, unanswerable=unanswerable), metrics, 'f1', shown,
              squad_answers.write, Windows, defaults,
              labelled=functools.partial(squad_examples.check_answers, what='evaluate'))


# Sections 4.2 and 4.3; CMRC 2018 as in its baseline (github.com/ymcui/cmrc2018), but for rows of 512 there.
SQUAD = task(('train-v1.1.json', 'train.json'), ('dev-v1.1.json', 'dev.json'), ('test.json',),
             Defaults(3, 32, 384, 5e-5))
SQUAD2 = task(('train-v2.0.json', 'train.json'), ('dev-v2.0.json', 'dev.json'), ('test.json',),
              Defaults(2, 48, 384, 5e-5), squad_metrics.figures_with_unanswerable, unanswerable=True)
CMRC2018 = task(('cmrc2018_train.json', 'train.json'), ('cmrc2018_dev.json', 'dev.json'),
                ('cmrc2018_test.json', 'test.json'), Defaults(2, 32, 384, 3e-5), squad_metrics.chinese_figures,
                labels=no_labels_chinese)

"""Small measures of what pretraining is worth, on its way: minimal pairs, and a linear probe on frozen vectors.

They read the parameters and change nothing: losses are the same to the last bit with them and without.

n texts, D hidden.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax import config as cfg, features, minimal_pairs, rows, score
from bert_jax.checkpoint import Loaded
from bert_jax.errors import require
from bert_jax.metrics import PROBE
from bert_jax.program import TrainState
from bert_jax.rows import Placed, Text
from bert_jax.tasks import splits
from bert_jax.tasks.sentences import Example
from bert_jax.tasks.table import TASKS
from input_pipeline.vocabulary.tokenizer import Tokenizer

Evaluate = Callable[[TrainState, int, Callable[[], bool]], dict[str, float]]
Probe = Callable[[Placed], dict[str, float]]


def beside(evaluate: Evaluate, config: cfg.Config, tokenizer: Callable[[], Tokenizer]) -> Evaluate:
  """`evaluate`, and every probe.every steps the probes' figures: probe_pairs_accuracy, probe_TASK_accuracy ….

  What they read is read here, before the training. Raises ConfigError, DataError.
  """
  if not config.probe.every:
    return evaluate
  require(jax.process_count() == 1, 'probes run in one process: leave --probe.every out in a run of several')
  found, mesh = tokenizer(), rows.mesh_of()
  probes: list[Probe] = [make(config, found) for given, make in ((config.probe.pairs, pairs), (config.probe.task, task))
                         if given]

  def both(state: TrainState, step: int, stopped: Callable[[], bool]) -> dict[str, float]:
    figures = evaluate(state, step, stopped)
    if step % config.probe.every:
      return figures
    with jax.transfer_guard('allow'):
      params: Any = state.params
      placed = rows.place(Loaded(config.model, config.learns, params, lambda: found), mesh)
      return figures | {f'{PROBE}{name}': value for probe in probes for name, value in probe(placed).items()}

  return both


def pairs(config: cfg.Config, tokenizer: Tokenizer) -> Probe:
  """How often the good sentence of a minimal pair is likelier."""
  found = list(itertools.islice(minimal_pairs.read(config.probe.pairs), config.probe.examples))
  require(bool(found), f'probe.pairs {config.probe.pairs} has no pair')
  sentences = [sentence for pair in found for sentence in (pair.good, pair.bad)]
  for sentence, ids in zip(sentences, tokenizer.marked.encode(sentences)):
    rows.check_length(sentence, len(ids) + 2, config.model.max_positions)
  return lambda placed: {'pairs_accuracy': score.compare(placed, found)['accuracy']}


def task(config: cfg.Config, tokenizer: Tokenizer) -> Probe:
  """The official figures of logistic regression on the mean of a text's last states, which are not trained."""
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler
  del tokenizer
  settings, name = config.probe, config.probe.task
  require(name in TASKS, f'probe.task is {name!r}: wanted one of {", ".join(TASKS)}')
  own, about = TASKS[name], f'probe.task is {name!r}: wanted a task of classes of texts, such as classification'
  train, validation = (splits.read(own, settings.data, split, own.settings(), limit=settings.examples)
                       for split in ('train', 'validation'))
  require(all(isinstance(example, Example) for example in train + validation) and bool(own.labels(train)), about)
  own.metrics(validation, [{'label': example.label} for example in validation])  # raises where there is no label

  def probe(placed: Placed) -> dict[str, float]:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(vectors(placed, train), [example.label for example in train])
    names = [str(label) for label in model.classes_]
    answers = [{'label': names[int(shares.argmax())], 'probabilities': dict(zip(names, shares))}
               for shares in model.predict_proba(vectors(placed, validation))]
    return {f'{name}_{figure}': value for figure, value in own.metrics(validation, answers).items()}

  return probe


def vectors(placed: Placed, examples: Sequence[Example]) -> np.ndarray:  # -> [n D]
  texts: list[Text] = [example.text if example.text_pair is None else (example.text, example.text_pair)
                       for example in examples]
  return np.stack([found.layers[-1] for found in features.features([placed], texts, (-1,), 'mean', truncate=True)])

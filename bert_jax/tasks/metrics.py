"""The figures that tasks of sentences are compared by, computed on the host by scikit-learn and SciPy.

M examples.
"""

from collections.abc import Callable, Sequence

import numpy as np

Metric = Callable[[Sequence, Sequence, Sequence[str]], float]  # (predictions [M], labels [M], classes) -> figure


def accuracy(predictions: Sequence[str], labels: Sequence[str], classes: Sequence[str]) -> float:
  from sklearn.metrics import accuracy_score
  return float(accuracy_score(labels, predictions))


def f1(predictions: Sequence[str], labels: Sequence[str], classes: Sequence[str]) -> float:
  """F1 of the second of two classes, as GLUE has it of '1'; of more classes the mean of each one's (macro).

  0 where a class is neither predicted nor there.
  """
  from sklearn.metrics import f1_score
  two = {'average': 'binary', 'pos_label': classes[1]} if len(classes) == 2 else {
      'average': 'macro', 'labels': list(classes)}
  return float(f1_score(labels, predictions, zero_division=0, **two))


def matthews(predictions: Sequence[str], labels: Sequence[str], classes: Sequence[str]) -> float:
  """Matthews' correlation (CoLA, arXiv:1805.12471), of any number of classes; 0 where a side is one class only."""
  from sklearn.metrics import matthews_corrcoef
  return float(matthews_corrcoef(labels, predictions)) if len({*predictions, *labels}) > 1 else 0.


def pearson(predictions: Sequence[float], labels: Sequence[float], classes: Sequence[str]) -> float:
  """Pearson's r; 0 where a side is constant, as it has none then."""
  from scipy.stats import pearsonr
  return float(pearsonr(predictions, labels).statistic) if _vary(predictions, labels) else 0.


def spearman(predictions: Sequence[float], labels: Sequence[float], classes: Sequence[str]) -> float:
  """Spearman's rank correlation, ties at their mean rank; 0 where a side is constant."""
  from scipy.stats import spearmanr
  return float(spearmanr(predictions, labels).statistic) if _vary(predictions, labels) else 0.


def _vary(*sides: Sequence[float]) -> bool:
  return all(len(side) > 1 and np.ptp(side) > 0 for side in sides)


METRICS: dict[str, Metric] = {'accuracy': accuracy, 'f1': f1, 'matthews': matthews, 'pearson': pearson,
                              'spearman': spearman}


def figures(names: Sequence[str], predictions: Sequence, labels: Sequence,
            classes: Sequence[str] = ()) -> dict[str, float]:
  """The figures of these names. Both sides are classes, or numbers."""
  return {name: METRICS[name](predictions, labels, classes) for name in names}


def check_installed() -> None:
  """Raises ModuleNotFoundError where a library of these figures is missing."""
  import scipy.stats
  import sklearn.metrics
  del scipy, sklearn

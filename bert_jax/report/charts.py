"""The curves of runs: which there are, and each as a drawing. What `plot` and `report` both draw."""

import dataclasses
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from bert_jax import metrics, run_directory
from bert_jax.errors import require
from bert_jax.objectives import Objective
from input_pipeline import storage

Points = Sequence[tuple[float, float]]  # (step, value)
# What a line of the log says beside the terms' figures, in the order of the charts.
OF_TRAINING = {'learning_rate': 'learning rate', 'gradient_norm': 'gradient norm',
               'tokens_per_second': 'real tokens a second', 'mfu': 'MFU'}
NOT_DRAWN = ('loss', metrics.TIME, 'unigram_loss', 'documents', 'sequences', 'examples', 'step', run_directory.COPIES)
COLORS = 'tab:blue', 'tab:orange', 'tab:green', 'tab:red', 'tab:purple', 'tab:brown'
INK = '#010203'  # stands for the page's own colour of text, which a drawing cannot know


@dataclasses.dataclass(frozen=True)
class Curve:
  """One figure of one run."""
  run: str
  kind: str  # 'train', 'validation', or 'evaluation': the last of `bert-jax evaluate`
  points: Points


@dataclasses.dataclass(frozen=True)
class Chart:
  """One figure of all runs."""
  title: str
  curves: Sequence[Curve]
  baseline: float | None = None  # a level to compare with


@dataclasses.dataclass(frozen=True)
class Told:
  """What a run has said of itself."""
  name: str
  objective: Objective
  lines: Sequence[Mapping]  # of its log
  evaluation: Mapping[str, Any]  # its last


def told(run_dir: storage.PathLike) -> Told:
  """Raises ConfigError where a run has no line of a log yet."""
  lines = metrics.read(run_dir)
  require(bool(lines), f'{run_dir} has no {run_directory.LOG} with a line in it: train it first')
  record = run_directory.read(run_dir)
  return Told(str(run_dir), record.config.learns, lines, run_directory.figures(run_dir))


def charts(runs: Sequence[Told]) -> list[Chart]:
  """A chart for each figure that some run has: losses, accuracies, those of training, then whatever else an evaluation
  measured."""
  names: dict[str, str] = {}
  for run in runs:
    names |= {f'{term}_loss': f'{term.upper()} loss (nats)' for term in run.objective.terms}
  for run in runs:
    names |= {f'{term}_accuracy': f'{term.upper()} accuracy' for term in run.objective.terms}
  names |= OF_TRAINING
  for run in runs:
    measured = [name for line in run.lines if line['kind'] == 'validation' for name in line]
    names |= {name: name.replace('_', ' ') for name in (*measured, *run.evaluation)
              if name not in (*names, *NOT_DRAWN, 'kind')}
  found = []
  for name, title in names.items():
    curves = [curve for run in runs for curve in _curves(run, name)]
    if curves:
      found.append(Chart(title, curves, _baseline(runs, name)))
  return found


def _curves(run: Told, name: str) -> list[Curve]:
  number = lambda value: isinstance(value, int | float) and not isinstance(value, bool)
  points = {kind: [(line['step'], line[name]) for line in run.lines if line['kind'] == kind and number(line.get(name))]
            for kind in ('train', 'validation')}
  if number(run.evaluation.get(name)):
    points['evaluation'] = [(run.evaluation['step'], run.evaluation[name])]
  return [Curve(run.name, kind, of_kind) for kind, of_kind in points.items() if of_kind]


def _baseline(runs: Sequence[Told], name: str) -> float | None:
  """The unigram frequencies' loss, beside the loss of a term that predicts tokens."""
  for run in runs:
    term = run.objective.terms.get(name.removesuffix('_loss'))
    if name.endswith('_loss') and term is not None and term.predicts_tokens and 'unigram_loss' in run.evaluation:
      return run.evaluation['unigram_loss']
  return None


def draw(axis, chart: Chart, several: bool) -> None:
  """One chart on matplotlib's axes; names may hold any sign."""
  runs = list(dict.fromkeys(curve.run for curve in chart.curves))
  for curve in chart.curves:
    color = COLORS[runs.index(curve.run) % len(COLORS)]
    alone = len(curve.points) == 1
    style = {'train': dict(linewidth=1.2, alpha=0.75, marker='.' if alone else None),
             'validation': dict(marker='o', linestyle='--', markersize=4, linewidth=1),
             'evaluation': dict(marker='*', linestyle='', markersize=10, markeredgecolor=INK, markeredgewidth=0.5)}
    first = several and all(curve is other or other.run != curve.run for other in
                            chart.curves[:chart.curves.index(curve) + 1])
    label = f'{curve.run}: {curve.kind}' if several and first else '' if several else curve.kind
    axis.plot(*zip(*curve.points), color=color, label=label.lstrip('_'), **style[curve.kind])
  if chart.baseline is not None:
    axis.axhline(chart.baseline, color='grey', linestyle=':')
    axis.annotate('unigram baseline', (0.98, chart.baseline), xycoords=('axes fraction', 'data'), ha='right',
                  va='bottom', fontsize=8, color='grey')
  axis.set_title(chart.title, fontsize=10, parse_math=False)
  axis.set_xlabel('step', fontsize=9)
  axis.tick_params(labelsize=8)
  axis.grid(alpha=0.3)
  if len({(curve.run, curve.kind) for curve in chart.curves}) > 1:
    for text in axis.legend(fontsize=7, framealpha=0.3).get_texts():
      text.set_parse_math(False)


def as_svg(chart: Chart, several: bool) -> str:
  """The chart as an <svg> element that takes the page's colour of text and any width."""
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot
  ink = {name: INK for name in ('text.color', 'axes.labelcolor', 'axes.edgecolor', 'xtick.color', 'ytick.color')}
  with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': chart.title, **ink}):
    figure, axis = pyplot.subplots(figsize=(4.6, 2.9), layout='constrained')
    draw(axis, chart, several)
    for frame in (axis.spines['top'], axis.spines['right']):
      frame.set_visible(False)
    drawn = io.StringIO()
    with warnings.catch_warnings():  # the browser has its own letters
      warnings.filterwarnings('ignore', 'Glyph .* missing')
      figure.savefig(drawn, format='svg', transparent=True, metadata={'Date': None, 'Creator': None})
    pyplot.close(figure)
  svg = drawn.getvalue()
  svg = svg[svg.index('<svg'):].replace(INK, 'currentColor')
  return re.sub(r'<metadata>.*?</metadata>', '', re.sub(r' (width|height)="[\d.]+pt"', '', svg, count=2), flags=re.S)

"""The curves of a run as a picture."""

import io
import os
from collections.abc import Sequence

from bert_jax import run_directory
from bert_jax.errors import require
from bert_jax.report import charts
from input_pipeline import storage

COLUMNS = 3


def plot(run_dirs: storage.PathLike | Sequence[storage.PathLike], output: storage.PathLike | None = None
         ) -> storage.Path:
  """Draws losses, accuracies, learning rate and what else RUN/metrics.jsonl says, of several runs side by side.

  To `output`, by default loss.png of the first run. Raises ConfigError where there is nothing to draw.
  """
  runs = [run_dirs] if isinstance(run_dirs, str | os.PathLike) else list(run_dirs)
  require(bool(runs), 'no run was named: wanted `bert-jax plot RUN`, or several to compare')
  path = storage.path(output) if output else storage.path(runs[0]) / run_directory.PICTURE
  require(path.suffix == '.png', f'--output {output} ends in {path.suffix!r}: wanted .png')
  told = [charts.told(run_dir) for run_dir in runs]
  if output:
    storage.probe(output, '--output', folder=False)
  else:
    storage.probe(runs[0], 'the run')
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot

  from bert_jax.report import lettering
  found = charts.charts(told)
  rows = -(-len(found) // COLUMNS)
  picture = io.BytesIO()
  with matplotlib.rc_context({'font.family': lettering.families()}):
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(5 * COLUMNS, 3.4 * rows), layout='constrained',
                                   squeeze=False)
    for axis, chart in zip(axes.flat, found):
      charts.draw(axis, chart, several=len(runs) > 1)
    for axis in list(axes.flat)[len(found):]:
      axis.set_axis_off()
    figure.suptitle(lettering.drawable(', '.join(map(str, runs)))).set_parse_math(False)
    figure.savefig(picture, dpi=110)
  storage.write_whole(path, picture.getvalue())
  pyplot.close(figure)
  return path

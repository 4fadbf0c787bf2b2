"""The curves of a run as a picture."""

import io

from bert_jax import run_directory
from bert_jax.report import charts
from input_pipeline import storage

COLUMNS = 3


def plot(run_dir: storage.PathLike) -> storage.Path:
  """Draws losses, accuracies, learning rate and what else RUN/metrics.jsonl says to RUN/loss.png.

  Raises ConfigError where there is nothing to draw.
  """
  storage.probe(run_dir, 'the run')
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot

  from bert_jax.report import lettering
  found = charts.charts([charts.told(run_dir)])
  rows = -(-len(found) // COLUMNS)
  path, picture = storage.path(run_dir) / run_directory.PICTURE, io.BytesIO()
  with matplotlib.rc_context({'font.family': lettering.families()}):
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(5 * COLUMNS, 3.4 * rows), layout='constrained',
                                   squeeze=False)
    for axis, chart in zip(axes.flat, found):
      charts.draw(axis, chart, several=False)
    for axis in list(axes.flat)[len(found):]:
      axis.set_axis_off()
    figure.suptitle(lettering.drawable(str(run_dir))).set_parse_math(False)
    figure.savefig(picture, dpi=110)
  storage.write_whole(path, picture.getvalue())
  pyplot.close(figure)
  return path

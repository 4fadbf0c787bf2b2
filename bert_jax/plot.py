"""The curves of a run as a picture."""


import io

from bert_jax import metrics, run_directory
from bert_jax.errors import require
from input_pipeline import storage


def plot(run_dir: storage.PathLike) -> storage.Path:
  """Draws losses, accuracies and learning rate of RUN/metrics.jsonl to RUN/loss.png.

  Raises ConfigError where there is nothing to draw.
  """
  storage.probe(run_dir, 'the run')
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot

  lines = metrics.read(run_dir)
  require(bool(lines), f'{run_dir} has no {run_directory.LOG} with a line in it: train it first')
  objective = run_directory.read(run_dir).config.learns
  of_terms = (tuple(f'{term}_{figure}' for term in objective.terms) for figure in ('loss', 'accuracy'))
  columns = *of_terms, ('learning_rate',)
  titles = 'loss (nats)', 'accuracy', 'learning rate'
  figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.2), layout='constrained')
  for axis, names, title in zip(axes, columns, titles):
    for name in names:
      for kind, style in (('train', dict(linewidth=1)), ('validation', dict(marker='o', linestyle='--', markersize=4))):
        points = [(line['step'], line[name]) for line in lines if line['kind'] == kind and name in line]
        if points:
          axis.plot(*zip(*points), label=f'{kind} {name}', **style)
    axis.set(title=title, xlabel='step')
    axis.grid(alpha=0.3)
  held_out = run_directory.figures(run_dir)
  for axis, names in zip(axes, columns):
    for name in names:
      if name in held_out:
        axis.plot(held_out['step'], held_out[name], 'k*', label=f'held-out {name}')
  if (baseline := held_out.get('unigram_loss')) is not None:
    axes[0].axhline(baseline, color='grey', linestyle=':')
    axes[0].annotate('unigram baseline', (0.98, baseline), xycoords=('axes fraction', 'data'), ha='right', va='bottom',
                     fontsize=8, color='grey')
  for axis in axes:
    if axis.get_legend_handles_labels()[0]:
      axis.legend(fontsize=8)
  figure.suptitle(str(run_dir))
  path = storage.path(run_dir) / run_directory.PICTURE
  picture = io.BytesIO()
  figure.savefig(picture, dpi=110)
  storage.write_whole(path, picture.getvalue())
  pyplot.close(figure)
  return path

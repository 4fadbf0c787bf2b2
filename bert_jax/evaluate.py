"""Held-out figures: loss and accuracy of each term over a whole split, and the unigram baseline of the same targets.

V vocabulary.
"""

import contextlib
import dataclasses
import json
import sys

import jax
import numpy as np
from etils import epath

from bert_jax import checkpoint, config as cfg, metrics, objectives, phases, step as step_lib
from bert_jax.metrics import means
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline.batches import loader

FIGURES = 'evaluation.json'  # in the run's directory


def run(eval_step, params, stream: 'loader.Stream', mesh, config: cfg.Config, rows: int | None = None, unigram: np.ndarray | None = None,
        progress: bool = False) -> dict[str, float]:
  """Means over the first `rows` rows of a split, or all: mlm_loss, mlm_accuracy, nsp_loss, nsp_accuracy, or the objective's other terms.

  The masks and pairs are those of the stream's first epoch, so the figures of two runs compare. With `unigram`, log probabilities of the
  vocabulary [V], also unigram_loss: what these cost on the same targets, in nats.
  """
  slot, count = mesh_lib.process_slice(mesh)
  totals: dict[str, float] = {}
  done = metrics.Progress(0, -(-(rows or stream.rows_per_epoch) // config.batch.size), progress)
  with contextlib.closing(done):
    for index, batch in enumerate(stream.evaluation_batches(config.batch.size, rows, slot, count)):
      sums = jax.device_get(eval_step(params, mesh_lib.put_batch(batch, mesh)))
      values = {f'{term}_{name}': float(value) for term, term_sums in sums.items() for name, value in term_sums._asdict().items()}
      if unigram is not None:
        labels, weights = objectives.token_targets(config.objective, batch)
        values['unigram'], values['unigram_targets'] = float(-(unigram[labels] * weights).sum()), float(weights.sum())
      totals = {name: totals.get(name, 0.0) + value for name, value in values.items()}
      if done.bar is not None:
        done.bar.update(index + 1 - done.bar.n)
  figures = means(totals)
  if unigram is not None:
    figures['unigram_loss'] = totals['unigram'] / max(totals['unigram_targets'], 1)
  return figures


def open_validation(data_dir: epath.PathLike, config: cfg.Config, verify: str = 'full') -> 'loader.Stream':
  """The validation split; where it has one document alone, without next-sentence pairs, which need two. Raises DataError."""
  path = phases.directory(data_dir, config)
  try:
    return loader.open_split(path, 'validation', config.batch, verify)
  except loader.OneDocument:
    print(f'the validation split of {path} has one document alone: no next-sentence figures', file=sys.stderr)
    return loader.open_split(path, 'validation', dataclasses.replace(config.batch, pairs='none'), verify)


def unigram_log_probabilities(directory: epath.PathLike, config: cfg.Config) -> np.ndarray:  # -> [V]
  """Log frequencies of the training split's tokens, each counted once more, so that none is impossible.

  [SEP] is counted where it is predicted: from left to right.
  """
  stream = loader.open_split(phases.directory(directory, config), 'train', config.batch, verify='framing')
  counts = stream.token_counts() + 1.0
  if config.objective == 'left_to_right':
    counts[stream.vocabulary.sep_id] += stream.separators * int(stream.index.pieces.sum())
  return np.log(counts / counts.sum())


def evaluate(run_dir: epath.PathLike, data_dir: epath.PathLike | None = None, step: int | None = None,
             progress: bool = True) -> dict[str, float]:
  """The figures of a run's newest checkpoint, or of `step`, on the held-out documents of its data.

  Also written to RUN/evaluation.json. Keys: mlm_loss, mlm_accuracy, nsp_loss, nsp_accuracy (sop_…, lm_… where the objective has
  those terms), unigram_loss, documents, sequences, step.
  Raises ConfigError, DataError, CheckpointError.
  """
  loaded = checkpoint.load(run_dir, step)
  config, data_dir = phases.at(loaded.run.config, loaded.step), data_dir or loaded.run.data
  validation = open_validation(data_dir, config)
  cfg.require(validation.vocabulary.sha256 == loaded.run.vocabulary.sha256,
              f'{data_dir} was prepared with another vocabulary than {run_dir} was trained with: name its own data with --data')
  mesh = mesh_lib.make_mesh(cfg.MeshShape(data=1), jax.local_devices()[:1])
  graphdef, _ = step_lib.abstract_state(config, mesh)
  eval_step = step_lib.jit_eval_step(graphdef, config, mesh)
  params = jax.device_put(loaded.params, mesh_lib.state_sharding(loaded.params, mesh))
  unigram = unigram_log_probabilities(data_dir, config)
  figures = run(eval_step, params, validation, mesh, config, unigram=unigram, progress=progress)
  split = validation.manifest.splits['validation']
  figures |= {'documents': split.documents, 'sequences': split.pieces, 'step': loaded.step}
  (checkpoint.run_of(epath.Path(run_dir)) / FIGURES).write_text(json.dumps(figures) + '\n')
  return figures


def read(run_dir: epath.PathLike) -> dict[str, float]:
  """What `evaluate` last found; {} where it has not run."""
  path = epath.Path(run_dir) / FIGURES
  return json.loads(path.read_text()) if path.exists() else {}

"""Parameters for tests that do not ask how they are initialised: compiling that takes longer than most tests."""

import jax
import numpy as np

from bert_jax import config as cfg
from bert_jax.model import build
from bert_jax.objectives import PRETRAINING_HEADS
from bert_jax.parallel import mesh


def random(model: cfg.Model, heads=PRETRAINING_HEADS, seed: int = 0):
  """The tree of build.build, of model.initializer_range about 0, or 1 for scales: no leaf is constant."""
  rng = np.random.default_rng(seed)
  template = build.describe(model, heads)[1]

  def draw(path, leaf):
    mean = float(mesh.path_name(path).endswith('scale'))
    return rng.normal(mean, model.initializer_range, leaf.shape).astype(np.float32)

  return jax.tree.map_with_path(draw, template)


def named(params):
  """{'encoder/blocks/query/kernel': array …}"""
  return {mesh.path_name(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(params)}


def write_run(directory, config, vocabulary, *, steps=(7,), origin=None, params=None, data='nowhere'):
  """A run directory of `config`, pretrained or fine-tuned, as a training leaves it, with a checkpoint at each of
  `steps`.

  Returns the parameters of the newest. `vocabulary`: a directory of one.
  """
  from bert_jax import checkpoint, program, run_directory
  from input_pipeline.vocabulary import tokenizer
  params = random(config.model, config.learns.heads) if params is None else params
  record = run_directory.Record(config, str(data), tokenizer.load(vocabulary).record, origin)
  run_directory.open_run(directory, record, run_directory.vocabulary_files(vocabulary))
  zero = np.zeros((), np.int32)
  with checkpoint.manager(directory) as checkpoints:
    for step in steps:
      state = program.TrainState(zero + step, zero, jax.device_put(params), {'nothing': jax.device_put(zero)})
      checkpoint.save(checkpoints, state, checkpoint.Meta(step, 0.0, {}, ''))
  return params


def task(labels):
  """The objective of classification into these classes; of regression where there are none."""
  from bert_jax.tasks.settings import Finetune
  return Finetune('classification' if labels else 'regression', tuple(labels)).learns

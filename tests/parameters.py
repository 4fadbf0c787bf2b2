"""Parameters for tests that do not ask how they are initialised: compiling BERT's initialisation takes longer than most tests."""

import jax
import numpy as np

from bert_jax import config as cfg
from bert_jax.model import build
from bert_jax.objectives import PRETRAINING_HEADS
from bert_jax.parallel import mesh


def random(model: cfg.Model, heads=PRETRAINING_HEADS, seed: int = 0):
  """The tree of build.build, of model.initializer_range about 0, or about 1 for scales: no leaf is constant, so each has an influence."""
  rng = np.random.default_rng(seed)
  template = build.describe(model, heads)[1]
  draw = lambda path, leaf: (mesh.path_name(path).endswith('scale') + rng.normal(0, model.initializer_range, leaf.shape)).astype(np.float32)
  return jax.tree.map_with_path(draw, template)

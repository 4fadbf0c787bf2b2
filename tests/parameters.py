"""Parameters for tests that do not ask how they are initialised: compiling BERT's initialisation takes longer than most tests."""

import jax
import numpy as np

from bert_jax import config as cfg
from bert_jax.model import bert as model_lib
from bert_jax.parallel import mesh


def random(model: cfg.Model, seed: int = 0):
  """The tree of model.build, of model.initializer_range about 0, or about 1 for scales: no leaf is constant, so each has an influence."""
  rng = np.random.default_rng(seed)
  template = jax.eval_shape(lambda: model_lib.build(model, jax.random.key(0)))[1]
  draw = lambda path, leaf: (mesh.path_name(path).endswith('scale') + rng.normal(0, model.initializer_range, leaf.shape)).astype(np.float32)
  return jax.tree.map_with_path(draw, template)

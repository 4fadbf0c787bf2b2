"""Ten updates against google-research/bert's optimization.py, written out in NumPy float64 from the original's text."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import config as cfg, optimizer

STEPS, WARMUP, PEAK = 10, 4, 0.05
OPTIMIZER = cfg.Optimizer(peak_learning_rate=PEAK, warmup_steps=WARMUP)

# Our name: the original's, by which it decides what decays.
NAMES = {'word_embeddings/embedding': 'bert/embeddings/word_embeddings', 'embeddings_norm/scale': 'bert/embeddings/LayerNorm/gamma',
         'embeddings_norm/bias': 'bert/embeddings/LayerNorm/beta', 'blocks/output/kernel': 'bert/encoder/layer_0/output/dense/kernel',
         'blocks/output/bias': 'bert/encoder/layer_0/output/dense/bias', 'mlm_bias': 'cls/predictions/output_bias',
         'next_sentence/kernel': 'cls/seq_relationship/output_weights'}
SHAPES = {'word_embeddings/embedding': (7, 4), 'embeddings_norm/scale': (4,), 'embeddings_norm/bias': (4,),
          'blocks/output/kernel': (2, 4, 4), 'blocks/output/bias': (2, 4), 'mlm_bias': (7,), 'next_sentence/kernel': (4, 2)}


def google(params, gradients):
  """optimization.py create_optimizer and AdamWeightDecayOptimizer.apply_gradients, global_step from 0."""
  m = {name: np.zeros_like(value) for name, value in params.items()}
  v = {name: np.zeros_like(value) for name, value in params.items()}
  for step, grads in enumerate(gradients):
    rate = (PEAK - 0.0) * (1 - min(step, STEPS) / STEPS) ** 1.0 + 0.0  # tf.train.polynomial_decay
    warmup = PEAK * (step / WARMUP)
    is_warmup = float(step < WARMUP)
    rate = (1.0 - is_warmup) * rate + is_warmup * warmup
    norm = np.sqrt(sum((g ** 2).sum() for g in grads.values()))
    for name in params:
      g = grads[name] * (1.0 / max(norm, 1.0))  # tf.clip_by_global_norm(clip_norm=1.0)
      m[name] = 0.9 * m[name] + (1.0 - 0.9) * g
      v[name] = 0.999 * v[name] + (1.0 - 0.999) * g ** 2
      update = m[name] / (np.sqrt(v[name]) + 1e-6)
      if not any(re.search(pattern, NAMES[name]) for pattern in ('LayerNorm', 'layer_norm', 'bias')):
        update += 0.01 * params[name]
      params = params | {name: params[name] - rate * update}
  return params


def nested(flat):
  tree = {}
  for name, value in flat.items():
    *above, last = name.split('/')
    node = tree
    for part in above:
      node = node.setdefault(part, {})
    node[last] = jnp.asarray(value, jnp.float32)
  return tree


@pytest.mark.parametrize('scale', [0.01, 3.0])  # below the clipping norm, and above
def test_ten_updates(scale):
  rng = np.random.default_rng(0)
  draw = lambda scale: {name: rng.normal(0, scale, shape).astype(np.float32).astype(np.float64) for name, shape in SHAPES.items()}
  start, gradients = draw(0.5), [draw(scale) for _ in range(STEPS)]
  wanted = nested(google(start, gradients))

  tx, schedule = optimizer.make(OPTIMIZER, STEPS)
  params = nested(start)
  state = tx.init(params)

  @jax.jit
  def update(step, params, state, grads):
    norm = jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(grads)))
    updates, state = tx.update(optimizer.clip_by_global_norm(OPTIMIZER.clip_norm, norm, grads), state, params)
    return jax.tree.map(lambda p, u: p - schedule(step) * u, params, updates), state

  for step, grads in enumerate(gradients):
    before = params
    params, state = update(step, params, state, nested(grads))
    if step == 0:  # the first learning rate is 0
      jax.tree.map(np.testing.assert_array_equal, params, before)
  jax.tree.map(lambda found, want: np.testing.assert_allclose(found, want, atol=2e-6, rtol=0), params, wanted)


def test_the_rate_drops_where_the_warmup_ends():
  schedule = optimizer.make(OPTIMIZER, STEPS)[1]
  rates = [float(schedule(step)) / PEAK for step in range(STEPS + 1)]
  np.testing.assert_allclose(rates, [0, .25, .5, .75, .6, .5, .4, .3, .2, .1, 0], atol=1e-6)

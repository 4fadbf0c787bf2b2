"""Sixty updates of every optimizer against its paper or code written out in NumPy float64, layer by layer."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import config as cfg, optimizer

STEPS, WARMUP, PEAK, DECAY, LAYERS = 60, 12, 0.02, 0.05, 3

# Our name: the original's, by which it decides what decays.
NAMES = {'word_embeddings/embedding': 'bert/embeddings/word_embeddings',
         'embeddings_norm/scale': 'bert/embeddings/LayerNorm/gamma',
         'embeddings_norm/bias': 'bert/embeddings/LayerNorm/beta',
         'blocks/output/kernel': 'bert/encoder/layer_{}/output/dense/kernel',
         'blocks/output/bias': 'bert/encoder/layer_{}/output/dense/bias',
         'blocks/attention_norm/scale': 'bert/encoder/layer_{}/attention/output/LayerNorm/gamma',
         'masked_tokens/bias': 'cls/predictions/output_bias',
         'pair_classes/kernel': 'cls/seq_relationship/output_weights'}
SHAPES = {'word_embeddings/embedding': (7, 4), 'embeddings_norm/scale': (4,), 'embeddings_norm/bias': (4,),
          'blocks/output/kernel': (LAYERS, 4, 5), 'blocks/output/bias': (LAYERS, 5),
          'blocks/attention_norm/scale': (LAYERS, 4),
          'masked_tokens/bias': (7,), 'pair_classes/kernel': (4, 2)}


def excluded(name):
  return any(re.search(pattern, name) for pattern in ('LayerNorm', 'layer_norm', 'bias'))


def bert_adamw(name, param, m, v, step):
  """optimization.py AdamWeightDecayOptimizer.apply_gradients."""
  update = m / (np.sqrt(v) + 1e-6)
  return update if excluded(name) else update + DECAY * param


def adamw(name, param, m, v, step):
  """arXiv:1711.05101 algorithm 2, with t from 1."""
  m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
  return m_hat / (np.sqrt(v_hat) + 1e-6) + (0 if excluded(name) else DECAY * param)


def lamb(name, param, m, v, step):
  """arXiv:1904.00962 algorithm 2 with phi(z) = z; its authors' code leaves what does not decay without a ratio."""
  update = adamw(name, param, m, v, step)
  if excluded(name):
    return update
  return update * np.linalg.norm(param.ravel()) / np.linalg.norm(update.ravel())


RULES = {'bert_adamw': bert_adamw, 'adamw': adamw, 'lamb': lamb}


def follow(rule, params, gradients):
  """{the original's name: values} after each step: the schedule of optimization.py create_optimizer, then `rule`."""
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
      params = params | {name: params[name] - rate * rule(name, params[name], m[name], v[name], step)}
    yield params


def apart(flat):
  """{our name: value, stacks [L ...]} as {the original's name: value}."""
  named = {}
  for name, value in flat.items():
    if name.startswith('blocks/'):
      named |= {NAMES[name].format(layer): value[layer] for layer in range(LAYERS)}
    else:
      named[NAMES[name]] = value
  return named


def nested(flat):
  tree = {}
  for name, value in flat.items():
    *above, last = name.split('/')
    node = tree
    for part in above:
      node = node.setdefault(part, {})
    node[last] = jnp.asarray(value, jnp.float32)
  return tree


def flatten(tree):
  return {optimizer.path_name(path): np.asarray(value) for path, value in jax.tree.leaves_with_path(tree)}


def traits(params):
  """Their names say what decays, as on the real model, and what is a stack of layers."""
  stacked = jax.tree.map_with_path(lambda path, _: optimizer.path_name(path).startswith('blocks/'), params)
  return optimizer.Traits(optimizer.decayed(params), stacked)


def updater(settings, params):
  """(params, state) -> (params, state) as the train step does it."""
  tx, schedule = optimizer.make(settings, STEPS, traits(params))

  @jax.jit
  def update(step, params, state, grads):
    norm = jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(grads)))
    updates, state = tx.update(optimizer.clip_by_global_norm(settings.clip_norm, norm, grads), state, params)
    return jax.tree.map(lambda p, u: p - schedule(step) * u, params, updates), state

  return tx.init, update


def drawn(scale):
  """Parameters and gradients of size about 1 and `scale`; each layer's of another, so that a stack's ratio shows."""
  rng = np.random.default_rng(0)
  sizes = lambda shape: np.reshape([1, 3, .2], (-1,) + (1,) * (len(shape) - 1))
  size = lambda name, shape: sizes(shape) if name.startswith('blocks/') else 1
  draw = lambda scale: {name: (size(name, shape) * rng.normal(0, scale, shape)).astype(np.float32).astype(np.float64)
                        for name, shape in SHAPES.items()}
  return draw(0.2), [draw(scale) for _ in range(STEPS)]


@pytest.mark.parametrize('scale', [0.01, 3.0])  # below the clipping norm, and above
@pytest.mark.parametrize('name', optimizer.OPTIMIZERS)
def test_sixty_updates(name, scale):
  settings = cfg.Optimizer(name=name, peak_learning_rate=PEAK, warmup_steps=WARMUP, weight_decay=DECAY)
  start, gradients = drawn(scale)
  params = nested(start)
  init, update = updater(settings, params)
  state = init(params)
  errors = []
  for step, (grads, wanted) in enumerate(zip(gradients, follow(RULES[name], apart(start), map(apart, gradients)))):
    before = params
    params, state = update(step, params, state, nested(grads))
    if step == 0:  # the first learning rate is 0
      jax.tree.map(np.testing.assert_array_equal, params, before)
    found = apart(flatten(params))
    errors += [np.abs(found[key] - wanted[key]).max() for key in wanted]
  moved = max(np.abs(wanted[key] - value).max() for key, value in apart(start).items())
  print(name, scale, 'differ by', np.max(errors), 'of a way of', moved)
  assert np.max(errors) < 2e-6 < .1 < moved


def test_trust_ratios_are_each_layers_own():
  """By name, with the layer's number: |parameter| / |AdamW's update|; and only for what decays."""
  start, gradients = drawn(0.01)
  params = nested(start)
  init, update = updater(cfg.Optimizer(name='lamb', weight_decay=DECAY), params)
  _, state = update(0, params, init(params), nested(gradients[0]))
  found = optimizer.by_layer(optimizer.diagnostics(state)['trust_ratio'])
  assert list(found) == [*(f'blocks/{layer}/output/kernel' for layer in range(LAYERS)), 'pair_classes/kernel',
                         'word_embeddings/embedding']
  for name, ratio in found.items():
    theirs = NAMES[re.sub(r'/\d+/', '/', name)].format(re.sub(r'\D', '', name))
    param, g = apart(start)[theirs], apart(gradients[0])[theirs]
    update_norm = np.linalg.norm(adamw(theirs, param, .1 * g, .001 * g ** 2, 0).ravel())
    assert ratio == pytest.approx(np.linalg.norm(param.ravel()) / update_norm, rel=1e-5), name
  assert optimizer.diagnostics(updater(cfg.Optimizer(), params)[0](params)) == {}


def test_stacked_layers_move_as_separate_layers():
  """LAMB on [L ...] and on L parameters, to 1e-6 after every one of sixty steps."""
  settings = cfg.Optimizer(name='lamb', peak_learning_rate=PEAK, warmup_steps=WARMUP, weight_decay=DECAY)
  start, gradients = drawn(3.0)

  def separate(flat):
    single = {name: value for name, value in flat.items() if not name.startswith('blocks/')}
    stacks = {name: value for name, value in flat.items() if name.startswith('blocks/')}
    return single | {f'layer_{layer}/{name[7:]}': value[layer]
                     for name, value in stacks.items() for layer in range(LAYERS)}

  stacked, apart_ = nested(start), nested(separate(start))
  (init, update), (init_apart, update_apart) = updater(settings, stacked), updater(settings, apart_)
  states = init(stacked), init_apart(apart_)
  for step, grads in enumerate(gradients):
    stacked, first = update(step, stacked, states[0], nested(grads))
    apart_, second = update_apart(step, apart_, states[1], nested(separate(grads)))
    states = first, second
    found, wanted = separate(flatten(stacked)), flatten(apart_)
    assert np.max([np.abs(found[name] - wanted[name]).max() for name in wanted]) < 1e-6


def test_a_norm_of_zero_has_ratio_one():
  stack = jnp.stack([jnp.zeros((2, 2)), jnp.ones((2, 2))])
  params = {'blocks': {'output': {'kernel': stack}}, 'pooler': {'kernel': jnp.ones((2, 2))}}
  updates = jax.tree.map(jnp.ones_like, params) | {'pooler': {'kernel': jnp.zeros((2, 2))}}
  transform = optimizer.scale_by_trust_ratio(traits(params))
  scaled, state = transform.update(updates, transform.init(params), params)
  jax.tree.map(np.testing.assert_array_equal, scaled, updates)
  assert set(optimizer.by_layer(optimizer.diagnostics(state)['trust_ratio']).values()) == {1.}


def test_the_rate_drops_where_the_warmup_ends():
  schedule = optimizer.learning_rate(cfg.Optimizer(peak_learning_rate=PEAK, warmup_steps=4), 10)
  rates = [float(schedule(step)) / PEAK for step in range(11)]
  np.testing.assert_allclose(rates, [0, .25, .5, .75, .6, .5, .4, .3, .2, .1, 0], atol=1e-6)

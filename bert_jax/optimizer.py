"""BERT's AdamW, textbook AdamW and LAMB, the learning rate schedules, and which parameters decay."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax import config as cfg
from bert_jax.parallel.mesh import path_name


def decayed(params):
  """True for what weight decay shrinks: kernels and embeddings, by name, since a stack of biases has two axes too.

  optimization.py create_optimizer: exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"].
  """
  return jax.tree.map_with_path(lambda path, _: path_name(path).split('/')[-1] not in ('bias', 'scale', 'mlm_bias'), params)


class Moments(NamedTuple):
  mu: optax.Params
  nu: optax.Params


def scale_by_bert_adam(b1: float, b2: float, epsilon: float) -> optax.GradientTransformation:
  """m / (sqrt(v) + epsilon) without bias correction (optimization.py AdamWeightDecayOptimizer)."""
  def init(params):
    return Moments(jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))

  def update(grads, state, params=None):
    del params
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
    return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), mu, nu), Moments(mu, nu)

  return optax.GradientTransformation(init, update)


class TrustRatios(NamedTuple):
  """What `scale_by_trust_ratio` multiplied the last updates by."""
  ratios: optax.Params  # [L] for a stack of layers, a scalar for any other parameter; none where nothing decays


def scale_by_trust_ratio() -> optax.GradientTransformation:
  """|parameter| / |update| times the update, for each layer of a stack on its own; only for what decays.

  A parameter or an update of norm 0 has the ratio 1. The ratios stay in the state, where `trust_ratios` finds them.
  """
  def ratio(path, update, param, decays):
    if not decays:
      return None
    axes = tuple(range(1, param.ndim)) if is_stacked(path) else None
    of_param, of_update = (jnp.sqrt(jnp.square(x).sum(axes)) for x in (param, update))
    return jnp.where((of_param > 0) & (of_update > 0), of_param / jnp.where(of_update > 0, of_update, 1), 1)

  def init(params):
    one = lambda path, param, decays: jnp.ones(param.shape[:is_stacked(path)], jnp.float32) if decays else None
    return TrustRatios(jax.tree.map_with_path(one, params, decayed(params)))

  def update(updates, state, params):
    del state
    ratios = jax.tree.map_with_path(ratio, updates, params, decayed(params))
    scale = lambda r, u: u if r is None else u * r.reshape(r.shape + (1,) * (u.ndim - r.ndim))
    return jax.tree.map(scale, ratios, updates, is_leaf=lambda x: x is None), TrustRatios(ratios)

  return optax.GradientTransformation(init, update)


def is_stacked(path) -> bool:
  """Whether a parameter is a stack of layers."""
  return path_name(path).startswith('blocks/')


def trust_ratios(opt_state: optax.OptState) -> dict[str, jax.Array]:
  """{'blocks/query/kernel': [L], 'word_embeddings/embedding': []}: LAMB's ratios of the last update; {} for other optimizers."""
  states = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, TrustRatios))
  return {path_name(path): ratio for state in states if isinstance(state, TrustRatios)
          for path, ratio in jax.tree.leaves_with_path(state.ratios)}


def by_layer(ratios: dict[str, np.ndarray]) -> dict[str, float]:  # {[L] or []} -> {}
  """{'blocks/0/query/kernel': 0.21 …, 'word_embeddings/embedding': 0.3}: one entry for each layer of a stack."""
  named = {}
  for name, ratio in ratios.items():
    if np.ndim(ratio):
      named |= {name.replace('blocks/', f'blocks/{layer}/', 1): float(value) for layer, value in enumerate(ratio)}
    else:
      named[name] = float(ratio)
  return named


def bert_adamw(o: cfg.Optimizer) -> optax.GradientTransformation:
  return optax.chain(scale_by_bert_adam(o.b1, o.b2, o.epsilon), optax.add_decayed_weights(o.weight_decay, decayed))


def adamw(o: cfg.Optimizer) -> optax.GradientTransformation:
  """Decoupled weight decay with bias correction (arXiv:1711.05101)."""
  return optax.chain(optax.scale_by_adam(o.b1, o.b2, o.epsilon), optax.add_decayed_weights(o.weight_decay, decayed))


def lamb(o: cfg.Optimizer) -> optax.GradientTransformation:
  """arXiv:1904.00962 algorithm 2, with a trust ratio for each layer's each parameter that decays.

  Biases and LayerNorm keep AdamW's update, as in the authors' code (exclude_from_layer_adaptation is exclude_from_weight_decay there): a
  bias begins at 0, and with a ratio it would hardly leave.
  """
  return optax.chain(adamw(o), scale_by_trust_ratio())


OPTIMIZERS = {'bert_adamw': bert_adamw, 'adamw': adamw, 'lamb': lamb}

# ---------------------------------------------------------------- schedules: (settings, steps) -> step -> learning rate after the warmup


def falling(o: cfg.Optimizer, first: int, steps: int, shape=None) -> optax.Schedule:
  """The peak until step `first`, then down to the final rate at `steps`. `shape` bends the share of the steps left, 1 … 0, else a power."""
  def rate(step):
    left = jnp.clip((steps - step) / max(steps - first, 1), 0, 1)
    return o.final_learning_rate + (o.peak_learning_rate - o.final_learning_rate) * (shape(left) if shape else left ** o.decay_power)
  return rate


def bert_schedule(o: cfg.Optimizer, steps: int) -> optax.Schedule:
  """Counted from step 0, so that the rate drops where the warmup ends (optimization.py create_optimizer)."""
  return falling(o, 0, steps)


def linear_schedule(o: cfg.Optimizer, steps: int) -> optax.Schedule:
  return falling(o, o.warmup_steps, steps)


def cosine_schedule(o: cfg.Optimizer, steps: int) -> optax.Schedule:
  """Half a cosine from the end of the warmup on (arXiv:1608.03983, without restarts)."""
  return falling(o, o.warmup_steps, steps, lambda left: (1 - jnp.cos(jnp.pi * left)) / 2)


def wsd_schedule(o: cfg.Optimizer, steps: int) -> optax.Schedule:
  """Warmup, stable, decay: the peak until the last share of the steps, in which the rate falls (arXiv:2404.06395 section 4.2)."""
  return falling(o, steps - round(o.decay_share * steps), steps)


def constant_schedule(o: cfg.Optimizer, steps: int) -> optax.Schedule:
  del steps
  return lambda step: jnp.float32(o.peak_learning_rate)


SCHEDULES = {'bert': bert_schedule, 'linear': linear_schedule, 'cosine': cosine_schedule, 'wsd': wsd_schedule,
             'constant': constant_schedule}


def learning_rate(o: cfg.Optimizer, steps: int) -> optax.Schedule:
  """The rate of each step from 0: a linear warmup from 0, then the schedule's."""
  after = SCHEDULES[o.schedule](o, steps)
  return lambda step: jnp.where(step < o.warmup_steps, o.peak_learning_rate * step / max(o.warmup_steps, 1), after(step))


def clip_by_global_norm(limit: float, norm: jax.Array, grads):
  """Gradients scaled so that their global `norm` is at most `limit` (tf.clip_by_global_norm); 0: as they are."""
  return grads if limit == 0 else jax.tree.map(lambda g: g * (limit / jnp.maximum(norm, limit)), grads)


def make(o: cfg.Optimizer, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """The direction of each update (before the learning rate) and the learning rate of each step, from 0."""
  return OPTIMIZERS[o.name](o), learning_rate(o, steps)

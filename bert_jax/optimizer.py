"""BERT's AdamW, textbook AdamW and LAMB, the learning rate schedules, and which parameters decay."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from bert_jax import config as cfg
from bert_jax.mesh import path_name


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


def per_layer(transform: optax.GradientTransformation) -> optax.GradientTransformation:
  """A stateless transform applied to each layer of a stack instead of to the stack as one tensor; only to what decays."""
  def update(updates, state, params):
    one = lambda u, p: transform.update(u, state, p)[0]
    each = lambda path, u, p: (jax.vmap(one) if path_name(path).startswith('blocks/') else one)(u, p)
    one_or_none = lambda path, u, p, decays: each(path, u, p) if decays else u
    return jax.tree.map_with_path(one_or_none, updates, params, decayed(params)), state

  return optax.GradientTransformation(transform.init, update)


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
  return optax.chain(adamw(o), per_layer(optax.scale_by_trust_ratio()))


OPTIMIZERS = {'bert_adamw': bert_adamw, 'adamw': adamw, 'lamb': lamb}

# ---------------------------------------------------------------- schedules: (settings, steps) -> step -> learning rate


def bert_schedule(o: cfg.Optimizer, steps: int) -> optax.Schedule:
  """Linear warmup, then polynomial decay counted from step 0, so that the rate drops where they join (optimization.py create_optimizer)."""
  def rate(step):
    decay = o.peak_learning_rate * (1 - jnp.minimum(step, steps) / steps) ** o.decay_power
    return jnp.where(step < o.warmup_steps, o.peak_learning_rate * step / max(o.warmup_steps, 1), decay)
  return rate


def linear_schedule(o: cfg.Optimizer, steps: int) -> optax.Schedule:
  """Linear warmup to the peak, then polynomial decay from the peak to 0."""
  def rate(step):
    left = jnp.clip((steps - step) / max(steps - o.warmup_steps, 1), 0, 1)
    return o.peak_learning_rate * jnp.where(step < o.warmup_steps, step / max(o.warmup_steps, 1), left ** o.decay_power)
  return rate


def constant_schedule(o: cfg.Optimizer, steps: int) -> optax.Schedule:
  del steps
  return lambda step: o.peak_learning_rate * jnp.minimum(1, step / max(o.warmup_steps, 1)) if o.warmup_steps else o.peak_learning_rate


SCHEDULES = {'bert': bert_schedule, 'linear': linear_schedule, 'constant': constant_schedule}


def clip_by_global_norm(limit: float, norm: jax.Array, grads):
  """Gradients scaled so that their global `norm` is at most `limit` (tf.clip_by_global_norm); 0: as they are."""
  return grads if limit == 0 else jax.tree.map(lambda g: g * (limit / jnp.maximum(norm, limit)), grads)


def make(o: cfg.Optimizer, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """The direction of each update (before the learning rate) and the learning rate of each step, from 0."""
  return OPTIMIZERS[o.name](o), SCHEDULES[o.schedule](o, steps)

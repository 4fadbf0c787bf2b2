"""Whether what a step makes is finite: known from the settings alone, or looked at."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from bert_jax.optimizer import Optimizer
from bert_jax.parallel.mesh import parameter_of, path_name

MODERATE = 1e15  # beyond it no number of a state is that of an encoder: what is proved begins within it
GREATEST = 1e37  # a tenth of the greatest number of 32 bits, of which roundings can only take little
ROUNDING = 4e-7  # by which a step may at most make a number greater than it is in exact arithmetic, as a share of it
LEAST_EPSILON = 1e-30  # smaller ones may count as 0

# By how much more than the greatest mean of gradients the numerator of an update can be; of others nothing is known.
CORRECTIONS: dict[str, Callable[[Optimizer], float]] = {'bert_adamw': lambda o: 1.0,
                                                          'adamw': lambda o: 1 / (1 - o.b1)}


def stays_finite(o: Optimizer, steps: int) -> bool:
  """Whether none of so many steps can make a number that is not finite of numbers within MODERATE, from finite losses
  and gradients: by arithmetic on the settings, so that no step has to look.

  Clipped, no element of a gradient is beyond the clip, and so none of its means beyond it or where they began. An
  update is at most that over epsilon, and decay only shrinks: a parameter goes no further than steps x rate x that.
  """
  if o.name not in CORRECTIONS or not (o.clip_norm > 0 and o.epsilon >= LEAST_EPSILON):
    return False
  if min(1 - o.b1, 1 - o.b2) < 10 * ROUNDING or not 0 <= o.weight_decay * max(o.peak_learning_rate, 1) <= 1:
    return False
  mean = 2 * max(MODERATE, o.clip_norm)
  square = 2 * max(MODERATE, o.clip_norm**2) / (1 - o.b2)
  update = mean * CORRECTIONS[o.name](o) / o.epsilon
  log = math.log(MODERATE + update * max(steps * o.peak_learning_rate, 1)) + ROUNDING * steps
  return max(square, update) < GREATEST and log < math.log(GREATEST)


def all_finite(params: optax.Params, opt_state: optax.OptState) -> jax.Array:  # -> []
  """Whether every number of a state is one. What an optimizer keeps of a parameter is looked at with it, since both are
  computed from the same arrays, which are then read once."""
  names = {path_name(path) for path, _ in jax.tree.leaves_with_path(params)}
  of: dict[tuple, jax.Array] = {}
  for path, leaf in jax.tree.leaves_with_path((params, opt_state)):
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
      key = parameter_of(path, names), leaf.shape
      of[key] = of.get(key, 0) + leaf * 0  # not finite: nan
  return jnp.isfinite(sum(map(jnp.sum, of.values())))

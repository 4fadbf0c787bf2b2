"""BERT's AdamW, textbook AdamW and LAMB, the learning rate schedules, and which parameters decay."""

import dataclasses
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.errors import require
from bert_jax.fields import one_of, require_fields
from bert_jax.parallel.mesh import path_name
from input_pipeline.ranges import FLOAT32, CountOrNone, Within


@dataclasses.dataclass(frozen=True)
class Traits:
  """What an optimizer is told of the parameters, as trees that are congruent to them."""
  decayed: optax.Params  # bool: whether weight decay shrinks it
  stacked: optax.Params  # bool: whether it is a stack of layers, whose norms are taken layer by layer
  frozen: optax.Params = ()  # bool: whether it stays as it is, to the last bit; (): none does


def traits(logical, frozen: tuple[str, ...] = ()) -> Traits:
  """The traits of parameters of which `logical` (a tree of parallel.mesh.Logical) is known.

  `frozen`: 'encoder', or heads, none of whose parameters is to move.
  """
  is_frozen = lambda path, _: path_name(path).split('/')[0] in frozen
  return Traits(decayed(logical), jax.tree.map(lambda known: known.stacked, logical),
                jax.tree.map_with_path(is_frozen, logical))


def decayed(params):
  """True for what weight decay shrinks: kernels and embeddings, by name, since a stack of biases has two axes too.

  optimization.py create_optimizer: exclude_from_weight_decay=["LayerNorm", "layer_norm", "bias"].
  """
  return jax.tree.map_with_path(lambda path, _: path_name(path).split('/')[-1] not in ('bias', 'scale'), params)


class Moments(NamedTuple):
  mu: optax.Params
  nu: optax.Params


# (new values, old ones) -> what an optimizer's state becomes: the new ones, or another choice of who calls `update`.
Settle = Callable[[Any, Any], Any]


def as_computed(new, old):
  """A Settle: the new values."""
  del old
  return new


def moments(b1: float, b2: float, grads, mu, nu, settle: Settle):
  """Means of gradients and of their squares."""
  new = (jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, mu, grads),
         jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), nu, grads))
  return settle(new, (mu, nu))


def scale_by_bert_adam(b1: float, b2: float, epsilon: float) -> optax.GradientTransformationExtraArgs:
  """m / (sqrt(v) + epsilon) without bias correction (optimization.py AdamWeightDecayOptimizer)."""
  def init(params):
    return Moments(jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))

  def update(grads, state, params=None, *, settle: Settle = as_computed, **_):
    del params
    mu, nu = moments(b1, b2, grads, state.mu, state.nu, settle)
    return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), mu, nu), Moments(mu, nu)

  return optax.GradientTransformationExtraArgs(init, update)


def scale_by_adam(b1: float, b2: float, epsilon: float) -> optax.GradientTransformationExtraArgs:
  """optax.scale_by_adam, with bias correction (arXiv:1412.6980 algorithm 1), of moments that are settled."""
  def update(grads, state, params=None, *, settle: Settle = as_computed, **_):
    del params
    count = optax.safe_increment(state.count)
    mu, nu = moments(b1, b2, grads, state.mu, state.nu, settle)
    means, squares = optax.tree.bias_correction(mu, b1, count), optax.tree.bias_correction(nu, b2, count)
    direction = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), means, squares)
    return direction, optax.ScaleByAdamState(count, mu, nu)

  return optax.GradientTransformationExtraArgs(optax.scale_by_adam(b1, b2, epsilon).init, update)


class TrustRatios(NamedTuple):
  """What `scale_by_trust_ratio` multiplied the last updates by."""
  ratios: optax.Params  # [L] for a stack of layers, a scalar for any other parameter; none where nothing decays


def scale_by_trust_ratio(about: Traits) -> optax.GradientTransformation:
  """|parameter| / |update| times the update, for each layer of a stack on its own; only for what decays.

  A parameter or an update of norm 0 has the ratio 1. The ratios stay in the state, where `diagnostics` finds them.
  """
  def ratio(update, param, decays, stacked):
    if not decays:
      return None
    axes = tuple(range(1, param.ndim)) if stacked else None
    of_param, of_update = (jnp.sqrt(jnp.square(x).sum(axes)) for x in (param, update))
    return jnp.where((of_param > 0) & (of_update > 0), of_param / jnp.where(of_update > 0, of_update, 1), 1)

  def init(params):
    one = lambda param, decays, stacked: jnp.ones(param.shape[:stacked], jnp.float32) if decays else None
    return TrustRatios(jax.tree.map(one, params, about.decayed, about.stacked))

  def update(updates, state, params):
    del state
    ratios = jax.tree.map(ratio, updates, params, about.decayed, about.stacked)
    scale = lambda r, u: u if r is None else u * r.reshape(r.shape + (1,) * (u.ndim - r.ndim))
    return jax.tree.map(scale, ratios, updates, is_leaf=lambda x: x is None), TrustRatios(ratios)

  return optax.GradientTransformation(init, update)


def diagnostics(opt_state: optax.OptState) -> dict[str, dict[str, jax.Array]]:
  """What an optimizer has to tell of its last update: {kind: {name: scalar, or [L] for a stack of layers}}; or {}.

  LAMB: {'trust_ratio': {'encoder/blocks/query/kernel': [L], …}}.
  """
  is_told = lambda x: isinstance(x, tuple(DIAGNOSED))
  found: dict[str, dict[str, jax.Array]] = {}
  for state in filter(is_told, jax.tree.leaves(opt_state, is_leaf=is_told)):
    kind, values = DIAGNOSED[type(state)]
    named = {path_name(path): value for path, value in jax.tree.leaves_with_path(values(state))}
    found.setdefault(kind, {}).update(named)
  return found


# Parts of an optimizer's state that go to the log: {class: (kind of the line, state -> tree)}.
DIAGNOSED: dict[type, tuple[str, Callable]] = {TrustRatios: ('trust_ratio', lambda state: state.ratios)}


def by_layer(values: dict[str, np.ndarray]) -> dict[str, float]:  # {[L] or []} -> {}
  """Each layer of a stack apart: {'encoder/blocks/0/query/kernel': 0.21 …, 'pooler/dense/kernel': 0.3}."""
  named: dict[str, float] = {}
  for name, value in values.items():
    if np.ndim(value):
      named |= {name.replace('blocks/', f'blocks/{layer}/', 1): float(one) for layer, one in enumerate(value)}
    else:
      named[name] = float(value)
  return named


def bert_adamw(o: 'Optimizer', about: Traits) -> optax.GradientTransformation:
  return optax.chain(scale_by_bert_adam(o.b1, o.b2, o.epsilon),
                     optax.add_decayed_weights(o.weight_decay, about.decayed))


def adamw(o: 'Optimizer', about: Traits) -> optax.GradientTransformation:
  """Decoupled weight decay with bias correction (arXiv:1711.05101)."""
  return optax.chain(scale_by_adam(o.b1, o.b2, o.epsilon),
                     optax.add_decayed_weights(o.weight_decay, about.decayed))


def lamb(o: 'Optimizer', about: Traits) -> optax.GradientTransformation:
  """arXiv:1904.00962 algorithm 2, with a trust ratio for each layer's each parameter that decays.

  Biases and LayerNorm keep AdamW's update, as in the authors' code (exclude_from_layer_adaptation is
  exclude_from_weight_decay there): a bias begins at 0, and with a ratio it would hardly leave.
  """
  return optax.chain(adamw(o, about), scale_by_trust_ratio(about))


# (settings, traits of the parameters) -> the direction of an update, before the learning rate.
OPTIMIZERS: dict[str, Callable[['Optimizer', Traits], optax.GradientTransformation]] = {
    'bert_adamw': bert_adamw, 'adamw': adamw, 'lamb': lamb}

# ---------------------------------------------------------------- schedules
# (settings, steps) -> step -> the learning rate after the warmup.


def one_at_least(count):
  """Of a number, or of one that is traced."""
  return max(count, 1) if isinstance(count, int) else jnp.maximum(count, 1)


def number(steps):
  """A count of steps as a number: of 64 bits where a proof computes so."""
  return jnp.asarray(steps).astype(jnp.result_type(float))


def falling(o: 'Optimizer', first: int, steps: int, shape=None) -> optax.Schedule:
  """The peak until step `first`, then down to the final rate at `steps`.

  `shape` bends the share of the steps left, 1 … 0; without it the share is raised to decay_power.
  """
  def rate(step):
    left = jnp.clip(number(steps - step) / one_at_least(steps - first), 0, 1)
    share = shape(left) if shape else left ** o.decay_power
    return o.final_learning_rate + (o.peak_learning_rate - o.final_learning_rate) * share
  return rate


def bert_schedule(o: 'Optimizer', steps: int) -> optax.Schedule:
  """Counted from step 0, so that the rate drops where the warmup ends (optimization.py create_optimizer)."""
  return falling(o, 0, steps)


def linear_schedule(o: 'Optimizer', steps: int) -> optax.Schedule:
  return falling(o, o.warmup_steps, steps)


def cosine_schedule(o: 'Optimizer', steps: int) -> optax.Schedule:
  """Half a cosine from the end of the warmup on (arXiv:1608.03983, without restarts)."""
  return falling(o, o.warmup_steps, steps, lambda left: (1 - jnp.cos(jnp.pi * left)) / 2)


def wsd_schedule(o: 'Optimizer', steps: int) -> optax.Schedule:
  """Warmup, stable, decay: the peak until the last share of the steps, where the rate falls.

  arXiv:2404.06395 section 4.2.
  """
  return falling(o, steps - round(o.decay_share * steps), steps)


def constant_schedule(o: 'Optimizer', steps: int) -> optax.Schedule:
  del steps
  return lambda step: jnp.float32(o.peak_learning_rate)


SCHEDULES: dict[str, Callable[['Optimizer', int], optax.Schedule]] = {
    'bert': bert_schedule, 'linear': linear_schedule, 'cosine': cosine_schedule, 'wsd': wsd_schedule,
    'constant': constant_schedule}

# (settings, steps) -> until which step the rates are the same in every longer run; of schedules that are not here they
# never are.
SAME_UNTIL: dict[str, Callable[['Optimizer', int], int]] = {
    'constant': lambda o, steps: steps, 'wsd': lambda o, steps: steps - round(o.decay_share * steps)}


# Settings of the decay that a schedule does not read: to set one there is a mistake.
UNREAD = {'constant': ('final_learning_rate', 'decay_power', 'decay_share'), 'cosine': ('decay_power', 'decay_share'),
        'bert': ('decay_share',), 'linear': ('decay_share',)}


def learning_rate(o: 'Optimizer', steps: int) -> optax.Schedule:
  """The rate of each step from 0: a linear warmup from 0, then the schedule's."""
  after = SCHEDULES[o.schedule](o, steps)
  warmup = lambda step: o.peak_learning_rate * number(step) / one_at_least(o.warmup_steps)
  return lambda step: jnp.where(step < o.warmup_steps, warmup(step), after(step))


SMALL = 1 << 17  # numbers of a parameter that is joined with others


def in_few_kernels(grads):
  """(optax.tree.norm, the same gradients), of which a GPU's compiler makes few kernels.

  Of a sum of squares for each parameter it makes two, and of each small one's update another. So each large gradient is
  added up row by row, the small ones are joined, and the rest is one sum. Barriers keep together what is joined: the
  compiler (jax 0.10.2) takes a sum of joined arrays apart again. Updates that read one array it makes in one kernel.
  """
  leaves, tree = jax.tree.flatten(grads)
  is_small = lambda g: g.size <= SMALL or g.ndim < 2
  small = [g.reshape(-1) for g in leaves if is_small(g)]
  joined = jax.lax.optimization_barrier(jnp.concatenate(small or [jnp.zeros(1)]))
  rows = [jnp.square(g).sum(axis=-1).reshape(-1) for g in leaves if not is_small(g)]
  norm = jnp.sqrt(jax.lax.optimization_barrier(jnp.concatenate([jnp.square(joined), *rows])).sum())
  begin, same = 0, []
  for g in leaves:
    same.append(joined[begin:begin + g.size].reshape(g.shape) if is_small(g) else g)
    begin += g.size if is_small(g) else 0
  return norm, jax.tree.unflatten(tree, same)


def clip_by_global_norm(limit: float, norm: jax.Array, grads):
  """Gradients scaled so that their global `norm` is at most `limit` (tf.clip_by_global_norm); 0: as they are."""
  return grads if limit == 0 else jax.tree.map(lambda g: g * (limit / jnp.maximum(norm, limit)), grads)


def make(o: 'Optimizer', steps: int, about: Traits, pace=None
         ) -> tuple[optax.GradientTransformationExtraArgs, optax.Schedule]:
  """The direction of each update (before the learning rate) and the learning rate of each step, from 0.

  `pace`: a program.Pace, whose traced numbers the schedule has in place of the settings'.
  """
  direction = optax.with_extra_args_support(OPTIMIZERS[o.name](o, about))
  if any(jax.tree.leaves(about.frozen)):  # last, since weight decay moves what has no gradient
    direction = optax.chain(direction, optax.masked(optax.set_to_zero(), about.frozen))
  if pace is None:
    return direction, learning_rate(o, steps)
  traced: Any = types.SimpleNamespace(**vars(o) | {field.name: getattr(pace, field.name)
                                                   for field in dataclasses.fields(pace)})
  return direction, learning_rate(traced, pace.steps)

# ---------------------------------------------------------------- settings, whose choices are the tables above


if TYPE_CHECKING:
  OptimizerName = str
  ScheduleName = str
else:
  OptimizerName, ScheduleName = one_of(OPTIMIZERS), one_of(SCHEDULES)


Decay = Annotated[float, Within(0, 1, below=True)]


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """How parameters move (google-research/bert optimization.py)."""
  name: OptimizerName = 'bert_adamw'
  """bert_adamw: the original's, without bias correction; adamw: textbook; lamb: arXiv:1904.00962, trust ratios layer by
  layer."""
  schedule: ScheduleName = 'bert'
  """bert: the original's, which decays from step 0 and so drops where the warmup ends; linear and cosine: from the
  peak; wsd (warmup, stable, decay, arXiv:2404.06395): stays at the peak until the last decay_share of the steps;
  constant: no decay."""
  peak_learning_rate: Annotated[float, Within(0, FLOAT32, above=True, wise=1)] = 1e-4
  """The rate that the warmup ends at (arXiv:1810.04805 appendix A.2)."""
  warmup_steps: CountOrNone = 10_000
  """Steps in which the rate rises from 0 to its peak (appendix A.2); 0: none."""
  final_learning_rate: Annotated[float, Within(0, FLOAT32, wise=1)] = 0.0
  """What the decay ends at, with the last step."""
  decay_power: Annotated[float, Within(0, 100, above=True)] = 1.0
  """Power of the polynomial decay of bert, linear and wsd; 1: a straight line."""
  decay_share: Annotated[float, Within(0, 1, above=True)] = 0.1
  """wsd: share of the steps, the last, in which the rate falls."""
  b1: Decay = 0.9
  """Decay, a step, of the mean of gradients (appendix A.2)."""
  b2: Decay = 0.999
  """Decay, a step, of the mean of their squares (appendix A.2)."""
  epsilon: Annotated[float, Within(0, 1e6, wise=1)] = 1e-6
  """Added to the square root of that mean (optimization.py create_optimizer)."""
  weight_decay: Annotated[float, Within(0, 1e6, wise=10)] = 0.01
  """Not for biases and LayerNorm; embeddings are decayed, as in the original."""
  clip_norm: Annotated[float, Within(0, 1e9)] = 1.0
  """Global norm to which the gradient of the whole batch is clipped; 0: not."""

  def __post_init__(self):
    require_fields(self, 'optimizer.')
    require(self.final_learning_rate <= self.peak_learning_rate,
            f'optimizer.final_learning_rate is {self.final_learning_rate}: wanted 0 up to the peak, '
            f'{self.peak_learning_rate}')
    for name in UNREAD.get(self.schedule, ()):
      value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
      require(value == default, f'optimizer.{name} {value} changes nothing with optimizer.schedule {self.schedule!r}: '
              f'leave it at {default}, or choose another schedule')


def check_length(o: Optimizer, steps: int) -> None:
  """Raises ConfigError where warmup and decay do not fit into a run of `steps`."""
  require(o.warmup_steps <= steps, f'optimizer.warmup_steps {o.warmup_steps} is more than run.steps {steps}')
  decay = round(o.decay_share * steps) if o.schedule == 'wsd' else 0
  require(o.warmup_steps + decay <= steps,
          f'optimizer.warmup_steps {o.warmup_steps} and the {decay} steps of optimizer.decay_share {o.decay_share} are '
          f'more than run.steps {steps}: lower one of the two')

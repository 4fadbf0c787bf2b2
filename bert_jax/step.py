"""The state of training, and the jitted steps that train and evaluate.

B rows of a batch (of a device's part of it, inside `per_device`), A microbatches.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import PartitionSpec as P

from bert_jax import config as cfg, objectives, optimizer
from bert_jax.model import attention, bert as model_lib
from bert_jax.parallel import collectives, mesh as mesh_lib


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that a run is, beside its configuration and its data."""
  step: jax.Array  # int32: updates done, and the number of the next batch
  skipped: jax.Array  # int32: steps whose loss or gradient was not finite, and which changed nothing else
  params: nnx.State  # a tree of float32 arrays
  opt_state: optax.OptState


def abstract_state(config: cfg.Config, mesh: jax.sharding.Mesh):
  """(graphdef, TrainState of ShapeDtypeStructs with their layout). The graphdef holds the model's settings, made for the mesh's chips."""
  implementation = attention.choose(config.model, mesh.devices.flat[0].platform, config.batch.sequence_length, mesh.shape['tensor'])
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, attention=implementation))
  graphdef, state = jax.eval_shape(functools.partial(create, config), jax.random.key(0))
  shardings = mesh_lib.state_sharding(state, mesh)
  return graphdef, jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def create(config: cfg.Config, key: jax.Array):
  graphdef, params = model_lib.build(config.model, key)
  tx, _ = optimizer.make(config.optimizer, config.run.steps)
  zero = jnp.zeros((), jnp.int32)
  return graphdef, TrainState(zero, zero, params, tx.init(params))


def create_state(config: cfg.Config, abstract: TrainState) -> TrainState:
  """A fresh state, each array made on the devices where it lives; the same values on any mesh."""
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  return jax.jit(lambda key: create(config, key)[1], out_shardings=shardings)(jax.random.key(config.run.seed))


def split_microbatches(batch, count: int):  # {[B ...]} -> {[A B/A ...]}
  return jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch)


def gradients(graphdef, config: cfg.Config, mesh: jax.sharding.Mesh, params, batch, seed):
  """(gradient of the mean loss of the whole batch, sums of its terms): microbatches add sums, never means of means.

  Each device gathers the parameters once, works through its own rows, and the gradients are added over devices once, into the parts that
  each keeps.
  """
  parts = mesh_lib.row_parts(params, mesh)
  batch = {'rows': jnp.arange(len(batch['input_ids']), dtype=jnp.uint32)} | batch  # by these numbers dropout is the same on any mesh

  def loss(params, batch, weights, seed):
    sums = objectives.evaluate(config.objective, nnx.merge(graphdef, params), batch, seed)
    return objectives.loss_of(sums, weights), sums

  def local(params, batch, seed):
    weights = objectives.totals(config.objective, batch, mesh_lib.ROWS)
    params = collectives.whole(params, parts, config.model.dtype, mesh)
    grad = jax.grad(loss, has_aux=True)
    if config.run.microbatches == 1:
      grads, sums = grad(params, batch, weights, seed)
    else:
      grads, sums = accumulate(lambda part: grad(params, part, weights, seed), batch, config.run.microbatches)
    return collectives.add_up(grads, parts, config.mesh.reduction(config.model.dtype), mesh), jax.lax.psum(sums, mesh_lib.ROWS)

  rows = jax.tree.map(lambda x: mesh_lib.spec('batch'), batch)
  return mesh_lib.per_device(local, mesh, (parts, rows, P()), (parts, P()))(params, batch, seed)


def accumulate(f: Callable, batch, count: int):
  """The sum of f(microbatch) over `count` equal parts of `batch`, in float32 at least."""
  add = lambda total, part: (jax.tree.map(lambda x, y: x + y.astype(x.dtype), total, f(part)), None)
  microbatches = split_microbatches(batch, count)
  shapes = jax.eval_shape(f, jax.tree.map(lambda x: x[0], microbatches))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), shapes)
  return jax.lax.scan(add, zeros, microbatches)[0]


def train_step(graphdef, config: cfg.Config, mesh: jax.sharding.Mesh, key: jax.Array, state: TrainState, batch) -> tuple[TrainState, dict]:
  """One update. Returns the next state and what happened: sums of the terms, gradient norm, learning rate, all float32 scalars; and the
  trust ratios of LAMB, by parameter.

  A loss or gradient that is not finite leaves parameters and moments as they were, bit for bit, and is counted.
  """
  tx, schedule = optimizer.make(config.optimizer, config.run.steps)
  dropout = config.model.hidden_dropout or config.model.attention_dropout
  seed = jax.random.fold_in(key, state.step) if dropout else None
  grads, sums = gradients(graphdef, config, mesh, state.params, batch, seed)
  norm = optax.tree.norm(grads)
  finite = jnp.isfinite(norm)
  for term in sums.values():
    finite &= jnp.isfinite(term.loss)
  rate = schedule(state.step)
  updates, opt_state = tx.update(optimizer.clip_by_global_norm(config.optimizer.clip_norm, norm, grads), state.opt_state, state.params)
  params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
  keep = functools.partial(jax.tree.map, lambda new, old: jnp.where(finite, new, old))
  state = TrainState(state.step + 1, state.skipped + ~finite, keep(params, state.params), keep(opt_state, state.opt_state))
  return state, {'terms': sums, 'gradient_norm': norm, 'learning_rate': rate, 'skipped': state.skipped,
                 'trust_ratios': optimizer.trust_ratios(opt_state)}


def jit_train_step(graphdef, config: cfg.Config, mesh: jax.sharding.Mesh, abstract: TrainState) -> Callable:
  """(state, batch) -> (state, report), compiled once; the old state's memory becomes the new one's."""
  key = jax.random.key(config.run.seed + 1)
  shardings = jax.tree.map(lambda x: x.sharding, abstract)
  return jax.jit(functools.partial(train_step, graphdef, config, mesh, key), donate_argnums=0,
                 out_shardings=(shardings, jax.sharding.NamedSharding(mesh, P())))  # every process reads the report


def jit_eval_step(graphdef, config: cfg.Config, mesh: jax.sharding.Mesh) -> Callable:
  """(params, batch) -> sums of the terms, without dropout."""
  def evaluate(params, batch):
    parts = mesh_lib.row_parts(params, mesh)

    def local(params, batch):
      model = nnx.merge(graphdef, collectives.whole(params, parts, config.model.dtype, mesh))
      return jax.lax.psum(objectives.evaluate(config.objective, model, batch), mesh_lib.ROWS)

    rows = jax.tree.map(lambda x: mesh_lib.spec('batch'), batch)
    return mesh_lib.per_device(local, mesh, (parts, rows), P())(params, batch)

  return jax.jit(evaluate)

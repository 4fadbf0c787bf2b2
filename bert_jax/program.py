"""What is compiled, made in one place: mesh + model + objective + optimizer -> the train step and the evaluation step.

B rows of a batch (of a device's part of it, inside `per_device`), A microbatches.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec as P

from bert_jax import config as cfg, finite as finite_lib, objectives, optimizer, phases
from bert_jax.errors import require
from bert_jax.model import attention, build
from bert_jax.parallel import collectives, mesh as mesh_lib

DEFAULT_SHAPE = cfg.MeshShape()  # as `--mesh auto` sends gradients: in the dtype of the model, ring by ring


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that a run is, beside its configuration and its data."""
  step: jax.Array  # int32: updates done, and the number of the next batch
  skipped: jax.Array  # int32: steps whose loss, gradient or result was not finite, and which changed nothing else
  params: nnx.State  # a tree of float32 arrays
  opt_state: optax.OptState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pace:
  """What runs that share a compiled step may have apart from each other; scalars on the devices."""
  key: jax.Array  # of dropout
  peak_learning_rate: jax.Array
  final_learning_rate: jax.Array
  warmup_steps: jax.Array
  steps: jax.Array


@dataclasses.dataclass(frozen=True)
class Program:
  """A training program for one mesh. Its functions are compiled when they are first called, for each row length."""
  mesh: jax.sharding.Mesh
  model: cfg.Model
  objective: objectives.Objective
  optimizer: cfg.Optimizer
  steps: int  # of the run: what the schedule falls over
  microbatches: int
  reduction: str  # the dtype in which gradients of matrices are sent between devices
  plain_collectives: bool
  seed: int  # of initial parameters; dropout draws by seed + 1
  graphdef: nnx.GraphDef
  logical: nnx.State  # a parallel.mesh.Logical for each parameter
  abstract: TrainState  # of ShapeDtypeStructs with their layout
  guarded: bool  # whether each step looks at the state that it makes; False where that is finite by arithmetic

  def init(self, params=None) -> TrainState:
    """A fresh state, each array made on the devices where it lives; the same values on any mesh.

    `params`: parameters to begin with instead of initial ones, host arrays of the same tree.
    """
    shardings = jax.tree.map(lambda x: x.sharding, self.abstract)
    key = jax.random.key(self.seed)
    if params is None:
      make = lambda key: _fresh(build.build(self.model, self.objective.heads, key)[1], self.tx)
      return jax.jit(make, out_shardings=shardings)(key)
    return self._begin(jax.tree.map(jax.device_put, params, shardings.params))

  def initial_parameters(self):
    """Only the parameters of `init`, for those that a checkpoint lacks."""
    return self._draw(jax.random.key(self.seed))

  @functools.cached_property
  def _begin(self) -> jax.stages.Wrapped:
    """Parameters -> a fresh state."""
    shardings = jax.tree.map(lambda x: x.sharding, self.abstract)
    return jax.jit(lambda params: _fresh(params, self.tx), out_shardings=shardings)

  @functools.cached_property
  def _draw(self) -> jax.stages.Wrapped:
    """A key -> initial parameters."""
    shardings = jax.tree.map(lambda x: x.sharding, self.abstract.params)
    return jax.jit(lambda key: build.build(self.model, self.objective.heads, key)[1], out_shardings=shardings)

  def at_pace(self, optimizer_settings: cfg.Optimizer, steps: int, seed: int) -> 'Program':
    """The same program for another seed, length, learning rate and warmup: what is compiled is shared with it."""
    guarded = self.guarded or not finite_lib.stays_finite(optimizer_settings, steps)
    other = dataclasses.replace(self, optimizer=optimizer_settings, steps=steps, seed=seed, guarded=guarded)
    numbers = (jnp.float32(optimizer_settings.peak_learning_rate), jnp.float32(optimizer_settings.final_learning_rate),
               jnp.int32(optimizer_settings.warmup_steps), jnp.int32(steps))
    pace = self._everywhere(Pace(jax.random.key(seed + 1), *numbers))
    shared = ('evaluation_step', '_begin', '_draw', '_everywhere',
              *(('paced_step',) if guarded == self.guarded else ()))
    vars(other).update({name: getattr(self, name) for name in shared})  # where cached_property has them
    vars(other).update(train_step=functools.partial(other.paced_step, pace))
    return other

  @functools.cached_property
  def _everywhere(self) -> jax.stages.Wrapped:
    """A pace -> the same on all devices. A key cannot be put on those of other processes, but computed there."""
    return jax.jit(lambda pace: pace, out_shardings=NamedSharding(self.mesh, P()))

  @functools.cached_property
  def paced_step(self) -> jax.stages.Wrapped:
    """(pace, state, batch) -> (state, report): `train_step` for `at_pace`."""
    shardings = jax.tree.map(lambda x: x.sharding, self.abstract)
    step = lambda pace, state, batch: train_step(self, pace.key, state, batch, pace)
    return jax.jit(step, donate_argnums=1, out_shardings=(shardings, NamedSharding(self.mesh, P())))

  @functools.cached_property
  def tx(self) -> optax.GradientTransformation:
    return optimizer.make(self.optimizer, self.steps, optimizer.traits(self.logical, self.objective.frozen))[0]

  @functools.cached_property
  def train_step(self) -> jax.stages.Wrapped:
    """(state, batch) -> (state, report); the old state's memory becomes the new one's. See `train_step` below."""
    shardings = jax.tree.map(lambda x: x.sharding, self.abstract)
    step = functools.partial(train_step, self, jax.random.key(self.seed + 1))
    report = NamedSharding(self.mesh, P())  # every process reads it
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, report))

  def compile_step(self, state: TrainState, batch) -> int | None:
    """Compiles train_step for such a batch, and runs nothing. The bytes of a device that it takes, if that is known."""
    step: Any = self.train_step
    given = ()
    if isinstance(step, functools.partial):  # of `at_pace`
      step, given = step.func, step.args
    return needed_by(step.lower(*given, state, batch).compile())

  @functools.cached_property
  def evaluation_step(self) -> jax.stages.Wrapped:
    """(params, batch) -> ({term: sums}, {term: tree of [B ...]} of what terms keep), without dropout."""
    return jax.jit(functools.partial(evaluation_step, self), out_shardings=NamedSharding(self.mesh, P()))

  def flops_per_step(self, batch: cfg.BatchConfig) -> float:
    """FLOP of one step on a global batch of that kind."""
    return batch.size * self.objective.flops_per_row(self.model, batch)


def needed_by(compiled: jax.stages.Compiled) -> int | None:
  """The bytes of a device that a program takes; None where that is not known."""
  found: Any = compiled.memory_analysis()
  return found and (found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
                    + found.generated_code_size_in_bytes - found.alias_size_in_bytes)


def make(model: cfg.Model, objective: objectives.Objective, optimizer_settings: cfg.Optimizer, mesh: jax.sharding.Mesh,
         *, steps: int, microbatches: int = 1, seed: int = 0, shape: cfg.MeshShape = DEFAULT_SHAPE) -> Program:
  """The program of these parts. Nothing is compiled or computed yet.

  `shape`: how gradients are sent (mesh.reduce, mesh.plain). Raises ConfigError where the mesh would cut a head in two.
  """
  settings: Any = jax.config
  require(not settings.jax_disable_jit, 'JAX_DISABLE_JIT is set, and a step is one compiled program: unset it')
  mesh_lib.check_model(model, mesh)
  place = place_of(mesh)
  graphdef, params, logical = build.describe(model, objective.heads, place)
  tx, _ = optimizer.make(optimizer_settings, steps, optimizer.traits(logical, objective.frozen))
  shapes = jax.eval_shape(lambda params: _fresh(params, tx), params)
  keys = [mesh_lib.path_name(path) for path, leaf in jax.tree.leaves_with_path(shapes.opt_state)
          if jnp.issubdtype(leaf.dtype, jax.dtypes.extended)]
  require(not keys, f'optimizer {optimizer_settings.name!r} keeps {", ".join(keys)} as a typed PRNG key, which no '
          'checkpoint can hold: let it keep jax.random.key_data of it')
  layout: tuple[Any, ...] = (P(), P(), mesh_lib.parameter_specs(shapes.params, logical, mesh),
                             mesh_lib.optimizer_specs(shapes.opt_state, shapes.params, logical, mesh))
  placed = lambda x, spec: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))
  return Program(mesh, model, objective, optimizer_settings, steps, microbatches, shape.reduction(model.computes_in),
                 shape.plain, seed, graphdef, logical, jax.tree.map(placed, shapes, TrainState(*layout)),
                 guarded=not finite_lib.stays_finite(optimizer_settings, steps))


def of(config: cfg.Config, devices=None) -> Program:
  """The program of a pretraining run, on `devices`, all of jax.devices() by default.

  Raises ConfigError where the devices do not make its mesh, or the attention that is asked for does not fit any of its
  row lengths.
  """
  mesh = mesh_of(config, devices)
  place = place_of(mesh)
  for phase in phases.phases(config):
    attention.choose_implementation(config.model, place, phase.config.batch.sequence_length)
  return on(config, mesh)


def place_of(mesh: jax.sharding.Mesh) -> attention.Place:
  """What of a mesh decides how a program attends."""
  return attention.Place(mesh.devices.flat[0].platform, mesh.shape['tensor'])


def mesh_of(config, devices=None, rows: int | None = None) -> jax.sharding.Mesh:
  """The mesh of a run of any kind on `devices`, all by default.

  `rows`: of a global batch, config.batch.size by default.
  Raises ConfigError where the devices do not make it.
  """
  return mesh_lib.make_mesh(config.mesh, devices, model=config.model, rows=rows or config.batch.size)


def on(config, mesh: jax.sharding.Mesh) -> Program:
  """The program of a run of any kind on a mesh. Raises ConfigError where it would cut a head in two."""
  return make(config.model, config.learns, config.optimizer, mesh, steps=config.run.steps,
              microbatches=config.run.parts, seed=config.run.seed, shape=config.mesh)


def on_one_device(config) -> Program:
  """The program of a run of any kind on the first device of this process, for evaluating; its batches are whole."""
  run = dataclasses.replace(config.run, microbatches=1)
  model = dataclasses.replace(config.model, attention=attention.elsewhere(config.model.attention))
  config = dataclasses.replace(config, mesh=cfg.MeshShape(data=1), run=run, model=model)
  return on(config, mesh_of(config, jax.local_devices()[:1]))


def _fresh(params, tx: optax.GradientTransformation) -> TrainState:
  zero = jnp.zeros((), jnp.int32)
  return TrainState(zero, zero, params, tx.init(params))

# ---------------------------------------------------------------- the steps


def split_microbatches(batch, count: int):  # {[B ...]} -> {[A B/A ...]}
  """mesh.put_batch has filled them up to a multiple."""
  return jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch)


def gradients(program: Program, params, batch, seed):
  """(gradient of the mean loss of the whole batch, sums of its terms): microbatches add sums, never means of means.

  Each device gathers the parameters once, works through its own rows, and the gradients are added over devices once,
  into the parts that each keeps.
  """
  mesh, objective, logical = program.mesh, program.objective, program.logical
  parts = mesh_lib.fsdp_parts(params, logical, mesh)
  numbers = jnp.arange(len(batch['input_ids']), dtype=jnp.uint32)
  batch = {'row_numbers': numbers} | batch  # by these numbers dropout is the same on any mesh

  def loss(params, batch, weights, seed):
    sums, _ = objectives.term_sums(objective, nnx.merge(program.graphdef, params), batch, seed)
    return objectives.loss_of(sums, weights), sums

  def local(params, batch, seed):
    weights = collectives.sum_over_rows(objectives.weight_sums(objective, batch), mesh)
    weights = jax.tree.map(lambda count: jnp.maximum(count, 1), weights)
    params = collectives.gather_parameters(params, parts, logical, mesh, program.plain_collectives)
    grad = jax.grad(loss, has_aux=True)
    count, _ = mesh_lib.in_microbatches(len(batch['input_ids']), program.microbatches)
    if count == 1:
      grads, sums = grad(params, batch, weights, seed)
    else:
      grads, sums = accumulate(lambda part: grad(params, part, weights, seed), batch, count)
    grads = collectives.sum_gradients(grads, parts, logical, program.reduction, mesh, program.plain_collectives)
    return grads, collectives.sum_over_rows(sums, mesh)

  rows = jax.tree.map(lambda x: mesh_lib.spec('batch'), batch)
  return mesh_lib.per_device(local, mesh, (parts, rows, P()), (parts, P()))(params, batch, seed)


def accumulate(f: Callable, batch, count: int):
  """The sum of f(microbatch) over `count` equal parts of `batch`, in float32 at least."""
  add = lambda total, part: (jax.tree.map(lambda x, y: x + y.astype(x.dtype), total, f(part)), None)
  microbatches = split_microbatches(batch, count)
  shapes = jax.eval_shape(f, jax.tree.map(lambda x: x[0], microbatches))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), shapes)
  return jax.lax.scan(add, zeros, microbatches)[0]


def train_step(program: Program, key: jax.Array, state: TrainState, batch,
               pace: Pace | None = None) -> tuple[TrainState, dict]:
  """One update. Returns the next state and what happened: sums of the terms, gradient norm, learning rate, skipped
  steps, all float32 scalars; and the optimizer's diagnostics.

  `pace`: has learning rates and steps in place of the program's.
  A loss, a gradient, a new parameter or a new moment that is not finite leaves all of them as they were, bit for bit,
  and is counted. Where `program.guarded` is False a state has to begin within finite.MODERATE.
  """
  dropout = program.model.hidden_dropout or program.model.attention_dropout
  seed = jax.random.fold_in(key, state.step) if dropout else None
  grads, sums = gradients(program, state.params, batch, seed)
  with jax.named_scope('optimizer'):
    finite = functools.reduce(jnp.logical_and, [jnp.isfinite(term['loss']) for term in sums.values()])
    state, told = update(program, state, grads, finite, pace)
  return state, {'terms': sums, **told}


def update(program: Program, state: TrainState, grads, finite: jax.Array, pace: Pace | None = None
           ) -> tuple[TrainState, dict]:
  """What `train_step` does with the gradients of finite losses, and tells of it."""
  about = optimizer.traits(program.logical, program.objective.frozen)
  tx, schedule = optimizer.make(program.optimizer, program.steps, about, pace)
  one_gpu = program.mesh.size == 1 and place_of(program.mesh).platform in ('gpu', 'cuda')  # or parts would be sent
  norm, grads = optimizer.in_few_kernels(grads) if one_gpu else (optax.tree.norm(grads), grads)
  rate = schedule(state.step)
  clipped = optimizer.clip_by_global_norm(program.optimizer.clip_norm, norm, grads)
  finite &= jnp.isfinite(norm)
  settled: set[int] = set()

  def settle(new, old):
    """On CPU the update waits for the moments: computed beside each other XLA would copy all moments first."""
    if program.guarded or place_of(program.mesh).platform != 'cpu':
      return new
    new = jax.lax.optimization_barrier(jax.tree.map(functools.partial(jnp.where, finite), new, old))
    settled.update(map(id, jax.tree.leaves(new)))
    return new

  updates, opt_state = tx.update(clipped, state.opt_state, state.params, settle=settle)
  params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
  if program.guarded:
    finite &= finite_lib.all_finite(params, opt_state)
  keep = lambda new, old: new if id(new) in settled else jnp.where(finite, new, old)
  state = TrainState(state.step + 1, state.skipped + ~finite, jax.tree.map(keep, params, state.params),
                     jax.tree.map(keep, opt_state, state.opt_state))
  return state, {'gradient_norm': norm, 'learning_rate': rate, 'skipped': state.skipped,
                 'diagnostics': optimizer.diagnostics(state.opt_state)}


def evaluation_step(program: Program, params, batch):
  """Sums of the terms, and what they keep of each row, in the order of the batch's rows; without dropout."""
  parts = mesh_lib.fsdp_parts(params, program.logical, program.mesh)

  def local(params, batch):
    params = collectives.gather_parameters(params, parts, program.logical, program.mesh, program.plain_collectives)
    sums, kept = objectives.term_sums(program.objective, nnx.merge(program.graphdef, params), batch, kept=True)
    return collectives.sum_over_rows(sums, program.mesh), kept

  rows = jax.tree.map(lambda x: mesh_lib.spec('batch'), batch)
  keeping = {name: mesh_lib.spec('batch') for name, term in program.objective.terms.items() if term.keep}
  sums, kept = mesh_lib.per_device(local, program.mesh, (parts, rows), (P(), keeping))(params, batch)
  if 'row_numbers' in batch:  # of several processes on a torus the rows do not lie in the order in which they were read
    order = jnp.argsort(batch['row_numbers'])
    kept = jax.tree.map(lambda x: x[order], kept)
  return sums, kept

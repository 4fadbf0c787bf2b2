"""Compiles the step of `pretrain` for devices that need not be here, and reads from the program what it would cost.

All figures are of one chip, the two devices of a TPU7x together. Times are of the compiler's cycles on TPU, of a
roofline on GPU.
"""

import dataclasses
import math
import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bert_jax import (
    chips as chip_table,
    config as cfg,
    health,
    memory as memory_lib,
    program as program_lib,
    synthetic,
)
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline import storage
from launch.plan import (
    collectives as collective_lib,
    costs as hlo_costs,
    gpus,
    kept,
    times,
    topology as topology_lib,
)

DAY = 86_400  # seconds


@dataclasses.dataclass(frozen=True)
class Figures:
  """What one chip has to hold and to do for a step, and what the run would cost.

  None: not known of this kind of device, or the program did not fit.
  """
  topology: str | None
  device_kind: str
  chips: int
  devices: int
  mesh: dict[str, int]
  remat: str
  unroll: int  # layers a step of the loop over layers; all of them: no loop
  batch: int  # rows of the global batch
  microbatches: int
  sequence_length: int
  predictions: int
  fits: bool | None
  memory_bytes: int | None  # that a program can have
  memory_share: float | None  # of a GPU that need not be here: the part of its memory that this is
  needed_bytes: int | None  # arguments, temporaries, results that reuse no argument, and the program
  fitting_microbatches: int | None  # of a program that does not fit: with so many it would, by `fitting`
  argument_bytes: int
  parameter_bytes: int
  optimizer_bytes: int
  batch_bytes: int
  temporary_bytes: int | None
  collectives: tuple[dict, ...] | None  # costs.Collective by name, of each from 1 MB on
  collective_bytes: dict[str, int] | None  # by kind, small ones too
  flops_formula: float
  flops_compiled: float | None  # products, every trip of loops counted, and what custom kernels say of themselves
  loops_counted_once: tuple[str, ...] | None  # whose trips could not be told: FLOPs, bytes and time are too little then
  estimated_cycles: int | None
  kernels: int | None  # custom kernels in the program, which carry no cycles
  kernel_seconds: float | None  # added for them: the longer of FLOPs at half the peak and of bytes at the memory rate
  roofline: dict | None  # of a GPU: what was assumed, and the kernels, seconds, flops and bytes of each kind of kernel
  second_opinion: dict | None  # of a TPU: the least seconds, by what limits each kernel, and where cycles differ most
  bytes_moved: int | None  # of a GPU, between its memory and its kernels
  estimated_step_seconds: float | None  # cycles at the chip's clock, and the kernels; of a GPU the roofline's
  exposed_collective_seconds: float | None  # not in it: collectives that nothing runs beside, at least
  unestimated_seconds: float | None  # not in it: gathers, scatters and sorts, whole operands at the memory rate
  dearest: tuple[dict, ...] | None  # op_name, seconds, count of what costs most; of a GPU bytes too
  ideal_step_seconds: float | None  # the formula's FLOPs at the peak
  estimated_mfu: float | None
  steps: int  # of the run at this length
  tokens_per_day: float | None  # positions of rows, padding among them
  days: float | None
  cost: float | None  # in the currency of the price
  lower_seconds: float  # of this machine, for tracing
  compile_seconds: float  # or for reading what an earlier plan compiled
  kept: bool  # by an earlier plan


def lower(config: cfg.Config, program: program_lib.Program) -> jax.stages.Lowered:
  """The very step of `pretrain`, traced for the devices of the program's mesh."""
  return program.train_step.lower(program.abstract, synthetic.abstract(config, program.mesh))


def device_bytes(tree) -> int:
  """Bytes of one device's share of a tree of ShapeDtypeStructs."""
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def figures(config: cfg.Config, mesh: Mesh, steps: int, topology: str | None = None,
            price: float | None = None, cache: storage.Path | None = None) -> Figures:
  """Compiles the step of `config` for `mesh` and reads the program.

  `price`: of a chip-hour; `cache`: where what is read of programs is kept for the next plan.
  """
  program = program_lib.on(config, mesh)
  devices = list(mesh.devices.flat)
  chips, kind = topology_lib.chip_count(devices), devices[0].device_kind
  each = len(devices) // chips  # devices a chip
  abstract, chip = program.abstract, chip_table.chip(kind)
  start = time.monotonic()
  with gpus.without_cudnn(topology or kind):
    lowered = lower(config, program)
  lowered_at = time.monotonic()
  absent = topology is not None and devices[0].platform == 'gpu'
  told = (gpus.OPTIONS, gpus.target(chip)) if absent and chip else ()
  compiled = kept.compile_or_find(lowered, devices[0], cache, *told)
  batch = synthetic.abstract(config, mesh)
  parts = {'parameter_bytes': abstract.params, 'optimizer_bytes': abstract.opt_state, 'batch_bytes': batch}
  shares = {name: each * device_bytes(part) for name, part in parts.items()}
  memory = memory_of(compiled, each, device_bytes((abstract, batch)), room_of(devices[0], chip, topology))
  fitting = None if memory['fits'] is not False else fitting_microbatches(
      config, mesh, memory, each * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(abstract.params)))
  formula = program.flops_per_step(config.batch) / chips
  costs = hlo_costs.read(compiled.text) if compiled.memory else None
  timing = times.of(costs, devices, formula)
  seconds = timing['estimated_step_seconds']
  tokens = config.batch.size * config.batch.sequence_length
  days = seconds and seconds * steps / DAY
  return Figures(
      topology=topology, device_kind=kind, chips=chips, devices=len(devices), mesh=dict(mesh.shape),
      remat=config.model.remat, unroll=config.model.layers_at_once, batch=config.batch.size,
      microbatches=config.run.parts, sequence_length=config.batch.sequence_length,
      predictions=config.batch.predictions,
      memory_share=chip_table.gpu_share() if absent else None, **memory, **shares, fitting_microbatches=fitting,
      collectives=costs and tuple(dataclasses.asdict(item) | {'bytes': item.bytes * each}
                                  for item in costs.collectives if item.bytes >= collective_lib.LARGE),
      collective_bytes=costs and {name: total * each for name, total in costs.collective_bytes().items()},
      flops_formula=formula, flops_compiled=costs and costs.flops * each,
      loops_counted_once=costs and costs.endless, **timing, steps=steps,
      tokens_per_day=seconds and tokens / seconds * DAY, days=days, cost=days and price and days * 24 * chips * price,
      lower_seconds=lowered_at - start, compile_seconds=compiled.seconds, kept=compiled.kept)


def room_of(device, chip: chip_table.Chip | None, topology: str | None) -> int | None:
  """Bytes of a chip that a program can have: of a GPU that is here, what JAX took of it."""
  return health.device_bytes(device) if topology is None and device.platform == 'gpu' else chip and chip.room


def memory_of(compiled: kept.Compiled, each: int, shares: int, limit: int | None) -> dict:
  """Whether it fits, and the bytes that say so. Of a program that does not, TPU's compiler names only the sum."""
  if compiled.memory is None:
    told = memory_lib.told(memory_lib.USED, compiled.error)
    needed = told and each * told
    return dict(fits=False, memory_bytes=limit, needed_bytes=needed, argument_bytes=each * shares,
                temporary_bytes=needed and max(needed - each * shares, 0))
  memory = compiled.memory
  needed = memory.arguments + memory.temporaries + memory.results - memory.reused + memory.code
  return dict(fits=None if limit is None else each * needed <= limit, memory_bytes=limit, needed_bytes=each * needed,
              argument_bytes=each * memory.arguments, temporary_bytes=each * memory.temporaries)


def fitting_microbatches(config: cfg.Config, mesh: Mesh, memory: dict, parameters: int) -> int | None:
  """The fewest microbatches with which a step that does not fit probably would; None: not known, or none would.

  Temporaries are taken to shrink with the rows of a microbatch. Not with them: parameters and their gradient in the
  compute type, and the gradient's sum in the type of the `parameters`, which are bytes of all of them.
  """
  if memory['temporary_bytes'] is None or memory['memory_bytes'] is None:
    return None
  now = config.run.parts
  narrow = jnp.dtype(config.model.computes_in).itemsize / jnp.dtype(jnp.float32).itemsize
  fixed = memory['argument_bytes'] + parameters / mesh.shape['tensor'] * (1 + 2 * narrow)
  rows = mesh_lib.rows_of_device(config.batch.size, mesh)
  at_once = lambda count: mesh_lib.in_microbatches(rows, count)[1]
  fit = (count for count in range(now + 1, rows + 1) if mesh_lib.may_be_cut(config.batch.size, mesh, count)
         and fixed + memory['temporary_bytes'] * at_once(count) / at_once(now) <= memory['memory_bytes'])
  return next(fit, None)

"""What a run would be: all that is checked before its first step, and what the compiled step needs and takes. Nothing
is written."""

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

import jax

from bert_jax import config as cfg, distributed, health, memory as memory_lib, phases, run_directory, synthetic, train
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline import storage

MOST_SECONDS, MOST_STEPS = 4.0, 20  # that are timed of each phase
MOST_FLOPS = 4e12  # of a step on a CPU that is timed: about a minute
DAY = 86_400


def dry_run(config: cfg.Config, data_dir: storage.PathLike, run_dir: storage.PathLike, **how) -> list[str]:
  """Lines on memory, FLOPs, epochs and days of a run. `how`, and what is raised: as of train.train."""
  made = train.make(config, data_dir, run_dir, **how)
  distributed.in_turn(lambda: run_directory.check(run_dir, made.run.record))
  program, lines, seconds = made.run.program, [], 0.0
  device = program.mesh.devices.flat[0]
  shape = ' x '.join(f'{axis} {size}' for axis, size in program.mesh.shape.items())
  lines.append(f'mesh: {shape}, {device.device_kind}')
  flops = 0.0
  for phase, stream in made.streams:
    steps = phase.last - phase.first
    flops += steps * program.flops_per_step(phase.config.batch)
    lines.append(f'epochs: {train.phase_text(phase, stream)}')
    with memory_lib.of_steps(phase.config, device):
      memory = program.compile_step(program.abstract, synthetic.abstract(phase.config, program.mesh))
    lines += [line.strip() for line in health.of_memory(memory, device)]
    room = health.device_bytes(device)
    fits = memory is None or room is None or memory <= room
    with memory_lib.of_steps(phase.config, device, functools.partial(_same, memory)):
      took = step_seconds(made, phase) if fits else None
    seconds += steps * took if took is not None else float('nan')
    lines.append(f'a step: {program.flops_per_step(phase.config.batch):.3g} FLOP, ' + (
        'unknown seconds: too long to be tried here' if took is None else f'{took:.3g} s, as timed here'))
  lines.append(f'in all: {config.run.steps:,} steps, {flops:.3g} FLOP, ' + (
      f'{seconds / DAY:.2g} days' if seconds == seconds else 'unknown days') + ' without evaluations and checkpoints')
  return [*lines, *(f'warning: {line}' for line in made.found.warnings), 'dry run: nothing was written']


def _same(value: int | None) -> int | None:
  return value


def step_seconds(made: train.Made, phase: phases.Phase) -> float | None:
  """The fastest of some steps on the run's own batches, with random parameters; None where one takes too long."""
  program = made.run.program
  on_cpu = program.mesh.devices.flat[0].platform == 'cpu'
  if on_cpu and program.flops_per_step(phase.config.batch) > MOST_FLOPS:
    return None
  state, taken = program.init(), list[float]()
  with contextlib.closing(made.run.batches(phase.first, ())) as batches:
    begin = time.monotonic()
    for batch in first(batches, min(MOST_STEPS, phase.last - phase.first) + 1):
      rows = mesh_lib.put_batch(batch, program.mesh)
      before = time.perf_counter()
      state, report = program.train_step(state, rows)
      jax.block_until_ready(report)
      taken.append(time.perf_counter() - before)
      if len(taken) > 1 and distributed.process_0_says(time.monotonic() - begin > MOST_SECONDS):
        break
  return min(taken[1:] or taken)


def first(batches: Iterator, count: int) -> Iterator[Any]:
  """At most so many; the first is there to compile."""
  for _, batch in zip(range(count), batches):
    yield batch

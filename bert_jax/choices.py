"""What is left to the program, as `model.unroll auto` and `model.dtype auto`: what it becomes where a run is.

What was chosen stands in the run's config.json, and the run keeps it.
"""

import dataclasses
import hashlib
import json
import math
import time
from typing import Any

import jax

from bert_jax import (
    compiled,
    config as cfg,
    distributed,
    health,
    phases,
    program as program_lib,
    run_directory,
    synthetic,
)
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline import storage

AUTO = 'auto'
SPARE = 1e9  # bytes of a device that an unrolled program leaves to others: batches ahead, figures, evaluations
NARROW_PRODUCTS = 'avx512_bf16', 'amx_bf16'  # of a CPU's flags: that it multiplies 16 bits
GAIN = 0.95  # of float32's time that bfloat16 may take on a CPU: who is no faster stays exact
TYPES = 'float32', 'bfloat16'
TRIALS, TRIAL_SECONDS = 'trials', 0.5  # their folder; what each side of one runs at least


@dataclasses.dataclass(frozen=True)
class Settled:
  """Settings in which nothing is left to choose."""
  config: Any
  lines: tuple[str, ...]  # that say what was chosen and why


def settle(config, devices=None, run_dir: storage.PathLike | None = None) -> Settled:
  """What a run in `run_dir` chose when it began; of a new one, what is faster and fits.

  Takes the settings of a run of any kind. Pretraining on TPU unrolls all layers where the steps of all row lengths fit
  so, which takes compiling them; on a CPU that multiplies 16 bits one layer is tried in both types. Raises ConfigError.
  """
  devices = jax.devices() if devices is None else devices
  old = run_directory.read(run_dir).config.model if run_dir and run_directory.run_of(run_dir) else None
  dtype, why = (config.model.dtype, ()) if config.model.dtype != AUTO else (
      (old.dtype, ()) if old and old.dtype != AUTO else choose_dtype(config, devices))
  config = with_model(config, dtype=dtype)
  if old and old.unroll != AUTO:
    wanted = config.model.unroll
    differs = wanted not in (AUTO, old.unroll)
    lines = (f'model.unroll was {old.unroll} and is {wanted}: the last bits may differ',) if differs else ()
    return Settled(config if wanted != AUTO else with_model(config, unroll=old.unroll), (*why, *lines))
  if config.model.unroll != AUTO:
    return Settled(config, why)
  layers, lines = choose_unroll(config, devices)
  return Settled(with_model(config, unroll=layers), (*why, *lines))


def by_rule(config, devices=None):
  """`config` with what its choices would be if nothing were tried, to see whether it can work at all."""
  dtype = config.model.dtype
  devices = jax.devices() if devices is None else devices
  return with_model(config, dtype=dtype_by_rule(devices) if dtype == AUTO else dtype)


def with_model(config, **changes):
  return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))

# ---------------------------------------------------------------- model.unroll


def choose_unroll(config, devices) -> tuple[int, tuple[str, ...]]:
  """(layers a step of the loop, lines that say why)."""
  L, by_rule = config.model.layers, config.model.layers_at_once
  if by_rule == L or devices[0].platform != 'tpu' or not isinstance(config, cfg.Config):
    return by_rule, ()
  left = spare_bytes(with_model(config, unroll=L), devices)
  fits = left is None or left >= SPARE
  leaves = 'is faster' if left is None else f'leaves {left / 1e9:.1f} GB of a device' if left else 'does not fit'
  chosen = f'all {L} unrolled' if fits else 'a loop'
  return L if fits else by_rule, (f'layers: {chosen}, as unrolled {leaves} (model.unroll auto)',)


def spare_bytes(config: cfg.Config, devices) -> float | None:
  """What the steps of all row lengths leave of a device; 0 where one does not fit, None where nothing tells."""
  room, left = health.device_bytes(devices[0]), []
  for phase in phases.phases(config):
    program = program_lib.on(phase.config, program_lib.mesh_of(config, devices))
    try:
      needed = program.compile_step(program.abstract, synthetic.abstract(phase.config, program.mesh))
    except jax.errors.JaxRuntimeError as error:
      if 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      return 0
    left.append(None if needed is None or room is None else max(room - needed, 0))
  return None if None in left else min(left)

# ---------------------------------------------------------------- model.dtype


def dtype_by_rule(devices) -> str:
  """bfloat16 on TPU, and on GPUs that have it; float32 elsewhere."""
  device = devices[0]
  if device.platform in ('gpu', 'cuda', 'rocm'):
    major = str(getattr(device, 'compute_capability', '')).split('.')[0]  # of NVIDIA: 8 is Ampere
    return 'float32' if major.isdigit() and int(major) < 8 else 'bfloat16'
  return 'bfloat16' if device.platform == 'tpu' else 'float32'


def choose_dtype(config, devices) -> tuple[str, tuple[str, ...]]:
  """(the type, lines that say why)."""
  chosen, why = dtype_by_rule(devices), devices[0].device_kind
  if devices[0].platform == 'cpu':
    flags = ' '.join(compiled.cpu()).split()
    if any(flag in flags for flag in NARROW_PRODUCTS):
      seconds = tried(config, devices)
      narrow = distributed.process_0_says(seconds['bfloat16'] < GAIN * seconds['float32'])
      chosen = 'bfloat16' if narrow else 'float32'
      why = ', '.join(f'{name} {value * 1e3:.3g} ms' for name, value in seconds.items()) + ' for a step of one layer'
    else:
      why = 'a CPU that does not multiply 16 bits'
  return chosen, (f'computes in {chosen}: {why} (model.dtype auto)',)


def tried(config, devices) -> dict[str, float]:
  """Seconds of a step of one layer in either type on this CPU; kept for the next start."""
  folder = compiled.NOW[-1].shared.parent / TRIALS if compiled.NOW else None
  about = [compiled.environment(), dataclasses.asdict(config.model), dataclasses.asdict(config.batch), len(devices)]
  file = folder and folder / f'{hashlib.sha256(json.dumps(about).encode()).hexdigest()}.json'
  if file:
    with compiled.warned(folder):
      try:
        found = json.loads(file.read_text())
        return {name: float(found[name]) for name in TYPES}
      except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError):
        pass  # never tried, or damaged
  seconds = trial(config, devices)
  if file:
    with compiled.warned(folder):
      compiled.private_folder(folder)
      storage.write_whole(file, json.dumps(seconds))
  return seconds


def trial(config, devices) -> dict[str, float]:
  """The fastest step of each type, in turns, on one device's part of a batch."""
  size = max(config.batch.size // config.run.microbatches // len(devices), 1)
  length = getattr(config.batch, 'max_length', None) or config.batch.sequence_length
  batch = cfg.BatchConfig(size=size, sequence_length=length, predictions=max(length * 3 // 20, 1))
  model = dataclasses.replace(config.model, layers=1, unroll=1, causal=False, right_to_left=False)
  sides: dict[str, Any] = {}
  for dtype in TYPES:
    one = cfg.Config(model=dataclasses.replace(model, dtype=dtype), batch=batch, mesh=cfg.MeshShape(data=1),
                     optimizer=cfg.Optimizer(warmup_steps=1), run=cfg.Run(steps=10))
    program = program_lib.on(one, program_lib.mesh_of(one, jax.local_devices()[:1]))
    rows = synthetic.batch(model.vocab_size, size, length, batch.predictions)
    sides[dtype] = program.train_step, program.init(), mesh_lib.put_batch(rows, program.mesh)
  return fastest_steps(sides)


def fastest_steps(sides: dict[str, Any]) -> dict[str, float]:
  """Seconds of the fastest call of each (step, state, batch), in turns; the first one of each compiles."""
  states = {name: jax.block_until_ready(step(state, batch)[0]) for name, (step, state, batch) in sides.items()}
  fastest = dict.fromkeys(sides, math.inf)
  until = time.monotonic() + len(sides) * TRIAL_SECONDS
  while math.inf in fastest.values() or time.monotonic() < until:
    for name, (step, _, batch) in sides.items():
      begin = time.perf_counter()
      states[name] = jax.block_until_ready(step(states[name], batch)[0])
      fastest[name] = min(fastest[name], time.perf_counter() - begin)
  return fastest

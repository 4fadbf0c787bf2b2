"""What is left to the program, as `model.unroll auto`, `model.dtype auto` and `run.microbatches auto`: what it becomes
where a run is.

What was chosen stands in the run's config.json, and the run keeps it.
"""

import bisect
import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from bert_jax import (
    compiled,
    config as cfg,
    distributed,
    health,
    memory,
    phases,
    program as program_lib,
    run_directory,
    synthetic,
)
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline import storage

AUTO = 'auto'
FILLED = 0.95  # share of a device that a step may take for which microbatches are chosen
SPARE = 1e9  # bytes of a device that an unrolled program leaves to others: batches ahead, figures, evaluations
FASTER_UNROLLED = 'tpu', 'gpu', 'cuda'  # by their compilers' figures, at any number of layers
NARROW_PRODUCTS = 'avx512_bf16', 'amx_bf16'  # of a CPU's flags: that it multiplies 16 bits
GAIN = 0.95  # of float32's time that bfloat16 may take on a CPU: who is no faster stays exact
TYPES = 'float32', 'bfloat16'
TRIALS, TRIAL_SECONDS = 'trials', 0.5  # their folder; what each side of one runs at least
TRIAL_TOKENS = 1 << 14  # of a batch of one, at most: which type is faster shows by then


@dataclasses.dataclass(frozen=True)
class Settled:
  """Settings in which nothing is left to choose."""
  config: Any
  lines: tuple[str, ...]  # that say what was chosen and why


def settle(config, devices=None, run_dir: storage.PathLike | None = None) -> Settled:
  """What a run in `run_dir` chose when it began; of a new one, what is faster and fits. How rows are shared out is
  chosen at each start, by the devices that are there.

  Takes the settings of a run of any kind. Pretraining on TPU or GPU unrolls all layers where the steps of all row
  lengths fit so, which takes compiling them, and takes as few microbatches as fit where that is left to it; on a CPU
  that multiplies 16 bits one layer is tried in both types. Raises ConfigError.
  """
  devices = jax.devices() if devices is None else devices
  old = run_directory.read(run_dir).config if run_dir and run_directory.run_of(run_dir) else None
  dtype, lines = (config.model.dtype, ()) if config.model.dtype != AUTO else (
      (old.model.dtype, ()) if old and old.model.dtype != AUTO else choose_dtype(config, devices))
  config = with_model(config, dtype=dtype)
  if config.run.microbatches == AUTO:
    count, why = ((old.run.parts, ()) if old and old.run.parts in possible_microbatches(config, devices) else
                  choose_microbatches(config, devices))
    config, lines = with_microbatches(config, count), (*lines, *why)
  layers, why = kept_unroll(config, old.model) if old and old.model.unroll != AUTO else (
      choose_unroll(config, devices) if config.model.unroll == AUTO else (config.model.unroll, ()))
  return Settled(with_model(config, unroll=layers), (*lines, *why, *told_empty(config, devices)))


def by_rule(config, devices=None):
  """`config` with what its choices would be if nothing were tried, to see whether it can work at all."""
  dtype = config.model.dtype
  devices = jax.devices() if devices is None else devices
  return with_model(config, dtype=dtype_by_rule(devices) if dtype == AUTO else dtype)


def with_model(config, **changes):
  return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def with_microbatches(config, count: int):
  return dataclasses.replace(config, run=dataclasses.replace(config.run, microbatches=count))

# ---------------------------------------------------------------- rows over devices


def told_empty(config, devices) -> tuple[str, ...]:
  """A line for each batch whose rows devices and microbatches do not divide, so that empty ones fill it up."""
  mesh, parts = program_lib.mesh_of(config, devices), config.run.parts
  shards = mesh_lib.row_shards(mesh)
  lines = []
  for size in sizes(config):
    each = mesh_lib.rows_of_device(size, mesh, parts)
    count, at_once = mesh_lib.in_microbatches(each, parts)
    empty = shards * each - size
    share = f'{count} times {at_once}' if parts > 1 else each
    idle = f'; devices without any: {shards - size}, set --batch.size to {shards} or more'
    if empty:
      lines.append(f'rows: {size} over {shards} devices: {share} on each, empty ones counted ({empty})'
                   + (idle if size < shards else ''))
  return tuple(lines)


def sizes(config) -> list[int]:
  """Rows of a batch, of each phase."""
  of = phases.phases(config) if isinstance(config, cfg.Config) else ()
  return sorted({phase.config.batch.size for phase in of}) or [config.batch.size]

# ---------------------------------------------------------------- model.unroll


def kept_unroll(config, old) -> tuple[int, tuple[str, ...]]:
  """(layers a step of the loop, as the run's model has them where nothing else is asked for; lines of what differs)."""
  wanted = config.model.unroll
  differs = wanted not in (AUTO, old.unroll)
  return wanted if differs else old.unroll, (
      (f'model.unroll was {old.unroll} and is {wanted}: the last bits may differ',) if differs else ())


def choose_unroll(config, devices) -> tuple[int, tuple[str, ...]]:
  """(layers a step of the loop, lines that say why)."""
  L, by_rule = config.model.layers, config.model.layers_at_once
  if by_rule == L or devices[0].platform not in FASTER_UNROLLED or not isinstance(config, cfg.Config):
    return by_rule, ()
  left = spare_bytes(with_model(config, unroll=L), devices)
  fits = left is None or left >= SPARE
  leaves = 'is faster' if left is None else f'leaves {left / 1e9:.1f} GB of a device' if left else 'does not fit'
  chosen = f'all {L} unrolled' if fits else 'a loop'
  return L if fits else by_rule, (f'layers: {chosen}, as unrolled {leaves} (model.unroll auto)',)


def spare_bytes(config: cfg.Config, devices) -> float | None:
  """What the steps of all row lengths leave of a device; 0 where one does not fit, None where nothing tells."""
  room, needed = health.device_bytes(devices[0]), needed_bytes(config, devices)
  return 0 if needed == math.inf else None if needed is None or room is None else max(room - needed, 0)


def needed_bytes(config: cfg.Config, devices) -> float | None:
  """What the greatest step of all row lengths takes of a device, by the compiler; infinite where it refuses, None where
  nothing tells."""
  needed: list[float | None] = []
  for phase in phases.phases(config):
    program = program_lib.on(phase.config, program_lib.mesh_of(config, devices))
    try:
      needed.append(program.compile_step(program.abstract, synthetic.abstract(phase.config, program.mesh)))
    except jax.errors.JaxRuntimeError as error:
      if not memory.is_short(error):
        raise
      return math.inf
  return max((found for found in needed if found is not None), default=None) if None not in needed else None

# ---------------------------------------------------------------- run.microbatches


def choose_microbatches(config: cfg.Config, devices) -> tuple[int, tuple[str, ...]]:
  """(how many, lines that say why)."""
  room, possible = health.device_bytes(devices[0]), possible_microbatches(config, devices)
  if room is None:
    return 1, (f'microbatches: 1, as nothing tells how much memory a {devices[0].device_kind} has (run.microbatches '
               'auto)',)
  state = health.state_bytes(program_lib.on(config, program_lib.mesh_of(config, devices)))
  count, needed = fewest(possible, lambda count: needed_bytes(with_microbatches(config, count), devices), room, state)
  count = distributed.process_0_tells(count)
  takes = 'is refused by the compiler' if needed == math.inf else f'takes {needed / 1e9:.2f} GB'
  fits = '' if needed <= room * FILLED else ', which does not fit, and no more are possible'
  return count, (f'microbatches: {count}, as a step {takes} of {room / 1e9:.2f} GB so{fits} (run.microbatches auto)',)


def possible_microbatches(config: cfg.Config, devices) -> list[int]:
  """In how many parts the batches of all row lengths can go through, the fewest first; only such as fill up no batch
  that devices divide, and each with fewer rows at a time than the one before."""
  mesh, rows, found = program_lib.mesh_of(config, devices), sizes(config), dict[tuple[int, ...], int]()
  of_device = [mesh_lib.rows_of_device(size, mesh) for size in rows]
  for count in range(1, math.gcd(*rows) + 1):
    if all(mesh_lib.may_be_cut(size, mesh, count) for size in rows):
      found.setdefault(tuple(mesh_lib.in_microbatches(share, count)[1] for share in of_device), count)
  return list(found.values())


def fewest(possible: Sequence[int], needed: Callable[[int], float | None], room: float, state: float
           ) -> tuple[int, float]:
  """(the fewest microbatches whose step fits `room`, the bytes that it takes); the most possible where none does.

  `needed` compiles a step. It is called for as few as will do: what is not `state` is taken to shrink with the rows,
  to begin with, and what is found decides.
  """
  limit, known = room * FILLED, dict[int, float]()

  def takes(place):
    count = possible[place]
    if count not in known:
      found = needed(count)
      known[count] = 0.0 if found is None else found
    return known[count]

  low, high = 0, len(possible) - 1  # the one that is sought is among these
  place = 0
  while low < high:
    if takes(place) <= limit:
      high = place
    else:
      low = place + 1
    guess = possible[place] * (known[possible[place]] - state) / max(limit - state, 1)
    place = min(max(bisect.bisect_left(possible, guess), low), max(high - 1, low))
  return possible[low], takes(low)

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
      try:
        seconds = tried(config, devices)
        why = ', '.join(f'{name} {value * 1e3:.3g} ms' for name, value in seconds.items()) + ' for a step of one layer'
      except jax.errors.JaxRuntimeError as error:  # the run itself says what to change
        if not memory.is_short(error):
          raise
        seconds, why = dict.fromkeys(TYPES, math.inf), 'a trial has no room'
      narrow = distributed.process_0_says(seconds['bfloat16'] < GAIN * seconds['float32'])
      chosen = 'bfloat16' if narrow else 'float32'
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
  """The fastest step of each type, in turns, on one device's part of a batch, or on some rows of a large one."""
  length = getattr(config.batch, 'max_length', None) or config.batch.sequence_length
  rows = config.batch.size // config.run.parts // len(devices)
  size = max(min(rows, TRIAL_TOKENS // length), 1)
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

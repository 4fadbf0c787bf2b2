"""What is left to the program, as `model.unroll auto`: what it becomes where a run is, which keeps it from then on."""

import dataclasses

import jax

from bert_jax import config as cfg, health, phases, program as program_lib, run_directory, synthetic
from input_pipeline import storage

AUTO = 'auto'
SPARE = 1e9  # bytes of a device that an unrolled program leaves to others: batches ahead, figures, evaluations


@dataclasses.dataclass(frozen=True)
class Settled:
  """Settings in which nothing is left to choose."""
  config: cfg.Config
  lines: tuple[str, ...]  # that say what was chosen and why


def settle(config: cfg.Config, devices=None, run_dir: storage.PathLike | None = None) -> Settled:
  """What a run in `run_dir` chose when it began; of a new one, what is faster and fits.

  On TPU all layers are unrolled where the steps of all row lengths fit so, which takes compiling them.
  Raises ConfigError.
  """
  old = run_directory.read(run_dir).config.model.unroll if run_dir and run_directory.run_of(run_dir) else AUTO
  wanted = config.model.unroll
  if wanted != AUTO or old != AUTO:
    chosen = wanted if wanted != AUTO else old
    differs = AUTO not in (wanted, old) and wanted != old
    lines = (f'model.unroll was {old} and is {wanted}: the last bits may differ',) if differs else ()
    return Settled(with_unroll(config, chosen), lines)
  devices = jax.devices() if devices is None else devices
  L, by_rule = config.model.layers, config.model.layers_at_once
  if by_rule == L or devices[0].platform != 'tpu':
    return Settled(with_unroll(config, by_rule), ())
  unrolled = with_unroll(config, L)
  left = spare_bytes(unrolled, devices)
  fits = left is None or left >= SPARE
  of_memory = 'does not fit' if left == 0 else '' if left is None else f'leaves {left / 1e9:.1f} GB of a device'
  line = f'layers: {"all " + str(L) + " unrolled" if fits else "a loop"}, as unrolled {of_memory or "is faster"}'
  return Settled(unrolled if fits else with_unroll(config, by_rule), (f'{line} (model.unroll auto)',))


def with_unroll(config: cfg.Config, layers: int) -> cfg.Config:
  return dataclasses.replace(config, model=dataclasses.replace(config.model, unroll=layers))


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

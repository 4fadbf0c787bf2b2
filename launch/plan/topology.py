"""Devices of topologies that need not be here: of TPUs from the compiler in libtpu, of GPUs from jax's CUDA plugin."""

import importlib.util
import math
import os
import re

import jax

from bert_jax import chips
from bert_jax.errors import ConfigError, require
from launch import without_tpu
from launch.plan import clouds, gpus

# No TPU is used here, and libtpu's lock keeps two programs from one: a plan may run beside another, or beside a test.
ENVIRONMENT = without_tpu.VARIABLES | {'ALLOW_MULTIPLE_LIBTPU_LOAD': 'true'}
# (axes, most chips) of the topologies that exist (cloud.google.com/tpu/docs: the page of each generation).
GENERATIONS = {'v4': (3, 4096), 'v5e': (2, 256), 'v5p': (3, 8960), 'v6e': (2, 256), 'tpu7x': (3, 9216)}
KINDS = {  # as chips.CHIPS has them
    'v4': 'TPU v4', 'v5e': 'TPU v5e', 'v5p': 'TPU v5p', 'v6e': 'TPU v6e', 'tpu7x': 'TPU7x'}


def listed() -> list[dict]:
  """The kinds of chips that topologies can be of, with their figures, those of a chip."""
  tpus = [(f'{name}:{"x".join("ABC"[:axes])}', KINDS[name], chips.CHIPS[KINDS[name]])
          for name, (axes, _) in GENERATIONS.items()]
  of_gpus = [(f'{name}:{gpus.SHAPE}', chip.gpu.kind, chip) for name, chip in chips.GPUS.items() if chip.gpu]
  return [dict(topology=name, device_kind=kind, peak_flops=chip.peak, memory_bytes=chip.memory,
               memory_bytes_per_second=chip.memory_rate, interconnect_bytes_per_second=chip.interconnect,
               clouds=clouds.of(name.partition(':')[0]))
          for name, kind, chip in tpus + of_gpus]


def devices(name: str, slices: int = 1) -> list:
  """The devices of a topology such as 'v5e:4x4' or 'h100:8', or of several such slices. Raises ConfigError."""
  generation, _, shape = name.partition(':')
  if generation in chips.GPUS:
    require(slices == 1, f'--slices {slices} is for TPUs: GPUs of several hosts are {generation}:HOSTSxDEVICES')
    return gpus.devices(name)
  sides = [int(side) for side in shape.split('x')] if re.fullmatch(r'\d+(x\d+)*', shape) else []
  known = ', '.join(f'{key}:{"x".join("ABC"[:axes])} of up to {most:,} chips'
                    for key, (axes, most) in GENERATIONS.items())
  axes, most = GENERATIONS.get(generation, (0, 0))
  require(len(sides) == axes and 0 < math.prod(sides) <= most,
          f'there is no {"TPU " * bool(axes)}topology {name!r}: wanted one of {known}; of GPUs {gpus.names()}')
  require(importlib.util.find_spec('libtpu') is not None,
              f"a plan for {name} needs the compiler in libtpu, which is not installed: pip install 'bert_jax[tpu]'")
  for key, value in ENVIRONMENT.items():
    os.environ.setdefault(key, value)
  from jax.experimental import topologies
  options = {'num_slices': slices} if slices > 1 else {}
  if generation == 'v4':
    options['chip_config_name'] = 'megacore'  # as Cloud TPU runs it: the two cores of a chip are one device
  if math.prod(sides) == 1:
    options['chips_per_host_bounds'] = [1, 1, 1]
  try:
    return list(topologies.get_topology_desc(platform='tpu', topology_name=name, **options).devices)
  except jax.errors.JaxRuntimeError as error:
    raise ConfigError(f'libtpu knows no topology {name!r}: {str(error).splitlines()[0]}') from error


def chip_count(devices: list) -> int:
  """Chips, of which TPU7x shows each as two devices."""
  places = {(getattr(device, 'slice_index', 0), *device.coords) for device in devices if hasattr(device, 'coords')}
  return len(places) or len(devices)

"""GPUs that need not be here, from XLA's compiler in jax's CUDA plugin: it wants their description, and no driver."""

import contextlib
import importlib.util
import re
from collections.abc import Iterator

import jax

from bert_jax import chips
from bert_jax.errors import ConfigError, require
from launch import without_gpu

SHAPE = '[HOSTSx]DEVICES'  # of a topology
MOST_HOSTS, MOST_DEVICES = 1024, 16  # of a host, as the largest machines have them
# By the first digit of the compute capability or by all of it: (shared memory of a core, of a block, threads of a core,
# 32-bit units of a core); docs.nvidia.com/cuda/cuda-c-programming-guide, "Technical Specifications per Compute
# Capability", and XLA's own specs.
CORES = {'8.0': (167_936, 166_912, 2048, 64), '8': (102_400, 101_376, 1536, 128), '9': (233_472, 232_448, 2048, 128),
         '10': (233_472, 232_448, 2048, 128)}
ACCELERATED = 9  # from this generation on XLA compiles code for one generation only (sm_90a)
NO_CUDNN = 'cuDNN is not detected', 'cuDNN not found'  # as jax says it, without and with its plugin for CUDA
CUDNN = 9, 10  # that the programs may count on: what jax's wheels want at least is 9.8
# Without this the compiler would try algorithms for products on a GPU.
OPTIONS = {'xla_gpu_autotune_level': 0}


def names() -> str:
  """The topologies for people."""
  return ', '.join(f'{name}:{SHAPE}' for name in chips.GPUS)


def devices(name: str) -> list:
  """The devices of 'h100:8', of one host, or of 'h100:2x8', of two. Raises ConfigError."""
  generation, _, shape = name.partition(':')
  sides = [int(side) for side in shape.split('x')] if re.fullmatch(r'\d+(x\d+)?', shape) else []
  hosts, each = (sides if len(sides) == 2 else [1, *sides]) if sides else (0, 0)
  require(generation in chips.GPUS and 0 < hosts <= MOST_HOSTS and 0 < each <= MOST_DEVICES,
          f'there is no GPU topology {name!r}: wanted one of {names()}, up to {MOST_HOSTS:,} hosts and {MOST_DEVICES} '
          'devices each')
  require(any(map(importlib.util.find_spec, without_gpu.PLUGINS)) and has('cuda_nvcc', 'cu13'),
          f"a plan for {name} needs XLA's compiler for GPUs and NVIDIA's ptxas, which are not installed: "
          "pip install 'bert_jax[gpu-plan]'")
  from jax.experimental import topologies
  try:
    return list(topologies.get_topology_desc(generation, 'cuda', target_config=target(chips.GPUS[generation]),
                                             topology=f'1x{hosts}x{each}').devices)
  except (jax.errors.JaxRuntimeError, NotImplementedError, RuntimeError) as error:
    raise ConfigError(f'the CUDA plugin of jax gives no devices for {name}: {str(error).splitlines()[0]}') from error


def has(*packages: str) -> bool:
  """Whether one of NVIDIA's packages is installed."""
  try:
    return any(importlib.util.find_spec(f'nvidia.{package}') for package in packages)
  except ModuleNotFoundError:
    return False


@contextlib.contextmanager
def without_cudnn(name: str) -> Iterator[None]:
  """What is traced in here may use cuDNN. Raises ConfigError where that is not installed."""
  try:
    yield
  except RuntimeError as error:
    if not any(words in str(error) for words in NO_CUDNN):
      raise
    raise ConfigError(f'a plan for {name} uses cuDNN\'s attention, and cuDNN is not installed: pip install '
                      'nvidia-cudnn-cu12, or set --model.attention xla') from error


def target(chip: chips.Chip) -> str:
  """A stream_executor.GpuTargetConfigProto as text (openxla/xla, stream_executor/device_description.proto)."""
  gpu = chip.gpu
  assert gpu
  major, minor = gpu.capability.split('.')
  per_core, per_block, threads, units = CORES.get(gpu.capability) or CORES[major]
  kind = ' feature_extension: ACCELERATED_FEATURES' if int(major) >= ACCELERATED else ''
  return f'''
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {per_core}
  shared_memory_per_block_optin: {per_block}
  threads_per_core_limit: {threads}
  core_count: {gpu.cores}
  fpus_per_core: {units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {chip.memory_rate:.0f}
  l2_cache_size: {gpu.cache}
  clock_rate_ghz: {chip.clock / 1e9}
  device_memory_size: {chip.memory:.0f}
  cuda_compute_capability {{ major: {major} minor: {minor}{kind} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
runtime_version: {{ major: 12 minor: 8 patch: 0 }}
platform_name: "CUDA"
dnn_version_info {{ major: {CUDNN[0]} minor: {CUDNN[1]} }}
device_description_str: "{gpu.kind}"
'''

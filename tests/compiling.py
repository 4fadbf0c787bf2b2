"""How tests compile: quickly, since they compile much and compute little."""

import importlib.metadata

_JAXLIB = tuple(map(int, importlib.metadata.version('jaxlib').split('.')[:2]))
# Of a step of two small layers (jaxlib 0.10.2, seconds of one core): 7.4; with one module of LLVM instead of 32: 5.9;
# by the older emitters, which 0.12 has no more: 2.5.
_OLDER = _JAXLIB < (0, 12)
FLAGS = ' '.join(('--xla_backend_optimization_level=0', '--xla_llvm_disable_expensive_passes=true',
                  '--xla_cpu_parallel_codegen_split_count=1', *(['--xla_cpu_use_fusion_emitters=false'] * _OLDER)))
# For `compile` of a test that looks at what users' compilers make.
AS_USERS = {'xla_cpu_use_fusion_emitters': True} if _OLDER else {}


def flags(devices: int) -> str:
  """Of XLA_FLAGS, for so many devices of one CPU."""
  return f'--xla_force_host_platform_device_count={devices} {FLAGS}'

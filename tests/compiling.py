"""How tests compile: quickly, since they compile much and compute little."""

# Of a step of two small layers (jaxlib 0.10.2, seconds of one core): 7.4; with one module of LLVM instead of 32: 5.9.
# The emitters are those of users: with the older ones it is 2.5, and their tanh is another.
FLAGS = ('--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true '
         '--xla_cpu_parallel_codegen_split_count=1')


def flags(devices: int) -> str:
  """Of XLA_FLAGS, for so many devices of one CPU."""
  return f'--xla_force_host_platform_device_count={devices} {FLAGS}'

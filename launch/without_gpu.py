"""Keeps jax's CUDA plugin quiet where it is installed for plans only, on a machine without NVIDIA's driver: it would
look for the driver at each start, and print a traceback."""

import glob
import importlib.util
import os

from launch import without_tpu

PLUGINS = 'jax_cuda12_plugin', 'jax_cuda13_plugin'
# Of NVIDIA's driver, in a virtual machine of Windows, on Tegra; of AMD's, which jax may be here for.
DEVICES = '/dev/nvidia[0-9]*', '/dev/dxg', '/dev/nvhost-gpu', '/dev/kfd'


def keep_quiet() -> None:
  """Tells JAX that there is only the CPU, where that is so and the plugin is here; what is set already stays."""
  if any(map(importlib.util.find_spec, PLUGINS)) and not any(
      glob.glob(pattern) for pattern in DEVICES + without_tpu.DEVICES):
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')

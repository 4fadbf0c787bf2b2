"""Eight fake devices, quick compilation and a compilation cache, set before anything imports jax; and the small things that tests share."""

import getpass
import os
import platform
import tempfile

os.environ['JAX_PLATFORMS'] = os.environ.get('JAX_PLATFORMS') or 'cpu'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 '
                      '--xla_llvm_disable_expensive_passes=true')  # tests compile much and compute little
# Keyed by what the compiled code depends on and JAX does not: another machine may share the directory. Subprocesses use it too.
_CACHE = os.path.join(tempfile.gettempdir(), f'bert_jax-tests-{getpass.getuser()}', platform.node(), platform.machine())
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _CACHE)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '0')

import dataclasses  # noqa: E402

import pytest  # noqa: E402


@pytest.fixture(scope='session')
def tiny():
  """A pretraining run small enough to compile in seconds, in float32, with dropout."""
  from bert_jax import config as cfg
  return cfg.Config(
      model=cfg.Model(vocab_size=64, hidden_size=16, layers=2, heads=2, intermediate_size=32, max_positions=16, dtype='float32'),
      batch=cfg.BatchConfig(size=16, sequence_length=16, predictions=4),
      optimizer=cfg.Optimizer(peak_learning_rate=1e-3, warmup_steps=2), run=cfg.Run(steps=10))


@pytest.fixture(scope='session')
def still(tiny):
  """The same without dropout."""
  return dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, hidden_dropout=0., attention_dropout=0.))

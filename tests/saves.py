"""States that their step tells, saved: for tests of checkpoints that are damaged, or whose process is killed."""

import dataclasses

import jax
import numpy as np

from bert_jax import checkpoint, config as cfg, program as program_lib
from tests import parameters

MODEL = cfg.Model(vocab_size=40, hidden_size=8, layers=1, heads=2, intermediate_size=16, max_positions=16,
                  dtype='float32')
SETTINGS = cfg.Config(model=MODEL, batch=cfg.BatchConfig(size=8, sequence_length=16, predictions=3),
                      optimizer=cfg.Optimizer(warmup_steps=0), mesh=cfg.MeshShape(data=1), run=cfg.Run(steps=9))
BIG = dataclasses.replace(MODEL, vocab_size=40_000, hidden_size=64)  # saving takes some tenths of a second
CONFIG = dataclasses.replace(SETTINGS, model=BIG)


def state_of(step: int, template) -> program_lib.TrainState:
  """A state that its step tells: every number is another at every step."""
  params = jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf) + np.float32(step)), template)
  zero = np.zeros((), np.int32)
  return program_lib.TrainState(zero + step, zero, params, {'nothing': jax.device_put(zero)})


def abstract_of(template) -> program_lib.TrainState:
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state_of(0, template))


def save_for_ever(run: str, first: int, last: int = 10**6) -> None:
  """Saves one step of a run after the other, and says so: for a process of its own."""
  template = parameters.random(BIG)
  with checkpoint.manager(run, keep=2) as checkpoints:
    checkpoint.restore(checkpoints, abstract_of(template))
    for step in range(first, last + 1):
      checkpoint.save(checkpoints, state_of(step, template), checkpoint.Meta(step, 0.0, {}, ''))
      print('begun', step, flush=True)
      checkpoint.finish(checkpoints)
      print('saved', step, flush=True)

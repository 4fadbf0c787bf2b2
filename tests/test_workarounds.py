"""Each workaround for a compiler can be turned off: what is computed stays the same."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from bert_jax import config as cfg, program as program_lib, synthetic
from bert_jax.model.layers import WORKAROUNDS
from bert_jax.parallel import mesh as mesh_lib

PLAIN = {'nothing': ((), False), 'collectives': ((), True), 'everything': (WORKAROUNDS, True)} | {
    name: ((name,), False) for name in WORKAROUNDS}


@pytest.fixture(scope='module')
def found(tiny):
  """(workarounds turned off, plain collectives, devices) -> gradients of one batch with dropout, and its sums."""
  params = program_lib.of(tiny, jax.devices()[:1]).init().params
  batch = synthetic.batch(64, 16, 16, 4, pairs=2, seed=1, shortest=.4)

  @functools.cache
  def of(plain, plain_mesh, devices):
    config = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, plain=plain),
                                 mesh=cfg.MeshShape(data=1, fsdp=devices, plain=plain_mesh))
    program = program_lib.of(config, jax.devices()[:devices])
    mine = jax.device_put(jax.device_get(params), jax.tree.map(lambda x: x.sharding, program.abstract.params))
    step = jax.jit(functools.partial(program_lib.gradients, program))
    return jax.device_get(step(mine, mesh_lib.put_batch(batch, program.mesh), jax.random.key(5)))
  return of


TOGETHER = 'nothing', 'collectives', 'everything'  # quick on eight devices too
PLACES = [pytest.param(plain, devices, marks=[pytest.mark.slow] if devices > 1 and plain not in TOGETHER else [])
          for plain in PLAIN for devices in (1, 8)]


@pytest.mark.parametrize('plain, devices', PLACES)
def test_gradients_of_the_plain_paths_are_the_tuned_ones(found, plain, devices):
  """To 1e-5 of the largest, in float32."""
  (wanted, sums), (grads, others) = found((), False, 1), found(*PLAIN[plain], devices)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), sums, others)
  largest = max(np.abs(x).max() for x in jax.tree.leaves(wanted))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest), wanted, grads)


def test_plain_collectives_are_another_program(tiny):
  """One gather and one scatter a parameter, where the tuned path scatters what is small together."""
  counts = []
  for plain in (False, True):
    program = program_lib.of(dataclasses.replace(tiny, mesh=cfg.MeshShape(data=1, fsdp=8, plain=plain)))
    batch = mesh_lib.put_batch(synthetic.batch(64, 16, 16, 4), program.mesh)
    counts.append(program.train_step.lower(program.abstract, batch).as_text().count('reduce_scatter'))
  assert counts[0] < counts[1]

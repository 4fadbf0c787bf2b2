"""bfloat16 on CPU devices: the compiler aborts on sums of 16 bits there, so float32 is summed; the losses stay."""

import dataclasses

import jax
import pytest

from bert_jax import config as cfg, program, synthetic
from bert_jax.parallel import mesh as mesh_lib

STEPS = 4


def losses(tiny, mesh: cfg.MeshShape, dtype: str, devices: int) -> list[float]:
  settings = dataclasses.replace(tiny, mesh=mesh, model=dataclasses.replace(tiny.model, dtype=dtype))
  made = program.of(settings, jax.devices()[:devices])
  state, found = made.init(), []
  for step in range(STEPS):
    batch = mesh_lib.put_batch(synthetic.batch(64, 16, 16, 4, seed=step, shortest=.4), made.mesh)
    state, report = made.train_step(state, batch)
    found.append(sum(float(sums['loss'] / sums['weight']) for sums in report['terms'].values()))
  return found


@pytest.fixture(scope='module')
def wanted(tiny):
  return losses(tiny, cfg.MeshShape(data=1), 'float32', 1)


@pytest.mark.parametrize('reduce', ['compute', 'float32'])
@pytest.mark.parametrize('sizes', [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 4, 2), (4, 1, 2)])
def test_every_mesh_of_cpu_devices_trains_in_16_bits(tiny, wanted, sizes, reduce):
  assert losses(tiny, cfg.MeshShape(*sizes, reduce=reduce), 'bfloat16', 8) == pytest.approx(wanted, abs=5e-3)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_mesh_that_shares_out_only_heads(tiny, wanted, dtype):
  """No device shares rows with another: there is nothing to sum, and the compiler refuses sums over one device."""
  tolerance = 5e-3 if dtype == 'bfloat16' else 1e-5
  assert losses(tiny, cfg.MeshShape(1, 1, 2), dtype, 2) == pytest.approx(wanted, abs=tolerance)

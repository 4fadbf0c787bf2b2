"""A bit that differs between devices which should hold the same is found, wherever it is, and nothing else is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P

from bert_jax import replicas
from bert_jax.errors import CorruptionError
from bert_jax.parallel import mesh as mesh_lib

LAYOUTS = {'everywhere': P(), 'over fsdp': P('fsdp'), 'over both': P('fsdp', 'tensor')}


@pytest.fixture(scope='module')
def mesh():
  return mesh_lib.make_mesh(mesh_lib.MeshShape(data=2, fsdp=2, tensor=2), jax.devices()[:8])


def array(mesh, layout: P, dtype, flipped: int | None = None) -> jax.Array:
  """The same on all devices that hold the same part, but for one bit on the device `flipped`."""
  whole = np.asarray(jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)) * 50).astype(dtype))
  sharding, parts = NamedSharding(mesh, layout), []
  for number, (device, part) in enumerate(sharding.addressable_devices_indices_map(whole.shape).items()):
    local = np.array(whole[part])
    if number == flipped:
      local.view(np.uint8).reshape(-1)[5] ^= 1 << 3
    parts.append(jax.device_put(local, device))
  return jax.make_array_from_single_device_arrays(whole.shape, sharding, parts)


@pytest.mark.reliability(26)
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int32'])
def test_a_flipped_bit_is_found_on_any_device(mesh, layout, dtype, tally):
  good = array(mesh, P(), 'float32')
  replicas.compare({'a': array(mesh, LAYOUTS[layout], dtype), 'b': good}, mesh)
  tally.control()
  for flipped in range(8):
    tree = {'a': array(mesh, LAYOUTS[layout], dtype, flipped), 'b': good}
    with pytest.raises(CorruptionError, match='^a is not the same on'):
      replicas.compare(tree, mesh)
    tally.fault(True, detected=True)

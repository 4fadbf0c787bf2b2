"""Whether devices that hold the same have the same: a bit that flipped in one would spread with its gradients.

The bits of every leaf's part are added up where it lies, modulo 2^32: no single flip leaves the sum as it was.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec as P

from bert_jax.errors import CorruptionError
from bert_jax.parallel import mesh as mesh_lib

WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def compare(tree, mesh: jax.sharding.Mesh) -> None:
  """Raises CorruptionError, on every process, where two devices have different values of the same part of an array.

  Every process must ask at the same step.
  """
  if mesh.size == 1:
    return
  leaves = jax.tree.leaves_with_path(tree)
  found = _sums(mesh, tuple(leaf.sharding.spec for _, leaf in leaves))(tuple(leaf for _, leaf in leaves))
  sums = np.asarray(multihost_utils.process_allgather(found, tiled=True))  # [devices leaves]
  devices = list(mesh.devices.flat)
  for place, (path, leaf) in enumerate(leaves):
    seen: dict[str, int] = {}
    parts = leaf.sharding.devices_indices_map(leaf.shape)
    for number, device in enumerate(devices):
      other = seen.setdefault(str(parts[device]), number)
      if sums[number, place] != sums[other, place]:
        raise CorruptionError(
            f'{mesh_lib.path_name(path)} is not the same on {devices[other]} and on {device}, where it should be: a '
            'device or its memory is at fault; start again from the last checkpoint, without that machine')


@functools.cache
def _sums(mesh: jax.sharding.Mesh, specs: tuple):
  """(leaves) -> [devices leaves] uint32, the sum of the bits of each device's part of each leaf."""
  local = lambda leaves: jnp.stack([bits(leaf) for leaf in leaves])[None]
  shares = jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=P(mesh.axis_names), check_vma=False)
  return jax.jit(shares)


def bits(x: jax.Array) -> jax.Array:
  """The sum of an array's bits as whole numbers, modulo 2^32."""
  words = WORDS[x.dtype.itemsize]
  return jax.lax.bitcast_convert_type(x, words).astype(jnp.uint32).sum(dtype=jnp.uint32)

"""A step done twice, from the same state and the same batch: where the results differ in a bit, hardware is at fault.

Replicas of parameters are compared when a checkpoint is due (replicas.py). That finds a device that went another way
than its replicas, but not what all compute from, as on one device, or what only one has. This does, for the price of a
step and, for its time, of a second state in memory.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec as P

from bert_jax.errors import CorruptionError, require
from bert_jax.parallel import mesh as mesh_lib
from bert_jax.program import Program, TrainState
from bert_jax.replicas import WORDS

SAME_EVERY_TIME = 'xla_gpu_deterministic_ops=true', 'xla_gpu_exclude_nondeterministic_ops=true'


def check(every: int, mesh: jax.sharding.Mesh) -> None:
  """Raises ConfigError where a sound device may give two results, so that nothing could be told from them."""
  flags = os.environ.get('XLA_FLAGS', '').lower()
  require(not every or mesh.devices.flat[0].platform not in ('gpu', 'cuda', 'rocm')
          or any(flag in flags for flag in SAME_EVERY_TIME),
          f'run.recheck_every is {every}, and sums on GPUs come out in any order: add '
          f'--{SAME_EVERY_TIME[0]} to XLA_FLAGS, or leave --run.recheck-every out')


def step(program: Program, state: TrainState, batch, number: int) -> tuple[TrainState, dict]:
  """As program.train_step, which makes step `number`, done twice.

  Raises CorruptionError, on every process, where the two results are not the same to the last bit.
  """
  again = _copy(program.mesh)(state)
  first, report = program.train_step(state, batch)
  second, other = program.train_step(again, batch)
  found = differences((first, report), (second, other), program.mesh)
  if found:
    names = ', '.join(list(found)[:3]) + (' …' if len(found) > 3 else '')
    raise CorruptionError(
        f'step {number:,} was done twice from the same state and batch, and {sum(found.values()):,} numbers of '
        f'{len(found)} arrays are not the same ({names}): a device or its memory is at fault; nothing was saved of it; '
        'start again from the last checkpoint, without that machine')
  return first, report


def differences(one, other, mesh: jax.sharding.Mesh) -> dict[str, int]:
  """How many numbers of each array differ in a bit between two trees of one layout, on the device where most do."""
  paths = [path for path, _ in jax.tree.leaves_with_path(one)]
  leaves, others = tuple(jax.tree.leaves(one)), tuple(jax.tree.leaves(other))
  found = _counts(mesh, tuple(leaf.sharding.spec for leaf in leaves))(leaves, others)
  counts = np.asarray(multihost_utils.process_allgather(found, tiled=True)).max(0)  # [devices leaves] -> [leaves]
  return {mesh_lib.path_name(path): int(count) for path, count in zip(paths, counts) if count}


@functools.cache
def _counts(mesh: jax.sharding.Mesh, specs: tuple):
  """(leaves, leaves) -> [devices leaves] int32: each device counts in its own part, so that no copy hides another."""
  local = lambda one, other: jnp.stack([_count(a, b) for a, b in zip(one, other)])[None]
  shares = jax.shard_map(local, mesh=mesh, in_specs=(specs, specs), out_specs=P(mesh.axis_names), check_vma=False)
  return jax.jit(shares)


def _count(a: jax.Array, b: jax.Array) -> jax.Array:
  bits = lambda x: jax.lax.bitcast_convert_type(x, WORDS[x.dtype.itemsize])
  return (bits(a) != bits(b)).sum(dtype=jnp.int32)


@functools.cache
def _copy(mesh: jax.sharding.Mesh):
  """A tree of arrays in other memory, laid out alike."""
  del mesh  # one program for each
  return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))

"""What moves between the devices that share out a batch's rows: parameters are gathered once a step, gradients added up once.

Both travel as one array, cut so that TPU's compiler sends each byte once. Left alone it sends arrays under 32 MB, or whose parts are a
few columns wide, around all devices as zeros and adds them up; and scatters over two axes of a torus by sending everything everywhere.

F devices of the axis fsdp, n elements of a parameter's share, S runs of 128 in all that a device has.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.mesh import ROWS, is_matrix, place

BLOCK = 64 * 128  # elements: shares of whole blocks are scattered as they are
TILE = 8 * 128  # elements: where a parameter may begin


def rings(mesh: jax.sharding.Mesh) -> tuple[int, ...]:
  """The sizes, slowest first, into which the axis fsdp parts along the torus: TPU scatters along one physical axis at a time.

  Over several at once its compiler sends everything everywhere, twice the bytes.
  """
  line = [place(device) for device in mesh.devices[0, :, 0]]
  sizes, stride = [], 1
  while stride < len(line):
    changed = [{axis for axis, x in enumerate(line[i]) if x != line[0][axis]} for i in range(stride, len(line), stride)]
    size = 1 + next((i for i, axes in enumerate(changed) if axes != changed[0] or len(axes) > 1), len(changed))
    if size == 1 or len(line) % (stride * size):
      return (len(line),)
    sizes.append(size)
    stride *= size
  return tuple(reversed(sizes))


def to_front(x, part):
  return jnp.moveaxis(x, part.index('fsdp'), 0)


def pack(shares):  # [F n] each -> [F S 128]
  """One array whose rows are the devices' shares, each parameter beginning on a tile."""
  F = len(shares[0])
  padded = [jnp.pad(x, ((0, 0), (0, -x.shape[1] % TILE))) for x in shares]
  rest = -sum(x.shape[1] for x in padded) % BLOCK
  return jnp.concatenate([*padded, jnp.zeros((F, rest), shares[0].dtype)], axis=1).reshape(F, -1, 128)


def unpack(packed, sizes: list[int]):  # [F S 128] -> [F n] each
  flat, begin, shares = packed.reshape(len(packed), -1), 0, []
  for size in sizes:
    shares.append(flat[:, begin:begin + size])
    begin += size + -size % TILE
  return shares


def whole(params, parts, dtype, mesh: jax.sharding.Mesh):
  """The parameters that a device computes with, inside `per_device`: matrices first made narrow, then gathered."""
  params = jax.tree.map_with_path(lambda path, x: x.astype(dtype) if is_matrix(path) else x, params)

  def gather(leaves, parts):
    F = mesh.shape['fsdp']
    fronts = [to_front(x, part) for x, part in zip(leaves, parts)]
    if mesh.shape['tensor'] > 1:  # the compiler shares these out further: each travels as it is
      gathered = [jax.lax.all_gather(x, 'fsdp', tiled=True) for x in fronts]
    else:
      packed = jax.lax.all_gather(pack([x.reshape(1, -1) for x in fronts]), 'fsdp', tiled=True)
      gathered = [share.reshape(F * x.shape[0], *x.shape[1:]) for share, x in zip(unpack(packed, [x.size for x in fronts]), fronts)]
    return [jnp.moveaxis(x, 0, part.index('fsdp')) for x, part in zip(gathered, parts)]

  return replace_shared(params, parts, gather)


def add_up(grads, parts, dtype, mesh: jax.sharding.Mesh):
  """Sums gradients over the devices that share out the rows, in `dtype` for matrices; each device keeps its own part, in float32 again."""
  wide = lambda g: jnp.promote_types(g.dtype, jnp.float32)
  widths = jax.tree.map(wide, grads)
  grads = jax.tree.map_with_path(lambda path, g: g.astype(dtype if is_matrix(path) else wide(g)), grads)

  def reduce(leaves, parts):
    F = mesh.shape['fsdp']
    fronts = [to_front(g, part) for g, part in zip(leaves, parts)]
    if mesh.shape['tensor'] > 1:
      own = [jax.lax.psum(scatter(g, rings(mesh)), 'data') for g in fronts]
    else:
      packed = jax.lax.psum(scatter(pack([g.reshape(F, -1) for g in fronts]), rings(mesh)), 'data')
      shares = unpack(packed, [g.size // F for g in fronts])
      own = [share.reshape(g.shape[0] // F, *g.shape[1:]) for share, g in zip(shares, fronts)]
    return [jnp.moveaxis(g, 0, part.index('fsdp')) for g, part in zip(own, parts)]

  grads = replace_shared(grads, parts, reduce, lambda g: jax.lax.psum(g, ROWS))
  return jax.tree.map(lambda g, width: g.astype(width), grads, widths)


def replace_shared(tree, parts, of_shared, of_others=lambda x: x):
  """`tree` with of_shared(leaves, parts) in place of the leaves that fsdp shares out, and of_others(leaf) in place of others."""
  leaves, structure = jax.tree.flatten(tree)
  parts = structure.flatten_up_to(parts)
  shared = [i for i, part in enumerate(parts) if 'fsdp' in part]
  new = dict(zip(shared, of_shared([leaves[i] for i in shared], [parts[i] for i in shared]))) if shared else {}
  return structure.unflatten([new[i] if i in new else of_others(x) for i, x in enumerate(leaves)])


def scatter(x, sizes: tuple[int, ...]):
  """Sums `x` over fsdp, of which each device keeps its part of axis 0: ring after ring, each on what the one before left."""
  numbers = np.arange(math.prod(sizes)).reshape(sizes)
  for i, size in enumerate(sizes):
    groups = np.moveaxis(numbers, i, -1).reshape(-1, size).tolist() if len(sizes) > 1 else None
    x = jax.lax.psum_scatter(x, 'fsdp', tiled=True, axis_index_groups=groups)
  return x

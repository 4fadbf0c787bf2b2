"""What moves between the devices that share out a batch's rows: parameters are gathered once a step, gradients added up once.

Both travel as one array, cut so that TPU's compiler sends each byte once. Left alone it sends arrays under 32 MB, or whose parts are a
few columns wide, around all devices as zeros and adds them up; and scatters over two axes of a torus by sending everything everywhere.

F devices of the axis fsdp, D elements of the axis that it shares out, S runs of 128 elements that a device has of all parameters.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.mesh import ROWS, is_matrix, place

LANES = 128  # elements of a run, TPU's vector
TILE = 8  # runs: where a parameter may begin
BLOCK = 128  # runs: shares of whole blocks are scattered as they are; of 64, some are not


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


def pad_to(x, axis: int, multiple: int):
  return jnp.pad(x, [(0, -size % multiple if i == axis else 0) for i, size in enumerate(x.shape)])


def pack(shares):  # [F …] each -> [F S 128]
  """One array whose rows are the devices' shares: runs of 128, in which each parameter begins on a tile."""
  F = len(shares[0])
  runs = [pad_to(pad_to(x, x.ndim - 1, LANES).reshape(F, -1, LANES), 1, TILE) for x in shares]
  rest = -sum(x.shape[1] for x in runs) % BLOCK
  return jnp.concatenate([*runs, jnp.zeros((F, rest, LANES), runs[0].dtype)], axis=1)


def unpack(packed, shapes: list[tuple[int, ...]]):  # [F S 128], shapes of shares [F …] -> [F …] each
  shares, begin = [], 0
  for shape in shapes:
    padded = (len(packed), *shape[1:-1], shape[-1] + -shape[-1] % LANES)
    runs = math.prod(padded[1:]) // LANES
    shares.append(packed[:, begin:begin + runs].reshape(padded)[..., :shape[-1]])
    begin += runs + -runs % TILE
  return shares


def split(x, axis: int, devices: int):  # [… D …] -> [F … D/F …], or [F D/F …] where D is the last axis
  """The devices' shares of `axis` one after the other; a last axis goes in front, since parts of rows make short runs."""
  if axis == x.ndim - 1:
    return jnp.moveaxis(x, axis, 0).reshape(devices, -1, *x.shape[:-1])
  return jnp.moveaxis(x.reshape(*x.shape[:axis], devices, -1, *x.shape[axis + 1:]), axis, 0)


def join(shares, axis: int):  # what `split` takes apart
  if axis == shares.ndim - 2:
    return jnp.moveaxis(shares.reshape(-1, *shares.shape[2:]), 0, -1)
  shares = jnp.moveaxis(shares, 0, axis)
  return shares.reshape(*shares.shape[:axis], -1, *shares.shape[axis + 2:])


def whole(params, parts, dtype, mesh: jax.sharding.Mesh):
  """The parameters that a device computes with, inside `per_device`: matrices first made narrow, then gathered."""
  params = jax.tree.map_with_path(lambda path, x: x.astype(dtype) if is_matrix(path) else x, params)

  def gather(leaves, axes):
    if mesh.shape['tensor'] > 1:  # the compiler shares these out further: each travels as it is
      return [jax.lax.all_gather(x, 'fsdp', axis=axis, tiled=True) for x, axis in zip(leaves, axes)]
    shares = [split(x, axis, 1) for x, axis in zip(leaves, axes)]
    gathered = unpack(jax.lax.all_gather(pack(shares), 'fsdp', tiled=True), [x.shape for x in shares])
    return [join(x, axis) for x, axis in zip(gathered, axes)]

  return replace_shared(params, parts, gather)


def add_up(grads, parts, dtype, mesh: jax.sharding.Mesh):
  """Sums gradients over the devices that share out the rows, in `dtype` for matrices; each device keeps its own part, in float32 again."""
  wide = lambda g: jnp.promote_types(g.dtype, jnp.float32)
  widths = jax.tree.map(wide, grads)
  grads = jax.tree.map_with_path(lambda path, g: g.astype(dtype if is_matrix(path) else wide(g)), grads)

  def reduce(leaves, axes):
    if mesh.shape['tensor'] > 1:
      return [jax.lax.psum(scatter(g, axis, rings(mesh)), 'data') for g, axis in zip(leaves, axes)]
    shares = [split(g, axis, mesh.shape['fsdp']) for g, axis in zip(leaves, axes)]
    own = jax.lax.psum(scatter(pack(shares), 0, rings(mesh)), 'data')
    return [join(g, axis) for g, axis in zip(unpack(own, [x.shape for x in shares]), axes)]

  grads = replace_shared(grads, parts, reduce, lambda g: jax.lax.psum(g, ROWS))
  return jax.tree.map(lambda g, width: g.astype(width), grads, widths)


def replace_shared(tree, parts, of_shared, of_others=lambda x: x):
  """`tree` with of_shared(leaves, axes) in place of the leaves that fsdp shares out along these axes, and of_others(leaf) of the rest."""
  leaves, structure = jax.tree.flatten(tree)
  axes = {i: part.index('fsdp') for i, part in enumerate(structure.flatten_up_to(parts)) if 'fsdp' in part}
  new = dict(zip(axes, of_shared([leaves[i] for i in axes], list(axes.values())))) if axes else {}
  return structure.unflatten([new[i] if i in new else of_others(x) for i, x in enumerate(leaves)])


def scatter(x, axis: int, sizes: tuple[int, ...]):
  """Sums `x` over fsdp, of which each device keeps its part of `axis`: ring after ring, each on what the one before left."""
  numbers = np.arange(math.prod(sizes)).reshape(sizes)
  for i, size in enumerate(sizes):
    groups = np.moveaxis(numbers, i, -1).reshape(-1, size).tolist() if len(sizes) > 1 else None
    x = jax.lax.psum_scatter(x, 'fsdp', scatter_dimension=axis, tiled=True, axis_index_groups=groups)
  return x

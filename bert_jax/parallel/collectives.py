"""What moves between the devices that share out a batch's rows: parameters are gathered once a step, gradients added up once.

Both go ring by ring along the axes of the torus, each array along its own axis. Over several axes at once TPU's compiler scatters by
sending everything everywhere, and gathers by adding up zeros; so it does as well with parts that are no whole tiles, or awkward to cut.

F devices of the axis fsdp, D elements of the axis that it shares out, S runs of 128 elements that a device has of all parameters.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.parallel.mesh import ROWS, place

LANES = 128  # elements of a run, TPU's vector
TILE = 8  # rows of a matrix, or runs: what TPU keeps together
CUTS = 6  # bits: sizes of so many leading bits have the divisors by which the compiler cuts an array into what fits its fast memory


def rings(mesh: jax.sharding.Mesh) -> tuple[int, ...]:
  """The sizes, slowest first, into which the axis fsdp parts along the torus, one for each physical axis."""
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


def smooth(n: int) -> int:
  """`n` rounded up to CUTS leading bits: at most a thirty-second more."""
  return n + -n % 2**max(n.bit_length() - CUTS, 0)


def pack(shares):  # [F …] each -> [F S 128]
  """One array whose rows are the devices' shares: runs of 128, in which each parameter begins on a tile."""
  F = len(shares[0])
  runs = [pad_to(pad_to(x, x.ndim - 1, LANES).reshape(F, -1, LANES), 1, TILE) for x in shares]
  size = sum(x.shape[1] for x in runs)
  return jnp.concatenate([*runs, jnp.zeros((F, smooth(size) - size, LANES), runs[0].dtype)], axis=1)


def unpack(packed, shapes: list[tuple[int, ...]]):  # [F S 128], shapes of shares [F …] -> [F …] each
  shares, begin = [], 0
  for shape in shapes:
    padded = (len(packed), *shape[1:-1], shape[-1] + -shape[-1] % LANES)
    runs = math.prod(padded[1:]) // LANES
    shares.append(packed[:, begin:begin + runs].reshape(padded)[..., :shape[-1]])
    begin += runs + -runs % TILE
  return shares


def split(x, axis: int, devices: int):  # [… D …] -> [F … D/F …]
  """The devices' shares of `axis` one after the other."""
  return jnp.moveaxis(x.reshape(*x.shape[:axis], devices, -1, *x.shape[axis + 1:]), axis, 0)


def join(shares, axis: int):  # what `split` takes apart
  shares = jnp.moveaxis(shares, 0, axis)
  return shares.reshape(*shares.shape[:axis], -1, *shares.shape[axis + 2:])


def runs_of(x, devices: int):  # [V D] -> [F S 128]
  """The devices' shares of the columns, which are short runs, turned into long ones, in the order in which TPU keeps [D/F V]."""
  x = pad_to(x.T, 1, LANES)
  lanes = x.shape[1] // LANES
  x = jnp.pad(x, [(0, 0), (0, (smooth(lanes) - lanes) * LANES)])
  tile = TILE if len(x) // devices % TILE == 0 else 1
  return x.reshape(devices, -1, tile, smooth(lanes), LANES).swapaxes(2, 3).reshape(devices, -1, LANES)


def columns_of(runs, shape: tuple[int, int]):  # [F S 128] -> [V D]
  """What `runs_of` takes apart, of this shape."""
  rows, columns = shape
  lanes = smooth(-(-rows // LANES))
  tile = TILE if columns // len(runs) % TILE == 0 else 1
  x = runs.reshape(len(runs), -1, lanes, tile, LANES).swapaxes(2, 3)
  return x.reshape(columns, -1)[:, :rows].T


def gather_parameters(params, parts, logical, mesh: jax.sharding.Mesh, plain: bool = False):
  """The parameters that a device computes with, inside `per_device`: each first cast to what its products read, then gathered."""
  params = jax.tree.map(lambda x, known: x if known.dtype == 'float32' else x.astype(known.dtype), params, logical)
  sizes = (mesh.shape['fsdp'],) if plain else rings(mesh)
  with jax.named_scope('gather_parameters'):
    return replace_shared(params, parts, lambda leaves, axes: [gather(x, axis, sizes) for x, axis in zip(leaves, axes)])


def sum_gradients(grads, parts, logical, dtype, mesh: jax.sharding.Mesh, plain: bool = False):
  """Sums gradients over the devices that share out the rows; each device keeps its own part, in float32 again.

  Those of parameters that products read in 16 bits are sent and added up in `dtype`.
  """
  wide = lambda g: jnp.promote_types(g.dtype, jnp.float32)
  widths = jax.tree.map(wide, grads)
  grads = jax.tree.map(lambda g, known: g.astype(wide(g) if known.dtype == 'float32' else dtype), grads, logical)

  def reduce(leaves, axes):
    if plain:
      own = [scatter(x, axis, (mesh.shape['fsdp'],), range(1)) for x, axis in zip(leaves, axes)]
    else:
      # Along the axis tensor the compiler shares out arrays further: each travels as it is.
      own = scatter_all(leaves, axes, rings(mesh), together=mesh.shape['tensor'] == 1 < mesh.shape['fsdp'])
    return [jax.lax.psum(g, 'data') for g in own]

  with jax.named_scope('sum_gradients'):
    grads = replace_shared(grads, parts, reduce, lambda g: jax.lax.psum(g, ROWS))
  return jax.tree.map(lambda g, width: g.astype(width), grads, widths)


def replace_shared(tree, parts, of_shared, of_others=lambda x: x):
  """`tree` with of_shared(leaves, axes) in place of the leaves that fsdp shares out along these axes, and of_others(leaf) of the rest."""
  leaves, structure = jax.tree.flatten(tree)
  axes = {i: part.index('fsdp') for i, part in enumerate(structure.flatten_up_to(parts)) if 'fsdp' in part}
  new = dict(zip(axes, of_shared([leaves[i] for i in axes], list(axes.values())))) if axes else {}
  return structure.unflatten([new[i] if i in new else of_others(x) for i, x in enumerate(leaves)])


def groups(sizes: tuple[int, ...], ring: int) -> list[list[int]] | None:
  """The devices of every ring along one axis of the torus."""
  return np.moveaxis(np.arange(math.prod(sizes)).reshape(sizes), ring, -1).reshape(-1, sizes[ring]).tolist() if len(sizes) > 1 else None


def gather(x, axis: int, sizes: tuple[int, ...]):  # [… D/F …] -> [… D …]
  for ring in reversed(range(len(sizes))):
    x = jax.lax.all_gather(x, 'fsdp', axis=axis, tiled=True, axis_index_groups=groups(sizes, ring))
  return x


def scatter(x, axis: int, sizes: tuple[int, ...], some: Sequence[int]):  # [… D …] -> [… D/F …]
  """Sums `x` over `some` of the rings, of which each device keeps its part of `axis`: ring after ring, each on what the one before left."""
  for ring in some:
    x = jax.lax.psum_scatter(x, 'fsdp', scatter_dimension=axis, tiled=True, axis_index_groups=groups(sizes, ring))
  return x


def scatter_all(arrays, axes: list[int], sizes: tuple[int, ...], together: bool):  # [… D …] each -> [… D/F …] each
  """Each array by itself while its parts are whole tiles; what that leaves, then little, as one array, if `together`."""
  F = math.prod(sizes)
  columns = [i for i, x in enumerate(arrays) if together and x.ndim == 2 and axes[i] == 1]
  rows = [i for i in range(len(arrays)) if i not in columns]
  whole_tiles = lambda count: all(arrays[i].shape[axes[i]] // math.prod(sizes[:count]) % TILE == 0 for i in rows)
  alone = max(count for count in range(len(sizes) + 1) if count == 0 or not together or whole_tiles(count))
  first, others = range(alone), range(alone, len(sizes))
  found = {i: scatter(arrays[i], axes[i], sizes, first) for i in rows}
  if others and rows:
    shares = [split(x, axes[i], math.prod(sizes[alone:])) for i, x in found.items()]
    own = unpack(scatter(pack(shares), 0, sizes, others), [x.shape for x in shares])
    found = {i: join(x, axes[i]) for i, x in zip(rows, own)}
  for i in columns:
    own = scatter(runs_of(arrays[i], F), 0, sizes, range(len(sizes)))
    found[i] = columns_of(own, (len(arrays[i]), arrays[i].shape[1] // F))
  return [found[i] for i in range(len(arrays))]

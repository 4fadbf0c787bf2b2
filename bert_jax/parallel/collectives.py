"""What moves between the devices that share out a batch's rows: once a step, parameters gathered and gradients summed.

The plain way is two lines: `all_gather` each parameter along the axis that fsdp shares out, `psum_scatter` its gradient
along the same axis. TPU's compiler (libtpu 0.0.42) does badly with it, in three ways, each with its answer here:

1. Over several axes of the torus at once it scatters by sending everything everywhere, and gathers by adding up arrays
   that are zero but for one part: up to twice the bytes. So both go ring by ring: a collective for each physical axis,
   over the groups of devices that stand in a line along it (`rings`, `groups`).
2. Parts that are no whole tiles of 8 x 128 it pads, or fills with zeros. So what a later ring would cut below a tile is
   packed with all others into one array of runs of 128 numbers (`pack_runs`), and columns of a table, which are short
   runs of memory, are turned into long ones first (`columns_to_runs`).
3. A large array is cut into pieces that fit the chip's fast memory, by the divisors of its size. A size with few
   divisors is cut badly, or the scatter becomes a sum over all devices. So sizes are rounded up to few leading bits
   (`round_up_to_divisible`).

What it gains: base on v5e:4x4 took 4 ms less of 41 a step when parameters went ring by ring, and 256 chips send 1.99
bytes a parameter and direction instead of 4. `bert-jax plan base --topology v5e:4x4 --batch-per-chip 64`, with and
without `--mesh.plain`, shows it again; docs/performance.md has the table.

F devices of the axis fsdp, D elements of the axis that it shares out, S runs of 128 elements that a device has of all
parameters.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.parallel.mesh import ROW_AXES, position_of

LANES = 128  # elements of a run: TPU's vector
TILE = 8  # rows of a matrix, or runs: what TPU keeps together
LEADING_BITS = 6  # a size of so many leading bits, then zeros, has divisors enough
NOT_SHARED = -1  # in place of an axis


def rings(mesh: jax.sharding.Mesh) -> tuple[int, ...]:
  """The sizes, slowest first, into which the axis fsdp parts along the torus, one for each physical axis.

  16 chips whose coordinates run (0, 0), (0, 1) … (3, 3) are (4, 4): four rings of four along each of two axes.
  """
  line = [position_of(device) for device in mesh.devices[0, :, 0]]
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


def round_up_to_divisible(n: int) -> int:
  """`n` rounded up to LEADING_BITS leading bits, at most a thirty-second more.

  1001 = 0b1111101001 becomes 1008 = 0b1111110000.
  """
  return n + -n % 2**max(n.bit_length() - LEADING_BITS, 0)


def pack_runs(shares):  # [F …] each -> [F S 128]
  """One array whose rows are the devices' shares: runs of 128, in which each parameter begins on a tile.

  Of two devices, a share [2 3 100] takes 3 runs, each of 100 numbers and 28 zeros, and 5 empty ones up to a tile of 8;
  a share [2 1000] takes 8 runs, of which the last ends with 24 zeros: [2 16 128] in all.
  """
  F = len(shares[0])
  runs = [pad_to(pad_to(x, x.ndim - 1, LANES).reshape(F, -1, LANES), 1, TILE) for x in shares]
  size = sum(x.shape[1] for x in runs)
  return jnp.concatenate([*runs, jnp.zeros((F, round_up_to_divisible(size) - size, LANES), runs[0].dtype)], axis=1)


def unpack_runs(packed, shapes: list[tuple[int, ...]]):  # [F S 128], shapes of shares [F …] -> [F …] each
  shares, begin = [], 0
  for shape in shapes:
    padded = (len(packed), *shape[1:-1], shape[-1] + -shape[-1] % LANES)
    runs = math.prod(padded[1:]) // LANES
    shares.append(packed[:, begin:begin + runs].reshape(padded)[..., :shape[-1]])
    begin += runs + -runs % TILE
  return shares


def split_shares(x, axis: int, devices: int):  # [… D …] -> [F … D/F …]
  """The devices' shares of `axis` one after the other."""
  return jnp.moveaxis(x.reshape(*x.shape[:axis], devices, -1, *x.shape[axis + 1:]), axis, 0)


def join_shares(shares, axis: int):  # what `split_shares` takes apart
  shares = jnp.moveaxis(shares, 0, axis)
  return shares.reshape(*shares.shape[:axis], -1, *shares.shape[axis + 2:])


def columns_to_runs(x, devices: int):  # [V D] -> [F S 128]
  """The devices' shares of the columns, which are short runs, turned into long ones, as TPU keeps [D/F V].

  Of a table [3 4] shared out over two devices, the first has the columns 0 and 1, as the runs (x00 x10 x20 0 …)
  (x01 x11 x21 0 …).
  """
  x = pad_to(x.T, 1, LANES)
  lanes = x.shape[1] // LANES
  x = jnp.pad(x, [(0, 0), (0, (round_up_to_divisible(lanes) - lanes) * LANES)])
  tile = TILE if len(x) // devices % TILE == 0 else 1
  return x.reshape(devices, -1, tile, round_up_to_divisible(lanes), LANES).swapaxes(2, 3).reshape(devices, -1, LANES)


def runs_to_columns(runs, shape: tuple[int, int]):  # [F S 128] -> [V D]
  """What `columns_to_runs` takes apart, of this shape."""
  rows, columns = shape
  lanes = round_up_to_divisible(-(-rows // LANES))
  tile = TILE if columns // len(runs) % TILE == 0 else 1
  x = runs.reshape(len(runs), -1, lanes, tile, LANES).swapaxes(2, 3)
  return x.reshape(columns, -1)[:, :rows].T


def sum_over(tree, axes: tuple[str, ...], mesh: jax.sharding.Mesh):
  """The sum over the devices along mesh axes.

  It is `tree` itself where these have one device, for XLA's CPU compiler refuses such a sum.
  """
  axes = tuple(axis for axis in axes if mesh.shape[axis] > 1)
  return jax.lax.psum(tree, axes) if axes else tree


def sum_over_rows(tree, mesh: jax.sharding.Mesh):
  """The sum over all devices that share out the rows."""
  return sum_over(tree, ROW_AXES, mesh)


def gather_parameters(params, parts, logical, mesh: jax.sharding.Mesh, plain: bool = False):
  """The parameters that a device computes with, inside `per_device`: cast to what its products read, then gathered."""
  params = jax.tree.map(lambda x, known: x if known.dtype == 'float32' else x.astype(known.dtype), params, logical)
  sizes = (mesh.shape['fsdp'],) if plain else rings(mesh)
  with jax.named_scope('gather_parameters'):
    return replace_shared(params, parts, lambda leaves, axes: [gather(x, axis, sizes) for x, axis in zip(leaves, axes)])


def sum_gradients(grads, parts, logical, dtype, mesh: jax.sharding.Mesh, plain: bool = False):
  """Sums gradients over the devices that share out the rows; each device keeps its own part, in float32 again.

  Those of parameters that products read in 16 bits are sent and added up in `dtype`.
  """
  if mesh.devices.flat[0].platform == 'cpu':
    dtype = 'float32'  # XLA's CPU compiler (jaxlib 0.10) aborts on a sum of 16 bits where some mesh axes are not manual
  wide = lambda g: jnp.promote_types(g.dtype, jnp.float32)
  widths = jax.tree.map(wide, grads)
  narrow = lambda known: jnp.dtype(known.dtype).itemsize == 2
  grads = jax.tree.map(lambda g, known: g.astype(dtype if narrow(known) else wide(g)), grads, logical)

  def reduce(leaves, axes):
    if plain:
      own = [scatter(x, axis, (mesh.shape['fsdp'],), range(1)) for x, axis in zip(leaves, axes)]
    else:
      # Along the axis tensor the compiler shares out arrays further: each travels as it is.
      own = scatter_all(leaves, axes, rings(mesh), together=mesh.shape['tensor'] == 1 < mesh.shape['fsdp'])
    return [sum_over(g, ('data',), mesh) for g in own]

  with jax.named_scope('sum_gradients'):
    grads = replace_shared(grads, parts, reduce, lambda g: sum_over_rows(g, mesh))
  return jax.tree.map(lambda g, width: g.astype(width), grads, widths)


def replace_shared(tree, parts, of_shared, of_others=lambda x: x):
  """`tree` with of_shared(leaves, axes) in place of the leaves that fsdp shares out along these axes.

  The rest becomes of_others(leaf).
  """
  leaves, structure = jax.tree.flatten(tree)
  axis_of = lambda leaf, part: part.index('fsdp') if 'fsdp' in part else NOT_SHARED
  axes = {i: axis for i, axis in enumerate(jax.tree.leaves(jax.tree.map(axis_of, tree, parts))) if axis != NOT_SHARED}
  new = dict(zip(axes, of_shared([leaves[i] for i in axes], list(axes.values())))) if axes else {}
  return jax.tree.unflatten(structure, [new[i] if i in new else of_others(x) for i, x in enumerate(leaves)])


def groups(sizes: tuple[int, ...], ring: int) -> list[list[int]] | None:
  """The devices of every ring along one axis of the torus: of sizes (2, 3) along the second [[0, 1, 2], [3, 4, 5]]."""
  if len(sizes) == 1:
    return None
  return np.moveaxis(np.arange(math.prod(sizes)).reshape(sizes), ring, -1).reshape(-1, sizes[ring]).tolist()


def gather(x, axis: int, sizes: tuple[int, ...]):  # [… D/F …] -> [… D …]
  for ring in reversed(range(len(sizes))):
    x = jax.lax.all_gather(x, 'fsdp', axis=axis, tiled=True, axis_index_groups=groups(sizes, ring))
  return x


def scatter(x, axis: int, sizes: tuple[int, ...], some: Sequence[int]):  # [… D …] -> [… D/F …]
  """Sums `x` over `some` of the rings, of which each device keeps its part of `axis`.

  It goes ring after ring, each on what the one before left.
  """
  for ring in some:
    x = jax.lax.psum_scatter(x, 'fsdp', scatter_dimension=axis, tiled=True, axis_index_groups=groups(sizes, ring))
  return x


def scatter_all(arrays, axes: list[int], sizes: tuple[int, ...], together: bool):  # [… D …] each -> [… D/F …] each
  """Sums each array over all devices, of which each keeps its part of the axis.

  Each goes by itself through the rings as long as its parts are whole tiles. What that leaves is little, and goes
  through the other rings as one packed array if `together`. Tables whose columns are shared out go as runs.
  """
  F = math.prod(sizes)
  columns = [i for i, x in enumerate(arrays) if together and x.ndim == 2 and axes[i] == 1]
  rows = [i for i in range(len(arrays)) if i not in columns]
  whole_tiles = lambda count: all(arrays[i].shape[axes[i]] // math.prod(sizes[:count]) % TILE == 0 for i in rows)
  by_itself = max(count for count in range(len(sizes) + 1) if count == 0 or not together or whole_tiles(count))
  first, others = range(by_itself), range(by_itself, len(sizes))
  found = {i: scatter(arrays[i], axes[i], sizes, first) for i in rows}
  if others and rows:
    shares = [split_shares(x, axes[i], math.prod(sizes[by_itself:])) for i, x in found.items()]
    own = unpack_runs(scatter(pack_runs(shares), 0, sizes, others), [x.shape for x in shares])
    found = {i: join_shares(x, axes[i]) for i, x in zip(rows, own)}
  for i in columns:
    own = scatter(columns_to_runs(arrays[i], F), 0, sizes, range(len(sizes)))
    found[i] = runs_to_columns(own, (len(arrays[i]), arrays[i].shape[1] // F))
  return [found[i] for i in range(len(arrays))]

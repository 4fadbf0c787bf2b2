"""The device mesh and the one table from logical axes to mesh axes: the only file that knows the layout.

Over the axes data and fsdp every device runs the program on its own rows (jax.shard_map), with whole parameters
(collectives.py). The axis tensor is the compiler's, guided by `constrain`.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Container, Mapping
from typing import Annotated, Any, Literal, Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P

from bert_jax.errors import require
from bert_jax.fields import require_fields
from input_pipeline.batches.layout import fill_up
from input_pipeline.ranges import Within

AXES = ('data', 'fsdp', 'tensor')
ROW_AXES = ('data', 'fsdp')  # the axes over which a batch's rows are shared out

# Which mesh axes carry each logical axis of a parameter or an activation; one that is not named here is not shared out.
RULES: dict[str | None, str | tuple[str, ...]] = {
    'batch': ROW_AXES,
    'embed': 'fsdp',
    'heads': 'tensor',
    'mlp': 'tensor',
}


@dataclasses.dataclass(frozen=True)
class Logical:
  """What is said of a parameter where it is made (model/layers.py `parameter`)."""
  axes: tuple[str | None, ...]  # for each of its axes: a key of RULES, 'layers' of a stack, or None (not shared out)
  dtype: str = 'float32'  # what products read it in, and devices send it in

  def __post_init__(self):
    strange = [axis for axis in self.axes if axis is not None and axis not in RULES and axis != 'layers']
    if strange:
      known = ', '.join(filter(None, RULES))
      raise ValueError(f'there is no logical axis {strange[0]!r}: wanted None or one of {known}, layers')

  @property
  def stacked(self) -> bool:
    """Whether it is a stack of layers [L ...]."""
    return self.axes[:1] == ('layers',)


Devices = Annotated[int, Within(-1, 10**6)]


@dataclasses.dataclass(frozen=True)
class MeshShape:
  """How many devices along each axis; -1: all that are left. Where none is given (`--mesh auto`) all three are chosen.

  Chosen is fsdp inside a slice of a pod, data over slices, and tensor where the batch has fewer rows than there are
  devices. Rows need not divide: empty ones fill them up, which count for nothing.
  """
  data: Devices = 0
  """Data parallel: each device holds all parameters and a share of the batch. 0, where another is given: all that are
  left."""
  fsdp: Devices = 0
  """Data parallel too, but parameters and optimizer state are shared out; each step gathers the parameters once, in
  model.dtype."""
  tensor: Devices = 0
  """Tensor parallel: heads and feed-forward columns are shared out."""
  reduce: Literal['compute', 'float32'] = 'compute'
  """What gradients of matrices are sent and added up in between devices: model.dtype, or float32 at twice the bytes."""
  plain: bool = False
  """Leave it to the compiler how arrays are gathered and added up, to measure what ring by ring gains
  (docs/performance.md)."""

  def __post_init__(self):
    require_fields(self, 'mesh.')

  def reduction(self, compute: str) -> str:
    """The dtype in which gradients are added up, for a model that computes in `compute`."""
    return compute if self.reduce == 'compute' else self.reduce


class Divided(Protocol):
  """What the axes tensor and fsdp divide of a model (model/settings.py Model has it)."""
  @property
  def heads(self) -> int: ...
  @property
  def intermediate_size(self) -> int: ...
  @property
  def hidden_size(self) -> int: ...


def path_name(path) -> str:
  """'blocks/query/kernel' for a key path of jax.tree_util."""
  return '/'.join(str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key)))) for key in path)


def position_of(device) -> tuple:
  """Where a device stands: (slice, process or 0, coordinates on its torus from the slowest, core).

  On no torus its number stands for the coordinates.
  """
  coords = getattr(device, 'coords', None)
  where = (*reversed(coords), getattr(device, 'core_on_chip', 0)) if coords is not None else (device.id,)
  return (getattr(device, 'slice_index', 0) or 0, device.process_index if coords is None else 0, *where)


def make_mesh(shape: MeshShape, devices=None, *, model: Divided | None = None,
              rows: int | None = None) -> jax.sharding.Mesh:
  """The mesh of `shape` over all devices, neighbours side by side and slices outermost.

  `model` and `rows` (of a batch) are what a mesh of which nothing is given is chosen by. Raises ConfigError where the
  shape does not divide the devices.
  """
  devices = sorted(jax.devices() if devices is None else devices, key=position_of)
  slices = len({position_of(device)[0] for device in devices})
  sizes = [shape.data, shape.fsdp, shape.tensor]
  if not any(sizes) and model is not None and rows is not None:
    sizes = choose_sizes(len(devices), slices, model, rows)
  sizes = [size or (1 if axis or -1 in sizes else -1) for axis, size in enumerate(sizes)]
  flags = ', '.join(f'mesh.{axis} {size}' for axis, size in zip(AXES, sizes))
  require(all(size >= 1 or size == -1 for size in sizes) and sizes.count(-1) <= 1,
              f'{flags}: wanted at least 1 each, or -1 for one of them')
  fixed = math.prod(size for size in sizes if size != -1)
  if -1 in sizes:
    require(len(devices) % fixed == 0, f'{flags} do not divide the {len(devices)} devices here: {fixed} is no divisor')
    sizes[sizes.index(-1)] = len(devices) // fixed
  require(math.prod(sizes) == len(devices),
              f'{flags} make {math.prod(sizes)} devices, but there are {len(devices)}: set one of them to -1 to use '
              'what is left')
  require(sizes[0] % slices == 0, f'mesh.data is {sizes[0]} on {slices} slices: wanted a multiple, so that only data '
              'parallel gradients cross between slices; set --mesh.data')
  return jax.sharding.Mesh(np.array(devices).reshape(sizes), AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3)


def choose_sizes(devices: int, slices: int, model: Divided, rows: int) -> list[int]:
  """Axis sizes where none was given: fsdp inside a slice, which sends no more than data and keeps less.

  All devices share out the rows, whether these divide or not. Where there are fewer rows than devices, tensor is more
  than 1 if heads and columns divide then; else some devices have no row.
  """
  within = devices // slices
  divides = lambda shards: (rows % (shards * slices) == 0 and model.heads % (within // shards) == 0
                            and model.intermediate_size % (within // shards) == 0)
  fewer = [n for n in range(1, within + 1) if within % n == 0 and divides(n)] if rows < devices else []
  shards = max(fewer, default=within)
  fsdp = max(n for n in range(1, shards + 1) if shards % n == 0 and model.hidden_size % n == 0)
  return [slices * shards // fsdp, fsdp, within // shards]


def spec(*axes: str | None) -> P:
  """The mesh axes of logical `axes`."""
  return P(*(RULES.get(axis) for axis in axes))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """`x`, inside `per_device`, laid out over the axis tensor by its logical `axes`; unchanged where there is no mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  return x if mesh.empty else jax.lax.with_sharding_constraint(x, spec(*axes))


def per_device(f: Callable, mesh: jax.sharding.Mesh, in_specs, out_specs) -> Callable:
  """`f` run by each device on its part of what data and fsdp share out; the axis tensor stays the compiler's."""
  return jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names=set(ROW_AXES), check_vma=False)


def per_head_group(f: Callable, heads: int) -> Callable:
  """`f(first_head, *arrays)` run on each device's own heads.

  The first `heads` arrays are [B T H K], as is the result.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return functools.partial(f, 0)
  own = P(None, None, RULES['heads'])

  def local(*arrays):
    return f(jax.lax.axis_index(RULES['heads']) * arrays[0].shape[2], *arrays)

  def run(*arrays):
    specs = (own,) * heads + (P(),) * (len(arrays) - heads)
    return jax.shard_map(local, in_specs=specs, out_specs=own, axis_names={RULES['heads']}, check_vma=False)(*arrays)

  return run


def parameter_spec(logical: Logical, shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> P:
  """The layout of one parameter, and of what has its shape.

  An axis that the mesh does not divide is not shared out: small parameters are not worth an error.
  """
  entries = [RULES.get(axis) for axis in logical.axes]
  entries = [entry if entry and size % mesh.shape[entry] == 0 else None for entry, size in zip(entries, shape)]
  if mesh.shape['tensor'] == 1 and entries[-1:] == ['fsdp'] and len(shape) > 1 and shape[-2] % mesh.shape['fsdp'] == 0:
    entries[-2:] = ['fsdp', None]  # whole rows travel better than parts of all rows
  return P(*entries)


def statistic_spec(logical: Logical, parameter: tuple[int, ...], shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> P:
  """The layout of what an optimizer keeps of a parameter of the shape `parameter`.

  A moment lies as its parameter does. A factored statistic has some of the parameter's axes: it lies along those, if
  its shape tells which; else each device has all of it.
  """
  if shape == parameter:
    return parameter_spec(logical, shape, mesh)
  kept = [axes for axes in itertools.combinations(range(len(parameter)), len(shape))
          if tuple(parameter[axis] for axis in axes) == shape]
  if len(kept) != 1:
    return P()
  return parameter_spec(Logical(tuple(logical.axes[axis] for axis in kept[0]), logical.dtype), shape, mesh)


def parameter_specs(params, logical, mesh: jax.sharding.Mesh):
  """The layout of every parameter. `logical`: the tree of Logical that is congruent to `params`."""
  return jax.tree.map(lambda leaf, known: parameter_spec(known, leaf.shape, mesh), params, logical)


def parameter_of(path, names: Container[str]) -> str | None:
  """The parameter, one of `names`, as whose a path into an optimizer's state ends; None: it is of none."""
  parts = path_name(path).split('/')
  ends = ('/'.join(parts[begin:]) for begin in range(len(parts)))  # the longest first
  return next((end for end in ends if end in names), None)


def optimizer_specs(opt_state, params, logical, mesh: jax.sharding.Mesh):
  """The layout of every leaf of an optimizer's state: a path that ends as a parameter's is of that parameter."""
  known = {path_name(path): (leaf.shape, spec) for (path, leaf), spec in
           zip(jax.tree.leaves_with_path(params), jax.tree.leaves(logical))}

  def of(path, leaf):
    name = parameter_of(path, known)
    found = known[name] if name is not None else None
    return P() if found is None else statistic_spec(found[1], found[0], leaf.shape, mesh)

  return jax.tree.map_with_path(of, opt_state)


def fsdp_parts(params, logical, mesh: jax.sharding.Mesh):
  """For `per_device`: how each parameter is shared out over fsdp."""
  own = lambda spec: P(*(axis if axis in ROW_AXES else None for axis in spec))
  return jax.tree.map(own, parameter_specs(params, logical, mesh), is_leaf=lambda leaf: isinstance(leaf, P))


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
  return NamedSharding(mesh, spec('batch'))


def row_shards(mesh: jax.sharding.Mesh) -> int:
  """Over how many devices, or groups of them, the rows of a batch are shared out."""
  return mesh.shape['data'] * mesh.shape['fsdp']


def in_microbatches(rows: int, most: int) -> tuple[int, int]:
  """(how many microbatches, rows of each): those of a device in `most` at most, all equal, filled up by empty rows.

  10 rows in 4 are (4, 3), and in 6 (5, 2): a sixth would be empty.
  """
  each = -(-rows // most)
  return -(-rows // each), each


def rows_of_device(size: int, mesh: jax.sharding.Mesh, microbatches: int = 1) -> int:
  """Of a batch of `size` rows, the empty ones counted that give equally many to all devices and microbatches."""
  return math.prod(in_microbatches(-(-size // row_shards(mesh)), microbatches))


def may_be_cut(size: int, mesh: jax.sharding.Mesh, microbatches: int) -> bool:
  """Whether a batch of `size` rows can be cut in so many, and is not filled up for it where devices divide it."""
  share, left = divmod(size, row_shards(mesh))
  return size % microbatches == 0 and (left > 0 or share % microbatches == 0)


def check_model(model: Divided, mesh: jax.sharding.Mesh) -> None:
  """Raises ConfigError where the tensor axis would cut a head in two, or share out the feed-forward layer unevenly."""
  for name in ('heads', 'intermediate_size'):
    require(getattr(model, name) % mesh.shape['tensor'] == 0,
                f'model.{name} {getattr(model, name)} does not divide over mesh.tensor {mesh.shape["tensor"]}: '
                'lower --mesh.tensor')


def process_slice(mesh: jax.sharding.Mesh) -> tuple[int, int]:
  """(index, count): which of how many equal runs of a batch's rows this process feeds.

  Processes that share rows, because the tensor axis runs across them, get the same index.
  """
  owners = np.vectorize(lambda device: device.process_index)(mesh.devices).reshape(-1, mesh.shape['tensor'])
  rows_of = lambda process: tuple(np.flatnonzero((owners == process).any(axis=1)).tolist())
  shares = {process: rows_of(process) for process in np.unique(owners).tolist()}
  distinct = sorted(set(shares.values()))
  require(len({len(share) for share in distinct}) == 1 and len(set().union(*distinct)) == sum(map(len, distinct)),
              f'mesh.data {mesh.shape["data"]} x mesh.fsdp {mesh.shape["fsdp"]} x mesh.tensor {mesh.shape["tensor"]} '
              'gives the processes overlapping shares of the rows: make mesh.tensor a divisor of the devices of a '
              'process, or a multiple')
  return distinct.index(shares[jax.process_index()]), len(distinct)


def put_batch(batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh, microbatches: int = 1) -> dict[str, jax.Array]:
  """The rows of this process as its part of the global batch on the devices. [rows ...] -> [B ...]

  Empty rows fill up what devices and microbatches do not divide. Adds `row_numbers`, the number of each row in the
  batch as it was read, since on a torus the devices of a process do not stand in line; empty ones come last.
  """
  sharding, (index, count) = batch_sharding(mesh), process_slice(mesh)
  rows = len(next(iter(batch.values())))
  each = rows_of_device(rows * count, mesh, microbatches)
  size = each * row_shards(mesh)
  indices: Mapping[Any, Any] = sharding.addressable_devices_indices_map((size,))
  first = {device: at[0].indices(size)[0] for device, at in indices.items()}
  begins = sorted(set(first.values()))

  def put(x):
    parts = [jax.device_put(fill_up(x[begins.index(begin) * each:][:each], each), device)
             for device, begin in first.items()]
    return jax.make_array_from_single_device_arrays((size, *x.shape[1:]), sharding, parts)

  empty = each * len(begins) - rows
  numbers = [index * rows + np.arange(rows), count * rows + index * empty + np.arange(empty)]
  return {name: put(x) for name, x in {**batch, 'row_numbers': np.concatenate(numbers).astype(np.uint32)}.items()}

"""A function of JAX in the operators of ONNX: the equations of its jaxpr, each by one operator or a few.

What depends on parameters only is computed here and now, and loops are unrolled.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.extend import core

from bert_jax.convert.onnx_graph import END, Graph, Size, Tensor, Value, shape_of, together
from bert_jax.errors import require

Primitive = Callable[..., Value]  # (graph, equation, values …) -> value, or a list of them


def elementwise(op: str) -> Primitive:
  return lambda graph, eqn, *xs: graph.call(op, *xs, shape=together(*xs))


def same(graph, eqn, x):
  return x


def square(graph, eqn, x):
  return graph.call('Mul', x, x, shape=shape_of(x))


def integer_pow(graph, eqn, x):
  y = eqn.params['y']
  if y == 3:  # of gelu
    return graph.call('Mul', x, square(graph, eqn, x), shape=shape_of(x))
  return graph.call('Pow', x, np.asarray(y, eqn.outvars[0].aval.dtype), shape=shape_of(x))


def rsqrt(graph, eqn, x):
  return graph.call('Reciprocal', graph.call('Sqrt', x, shape=shape_of(x)), shape=shape_of(x))


def select(graph, eqn, which, *cases):
  require(len(cases) == 2, f'ONNX: a choice of {len(cases)} values: wanted 2')
  return graph.call('Where', which, *reversed(cases), shape=together(which, *cases))


def cast(graph, eqn, x):
  return graph.cast(x, eqn.outvars[0].aval.dtype)


def broadcast(graph, eqn, x, *sizes):
  whole, places = eqn.params['shape'], eqn.params['broadcast_dimensions']
  shape: list[Size] = [1] * len(whole)
  for place, size in zip(places, shape_of(x)):
    shape[place] = size
  if not isinstance(x, Tensor):
    x = view(graph, x, shape)
    return np.broadcast_to(x, whole) if is_known(whole) and whole != np.shape(x) else x
  added = [axis for axis in range(len(whole)) if axis not in places]
  return graph.call('Unsqueeze', x, np.array(added, np.int64), shape=shape) if added else x


def view(graph: Graph, x: np.ndarray, shape: Sequence[Size]) -> np.ndarray:
  return x if np.shape(x) == tuple(shape) else graph.part_of(x, np.reshape(x, shape), 'x'.join(map(str, shape)))


def transpose(graph, eqn, x):
  order = eqn.params['permutation']
  return graph.call('Transpose', x, shape=[shape_of(x)[axis] for axis in order], perm=order)


def reshape(graph, eqn, x, *sizes):
  shape = eqn.outvars[0].aval.shape
  if not isinstance(x, Tensor) and is_known(shape):
    return view(graph, x, shape)
  return graph.reshape(graph.whole(x, eqn.invars[0].aval.shape), shape)


def reduce(op: str) -> Primitive:
  def call(graph, eqn, x):
    x, axes = graph.whole(x, eqn.invars[0].aval.shape), list(eqn.params['axes'])
    given = ([np.array(axes, np.int64)], {}) if op == 'ReduceSum' else ([], {'axes': axes})  # of this opset
    return graph.call(op, x, *given[0], shape=eqn.outvars[0].aval.shape, keepdims=0, **given[1])
  return call


def iota(graph, eqn, *sizes):
  shape, axis, dtype = eqn.params['shape'], eqn.params['dimension'], eqn.params['dtype']
  scalar = graph.reshape(graph.sizes([shape[axis]]), ())
  line = graph.call('Range', np.int64(0), scalar, np.int64(1), shape=[shape[axis]])
  line = graph.cast(line, dtype)
  after = len(shape) - axis - 1
  if not after:
    return line
  axes = np.arange(1, after + 1, dtype=np.int64)
  return graph.call('Unsqueeze', line, axes, shape=[shape[axis]] + [1] * after)


def dim_as_value(graph, eqn):
  return cast(graph, eqn, graph.reshape(graph.sizes([eqn.params['dim']]), ()))


def concatenate(graph, eqn, *xs):
  xs = [graph.whole(x, var.aval.shape) for x, var in zip(xs, eqn.invars)]
  return graph.call('Concat', *xs, shape=eqn.outvars[0].aval.shape, axis=eqn.params['dimension'])


def cut(graph, eqn, x):
  """lax.slice"""
  p, shape = eqn.params, eqn.invars[0].aval.shape
  ends = [END if end == size else end for end, size in zip(p['limit_indices'], shape)]
  require(all(isinstance(number, int) for number in ends), f'ONNX: a part that ends at {p["limit_indices"]}')
  return graph.part(graph.whole(x, shape), range(len(shape)), p['start_indices'], ends, eqn.outvars[0].aval.shape,
                    p['strides'])


def squeeze(graph, eqn, x):
  axes = eqn.params['dimensions']
  shape = [size for axis, size in enumerate(shape_of(x)) if axis not in axes]
  return graph.call('Squeeze', x, np.array(axes, np.int64), shape=shape)


def product(graph, eqn, x, y):
  """lax.dot_general, by MatMul where that can do it."""
  (xs, ys), (xbs, ybs) = eqn.params['dimension_numbers']
  x, y = (graph.whole(value, var.aval.shape) for value, var in zip((x, y), eqn.invars))
  free = [[axis for axis in range(len(shape_of(value))) if axis not in (*contracted, *batch)]
          for value, contracted, batch in ((x, xs, xbs), (y, ys, ybs))]
  shape = eqn.outvars[0].aval.shape
  if len(xs) == 1 and len(free[1]) == 1 and (len(free[0]) == 1 or free[0] and not xbs):
    orders = [*xbs, *free[0], *xs], [*ybs, *ys, *free[1]]
    x, y = (value if order == sorted(order) else graph.call('Transpose', value, perm=order,
                                                            shape=[shape_of(value)[axis] for axis in order])
            for value, order in zip((x, y), orders))
    return graph.call('MatMul', x, y, shape=shape)
  letters = [[''] * len(shape_of(value)) for value in (x, y)]
  alphabet = iter('abcdefghijklmnopqrstuvwxyz')
  for a, b in zip((*xbs, *xs), (*ybs, *ys)):
    letters[0][a] = letters[1][b] = next(alphabet)
  for side, axes in enumerate(free):
    for axis in axes:
      letters[side][axis] = next(alphabet)
  result = [letters[0][axis] for axis in (*xbs, *free[0])] + [letters[1][axis] for axis in free[1]]
  equation = ','.join(map(''.join, letters)) + '->' + ''.join(result)
  return graph.call('Einsum', x, y, shape=shape, equation=equation)


def gather(graph, eqn, x, ids):
  """lax.gather of whole vectors by one number each; a row's own vectors where axes are shared by rows."""
  d, shape, out = eqn.params['dimension_numbers'], eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
  x = graph.whole(x, shape)
  if not isinstance(ids, Tensor) and ids.ndim == 1:  # x[:, 0], x[:, 2:4]
    sizes = eqn.params['slice_sizes']
    starts = dict.fromkeys(range(len(shape)), 0) | dict(zip(d.start_index_map, ids.tolist()))
    ends = [END if starts[i] + size == shape[i] else starts[i] + size for i, size in enumerate(sizes)]
    require(is_known(ends), f'ONNX: a part of {shape} of the size {sizes}')
    cut_at = [i for i, size in enumerate(sizes) if size != shape[i]]
    found = graph.part(x, cut_at, [starts[i] for i in cut_at], [ends[i] for i in cut_at], sizes) if cut_at else x
    axes = np.array(d.collapsed_slice_dims, np.int64)
    return graph.call('Squeeze', found, axes, shape=out) if axes.size else found
  batch, (axis, *others) = list(d.operand_batching_dims), d.start_index_map
  sizes = [1 if i == axis or i in batch else size for i, size in enumerate(shape)]
  ids_shape = eqn.invars[1].aval.shape
  first = batch == list(d.start_indices_batching_dims) == list(range(len(batch))) and (axis == len(batch) or not batch)
  require(not others and d.collapsed_slice_dims == (axis,) and list(eqn.params['slice_sizes']) == sizes and first,
          f'ONNX: a gather of another kind, {d}')
  ids = graph.whole(ids, ids_shape)
  if batch:
    return graph.call('GatherND', x, graph.cast(ids, np.int64), shape=out, batch_dims=len(batch))
  ids = graph.call('Squeeze', ids, np.array([-1]), shape=ids_shape[:-1])
  rank = len(ids_shape) - 1
  found = graph.call('Gather', x, ids, axis=axis, shape=(*shape[:axis], *ids_shape[:-1], *shape[axis + 1:]))
  own = iter(range(axis, axis + rank))  # the axes of ids, which JAX wants where offset_dims are not
  vectors = iter([i for i in range(len(out)) if not axis <= i < axis + rank])
  order = [next(vectors) if i in d.offset_dims else next(own) for i in range(len(out))]
  return found if order == sorted(order) else graph.call('Transpose', found, perm=order, shape=out)


# ---------------------------------------------------------------- primitives that have others inside


def platform(graph, eqn):
  """The number of the branch that is for a CPU."""
  return np.int32(next(i for i, names in enumerate(eqn.params['platforms']) if names is None or 'cpu' in names))


def cond(graph, eqn, which, *values):
  require(not isinstance(which, Tensor), 'ONNX: a branch that depends on the input')
  return run(graph, eqn.params['branches'][int(which)], values)


def scan(graph, eqn, *values):
  """A loop, unrolled."""
  p = eqn.params
  # jax 0.12 has trees of what goes in, (constants, carry, xs), where there were numbers.
  many, kept = map(len, p['ft_in'].unpack()[:2]) if 'ft_in' in p else (p['num_consts'], p['num_carry'])
  constants, carry, xs = values[:many], values[many:many + kept], values[many + kept:]
  require(not any(isinstance(x, Tensor) for x in xs), 'ONNX: a loop over what depends on the input')
  require(kept == len(eqn.outvars), 'ONNX: a loop that keeps what each turn gives')
  for i in range(p['length'])[::-1 if p['reverse'] else 1]:
    carry = run(graph, p['jaxpr'], [*constants, *carry, *(graph.part_of(x, x[i], i) for x in xs)])
  return carry


PRIMITIVES: dict[str, Primitive] = {
    **{name: elementwise(op) for name, op in {
        'abs': 'Abs', 'add': 'Add', 'add_any': 'Add', 'and': 'And', 'div': 'Div', 'eq': 'Equal', 'erf': 'Erf',
        'exp': 'Exp', 'ge': 'GreaterOrEqual', 'gt': 'Greater', 'le': 'LessOrEqual', 'log': 'Log',
        'logistic': 'Sigmoid', 'lt': 'Less', 'max': 'Max', 'min': 'Min', 'mul': 'Mul', 'neg': 'Neg', 'not': 'Not',
        'or': 'Or', 'pow': 'Pow', 'sqrt': 'Sqrt', 'sub': 'Sub', 'tanh': 'Tanh'}.items()},
    'copy': same, 'name': same, 'stop_gradient': same, 'square': square, 'integer_pow': integer_pow, 'rsqrt': rsqrt,
    'select_n': select, 'convert_element_type': cast, 'broadcast_in_dim': broadcast, 'transpose': transpose,
    'reshape': reshape, 'reduce_sum': reduce('ReduceSum'), 'reduce_max': reduce('ReduceMax'),
    'reduce_min': reduce('ReduceMin'), 'iota': iota, 'dim_as_value': dim_as_value, 'concatenate': concatenate,
    'slice': cut, 'squeeze': squeeze, 'dot_general': product, 'gather': gather, 'platform_index': platform,
    'cond': cond, 'scan': scan}


# Of these the handlers above know what to do with arrays that are known.
OWN = 'broadcast_in_dim', 'cond', 'copy', 'dim_as_value', 'name', 'platform_index', 'reshape', 'scan', 'stop_gradient'


def run(graph: Graph, jaxpr, values: Sequence[Value]) -> list[Value]:
  """The values that a jaxpr gives. Raises ConfigError, by its name, for a primitive that has no operators here."""
  inner = getattr(jaxpr, 'jaxpr', jaxpr)
  known = dict(zip((*inner.constvars, *inner.invars), (*map(array_of, getattr(jaxpr, 'consts', ())), *values)))
  value_of = lambda var: var.val if isinstance(var, core.Literal) else known[var]
  for eqn in inner.eqns:
    inputs = [value_of(var) for var in eqn.invars]
    name, inside = eqn.primitive.name, eqn.params.get('jaxpr', eqn.params.get('call_jaxpr'))
    if name in PRIMITIVES and (name in OWN or not is_fixed(eqn, inputs)):
      found = PRIMITIVES[name](graph, eqn, *inputs)
    elif inside is not None:
      found = run(graph, inside, inputs)
    else:
      require(is_fixed(eqn, inputs), f'ONNX: the model computes {name}, which has no operators in {__name__}')
      found = eqn.primitive.bind(*inputs, **eqn.params)
      found = [array_of(x) for x in found] if eqn.primitive.multiple_results else array_of(found)
    known |= zip(eqn.outvars, found if isinstance(found, list) else [found])
  return [value_of(var) for var in inner.outvars]


def is_fixed(eqn, inputs: Sequence[Value]) -> bool:
  """Whether nothing of an equation depends on the input, nor on its size."""
  return (not any(isinstance(x, Tensor) for x in inputs)
          and all(is_known(getattr(var.aval, 'shape', ())) for var in (*eqn.invars, *eqn.outvars)))


def is_known(shape: Sequence[Size]) -> bool:
  return all(isinstance(size, int) for size in shape)


def array_of(x):
  """Of NumPy, where it has the type."""
  return x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended) else np.asarray(x)

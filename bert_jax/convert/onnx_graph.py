"""A model of ONNX as it is put together: nodes, parameters by their names, and sizes that are known only as it runs.

A dimension may be a symbol of jax.export: its size is measured on a tensor that has it. What nothing reads is left out.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bert_jax.errors import require

OPSET, IR_VERSION = 17, 8  # of 2022: onnxruntime 1.13 and what came after know them
LARGEST = 1_900_000_000  # bytes of parameters inside the model's own file: protobuf ends at 2 GiB
MODEL, DATA = 'model.onnx', 'model.onnx_data'  # the files; the second has the parameters of a larger model
SMALL = 1024  # bytes: what has fewer is in the model always, for a runtime wants to see axes and sizes as it reads that
PAGE = 4096  # bytes: the others begin at its multiples, so that they can be mapped

END = np.iinfo(np.int64).max  # of a part that ends where the whole does
Size = Any  # an int, or a symbol of jax.export


@dataclasses.dataclass(frozen=True)
class Tensor:
  """What the model computes."""
  name: str
  shape: tuple[Size, ...]  # 1 where the model does not repeat what JAX has repeated: most operators do so by themselves


Value = Any  # a Tensor, or an array that is known here: of NumPy, or of JAX where it is of a type that NumPy lacks


class Graph:
  """Nodes and parameters, as they come."""

  def __init__(self, parameters: Mapping[str, np.ndarray]):
    self.nodes: list[Any] = []
    self.arrays: dict[str, np.ndarray] = {}  # those that a node reads
    self.names: dict[Any, str] = {id(array): name for name, array in parameters.items()}
    self.kept: list[Any] = list(parameters.values())  # so that no other array gets the id of one
    self.measured: dict[Size, tuple[str, int]] = {}  # a symbol -> the first tensor and its axis that has this size
    self.sizes_of: dict[Any, Tensor] = {}  # what was measured

  def call(self, op: str, *inputs: Value, shape: Sequence[Size], **attributes) -> Tensor:
    """The output of a new node; it has this shape."""
    from onnx import helper
    name = f'{op}_{len(self.nodes)}'
    self.nodes.append(helper.make_node(op, [self.name(x) for x in inputs], [name], name, **attributes))
    return self.tensor(name, shape)

  def tensor(self, name: str, shape: Sequence[Size]) -> Tensor:
    for axis, size in enumerate(shape):
      if not isinstance(size, int):
        self.measured.setdefault(size, (name, axis))
    return Tensor(name, tuple(shape))

  def name(self, value: Value) -> str:
    if isinstance(value, Tensor):
      return value.name
    value = np.asarray(value)
    key = id(value) if id(value) in self.names or value.size > 8 else (value.dtype, value.shape, value.tobytes())
    name = self.names.setdefault(key, f'constant_{len(self.names)}')
    self.kept.append(value)
    self.arrays[name] = value
    return name

  def part_of(self, x: np.ndarray, part: np.ndarray, place: object) -> np.ndarray:
    """`part`, which is made of x only: a parameter keeps its name, with `place` after it."""
    if id(x) in self.names:
      self.names[id(part)] = f'{self.names[id(x)]}/{place}'
      self.kept.append(part)
    return part

  def sizes(self, shape: Sequence[Size]) -> Value:
    """A shape as a tensor of int64. Raises ConfigError for a size that no tensor has."""
    if all(isinstance(size, int) for size in shape):
      return np.array(shape, np.int64)
    key = tuple(shape)
    if key not in self.sizes_of:
      if len(shape) > 1:
        self.sizes_of[key] = self.call('Concat', *(self.sizes([size]) for size in shape), shape=(len(shape),), axis=0)
      else:
        require(shape[0] in self.measured, f'ONNX: no tensor of the model has the size {shape[0]}')
        name, axis = self.measured[shape[0]]
        self.sizes_of[key] = self.call('Shape', Tensor(name, ()), shape=(1,), start=axis, end=axis + 1)
    return self.sizes_of[key]

  def reshape(self, x: Value, shape: Sequence[Size]) -> Tensor:
    """x, whole, in another shape."""
    symbols = [size for size in shape if not isinstance(size, int)]
    unknown = symbols[:1] if len(symbols) == 1 else [size for size in symbols if size not in self.measured][:1]
    return self.call('Reshape', x, self.sizes([-1 if size in unknown else size for size in shape]), shape=shape)

  def whole(self, x: Value, shape: Sequence[Size]) -> Value:
    """x with all that JAX has repeated."""
    return x if shape_of(x) == tuple(shape) else self.call('Expand', x, self.sizes(shape), shape=shape)

  def cast(self, x: Value, dtype) -> Tensor:
    return self.call('Cast', x, shape=shape_of(x), to=type_of(dtype))

  def part(self, x: Value, axes, starts, ends, shape: Sequence[Size], steps=None) -> Tensor:
    numbers = [np.array(list(of), np.int64) for of in (starts, ends, axes, steps or [1] * len(axes))]
    return self.call('Slice', x, *numbers, shape=shape)


def shape_of(x: Value) -> tuple[Size, ...]:
  return x.shape if isinstance(x, Tensor) else np.shape(x)


def together(*values: Value) -> tuple[Size, ...]:
  """The shape of what an operator makes of arrays, by NumPy's rule."""
  shapes = [shape_of(x) for x in values]
  rank = max(map(len, shapes))
  aligned = ((1,) * (rank - len(shape)) + shape for shape in shapes)
  return tuple(next((size for size in sizes if not isinstance(size, int) or size != 1), 1) for sizes in zip(*aligned))


def type_of(dtype) -> int:
  """ONNX's number of a type."""
  from onnx import helper
  return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

# ---------------------------------------------------------------- the files


def files(graph: Graph, inputs: Mapping[str, Tensor], outputs: Mapping[str, Value],
          metadata: Mapping[str, str]) -> dict[str, bytes]:
  """The model's files. Inputs are int64, as those of transformers' exports; `outputs` are float32."""
  from onnx import helper
  for name, value in outputs.items():
    graph.nodes.append(helper.make_node('Identity', [graph.name(value)], [name], name))
  described = lambda values, dtype: [helper.make_tensor_value_info(
      name, type_of(dtype), [size if isinstance(size, int) else str(size) for size in shape_of(value)])
                                     for name, value in values.items()]
  nodes = needed(graph.nodes, set(outputs))
  read = {name for node in nodes for name in node.input}
  initializers, data = tensors({name: value for name, value in graph.arrays.items() if name in read})
  model = helper.make_model(
      helper.make_graph(nodes, 'bert', described(inputs, np.int64), described(outputs, np.float32), initializers),
      producer_name='bert_jax', opset_imports=[helper.make_opsetid('', OPSET)], ir_version=IR_VERSION)
  helper.set_model_props(model, dict(metadata))
  return {MODEL: model.SerializeToString()} | ({DATA: data} if data else {})


def needed(nodes: Sequence[Any], wanted: set[str]) -> list[Any]:
  """The nodes that what is wanted depends on."""
  found = []
  for node in reversed(nodes):
    if wanted.intersection(node.output):
      wanted |= set(node.input)
      found.append(node)
  return found[::-1]


def tensors(arrays: Mapping[str, np.ndarray]) -> tuple[list[Any], bytes]:
  """Parameters as ONNX has them, and the bytes of the file beside the model: none where all fit into the model."""
  import onnx
  from onnx import numpy_helper
  if sum(value.nbytes for value in arrays.values()) <= LARGEST:
    return [numpy_helper.from_array(value, name) for name, value in arrays.items()], b''
  found, data = [], bytearray()
  for name, value in arrays.items():
    if value.nbytes < SMALL:
      found.append(numpy_helper.from_array(value, name))
      continue
    data += bytes(-len(data) % PAGE)
    place = {'location': DATA, 'offset': str(len(data)), 'length': str(value.nbytes)}
    found.append(onnx.TensorProto(
        name=name, dims=value.shape, data_type=type_of(value.dtype), data_location=onnx.TensorProto.EXTERNAL,
        external_data=[onnx.StringStringEntryProto(key=key, value=text) for key, text in place.items()]))
    data += value.tobytes()
  return found, bytes(data)

"""Our tree of parameters as the named tensors of another format, and back: names, stacks of layers, the order of axes.

L layers. Names of modules stand beside the classes (`NAMES` in model/encoder.py and model/heads.py).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bert_jax.convert.foreign import shown
from bert_jax.errors import ConfigError
from bert_jax.model import build
from bert_jax.model.settings import Model
from bert_jax.parallel.mesh import path_name
from input_pipeline.errors import DataError

NOWHERE = '\0'  # in front of names for what a format has no name for


@dataclasses.dataclass(frozen=True)
class Format:
  """What a format has of its own beside the names of modules."""
  name: str  # the key of NAMES
  separator: str  # between a module and its parameter
  leaves: Mapping[str, str]  # our name of a parameter in its module: theirs
  transposed: tuple[str, ...] = ()  # our names of matrices that are [out in] there; ours are [in out]


@dataclasses.dataclass(frozen=True)
class Entry:
  """One of our parameters in another format."""
  name: str  # 'encoder/blocks/query/kernel'
  shape: tuple[int, ...]  # ours
  theirs: tuple[str, ...]  # one for each layer of a stack [L ...], else one
  stacked: bool
  transposed: bool

  @property
  def head(self) -> str:
    """'encoder', or the head that it is of."""
    return self.name.split('/')[0]

  @property
  def their_shape(self) -> tuple[int, ...]:
    shape = self.shape[self.stacked:]
    return shape[::-1] if self.transposed else shape


def entries(settings: Model, heads: build.Heads, form: Format, named: bool = True) -> list[Entry]:
  """Every parameter of a model with these heads. Raises ConfigError where a class has no names in the format; where not
  `named`, `theirs` is of names that no file has.
  """
  graphdef, shapes, logical = build.describe(settings, heads)
  model = nnx.merge(graphdef, shapes)
  found = []
  for (path, leaf), known in zip(jax.tree.leaves_with_path(shapes), jax.tree.leaves(logical)):
    name = path_name(path)
    head, _, rest = name.partition('/')
    kind = type(getattr(model, head))
    names = getattr(kind, 'NAMES', {}).get(form.name, {})
    pattern = _pattern(names, rest, form)
    if pattern is None and not named:
      pattern = f'{NOWHERE}{name}{{}}'
    if pattern is None:
      raise ConfigError(f'{kind.__name__} has no name for its parameter {rest} in the format {form.name}: add one to '
                        f'{kind.__name__}.NAMES[{form.name!r}]')
    layers = range(leaf.shape[0]) if known.stacked else (0,)
    found.append(Entry(name, leaf.shape, tuple(pattern.format(layer) for layer in layers), known.stacked,
                       rest.rpartition('/')[2] in form.transposed))
  return found


def _pattern(names: Mapping[str, str], name: str, form: Format) -> str | None:
  """Their name of 'blocks/query/kernel', with {} for the layer: by its own name, or by its module's."""
  module, _, leaf = name.rpartition('/')
  if name in names:
    return names[name]
  return f'{names[module]}{form.separator}{form.leaves[leaf]}' if module in names and leaf in form.leaves else None


def to_tensors(params, table: list[Entry]) -> dict[str, np.ndarray]:
  """{their name: float32 array, or float64 where a proof computes so} of our tree of parameters."""
  leaves = {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(params)}
  tensors = {}
  for entry in table:
    values = np.asarray(leaves[entry.name])
    values = values if values.dtype == np.float64 else values.astype(np.float32)
    values = values.swapaxes(-1, -2) if entry.transposed else values
    for theirs, value in zip(entry.theirs, values if entry.stacked else [values]):
      tensors[theirs] = np.ascontiguousarray(value)
  return tensors


def from_tensors(tensors: Mapping[str, np.ndarray], table: list[Entry], source: Any) -> dict[str, np.ndarray]:
  """{our name: float32 array} of the entries of `table`, all of which must be there. Raises DataError."""
  return {entry.name: _array(tensors, entry, source) for entry in table}


def _array(tensors: Mapping[str, np.ndarray], entry: Entry, source) -> np.ndarray:
  values = []
  for theirs in entry.theirs:
    value = tensors[theirs]
    if not jnp.issubdtype(value.dtype, jnp.floating):
      raise DataError(f'{source}: {theirs} is {value.dtype}; wanted float32, float16 or bfloat16: quantized weights '
                      'cannot be read')
    if value.shape != entry.their_shape:
      raise DataError(f'{source}: {theirs} has the shape {value.shape}, its settings make it {entry.their_shape}')
    with np.errstate(over='ignore'):  # an infinity then, which assemble.check_finite names
      values.append((value.swapaxes(-1, -2) if entry.transposed else value).astype(np.float32))
  return np.stack(values) if entry.stacked else values[0]


def tree(arrays: Mapping[str, Any], settings: Model, heads: build.Heads):
  """The tree of parameters of a model with these heads; None where `arrays`, by name, lacks one."""
  return jax.tree.map_with_path(lambda path, leaf: arrays.get(path_name(path)), build.describe(settings, heads)[1])


def some(names, limit: int = 3) -> str:
  """For a message: the first few, and how many more."""
  names = list(names)
  return ', '.join(map(shown, names[:limit])) + (f' and {len(names) - limit} more' if len(names) > limit else '')

"""An encoder and its heads as one module, and as the two things a program needs: its structure and its parameters."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from bert_jax.errors import require
from bert_jax.model.attention import ONE_CPU, Place
from bert_jax.model.encoder import ENCODERS
from bert_jax.model.settings import Model
from bert_jax.parallel.mesh import Logical

Heads = Mapping[str, Callable[[Model, nnx.Rngs], nnx.Module]]  # by name: what makes each


class EncoderWithHeads(nnx.Module):
  """`encoder`, and each head by its name."""

  def __init__(self, settings: Model, heads: Heads, rngs: nnx.Rngs, place: Place = ONE_CPU):
    self.settings = settings
    self.encoder: Any = encoder_class(settings)(settings, rngs, place)
    for name, head in heads.items():
      setattr(self, name, head(settings, rngs))

  if TYPE_CHECKING:
    def __getattr__(self, name: str) -> Any: ...  # the heads


def encoder_class(settings: Model) -> Any:
  """The class of an architecture: a module with what BertEncoder has. Raises ConfigError where there is none."""
  require(settings.architecture in ENCODERS,
          f'model.architecture is {settings.architecture!r}: wanted one of {", ".join(ENCODERS)}')
  return ENCODERS[settings.architecture]


def build(settings: Model, heads: Heads, key: jax.Array, place: Place = ONE_CPU):
  """(graphdef, parameters as a tree of plain arrays); under jax.eval_shape, shapes only."""
  graphdef, params = nnx.split(EncoderWithHeads(settings, heads, nnx.Rngs(params=key), place))
  return graphdef, nnx.as_pure(params)


def describe(settings: Model, heads: Heads, place: Place = ONE_CPU):
  """(graphdef, tree of jax.ShapeDtypeStruct, tree of Logical), congruent.

  Nothing is computed: shapes and axes are known before there is a device. Raises ValueError where a parameter has no
  logical axes.
  """
  graphdef, shapes, logical = _described(settings, encoder_class(settings), tuple(heads.items()), place)
  copy = functools.partial(jax.tree.map, lambda leaf: leaf)
  return graphdef, copy(shapes), copy(logical)


@functools.lru_cache(maxsize=16)
def _described(settings: Model, kind: type, heads: tuple[tuple[str, Callable], ...], place: Place):
  """Kept, as tracing a model takes a good part of a second, and an export asks ten times."""
  make = lambda key: nnx.split(EncoderWithHeads(settings, dict(heads), nnx.Rngs(params=key), place))
  graphdef, variables = jax.eval_shape(make, jax.random.key(0))
  logical = jax.tree.map_with_path(_logical, variables, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
  return graphdef, nnx.as_pure(variables), nnx.as_pure(logical)


def _logical(path, variable: nnx.Variable) -> Logical:
  found = variable.get_metadata().get('logical')
  shape = variable.get_value().shape
  if found is None or len(found.axes) != len(shape):
    name = '/'.join(str(getattr(key, 'key', key)) for key in path)
    raise ValueError(f'the parameter {name} of shape {shape} has the logical axes {found and found.axes}: make it with '
                     'bert_jax.model.layers.parameter, which wants one for each of its own')
  return found


def parameter_count(params) -> int:
  return sum(x.size for x in jax.tree.leaves(params))

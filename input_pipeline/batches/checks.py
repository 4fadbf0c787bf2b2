"""How settings of batches are checked: each field by its type, then by its range, in a sentence that names it."""

import sys
import types
import typing
from typing import Any, Literal

from input_pipeline.errors import DataError


def require(fine: bool, message: str) -> None:
  """Raises DataError with `message` where `fine` is not so."""
  if not fine:
    raise DataError(message)


def require_types(settings: Any, prefix: str) -> None:
  """Each field of the dataclass has a value of its type, and a field with choices one of them.

  Flags are checked by their parser. What Python or a file says is checked here.
  """
  for name, kind in typing.get_type_hints(type(settings)).items():
    value = getattr(settings, name)
    require(fits(value, kind), f'{prefix}{name} is {value!r}; wanted {wanted(kind)}')


def fits(value: Any, kind: Any) -> bool:
  """Whether a value is of a field's type: an int may stand for a float, but no bool for a number, and no nan."""
  if typing.get_origin(kind) is typing.Annotated:
    return fits(value, typing.get_args(kind)[0])
  if typing.get_origin(kind) in (types.UnionType, typing.Union):
    return any(fits(value, part) for part in typing.get_args(kind))
  if typing.get_origin(kind) is Literal:
    return any(type(value) is type(choice) and value == choice for choice in typing.get_args(kind))
  if typing.get_origin(kind) is tuple:
    parts = typing.get_args(kind)
    if not isinstance(value, tuple):
      return False
    parts = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
    return len(value) == len(parts) and all(map(fits, value, parts))
  if kind is float:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
  if kind is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, kind)


def wanted(kind: Any) -> str:
  """A type in words."""
  if typing.get_origin(kind) is Literal:
    choices = typing.get_args(kind)
    return ('one of ' if len(choices) > 1 else '') + ', '.join(map(repr, choices))
  if typing.get_origin(kind) in (types.UnionType, typing.Union):
    return ' or '.join(wanted(part) for part in typing.get_args(kind))
  if typing.get_origin(kind) is typing.Annotated:
    return wanted(typing.get_args(kind)[0])
  names = {type(None): 'nothing', str: 'text', int: 'a whole number', float: 'a finite number', bool: 'True or False'}
  if isinstance(kind, types.GenericAlias):
    parts = [wanted(part) for part in typing.get_args(kind) if part is not Ellipsis]
    return f'a tuple of {" and ".join(parts)}'
  return names.get(kind, getattr(kind, '__name__', str(kind)))

"""Values as files: JSON of dicts, tuples, arrays and the records that are named; nothing that a file says is run.

A word that JSON has no place for is {"kind": content}: {"tuple": [1, 2]}, {"array": ["<i8", [2], base64]}.
"""

import base64
import collections
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

_MADE = {'tuple': tuple, 'frozenset': frozenset, 'list': list}
_DICTS: dict[str, Any] = {'Counter': lambda pairs: collections.Counter(dict(pairs)), 'dict': dict}
_BYTES = 8  # of a number, about


def pack(value: Any) -> bytes:
  return json.dumps(_plain(value)).encode()


def unpack(data: bytes, kinds: tuple[type, ...]) -> Any:
  """`kinds`: the records, dataclasses, that may be there. Raises ValueError, KeyError for what `pack` did not write."""
  return _made(json.loads(data), {kind.__name__: kind for kind in kinds})


def _plain(value: Any) -> Any:
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  if isinstance(value, np.ndarray):
    content = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    return {'array': [value.dtype.str, list(value.shape), content]}
  if dataclasses.is_dataclass(value):
    return {type(value).__name__: [_plain(getattr(value, field.name)) for field in dataclasses.fields(value)]}
  if isinstance(value, dict):
    return {type(value).__name__: [[_plain(name), _plain(one)] for name, one in value.items()]}
  return {type(value).__name__: list(map(_plain, value))}


def _made(plain: Any, kinds: Mapping[str, type]) -> Any:
  if not isinstance(plain, dict):
    return plain
  [(kind, content)] = plain.items()
  if kind == 'array':
    dtype, shape, data = content
    return np.frombuffer(base64.b64decode(data), dtype).reshape(shape)
  if kind in _DICTS:
    return _DICTS[kind]([(_made(name, kinds), _made(one, kinds)) for name, one in content])
  parts = [_made(part, kinds) for part in content]
  return _MADE[kind](parts) if kind in _MADE else kinds[kind](*parts)


def size(value: Any) -> int:
  """About its bytes."""
  if isinstance(value, np.ndarray):
    return value.nbytes
  if isinstance(value, str):
    return len(value)
  if isinstance(value, collections.Counter):
    return _BYTES * len(value) + sum(map(len, value))
  if isinstance(value, dict):
    return sum(size(name) + size(one) for name, one in value.items())
  if dataclasses.is_dataclass(value):
    return sum(size(getattr(value, field.name)) for field in dataclasses.fields(value))
  return sum(map(size, value)) if isinstance(value, (tuple, list, frozenset)) else _BYTES

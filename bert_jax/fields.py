"""Settings as frozen dataclasses, whatever they are of: their checks, their JSON, and the names that their flags have."""

import dataclasses
import json
import typing
from typing import Literal

from bert_jax.errors import require


def require_choices(settings, prefix: str = '') -> None:
  """Raises ConfigError for a Literal field of `settings` that has another value: flags are checked by their parser, files are not."""
  for name, kind in typing.get_type_hints(type(settings)).items():
    if typing.get_origin(kind) is Literal:
      value, choices = getattr(settings, name), typing.get_args(kind)
      require(value in choices, f'{prefix}{name} is {value!r}: wanted one of {", ".join(choices)}')


def to_json(config) -> str:
  return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True) + '\n'


def from_json(kind, fields: dict):
  """The dataclass `kind` from its JSON fields. Raises ConfigError where they are not those of `kind`."""
  values = {}
  known = {field.name: field for field in dataclasses.fields(kind)}
  for name, value in fields.items():
    require(name in known, f'{kind.__name__} has no field {name!r}: the file was written by another version')
    default = known[name].default
    if isinstance(value, dict) and dataclasses.is_dataclass(default):
      value = from_json(type(default), value)
    values[name] = tuple(map(_tuples, value)) if isinstance(value, list) else value
  return kind(**values)


def _tuples(value):
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def flat(config, prefix: str = '') -> dict[str, object]:
  """{'model.layers': 12 …}: every setting by the name that its flag has."""
  items = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      items |= flat(value, f'{prefix}{field.name}.')
    else:
      items[prefix + field.name] = value
  return items

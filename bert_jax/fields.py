"""Settings as frozen dataclasses, whatever they are of: their checks, their JSON, and the names of their flags."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Annotated, Literal

from bert_jax.errors import ConfigError, require
from input_pipeline import ranges
from input_pipeline.batches.checks import fits


@dataclasses.dataclass(frozen=True, eq=False)  # by identity: types of fields are hashed, and a table cannot be
class OneOf:
  """That a field is a key of `table`. It is looked up when it is checked, so that later additions are known."""
  table: Mapping | tuple


def one_of(table: Mapping | tuple):
  """The type of a field that names an entry of `table`: its flag offers the entries, `require_fields` checks them."""
  return Annotated[Literal[*table], OneOf(table)]


def require_fields(settings, prefix: str = '') -> None:
  """Raises ConfigError for a field that is outside its range, or has none of its choices. A parser checks choices of
  flags, but not files and calls."""
  ranges.check(settings, prefix, ConfigError)
  for name, kind in typing.get_type_hints(type(settings), include_extras=True).items():
    value = getattr(settings, name)
    many = typing.get_origin(kind) is tuple
    allowed = allowed_values(typing.get_args(kind)[0] if many else kind)
    for item in value if many else (value,):
      require(allowed is None or item in allowed,
              f'{prefix}{name} is {item!r}: wanted one of {", ".join(map(str, allowed or ()))}')


def allowed_values(kind) -> tuple | None:
  """The values of a Literal, or the keys of a table; None: any."""
  if typing.get_origin(kind) is Annotated:
    table = next((extra.table for extra in typing.get_args(kind) if isinstance(extra, OneOf)), None)
    return tuple(table) if table is not None else allowed_values(typing.get_args(kind)[0])
  return typing.get_args(kind) if typing.get_origin(kind) is Literal else None


def to_json(config) -> str:
  return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True) + '\n'


def from_json(kind, fields, name: str = '', narrowed: Mapping[str, type] | None = None):
  """The dataclass `kind` from its JSON fields. Raises ConfigError where they are others, or of other types.

  `name`: of the settings within others, as flags have it: 'model.'. `narrowed`: fields that are of another class than
  `kind` says, one below it.
  """
  require(isinstance(fields, dict), f'{name.rstrip(".") or kind.__name__} is {fields!r:.60}: wanted the fields of a '
          f'{kind.__name__}')
  values, known = {}, {field.name for field in dataclasses.fields(kind)}
  hints = typing.get_type_hints(kind, include_extras=True) | dict(narrowed or {})
  for field, value in fields.items():
    require(field in known, f'{kind.__name__} has no field {field!r}: the file was written by another version')
    hint = hints[field]
    parts = (hint, *typing.get_args(hint))
    nested = next((part for part in parts if isinstance(part, type) and dataclasses.is_dataclass(part)), None)
    if nested and typing.get_origin(hint) is tuple:
      require(isinstance(value, list | tuple), f'{name}{field} is {value!r:.60}: wanted {ranges.words(hint)}')
      values[field] = tuple(from_json(nested, item, f'{name}{field}.') for item in value)
      continue
    if nested and not (value is None and type(None) in typing.get_args(hint)):
      values[field] = from_json(nested, value, f'{name}{field}.')
      continue
    values[field] = _tuples(value)
    allowed = allowed_values(hint)  # a table may have more than its type says
    require(value in allowed if allowed is not None and isinstance(value, str) else fits(values[field], hint),
            f'{name}{field} is {value!r:.60}: wanted {ranges.words(hint)}')
  missing = [field.name for field in dataclasses.fields(kind) if field.name not in values
             and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]
  require(not missing, f'{name or kind.__name__} lacks {", ".join(missing)}')
  return kind(**values)


def _tuples(value):
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def flat(config, prefix: str = '') -> dict[str, object]:
  """{'model.layers': 12 …}: every setting by the name that its flag has."""
  items: dict[str, object] = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      items |= flat(value, f'{prefix}{field.name}.')
    else:
      items[prefix + field.name] = value
  return items


def replaced(settings, values: Mapping[str, object]):
  """The settings with other values, by the names that flags have: {'batch.masking.share': 0.3}."""
  def within(settings, values):
    return dataclasses.replace(settings, **{
        name: within(getattr(settings, name), value) if isinstance(value, dict) else value
        for name, value in values.items()})

  return within(settings, nested(values))


def nested(values: Mapping[str, object]) -> dict[str, object]:
  """{'run': {'steps': 20}} of {'run.steps': 20}."""
  found: dict[str, object] = {}
  for name, value in values.items():
    *groups, last = name.split('.')
    place: dict = found
    for group in groups:
      place = place.setdefault(group, {})
    place[last] = value
  return found

"""Files that others wrote, read without trust (input_pipeline/foreign.py), and JSON by its types."""

from bert_jax import fields as fields_lib
from bert_jax.errors import ConfigError
from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.foreign import (  # noqa: F401
    MOST_BYTES,
    SETTINGS,
    check_file,
    check_files,
    is_name,
    read_json,
    read_object,
    shown,
)


def typed(kind, fields, path: storage.Path):
  """The dataclass `kind` from those of a file's fields that it knows. Raises DataError where one has another type."""
  known = kind.__dataclass_fields__
  try:
    return fields_lib.from_json(kind, {name: value for name, value in fields.items() if name in known})
  except ConfigError as error:
    raise DataError(f'{path} cannot be used: {error}') from error

"""Files that others wrote, read without trust: regular files of a size that their kind has, and JSON."""

import json

from input_pipeline import storage
from input_pipeline.errors import DataError

SETTINGS = '.json', '.txt', '.model'  # how the names of settings and vocabularies end
MOST_BYTES = 64 << 20  # of such a file: the tokenizers of all languages have 20 MB


def shown(text: object, most: int = 80) -> str:
  """What others wrote, for a message of one line: printable characters, and not too many."""
  text = str(text)
  found = ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most])
  return found + '…' * (len(text) > most)


def is_name(text: object) -> bool:
  """Whether it is the name of a file in its own directory, of characters that can be shown."""
  return isinstance(text, str) and text.isprintable() and storage.path(text).name == text != '..'


def check_kind(path: storage.Path) -> None:
  """Raises DataError where reading might never end: a pipe, a device. In buckets there are none."""
  try:
    special = storage.is_local(path) and path.exists() and not path.is_dir() and not path.is_file()
  except (OSError, ValueError) as error:  # a name that no file can have
    raise DataError(f'{shown(path, 200)} cannot be read ({shown(error)}): wanted a file') from error
  if special:
    raise DataError(f'{path} is a pipe or a device: wanted a file')


def check_file(path: storage.Path) -> None:
  """Raises DataError where reading might never end, or fill the memory: a pipe, a device, settings of gigabytes."""
  check_kind(path)
  if path.suffix in SETTINGS and path.is_file() and storage.size(path) > MOST_BYTES:
    raise DataError(f'{path} has {storage.size(path):,} bytes, more than settings or vocabularies have: fetch it again')


def check_files(directory: storage.Path) -> None:
  """`check_file` of all that is in a directory."""
  if directory.is_dir():
    for path in directory.iterdir():
      check_file(path)


def read_json(path: storage.Path):
  """What a file holds. Raises DataError."""
  check_file(path)
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError, RecursionError) as error:
    raise DataError(f'{path} cannot be read ({type(error).__name__}: {error}): wanted a file of JSON') from error


def read_object(path: storage.Path) -> dict:
  """The JSON object that a file holds. Raises DataError."""
  value = read_json(path)
  if not isinstance(value, dict):
    raise DataError(f'{path} holds {type(value).__name__}, wanted an object, as a checkpoint of BERT has there')
  return value

"""Safetensors that others wrote: read without trust, without a copy, and without opening a pickle."""

import json
import math

import jax.numpy as jnp
import numpy as np

from bert_jax.convert.foreign import check_file, is_name, read_object, shown
from input_pipeline import storage
from input_pipeline.errors import DataError

WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'
TYPES = {'F32': np.float32, 'F16': np.float16, 'BF16': jnp.bfloat16, 'F64': np.float64}
MOST_HEADER = 100_000_000  # bytes; the limit of the format's own library

# What a file of weights that is none may be, by how it begins.
IMPOSTORS = {b'\x80': 'it is a pickle, which is never opened',
             b'PK\x03\x04': 'it is a pickle of torch, which is never opened',
             b'version https://git-lfs': 'it is a pointer of Git LFS, which `git lfs pull` replaces'}


def read_tensors(directory: storage.Path) -> dict[str, np.ndarray]:
  """The tensors of model.safetensors, or of the shards that an index names. Raises DataError; never opens a pickle.

  They are views of the mapped files: what is not used is not read, and has only the size that its file has.
  """
  if (directory / WEIGHTS).exists():
    return read_file(directory / WEIGHTS)
  if not (directory / INDEX).exists():
    pickled = ', '.join(sorted(path.name for path in directory.glob('*.bin')))
    raise DataError(f'{directory} has no {WEIGHTS}'
                    + (f', only {pickled}: that is a pickle, which can run code as it is read; have '
                       'transformers write it again with save_pretrained(…, safe_serialization=True)' if pickled
                       else ''))
  where = read_object(directory / INDEX).get('weight_map')
  if not isinstance(where, dict) or not all(map(is_name, where.values())):
    raise DataError(f'{directory / INDEX} has no weight_map of names of files in its directory: fetch or export '
                    'it again')
  tensors: dict[str, np.ndarray] = {}
  for file in sorted(set(where.values())):
    found = read_file(directory / file)
    lies = sorted({name for name, said in where.items() if said == file} ^ found.keys())
    if lies:
      raise DataError(f'{directory / INDEX} and {file} differ in {shown(lies[0])}: fetch or export them again')
    tensors |= found
  return tensors


def read_file(path: storage.Path) -> dict[str, np.ndarray]:
  """The tensors of one file. Raises DataError."""
  check_file(path)
  data = memoryview(b'')
  try:
    data = storage.map_file(path)
    return tensors_of(data)
  except (OSError, ValueError, RecursionError) as error:
    start = bytes(data[:32])
    found = next((what for begin, what in IMPOSTORS.items() if start.startswith(begin)), error)
    raise DataError(f'{path} cannot be read ({found}): fetch or export it again') from error


def tensors_of(data: memoryview) -> dict[str, np.ndarray]:
  """The tensors in the bytes of a file; those of other types than TYPES as bytes, refused where a weight is wanted.

  Raises ValueError where the header lies: each tensor must begin where the one before it ends, and fill its part.
  """
  length = int.from_bytes(data[:8], 'little')
  if len(data) < 8 or length > min(len(data) - 8, MOST_HEADER):
    raise ValueError(f'its header would have {length:,} bytes, of {len(data):,} of the file')
  header = json.loads(bytes(data[8:8 + length]).decode())  # of bytes json would take UTF-16 too
  if not isinstance(header, dict) or not isinstance(header.pop('__metadata__', {}), dict):
    raise ValueError('its header, or the metadata there, is no object')
  body, place, tensors = data[8 + length:], 0, {}
  for name, (start, end), kind, shape in sorted(map(_entry, header.items()), key=lambda entry: entry[1]):
    if start != place or end < start or end > len(body):
      raise ValueError(f'its header puts {shown(name)} at bytes {start:,} to {end:,} of {len(body):,}, after {place:,}')
    place, dtype = end, np.dtype(TYPES.get(kind, np.uint8))
    if kind not in TYPES:
      shape = [end - start]
    if math.prod(shape) * dtype.itemsize != end - start:
      raise ValueError(f'its header gives {shown(name)} {end - start:,} bytes, and the shape {str(shape):.60} of '
                       f'{dtype}')
    tensors[name] = np.frombuffer(body[start:end] or b'', dtype).reshape(shape)
  if place != len(body):
    raise ValueError(f'its tensors end at byte {place:,} of {len(body):,}')
  return tensors


def _entry(item) -> tuple[str, list[int], str, list[int]]:
  """(name, offsets, type, shape) of one entry of a header. Raises ValueError."""
  name, entry = item
  wanted = {'dtype', 'shape', 'data_offsets'}
  counts = lambda value: isinstance(value, list) and all(type(x) is int and 0 <= x < 2**63 for x in value)
  if (not isinstance(entry, dict) or entry.keys() != wanted or not isinstance(entry['dtype'], str)
      or not counts(entry['shape']) or not counts(entry['data_offsets']) or len(entry['data_offsets']) != 2):
    raise ValueError(f'its header says of {shown(name)} {str(entry):.60}: wanted {", ".join(sorted(wanted))}')
  return name, entry['data_offsets'], entry['dtype'], entry['shape']

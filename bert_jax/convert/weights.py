"""Files of weights and settings that others wrote: read without trust, and without opening a pickle."""

import json

import jax.numpy as jnp
import numpy as np
import safetensors

from input_pipeline import storage
from input_pipeline.errors import DataError

WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'
TYPES = {'F32': np.float32, 'F16': np.float16, 'BF16': jnp.bfloat16, 'F64': np.float64}

# What a file of weights that is none may be, by how it begins.
IMPOSTORS = {b'\x80': 'it is a pickle, which is never opened',
             b'PK\x03\x04': 'it is a pickle of torch, which is never opened',
             b'version https://git-lfs': 'it is a pointer of Git LFS, which `git lfs pull` replaces'}


def read_tensors(directory: storage.Path) -> dict[str, np.ndarray]:
  """The tensors of model.safetensors, or of the shards that an index names. Raises DataError; never opens a pickle."""
  if (directory / WEIGHTS).exists():
    files = [WEIGHTS]
  elif (directory / INDEX).exists():
    where = read_json(directory / INDEX).get('weight_map')
    if not isinstance(where, dict) or not all(isinstance(name, str) and storage.path(name).name == name
                                              for name in where.values()):
      raise DataError(f'{directory / INDEX} has no weight_map of names of files in its directory: fetch or export '
                      'it again')
    files = sorted(set(where.values()))
  else:
    pickled = ', '.join(sorted(path.name for path in directory.glob('*.bin')))
    raise DataError(f'{directory} has no {WEIGHTS}'
                    + (f', only {pickled}: that is a pickle, which can run code as it is read; have '
                    'transformers write it again with save_pretrained(…, safe_serialization=True)' if pickled else ''))
  tensors = {}
  for name in files:
    data = b''
    try:
      data = (directory / name).read_bytes()
      entries = safetensors.deserialize(data)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
      found = next((what for begin, what in IMPOSTORS.items() if data.startswith(begin)), error)
      raise DataError(f'{directory / name} cannot be read ({found}): fetch or export it again') from error
    for key, entry in entries:  # other types are buffers: kept as bytes, refused where a weight is wanted
      tensors[key] = (np.frombuffer(entry['data'], TYPES[entry['dtype']]).reshape(entry['shape'])
                      if entry['dtype'] in TYPES
                      else np.frombuffer(entry['data'], np.uint8))
  return tensors


def read_json(path: storage.Path) -> dict:
  """The object that a file holds. Raises DataError."""
  try:
    value = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError) as error:
    raise DataError(f'{path} cannot be read ({type(error).__name__}: {error}): wanted a Hugging Face directory of a '
                    'BERT') from error
  if not isinstance(value, dict):
    raise DataError(f'{path} holds {type(value).__name__}, wanted an object, as a Hugging Face directory has')
  return value

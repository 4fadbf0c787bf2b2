"""What our own files beside a vocabulary say of it: whether its text is lower-cased, by which rules it is split."""

import hashlib
import json

from input_pipeline import records, storage
from input_pipeline.errors import DataError

SETTINGS = '.json'  # vocab.txt.json beside vocab.txt, as `bert-jax vocabulary` writes it
RUN = 'config.json'  # of a run directory


def write(path: storage.Path, data: bytes, **settings: object) -> None:
  """Writes the settings that made a vocabulary, which is `data`, beside it."""
  text = json.dumps(settings | {'sha256': hashlib.sha256(data).hexdigest()}, indent=2, ensure_ascii=False)
  storage.write_whole(path.parent / f'{path.name}{SETTINGS}', text + '\n')


def lower_case(path: storage.Path, data: bytes) -> bool | None:
  """What is said of the vocabulary `data`, from `path`; None: nothing. What is said of another one does not count."""
  own = _read(path.parent / f'{path.name}{SETTINGS}')
  if own.get('sha256') == hashlib.sha256(data).hexdigest() and isinstance(own.get('lower_case'), bool):
    return own['lower_case']
  return None


def recorded(directory: storage.Path) -> records.Vocabulary | None:
  """What shards or a run record of the vocab.txt that lies beside; None where it is of no such directory."""
  for name in (records.MANIFEST, RUN):
    fields = _read(directory / name).get('vocabulary')
    path = directory / records.VOCABULARY
    if isinstance(fields, dict) and path.exists():
      if fields.get('sha256') == hashlib.sha256(path.read_bytes()).hexdigest():
        try:
          return records.vocabulary_of(fields)
        except (TypeError, AttributeError) as error:
          raise DataError(f'{directory / name} is damaged ({error}): wanted what it recorded of its vocabulary'
                          ) from error
  return None


def _read(path: storage.Path) -> dict:
  """The object in a file of JSON; {} where there is none."""
  try:
    found = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError):
    return {}
  return found if isinstance(found, dict) else {}

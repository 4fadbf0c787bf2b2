"""What the files beside a vocabulary say of it: whether the text that it is for is lower-cased."""

import hashlib
import json

from input_pipeline import records, storage
from input_pipeline.errors import DataError

SETTINGS = '.json'  # vocab.txt.json beside vocab.txt, as `bert-jax vocabulary` writes it
HUGGING_FACE = 'tokenizer_config.json'
_STANDARD = (records.VOCABULARY, records.SENTENCEPIECE, 'spiece.model')  # the names by which it means a vocabulary


def write(path: storage.Path, data: bytes, **settings: object) -> None:
  """Writes the settings that made a vocabulary, which is `data`, beside it."""
  text = json.dumps(settings | {'sha256': hashlib.sha256(data).hexdigest()}, indent=2, ensure_ascii=False)
  storage.write_whole(path.parent / f'{path.name}{SETTINGS}', text + '\n')


def lower_case(path: storage.Path, data: bytes, tokens_sha256: str) -> bool | None:
  """What is said of the vocabulary `data`, from `path`; None: nothing. What is said of another one does not count.

  Raises DataError for a rule that is not known here.
  """
  own = _read(path.parent / f'{path.name}{SETTINGS}')
  if own.get('sha256') == hashlib.sha256(data).hexdigest() and isinstance(own.get('lower_case'), bool):
    return own['lower_case']
  if path.name not in _STANDARD:
    return None
  shards = _read(path.parent / records.MANIFEST).get('vocabulary')
  if isinstance(shards, dict) and shards.get('sha256') == tokens_sha256:
    return bool(shards['lower_case'])
  said = _read(path.parent / HUGGING_FACE)
  lower = said.get('do_lower_case')
  if path.name == records.VOCABULARY and said.get('strip_accents') not in (None, lower):
    raise DataError(f'{path.parent / HUGGING_FACE} says do_lower_case {lower} and strip_accents '
                    f'{said["strip_accents"]}: wanted both alike, as BERT has them; name another vocabulary')
  return lower if isinstance(lower, bool) else None


def _read(path: storage.Path) -> dict:
  """The object in a file of JSON; {} where there is none."""
  try:
    found = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError):
    return {}
  return found if isinstance(found, dict) else {}

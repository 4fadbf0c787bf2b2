"""What is told of the failure of an engine: one sentence of ours, and a file with all that its own machinery said."""

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence

from input_pipeline import records
from input_pipeline.errors import EngineError, RefusedError, StorageError
from input_pipeline.text import transforms

EXPECTED = {kind.__name__: kind for kind in (records.DataError, RefusedError, StorageError)} | {
    transforms.TransformError.__name__: records.DataError}  # whose traceback is in the log already
_LONGEST = 300  # characters of an engine's own words in a sentence
_OURS = 'bert_jax_command|bert_jax|input_pipeline|launch'


@contextlib.contextmanager
def log_file(engine: str) -> Iterator[str]:
  """A file for what an engine tells, which stays where it fails."""
  descriptor, name = tempfile.mkstemp(prefix=f'bert-jax-{engine}-', suffix='.log')
  os.close(descriptor)
  try:
    yield name
  except Exception:
    raise
  except BaseException:  # of who has seen enough
    _remove(name)
    raise
  _remove(name)


def _remove(name: str) -> None:
  with contextlib.suppress(OSError):
    os.unlink(name)


@contextlib.contextmanager
def told_to_file(name: str, loggers: Sequence[str]) -> Iterator[None]:
  handler = logging.FileHandler(name, encoding='utf-8', errors='backslashreplace')
  handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(name)s: %(message)s'))
  try:
    with told_to(handler, loggers):
      yield
  finally:
    handler.close()


@contextlib.contextmanager
def told_to(handler: logging.Handler, names: Sequence[str]) -> Iterator[None]:
  """Meanwhile what libraries tell goes there, and nowhere else."""
  loggers = [logging.getLogger(None if name == 'root' else name) for name in names]
  before = [(logger, logger.handlers, logger.propagate) for logger in loggers]
  for logger in loggers:
    logger.handlers, logger.propagate = [handler], False
  try:
    yield
  finally:
    for logger, handlers, propagate in before:
      logger.handlers, logger.propagate = handlers, propagate


def explained(said: str, engine: str, bring: str) -> Exception:
  """What is expected, out of what an engine made of it, as in 'RuntimeError: DataError: …': as it was raised; any other
  is quoted in an EngineError. `bring`: how the project comes to workers.
  """
  if found := re.search(rf'\b({"|".join(EXPECTED)}): ([^\n]*)', said):
    return EXPECTED[found[1]](_clean(found[2]))
  if found := re.search(r'\[Errno (\d+)\] ([^\n]*)', said):
    return OSError(int(found[1]), _clean(found[2]))
  if found := re.search(rf"No module named '({_OURS})[.']", said):
    return records.DataError(f'the Python of the workers of --engine {engine} lacks bert_jax: install the same version '
                             f'there ({bring})')
  if found := re.search(r"No module named '([\w.]+)'", said):
    return records.DataError(f'the Python of the workers of --engine {engine} lacks {found[1]}: install there what is '
                             'here')
  if re.search(rf"(?:Can't get attribute|has no attribute|cannot import name).*\b(?:{_OURS})\b", said):
    return records.DataError(f'the workers of --engine {engine} have another version of bert_jax: install the same one '
                             'there')
  lines = [line.strip() for line in said.splitlines() if line.strip()]
  told = next((line for line in reversed(lines) if re.match(r'[\w.]*(Error|Exception)\b', line)), lines[0])
  return EngineError(f'--engine {engine}: {told[:_LONGEST]}')


def with_log(error: Exception, log: str) -> Exception:
  """The same with the name of the file in its sentence."""
  if isinstance(error, EngineError):
    return EngineError(f'{error}; all that was told is in {log}')
  return type(error)(*error.args[:-1], f'{error.args[-1]} (more in {log})')


def _clean(words: str) -> str:
  """One line of an error without what a runner put after it."""
  return words.partition(' [while running')[0].partition('\\n')[0].rstrip('"\' ')

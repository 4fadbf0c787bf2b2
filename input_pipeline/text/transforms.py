"""A step of the user's own between reading and everything else: `--transform package.module:function`.

The function gets a document and gives the document that takes its place, several, or none (None, or an empty list).
Its file travels by its content, so that every machine calls the same one.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from input_pipeline import records
from input_pipeline.text import document
from input_pipeline.text.document import Document

DROPPED = 'transformed_away'  # the reason that is counted
_NAME = re.compile(r'[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*')
_SHOWN = 60  # characters of a text, in a message


class TransformError(records.DataError):
  """What the user's function raised, or what it gave and should not."""


@dataclasses.dataclass(frozen=True)
class Transform:
  """The function, for any process."""
  name: str  # package.module:function
  file: str  # of its module, as tracebacks call it
  source: bytes  # what is in the file
  folder: str  # from where the module is imported, and what it imports beside it

  def fingerprint(self) -> str:
    """Tells another function, or another version of its file."""
    return hashlib.sha256(self.source).hexdigest()[:16]


def named(name: str | None) -> Transform | None:
  """The function of this name, which lies in the working directory or where Python finds it. Raises DataError."""
  if name is None:
    return None
  if not _NAME.fullmatch(name):
    raise records.DataError(f'--transform {name}: wanted package.module:function')
  module = name.partition(':')[0]
  _make_importable(os.getcwd())
  found = _found(module)
  if found is None or not found.origin or not found.origin.endswith('.py'):
    raise records.DataError(f'--transform {name}: there is no {module.replace(".", "/")}.py in the working directory, '
                            'nor a module of this name where Python looks')
  with open(found.origin, 'rb') as file:
    source = file.read()
  levels = module.count('.') + (found.submodule_search_locations is not None)
  folder = os.path.abspath(found.origin)
  for _ in range(levels + 1):
    folder = os.path.dirname(folder)
  made = Transform(name, os.path.abspath(found.origin), source, folder)
  _function(made)
  return made


def _found(module: str) -> importlib.machinery.ModuleSpec | None:
  """Where a module is, without an import of the packages that it is in."""
  importlib.invalidate_caches()
  found, path = None, None
  for name in itertools.accumulate(module.split('.'), '{}.{}'.format):
    found = importlib.machinery.PathFinder.find_spec(name, path)
    if found is None:
      break
    path = found.submodule_search_locations or []
  return found


def apply(transform: Transform | None, documents: Iterable[Document], counts: collections.Counter,
          source: str) -> list[Document]:
  """What the function makes of them. `counts` gets what it dropped and what it added; `source` is what messages call
  where they are from. Raises TransformError."""
  if transform is None:
    return [*documents]
  made = []
  for one in documents:
    found = _made_of(transform, one, source)
    made += found
    if not found:
      counts[DROPPED] += 1
    elif len(found) > 1:
      counts.update(pages=len(found) - 1, made_more=len(found) - 1)
  return made


def _made_of(transform: Transform, one: Document, source: str) -> list[Document]:
  place = f'--transform {transform.name}, of the document {one.id[:_SHOWN]!r} of {source}'
  try:
    result = _function(transform)(one)
    given = [] if result is None else [result] if isinstance(result, Document) else result
    if isinstance(given, str | bytes | dict) or not isinstance(given, Iterable):
      raise TypeError(f'it gave {type(result).__name__} {_beginning(result)!r}: wanted a Document, several, or None')
    given = [*given]
    if wrong := [part for part in given if not isinstance(part, Document)]:
      raise TypeError(f'among what it gave is {type(wrong[0]).__name__} {_beginning(wrong[0])!r}: wanted Documents')
    if wrong := [name for part in given for name, value in vars(part).items() if not isinstance(value, str)]:
      raise TypeError(f'the {wrong[0]} of what it gave is no text')
  except (Exception, SystemExit) as error:  # whatever a function of the user's raises
    raise TransformError(f'{place} ({_beginning(one.text)!r}): {_said(error)}') from error
  parts = []
  for part in given:
    valid = document.make(part.id, part.title, part.text)
    if isinstance(valid, Document):
      parts += document.cut(valid)
  return parts


@functools.lru_cache(maxsize=2)
def _function(transform: Transform) -> Callable[[Document], Any]:
  """Runs the file's content as the module that it is. Raises DataError."""
  name, _, function = transform.name.partition(':')
  loader = _Sent(transform)
  spec = importlib.util.spec_from_file_location(name, transform.file, loader=loader)
  if spec is None:
    raise records.DataError(f'--transform {transform.name}: {transform.file} is no module of Python')
  module = importlib.util.module_from_spec(spec)
  before = sys.modules.get(name)
  sys.modules[name] = module  # while it is made; another of this name may be asked for later
  try:
    _make_importable(transform.folder)
    loader.exec_module(module)
  except (Exception, SystemExit) as error:
    raise TransformError(f'--transform {transform.name}: {name} cannot be imported ({_said(error)})') from error
  finally:
    sys.modules.pop(name)
    if before is not None:
      sys.modules[name] = before
  found = getattr(module, function, None)
  if not callable(found):
    raise records.DataError(f'--transform {transform.name}: there is no function {function} in {transform.file}')
  return found


class _Sent(importlib.abc.SourceLoader):
  """Gives a module's source from memory, to tracebacks too."""

  def __init__(self, transform: Transform):
    self.transform = transform

  def get_filename(self, fullname: str) -> str:
    return self.transform.file

  def get_data(self, path: str) -> bytes:
    return self.transform.source


def _make_importable(folder: str) -> None:
  """From now on, as the function may import more when it is called; in the place of what an earlier one asked for. What
  is installed comes first, so that no file of the folder takes its place."""
  if folder not in sys.path:
    sys.path[:] = [path for path in sys.path if not isinstance(path, _Added)]
    sys.path.append(_Added(folder))


class _Added(str):
  """An entry of sys.path that is ours."""


def _beginning(value: object) -> str:
  return ' '.join(str(value).split())[:_SHOWN]


def _said(error: BaseException) -> str:
  return ' '.join(f'{type(error).__name__}: {error}'.split())[:300]


@contextlib.contextmanager
def told() -> Iterator[None]:
  """Where the function fails, its traceback goes to a file, which the sentence names."""
  try:
    yield
  except TransformError as error:
    descriptor, log = tempfile.mkstemp(prefix='bert-jax-transform-', suffix='.log')
    with os.fdopen(descriptor, 'w', encoding='utf-8', errors='backslashreplace') as file:
      file.writelines(traceback.format_exception(error))
    raise records.DataError(f'{error} (more in {log})') from error

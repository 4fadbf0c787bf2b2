"""What is found out before the work, by one task on a worker of a cluster: a missing piece would end hours of it.

The driver writes a token to the folder that is shared, and asks; the worker looks for it, compares the project and its
packages with the driver's, opens what is to be read, and answers in the same folder, where the driver looks. Where
workers write nothing there is no such folder, and no token.
"""

import dataclasses
import platform
import socket
import uuid
from collections.abc import Sequence

from input_pipeline import records, storage
from input_pipeline.engines import versions
from input_pipeline.errors import StorageError
from input_pipeline.text import files, sources

_MOST_SOURCES = 16  # that are opened: of more, these stand for all
_ASKED, _ANSWERED = 'asked', 'answered'


@dataclasses.dataclass(frozen=True)
class Question:
  token: str
  shared: str  # '': workers write nothing
  output: str  # what the user calls it, with its flag
  engine: str
  project: str  # versions.project()
  packages: tuple[tuple[str, str], ...]
  parts: tuple[sources.Part, ...]
  stored: tuple[tuple[str, int], ...] = ()  # (path, bytes)


def ask(shared: storage.Path | None, output: str, engine: str, parts: list[sources.Part],
        stored: Sequence[tuple[str, int]] = ()) -> Question:
  """Writes the token, and gives what a worker is to answer. `stored`: (path, bytes) of other files that it must see."""
  token = uuid.uuid4().hex
  if shared is not None:
    storage.make_folder(shared)
    storage.write_whole(shared / _ASKED, token)
  some = lambda many: tuple(many[::-(-len(many) // _MOST_SOURCES) or 1])
  return Question(token, '' if shared is None else str(shared), output, engine, versions.project(),
                  tuple(versions.packages().items()), some(parts), some(stored))


def answer(question: Question) -> None:
  """On a worker. Raises DataError or StorageError, each with a sentence for the user of the driver."""
  here = f'the worker {socket.gethostname()} of --engine {question.engine}'
  if versions.project() != question.project:
    raise records.DataError(f'{here} has another version of bert_jax than this machine: install the same one there')
  packages = versions.packages()
  if other := [(name, version) for name, version in question.packages if packages.get(name) != version]:
    name, version = other[0]
    raise records.DataError(f'{here} has {name} {packages.get(name, "not at all")}, this machine {version}: what '
                            'it makes would differ; install the same version')
  for part in question.parts:
    _look(part, here)
  for path, size in question.stored:
    try:
      found: int | None = storage.size(storage.path(path))
    except (OSError, StorageError):
      found = None
    if found != size:
      raise records.DataError(f'{here} sees {"no" if found is None else "another"} {path}: put it where every worker '
                              'sees the same, such as a bucket or a shared disk')
  if not question.shared:
    return
  shared = storage.path(question.shared)
  try:
    seen = (shared / _ASKED).read_text()
  except (OSError, StorageError):
    seen = ''
  if seen != question.token:
    raise _not_shared(question, f'{here} does not see what was written there')
  storage.write_whole(shared / f'{_ANSWERED}-{question.token}', platform.node())


def _look(part: sources.Part, here: str) -> None:
  try:
    found = part.source.stamp()
    if isinstance(part.source, files.File):
      part.source.kind()
  except (OSError, records.DataError, StorageError) as error:
    raise records.DataError(f'{here} cannot read --input {part.source.name} ({error}): put it where every worker sees '
                            'it, such as a bucket or a shared disk') from error
  if found.bytes != part.stamp.bytes:
    raise records.DataError(f'{here} sees another --input {part.source.name}, of {found.bytes:,} bytes, than this '
                            f'machine, of {part.stamp.bytes:,}: put it where every worker sees the same')


def check_answered(question: Question) -> None:
  """On the driver. Raises DataError where the answer is not there."""
  if not question.shared:
    return
  shared = storage.path(question.shared)
  answered = shared / f'{_ANSWERED}-{question.token}'
  if not answered.exists():
    raise _not_shared(question, 'what a worker wrote there is not to be seen on this machine')
  answered.unlink(missing_ok=True)
  (shared / _ASKED).unlink(missing_ok=True)


def _not_shared(question: Question, why: str) -> records.DataError:
  return records.DataError(f'{question.output} is not shared: {why}; name a place that every machine sees, '
                           'such as a bucket or a shared disk')

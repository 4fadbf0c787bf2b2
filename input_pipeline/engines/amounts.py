"""How much text there is before it is read: of some sources, how far they are compressed, and the bytes of all."""

from collections.abc import Sequence
from typing import Any, BinaryIO, cast

from input_pipeline import input_files, records
from input_pipeline.errors import RefusedError, StorageError
from input_pipeline.text import compression, files, sources, transforms

_SOURCES = 3  # that are looked into
WHAT_FAILS = records.DataError, RefusedError, StorageError, transforms.TransformError, OSError  # is told by the work


def text_bytes(parts: Sequence[sources.Part]) -> int | None:
  """About as much as will be read, decompressed; None where it cannot be told."""
  if sources.read_once(list(parts)) or not (stored := sum(part.stamp.bytes for part in parts)):
    return None
  looked_at = some_of([part for part in parts if part.stamp.bytes])
  try:
    content = sum(part.stamp.bytes * expansion(part.source) for part in looked_at)
  except WHAT_FAILS:
    return None
  return round(stored * content / sum(part.stamp.bytes for part in looked_at))


def some_of(parts: Sequence[sources.Part]) -> list[sources.Part]:
  """Of the first, of the middle and of the end."""
  return [parts[place] for place in sorted({len(parts) * number // _SOURCES for number in range(_SOURCES)})]


def words(count: float) -> str:
  """As in '1.5 GB'."""
  for unit in ('bytes', 'kB', 'MB', 'GB'):
    if count < 999.5:
      return f'{count:.3g} {unit}'
    count /= 1000
  return f'{count:.3g} TB'


def expansion(source: Any) -> float:
  """How many bytes of content a byte of a file is."""
  if not isinstance(source, files.File):
    return 1.
  with input_files.reading(source.at or source.name) as file:
    counted = _Counted(file)
    stream = compression.content(cast(BinaryIO, counted))
    content = len(stream.read(compression.BUFFER)) + len(stream.peek())
  return max(1, content) / max(1, counted.bytes)


class _Counted:
  """A file that counts what is read of it."""

  def __init__(self, file: BinaryIO):
    self.file, self.bytes = file, 0

  def read(self, size: int = -1) -> bytes:
    data = self.file.read(size)
    self.bytes += len(data)
    return data

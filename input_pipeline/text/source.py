"""What a source of text is: an object with a name and three methods.

`chunks` runs in one process: it opens, decompresses and splits into raw documents, in constant memory, and is fast.
`documents` turns what one chunk holds into documents, can run anywhere, and is where the time goes (wikitext above
all). `stamp` tells whether it is still the same data.
"""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Protocol

from input_pipeline.text.formats import Document


@dataclasses.dataclass(frozen=True)
class Stamp:
  """Tells data from other data: what a killed run left can be used while it is the same."""
  identity: str  # two sources that have the same one are the same data, whatever they are called
  bytes: int = 0
  time: int = 0
  content: str = ''  # what the manifest keeps of it, of a source whose content its bytes do not tell


@dataclasses.dataclass(frozen=True)
class Parsed:
  documents: tuple[Document, ...]
  counts: collections.Counter  # 'bytes' of the chunk, 'pages', and what was dropped, by reason


class Source(Protocol):
  """Text that `--input` can name.

  It travels to other processes, so it must be picklable, and so must what a chunk holds.
  """

  @property
  def name(self) -> str:
    """What messages call it."""

  def stamp(self) -> Stamp:
    """Which data it is."""

  def chunks(self, chunk_bytes: int) -> Iterator:
    """Its raw documents in parts of about so many bytes, always the same ones in the same order. Raises DataError."""

  def documents(self, content) -> Parsed:
    """The documents of one of its chunks, and the counts of what else was in it. Raises DataError."""

"""The formats of text: how a file is split into raw documents, and how these become Document(id, title, text).

`split(stream, name)` yields (offset, bytes, context) in constant memory; `parse(text, context, place, counts, options)`
gives a Document, or the name under which the document is counted as dropped: 'redirects', 'other_namespaces',
'other_models', 'empty'; it may add to `counts` what it left out of a document, and Options tell it where there is a
choice. A new format is these two functions and one line in FORMATS; a third function can recognize its files.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator
from typing import BinaryIO

from input_pipeline.text import document, lines, mediawiki, wikiextractor
from input_pipeline.text.document import Document, Options

USUAL = Options()
Parse = Callable[[str, tuple, str, collections.Counter, Options], Document | str]


@dataclasses.dataclass(frozen=True)
class Format:
  """How files of one kind are read. `parse` travels to other processes, so it is a function of a module."""
  split: Callable[[BinaryIO, str], Iterator[document.Raw]]
  parse: Parse
  # from a file's first bytes and its name; None: only --format names it
  recognize: Callable[[bytes, str], bool] | None = None


PLAIN = 'text'  # what no other format recognizes
FORMATS = {
    'mediawiki': Format(mediawiki.split, mediawiki.parse, mediawiki.recognize),
    'wikiextractor': Format(wikiextractor.split, wikiextractor.parse, wikiextractor.recognize),
    PLAIN: Format(lines.split_text, lines.parse_text),
    'jsonl': Format(lines.split_jsonl, lines.parse_jsonl, lines.is_jsonl)}


def recognize(head: bytes, name: str) -> str:
  """The format of a file from its first bytes (decompressed), and, where they leave it open, its name."""
  start = head.removeprefix(document.BOM).lstrip()
  return next((format for format, its in FORMATS.items() if its.recognize is not None and its.recognize(start, name)),
              PLAIN)

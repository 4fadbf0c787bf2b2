"""The formats of text: how a file is split into raw documents, and how these become Document(id, title, text).

`split(stream, name, options)` yields (offset, bytes, context) in constant memory; `parse(text, context, place, counts,
options)` gives a Document, or the name under which the document is counted as dropped: 'redirects', 'other_namespaces',
'other_models', 'empty'; it may add to `counts` what it left out of a document, and Options tell it where there is a
choice. A new format is these two functions and one line in FORMATS; a third function can recognize its files, and a
fourth split a part of one: the documents of all parts are those of the file, in its order.
"""

import collections
import dataclasses
import io
from collections.abc import Callable, Iterator
from typing import Any

from input_pipeline.text import columnar, document, json_files, lines, mediawiki, refused, tables, warc, wikiextractor
from input_pipeline.text.compression import Section
from input_pipeline.text.document import Document, Options

USUAL = Options()
Split = Callable[[io.BufferedReader, str, Options], Iterator[document.Raw]]
# of text, or of bytes where the format is `binary`
Parse = Callable[[Any, tuple, str, collections.Counter, Options], Document | str]
SplitSection = Callable[[Section, str, Options], Iterator[document.Raw]]


@dataclasses.dataclass(frozen=True)
class Format:
  """How files of one kind are read. `parse` travels to other processes, so it is a function of a module."""
  split: Split
  parse: Parse
  # from a file's first bytes and its name; None: only --format names it
  recognize: Callable[[bytes, str], bool] | None = None
  unit: str = 'byte'  # that offsets count
  binary: bool = False  # `parse` decodes on its own
  uses: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Options))  # of the options
  split_section: SplitSection | None = None  # None: what a document is hangs on all that is before it
  compressed: bool = True  # whether it can be split where the file is compressed


PLAIN = 'text'  # what no other format recognizes
FIELDS = 'lines', 'text_field', 'id_field', 'title_field'  # the options of what has named fields
FORMATS = {
    'mediawiki': Format(mediawiki.split, mediawiki.parse, mediawiki.recognize, uses=('keep_end_sections',),
                        split_section=mediawiki.split_section),
    'wikiextractor': Format(wikiextractor.split, wikiextractor.parse, wikiextractor.recognize, uses=(),
                            split_section=wikiextractor.split_section),
    PLAIN: Format(lines.split, lines.parse, uses=('documents', 'lines'), split_section=lines.split_section),
    'warc': Format(warc.split, warc.parse, warc.recognize, binary=True, uses=()),
    'cirrussearch': Format(json_files.split_cirrus, json_files.parse_cirrus, json_files.is_cirrus, uses=FIELDS),
    'jsonl': Format(json_files.split_lines, json_files.parse, json_files.is_lines, uses=FIELDS,
                    split_section=json_files.split_section),
    'json': Format(json_files.split_array, json_files.parse, json_files.is_array, uses=FIELDS),
    'csv': Format(tables.split_csv, tables.parse, tables.is_csv, uses=FIELDS),
    'tsv': Format(tables.split_tsv, tables.parse, tables.is_tsv, uses=FIELDS),
    'parquet': Format(columnar.split_parquet, json_files.parse, columnar.is_parquet, 'row', uses=FIELDS,
                      split_section=columnar.split_section, compressed=False),
    'arrow': Format(columnar.split_arrow, json_files.parse, columnar.is_arrow, 'row', uses=FIELDS)}


def recognize(head: bytes, name: str) -> str:
  """The format of a file from its first bytes (decompressed), and, where they leave it open, its name.

  Raises DataError for what is none of them, and no prose either.
  """
  start = head.removeprefix(document.BOM).lstrip()
  base = name.rpartition('/')[2]
  refused.check(head, start, name)
  for format, its in FORMATS.items():
    if its.recognize is not None and its.recognize(start, base):
      return format
  refused.check_prose(head, start, name)
  return PLAIN

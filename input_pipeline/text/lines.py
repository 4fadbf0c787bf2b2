"""Plain text and JSON lines."""

import collections
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from input_pipeline import records
from input_pipeline.text import document


def split_text(stream: BinaryIO, name: str) -> Iterator[document.Raw]:
  """A blank line, or the end of the file, ends a document."""
  lines, offset, start = [], 0, 0
  for line in stream:
    if offset == 0:
      line = line.removeprefix(document.BOM)
    if line.strip():
      lines.append(line)
    elif lines:
      yield start, b''.join(lines), ()
      lines = []
    offset += len(line)
    if not lines:
      start = offset
  if lines:
    yield start, b''.join(lines), ()


def parse_text(text: str, context: tuple, place: str, counts: collections.Counter,
               options: document.Options) -> document.Document | str:
  return document.make(None, '', text)


def is_jsonl(start: bytes, name: str) -> bool:
  return start.startswith(b'{') and bool(
      re.search(r'\.(jsonl|ndjson|json)\b', name) or re.match(rb'\{\s*"\w+"\s*:', start))


def split_jsonl(stream: BinaryIO, name: str) -> Iterator[document.Raw]:
  offset = 0
  for line in stream:
    if line.strip():
      yield offset, line.removeprefix(document.BOM), ()
    offset += len(line)


def parse_jsonl(text: str, context: tuple, place: str, counts: collections.Counter,
                options: document.Options) -> document.Document | str:
  try:
    fields = json.loads(text)
  except json.JSONDecodeError as error:
    raise records.DataError(
        f'{place}: not a JSON line ({error.msg} at column {error.colno}): {text.strip()[:60]!r}') from error
  if not isinstance(fields, dict) or not isinstance(fields.get('text'), str):
    found = ', '.join(map(str, fields)) if isinstance(fields, dict) else type(fields).__name__
    raise records.DataError(
        f'{place}: a JSON line without a "text" that is a string (found: {found}); wanted id, url, title, text')
  return document.make(fields.get('id'), str(fields.get('title') or ''), fields['text'])

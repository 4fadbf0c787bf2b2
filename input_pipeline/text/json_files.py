"""JSON: a value a line, the elements of one array, or CirrusSearch's dumps of a wiki."""

import collections
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from input_pipeline import records
from input_pipeline.text import document, fields, wikiextractor
from input_pipeline.text.compression import Section
from input_pipeline.text.document import Document, Options

_DIGITS = 4000  # Python makes no integer of many more
_DECODER = json.JSONDecoder(parse_int=lambda digits: int(digits) if len(digits) < _DIGITS else digits)
_SPACE = re.compile(r'[ \t\r\n]*')
_NAMED = re.compile(r'\.(jsonl|ndjson|json)\b')
_OBJECT = re.compile(r'\{\s*"(?:[^"\\\n]|\\.)*"\s*:\s*["\[{tfn\d-]')
_ELEMENT = re.compile(r'\[\s*' + _OBJECT.pattern)
_LOOKED_AT = 3  # elements of an array


def is_lines(start: bytes, name: str) -> bool:
  return _shape(start, name) == 'lines'


def is_array(start: bytes, name: str) -> bool:
  return _shape(start, name) == 'array'


def is_cirrus(start: bytes, name: str) -> bool:
  """Whether the first of its lines says which page of a search index the second is."""
  if not start.startswith(b'{"index"'):
    return False
  value = _decoded(start.partition(b'\n')[0].decode('latin-1'), 0)[0]
  return isinstance(value, dict) and isinstance(value.get('index'), dict)


def _shape(start: bytes, name: str) -> str | None:
  """'lines', 'array' (of which values one after the other are a kind), or None: by reading the first values."""
  if not start.startswith((b'{', b'[', b'"')):
    return None
  text = start.decode('latin-1')
  named = bool(_NAMED.search(name))
  if text[0] == '"':  # a string a line
    return 'lines' if named and isinstance(_decoded(text, 0)[0], str) else None
  if text[0] == '[':
    return 'array' if named or _begins_array(text) or _are_arrays(text) else None
  value, end = _decoded(text, 0)
  if value is None:  # longer than what was read of it, or no JSON: the key tells
    found = _OBJECT.match(text)
    if not found and not named:
      return None
    return 'lines' if found and '\n' not in found[0] else 'array'
  if not named and (not value or text[_SPACE.match(text, end).end():][:1] not in ('', '{')):
    return None
  return 'array' if '\n' in text[:end] else 'lines'


def _begins_array(text: str) -> bool:
  at = 1
  for _ in range(_LOOKED_AT):
    at = _SPACE.match(text, at).end()
    value, end = _decoded(text, at)
    if not isinstance(value, dict | str):
      return bool(_ELEMENT.match(text)) or text[at:at + 1] == ']' and not text[at + 1:].strip()
    at = _SPACE.match(text, end).end()
    if text[at:at + 1] != ',':
      return text[at:at + 1] == ']' and not text[at + 1:].strip() or at == len(text)
    at += 1
  return True


def _are_arrays(text: str) -> bool:
  """Whether each of the first lines is an array with a string in it, which is no document but no prose either."""
  values = [_decoded(line, 0) for line in text.splitlines()[:_LOOKED_AT]]
  return len(values) > 1 and all(isinstance(value, list) and any(isinstance(part, str) for part in value)
                                 for value, _ in values)


def _decoded(text: str, at: int) -> tuple[Any, int]:
  """(value, its end); (None, at) where there is no whole value, or one too deep."""
  try:
    return _DECODER.raw_decode(text, at)
  except (ValueError, RecursionError):
    return None, at

# ---------------------------------------------------------------- splitting


def split_lines(stream: io.BufferedReader, name: str, options: Options) -> Iterator[document.Raw]:
  for offset, line in document.bounded_lines(stream):
    if line is None or line.strip():
      yield offset, line, ()


def split_section(section: Section, name: str, options: Options) -> Iterator[document.Raw]:
  """Of a part of a file of lines, those that begin after its own beginning, up to the next part's."""
  first = document.pass_line(section.stream) if section.start else 0
  for offset, line in document.bounded_lines(section.stream, first):
    if offset > section.reached():
      break
    if line is None or line.strip():
      yield section.offset + offset, line, ()


def split_array(stream: io.BufferedReader, name: str, options: Options) -> Iterator[document.Raw]:
  """The elements of an array, or values one after the other. As Latin-1 a byte is a character: JSON's own are ASCII."""
  text, base, at, depth, ended = '', 0, 0, None, False
  while True:
    at = _SPACE.match(text, at).end()
    character = text[at:at + 1]
    if depth is None and character:  # the first of all
      depth = int(character == '[')
      at += depth
      continue
    if depth == 1 and character in (',', ']') and character:
      at, depth = at + 1, depth if character == ',' else 2  # 2: after the array
      continue
    if character:
      if depth == 2:
        raise records.DataError(f'{name}, byte {base + at}: after the end of the JSON array comes more: '
                                f'{text[at:at + 40]!r}')
      end = _end(text, at, f'{name}, byte {base + at}', ended)
      if end:
        yield base + at, text[at:end].encode('latin-1'), ()
        at = end
        continue
    if ended:
      if depth == 1:
        raise records.DataError(f'{name} is truncated: its JSON array has no end; wanted ] after the last element')
      return
    block = stream.read(max(document.READ, len(text) - at))  # twice as much each time that a value is not whole
    ended = not block
    if base == at == 0 and not text:
      block = block.removeprefix(document.BOM)
    text, base, at = text[at:] + block.decode('latin-1'), base + at, 0


def _end(text: str, at: int, place: str, ended: bool) -> int | None:
  """Where a value ends; None where more of it must be read first."""
  try:
    end = _DECODER.raw_decode(text, at)[1]
  except RecursionError as error:
    raise records.DataError(f'{place}: JSON that is nested too deeply to be read') from error
  except json.JSONDecodeError as error:
    if not ended and len(text) - at <= document.LONGEST_RECORD:
      return None
    size = f'; an element has at most {document.LONGEST_RECORD >> 20} MiB' if not ended else ''
    raise records.DataError(
        f'{place}: no JSON value ({error.msg} {error.pos - at} bytes on){size}: {text[at:at + 60]!r}') from error
  return None if end == len(text) and not ended and text[end - 1] not in '}]"' else end


def split_cirrus(stream: io.BufferedReader, name: str, options: Options) -> Iterator[document.Raw]:
  """Pairs of lines: which page, and what is in it."""
  page = None
  for offset, line in document.bounded_lines(stream):
    if line is not None and not line.strip():
      continue
    if page is None:
      page = offset, line
    else:
      start, first = page
      yield start, None if first is None or line is None else first + line, ()
      page = None
  if page is not None:
    raise records.DataError(f'{name} is truncated: it ends after the line that only names a page; download it again')

# ---------------------------------------------------------------- parsing


def parse(text: str, context: tuple, place: str, counts: collections.Counter, options: Options) -> Document | str:
  value = value_of(text, place)
  if isinstance(value, dict) and wikiextractor.is_json(value):
    value |= {name: wikiextractor.unescaped(value[name]) for name in ('title', 'text') if isinstance(value[name], str)}
  return _document(value, place, options)


def parse_cirrus(text: str, context: tuple, place: str, counts: collections.Counter,
                 options: Options) -> Document | str:
  first, _, second = text.partition('\n')
  index, page = value_of(first, place), value_of(second, place)
  if not isinstance(index, dict) or not isinstance(page, dict):
    raise records.DataError(f'{place}: wanted two lines of CirrusSearch, {{"index": …}} and the page')
  if page.get('namespace', 0) != 0:
    return 'other_namespaces'
  which = index.get('index')
  number = which.get('_id') if isinstance(which, dict) else None
  return _document({'id': number, 'text': None} | page, place, options)


def value_of(text: str, place: str) -> Any:
  try:
    value, end = _DECODER.raw_decode(text, _SPACE.match(text).end())
  except json.JSONDecodeError as error:
    raise records.DataError(
        f'{place}: not a JSON line ({error.msg} at column {error.colno}): {text.strip()[:60]!r}') from error
  except RecursionError as error:
    raise records.DataError(f'{place}: JSON that is nested too deeply to be read: {text.strip()[:60]!r}') from error
  if rest := text[end:].strip():
    raise records.DataError(f'{place}: not a JSON line (more after its value): {rest[:60]!r}')
  return value


def _document(value: Any, place: str, options: Options) -> Document | str:
  if isinstance(value, str):
    value = {options.text_field: value}
  if not isinstance(value, dict):
    raise records.DataError(f'{place}: JSON of the kind {type(value).__name__}: wanted an object with '
                            f'id, title and {options.text_field}, or a string')
  return fields.document_of(value, place, options)

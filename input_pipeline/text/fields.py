"""Records with named fields, of JSON or of a table: which of them are a document's id, title and text."""

from typing import Any

from input_pipeline import records
from input_pipeline.text import document, wrapping
from input_pipeline.text.document import Document, Options

_MISSING = object()
_LEAST = 20  # characters of what may be a text
_SHOWN = 12  # names of fields in a message


def document_of(fields: dict[str, Any], place: str, options: Options) -> Document | str:
  """The document that the fields are. A text that is a list is its lines. Raises DataError where there is no text."""
  text = _get(fields, options.text_field)
  if not isinstance(text, str) and isinstance(text, list) and all(isinstance(part, str) for part in text):
    text = '\n'.join(text)
  if text is None:
    return 'empty'
  if text is not _MISSING and not isinstance(text, str):
    raise records.DataError(f'{place}: {options.text_field!r} is {str(text)[:40]!r}, no text: '
                            '--text-field chooses another')
  if text is _MISSING:
    longest = _longest(fields)
    such_as = max(longest, key=longest.__getitem__) if longest else None
    raise records.DataError(f'{place}: {missing(list(fields), options.text_field, such_as)}')
  found = {}
  for name, chosen in (('id', options.id_field), ('title', options.title_field)):
    value = _get(fields, chosen or name)
    if value is _MISSING and chosen is not None:
      raise records.DataError(f'{place}: there is no {chosen!r}, which --{name}-field names; found: {_named(fields)}')
    found[name] = None if value is _MISSING or value != value else value  # a table's missing value is NaN
  title = '' if found['title'] is None else str(found['title'])
  text = wrapping.unwrapped(text, options.lines)
  made = document.make(found['id'], title, text)
  # a text that is its title is one all the same
  return document.make(found['id'], '', text) if made == 'empty' else made


def check_once(names: list[str], wanted: str, where: str) -> None:
  """Raises DataError where two columns have the name that is wanted: which one is meant is not known."""
  if names.count(wanted) > 1:
    raise records.DataError(f'{where} has {names.count(wanted)} columns {wanted!r}: give all but one another name')


def missing(names: list[str], wanted: str, such_as: str | None = None) -> str:
  """What to say where there is no text."""
  return (f'no text named {wanted!r} (found: {_named(names)}): --text-field chooses another'
          + (f', such as {such_as}' if such_as else ''))


def _get(fields: Any, name: str) -> Any:
  if not isinstance(fields, dict):
    return _MISSING
  if name in fields:
    return fields[name]
  outer, dot, inner = name.partition('.')
  return _get(fields.get(outer), inner) if dot else _MISSING


def _longest(fields: dict[str, Any], before: str = '') -> dict[str, int]:
  """The lengths of the fields that could be a text, those inside others as a.b."""
  found = {}
  for name, value in fields.items():
    if isinstance(value, str) and len(value) >= _LEAST:
      found[before + name] = len(value)
    elif isinstance(value, dict) and not before:
      found |= _longest(value, f'{name}.')
  return found


def _named(names: Any) -> str:
  names = [str(name)[:40] for name in names]
  return ', '.join(map(repr, names[:_SHOWN])) + (' …' if len(names) > _SHOWN else '') if names else 'nothing'

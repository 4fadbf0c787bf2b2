"""The names of a command's flags, and which of them a command line gives."""

import dataclasses
import typing
from collections.abc import Iterable
from typing import Any

from launch.commands.unknown import closest

NAMELESS = 'config', 'settings', 'reading', 'running', 'amount', 'own'  # whose fields are flags without a name in front

CASED = 'cased'  # the flag that is --no-lower-case by the word that people know


def flag(field: str) -> str:
  """'--batch.sequence-length' of 'batch.sequence_length'."""
  return '--' + field.replace('_', '-')


def flags_of(kind, default=None, before: str = '') -> dict[str, str]:
  """{'--batch.sequence-length': 'batch.sequence_length'}: every flag of a settings dataclass as tyro makes it, with no-
  of those that are on or off, and groups. `default`: an instance, whose fields may be of narrower classes."""
  kind = next((part for part in typing.get_args(kind) if isinstance(part, type)), kind)
  hints, found = typing.get_type_hints(kind, include_extras=True), {}
  for field in dataclasses.fields(kind):
    hint: Any = hints[field.name]
    called = next((extra.name for extra in getattr(hint, '__metadata__', ()) if getattr(extra, 'name', None)), None)
    value, name = getattr(default, field.name, None), before + (called or field.name)
    hint = type(value) if dataclasses.is_dataclass(value) else typing.get_type_hints(kind)[field.name]
    found[flag(name)] = name
    if dataclasses.is_dataclass(hint):
      found |= flags_of(hint, value, '' if field.name in NAMELESS else f'{name}.')
    elif is_switch(hint):
      head, dot, last = name.rpartition('.')
      found[flag(f'{head}{dot}no-{last}')] = name
      if last == 'lower_case':
        found[flag(f'{head}{dot}{CASED}')] = name
  return found


def switches(kind) -> dict[str, tuple[str, bool]]:
  """{'--no-lower-case': ('--lower-case', False)}: how a setting of three values is switched on or off."""
  kind = next((part for part in typing.get_args(kind) if isinstance(part, type)), kind)
  found: dict[str, tuple[str, bool]] = {}
  for name, hint in typing.get_type_hints(kind).items():
    if name in NAMELESS and dataclasses.is_dataclass(hint):
      found |= switches(hint)
    elif hint is not bool and is_switch(hint):
      on = flag(name)
      found |= {on: (on, True), flag(f'no-{name}'): (on, False)}
      found |= {flag(CASED): (on, False)} if name == 'lower_case' else {}
  return found


def is_switch(hint) -> bool:
  """Whether a field is on or off, or, by None, left to the program."""
  return hint is bool or set(typing.get_args(hint)) == {bool, type(None)}


def flag_words(argv: list[str]) -> list[tuple[str, str | None]]:
  """(flag, value that it has behind a =) of the words that are flags, with - where _ is written."""
  words = [word.partition('=') for word in argv if word.startswith('--') and word != '--']
  return [(name.replace('_', '-'), value if equals else None) for name, equals, value in words]


def given(argv: list[str], kind, default=None) -> dict[str, str]:
  """{'run.steps': '--run.steps'}: the settings that a command line sets, by the flags that it names."""
  known, found = flags_of(kind, default), {}
  for name, _ in flag_words(argv):
    if name in known:
      field = known[name]
      found |= {other: name for other in known.values() if other == field or other.startswith(f'{field}.')}
  return found


def meant(argv: list[str], kind, default=None) -> str:
  """'there is no flag X: did you mean --input?' of each word that is written nearly as a flag, and is none."""
  known = flags_of(kind, default)
  strange = [(name, closest(name, known)) for name, _ in flag_words(argv) if name not in known and name != '--help']
  return '; '.join(f'there is no flag {name}: did you mean {close}?' for name, close in strange if close)


def value_of(argv: list[str], name: str) -> str | None:
  """The last value of a flag on a command line, before it is parsed; None where it has none."""
  found = None
  for word, following in zip(argv, [*argv[1:], None]):
    own, equals, value = word.partition('=')
    if own.replace('_', '-') == name and (equals or following is not None):
      found = value if equals else following
  return found


def without(argv: Iterable[str], name: str) -> list[str]:
  """A command line without a flag and its value."""
  left, skipping = [], False
  for word in argv:
    own, equals, _ = word.partition('=')
    if skipping:
      skipping = False
    elif own.replace('_', '-') == name:
      skipping = not equals
    else:
      left.append(word)
  return left

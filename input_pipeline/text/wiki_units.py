"""{{convert|1300|mi|km}} → 1,300 miles (2,100 km), with the rounding of English Wikipedia's Module:Convert."""

import dataclasses
import math
import re
from collections.abc import Sequence

from input_pipeline.text import wiki_unit_table
from input_pipeline.text.wiki_unit_table import Unit

_JOINS = {'-': '–', '–': '–', 'to': ' to ', 'and': ' and ', '+/-': ' ± ', '±': ' ± ', 'x': ' × ', '×': ' × ',
          'by': ' by ', 'or': ' or ', 'to(-)': ' to ', 'and(-)': ' and ', ',': ', ', '&': ' & '}
_AMERICAN = re.compile(r'(met|lit)re')
_NUMBER = re.compile(r'[+\-−]?(?:\d[\d,]*\.?\d*|\.\d+)$')
_DIGITS = re.compile(r'-?\d{1,2}$')
_FRACTION = re.compile(r'(?:(\d+)[+ ])?(\d+)/+(\d+)$')
_OPTIONS = frozenset({
    'abbr', 'sp', 'adj', 'order', 'disp', 'sigfig', 'lk', 'comma', 'round', 'sing', 'sortable', 'debug'})
_SHAPES = {'': '{} ({})', 'flip': '{} ({})', 'or': '{} or {}', 'comma': '{}, {}', 'sqbr': '{} [{}]',
           'out': '', 'output only': '', 'number': '', 'output number only': ''}
_ROUNDS = {'': 0, 'each': 0, '0.5': 0.5, '5': 5, '10': 10, '25': 25, '50': 50}
_FEET_AND_INCHES = frozenset({'ftin', 'ft in', 'ft,in'})
_OFFSETS = {'C': 273.15, 'F': 459.67 * 5 / 9, 'K': 0.0}


@dataclasses.dataclass(frozen=True)
class _Value:
  number: float
  text: str  # as it is written
  decimals: int  # negative: so many zeros at the end


def convert(positional: Sequence[str], named: dict[str, str], abbreviated: bool) -> str | None:
  """What the template shows, None for what is not known here."""
  if set(named) - _OPTIONS or named.get('round', '') not in _ROUNDS or named.get('disp', '') not in _SHAPES:
    return None
  values, joins, words = _values([word for word in positional if word])
  unit = wiki_unit_table.find(words[0]) if words else None
  if unit is None or not values:
    return None
  code, rest = words[0], words[1:]
  if len(rest) > 1 and len(values) == 1 and (second := _value(rest[0])) and (small := wiki_unit_table.find(rest[1])):
    return _composite(values[0], unit, second, small, rest[1], rest[2:], named, abbreviated)
  adjective = named.get('adj', '')
  targets = [word for word in rest if not _DIGITS.match(word)]
  middle = targets.pop() if adjective == 'mid' and len(targets) > 1 else ''
  if adjective not in ('', 'on', 'off', 'no') and not middle or middle and not middle.startswith('-'):
    return None
  digits = next((int(word) for word in rest if _DIGITS.match(word)), None)
  outputs = _outputs(targets[0] if targets else '', unit, code, values)
  if not outputs:
    return None
  shown = [[_converted(value, code, output, digits, named) for value in values] for output in outputs]
  return _written(values, joins, unit, outputs, shown, middle, named, abbreviated)


def _values(words: list[str]) -> tuple[list[_Value], list[str], list[str]]:
  """The numbers at the beginning, what joins them, and the words after them; no numbers where a join ends them."""
  values, joins = [], []
  for at, word in enumerate(words):
    if at % 2 == 0:
      value = _value(word)
      if value is None:
        return [], [], []
      values.append(value)
    elif word in _JOINS:
      joins.append(_JOINS[word])
    else:
      return values, joins, words[at:]
  return [], [], []


def _outputs(target: str, unit: Unit, code: str, values: list[_Value]) -> list[str]:
  """The codes that a value is shown in too, [] where one is not known."""
  if not target:
    target = 'ftin' if code == 'm' and max(value.number for value in values) < 3 else unit.to
  if target in _FEET_AND_INCHES:
    return ['ftin'] if unit.kind == 'length' else []
  codes = [target] if wiki_unit_table.find(target) else target.replace(',', ' ').split()
  found = [wiki_unit_table.find(code) for code in codes]
  return codes if all(its is not None and its.kind == unit.kind for its in found) else []


def _value(text: str) -> _Value | None:
  text = text.replace('\xa0', '')
  if fraction := _FRACTION.match(text):
    whole, above, below = (int(part or 0) for part in fraction.groups())
    written = (f'{whole} ' if whole else '') + f'{above}⁄{below}'
    return _Value(whole + above / below, written, max(round(math.log10(below)), 1)) if below else None
  if not _NUMBER.match(text) or len(text) > 20:
    return None
  digits = text.replace(',', '').replace('−', '-')
  integer, dot, decimals = digits.lstrip('+-').partition('.')
  count = len(decimals) if dot else -(len(integer) - len(integer.rstrip('0'))) if integer.strip('0') else 0
  return _Value(float(digits), _grouped(float(digits), len(decimals)), count)


def _grouped(number: float, decimals: int) -> str:
  return f'{number:,.{max(decimals, 0)}f}'.replace('-', '−')


def _base(number: float, code: str, unit: Unit) -> float:
  return number * unit.scale + (_OFFSETS[wiki_unit_table.plain(code)] if unit.kind == 'temperature' else 0)


def _converted(value: _Value, code: str, output: str, digits: int | None, named: dict[str, str]) -> str:
  """A value in another unit, rounded; `code` is one that is known."""
  unit = wiki_unit_table.find(code)
  if output == 'ftin':
    inches = round(abs(value.number) * unit.scale / 0.0254)
    return f'{inches // 12:,} ft {inches % 12} in' if inches >= 12 else f'{inches} in'
  target = wiki_unit_table.find(output)
  base = _base(value.number, code, unit)
  offset = _OFFSETS[wiki_unit_table.plain(output)] if target.kind == 'temperature' else 0
  number = (base - offset) / target.scale
  if step := _ROUNDS[named.get('round', '')]:
    return _grouped(math.floor(number / step + 0.5) * step, 1 if step < 1 else 0)
  if digits is None:
    digits = _digits(value, number, base if target.kind == 'temperature' else 0.0, named.get('sigfig', ''))
  rounded = math.copysign(math.floor(abs(number) * 10.0**digits + 0.5 + 1e-9) / 10.0**digits, number)
  return _grouped(rounded or 0.0, digits)


def _digits(value: _Value, number: float, kelvins: float, significant: str) -> int:
  """The decimals of a converted value: as exact as what was given, and at least two figures."""
  if not number or not value.number and not kelvins:
    return 0
  size = math.floor(math.log10(abs(number)) + 1e-14)
  if significant.isdigit() and significant != '0':
    return int(significant[:2]) - 1 - size
  if kelvins:
    return max(value.decimals, 2 - math.floor(math.log10(abs(kelvins)) + 1e-14))
  return max(math.floor(value.decimals + math.log10(abs(value.number / number)) + math.log10(2)), 1 - size)


def _composite(value: _Value, unit: Unit, second: _Value, small: Unit, code: str, rest: list[str],
               named: dict[str, str], abbreviated: bool) -> str | None:
  """{{convert|5|ft|11|in|m}}: 5 feet 11 inches (1.80 m)"""
  targets = [word for word in rest if not _DIGITS.match(word)]
  output = targets[0] if targets else {'foot': 'm', 'pound': 'kg', 'stone': 'kg', 'mile': 'km'}.get(unit.name, unit.to)
  target = wiki_unit_table.find(output)
  if target is None or not target.kind == unit.kind == small.kind:
    return None
  total = (value.number * unit.scale + second.number * small.scale) / small.scale
  digits = next((int(word) for word in rest if _DIGITS.match(word)), None)
  if digits is None and unit.kind == 'length' and not named.get('sigfig'):
    digits = round(2 + math.log10(target.scale))  # centimetres
  shown = _converted(_Value(total, '', max(second.decimals, 0)), code, output, digits, named)
  if abbreviated or named.get('abbr') in ('on', 'in'):
    first = f'{value.text} {unit.symbol} {second.text} {small.symbol}'
  elif named.get('adj') == 'on':
    first = f'{value.text}-{unit.name}-{second.text}-{small.name}'
  else:
    first = f'{value.text} {_name(unit, value.number)} {second.text} {_name(small, second.number)}'
  return f'{first} ({shown} {target.symbol})'


def _name(unit: Unit, number: float) -> str:
  return unit.name if abs(number) == 1 else unit.names


def _written(values: list[_Value], joins: list[str], unit: Unit, outputs: list[str], shown: list[list[str]],
             middle: str, named: dict[str, str], abbreviated: bool) -> str:
  abbr, disp = named.get('abbr', ''), named.get('disp', '')
  adjective = named.get('adj') == 'on' or named.get('sing') == 'on' or bool(middle)
  degrees = unit.kind in ('temperature', 'difference')
  short_in = abbreviated or abbr in ('on', 'in') or degrees and abbr != 'off'
  short_out = abbreviated or abbr not in ('off', 'in')
  flipped = named.get('order') == 'flip' or disp == 'flip'
  own = [value.text for value in values], values[-1].number, unit
  sides = [_side(*own, joins, short_out if flipped else short_in, adjective and not flipped, middle)]
  for texts, output in zip(shown, outputs):
    first = flipped and len(sides) == 1
    target = wiki_unit_table.find(output)
    if target is None:  # feet and inches
      sides.append(_join(texts, joins))
      continue
    last = float(texts[-1].replace(',', '').replace('−', '-'))
    sides.append(_side(texts, last, target, joins, short_in if first else short_out, adjective and first, middle))
  if not (shape := _SHAPES[disp]):
    text = _join(shown[0], joins) if 'number' in disp else '; '.join(sides[1:])
  elif flipped:
    text = shape.format(sides[1], '; '.join([sides[0], *sides[2:]]))
  else:
    text = shape.format(sides[0], '; '.join(sides[1:]))
  return _AMERICAN.sub(r'\1er', text) if named.get('sp') == 'us' else text


def _side(texts: list[str], last: float, unit: Unit, joins: list[str], short: bool, adjective: bool,
          middle: str) -> str:
  numbers = _join(texts, joins)
  if short:
    space = '' if unit.symbol[0] in '/×' or adjective and middle else ' '
    return f'{numbers}{space}{unit.symbol}'
  if adjective:
    return f'{numbers}-{unit.name.replace(" ", "-")}{middle}'
  return f'{numbers} {_name(unit, last if len(texts) == 1 else 2)}'


def _join(texts: list[str], joins: list[str]) -> str:
  return texts[0] + ''.join(join + text for join, text in zip(joins, texts[1:]))

"""{{convert|1300|mi|km}} → 1,300 miles (2,100 km), with the rounding of English Wikipedia's Module:Convert."""

import dataclasses
import math
import re


@dataclasses.dataclass(frozen=True)
class Unit:
  kind: str
  scale: float  # in the kind's base unit
  symbol: str
  name: str  # of one
  to: str  # what it is converted into
  names: str = ''  # of many, where it is not the name with an s


_METRE, _SQUARE = 'length', 'area'
_TABLE = '''
  mm length 0.001 mm millimetre in; cm length 0.01 cm centimetre in; dm length 0.1 dm decimetre in; m length 1 m metre ft;
  km length 1000 km kilometre mi; in length 0.0254 in inch mm inches; ft length 0.3048 ft foot m feet;
  yd length 0.9144 yd yard m; mi length 1609.344 mi mile km; nmi length 1852 nmi nautical_mile km; fathom length 1.8288 fathom fathom m;
  furlong length 201.168 furlong furlong m; µm length 0.000001 μm micrometre in; nm length 0.000000001 nm nanometre in;
  ly length 9460730472580800 ly light-year pc; pc length 30856775814671900 pc parsec ly; AU length 149597870700 AU astronomical_unit km;
  hand length 0.1016 h hand cm; chain length 20.1168 chain chain m;
  m2 area 1 m2 square_metre sqft; cm2 area 0.0001 cm2 square_centimetre sqin; km2 area 1000000 km2 square_kilometre sqmi;
  ha area 10000 ha hectare acre; sqft area 0.09290304 sq_ft square_foot m2 square_feet; sqin area 0.00064516 sq_in square_inch cm2 square_inches;
  sqyd area 0.83612736 sq_yd square_yard m2; sqmi area 2589988.110336 sq_mi square_mile km2; acre area 4046.8564224 acre acre ha;
  mg mass 0.000001 mg milligram gr; g mass 0.001 g gram oz; kg mass 1 kg kilogram lb; t mass 1000 t tonne LT,ST; oz mass 0.028349523125 oz ounce g;
  lb mass 0.45359237 lb pound kg; st mass 6.35029318 st stone kg stone; LT mass 1016.0469088 long_tons long_ton t; ST mass 907.18474 short_tons short_ton t;
  carat mass 0.0002 carat carat g; gr mass 0.00006479891 gr grain mg;
  m/s speed 1 m/s metre_per_second ft/s metres_per_second; km/h speed 0.277777777777778 km/h kilometre_per_hour mph kilometres_per_hour;
  mph speed 0.44704 mph mile_per_hour km/h miles_per_hour; ft/s speed 0.3048 ft/s foot_per_second m/s feet_per_second;
  kn speed 0.514444444444444 kn knot km/h; km/s speed 1000 km/s kilometre_per_second mi/s kilometres_per_second; mi/s speed 1609.344 mi/s mile_per_second km/s miles_per_second;
  ml volume 0.000001 ml millilitre impfloz; mL volume 0.000001 mL millilitre USfloz; l volume 0.001 L litre impgal; L volume 0.001 L litre impgal;
  m3 volume 1 m3 cubic_metre cuft; cm3 volume 0.000001 cm3 cubic_centimetre cuin; cc volume 0.000001 cc cubic_centimetre cuin; km3 volume 1000000000 km3 cubic_kilometre cumi;
  cuft volume 0.028316846592 cu_ft cubic_foot m3 cubic_feet; cuin volume 0.000016387064 cu_in cubic_inch cm3 cubic_inches; cuyd volume 0.764554857984 cu_yd cubic_yard m3;
  cumi volume 4168181825.44058 cu_mi cubic_mile km3; acre.ft volume 1233.48183754752 acre.ft acre-foot m3 acre-feet; impgal volume 0.00454609 imp_gal imperial_gallon l;
  USgal volume 0.003785411784 US_gal US_gallon l; USfloz volume 0.0000295735295625 US_fl_oz US_fluid_ounce ml; impfloz volume 0.0000284130625 imp_fl_oz imperial_fluid_ounce ml;
  oilbbl volume 0.158987294928 bbl barrel m3; USqt volume 0.000946352946 US_qt US_quart l; USpt volume 0.000473176473 US_pt US_pint l; imppt volume 0.00056826125 imp_pt imperial_pint l;
  W power 1 W watt hp; kW power 1000 kW kilowatt hp; MW power 1000000 MW megawatt hp; hp power 745.699871582270 hp horsepower kW horsepower; PS power 735.49875 PS metric_horsepower kW metric_horsepower; bhp power 745.69987158227 bhp brake_horsepower kW brake_horsepower;
  Pa pressure 1 Pa pascal psi; kPa pressure 1000 kPa kilopascal psi; MPa pressure 1000000 MPa megapascal ksi; psi pressure 6894.75729316836 psi pound_per_square_inch kPa pounds_per_square_inch;
  ksi pressure 6894757.29316836 ksi kilopound_per_square_inch MPa kilopounds_per_square_inch; bar pressure 100000 bar bar kPa bars; mbar pressure 100 mbar millibar inHg; hPa pressure 100 hPa hectopascal inHg; inHg pressure 3386.388640341 inHg inch_of_mercury kPa inches_of_mercury; atm pressure 101325 atm standard_atmosphere kPa; mmHg pressure 133.322387415 mmHg millimetre_of_mercury kPa millimetres_of_mercury; Torr pressure 133.322368421053 Torr torr kPa torr;
  J energy 1 J joule cal; kJ energy 1000 kJ kilojoule kcal; MJ energy 1000000 MJ megajoule kWh; cal energy 4.184 cal calorie J; kcal energy 4184 kcal kilocalorie kJ; kWh energy 3600000 kWh kilowatt-hour MJ; GWh energy 3600000000000 GWh gigawatt-hour TJ; TJ energy 1000000000000 TJ terajoule GWh;
  N force 1 N newton lbf; kN force 1000 kN kilonewton lbf; lbf force 4.4482216152605 lbf pound-force N pounds-force;
  Nm torque 1 N⋅m newton-metre lbft; lbft torque 1.3558179483314 lb⋅ft pound-foot Nm pound-feet;
  /km2 density 0.000001 /km2 inhabitant_per_square_kilometre /sqmi inhabitants_per_square_kilometre; /sqmi density 0.00000038610215854 /sq_mi inhabitant_per_square_mile /km2 inhabitants_per_square_mile;
  oilbbl/d flow 0.00000184013074 bbl/d barrel_per_day m3/d barrels_per_day; m3/d flow 0.0000115740741 m3/d cubic_metre_per_day cuft/d cubic_metres_per_day; cuft/d flow 0.00000032774128 cu_ft/d cubic_foot_per_day m3/d cubic_feet_per_day;
  m3/s flow 1 m3/s cubic_metre_per_second cuft/s cubic_metres_per_second; cuft/s flow 0.028316846592 cu_ft/s cubic_foot_per_second m3/s cubic_feet_per_second;
  g/cm3 thickness 1000 g/cm3 gram_per_cubic_centimetre lb/cuin grams_per_cubic_centimetre; kg/m3 thickness 1 kg/m3 kilogram_per_cubic_metre lb/cuyd kilograms_per_cubic_metre; lb/cuin thickness 27679.9047102031 lb/cu_in pound_per_cubic_inch g/cm3 pounds_per_cubic_inch; lb/cuyd thickness 0.593276421257783 lb/cu_yd pound_per_cubic_yard kg/m3 pounds_per_cubic_yard;
  C temperature 1 °C degree_Celsius F degrees_Celsius; F temperature 0.555555555555556 °F degree_Fahrenheit C degrees_Fahrenheit; K temperature 1 K kelvin C kelvins;
  C-change difference 1 °C degree_Celsius F-change degrees_Celsius; F-change difference 0.555555555555556 °F degree_Fahrenheit C-change degrees_Fahrenheit'''


def _units() -> dict[str, Unit]:
  found = {}
  for line in _TABLE.split(';'):
    code, kind, scale, symbol, name, to, *names = line.split()
    spaced = [part.replace('_', ' ').replace('m2', 'm²').replace('m3', 'm³') for part in (symbol, name, *names)]
    found[code] = Unit(kind, float(scale), spaced[0], spaced[1], to, spaced[2] if names else '')
  for code, other in _ALIASES.items():
    found[code] = found[other]
  return found


_ALIASES = {
    'km²': 'km2', 'm²': 'm2', 'sqkm': 'km2', 'sq mi': 'sqmi', 'mi2': 'sqmi', 'ft2': 'sqft', 'sq ft': 'sqft', 'sqm': 'm2', 'foot': 'ft', 'feet': 'ft',
    'inch': 'in', 'inches': 'in', 'mile': 'mi', 'miles': 'mi', 'metre': 'm', 'meter': 'm', 'metres': 'm', 'meters': 'm', 'kilometre': 'km',
    'kilometer': 'km', 'kilometres': 'km', 'kilometers': 'km', 'yard': 'yd', 'yards': 'yd', 'acres': 'acre', 'hectare': 'ha', 'hectares': 'ha',
    'pound': 'lb', 'pounds': 'lb', 'lbs': 'lb', 'kilogram': 'kg', 'kilograms': 'kg', 'gram': 'g', 'grams': 'g', 'ounce': 'oz', 'ounces': 'oz', 'tonne': 't',
    'tonnes': 't', 'MT': 't', 'long ton': 'LT', 'short ton': 'ST', 'kph': 'km/h', 'kmh': 'km/h', 'mi/h': 'mph', 'knot': 'kn', 'knots': 'kn', 'litre': 'l', 'liter': 'l',
    'litres': 'l', 'liters': 'l', 'ft3': 'cuft', 'cu ft': 'cuft', 'in3': 'cuin', 'U.S.gal': 'USgal', 'USGAL': 'USgal', 'bbl': 'oilbbl', '°C': 'C', '°F': 'F', 'degC': 'C',
    'degF': 'F', 'celsius': 'C', 'fahrenheit': 'F', 'lbf.ft': 'lbft', 'lb.ft': 'lbft', 'ftlbf': 'lbft', 'N.m': 'Nm', 'N·m': 'Nm', 'PD/sqkm': '/km2', 'PD/km2': '/km2',
    'PD/sqmi': '/sqmi', 'ft/s2': 'ft/s', 'cuft/s': 'cuft/s', 'mi²': 'sqmi', 'smi': 'mi', 'NM': 'nmi', 'cc': 'cc', 'm³': 'm3', 'um': 'µm', 'μm': 'µm', '/sqkm': '/km2'}
UNITS = _units()
_JOINS = {'-': '–', '–': '–', 'to': ' to ', 'and': ' and ', '+/-': ' ± ', '±': ' ± ', 'x': ' × ', '×': ' × ', 'by': ' by ', 'or': ' or ', 'to(-)': ' to ',
          'and(-)': ' and ', ',': ', ', '&': ' & '}
_AMERICAN = re.compile(r'(met|lit)re')
_NUMBER = re.compile(r'[+\-−]?(?:\d[\d,]*\.?\d*|\.\d+)$')
_FRACTION = re.compile(r'(?:(\d+)[+ ])?(\d+)/+(\d+)$')
_OPTIONS = frozenset({'abbr', 'sp', 'adj', 'order', 'disp', 'sigfig', 'lk', 'comma', 'round', 'sing', 'spell', 'sortable', 'debug'})
_OFFSETS = {'C': 273.15, 'F': 459.67 * 5 / 9, 'K': 0.0}


@dataclasses.dataclass(frozen=True)
class _Value:
  number: float
  text: str  # as it is written
  decimals: int  # negative: so many zeros at the end


def convert(positional: tuple[str, ...], named: dict[str, str], abbreviated: bool) -> str | None:
  """What the template shows, None for what is not known here."""
  if set(named) - _OPTIONS or named.get('spell') or named.get('round', '') not in ('', 'each'):
    return None
  words = [word for word in positional if word]
  values, joins, at = [], [], 0
  while at < len(words) and (value := _value(words[at])):
    values.append(value)
    at += 1
    if at < len(words) and words[at] in _JOINS:
      joins.append(_JOINS[words[at]])
      at += 1
    else:
      break
  if len(values) != len(joins) + 1 or at >= len(words):
    return None
  code, rest = words[at], words[at + 1:]
  unit = UNITS.get(code)
  if unit is None:
    return None
  if rest and _value(rest[0]) and len(rest) > 1 and rest[1] in UNITS and UNITS[rest[1]].kind == unit.kind and len(values) == 1:
    return _composite(values[0], unit, rest, named, abbreviated)
  targets = [word for word in rest if not re.fullmatch(r'-?\d+', word)]
  digits = next((int(word) for word in rest if re.fullmatch(r'-?\d+', word)), None)
  target = targets[0] if targets else unit.to
  if target == 'ft' and not targets and code == 'm' and max(value.number for value in values) < 3:
    target = 'ftin'
  outputs = [target] if target in UNITS or target == 'ftin' else target.replace(',', ' ').split()
  shown = []
  for output in outputs:
    if output != 'ftin' and (output not in UNITS or UNITS[output].kind not in _kinds(unit.kind)):
      return None
    shown.append([_converted(value, code, output, digits, named.get('sigfig', '')) for value in values])
  return _written(values, joins, unit, code, outputs, shown, named, abbreviated)


def _kinds(kind: str) -> tuple[str, ...]:
  return (kind, 'temperature') if kind == 'temperature' else (kind,)


def _value(text: str) -> _Value | None:
  text = text.replace('&minus;', '-').replace('\xa0', '')
  if fraction := _FRACTION.match(text):
    whole, above, below = (int(part or 0) for part in fraction.groups())
    if not below:
      return None
    written = (f'{whole}+' if whole else '') + f'{above}⁄{below}'
    return _Value(whole + above / below, written.replace('+', ' '), max(round(math.log10(below)), 1))
  if not _NUMBER.match(text):
    return None
  digits = text.replace(',', '').replace('−', '-')
  whole, dot, decimals = digits.lstrip('+-').partition('.')
  count = len(decimals) if dot else -(len(whole) - len(whole.rstrip('0'))) if whole.strip('0') else 0
  return _Value(float(digits), _grouped(float(digits), len(decimals)), count)


def _grouped(number: float, decimals: int) -> str:
  return f'{number:,.{max(decimals, 0)}f}'.replace('-', '−')


def _base(number: float, code: str) -> float:
  unit = UNITS[code]
  return number * unit.scale + (_OFFSETS[_plain(code)] if unit.kind == 'temperature' else 0)


def _plain(code: str) -> str:
  return _ALIASES.get(code, code)


def _converted(value: _Value, code: str, output: str, digits: int | None, significant: str) -> str:
  if output == 'ftin':
    inches = round(abs(value.number) * UNITS[code].scale / 0.0254)
    return f'{inches // 12} ft {inches % 12} in' if inches >= 12 else f'{inches} in'
  unit = UNITS[output]
  number = _base(value.number, code)
  if unit.kind == 'temperature':
    number -= _OFFSETS[_plain(output)]
  number /= unit.scale
  if digits is None:
    digits = _digits(value, code, number, unit, int(significant) if significant.isdigit() else 0)
  number = math.copysign(math.floor(abs(number) * 10.0**digits + 0.5 + 1e-9) / 10.0**digits, number) if number else 0.0
  return _grouped(number + 0.0, digits)


def _digits(value: _Value, code: str, number: float, unit: Unit, significant: int) -> int:
  """The decimals of a converted value: as exact as what was given, and at least two figures."""
  if not number:
    return 0
  size = math.floor(math.log10(abs(number)) + 1e-14)
  if significant:
    return significant - 1 - size
  if unit.kind == 'temperature':
    kelvins = abs(_base(value.number, code))
    least, adjust = (2 - math.floor(math.log10(kelvins) + 1e-14), 0.0) if kelvins > 1e-8 else (2, 0.0)
    return max(math.floor(value.decimals + adjust), least)
  if not value.number:
    return 0
  return max(math.floor(value.decimals + math.log10(abs(value.number / number)) + math.log10(2)), 1 - size)


def _composite(value: _Value, unit: Unit, rest: list[str], named: dict[str, str], abbreviated: bool) -> str | None:
  """{{convert|5|ft|11|in|m}}: 5 feet 11 inches (1.80 m)"""
  second, small = _value(rest[0]), UNITS[rest[1]]
  targets = [word for word in rest[2:] if word in UNITS]
  output = targets[0] if targets else {'ft': 'm', 'lb': 'kg', 'st': 'kg', 'mi': 'km'}.get(unit.symbol, unit.to)
  if second is None or UNITS.get(output) is None or UNITS[output].kind != unit.kind:
    return None
  total = value.number * unit.scale + second.number * small.scale
  code = next(code for code in UNITS if UNITS[code] is small)
  as_small = _Value(total / small.scale, '', second.decimals if second.decimals > 0 else 0)
  digits = next((int(word) for word in rest[2:] if re.fullmatch(r'-?\d+', word)), None)
  if digits is None and unit.kind == 'length' and not named.get('sigfig'):
    digits = round(2 + math.log10(UNITS[output].scale))  # centimetres
  shown = _converted(as_small, code, output, digits, named.get('sigfig', ''))
  if abbreviated or named.get('abbr') in ('on', 'in'):
    first = f'{value.text} {unit.symbol} {second.text} {small.symbol}'
  elif named.get('adj') == 'on':
    first = f'{value.text}-{unit.name}-{second.text}-{small.name}'
  else:
    first = f'{value.text} {_name(unit, value.number)} {second.text} {_name(small, second.number)}'
  return f'{first} ({shown} {UNITS[output].symbol})'


def _name(unit: Unit, number: float) -> str:
  return unit.name if abs(number) == 1 else unit.names or f'{unit.name}s'


def _written(values: list[_Value], joins: list[str], unit: Unit, code: str, outputs: list[str], shown: list[list[str]],
             named: dict[str, str], abbreviated: bool) -> str | None:
  abbr, disp, adjective = named.get('abbr', ''), named.get('disp', ''), named.get('adj', '')
  if disp not in ('', 'or', 'comma', 'output only', 'number', 'out', 'b', 'flip', 'sqbr') or adjective not in ('', 'on', 'off', 'no'):
    return None
  adjective = adjective == 'on' or named.get('sing') == 'on'
  short_in = abbreviated or abbr in ('on', 'in') or unit.kind in ('temperature', 'difference') and abbr != 'off'
  short_out = abbr not in ('off', 'in') or abbreviated
  flipped = named.get('order') == 'flip' or disp == 'flip'
  sides = [_side([value.text for value in values], values[-1].number, joins, unit, short_out if flipped else short_in,
                 adjective and not flipped)]
  for number, output in enumerate(outputs):
    target = UNITS['ft' if output == 'ftin' else output]
    texts = shown[number]
    if output == 'ftin':
      sides.append(_join(texts, joins))
      continue
    first = flipped and number == 0
    last = float(texts[-1].replace(',', '').replace('−', '-'))
    short = (short_in or abbr == 'out' and not first) if first else short_out
    sides.append(_side(texts, last, joins, target, short, adjective and first))
  if disp in ('number', 'output only', 'out'):
    return _join(shown[0], joins) if disp == 'number' else '; '.join(sides[1:])
  first, others = (sides[1], [sides[0], *sides[2:]]) if flipped else (sides[0], sides[1:])
  text = {'or': '{} or {}', 'comma': '{}, {}', 'sqbr': '{} [{}]'}.get(disp, '{} ({})').format(first, '; '.join(others))
  return _AMERICAN.sub(r'\1er', text) if named.get('sp') == 'us' else text


def _side(texts: list[str], last: float, joins: list[str], unit: Unit, short: bool, adjective: bool) -> str:
  numbers = _join(texts, joins)
  if short:
    symbol = unit.symbol
    return numbers + symbol if symbol[0] == '/' else f'{numbers} {symbol}'
  return f'{numbers}-{unit.name.replace(" ", "-")}' if adjective else f'{numbers} {_name(unit, last if len(texts) == 1 else 2)}'


def _join(texts: list[str], joins: list[str]) -> str:
  return texts[0] + ''.join(join + text for join, text in zip(joins, texts[1:]))

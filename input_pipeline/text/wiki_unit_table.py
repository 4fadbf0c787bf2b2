"""Units of {{convert}}: their size, their names, and what each is converted into."""

import dataclasses
import functools
import re

_THOUSANDS = {3: 'thousand', 6: 'million', 9: 'billion', 12: 'trillion'}
_RAISED = {3: '³', 6: '⁶', 9: '⁹', 12: '¹²'}
_LETTERS = {'k': 3, 'M': 6, 'G': 9, 'T': 12}
_PREFIXED = re.compile(r'(?:e(3|6|9|12)|([kMGT]))(.+)$')
_WITH_LETTERS = frozenset({'oilbbl', 'oilbbl/d', 'cuft', 'USgal', 'impgal'})  # where a letter is not the SI's own


@dataclasses.dataclass(frozen=True)
class Unit:
  kind: str
  scale: float  # in the kind's base unit
  symbol: str
  name: str  # of one
  to: str  # what it is converted into
  names: str  # of many


@functools.lru_cache(maxsize=1024)
def find(code: str) -> Unit | None:
  """The unit of a code such as km, e6acre (millions of acres) or Moilbbl."""
  code = plain(code)
  if code in _UNITS:
    return _UNITS[code]
  prefixed = _PREFIXED.match(code)
  base = _UNITS.get(plain(prefixed[3])) if prefixed else None
  if base is None or prefixed[2] and prefixed[3] not in _WITH_LETTERS:
    return None
  power = int(prefixed[1] or _LETTERS[prefixed[2]])
  name = f'{_THOUSANDS[power]} {base.names}'
  symbol = f'×10{_RAISED[power]} {base.symbol}'
  return Unit(base.kind, base.scale * 10**power, symbol, name, f'e{power}{base.to}', name)


def plain(code: str) -> str:
  return _ALIASES.get(code, code)


def _read() -> dict[str, Unit]:
  found = {}
  for kind, table in _TABLE.items():
    for line in table.split(';'):
      code, scale, *words = line.split()
      symbol, name, to, *names = (word.replace('_', ' ').replace('m2', 'm²').replace('m3', 'm³') for word in words)
      found[code] = Unit(kind, float(scale), symbol, name, words[2], names[0] if names else f'{name}s')
  return found


# Of each unit: code, size in the kind's base, symbol, name of one, what it is converted into, name of many.
_TABLE = {
    'length': '''
      mm 0.001 mm millimetre in; cm 0.01 cm centimetre in; dm 0.1 dm decimetre in; m 1 m metre ft;
      km 1000 km kilometre mi; in 0.0254 in inch mm inches; ft 0.3048 ft foot m feet; yd 0.9144 yd yard m;
      mi 1609.344 mi mile km; nmi 1852 nmi nautical_mile km; fathom 1.8288 fathom fathom m;
      furlong 201.168 furlong furlong m; µm 0.000001 μm micrometre in; nm 0.000000001 nm nanometre in;
      ly 9460730472580800 ly light-year pc; pc 30856775814671900 pc parsec ly;
      AU 149597870700 AU astronomical_unit km; hand 0.1016 h hand cm; chain 20.1168 chain chain m''',
    'area': '''
      m2 1 m2 square_metre sqft; cm2 0.0001 cm2 square_centimetre sqin; km2 1000000 km2 square_kilometre sqmi;
      ha 10000 ha hectare acre; sqft 0.09290304 sq_ft square_foot m2 square_feet;
      sqin 0.00064516 sq_in square_inch cm2 square_inches; sqyd 0.83612736 sq_yd square_yard m2;
      sqmi 2589988.110336 sq_mi square_mile km2; acre 4046.8564224 acre acre ha''',
    'mass': '''
      mg 0.000001 mg milligram gr; g 0.001 g gram oz; kg 1 kg kilogram lb; t 1000 t tonne LT,ST;
      oz 0.028349523125 oz ounce g; lb 0.45359237 lb pound kg; st 6.35029318 st stone kg stone;
      LT 1016.0469088 long_tons long_ton t; ST 907.18474 short_tons short_ton t; carat 0.0002 carat carat g;
      gr 0.00006479891 gr grain mg''',
    'speed': '''
      m/s 1 m/s metre_per_second ft/s metres_per_second;
      km/h 0.277777777777778 km/h kilometre_per_hour mph kilometres_per_hour;
      mph 0.44704 mph mile_per_hour km/h miles_per_hour; ft/s 0.3048 ft/s foot_per_second m/s feet_per_second;
      kn 0.514444444444444 kn knot km/h; km/s 1000 km/s kilometre_per_second mi/s kilometres_per_second;
      mi/s 1609.344 mi/s mile_per_second km/s miles_per_second''',
    'volume': '''
      ml 0.000001 ml millilitre impfloz; mL 0.000001 mL millilitre USfloz; l 0.001 L litre impgal;
      L 0.001 L litre impgal; m3 1 m3 cubic_metre cuft; cm3 0.000001 cm3 cubic_centimetre cuin;
      cc 0.000001 cc cubic_centimetre cuin; km3 1000000000 km3 cubic_kilometre cumi;
      cuft 0.028316846592 cu_ft cubic_foot m3 cubic_feet; cuin 0.000016387064 cu_in cubic_inch cm3 cubic_inches;
      cuyd 0.764554857984 cu_yd cubic_yard m3; cumi 4168181825.44058 cu_mi cubic_mile km3;
      acre.ft 1233.48183754752 acre.ft acre-foot m3 acre-feet; impgal 0.00454609 imp_gal imperial_gallon l;
      USgal 0.003785411784 US_gal US_gallon l; USfloz 0.0000295735295625 US_fl_oz US_fluid_ounce ml;
      impfloz 0.0000284130625 imp_fl_oz imperial_fluid_ounce ml; oilbbl 0.158987294928 bbl barrel m3;
      USqt 0.000946352946 US_qt US_quart l; USpt 0.000473176473 US_pt US_pint l;
      imppt 0.00056826125 imp_pt imperial_pint l''',
    'power': '''
      W 1 W watt hp; kW 1000 kW kilowatt hp; MW 1000000 MW megawatt hp;
      hp 745.699871582270 hp horsepower kW horsepower; PS 735.49875 PS metric_horsepower kW metric_horsepower;
      bhp 745.69987158227 bhp brake_horsepower kW brake_horsepower''',
    'pressure': '''
      Pa 1 Pa pascal psi; kPa 1000 kPa kilopascal psi; MPa 1000000 MPa megapascal ksi;
      psi 6894.75729316836 psi pound_per_square_inch kPa pounds_per_square_inch;
      ksi 6894757.29316836 ksi kilopound_per_square_inch MPa kilopounds_per_square_inch; bar 100000 bar bar kPa bars;
      mbar 100 mbar millibar inHg; hPa 100 hPa hectopascal inHg;
      inHg 3386.388640341 inHg inch_of_mercury kPa inches_of_mercury; atm 101325 atm standard_atmosphere kPa;
      mmHg 133.322387415 mmHg millimetre_of_mercury kPa millimetres_of_mercury;
      Torr 133.322368421053 Torr torr kPa torr''',
    'energy': '''
      J 1 J joule cal; kJ 1000 kJ kilojoule kcal; MJ 1000000 MJ megajoule kWh; cal 4.184 cal calorie J;
      kcal 4184 kcal kilocalorie kJ; kWh 3600000 kWh kilowatt-hour MJ; GWh 3600000000000 GWh gigawatt-hour TJ;
      TJ 1000000000000 TJ terajoule GWh''',
    'force': '''
      N 1 N newton lbf; kN 1000 kN kilonewton lbf; lbf 4.4482216152605 lbf pound-force N pounds-force''',
    'torque': '''
      Nm 1 N⋅m newton-metre lbft; lbft 1.3558179483314 lb⋅ft pound-foot Nm pound-feet''',
    'density': '''
      /km2 0.000001 /km2 inhabitant_per_square_kilometre /sqmi inhabitants_per_square_kilometre;
      /sqmi 0.00000038610215854 /sq_mi inhabitant_per_square_mile /km2 inhabitants_per_square_mile''',
    'flow': '''
      oilbbl/d 0.00000184013074 bbl/d barrel_per_day m3/d barrels_per_day;
      m3/d 0.0000115740741 m3/d cubic_metre_per_day cuft/d cubic_metres_per_day;
      cuft/d 0.00000032774128 cu_ft/d cubic_foot_per_day m3/d cubic_feet_per_day;
      m3/s 1 m3/s cubic_metre_per_second cuft/s cubic_metres_per_second;
      cuft/s 0.028316846592 cu_ft/s cubic_foot_per_second m3/s cubic_feet_per_second''',
    'thickness': '''
      g/cm3 1000 g/cm3 gram_per_cubic_centimetre lb/cuin grams_per_cubic_centimetre;
      kg/m3 1 kg/m3 kilogram_per_cubic_metre lb/cuyd kilograms_per_cubic_metre;
      lb/cuin 27679.9047102031 lb/cu_in pound_per_cubic_inch g/cm3 pounds_per_cubic_inch;
      lb/cuyd 0.593276421257783 lb/cu_yd pound_per_cubic_yard kg/m3 pounds_per_cubic_yard''',
    'temperature': '''
      C 1 °C degree_Celsius F degrees_Celsius; F 0.555555555555556 °F degree_Fahrenheit C degrees_Fahrenheit;
      K 1 K kelvin C kelvins''',
    'difference': '''
      C-change 1 °C degree_Celsius F-change degrees_Celsius;
      F-change 0.555555555555556 °F degree_Fahrenheit C-change degrees_Fahrenheit'''}
# Code: other ways to write it.
_OTHERS = '''
  km2: km², sqkm; m2: m², sqm; sqmi: sq mi, mi2, mi²; sqft: ft2, sq ft; ft: foot, feet; in: inch, inches;
  mi: mile, miles, smi; m: metre, meter, metres, meters; km: kilometre, kilometer, kilometres, kilometers;
  yd: yard, yards; acre: acres; ha: hectare, hectares; lb: pound, pounds, lbs; kg: kilogram, kilograms;
  g: gram, grams; oz: ounce, ounces; t: tonne, tonnes, MT; LT: long ton; ST: short ton; km/h: kph, kmh; mph: mi/h;
  kn: knot, knots; l: litre, liter, litres, liters; cuft: ft3, cu ft; cuin: in3; USgal: U.S.gal, USGAL;
  oilbbl: bbl; C: °C, degC, celsius; F: °F, degF, fahrenheit; lbft: lbf.ft, lb.ft, ftlbf; Nm: N.m, N·m;
  /km2: PD/sqkm, PD/km2, /sqkm; /sqmi: PD/sqmi; ft/s: ft/s2; nmi: NM; m3: m³; µm: um, μm'''
_UNITS = _read()
_ALIASES = {other.strip(): code.strip() for code, colon, others in (line.partition(':') for line in _OTHERS.split(';'))
            for other in others.split(',')}

"""What templates show, by name: one function or one line each, in the languages of the large wikis.

A function takes a Call and gives wikitext, or None where it cannot tell what the reader sees.
"""

import collections
import dataclasses
import re
from collections.abc import Callable

from input_pipeline.text import wiki_math, wiki_units
from input_pipeline.text.wiki_marks import ASIDE, GAP, LOST, MARKS, UNKNOWN, shield, unshield
from input_pipeline.text.wiki_names import (
    ASIDES, FIRST, GERMAN, INVISIBLE, INVISIBLE_BEGINNINGS, LANGUAGES, LAST, QUOTES, SECOND, SHIPS, SYMBOLS, TEXT_OR_TITLE,
    TWICE)
from input_pipeline.text.wiki_site import Site

_LONGEST_NAME = 60  # characters of a name that is counted
_NO_TITLE = re.compile(r'[\[\]{}<>\n]')
_PREFIX = re.compile(r'(?:(?:safe)?subst|msg|template|vorlage|modèle|plantilla|шаблон|predefinição|szablon|sjabloon):\s*',
                     re.IGNORECASE)
_MONTHS = ('', 'January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October',
           'November', 'December')
_MARKED = re.compile(f'[{MARKS}]')


@dataclasses.dataclass(frozen=True)
class Page:
  """Where a template stands."""
  site: Site
  title: str = ''


@dataclasses.dataclass(frozen=True)
class Call:
  """{{name|positional|key=value}}."""
  name: str  # lower-case
  positional: tuple[str, ...]
  named: dict[str, str]
  page: Page

  def get(self, *keys: int | str) -> str:
    """The first of these arguments, numbers from 1 or names, that is not empty; ''."""
    for key in keys:
      if isinstance(key, int) and key <= len(self.positional) and self.positional[key - 1]:
        return self.positional[key - 1]
      if value := self.named.get(str(key)):
        return value
    return ''


def show(parts: list[str], page: Page, counts: collections.Counter) -> str:
  """What a template shows, '' where that is nothing; or the mark of what it may have shown, which is then counted."""
  name = ' '.join(parts[0].replace('_', ' ').split())
  if _NO_TITLE.search(parts[0].strip()) and '\n' not in parts[0].strip():
    return shield('{{') + '|'.join(parts) + shield('}}')  # as MediaWiki does: this is no template's name
  name = _PREFIX.sub('', name)
  lower = unshield(name.lower())
  function = TEMPLATES.get(lower)
  head, colon, rest = name.partition(':')
  if function is None and colon and head.lower().strip() in PARSER_FUNCTIONS:
    function, lower, parts = PARSER_FUNCTIONS[head.lower().strip()], head.lower().strip(), ['', rest, *parts[1:]]
  if function is None:
    function = next((its for pattern, its in PATTERNS if pattern.match(lower)), None)
  if function is None:
    shown = GAP if lower.startswith(INVISIBLE_BEGINNINGS) else UNKNOWN
  else:
    shown = function(_call(lower, parts, page))
  if shown is None:
    shown = LOST
  if not shown.strip():
    return shown or GAP
  if shown in (GAP, UNKNOWN, ASIDE, LOST):
    counts['template/' + _MARKED.sub('?', unshield(name))[:_LONGEST_NAME]] += 1
  return shown


def _call(name: str, parts: list[str], page: Page) -> Call:
  positional, named = [], {}
  for part in parts[1:]:
    key, equals, value = part.partition('=')
    key = key.strip()
    if equals and len(key) < 40 and '[[' not in key:
      named[key.lower()] = value.strip()
    else:
      positional.append(part.strip())
  return Call(name, tuple(positional), named, page)


def _argument(*keys: int | str) -> Callable[[Call], str]:
  return lambda call: call.get(*keys)


def _constant(text: str) -> Callable[[Call], str]:
  return lambda call: text


def _nothing(call: Call) -> str:
  return GAP


def _aside(call: Call) -> str:
  return ASIDE


def _last(call: Call) -> str:
  return call.positional[-1] if call.positional else call.get('text', 'lt')


def _joined(call: Call) -> str:
  return ''.join(call.positional)


def _spaced(call: Call) -> str:
  return ', '.join(call.positional)


def _block(call: Call) -> str:
  text = call.get('text', 'quote', 'zitat', 'citat', 'cita', 'texte', 'texto', 1)
  return f'\n\n{text}\n\n'


def _nihongo(call: Call) -> str:
  """english (kanji, romaji, extra) extra2"""
  english, kanji, romaji, more = (call.get(i) for i in range(1, 5))
  inside = ', '.join(filter(None, (kanji, romaji and f"''{romaji}''", more or call.get('extra'))))
  if not english:
    return f"''{romaji}'' ({kanji})" if romaji else kanji
  return f'{english} ({inside})' if inside else english


def _nihongo_romaji_first(call: Call) -> str:
  first, *inside = filter(None, (call.get(3), call.get(2), call.get(1)) if call.name.endswith('krt') else
                          (call.get(3), call.get(2), call.get(1)))
  return f"''{first}'' ({', '.join(inside)})" if inside else first


def _labelled(call: Call) -> str:
  """{{lang-de|Fluss}}: German: Fluss."""
  code = call.name.partition('-')[2]
  return _with_language(code, call.get(1, 'text'), call)


def _langx(call: Call) -> str:
  return _with_language(call.get(1), call.get(2, 'text'), call)


def _with_language(code: str, text: str, call: Call) -> str:
  """English Wikipedia writes the language before the words; elsewhere its abbreviation is left out."""
  name = LANGUAGES.get(code.lower()) or LANGUAGES.get(code.partition('-')[0].lower())
  if call.page.site.language not in ('en', '', 'simple') or not name or call.get('label') == 'none':
    return text
  translated = call.get('lit', 'translation', 3 if call.name == 'langx' else 'lit')
  return f"{name}: ''{text}''" + (f', lit. ‘{translated}’' if translated and text else '') if text else ''


def _german(call: Call) -> str | None:
  """{{enS|river}}: englisch river"""
  return f"{GERMAN[call.name[:-1]]} ''{call.get(1)}''" if call.page.site.language == 'de' else None


def _chinese(call: Call) -> str | None:
  """{{zh|t=…|s=…|p=…}}"""
  names = {'c': 'Chinese', 's': 'simplified Chinese', 't': 'traditional Chinese', 'p': 'pinyin', 'hp': 'pinyin',
           'w': 'Wade–Giles', 'j': 'Jyutping', 'y': 'Cantonese Yale', 'l': 'lit.', 'poj': 'Pe̍h-ōe-jī'}
  if call.get('labels') == 'no':
    names = dict.fromkeys(names, '')
  shown = [f'{label}: {call.named[key]}' if label else call.named[key]
           for key, label in names.items() if call.named.get(key)]
  return '; '.join(shown) or (call.get(1) or None)


def _formatted(call: Call) -> str | None:
  number = call.get(1)
  return number.replace(',', '') if call.get(2).lower() == 'r' else call.page.site.number(number)


def _fraction(call: Call) -> str | None:
  parts = [part for part in call.positional if part]
  if len(parts) == 1:
    return f'1⁄{parts[0]}'
  return {2: '{}⁄{}', 3: '{} {}⁄{}'}[len(parts)].format(*parts) if len(parts) in (2, 3) else None


def _as_of(call: Call) -> str | None:
  """{{as of|2010|5|lc=y}}: as of May 2010"""
  if call.get('alt'):
    return call.get('alt')
  date = _date(call.get(1), call.get(2), call.get(3), call.get('df'))
  word = 'since' if call.get('since') else 'as of'
  if date is None:
    return None
  return f'{word if call.get("lc") else word.capitalize()} {date}' + call.get('post')


def _date(year: str, month: str = '', day: str = '', df: str = '') -> str | None:
  if month.isdigit() and 1 <= int(month) <= 12:
    month = _MONTHS[int(month)]
  if not year or not (month or not day) or month.isdigit():
    return None
  day = str(int(day)) if day.isdigit() else day
  if df.startswith('m') and day:
    return f'{month} {day}, {year}'
  return ' '.join(filter(None, (day, month, year)))


def _birth(call: Call) -> str | None:
  numbers = [part for part in call.positional if part.isdigit()]
  df = 'd' if call.get('df') or call.get('mf') in ('no', 'n') else 'm'
  return _date(*numbers[:3], df=df) if 1 <= len(numbers) <= 3 else None


def _before(text: str) -> Callable[[Call], str | None]:
  """{{circa|1900}}: c. 1900; {{reign|1900|1910}}: r. 1900–1910"""
  def shown(call: Call) -> str | None:
    years = '–'.join(filter(None, call.positional[:2]))
    return f'{text} {years}' if years else text
  return shown


def _money(sign: str) -> Callable[[Call], str | None]:
  def shown(call: Call) -> str | None:
    amount = call.get(1)
    return sign + (f'{int(amount):,}' if amount.isdigit() and len(amount) > 4 else amount)
  return shown


def _ordinal(call: Call) -> str | None:
  number = call.get(1)
  if not number.isdigit():
    return None
  ending = 'th' if number[-2:] in ('11', '12', '13') else {'1': 'st', '2': 'nd', '3': 'rd'}.get(number[-1], 'th')
  return number + ending


def _value(call: Call) -> str | None:
  """{{val|1.5|u=km}}; without uncertainties of two kinds and the like."""
  if len(call.positional) > 2 or set(call.named) - {'u', 'ul', 'e', 'p', 's', 'fmt', 'end', 'up', 'upl'}:
    return None
  number = call.get('p') + call.page.site.number(call.get(1)) + call.get('s')
  if call.get(2):
    number += call.get(2) if call.get(2).startswith('(') else f' ± {call.get(2)}'
  if call.get('e'):
    number = (f'({number})' if '±' in number else number) + '×10' + wiki_math.superscript(call.get('e').replace('-', '−'))
  unit = call.get('u', 'ul')
  if '/' in unit or '[' in unit or call.get('up', 'upl'):
    return None
  return f'{number} {unit}' if unit and unit not in '%°' else number + unit


def _ship(prefix: str) -> Callable[[Call], str | None]:
  """{{HMS|Victory|1765}}: HMS Victory (1765); {{ship|French ship|Sphinx|1850}} brings the prefix."""
  def shown(call: Call) -> str | None:
    words = list(call.positional) if not prefix else [prefix, *call.positional]
    words += [''] * (4 - len(words))
    before, name, number, style = words[:4]
    if not name or style not in ('', '2', '6', '3'):
      return None
    full = ' '.join(filter(None, (before if style != '6' else '', f"''{name}''")))
    return f'{full} ({number})' if number and style not in ('2', '6') else full
  return shown


def _ship_class(call: Call) -> str | None:
  name, kind, style = call.get(1), call.get(2), call.get(3)
  if not name or style not in ('', '0', '1', '2', '3', '4', '5'):
    return None
  name = f"''{name}''" if call.name.endswith('2') is False else name
  return {'1': f'{name} class', '4': f'{name} class {kind}', '5': kind and f"{name}"}.get(style) or (
      f'{name}-class {kind}'.strip() if kind else f'{name} class')


def _sortname(call: Call) -> str:
  return f'{call.get(1)} {call.get(2)}'.strip()


def _harvard(call: Call) -> str | None:
  """{{harvtxt|Smith|Jones|2000}}: Smith & Jones (2000)"""
  *names, year = call.positional or ('',)
  return (f'{", ".join(names[:-1])} & {names[-1]}' if len(names) > 1 else names[0]) + f' ({year})' if names else None


def _century(call: Call) -> str | None:
  """{{s|XIX}}: XIXe siècle; {{s-|XIX}}: XIXe"""
  if not call.get(1) or call.page.site.language != 'fr':
    return None if call.get(1) else ''
  after = 'er' if call.get(1).upper() == 'I' or call.get(2) == 'er' else 'e'
  tail = {'s': ' siècle', 's-': '', "av jc": ''}[call.name]
  return call.get(1) + after + tail


def _french_date(call: Call) -> str | None:
  day, *rest = (*call.positional, '')
  if call.page.site.language != 'fr' and call.name == 'date':
    return None
  words = [part for part in (day, *rest)[:3] if part]
  return ' '.join(words) if words else None


def _unit(call: Call) -> str | None:
  """{{unité|12|km}}: 12 km"""
  number, unit = call.get(1), call.get(2)
  if len([part for part in call.positional if part]) > 2:
    return None
  return f'{call.page.site.number(number.replace(" ", ""))} {unit}'.strip() if number else None


def _nulled(text: str) -> Callable[[Call], str | None]:
  """A template that shows one sign without arguments, and more with them."""
  return lambda call: text if not call.positional else None


def _chemical(call: Call) -> str | None:
  """{{chem|H|2|O}} and {{chem2|H2O}}"""
  if call.name == 'chem2':
    return wiki_math.chemical(call.get(1))
  parts = [wiki_math.subscript(part) if part.isdigit() else part for part in call.positional if part]
  return None if any(re.search(r'[+−^-]', part) for part in parts) else ''.join(parts)


def _ages(call: Call) -> str | None:
  """{{death date and age|2000|1|2|1930|3|4}}"""
  numbers = [int(part) for part in call.positional if part.isdigit()]
  if len(numbers) != 6:
    return None
  age = numbers[0] - numbers[3] - (numbers[1:3] < numbers[4:6])
  return f'{_date(*map(str, numbers[:3]), df="d" if call.get("df") else "m")} (aged {age})'


def _condition(call: Call) -> str:
  """{{#if: test | then | else}}"""
  return call.get(2) if call.get(1) else call.get(3)


def _plural(call: Call) -> str | None:
  number = call.get(1).replace(',', '')
  return (call.get(2) if number == '1' else call.get(3, 2)) if number.isdigit() else None


def _title(call: Call) -> str | None:
  return shield(call.page.title) or None


def _tag(call: Call) -> str:
  name = call.get(1).lower()
  return GAP if name in ('ref', 'references', 'templatestyles', 'section', 'indicator') else LOST


def _quoted(call: Call) -> str:
  return f'“{call.get(1)}”'


def _scripted(tag: str) -> Callable[[Call], str]:
  return lambda call: wiki_math.script(call.get(1), tag)


def _pronunciation(call: Call) -> str:
  """{{IPA|[x]}} shows its text; {{IPA|fr|x}} and {{IPA-fr|x}} put it in brackets."""
  words = [part for part in call.positional if part]
  if not words:
    return ''
  if words[0][0] in '/[⟨':
    return words[0]
  return f'[{words[1]}]' if len(words) > 1 and re.fullmatch(r'[a-z-]{2,8}', words[0]) else f'[{words[0]}]'


def _convert(call: Call) -> str | None:
  if call.page.site.language not in ('en', 'simple', ''):
    return None
  return wiki_units.convert(call.positional, call.named, abbreviated=call.name == 'cvt')


def _music(call: Call) -> str | None:
  signs = {'flat': '♭', 'b': '♭', 'sharp': '♯', '#': '♯', 'natural': '♮', 'doubleflat': '𝄫', 'doublesharp': '𝄪'}
  return signs.get(unshield(call.get(1)).lower())


def _power(call: Call) -> str:
  return '×10' + wiki_math.superscript(call.get(1).replace('-', '−')) if call.get(1) else '×10'


def _wrapped(before: str, after: str) -> Callable[[Call], str]:
  return lambda call: f'{before}{call.get(1)}{after}' if call.get(1) else ''


def _interlanguage(call: Call) -> str | None:
  """A red link with a link to another language's article: its label, or its title."""
  return call.get('lt', 'display', 'texte', 'trad label', 'label', 'd', 'preserve text') or call.get(1, 'fr', 'trad')


def _translated(call: Call) -> str:
  """{{нп5|title|text|language}}"""
  return call.get(2, 1)


def _linked(call: Call) -> str:
  """{{link-en|title|foreign title|text}} of Chinese Wikipedia"""
  return call.get('d', 3, 1)


def _linked_by_code(call: Call) -> str:
  """{{tsl|en|foreign title|title|text}}"""
  return call.get(4, 3, 2)


PARSER_FUNCTIONS: dict[str, Callable[[Call], str | None]] = {
    'formatnum': _formatted, 'форматчисла': _formatted, 'formatonúmero': _formatted, '#if': _condition,
    'plural': _plural, '#tag': _tag, 'pagename': _title, 'fullpagename': _title,
    'lc': lambda call: call.get(1).lower(), 'uc': lambda call: call.get(1).upper(),
    'ucfirst': lambda call: call.get(1)[:1].upper() + call.get(1)[1:],
    'lcfirst': lambda call: call.get(1)[:1].lower() + call.get(1)[1:],
    **dict.fromkeys(('displaytitle', 'defaultsort', 'defaultsortkey', 'defaultcategorysort', 'sortierung', 'ordenar',
                     'clef de tri', 'cledetri', 'сортировка', 'ключ_сортировки', 'ключ сортировки', 'стандартне сортування',
                     'domyślnesortuj', 'standaardsortering', 'standardsortering', 'oletusaakkostus', 'aakkostus',
                     'ordina', 'ordenação padrão', 'デフォルトソート', '기본정렬', 'önceliklianahtar', 'önceliklisırala',
                     'ترتيب_افتراضي', 'ترتيب افتراضي', 'ترتیب‌پیش‌فرض', 'seitentitel', 'titolo', 'показатьзаголовок',
                     '#seo', '#set', '#coordinates', '#invoke:coordinates'), _nothing)}
TEMPLATES: dict[str, Callable[[Call], str | None]] = {
    **dict.fromkeys(INVISIBLE, _nothing), **dict.fromkeys(ASIDES, _aside), **dict.fromkeys(FIRST, _argument(1, 'text')),
    **dict.fromkeys(SECOND, _argument(2, 'text')), **dict.fromkeys(LAST, _last), **dict.fromkeys(QUOTES, _block),
    **dict.fromkeys(TWICE, _argument(2, 1)), **dict.fromkeys(TEXT_OR_TITLE, _interlanguage),
    **{name: _constant(text if name[0] == '!' else shield(text)) for name, text in SYMBOLS.items()}, **{name.lower(): _ship(name) for name in SHIPS},
    'ship': _ship(''), 'sclass': _ship_class, 'sclass2': _ship_class, 'sclass-': _ship_class, 'convert': _convert,
    'cvt': _convert, 'nihongo': _nihongo, 'nihongo3': _nihongo_romaji_first, 'nihongo krt': _nihongo_romaji_first,
    'langx': _langx, 'zh': _chinese, 'zh-cp': _chinese, 'lang-zh': _chinese, 'as of': _as_of, 'asof': _as_of,
    'num': _formatted, 'number': _formatted, 'nombre': _formatted, 'nts': _formatted, 'fmtn': _formatted,
    'число': _formatted, 'formatnum': _formatted, 'zahl': _formatted, 'unité': _unit, 'unidad': _unit, 'unite': _unit,
    'frac': _fraction, 'fraction': _fraction, 'sfrac': _fraction, 'val': _value, 'gaps': _joined, 'su': lambda call: None,
    'linktext': _joined, 'ordinal': _ordinal, 'sortname': _sortname, 'harvtxt': _harvard, 's': _century,
    's-': _century, 'date': _french_date, 'date-': _french_date, 'hlist': _spaced, 'enum': _spaced,
    'chem': _chemical, 'chem2': _chemical, 'e': _power, 'x10^': _power, 'esp': _power, 'sup': _scripted('sup'),
    'sub': _scripted('sub'), 'music': _music, 'circa': _before('c.'), 'c.': _before('c.'), 'ca.': _before('c.'),
    'floruit': _before('fl.'), 'fl.': _before('fl.'), 'reign': _before('r.'), 'r.': _before('r.'),
    'born in': _before('b.'), 'b.': _before('b.'), 'died in': _before('d.'), 'd.': _before('d.'),
    'us$': _money('US$'), 'usd': _money('US$'), '£': _money('£'), 'gbp': _money('£'), 'pound sterling': _money('£'),
    '€': _money('€'), 'eur': _money('€'), 'euro': _money('€'), 'inr': _money('₹'), 'indian rupee': _money('₹'),
    'a$': _money('A$'), 'aud': _money('A$'), 'cad': _money('CA$'), '¥': _money('¥'), 'jpy': _money('¥'),
    'php': _money('₱'), 'hk$': _money('HK$'), 'nzd': _money('NZ$'), 'krw': _money('₩'), 'cny': _money('CN¥'),
    'birth date': _birth, 'birth date and age': _birth, 'death date': _birth, 'start date': _birth, 'end date': _birth,
    'start date and age': _birth, 'birth-date': _argument(1), 'film date': _birth, 'dts': _birth,
    'death date and age': _ages, 'pagename': _title, "'\"": _constant(shield('\'"')), 'gloss': _wrapped('‘', '’'),
    'angbr': _wrapped('⟨', '⟩'), 'angle bracket': _wrapped('⟨', '⟩'), 'vr': _wrapped('⟨', '⟩'), 'qq': _quoted,
    'grapheme': _wrapped('⟨', '⟩'), 'ipaslink': _wrapped('/', '/'), 'ipablink': _wrapped('[', ']'),
    'pie': _wrapped('*', ''), 'isbn': _wrapped('ISBN ', ''), 'ipa': _pronunciation, 'api': _pronunciation,
    'fónico': _pronunciation, 'афи': _pronunciation, 'nlang': _argument(2), 'abs': _wrapped('|', '|'),
    'bra': _wrapped('⟨', '|'), 'ket': _wrapped('|', '⟩'), 'sqrt': _wrapped('√', ''), 'radic': _wrapped('√', ''),
    **dict.fromkeys(('нп', 'нп1', 'нп2', 'нп3', 'нп4', 'нп5', 'не переведено', 'не переведено 2', 'не переведено 3',
                     'не переведено 5', 'iw', 'iw2'), _translated),
    **dict.fromkeys(('tsl', 'le2', 'internal link helper/en', 'translink'), _linked_by_code),
    'le': _linked, 'lj': _linked}
PATTERNS: tuple[tuple[re.Pattern, Callable[[Call], str | None]], ...] = (
    (re.compile(r'(?:lang|llang|vol|langue)-[a-z-]{2,12}$'), _labelled),
    (re.compile(r'(?:ipa|api)-[a-z-]{2,8}$'), _pronunciation), (re.compile(r'ipac-[a-z-]{2,8}$'), _aside),
    (re.compile(r'link-[a-z-]{2,8}$'), _linked), (re.compile(r'(?:script|text)/'), _argument(1)),
    (re.compile(r'(?:' + '|'.join(GERMAN) + r')s$'), _german))

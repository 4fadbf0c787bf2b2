"""What templates show: functions that take a call and give wikitext, or None where they cannot tell what is seen."""

import dataclasses
import re
from collections.abc import Callable

from input_pipeline.text import wiki_math, wiki_units
from input_pipeline.text.wiki_marks import ASIDE, GAP, LOST, shield, unshield
from input_pipeline.text.wiki_names import GERMAN, LANGUAGES
from input_pipeline.text.wiki_site import Site

_MONTHS = ('', 'January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October',
           'November', 'December')


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


def argument(*keys: int | str) -> Callable[[Call], str]:
  return lambda call: call.get(*keys)


def constant(text: str) -> Callable[[Call], str]:
  return lambda call: text


def nothing(call: Call) -> str:
  return GAP


def aside(call: Call) -> str:
  return ASIDE


def last(call: Call) -> str:
  return call.positional[-1] if call.positional else call.get('text', 'lt')


def joined(call: Call) -> str:
  return ''.join(call.positional)


def listed(call: Call) -> str:
  return ', '.join(call.positional)


def block(call: Call) -> str:
  text = call.get('text', 'quote', 'zitat', 'citat', 'cita', 'texte', 'texto', 1)
  return f'\n\n{text}\n\n'


def nihongo(call: Call) -> str:
  """english (kanji, romaji, extra) extra2"""
  english, kanji, romaji, more = (call.get(i) for i in range(1, 5))
  inside = ', '.join(filter(None, (kanji, romaji and f"''{romaji}''", more or call.get('extra'))))
  if not english:
    return f"''{romaji}'' ({kanji})" if romaji else kanji
  return f'{english} ({inside})' if inside else english


def romaji_first(call: Call) -> str:
  words = [word for word in (call.get(3), call.get(2), call.get(1)) if word]
  return f"''{words[0]}'' ({', '.join(words[1:])})" if len(words) > 1 else ''.join(words)


def labelled(call: Call) -> str:
  """{{lang-de|Fluss}}: German: Fluss."""
  code = call.name.partition('-')[2]
  return _with_language(code, call.get(1, 'text'), call)


def langx(call: Call) -> str:
  return _with_language(call.get(1), call.get(2, 'text'), call)


def _with_language(code: str, text: str, call: Call) -> str:
  """English Wikipedia writes the language before the words; elsewhere its abbreviation is left out."""
  name = LANGUAGES.get(code.lower()) or LANGUAGES.get(code.partition('-')[0].lower())
  if call.page.site.language not in ('en', 'simple') or not name or call.get('label') == 'none':
    return text
  translated = call.get('lit', 'translation', 3 if call.name == 'langx' else 'lit')
  return f"{name}: ''{text}''" + (f', lit. ‘{translated}’' if translated and text else '') if text else ''


def german(call: Call) -> str | None:
  """{{enS|river}}: englisch river"""
  return f"{GERMAN[call.name[:-1]]} ''{call.get(1)}''" if call.page.site.language == 'de' else None


def chinese(call: Call) -> str | None:
  """{{zh|t=…|s=…|p=…}}"""
  names = {'c': 'Chinese', 's': 'simplified Chinese', 't': 'traditional Chinese', 'p': 'pinyin', 'hp': 'pinyin',
           'w': 'Wade–Giles', 'j': 'Jyutping', 'y': 'Cantonese Yale', 'l': 'lit.', 'poj': 'Pe̍h-ōe-jī'}
  if call.get('labels') == 'no':
    names = dict.fromkeys(names, '')
  shown = [f'{label}: {call.named[key]}' if label else call.named[key]
           for key, label in names.items() if call.named.get(key)]
  return '; '.join(shown) or (call.get(1) or None)


def formatted(call: Call) -> str | None:
  number = call.get(1)
  return number.replace(',', '') if call.get(2).lower() == 'r' else call.page.site.number(number)


def fraction(call: Call) -> str | None:
  parts = [part for part in call.positional if part]
  if len(parts) == 1:
    return f'1⁄{parts[0]}'
  return {2: '{}⁄{}', 3: '{} {}⁄{}'}[len(parts)].format(*parts) if len(parts) in (2, 3) else None


def as_of(call: Call) -> str | None:
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


def birth(call: Call) -> str | None:
  numbers = [part for part in call.positional if part.isdigit()]
  df = 'd' if call.get('df') or call.get('mf') in ('no', 'n') else 'm'
  return _date(*numbers[:3], df=df) if 1 <= len(numbers) <= 3 else None


def before(text: str) -> Callable[[Call], str | None]:
  """{{circa|1900}}: c. 1900; {{reign|1900|1910}}: r. 1900–1910"""
  def shown(call: Call) -> str | None:
    years = '–'.join(filter(None, call.positional[:2]))
    return f'{text} {years}' if years else text
  return shown


def money(sign: str) -> Callable[[Call], str | None]:
  def shown(call: Call) -> str | None:
    amount = call.get(1)
    return sign + (f'{int(amount):,}' if amount.isdigit() and len(amount) > 4 else amount)
  return shown


def ordinal(call: Call) -> str | None:
  number = call.get(1)
  if not number.isdigit():
    return None
  ending = 'th' if number[-2:] in ('11', '12', '13') else {'1': 'st', '2': 'nd', '3': 'rd'}.get(number[-1], 'th')
  return number + ending


def measured(call: Call) -> str | None:
  """{{val|1.5|u=km}}; without uncertainties of two kinds and the like."""
  if len(call.positional) > 2 or set(call.named) - {'u', 'ul', 'e', 'p', 's', 'fmt', 'end', 'up', 'upl'}:
    return None
  number = call.get('p') + call.page.site.number(call.get(1)) + call.get('s')
  if call.get(2):
    number += call.get(2) if call.get(2).startswith('(') else f' ± {call.get(2)}'
  if call.get('e'):
    power = wiki_math.superscript(call.get('e').replace('-', '−'))
    number = f'({number})×10{power}' if '±' in number else f'{number}×10{power}'
  unit = call.get('u', 'ul')
  if '/' in unit or '[' in unit or call.get('up', 'upl'):
    return None
  return f'{number} {unit}' if unit and unit not in '%°' else number + unit


def ship(prefix: str) -> Callable[[Call], str | None]:
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


def ship_class(call: Call) -> str | None:
  name, kind, style = call.get(1), call.get(2), call.get(3)
  if not name or style not in ('', '0', '1', '2', '3', '4', '5'):
    return None
  name = f"''{name}''" if call.name.endswith('2') is False else name
  return {'1': f'{name} class', '4': f'{name} class {kind}', '5': kind and f"{name}"}.get(style) or (
      f'{name}-class {kind}'.strip() if kind else f'{name} class')


def sortname(call: Call) -> str:
  return f'{call.get(1)} {call.get(2)}'.strip()


def harvard(call: Call) -> str | None:
  """{{harvtxt|Smith|Jones|2000}}: Smith & Jones (2000)"""
  *names, year = call.positional or ('',)
  return (f'{", ".join(names[:-1])} & {names[-1]}' if len(names) > 1 else names[0]) + f' ({year})' if names else None


def century(call: Call) -> str | None:
  """{{s|XIX}}: XIXe siècle; {{s-|XIX}}: XIXe"""
  if not call.get(1) or call.page.site.language != 'fr':
    return None if call.get(1) else ''
  after = 'er' if call.get(1).upper() == 'I' or call.get(2) == 'er' else 'e'
  tail = {'s': ' siècle', 's-': '', "av jc": ''}[call.name]
  return call.get(1) + after + tail


def french_date(call: Call) -> str | None:
  day, *rest = (*call.positional, '')
  if call.page.site.language != 'fr' and call.name == 'date':
    return None
  words = [part for part in (day, *rest)[:3] if part]
  return ' '.join(words) if words else None


def unit(call: Call) -> str | None:
  """{{unité|12|km}}: 12 km"""
  number, unit = call.get(1), call.get(2)
  if len([part for part in call.positional if part]) > 2:
    return None
  return f'{call.page.site.number(number.replace(" ", ""))} {unit}'.strip() if number else None


def chemical(call: Call) -> str | None:
  """{{chem|S|O|4|2-}} and {{chem2|H2O}}"""
  if call.name == 'chem2':
    return wiki_math.chemical(call.get(1))
  words = [unshield(part).replace("''", '') for part in call.positional if part]
  charge = re.compile(r'\d*[+−-]$')
  return ''.join(wiki_math.superscript(word.replace('-', '−')) if charge.match(word) else
                 wiki_math.subscript(word) if at and not word[0].isupper() and word[0] not in '([' else word
                 for at, word in enumerate(words))


def death(call: Call) -> str | None:
  """{{death date and age|2000|1|2|1930|3|4}}"""
  numbers = [int(part) for part in call.positional if part.isdigit()]
  if len(numbers) != 6:
    return None
  age = numbers[0] - numbers[3] - (numbers[1:3] < numbers[4:6])
  return f'{_date(*map(str, numbers[:3]), df="d" if call.get("df") else "m")} (aged {age})'


def condition(call: Call) -> str:
  """{{#if: test | then | else}}"""
  return call.get(2) if call.get(1) else call.get(3)


def plural(call: Call) -> str | None:
  number = call.get(1).replace(',', '')
  return (call.get(2) if number == '1' else call.get(3, 2)) if number.isdigit() else None


def title(call: Call) -> str | None:
  return shield(call.page.title) or None


def tag(call: Call) -> str:
  name = call.get(1).lower()
  return GAP if name in ('ref', 'references', 'templatestyles', 'section', 'indicator') else LOST


def scripted(tag: str) -> Callable[[Call], str]:
  return lambda call: wiki_math.script(call.get(1), tag)


def pronunciation(call: Call) -> str:
  """{{IPA|[x]}} shows its text; {{IPA|fr|x}} and {{IPA-fr|x}} put it in brackets."""
  words = [part for part in call.positional if part]
  if not words:
    return ''
  if words[0][0] in '/[⟨':
    return words[0]
  return f'[{words[1]}]' if len(words) > 1 and re.fullmatch(r'[a-z-]{2,8}', words[0]) else f'[{words[0]}]'


def converted(call: Call) -> str | None:
  if call.page.site.language not in ('en', 'simple', ''):
    return None
  return wiki_units.convert(call.positional, call.named, abbreviated=call.name == 'cvt')


def music(call: Call) -> str | None:
  signs = {'flat': '♭', 'b': '♭', 'sharp': '♯', '#': '♯', 'natural': '♮', 'doubleflat': '𝄫', 'doublesharp': '𝄪'}
  return signs.get(unshield(call.get(1)).lower())


def power(call: Call) -> str:
  return '×10' + wiki_math.superscript(call.get(1).replace('-', '−')) if call.get(1) else '×10'


def wrapped(before: str, after: str) -> Callable[[Call], str]:
  return lambda call: f'{before}{call.get(1)}{after}' if call.get(1) else ''


def interlanguage(call: Call) -> str | None:
  """A red link with a link to another language's article: its label, or its title."""
  return call.get('lt', 'display', 'texte', 'trad label', 'label', 'd', 'preserve text') or call.get(1, 'fr', 'trad')


def translated(call: Call) -> str:
  """{{нп5|title|text|language}}"""
  return call.get(2, 1)


def linked(call: Call) -> str:
  """{{link-en|title|foreign title|text}} of Chinese Wikipedia"""
  return call.get('d', 3, 1)


def linked_by_code(call: Call) -> str:
  """{{tsl|en|foreign title|title|text}}"""
  return call.get(4, 3, 2)


def noted(call: Call) -> str:
  """{{senza fonte|text}}: some wikis give what lacks a source as an argument."""
  return call.get(1) if call.get(1) and call.page.site.language in ('it', 'pt', 'es') else GAP


def lower(call: Call) -> str:
  return call.get(1).lower()


def upper(call: Call) -> str:
  return call.get(1).upper()


def lower_first(call: Call) -> str:
  return call.get(1)[:1].lower() + call.get(1)[1:]


def upper_first(call: Call) -> str:
  return call.get(1)[:1].upper() + call.get(1)[1:]


def verse(call: Call) -> str | None:
  """{{bibleverse||Mark|3:25}}: Mark 3:25"""
  return ' '.join(part for part in call.positional[:3] if part and len(part) < 40) or None


def patent(call: Call) -> str:
  return f'U.S. Patent {call.page.site.number(call.get(1))}'

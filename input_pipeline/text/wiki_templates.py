"""Templates by name: which function tells what each shows, in the languages of the large wikis."""

import collections
import re
from collections.abc import Callable

from input_pipeline.text import wiki_shown as shown
from input_pipeline.text.wiki_marks import ASIDE, GAP, LOST, MARKS, UNKNOWN, shield, unshield
from input_pipeline.text.wiki_names import (
  ASIDES,
  COORDINATES,
  FIRST,
  GERMAN,
  INVISIBLE,
  INVISIBLE_BEGINNINGS,
  LAST,
  QUOTES,
  SECOND,
  SHIPS,
  SYMBOLS,
  TEXT_OR_TITLE,
  TWICE,
)
from input_pipeline.text.wiki_shown import Call, Page

_LONGEST_NAME = 60  # characters of a name that is counted
_NO_TITLE = re.compile(r'[\[\]{}<>\n]')
_PREFIX = re.compile(
    r'(?:(?:safe)?subst|msg|template|vorlage|modèle|plantilla|шаблон|predefinição|szablon|sjabloon):\s*', re.IGNORECASE)
_NO_KEY = re.compile(r'[\[<]')  # an = of a tag or a link
_NUMBER = re.compile(r'[1-9]\d?$')
_MARKED = re.compile(f'[{MARKS}]')


def show(parts: list[str], page: Page, counts: collections.Counter) -> str:
  """What a template shows, '' where that is nothing; or the mark of what it may have shown, which is then counted."""
  name = _PREFIX.sub('', ' '.join(parts[0].replace('_', ' ').split()))
  lower = unshield(name.lower())
  function = TEMPLATES.get(lower)
  head, colon, _ = lower.partition(':')
  if function is None and colon and (head.rstrip() in PARSER_FUNCTIONS or head[0:1] == '#'):
    name, lower = name.partition(':')[0], head.rstrip()
    function = PARSER_FUNCTIONS.get(lower, _unknown)
    parts = ['', _PREFIX.sub('', parts[0]).partition(':')[2], *parts[1:]]
  elif _NO_TITLE.search(parts[0].strip()) and '\n' not in parts[0].strip():
    return shield('{{') + '|'.join(parts) + shield('}}')  # as MediaWiki does: this is no template's name
  if function is None:
    function = next((its for pattern, its in PATTERNS if pattern.match(lower)), None)
  text: str | None
  if function is None:
    text = GAP if INVISIBLE_BEGINNINGS.match(lower) else UNKNOWN
  else:
    text = function(_call(lower, parts, page))
  if text is None:
    text = LOST
  if not text.strip():
    return text or GAP
  if text in (GAP, UNKNOWN, ASIDE, LOST):
    counts[counted(name)] += 1
  return text


def counted(name: str) -> str:
  """The count of a template that is not shown; wikis take the first letter of a name in either case."""
  shown = _MARKED.sub('?', unshield(name)).strip()
  return 'template/' + (shown[:1].upper() + shown[1:])[:_LONGEST_NAME]


def _call(name: str, parts: list[str], page: Page) -> Call:
  positional, named = [], {}
  for part in parts[1:]:
    key, equals, value = part.partition('=')
    key = key.strip()
    if equals and len(key) < _LONGEST_NAME and not _NO_KEY.search(key):
      named[key.lower()] = value.strip()
    else:
      positional.append(part.strip())
  for key in [key for key in named if _NUMBER.match(key)]:  # |2=x is the second one, wherever it stands
    positional += [''] * (int(key) - len(positional))
    positional[int(key) - 1] = named.pop(key)
  return Call(name, tuple(positional), named, page)


def _unknown(call: Call) -> str:
  return UNKNOWN


def _named(names: dict[Callable, str]) -> dict[str, Callable]:
  return {name.strip(): function for function, listed in names.items() for name in listed.split(';')}


PARSER_FUNCTIONS: dict[str, Callable[[Call], str | None]] = _named({
    shown.formatted: 'formatnum; форматчисла; formatonúmero', shown.condition: '#if', shown.comparison: '#ifeq',
    shown.plural: 'plural', shown.tag: '#tag', shown.lower: 'lc', shown.upper: 'uc',
    shown.upper_first: 'ucfirst', shown.lower_first: 'lcfirst',
    shown.nothing: '''displaytitle; defaultsort; defaultsortkey; defaultcategorysort; sortierung; ordenar;
      clef de tri; cledetri; сортировка; ключ сортировки; стандартне сортування; domyślnesortuj; standaardsortering;
      standardsortering; oletusaakkostus; aakkostus; ordina; ordenação padrão; デフォルトソート; 기본정렬;
      önceliklianahtar; önceliklisırala; ترتيب افتراضي; ترتیب‌پیش‌فرض; seitentitel; titolo; показатьзаголовок; #seo;
      #set; #coordinates'''})
TEMPLATES: dict[str, Callable[[Call], str | None]] = {
    **dict.fromkeys(INVISIBLE, shown.nothing), **dict.fromkeys(ASIDES, shown.aside),
    **dict.fromkeys(FIRST, shown.argument(1, 'text')), **dict.fromkeys(SECOND, shown.second),
    **dict.fromkeys(LAST, shown.last), **dict.fromkeys(QUOTES, shown.block),
    **dict.fromkeys(TWICE, shown.argument(2, 1)), **dict.fromkeys(TEXT_OR_TITLE, shown.interlanguage),
    **{name: shown.constant(text if name[0] == '!' else shield(text)) for name, text in SYMBOLS.items()},
    **{name.lower(): shown.ship(name) for name in SHIPS}, **_named({
        shown.ship(''): 'ship', shown.ship_class: 'sclass; sclass2; sclass-',
        shown.converted: 'convert; cvt; convertir; converter; converti; konversi; dönüştür; تحويل; تبدیل',
        shown.nihongo: 'nihongo', shown.romaji_first: 'nihongo3; nihongo krt', shown.langx: 'langx',
        shown.chinese: 'zh; zh-cp; lang-zh', shown.as_of: 'as of; asof',
        shown.formatted: 'num; number; nts; число; formatnum; zahl',
        shown.unit: 'unité; unidad; unite; nombre; fmtn',
        shown.fraction: 'frac; fraction; sfrac', shown.measured: 'val', shown.joined: 'gaps; linktext',
        shown.listed: 'hlist; enum', shown.ordinal: 'ordinal', shown.sortname: 'sortname', shown.harvard: 'harvtxt',
        shown.century: 's; s-', shown.french_date: 'date; date-', shown.chemical: 'chem; chem2',
        shown.power: 'e; x10^; esp', shown.scripted('sup'): 'sup; superscript', shown.scripted('sub'): 'sub; subscript',
        shown.music: 'music', shown.before('c.'): 'circa; c.; ca.', shown.before('fl.'): 'floruit; fl.',
        shown.before('r.'): 'reign; r.', shown.before('b.'): 'born in; b.', shown.before('d.'): 'died in; d.',
        shown.money('US$'): 'us$; usd', shown.money('£'): '£; gbp; pound sterling', shown.money('€'): '€; eur',
        shown.money('₹'): 'inr; indian rupee', shown.money('A$'): 'a$; aud', shown.money('CA$'): 'cad',
        shown.money('¥'): '¥; jpy', shown.money('₱'): 'php', shown.money('HK$'): 'hk$', shown.money('NZ$'): 'nzd',
        shown.money('₩'): 'krw', shown.money('CN¥'): 'cny', shown.death: 'death date and age',
        shown.birth: '''birth date; birth date and age; death date; start date; end date; start date and age;
          film date; dts''', shown.argument(1): 'birth-date', shown.keys: 'keypress; key press; keys',
        shown.quoted('„', '“'): '"', shown.quoted('« ', ' »'): 'citation', shown.bold: 'b',
        shown.inline_place: COORDINATES, shown.title: 'pagename; fullpagename; basepagename; subpagename; rootpagename',
        shown.patent: 'us patent',
        shown.wrapped('‘', '’'): 'gloss', shown.wrapped('⟨', '⟩'): 'angbr; angle bracket; vr; grapheme',
        shown.wrapped('/', '/'): 'ipaslink', shown.wrapped('[', ']'): 'ipablink', shown.wrapped('*', ''): 'pie',
        shown.wrapped('“', '”'): 'qq', shown.wrapped('ISBN ', ''): 'isbn', shown.wrapped('√', ''): 'sqrt; radic',
        shown.wrapped('|', '|'): 'abs', shown.wrapped('⟨', '|'): 'bra', shown.wrapped('|', '⟩'): 'ket',
        shown.pronunciation: 'ipa; api; fónico; афи', shown.argument(2): 'nlang',
        shown.verse: 'bibleref; bibleref2; bibleverse; bibleverse-nb; bible verse; quran; quran-usc',
        shown.translated: '''нп; нп1; нп2; нп3; нп4; нп5; не переведено; не переведено 2; не переведено 3;
          не переведено 5; iw; iw2''', shown.linked_by_code: 'tsl; le2; internal link helper/en; translink',
        shown.linked: 'le; lj',
        shown.noted: '''cn; senza fonte; citazione necessaria; chiarire; carece de fontes; carece fontes;
          cita requerida'''})}
PATTERNS: tuple[tuple[re.Pattern, Callable[[Call], str | None]], ...] = (
    (re.compile(r'(?:lang|llang|vol|langue)-[a-z-]{2,12}$'), shown.labelled),
    (re.compile(r'(?:ipa|api)-[a-z-]{2,8}$'), shown.pronunciation), (re.compile(r'ipac-[a-z-]{2,8}$'), shown.aside),
    (re.compile(r'link-[a-z-]{2,8}$'), shown.linked), (re.compile(r'(?:script|text)/'), shown.argument(1)),
    (re.compile(r'\d{1,3}(?:er|re|e)(?: [a-zéû]{3,9})?$|[ivxlc]{1,7}er? siècle$'), shown.french_ordinal),
    (re.compile(r'(?:' + '|'.join(GERMAN) + r')s$'), shown.german))

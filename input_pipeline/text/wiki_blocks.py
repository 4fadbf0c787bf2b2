"""The third pass over wikitext: tables, tags, headings and lists go; the prose stays, a paragraph or an item a line."""

import collections
import re

from input_pipeline.text import wiki_gaps, wiki_math, wiki_site
from input_pipeline.text.wiki_marks import GAP, ITEM, MARKS

_TABLE_START = re.compile(r'[ \t:*#;]*\{\|')
_TABLE_END = re.compile(r'[ \t]*\|\}(?!\})')
_ROW = re.compile(r'[ \t]*[|!]')
_ROW_MARKUP = re.compile(r'[ \t]*(?:\|[-+}]|\{\|)')
_LONE_BRACE = re.compile(r'[ \t]*[{}|]{1,2}[ \t]*$')
_TAG = re.compile(r'<(/?)([A-Za-z][A-Za-z0-9]*)(?=[\s/>])([^<>]*)>')
_HTML_TABLE = re.compile(r'<(/?)table(?=[\s/>])[^<>]*>', re.IGNORECASE)
_HEADING = re.compile(r'(={1,6})(.+?)(={1,6})$')
_LIST = re.compile(r'[ \t]*[*#:;]+')
_RULE = re.compile(r'-{4,}')
_LINK = re.compile(r'\[(?:(?:https?|ftps?|irc|news|gopher):|mailto:)?//[^\s<>\[\]]*[ \t]*([^\[\]\n]*)\]|'
                   r'\[mailto:[^\s<>\[\]]*[ \t]*([^\[\]\n]*)\]')
_BARE_LINK = re.compile(r'(?:https?|ftp)://[^\s<>\[\]]+')
_QUOTES = re.compile(r"'{2,}")
_BRACKETS = re.compile(r'\[\[|\]\]')
_BLOCK_TAGS = frozenset({'p', 'div', 'blockquote', 'center', 'poem', 'ol', 'ul', 'dl', 'hr', 'h1', 'h2', 'h3', 'h4',
                         'h5', 'h6', 'table', 'tr', 'caption'})
_ITEM_TAGS = frozenset({'li', 'dt', 'dd', 'td', 'th'})
_INLINE_TAGS = frozenset({
    'b', 'i', 'u', 's', 'small', 'big', 'span', 'font', 'em', 'strong', 'sup', 'sub', 'code', 'tt', 'kbd', 'samp',
    'var', 'del', 'ins', 'strike', 'cite', 'q', 'abbr', 'bdi', 'bdo', 'mark', 'dfn', 'ruby', 'rb', 'rp', 'rt', 'rtc',
    'data', 'time', 'noinclude', 'onlyinclude', 'translate', 'tvar', 'wbr', 'phonos', 'langconvert', 'thead', 'tbody',
    'tfoot'})
_SCRIPT = re.compile(r'<(sup|sub)(?=[\s>])[^<>]*>([^<>]{1,12})</\1\s*>', re.IGNORECASE)
_SENTENCE_END = re.compile(r'[.!?。！？…।։؟][\'"”’»)\]）」』]*$')
_PROSE_LENGTH = 80  # a list item this long is prose even without a full stop
_BLANK = ' \t\xa0\u3000\u200b\u200c\u200d\u200e\u200f\u2060\ufeff'


def prose(text: str, site: wiki_site.Site, keep_end_sections: bool, counts: collections.Counter) -> str:
  """The paragraphs of a text whose raw tags, templates and links are resolved."""
  text = _without_tables(_without_html_tables(text, counts), counts)
  text = wiki_site.without_magic_words(_links(_tags(text)))
  text = _QUOTES.sub(lambda found: "'" * _APOSTROPHES.get(len(found[0]), len(found[0]) - 5), text)
  lines = _lines(text, keep_end_sections, counts)
  return '\n'.join(_paragraphs(lines, site.language or 'en', counts))


_APOSTROPHES = {2: 0, 3: 0, 4: 1, 5: 0}  # of a run of so many are text, the others bold and italic


def _without_html_tables(text: str, counts: collections.Counter) -> str:
  """Without <table> … </table>; of one that is not closed only the tags go."""
  if '<table' not in text.lower():
    return text
  spans: list[tuple[int, int]] = []
  open_: list[int] = []
  for found in _HTML_TABLE.finditer(text):
    if not found[1]:
      open_.append(found.start())
    elif open_:
      start = open_.pop()
      while spans and spans[-1][0] > start:
        spans.pop()
      spans.append((start, found.end()))
  return _cut(text, spans, counts)


def _cut(text: str, spans: list[tuple[int, int]], counts: collections.Counter) -> str:
  pieces: list[str] = []
  at = 0
  for start, end in spans:
    pieces += text[at:start], '\n\n'
    at = end
  if spans:
    counts['tables'] += len(spans)
  return ''.join([*pieces, text[at:]])


def _without_tables(text: str, counts: collections.Counter) -> str:
  """Without {| … |}; of a table that is not closed only its rows go, the lines in a run that begin with | or !.

  Such lines elsewhere are prose, where none of them is a row's or a table's mark.
  """
  if '\n|' not in text and '\n!' not in text and '{|' not in text and not text.startswith(('|', '!', '}')):
    return text
  lines = text.split('\n')
  closed, opened = {}, []  # the line that opens a table -> the line that closes it
  for number, line in enumerate(lines):
    if '{|' in line and _TABLE_START.match(line):
      opened.append(number)
    elif '|}' in line and opened and _TABLE_END.match(line):
      closed[opened.pop()] = number
  kept: list[str] = []
  number = 0
  while number < len(lines):
    if number in closed:
      end = closed[number]
      counts['tables'] += 1
      after = lines[end][_TABLE_END.match(lines[end]).end():]
      kept += '', after if after.strip() else ''
      number = end + 1
    elif _ROW.match(lines[number]) or '{|' in lines[number] and _TABLE_START.match(lines[number]):
      end = number + 1
      while end < len(lines) and _ROW.match(lines[end]):
        end += 1
      run = lines[number:end]
      if any(map(_ROW_MARKUP.match, run)) or _TABLE_START.match(run[0]):
        if end < len(lines) and _LONE_BRACE.match(lines[end]):
          end += 1
        counts['tables'] += 1
        kept.append('')
      else:
        kept += run
      number = end
    else:
      kept.append(lines[number])
      number += 1
  return '\n'.join(kept)


def _tags(text: str) -> str:
  """Tags that the wiki knows go, and leave their content; others are prose: vector<int>."""
  if '<' not in text:
    return text
  text = _SCRIPT.sub(lambda found: wiki_math.script(found[2], found[1].lower()), text)
  return _TAG.sub(_tag, text)


def _tag(found: re.Match) -> str:
  name = found[2].lower()
  if name in _BLOCK_TAGS:
    return '\n\n'
  if name in _ITEM_TAGS:
    return '\n\n' if found[1] else f'\n{ITEM}'
  if name == 'br':
    return ' '
  if name in ('link', 'meta'):
    return GAP
  return '' if name in _INLINE_TAGS else found[0]


def _links(text: str) -> str:
  """External links: their labels, which the reader sees; an address alone is no prose."""
  if '//' in text or 'mailto:' in text:
    text = _LINK.sub(lambda found: found[1] or found[2] or GAP, text)
    text = _BARE_LINK.sub(GAP, text)
  return _BRACKETS.sub('', text)


def _lines(text: str, keep_end_sections: bool, counts: collections.Counter) -> list[str]:
  """The lines of an article without its headings, and without the sections at its end that are lists."""
  kept, dropped = [], 0  # the level of the section that is left out
  for line in text.split('\n'):
    if line[:1] == '=' and (heading := _HEADING.match(line.rstrip(_AFTER_HEADING))):
      level = min(len(heading[1]), len(heading[3]))
      name = ' '.join(heading[2].translate(_NO_MARKS).replace('=', ' ').split()).lower().rstrip(':')
      if not dropped or level <= dropped:
        dropped = level if name in wiki_site.END_SECTIONS and not keep_end_sections else 0
        if dropped:
          counts['end_sections'] += 1
      kept.append('')
    elif not dropped:
      kept.append(line)
  return kept


_AFTER_HEADING = MARKS + ' \t\r'
_NO_MARKS = str.maketrans('', '', MARKS + ITEM)


def _paragraphs(lines: list[str], language: str, counts: collections.Counter) -> list[str]:
  """Joins the lines of a paragraph; a list item is a line of its own, and is kept where it is prose."""
  paragraphs: list[str] = []
  joined: list[str] = []

  def flush():
    if joined:
      paragraphs.append(wiki_gaps.close(' '.join(joined), language, counts))
      joined.clear()

  for line in lines:
    item = ITEM in line or line[:1] in '*#:;' and line[:1] != ''
    line = wiki_gaps.decide(_LIST.sub('', line.replace(ITEM, ' '), count=1) if item else line).strip(_BLANK)
    if item or not line or _RULE.match(line):
      flush()
      line = _RULE.sub('', line, count=1) if _RULE.match(line) else line
    if item:
      line = wiki_gaps.close(line, language, counts)
      if _SENTENCE_END.search(line) or len(line) >= _PROSE_LENGTH:
        paragraphs.append(line)
    elif line:
      joined.append(line)
  flush()
  return [paragraph for paragraph in paragraphs if any(map(str.isalnum, paragraph))]

"""Wikitext → prose: one paragraph a line, without a trace of markup.

The tree that mwparserfromhell makes is walked once; what is not prose (templates, tables, references, files, formulas
…) is never rendered. `strip_code` alone would leave the text of references, remains of tables and the captions of
files.
"""

import dataclasses
import functools
import html
import re

_FILE_KEYS, _CATEGORY_KEY = (-2, 6), 14  # namespaces of MediaWiki: Media, File; Category
# Every wiki understands the English names beside its own.
_HIDDEN = frozenset({'file', 'image', 'media', 'category'})
_DROPPED_TAGS = frozenset({
    'ref', 'references', 'gallery', 'math', 'chem', 'ce', 'syntaxhighlight', 'source', 'score', 'timeline', 'table',
    'imagemap', 'hiero',
    'graph', 'templatedata', 'templatestyles', 'section', 'code', 'pre', 'style', 'script', 'mapframe', 'maplink',
    'indicator', 'inputbox',
    'categorytree', 'includeonly', 'noinclude', 'th', 'td', 'tr', 'caption', 'tt', 'kbd', 'samp'})
_BLOCK_TAGS = frozenset({'p', 'div', 'blockquote', 'center', 'poem', 'ol', 'ul', 'dl', 'hr'})
_LIST_TAGS = frozenset({'li', 'dt', 'dd'})
_ITEM = '\x02'  # stands before a list item until the lines are joined; no dump can hold it, XML forbids it

_LANGUAGE = re.compile(r'(?:[a-z]{2,3}(?:-[a-z]{2,}){0,2}|simple)$')
_PROJECTS = frozenset({'mw', 'wmf', 'doi', 'rfc', 'rev', 'isbn'})  # prefixes that look like a language's and are shown
_MAGIC = re.compile(r'__[^\W\d_]{3,}__')
_TAG = re.compile(r'</?[A-Za-z][^<>\n]*>|</|<ref\b|\bref>|<>|<!--|-->')
_FILE_OPTION = re.compile(r'\b(?:thumb|thumbnail|frame|left|right|center|upright|\d+px)\|')
_OPEN_TABLE = re.compile(r'^[ \t:*#\x02]*(?:\{\||\|[}+-]|[|!]).*$', re.MULTILINE)
_HEADING = re.compile(r'^[ \t]*=+[^\n]*=+[ \t]*$|={2,}', re.MULTILINE)
_OPEN_FILE = re.compile(r'\[\[(?:file|image|category):[^\n]*', re.IGNORECASE)
_BRACKETS = re.compile(r'\[\[(?:[^\[\]|\n]*\|)?|\]\]|\{\{+|\}\}+|\{\||\|\}')
_LINK = re.compile(r'\[(?:https?|ftp)://[^\s\]]*\s*|(?:https?|ftp)://[^\s<>\]]+')
_QUOTES = re.compile(r"'{2,}")
# What the parser could not pair, because an author did not close it.
_UNPAIRED = (_MAGIC, _OPEN_TABLE, _HEADING, _OPEN_FILE, _FILE_OPTION, _TAG, _BRACKETS, _LINK, _QUOTES)
_EMPTY_BRACKETS = re.compile(r'\s*[(（][\s,;:/–—，；、]*(?:[(（][\s,;:/–—，；、]*[)）][\s,;]*)?[)）]')
_OPEN_BRACKET = re.compile(r'([(（])[\s,;，；、]+')
_SPACES = re.compile(r'[ \t\xa0]+')
_BEFORE_STOP = re.compile(r' +([,.;:!?)])')
_SENTENCE_END = re.compile(r'[.!?。！？…।։؟][\'"”’»)\]）」』]*$')
_PROSE_LENGTH = 80  # a list item this long is prose even without a full stop


def clean(text: str, site: 'Site') -> str:
  """The prose of a page, a paragraph or a list item a line; headings end paragraphs and are dropped.

  '' where there is none.
  """
  import mwparserfromhell  # takes 0.1 s, and only dumps need it

  rendered = html.unescape(_render(mwparserfromhell.parse(text), site))
  for pattern in _UNPAIRED:
    rendered = pattern.sub('', rendered)
  return '\n'.join(_paragraphs(rendered))


def _render(code, site: 'Site') -> str:
  return ''.join([_NODES.get(type(node).__name__, _nothing)(node, site)
                  for node in code.nodes]) if code is not None else ''


def _nothing(node, site: 'Site') -> str:
  return ''


def _text(node, site: 'Site') -> str:
  return node.value


def _heading(node, site: 'Site') -> str:
  return '\n\n'


def _entity(node, site: 'Site') -> str:
  try:
    return node.normalize()
  except (ValueError, OverflowError, KeyError):  # e.g. &#xFFFFFFFF;
    return ''


def _external_link(node, site: 'Site') -> str:
  return _render(node.title, site) if node.brackets else ''


def _tag(node, site: 'Site') -> str:
  name = str(node.tag).strip().lower()
  if name in _DROPPED_TAGS:
    return '\n\n' if name == 'table' else ''
  if name in _LIST_TAGS and node.wiki_markup:
    return _ITEM
  if name == 'br':
    return ' '
  content = _render(node.contents, site)
  if name in _LIST_TAGS:
    return f'\n{_ITEM}{content}\n'
  return f'\n\n{content}\n\n' if name in _BLOCK_TAGS else content


def _wikilink(node, site: 'Site') -> str:
  title = str(node.title).strip()
  prefix, colon, rest = title.partition(':')
  if colon:
    name = prefix.strip().replace('_', ' ')
    if not prefix:  # [[:Category:Name]] is a visible link
      rest = rest.partition(':')[2] or rest
    elif name.lower() in site.hidden:
      return ''
    elif node.text is None and _LANGUAGE.match(name) and name not in _PROJECTS:
      return ''
  if node.text is not None:
    label = _render(node.text, site)
    if label.strip():
      return label
    return re.sub(r'\s*[(,（].*$', '', rest or title)  # the pipe trick: [[Name (town)|]]
  return rest.strip() if colon and not prefix else title.partition('#')[2] if title.startswith('#') else title


_NODES = {
    'Text': _text, 'Heading': _heading, 'HTMLEntity': _entity, 'ExternalLink': _external_link, 'Tag': _tag,
    'Wikilink': _wikilink}


def _paragraphs(rendered: str) -> list[str]:
  """Joins the lines of a paragraph; a list item is a line of its own, and is kept where it is prose."""
  paragraphs, lines = [], []

  def flush():
    paragraphs.append(_tidy(' '.join(lines)))
    lines.clear()

  for line in rendered.split('\n'):
    item = _ITEM in line
    line = line.replace(_ITEM, ' ').strip()
    if item or not line:
      flush()
    if item:
      line = _tidy(line)
      if _SENTENCE_END.search(line) or len(line) >= _PROSE_LENGTH:
        paragraphs.append(line)
    elif line:
      lines.append(line)
  flush()
  return [paragraph for paragraph in paragraphs if any(map(str.isalnum, paragraph))]


def _tidy(line: str) -> str:
  """Closes the gaps that dropped templates leave: empty brackets, runs of spaces, a space before a full stop."""
  line = _OPEN_BRACKET.sub(r'\1', _EMPTY_BRACKETS.sub('', line))
  return _BEFORE_STOP.sub(r'\1', _SPACES.sub(' ', line)).strip()


@functools.lru_cache(maxsize=16)
def site_of(names: tuple[tuple[int, str], ...]) -> 'Site':
  """A wiki from its (namespace number, name) pairs, as a dump's siteinfo lists them."""
  hidden = {name.lower() for key, name in names if key in (*_FILE_KEYS, _CATEGORY_KEY) and name}
  return Site(hidden=_HIDDEN | hidden, namespaces=frozenset(name.lower() for key, name in names if key and name))


@dataclasses.dataclass(frozen=True)
class Site:
  """What one must know of a wiki to clean its pages; names are lower-case."""
  hidden: frozenset[str] = _HIDDEN  # a link into these shows nothing in the text: files and categories
  namespaces: frozenset[str] = frozenset()  # every namespace but the articles' own

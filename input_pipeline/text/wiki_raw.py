"""The first pass over wikitext: comments, entities, and tags whose content is no wikitext (nowiki, math, ref …)."""

import collections
import html
import re
from collections.abc import Callable
from html.entities import html5

from input_pipeline.text import wiki_math
from input_pipeline.text.wiki_marks import GAP, LOST, shield

_BREAK = '\n\n'


def resolve(text: str, counts: collections.Counter) -> str:
  """The text without comments, with entities and raw tags in the characters that they show, which are no markup.

  What is not closed is no tag; `closed` remembers that no more end of a kind comes, so that the time is linear.
  """
  pieces, at, never = [], 0, set()
  for found in _TOKEN.finditer(text):
    start, end = found.span()
    if start < at:
      continue
    pieces.append(text[at:start])
    at = end
    if found['entity']:
      pieces.append(_entity(found))
    elif found['name'] is None:
      at = _after_comment(text, start, end, pieces)
    else:
      name = found['name'].lower()
      if found['slash'] or found['attributes'].rstrip().endswith('/'):
        pieces.append(GAP)
        continue
      close = None if name in never else _ENDS[name].search(text, end)
      if close:
        pieces.append(_RAW[name](found['attributes'], text[end:close.start()], counts))
        at = close.end()
      else:
        never.add(name)
        pieces.append(GAP)
        if name == 'ref':  # its text is none of the sentence's
          at = _line_end(text, end)
  pieces.append(text[at:])
  return ''.join(pieces)


def _line_end(text: str, at: int) -> int:
  end = text.find('\n', at)
  return len(text) if end < 0 else end


def _after_comment(text: str, start: int, end: int, pieces: list[str]) -> int:
  """Where a comment ends; one that has a line of its own takes the line with it."""
  close = text.find('-->', end)
  if close < 0:
    return len(text)
  before, after = start, close + 3
  while before and text[before - 1] in ' \t':
    before -= 1
  if before == 0 or text[before - 1] == '\n':
    rest = _SPACES.match(text, after).end()
    if text[rest:rest + 1] == '\n':
      return rest + 1
  return after


def _entity(found: re.Match) -> str:
  if found['word']:
    character = html5.get(found['word'] + ';')
    return found[0] if character is None else shield(character)
  number = int(found['decimal']) if found['decimal'] else int(found['hexadecimal'], 16)
  if number > 0x10ffff or number < 32 or 0xfdd0 <= number < 0xfdf0:
    return ' '
  return shield(chr(number))


def _nowiki(attributes: str, content: str, counts: collections.Counter) -> str:
  return shield(html.unescape(content))


def _listing(attributes: str, content: str, counts: collections.Counter) -> str:
  return shield(content.strip()) if 'inline' in attributes else _BREAK


def _formula(attributes: str, content: str, counts: collections.Counter) -> str:
  content = html.unescape(content)
  text = None if 'block' in attributes else wiki_math.plain(content)
  return _or_lost(text, counts)


def _chemistry(attributes: str, content: str, counts: collections.Counter) -> str:
  text = wiki_math.chemical(html.unescape(content))
  return _or_lost(text, counts)


def _or_lost(text: str | None, counts: collections.Counter) -> str:
  if text is None:
    counts['formulas_left_out'] += 1
    return LOST
  return shield(text)


def _visible(attributes: str, content: str, counts: collections.Counter) -> str:
  return LOST


def _invisible(attributes: str, content: str, counts: collections.Counter) -> str:
  return GAP


def _block(attributes: str, content: str, counts: collections.Counter) -> str:
  return _BREAK


_RAW: dict[str, Callable[[str, str, collections.Counter], str]] = {
    'nowiki': _nowiki, 'syntaxhighlight': _listing, 'source': _listing, 'math': _formula, 'chem': _chemistry,
    'ce': _chemistry, 'hiero': _visible, 'score': _visible,
    **dict.fromkeys(('pre', 'gallery', 'timeline', 'imagemap', 'graph', 'mapframe', 'categorytree', 'inputbox'),
                    _block),
    **dict.fromkeys(('ref', 'references', 'includeonly', 'templatedata', 'templatestyles', 'section', 'indicator',
                     'maplink', 'style', 'script', 'languages'), _invisible)}
_ENDS = {name: re.compile(rf'</{name}\s*>', re.IGNORECASE) for name in _RAW}
_TOKEN = re.compile(
    r'<(?:!--|(?P<slash>/?)(?P<name>' + '|'.join(_RAW) + r')(?=[\s/>])(?P<attributes>[^<>]*)>)|'
    r'(?P<entity>&(?:#(?P<decimal>\d{1,7})|#[xX](?P<hexadecimal>[0-9a-fA-F]{1,6})|(?P<word>[A-Za-z]\w{1,30}));)',
    re.IGNORECASE)
_SPACES = re.compile(r'[ \t]*')

"""The second pass over wikitext: templates, links and language variants, whose brackets nest.

One walk over the brackets with a stack of what is open. Its time is linear: braces are paired beforehand, so that an
open one is known when it is met, and what nests too deep is not put together.
"""

import collections
import re
from dataclasses import dataclass, field

from input_pipeline.text import wiki_links, wiki_templates
from input_pipeline.text.wiki_marks import ASIDE, EQUALS, GAP, LOST, UNKNOWN

_DEEPEST = 40  # templates inside templates, MediaWiki's own bound; deeper ones show nothing
_BRACES = re.compile(r'\{\{+|\}\}+')
_TOKEN = re.compile(r'\{\{+|\}\}+|\[\[|\]\]|\|')
_TOKEN_WITH_VARIANTS = re.compile(r'\{\{+|\}\}+|\[\[|\]\]|\||-\{(?!\{)|\}-')
_REMAINS = re.compile(r'(?:\n[ \t]*[|}][^\n]*)*')  # lines after the first of a template that is not closed


@dataclass(slots=True)
class _Open:
  """Brackets that are open, and what they hold so far."""
  kind: str  # the bracket; '' for the page
  braces: int = 0
  parts: list[str] = field(default_factory=list)  # up to the last |
  pieces: list[str] = field(default_factory=list)  # of the part after it
  rendered: int = 0  # templates inside that show something


def resolve(text: str, page: wiki_templates.Page, counts: collections.Counter) -> str:
  """The text with what templates, links and variants show, or with a mark where they stood."""
  variants = page.site.has_variants and '-{' in text
  unpaired, stack, at = _unpaired(text), [_Open('')], 0
  for found in (_TOKEN_WITH_VARIANTS if variants else _TOKEN).finditer(text):
    start, end = found.span()
    if start < at:
      continue
    top, token = stack[-1], found[0]
    if start > at:
      top.pieces.append(text[at:start])
      if top.kind == '[[' and text.find('\n\n', at, start) >= 0:
        top = _end_links(stack, page)
    at = end
    if token == '|':
      if top.kind:
        top.parts.append(''.join(top.pieces))
        top.pieces = []
      else:
        top.pieces.append('|')
    elif token in ('[[', '-{'):
      if len(stack) <= _DEEPEST:  # what nests deeper is no link
        stack.append(_Open(token))
    elif token == ']]':
      if top.kind == '[[':
        stack.pop()
        _add(stack, wiki_links.show(_parts(top), page.site), top.rendered)
    elif token == '}-':
      _close_variant(stack, page)
    elif token[0] == '{':
      at = _open_braces(text, start, end, unpaired.get(start, 0), stack)
    else:
      rest = _close_braces(len(token), stack, page, counts)
      if rest and variants and text[end:end + 1] == '-' and stack[-1].kind == '-{':
        _close_variant(stack, page)
        at += 1
  stack[-1].pieces.append(text[at:])
  if rendered := sum(open_.rendered for open_ in stack):
    counts['templates_rendered'] += rendered
  return ''.join(_broken(open_, page) for open_ in stack)


def _end_links(stack: list[_Open], page: wiki_templates.Page) -> _Open:
  """Ends the links that are open where a paragraph ends, but for files, whose captions can have paragraphs."""
  while (inner := stack[-1]).kind == '[[' and not wiki_links.is_hidden((inner.parts or inner.pieces)[0], page.site):
    stack.pop()
    _add(stack, _broken(inner, page), inner.rendered)
  return stack[-1]


def _unpaired(text: str) -> dict[int, int]:
  """Where braces open that are never closed → how many of them."""
  stack = []
  for found in _BRACES.finditer(text):
    count = found.end() - found.start()
    if text[found.start()] == '{':
      stack.append([found.start(), count])
      continue
    while count >= 2 and stack:
      taken = 3 if count >= 3 and stack[-1][1] >= 3 else 2
      count -= taken
      stack[-1][1] -= taken
      if stack[-1][1] < 2:
        stack.pop()
  return {place: count for place, count in stack}


def _open_braces(text: str, start: int, end: int, unpaired: int, stack: list[_Open]) -> int:
  """Where the walk goes on: what is never closed ends with its line, and the lines of arguments after it."""
  if end - start - unpaired >= 2:
    stack.append(_Open('{{', end - start - unpaired))
    return end
  stack[-1].pieces.append(GAP)
  line = text.find('\n', end)
  return len(text) if line < 0 else _REMAINS.match(text, line).end()


def _close_braces(count: int, stack: list[_Open], page: wiki_templates.Page, counts: collections.Counter) -> int:
  """Closes templates and arguments; returns how many braces are left over."""
  while count >= 2:
    while stack[-1].kind in ('[[', '-{') and any(open_.kind == '{{' for open_ in stack[-_DEEPEST:]):
      inner = stack.pop()  # what is not closed inside a template ends with it
      _add(stack, _broken(inner, page), inner.rendered)
    top = stack[-1]
    if top.kind != '{{':
      return 0
    taken = 3 if count >= 3 and top.braces >= 3 else 2
    count -= taken
    top.braces -= taken
    parts, rendered = _parts(top), top.rendered
    if len(stack) > _DEEPEST:
      shown = LOST
    elif taken == 3:
      shown = parts[1] if len(parts) > 1 else GAP
    else:
      shown = wiki_templates.show(parts, page, counts)
      rendered = 0 if shown in (GAP, UNKNOWN, ASIDE, LOST) else rendered + bool(shown.strip())
    if top.braces >= 2:
      top.parts, top.pieces, top.rendered = [], [shown], rendered
    else:
      stack.pop()
      _add(stack, '{' * top.braces + shown, rendered)
  return count


def _close_variant(stack: list[_Open], page: wiki_templates.Page) -> None:
  if stack[-1].kind == '-{':
    top = stack.pop()
    _add(stack, page.site.variant('|'.join(_parts(top))), top.rendered)


def _add(stack: list[_Open], shown: str, rendered: int) -> None:
  """Inside a template, an = of what is shown names no argument."""
  stack[-1].pieces.append(shown.replace('=', EQUALS) if stack[-1].kind == '{{' else shown)
  stack[-1].rendered += rendered


def _parts(open_: _Open) -> list[str]:
  return [*open_.parts, ''.join(open_.pieces)]


def _broken(open_: _Open, page: wiki_templates.Page) -> str:
  """What brackets that were never closed leave of their content."""
  text = '|'.join(_parts(open_))
  if open_.kind != '[[':
    return text
  return wiki_links.unclosed(text, page.site)

"""What a link shows: its label, its title, or nothing, as files, categories and other languages' articles do."""

import re

from input_pipeline.text.wiki_marks import GAP
from input_pipeline.text.wiki_site import Site

_LANGUAGE = re.compile(r'(?:[a-z]{2,3}(?:-[a-z]{2,}){0,2}|simple)$')
_PROJECTS = frozenset({'mw', 'wmf', 'doi', 'rfc', 'rev', 'isbn'})  # prefixes that look like a language's and are shown
_LONGEST_PREFIX = 60  # characters of a namespace's name
_TOWN = re.compile(r'\s*[(,（].*$', re.DOTALL)
_FIRST_LABEL = re.compile(r'^[^|\n]*\|')


def show(parts: list[str], site: Site) -> str:
  """The text of [[target|label]]; of a link that runs over lines, which is none, all but its brackets."""
  target = parts[0].strip()
  if is_hidden(target, site):
    return GAP
  prefix, colon, rest = target.partition(':')
  name = prefix.strip()
  if '\n' in target or len(parts) > 1 and '\n\n' in parts[-1]:
    return '|'.join(parts)
  if colon:
    if not prefix:  # [[:Category:Name]] is a visible link
      rest = rest.partition(':')[2] or rest
    elif len(parts) == 1 and _LANGUAGE.match(name) and name not in _PROJECTS:
      return GAP
  if len(parts) > 1:
    label = '|'.join(parts[1:])
    if label.strip():
      return label
    return _TOWN.sub('', rest or target)  # the pipe trick: [[Name (town)|]]
  if colon and not prefix:
    return rest.strip()
  return target.partition('#')[2] if target.startswith('#') else target


def is_hidden(target: str, site: Site) -> bool:
  """Whether a target is a file's or a category's."""
  prefix, colon, _ = target.partition(':')
  return bool(colon) and len(prefix) < _LONGEST_PREFIX and prefix.strip().replace('_', ' ').lower() in site.hidden


def unclosed(text: str, site: Site) -> str:
  """What follows [[ that nothing closes: its line goes with a file, and else only the target before the label."""
  line, newline, rest = text.partition('\n')
  if is_hidden(line, site):
    return GAP + newline + rest
  return _FIRST_LABEL.sub('', line) + newline + rest

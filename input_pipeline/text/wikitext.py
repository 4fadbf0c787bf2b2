"""Wikitext → prose: one paragraph a line, as its reader sees it, without a trace of markup.

Three passes in MediaWiki's own order, each in time that grows with the length of the page: raw tags, comments and
entities (wiki_raw.py); templates, links and variants (wiki_braces.py); tables, headings, lists (wiki_blocks.py). What
was no markup in the source is shielded (wiki_marks.py): later passes cannot see it.
"""

import collections
import re

from input_pipeline.text import document, wiki_blocks, wiki_braces, wiki_raw, wiki_templates
from input_pipeline.text.wiki_marks import unshield
from input_pipeline.text.wiki_site import Site, site_of

__all__ = 'clean', 'site_of', 'Site'

_JOINED = re.compile(r'\{\{+|\}\}+|\[\[+')  # what stood apart before the markup between went


def clean(text: str, site: Site, counts: collections.Counter | None = None, title: str = '',
          keep_end_sections: bool = False) -> str:
  """The prose of a page, a paragraph or a list item a line; headings end paragraphs and are dropped.

  '' where there is none. `counts` receives what was rendered and what was left out.
  """
  counts = collections.Counter() if counts is None else counts
  text = wiki_raw.expand(document.valid(text).replace('\r\n', '\n'), counts)
  text = wiki_braces.expand(text, wiki_templates.Page(site, title), counts)
  prose = wiki_blocks.prose(text, site, keep_end_sections, counts)
  return document.valid(unshield(_without_joined(prose)))


def _without_joined(prose: str) -> str:
  while _JOINED.search(prose):
    prose = '\n'.join(filter(None, (line.strip() for line in _JOINED.sub('', prose).split('\n'))))
  return prose

"""A hook of mkdocs: README, CONTRIBUTING and CHANGELOG, which stand beside docs/, are pages of the site too.

Their links to docs/ and the links of docs/ to them are made those of the site; a link to a source, which is none of its
pages, becomes the words that it stands under. mkdocs.yml names this file.
"""

import pathlib
import posixpath
import re
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
BESIDE = {'README.md': 'index.md', 'CONTRIBUTING.md': 'contributing.md', 'CHANGELOG.md': 'changelog.md'}
LINK = re.compile(r'\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)')
CODE = re.compile(r'(?ms)(^```.*?^```$|`[^`\n]*`)')


def on_files(files: Any, config: Any) -> Any:
  """Adds the pages from beside docs/."""
  from mkdocs.structure.files import File
  for name, page in BESIDE.items():
    files.append(File.generated(config, page, content=of_site((ROOT / name).read_text(encoding='utf-8'), '.')))
  return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
  """The pages of docs/, with the links of the site."""
  return markdown if page.file.src_uri in BESIDE.values() else of_site(markdown, 'docs')


def of_site(text: str, folder: str) -> str:
  """A page that lies in `folder` of the repository, with the links of the site; code stays as it is."""
  spans = CODE.split(text)  # text, code, text …
  held = [f'\0{i}\0' if i % 2 else span for i, span in enumerate(spans)]  # a link's words may hold code
  linked = LINK.sub(lambda link: _link(link, folder), ''.join(held))
  return re.sub(r'\0(\d+)\0', lambda place: spans[int(place[1])], linked)


def _link(link: re.Match[str], folder: str) -> str:
  words, target = link.groups()
  path, hash_sign, anchor = target.partition('#')
  if not path or ':' in path:
    return link[0]
  place = posixpath.normpath(posixpath.join(folder, path))
  page = BESIDE.get(place, posixpath.relpath(place, 'docs') if place.startswith('docs/') else None)
  return words if page is None else f'[{words}]({page}{hash_sign}{anchor})'

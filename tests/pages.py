"""README, CONTRIBUTING and docs/ as their readers see them: blocks of code, headings, links."""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
README, GUIDE, PYTHON = ROOT / 'README.md', ROOT / 'docs/guide.md', ROOT / 'docs/python.md'
PAGES = [README, ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md', *sorted((ROOT / 'docs').glob('*.md'))]
MARK = re.compile(r'<!-- (not run|run): (\S.*?) -->$')
FENCE = '```'


@dataclasses.dataclass(frozen=True)
class Block:
  """What stands between fences. `mark`: ('not run', why) or ('run', where), as the comment before the block says."""
  page: str
  line: int
  language: str
  text: str
  mark: tuple[str, str] | None = None


def blocks(page: pathlib.Path) -> Iterator[Block]:
  """The blocks of a page; a mark belongs to the block on the next line."""
  lines = iter(enumerate(page.read_text(encoding='utf-8').splitlines(), 1))
  before = ''
  for number, line in lines:
    if line.startswith(FENCE):
      inside = []
      for _, text in lines:
        if text.startswith(FENCE):
          break
        inside.append(text)
      else:
        raise AssertionError(f'{page.name}, line {number}: a block that does not end')
      found = MARK.match(before)
      yield Block(page.name, number, line.removeprefix(FENCE), '\n'.join(inside), found and (found[1], found[2]))
    before = line


def prose(page: pathlib.Path) -> str:
  """The page without its blocks and comments."""
  text = re.sub(rf'(?ms)^{FENCE}.*?^{FENCE}$', '', page.read_text(encoding='utf-8'))
  return re.sub(r'(?s)<!--.*?-->', '', text)


def anchors(page: pathlib.Path) -> set[str]:
  """The names of a page's headings, as GitHub makes them and as Python-Markdown does: only those that are the same."""
  plain = [re.sub(r'[`*]|\[([^]]*)\]\([^)]*\)', r'\1', title) for title in re.findall(r'(?m)^#+ (.+)$', prose(page))]
  words = [re.sub(r'[^\w\s-]', '', title).strip().lower() for title in plain]
  return {re.sub(r'[-\s]+', '-', title) for title in words if re.sub(r'[-\s]+', '-', title) == title.replace(' ', '-')
          and title.isascii()}


def links(page: pathlib.Path) -> list[str]:
  """Where the page's links and pictures lead, those in spans of code left out."""
  return re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`\n]*`', '', prose(page)))

"""What CONTRIBUTING.md and docs/ say of files and names is true."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
# `input_pipeline/batches/loader.py::CONTRACT`, `launch/commands/`: a path of this house, and perhaps a name in it.
PLACE = re.compile(r'`((?:bert_jax|input_pipeline|launch|tests|docs|examples|\.ci)/[\w./-]*)(?:::([\w.]+))?`')


def places(page):
  return sorted({(path, name) for path, name in PLACE.findall(page.read_text(encoding='utf-8'))})


def names(body):
  """Functions, classes with their members, and whatever is assigned in the body of a module or a class."""
  found = set()
  for node in body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      found.add(node.name)
      if isinstance(node, ast.ClassDef):
        found |= {f'{node.name}.{name}' for name in names(node.body)}
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
      targets = node.targets if isinstance(node, ast.Assign) else [node.target]
      found |= {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
  return found


@pytest.mark.parametrize('page, path, name', [(page.name, *place) for page in PAGES for place in places(page)])
def test_what_a_page_names_exists(page, path, name):
  assert (ROOT / path).exists(), f'{page} names {path}, which does not exist'
  if name:
    assert name in names(ast.parse((ROOT / path).read_text(encoding='utf-8')).body), f'{page}: {path} has no {name}'


def test_the_strangers_table_names_a_file_and_a_name_for_each_question():
  text = (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
  rows = [line for line in text.split('## Where is')[1].split('\n## ')[0].splitlines() if line.startswith('| ')][1:]
  assert len(rows) > 15
  assert [row for row in rows if not PLACE.search(row)] == []

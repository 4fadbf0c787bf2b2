"""The pages hold together: links lead somewhere, blocks say what they are, what is quoted is really said."""

import re

import pytest
import yaml

from launch import site_pages
from tests import pages
from tests.test_flags import FILES, PLACEHOLDER, missing, strings

NAMES = [page.name for page in pages.PAGES]


@pytest.mark.parametrize('page', pages.PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
  broken = []
  for link in pages.links(page):
    path, _, anchor = link.partition('#')
    if re.match(r'[a-z]+:', link):
      continue
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or pages.ROOT not in target.parents:
      broken.append(link)
    elif anchor and anchor not in pages.anchors(target):
      broken.append(link)
  assert broken == []


def test_a_broken_link_is_found(tmp_path):
  page = tmp_path / 'page.md'
  page.write_text('# One: `two` three\n\n[a](page.md#one-two-three), `[b](nowhere)`\n\n```text\n# [c](nowhere)\n```\n')
  assert pages.links(page) == ['page.md#one-two-three'] and pages.anchors(page) == {'one-two-three'}


@pytest.mark.parametrize('page', pages.PAGES, ids=NAMES)
def test_each_block_says_what_it_is(page):
  """Commands are run by tests/test_documented.py, or say why not; what is shown holds no command to copy."""
  runs = {pages.README: {'sh', 'python'}, pages.GUIDE: {'sh', 'python'}, pages.PYTHON: {'python'}}.get(page, set())
  for block in pages.blocks(page):
    place = f'{block.page}, line {block.line}'
    assert block.language in ('sh', 'python', 'text'), f'{place}: wanted ```sh, ```python or ```text'
    if block.language == 'text':
      assert not block.mark and not re.search(r'(?m)^(bert-jax|pip|git|make|python3?) ', block.text), place
    else:
      assert block.mark or block.language in runs, f'{place} is not run: <!-- not run: why --> on the line before it'


@pytest.mark.parametrize('page', [page for page in pages.PAGES if page.name not in ('README.md', 'CHANGELOG.md')],
                         ids=lambda page: page.name)
def test_pages_name_only_flags_and_commands_that_exist(page):
  text = page.read_text(encoding='utf-8')
  assert sorted(set(missing(text)) - FOREIGN.get(page.name, set())) == []


# Flags of other programs, in the words of a page.
FOREIGN = {
    'checkpoints.md': {'--xla_gpu_deterministic_ops'},
    'CONTRIBUTING.md': {'--grow'},  # of .ci/check_types.py
    'clusters.md': {'--environment_config', '--environment_type', '--job_endpoint', '--temp_location',  # of Beam
                    '--head', '--namespace', '--nodes', '--num_cpus', '--object_store_memory'},  # of Ray
    'launchers.md': {
        '--build-arg', '--nodes', '--nv', '--partition',
        '--signal', '--time', '--user'},  # of docker, gcloud, sbatch
}


def test_sentences_that_troubleshooting_quotes_are_said():
  """`… holds no text: wanted …`: each part between … stands in a string of the sources, in that order."""
  said = [words.replace('\n', ' ') for path in FILES for words in strings(path)]
  page = (pages.ROOT / 'docs/troubleshooting.md').read_text(encoding='utf-8')
  rows = re.findall(r'(?m)^\| `([^`]+)`[^|]*\|', page)
  assert len(rows) > 15
  pattern = lambda sentence: '.*'.join(re.escape(part.strip()) for part in sentence.split(PLACEHOLDER))
  assert [sentence for sentence in rows if not any(re.search(pattern(sentence), words) for words in said)] == []


def test_every_page_has_its_place_on_the_site():
  """mkdocs.yml lists each page once; those from beside docs/ are named by launch/site_pages.py."""
  site = yaml.safe_load((pages.ROOT / 'mkdocs.yml').read_text(encoding='utf-8'))
  listed = [name for part in site['nav'] for names in part.values() for name in names]
  left_out = set(site['exclude_docs'].split())
  assert sorted(listed) == sorted({page.name for page in pages.PAGES if page.parent.name == 'docs'} - left_out
                                  | set(site_pages.BESIDE.values()))


def test_the_readme_is_short():
  """What it is, for whom, the shortest way, where to read on: the reference is in docs/."""
  assert len(pages.README.read_text(encoding='utf-8').splitlines()) <= 150

"""Dumps and WikiExtractor's output: old revisions cost no memory, what is too long is counted, text is as it was."""

import collections
import contextlib
import html
import io
import itertools
import tracemalloc

import pytest
from hypothesis import given, settings, strategies as st

from input_pipeline import records
from input_pipeline.text import document, formats, mediawiki, sources, wikiextractor

HEAD = ('<mediawiki xml:lang="{}"><siteinfo><namespaces><namespace key="6">Datei</namespace><namespace key="14">K'
        '</namespace></namespaces></siteinfo>')


def page(number, *texts):
  written = [html.escape(text, quote=False) for text in texts]
  revisions = ''.join(f'<revision><id>{i}</id><model>wikitext</model><text>{text}</text></revision>'
                      for i, text in enumerate(written))
  return f'<page><title>Page {number}</title><ns>0</ns><id>{number}</id>{revisions}</page>\n'


def read(path, **options):
  counts = collections.Counter()
  return list(sources.documents(str(path), counts=counts, options=formats.Options(**options))), counts


class Blocks(io.RawIOBase):
  """A stream of blocks that are made when they are read."""

  def __init__(self, blocks):
    self.blocks, self.rest = iter(blocks), b''

  def read(self, size):
    while len(self.rest) < size and (block := next(self.blocks, None)) is not None:
      self.rest += block
    found, self.rest = self.rest[:size], self.rest[size:]
    return found


@pytest.fixture(scope='module')
def in_blocks_of():
  @contextlib.contextmanager
  def sized(size):
    before, document.READ = document.READ, size
    try:
      yield
    finally:
      document.READ = before
  return sized


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(['', 'a', 'b' * 40, '<page>', '</page>']), min_size=0, max_size=4),
    max_size=5),
       st.integers(20, 200))
def test_pages_have_their_last_revision_wherever_blocks_end(in_blocks_of, pages, block):
  text = HEAD.format('de') + ''.join(page(i, *texts) for i, texts in enumerate(pages)) + '</mediawiki>\n'
  data = text.encode()
  with in_blocks_of(block):
    found = list(mediawiki.split(io.BytesIO(data), 'dump', formats.USUAL))
  assert len(found) == len(pages)
  for texts, (offset, raw, (language, names)) in zip(pages, found):
    assert data[offset:].startswith(b'<page>') and (language, names) == ('de', ((6, 'Datei'), (14, 'K')))
    assert raw.count(b'<revision>') == min(1, len(texts))
    if texts:
      assert f'<text>{html.escape(texts[-1], quote=False)}</text>'.encode() in raw


def test_old_revisions_and_pages_without_end_cost_no_memory():
  old = b'<revision><text>' + b'old ' * 60_000 + b'</text></revision>'

  def blocks():
    yield (HEAD.format('en') + '<page><title>A</title><ns>0</ns><id>1</id>').encode()
    yield from [old] * 300
    yield b'<revision><text>New words.</text></revision></page><page><title>B</title><ns>0</ns><revision><text>'
    yield from [b'word ' * 50_000] * 300
    yield b'</text></revision></page><page><title>C</title><ns>0</ns><revision><text>The end.</text></revision></page>'
    yield b'</mediawiki>'

  tracemalloc.start()
  counts = collections.Counter()
  found = ['left out' if raw is None else mediawiki.parse(raw.decode(), context, 'x', counts, formats.USUAL)
           for _, raw, context in mediawiki.split(Blocks(blocks()), 'dump', formats.USUAL)]
  assert tracemalloc.get_traced_memory()[1] < 120e6
  tracemalloc.stop()
  assert [getattr(one, 'text', one) for one in found] == ['New words.', 'left out', 'The end.']


def test_a_long_document_of_wikiextractor_is_left_out(monkeypatch, in_blocks_of):
  monkeypatch.setattr(document, 'LONGEST_RECORD', 200)
  docs = [f'<doc id="{i}" url="u" title="T">\n{text}\n</doc>\n'.encode()
          for i, text in enumerate(['a', 'b\n' * 500, 'c', 'd ' * 60])]
  for size in (7, 64, 100, 333):
    with in_blocks_of(size):
      found = list(wikiextractor.split(io.BytesIO(b''.join(docs)), 'wiki', formats.USUAL))
    assert [raw for _, raw, _ in found] == [docs[0], None, *docs[2:]]
    assert [offset for offset, _, _ in found] == [0, *itertools.accumulate(map(len, docs[:3]))]


def test_a_page_of_many_characters_is_left_out_and_counted(tmp_path, monkeypatch):
  monkeypatch.setattr(mediawiki, 'LONGEST_TEXT', 1000)
  (tmp_path / 'a.xml').write_text(HEAD.format('en') + page(1, 'Fine.') + page(2, 'word ' * 201) + '</mediawiki>')
  found, counts = read(tmp_path / 'a.xml')
  assert [one.text for one in found] == ['Fine.'] and counts['too_long'] == 1 and counts['pages'] == 2


def test_a_dump_of_a_wiki_is_read_in_its_language(tmp_path):
  text = ('[[Bild:a.jpg|mini|links|Eine Fliege]]\nEs hat {{formatnum:6000}} {{enS|rivers}} und 5&nbsp;km.<ref>x</ref>\n'
          '== Weblinks ==\n* Eine Liste, die ein Satz ist.\n')
  (tmp_path / 'a.xml').write_text(HEAD.format('de') + page(1, text, text) + '</mediawiki>')
  [found], counts = read(tmp_path / 'a.xml')
  assert found.text == 'Es hat 6.000 englisch rivers und 5 km.'
  assert counts['templates_rendered'] == 2 and counts['end_sections'] == 1
  [kept], _ = read(tmp_path / 'a.xml', keep_end_sections=True)
  assert kept.text.split('\n')[1:] == ['Eine Liste, die ein Satz ist.']


def test_halves_of_characters_become_valid_text(tmp_path):
  (tmp_path / 'a.xml').write_text(HEAD.format('en') + page(1, 'A &#55357;&#56832; b.') + page(2, 'One.').replace(
      'One.', 'One &#55357; two &#x0; &#99999999999999999999999999; three.') + '</mediawiki>')
  found, _ = read(tmp_path / 'a.xml')
  assert [one.text for one in found] == ['A 😀 b.', 'One \ufffd two \ufffd \ufffd three.']


def test_wikiextractor_is_unescaped_once(tmp_path):
  (tmp_path / 'wiki_00').write_text(
      '<doc id="1" url="u" title="Salt &amp; Stone">\nSalt &amp; Stone\n\nThe R&amp;D price was &lt;5 &amp;amp; rose.\n'
      '\n</doc>\n'
      '<doc id="2" url="u" title=""Hello" program">\n&quot;Hello&quot; program\n\nIt ends &copy now.\n\n</doc>\n'
      '<doc id="3" url="u" title="T">\nT\n\nIt ends with </doc> here, and begins with <doc id="9" url="u" title="t"> '
      'too.\n</doc>')
  found, _ = read(tmp_path / 'wiki_00')
  assert [(one.id, one.title, one.text) for one in found] == [
      ('1', 'Salt & Stone', 'The R&D price was <5 &amp; rose.'), ('2', '"Hello" program', 'It ends &copy now.'),
      ('3', 'T', 'It ends with </doc> here, and begins with <doc id="9" url="u" title="t"> too.')]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet='ab<>&;"\'lt#39 /doc\n', min_size=1, max_size=40), min_size=1, max_size=4),
    st.integers(20, 60))
def test_wikiextractor_gives_every_text_back(in_blocks_of, texts, block):
  data = ''.join(f'<doc id="{i}" url="u" title="T{i}">\nT{i}\n\n{html.escape(text, quote=False)}\n\n</doc>\n'
                 for i, text in enumerate(texts)).encode()
  with in_blocks_of(block):
    raws = list(wikiextractor.split(io.BytesIO(data), 'wiki', formats.USUAL))
  assert b''.join(raw for _, raw, _ in raws) == data
  for i, (text, (_, raw, context)) in enumerate(zip(texts, raws)):
    found = wikiextractor.parse(raw.decode(), context, 'x', collections.Counter(), formats.USUAL)
    assert found == (document.Document(str(i), f'T{i}', text.strip()) if text.strip() else 'empty')


@pytest.mark.parametrize('text, says', [
    (HEAD.format('en') + page(1, 'a') + '<page><title>x', 'truncated'), (HEAD.format('en') + page(1, 'a'), 'truncated'),
    (HEAD.format('en') + page(1, 'a').replace('</ns>', ''), 'not well-formed'), ('<mediawiki>',
    'not a MediaWiki dump')])
def test_damaged_dumps_are_refused(tmp_path, text, says):
  (tmp_path / 'a.xml').write_text(text + ('</mediawiki>' if says == 'not well-formed' else ''))
  with pytest.raises(records.DataError, match=says):
    read(tmp_path / 'a.xml')

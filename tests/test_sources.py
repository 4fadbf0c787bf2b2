"""Every format gives its documents, drops and counts the rest, leaves no markup, and says what is wrong with a bad
file."""

import bz2
import collections
import gzip
import json
import pathlib
import re

import pytest

from input_pipeline import records
from input_pipeline.text import sources, wikitext

DATA = pathlib.Path(__file__).parents[2] / 'shared/data/wikipedia'
needs_data = pytest.mark.skipif(not DATA.exists(), reason='../shared/data/wikipedia is not here')
MARKUP = re.compile(r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}|<ref|</|''|\[https?://|Category:|\|thumb|==|&nbsp;|__[A-Z]+__")

DUMP = '''<mediawiki xml:lang="ltg"><siteinfo><namespaces>
<namespace key="0" case="first-letter" /><namespace key="1">Talk</namespace>
<namespace key="6" case="first-letter">Fails</namespace><namespace key="14">Kategoreja</namespace>
</namespaces></siteinfo>
{pages}</mediawiki>
'''


def page(number: int, text: str, namespace: int = 0, redirect: bool = False) -> str:
  text = text.replace('&', '&amp;').replace('<', '&lt;')
  return (f'<page><title>Page {number}</title><ns>{namespace}</ns><id>{number}</id>{"<redirect />" if redirect else ""}'
          f'<revision><model>wikitext</model><text>{text}</text></revision></page>\n')


def read(source, **options):
  counts = collections.Counter()
  return list(sources.documents(str(source), counts=counts, **options)), counts


def test_a_dump_gives_articles_and_counts_the_rest(tmp_path):
  pages = [page(1, 'Some [[prose]].'), page(2, '#REDIRECT [[Page 1]]', redirect=True), page(3, 'Talk.', namespace=1),
           page(4, '{{only|a template}}'), page(5, '#redirect [[Page 1]]'), page(6, 'More prose.')]
  for name, compress in (('a.xml', bytes), ('a.xml.bz2', bz2.compress), ('a.xml.gz', gzip.compress)):
    (tmp_path / name).write_bytes(compress(DUMP.format(pages=''.join(pages)).encode()))
    found, counts = read(tmp_path / name)
    assert [(d.id, d.title, d.text) for d in found] == [('1', 'Page 1', 'Some prose.'), ('6', 'Page 6', 'More prose.')]
    assert {k: counts[k] for k in ('pages', 'redirects', 'other_namespaces', 'empty', 'documents')} == {
        'pages': 6, 'redirects': 2, 'other_namespaces': 1, 'empty': 1, 'documents': 2}


@pytest.mark.parametrize('markup, prose', [
    ("'''Bold''' and ''italic'' and [[link|label]], [[plain]]s.", 'Bold and italic and label, plains.'),
    ('A{{t|{{nested}}}} b<ref name="x">{{cite}} text</ref>.<ref name="x"/>', 'A b.'),
    ('Before.\n{| class="wikitable"\n|-\n! head\n| cell\n|}\nAfter.', 'Before.\nAfter.'),
    ('[[File:A.jpg|thumb|A [[caption]]]] Text [[Fails:B.jpg]][[Category:C]][[Kategoreja:D]][[fr:Texte]] end.',
     'Text end.'),
    ('== Heading ==\nOne.\nstill one.\n\nTwo.', 'One. still one.\nTwo.'),
    ('See [http://a.b label] and [http://a.b] http://c.d now.', 'See label and http://c.d now.'),
    ('<!-- gone -->5&nbsp;km &lt;b&gt; <math>x^2</math><ref>a</ref> __NOTOC__ end.', '5 km <b> x² end.'),
    ('* A list item that is a sentence.\n* menu\n* entry', 'A list item that is a sentence.'),
    ('The name (; {{ipa}}) is ( {{ipa}} ) short.', 'The name is short.'),
    ('[[Name (town)|]] and [[:Category:Visible]] and [[wikt:word|word]].', 'Name and Visible and word.'),
    ('One is whole. Open [[link and {{template and <ref>note', 'One is whole.'),
])
def test_wikitext_becomes_prose(markup, prose):
  site = wikitext.site_of(((6, 'Fails'), (14, 'Kategoreja'), (1, 'Talk')))
  cleaned = wikitext.clean(markup, site)
  assert not MARKUP.search(cleaned)
  assert cleaned == prose


def test_wikiextractor_layout(tmp_path):
  text = ''.join(
      f'<doc id="{i}" url="u" title="A "quoted" title {i}">\nA "quoted" title {i}\n\nText {i}.\nMore.\n</doc>\n'
      for i in range(3))
  (tmp_path / 'wiki_00').write_text(
      text + '<doc id="9" url="u" title="Bare">\nBare\n\n</doc>\nan/appended/list/of/files\n')
  found, counts = read(tmp_path / 'wiki_00')
  assert [(d.id, d.title, d.text) for d in found] == [(str(i), f'A "quoted" title {i}', f'Text {i}.\nMore.')
                                                      for i in range(3)]
  assert counts['empty'] == 1


def test_plain_text_ends_documents_at_blank_lines_and_file_ends(tmp_path):
  (tmp_path / 'a.txt').write_bytes('\ufeffOne.\r\nTwo.\r\n \r\n\r\nThree.'.encode())
  (tmp_path / 'b.txt').write_text('Four.\n')
  found, _ = read(tmp_path / '*.txt')
  assert [d.text.split() for d in found] == [['One.', 'Two.'], ['Three.'], ['Four.']]
  assert len({d.id for d in found}) == 3
  alone, _ = read(tmp_path / 'b.txt')
  assert alone[0] == found[2]  # an id does not depend on what stands around


def test_json_lines(tmp_path):
  lines = [{'id': 7, 'url': 'u', 'title': 'T', 'text': 'T\n\nBody.'}, {'text': 'No id.'}]
  (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  found, _ = read(tmp_path / 'a.jsonl')
  assert [(d.id, d.text) for d in found] == [('7', 'Body.'), (found[1].id, 'No id.')]


def test_a_text_that_is_its_title_is_one(tmp_path):
  lines = [{'title': 'One', 'text': 'One'}, {'title': 'One', 'text': 'One\n'}, {'title': 'One', 'text': 'One\nTwo.'}]
  (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  assert [document.text for document in sources.documents(str(tmp_path / 'a.jsonl'))] == [
      'One', 'One', 'Two.']


def test_chunks_do_not_change_the_documents(tmp_path):
  (tmp_path / 'a.txt').write_text('\n\n'.join(f'Document {i}.\nIts end.' for i in range(500)))
  whole = [d for c in sources.chunks(sources.mixture(str(tmp_path / 'a.txt'))) for d in sources.parse(c).documents]
  small = [d for c in sources.chunks(sources.mixture(str(tmp_path / 'a.txt')), chunk_bytes=100)
           for d in sources.parse(c).documents]
  assert whole == small and len(whole) == 500


@pytest.mark.parametrize('name, content, message', [
    ('a.xml', DUMP.format(pages=page(1, 'x') * 3)[:-30].encode(), 'truncated'),
    ('a.xml', DUMP.format(pages=page(1, 'x')).replace('<ns>', '<ns').encode(), 'not well-formed'),
    ('a.xml.bz2', bz2.compress(DUMP.format(pages=page(1, 'x' * 9000)).encode())[:-20], 'truncated'),
    ('a.txt.gz', gzip.compress(b'text' * 9000, mtime=0)[:-12], 'truncated'),
    ('a.txt', b'fine\nline\n\nbad \xff here', 'byte 0xff at byte 15'),
    ('a.jsonl', b'{"text": "x"}\n{"text": ', 'not a JSON line'),
    ('a.jsonl', b'{"title": "x"}\n', "found: 'title'"),
    ('a.jsonl', b'{"text": 3}\n', "'text' is '3', no text"),
    ('wiki', b'<doc id="1" url="" title="T">\nT\n\ntext', 'no </doc>'),
])
def test_bad_files_get_one_clear_sentence(tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(records.DataError, match=re.escape(message)) as error:
    read(tmp_path / name)
  assert '\n' not in str(error.value) and name in str(error.value)


def test_many_small_files_are_few_chunks(tmp_path):
  for number in range(300):
    (tmp_path / f'{number:03d}.txt').write_text(f'Text {number}.')
  chunks = list(sources.chunks(sources.mixture(str(tmp_path)), chunk_bytes=1000))
  assert len(chunks) <= 4
  assert [one.text for chunk in chunks for one in sources.parse(chunk).documents] == [f'Text {n}.' for n in range(300)]
  assert sum(sources.parse(chunk).counts['pages'] for chunk in chunks) == 300


def test_missing_input(tmp_path):
  for source, message in ((tmp_path / 'none.txt', 'no such file'), (tmp_path / '*.txt', 'no file matches'),
                          (tmp_path, 'in this folder')):
    with pytest.raises(records.DataError, match=message):
      read(source)
  with pytest.raises(records.DataError, match='--format'):
    read(tmp_path, format='pdf')


@needs_data
@pytest.mark.parametrize('name, documents, redirects, empty', [
    ('ltgwiki-pages-articles.xml.bz2', 887, 147, 16), ('enwiki-slice-196-pages.xml.bz2', 68, 85, 0),
    ('zhwiki-one-page.xml', 1, 0, 0)])
def test_real_dumps_are_counted_and_clean(name, documents, redirects, empty):
  found, counts = read(DATA / name)
  assert (len(found), counts['redirects'], counts['empty']) == (documents, redirects, empty)
  assert counts['pages'] == documents + redirects + empty + counts['other_namespaces']
  shown = ['HTML'] if name.startswith('ltg') else []  # a page that shows tags to its reader
  assert [d.title for d in found if MARKUP.search(d.text)] == shown
  if name.startswith('ltg'):
    assert documents + redirects + empty == 1050


@needs_data
def test_featured_articles_are_all_there():
  assert sum(len(chunk.content.raw)
             for chunk in sources.chunks(sources.mixture(str(DATA / 'enwiki_featured_4012.txt.gz')))) == 4012


def test_several_sources_with_weights(tmp_path):
  (tmp_path / 'a.txt').write_text('A one.\n\nA two.')
  (tmp_path / 'b,=2.txt').write_text('B one.')
  (tmp_path / 'c.txt').write_text('C one.')
  a, b, c = tmp_path / 'a.txt', tmp_path / 'b,=2.txt', tmp_path / 'c.txt'
  named = lambda input: [(part.source.name, part.weight) for part in sources.mixture(input)]
  assert named(f'{a}=0.3,{c}') == [(str(a), 0.3), (str(c), 1)] and named(str(b)) == [(str(b), 1)]
  assert [chunk.weight for chunk in sources.chunks(sources.mixture(f'{a}=0.5,{c}=2'))] == [0.5, 2]
  assert collections.Counter(d.text for d in read(f'{a}=3,{c}')[0]) == {'A one.': 3, 'A two.': 3, 'C one.': 1}
  for wrong in (f'{a}=x,{a}', f'{a}=0,{a}', f'{a}=-1'):
    with pytest.raises(records.DataError, match='weight'):
      sources.mixture(wrong)


def test_a_tfds_data_set(tmp_path):
  tf = pytest.importorskip('tensorflow')
  tfds = pytest.importorskip('tensorflow_datasets')
  features = tfds.features.FeaturesDict({'title': tfds.features.Text(), 'text': tfds.features.Text()})
  name = tmp_path / 'wiki-train.tfrecord-00000-of-00001'
  with tf.io.TFRecordWriter(str(name)) as writer:
    for i in range(3):
      writer.write(features.serialize_example({'title': f'Title {i}', 'text': f'Text {i}.'}))
  template = tfds.core.ShardedFileTemplate(data_dir=str(tmp_path), dataset_name='wiki', split='train',
                                           filetype_suffix='tfrecord')
  split = tfds.core.SplitInfo(name='train', shard_lengths=[3], num_bytes=1, filename_template=template)
  tfds.folder_dataset.write_metadata(data_dir=str(tmp_path), features=features, split_infos=[split], check_data=False)
  found, _ = read(f'tfds:{tmp_path}:train')
  assert [(d.title, d.text) for d in found] == [(f'Title {i}', f'Text {i}.') for i in range(3)]
  with pytest.raises(records.DataError, match='tfds:none_such'):
    read('tfds:none_such')

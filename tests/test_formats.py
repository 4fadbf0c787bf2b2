"""The same documents in any format are the same, whatever they hold; what is no text is refused; prose is never
taken for anything else."""

import collections
import gzip
import io
import json
import os
import pathlib
import tarfile
import tempfile
import threading
import zipfile

import corpora
import pytest
import written
from hypothesis import given, settings as hypothesis_settings, strategies as st

from input_pipeline import records
from input_pipeline.prepare import corpus, settings
from input_pipeline.text import document, formats, sources
from input_pipeline.vocabulary import training

CASES = pathlib.Path(__file__).parents[2] / 'shared/cases/text'
needs_cases = pytest.mark.skipif(not CASES.exists(), reason='../shared/cases/text is not here')
CHARACTERS = st.one_of(st.characters(exclude_categories=['Cs']), st.sampled_from('\n\r\t",;|\'\\{}[] .'))
TEXTS = st.text(CHARACTERS, max_size=60)


def read(source, **options):
  counts = collections.Counter()
  found = list(sources.documents(str(source), counts=counts, options=formats.Options(**options)))
  return found, counts


@hypothesis_settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=9))
def test_every_format_gives_the_same_documents(fields):
  documents = [dict(zip(('id', 'title', 'text'), values)) for values in fields]
  with tempfile.TemporaryDirectory() as folder:
    found = {}
    for name in written.FORMATS:
      its, counts = read(written.write(name, documents, pathlib.Path(folder)))
      found[name] = its
      assert counts['pages'] == len(documents) == len(its) + counts['empty']
  assert {name: its for name, its in found.items() if its != found['jsonl']} == {}


@pytest.mark.parametrize('name', written.FORMATS)
def test_every_format_gives_the_same_shards(tmp_path, name, monkeypatch):
  """From a file, and from standard input where the format needs no more than a stream."""
  documents = [{'id': str(number), 'title': f'T {number}', 'text': corpora.text_of(number)} for number in range(40)]
  (tmp_path / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')

  def made(input: str, output: str):
    manifest = corpus.prepare(settings.Prepare(input, str(tmp_path / 'vocab.txt'), str(tmp_path / output),
                                               sequence_length=32, shards=2), progress=False)
    return manifest.splits

  wanted = made(str(written.write('jsonl', documents, tmp_path)), 'data')
  path = written.write(name, documents, tmp_path)
  assert made(str(path), 'again') == wanted
  if path.is_file() and name != 'parquet':
    with path.open() as standard_input:
      monkeypatch.setattr('sys.stdin', standard_input)
      assert made('-', 'from_stream') == wanted


@pytest.mark.parametrize('name', ['parquet', 'csv', 'saved'])
def test_a_vocabulary_is_the_same(tmp_path, name):
  documents = [{'id': str(number), 'title': '', 'text': corpora.text_of(number)} for number in range(60)]
  for kind in (name, 'jsonl'):
    training.train_from(training.VocabularySettings(
        str(written.write(kind, documents, tmp_path)), str(tmp_path / f'{kind}.txt'), size=60))
  assert (tmp_path / f'{name}.txt').read_bytes() == (tmp_path / 'jsonl.txt').read_bytes()


def test_fields_have_names(tmp_path):
  rows = [{'doc': {'key': 5, 'body': ['One.', 'Two.']}, 'name': 'N'}]
  (tmp_path / 'a.jsonl').write_text(json.dumps(rows[0]))
  (tmp_path / 'a.json').write_text(json.dumps(rows))
  import pyarrow
  import pyarrow.parquet
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / 'a.parquet')
  for name in ('a.jsonl', 'a.json', 'a.parquet'):
    [found], _ = read(tmp_path / name, text_field='doc.body', id_field='doc.key', title_field='name')
    assert (found.id, found.title, found.text) == ('5', 'N', 'One.\nTwo.')
    with pytest.raises(records.DataError, match='--text-field chooses another'):
      read(tmp_path / name)
    with pytest.raises(records.DataError, match="'key', which --id-field names"):
      read(tmp_path / name, text_field='doc.body', id_field='key')


def archive(make, add) -> bytes:
  data = io.BytesIO()
  with make(data) as file:
    add(file)
  return data.getvalue()


TAR = archive(lambda data: tarfile.open(fileobj=data, mode='w'), lambda file: file.addfile(tarfile.TarInfo('a.txt')))
ZIP = archive(lambda data: zipfile.ZipFile(data, 'w'), lambda file: file.writestr('a.txt', 'Text.'))
DOCX = archive(lambda data: zipfile.ZipFile(data, 'w'), lambda file: file.writestr('word/document.xml', '<w/>'))


@pytest.mark.parametrize('name, content, what', [
    ('a', TAR, 'a tar archive'), ('a.tar.gz', gzip.compress(TAR, mtime=0), 'a tar archive'),
    ('a.zip', ZIP, 'a zip archive'),
    ('a.docx', DOCX, 'an office program'), ('a.pdf', b'%PDF-1.7\n', 'a PDF'), ('a', b'\x89PNG\r\n\x1a\n', 'an image'),
    ('a.html', b' <!-- c -->\n<!DOCTYPE html><p>Text.', 'HTML'), ('a', b'<HTML lang="en">\n', 'HTML'),
    ('a', b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "">', 'HTML'), ('a.rtf', b'{\\rtf1 Text}', 'RTF'),
    ('a.xml', b'<?xml version="1.0"?>\n<TEI>Text</TEI>', 'XML'), ('a', b'<TEI>\n<text>Text</text>\n</TEI>', 'XML'),
    ('a.db', b'SQLite format 3\x00' + bytes(99), 'SQLite'), ('a.pkl', b'\x80\x04\x95\x05\x00', 'a pickle'),
    ('a.npy', b'\x93NUMPY\x01\x00', 'NumPy'), ('a', 'Text.'.encode('utf-16'), 'UTF-16'),
    ('a', 'Text.'.encode('utf-16-le'), 'binary'),
    ('a.arc.gz', gzip.compress(b'filedesc://a.arc 0.0.0.0', mtime=0), 'a web archive of the kind ARC'),
    ('a', b'\n\x0b\x08\x02\x12\x07' + bytes(range(32)), 'binary')])
def test_what_is_no_text_is_refused(tmp_path, name, content, what):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(records.DataError, match=f'{name} is .*{what}.*: ') as error:
    read(tmp_path / name)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('text', [
    '{Note} that this is prose.', '[1] A citation, and more.', '["Hello", she said, "is it?"]', '{"a": 1} is JSON.',
    'One, two, three.\nFour, five, six.\n' * 9, '"Quoted," he said.', 'PAR1 is a gene.', 'BM, a name.', '{', '[', '{}x',
    '<b>Bold</b> claims.\nMore.\nMore.\nMore.\nMore.\nMore.', '% A comment', '[[link]] and {{template}}',
    'Name\tis a word.\nAnd no table.', 'index = 3\n{"index"', '[1, 2, 3] are numbers.', 'true', '3.14',
    '[1]\n[2]', '[1] One.\n["Two"] Three.'])
def test_prose_stays_prose(tmp_path, text):
  (tmp_path / 'a.txt').write_text(text)
  assert '\n'.join(found.text for found in read(tmp_path / 'a.txt')[0]) == text.strip()


@given(st.text(st.characters(exclude_categories=['Cs', 'Cc']), min_size=1, max_size=80), st.sampled_from('{[",\t'))
def test_a_line_of_prose_is_never_taken_for_another_format(text, first):
  assert formats.recognize((first + text + ' is prose.').encode(), 'a.txt') == 'text'


@pytest.mark.parametrize('name, content, message', [
    ('a.jsonl', '{"text": "x", "y": ' + '[' * 10**5 + ']' * 10**5 + '}', 'nested too deeply'),
    ('a.json', '[{"text": "x", "y": ' + '[' * 10**5 + ']' * 10**5 + '}]', 'nested too deeply'),
    ('a.json', '[{"text": "x"}, {"text": "y"}', 'has no end'), ('a.json', '[{"text": "x"}, oops]', 'no JSON value'),
    ('a.json', '[{"text": "x"}] more', 'comes more'), ('a.jsonl', '{"text": "x"}\n["y"]\n', 'kind list'),
    ('a.csv', 'id,text\n1,x\n2,y,z\n', 'a row of 3 cells'), ('a.csv', 'id,body\n1,x\n', "no text named 'text'"),
    ('a.csv', 'id,text\n1,"x\n' + 'y' * 999, 'ends inside quotes'), ('a.txt', 'a\tb\n' * 9, "no text named 'text'"),
    ('a.json', '{"index": {"_id": "1"}}\n{"text": "x"}\n{"index": {"_id": "2"}}\n', 'truncated'),
    ('a.txt', '[1, "A text."]\n[2, "A text."]\n', 'comes more'), ('a.txt', '["A", "B"]\n["C", "D"]\n', 'comes more'),
    ('a.csv', 'text,text\nA,B\n', "2 columns 'text'"), ('a.csv', 'id,text,id\n1,B,2\n', "2 columns 'id'")])
def test_bad_files_get_one_sentence(tmp_path, name, content, message):
  (tmp_path / name).write_text(content)
  with pytest.raises(records.DataError, match=message) as error:
    read(tmp_path / name)
  assert '\n' not in str(error.value) and name in str(error.value)


def test_tables_in_columns_that_are_wrong_get_one_sentence(tmp_path):
  import pyarrow.parquet
  path = tmp_path / 'a.arrow'
  table = pyarrow.table({'text': ['One.', 'Two.', 'Three.']})
  with pyarrow.ipc.new_file(path, table.schema) as writer:
    writer.write_table(table, max_chunksize=1)
  whole = path.read_bytes()
  assert len(read(path)[0]) == 3
  for size in range(9, len(whole)):
    path.write_bytes(whole[:size])
    with pytest.raises(records.DataError, match='truncated or damaged'):
      read(path)
  for columns, message in ((['text', 'text'], "2 columns 'text'"), (['text', 'id'], 'row 0 is not UTF-8')):
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array([b'caf\xe9'])] * 2, columns), path)
    with pytest.raises(records.DataError, match=message):
      read(path)


def test_a_quote_may_stand_after_a_space(tmp_path):
  (tmp_path / 'a.csv').write_text('id, text\n1, "One, two."\n2, Three.\n')
  assert [one.text for one in read(tmp_path / 'a.csv')[0]] == ['One, two.', 'Three.']


def test_options_that_nothing_uses_are_refused(tmp_path):
  documents = [{'id': '1', 'title': 'A', 'text': 'One.'}]
  (tmp_path / 'a.txt').write_text('One.\n\nTwo.')
  names = {formats.recognize(path.read_bytes(), path.name): path for path in (
      written.write(name, documents, tmp_path) for name in ('jsonl', 'csv', 'parquet'))} | {'text': tmp_path / 'a.txt'}
  others = {'keep_end_sections': True, 'documents': 'line', 'lines': 'sentences', 'text_field': 'text.x',
            'id_field': 'id', 'title_field': 'title'}
  for kind, path in names.items():
    for option in set(others) - set(formats.FORMATS[kind].uses):
      with pytest.raises(records.DataError, match=f'--{option.replace("_", "-")} has no effect .* as {kind}: leave'):
        read(path, **{option: others[option]})
  both = str(names['text']), str(names['jsonl'])
  assert len(list(sources.documents(both, options=formats.Options(documents='line', id_field='id')))) == 3


def test_a_text_that_is_its_title_is_kept(tmp_path):
  (tmp_path / 'a.jsonl').write_text('{"title": "A text.", "text": "A text."}')
  assert [one.text for one in read(tmp_path / 'a.jsonl')[0]] == ['A text.']


def test_a_long_number_is_an_id(tmp_path):
  (tmp_path / 'a.jsonl').write_text(f'{{"id": {"1" * 5000}, "text": "x"}}')
  assert read(tmp_path / 'a.jsonl')[0][0].id == '1' * 5000


@needs_cases
@pytest.mark.parametrize('name, count', [('arrays', 40), ('arrays/*.json', 40), ('sur_text.jsonl', 41)])
def test_cases(name, count):
  found, _ = read(CASES / name)
  assert len(found) == count
  assert all(field.encode() is not None for one in found for field in (one.id, one.title, one.text))


@pytest.mark.parametrize('how, wanted', [
    ('blank', ['A.\nB.', 'C.\nD.']), ('line', ['A.', 'B.', 'C.', 'D.']), ('file', ['A.\nB.\n\u3000\u200b\nC.\nD.'])])
def test_what_ends_a_document(tmp_path, how, wanted):
  (tmp_path / 'a.txt').write_text('\ufeff\nA.\nB.\n\u3000\u200b\nC.\nD.\n\xa0\n')
  assert [found.text for found in read(tmp_path / 'a.txt', documents=how)[0]] == wanted


@pytest.mark.parametrize('text', ['A b c d.\n' * 500, 'Word ' * 900, '字' * 1500])
def test_a_document_without_an_end_is_cut(tmp_path, monkeypatch, capsys, text):
  monkeypatch.setattr(document, 'LONGEST_TEXT', 1000)
  (tmp_path / 'a.txt').write_text(text)
  (tmp_path / 'a.jsonl').write_text(json.dumps({'id': 7, 'text': text}))
  found, counts = read(tmp_path / 'a.txt')
  assert max(len(one.text.encode()) for one in found) <= 1000 and counts['documents_cut'] == len(found) - 1 >= 4
  assert ''.join(one.text for one in found).split() == text.split() or ' ' not in text.strip() or (
      ' '.join(one.text for one in found).split() == text.split())
  assert 'a.txt' in (told := capsys.readouterr().err) and '--documents' in told and told.count('\n') == 1
  found, counts = read(tmp_path / 'a.jsonl')
  assert [one.id for one in found] == ['7', *(f'7#{number}' for number in range(1, len(found)))]
  assert counts['documents_cut'] == 1 and counts['pages'] == len(found)
  assert ' '.join(one.text for one in found).split() == text.split() or '字' in text


@pytest.mark.parametrize('name', ['jsonl', 'csv', 'parquet', 'arrow', 'cirrus.json'])
def test_a_record_that_is_too_long_is_left_out_and_named(tmp_path, monkeypatch, capsys, name):
  texts = ['word ' * (9 if number != 3 else 900) for number in range(6)]
  documents = [{'id': str(number), 'title': '', 'text': text} for number, text in enumerate(texts)]
  path = written.write(name, documents, tmp_path)
  monkeypatch.setattr(document, 'LONGEST_RECORD', 2000)
  found, counts = read(path)
  assert [one.id for one in found] == ['0', '1', '2', '4', '5'] and counts['too_long'] == 1 and counts['pages'] == 6
  assert 'left out' in capsys.readouterr().err


def test_folders_globs_and_pipes(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('x/AA/wiki_00', 'x/AB/deep/wiki_01', 'x/AB/.wiki_02', 'x/other', 'w[1].txt'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(f'Text of {name}.')
  for name in ('x/AB/circle', 'x/AB/round', 'x/AA/circle'):
    os.symlink('.', name)
  texts = lambda *input: [one.text.removeprefix('Text of ').removesuffix('.') for one in sources.documents(input)]
  assert texts('x') == ['x/AA/wiki_00', 'x/AB/deep/wiki_01', 'x/other']
  assert texts('x/**/wiki_*') == texts('x/A*') == ['x/AA/wiki_00', 'x/AB/deep/wiki_01']
  assert texts('x/**') == texts('**/x') == texts('x/**/**') == texts('x')
  assert texts('x/*/**/wiki_*') == texts('**/A?/**/wiki_*') == texts(f'{tmp_path}/**/wiki_*') == texts('x/A*')
  assert texts('x/other', 'x/AA/wiki_00=2', 'x/other') == ['x/other', 'x/AA/wiki_00', 'x/AA/wiki_00']
  assert texts('w[1].txt') == ['w[1].txt']
  os.mkfifo('pipe')
  threading.Thread(target=lambda: (tmp_path / 'pipe').write_bytes(gzip.compress(b'Text of a pipe.'))).start()
  assert texts('pipe') == ['a pipe']


def test_what_cannot_be_read_is_a_sentence(tmp_path):
  (tmp_path / 'broken').symlink_to('nowhere')
  (tmp_path / 'folder').mkdir()
  for source, message in ((tmp_path / '*', 'broken is a link to something'), (tmp_path / 'broken', 'no such file'),
                          (tmp_path / 'folder', 'no file with anything in it'), ('x' * 5000, 'File name too long'),
                          (tmp_path / '**x', 'no file matches'), ('odd://x/y', 'no storage that is known')):
    with pytest.raises(records.DataError, match=message):
      read(source)


def test_other_storage(tmp_path):
  fsspec = pytest.importorskip('fsspec')
  memory = fsspec.filesystem('memory')
  documents = [{'id': str(number), 'title': '', 'text': f'Text {number}.'} for number in range(9)]
  for name in ('parquet', 'zst'):
    memory.pipe_file(f'/corpora/{name}/x.{name}', written.write(name, documents, tmp_path).read_bytes())
    memory.pipe_file(f'/corpora/{name}/.hidden', b'Not this.')
    for input in (f'memory://corpora/{name}', f'memory://corpora/{name}/*', f'memory://corpora/**/*.{name}'):
      assert [one.id for one in read(input)[0]] == [str(number) for number in range(9)]

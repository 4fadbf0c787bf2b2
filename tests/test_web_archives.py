"""Web archives: every record is a document or is counted as dropped, and a file that is not whole is one sentence."""

import collections
import gzip
import io
import json
import re

import corpora
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from input_pipeline import counts as counts_lib, records
from input_pipeline.prepare import corpus, settings
from input_pipeline.text import document, formats, sources

pytest.importorskip('warcio', reason='warcio is not installed')
from warcio import statusandheaders, warcwriter  # noqa: E402

HTML = ('<!DOCTYPE html><html><head><title>A  page</title><meta charset="{charset}"><script>var x;</script></head>'
        '<body><nav><a href="/">Home</a></nav><article><h1>A page</h1><p>{one}</p><p>{two}</p></article></body></html>')
PAGE = 'The first paragraph of the café is long enough to be one.', 'The second one follows it, with more prose in it.'
TEXTS = st.text(st.characters(exclude_categories=['Cs', 'Cc']), max_size=60)


def archive(*made, compressed=True) -> bytes:
  """What warcio writes of records: (type, address, content, content type of the record, of the answer, status …)."""
  data = io.BytesIO()
  writer = warcwriter.WARCWriter(data, gzip=compressed)
  for kind, address, content, *more in made:
    writer.write_record(record(writer, kind, address, content, *more))
  return data.getvalue()


def record(writer, kind, address, content, declared=None, answered=None, status='200 OK', headers=()):
  http = None
  if answered is not None:
    http = statusandheaders.StatusAndHeaders(status, [('Content-Type', answered), *headers], protocol='HTTP/1.1')
  return writer.create_warc_record(address, kind, payload=io.BytesIO(content), http_headers=http,
                                   warc_content_type=declared or ('text/plain' if http is None else ''))


def wet(texts: dict[str, str]) -> bytes:
  return archive(('warcinfo', 'file', b'software: x', 'application/warc-fields'),
                 *(('conversion', address, text.encode()) for address, text in texts.items()))


def page(address, body: bytes, answered='text/html; charset=utf-8', **more):
  return 'response', address, body, None, answered, *more.values()


def read(path):
  counts = collections.Counter()
  found = list(sources.documents(str(path), counts=counts))
  dropped = {name: counts[name] for name in counts_lib.DROPS if counts[name]}
  assert counts['pages'] == len(found) + sum(dropped.values())
  return found, dropped


def refused(path) -> str:
  with pytest.raises(records.DataError) as error:
    read(path)
  assert '\n' not in str(error.value) and path.name in str(error.value)
  return str(error.value)


@hypothesis_settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(TEXTS, max_size=4), max_size=6), st.booleans())
def test_every_record_of_text_is_a_document(tmp_path_factory, pages, compressed):
  path = tmp_path_factory.mktemp('crawl') / 'a.wet'
  texts = {f'https://example.org/{number}': '\n'.join(lines) for number, lines in enumerate(pages)}
  path.write_bytes(archive(('warcinfo', 'file', b'software: x', 'application/warc-fields'),
                           *(('conversion', address, text.encode()) for address, text in texts.items()),
                           compressed=compressed))
  wanted = {}
  for address, lines in zip(texts, pages):
    made = document.make(address, '', '\n'.join(filter(None, (' '.join(line.split()) for text in lines
                                                                for line in text.splitlines()))))
    if made != 'empty':
      wanted[address] = made
  found, dropped = read(path)
  assert {one.id: one for one in found} == wanted
  assert dropped == {name: count for name, count in {
      'other_records': 1, 'empty': len(pages) - len(wanted)}.items() if count}


@pytest.mark.parametrize('charset', ['utf-8', 'iso-8859-1', 'utf-16'])
@pytest.mark.parametrize('told', ['by the answer', 'by the page'])
def test_the_prose_of_a_page(tmp_path, charset, told):
  body = HTML.format(charset=charset, one=PAGE[0], two=PAGE[1]).encode(charset)
  answered = f'text/html; charset="{charset}"' if told == 'by the answer' else 'text/html'
  (tmp_path / 'a.warc.gz').write_bytes(archive(page('https://example.org/', body, answered)))
  [found], dropped = read(tmp_path / 'a.warc.gz')
  assert (found.id, found.title) == ('https://example.org/', 'A page') and not dropped
  assert found.text.split('\n')[-2:] == [*PAGE] and 'Home' not in found.text and 'var x' not in found.text


def test_what_is_no_page_is_dropped_and_counted(tmp_path):
  text, plain = HTML.format(charset='utf-8', one=PAGE[0], two=PAGE[1]).encode(), 'text/plain; charset=latin-1'
  chunked = b'%x\r\n%s\r\n0\r\n\r\n' % (len(text), text)
  made = [
      page('u:ok', text), page('u:plain', 'Ein Café.\r\n\r\nZwei.'.encode('latin-1'), plain),
      page('u:gone', text, status='404 Not Found'), page('u:moved', b'', status='301 Moved'),
      page('u:image', b'\x89PNG', 'image/png'), page('u:no type', text, ''),
      page('u:binary', b'A\x00B', plain), page('u:empty', b' ', plain),
      page('http://x/gzip', gzip.compress(text, mtime=0), status='200 OK', headers=[('Content-Encoding', 'gzip')]),
      page('http://x/chunked', chunked, status='200 OK', headers=[('Transfer-Encoding', 'chunked')]),
      ('response', 'dns:x', b'1.2.3.4', 'text/dns'), ('response', 'u:broken', b'no answer', 'application/http'),
      ('resource', 'u:resource', b'A text.', 'text/plain'), ('metadata', 'u:ok', b'a: b', 'application/warc-fields'),
      ('request', 'u:ok', b'GET / HTTP/1.1\r\n\r\n', 'application/http')]
  (tmp_path / 'a.warc').write_bytes(archive(*made))
  found, dropped = read(tmp_path / 'a.warc')
  assert [one.id for one in found] == ['u:ok', 'u:plain', 'http://x/gzip', 'http://x/chunked', 'u:resource']
  assert found[1].text == 'Ein Café.\nZwei.' and found[0].text == found[2].text == found[3].text
  assert dropped == {'other_answers': 2, 'other_types': 3, 'unreadable': 2, 'empty': 1, 'other_records': 2}


@pytest.mark.parametrize('compressed', [False, True])
def test_a_file_that_is_cut_is_one_sentence(tmp_path, compressed):
  """Wherever it is cut, but between two records."""
  whole = archive(('conversion', 'u:1', b'One. ' * 9), ('conversion', 'u:2', b'Two. ' * 9), compressed=compressed)
  path, found = tmp_path / 'a.warc', collections.Counter()
  first = archive(('conversion', 'u:1', b'One. ' * 9), compressed=compressed)
  for size in range(20, len(whole) - 1, 1 if compressed else 3):
    path.write_bytes(whole[:size])
    try:
      found[len(read(path)[0])] += 1
    except records.DataError as error:
      assert re.fullmatch(r'.*a\.warc.* truncated or damaged[^\n]*', str(error))
      assert compressed or f'byte {0 if size < len(first) else len(first)}: ' in str(error)
  assert set(found) <= {1, 2} and sum(found.values()) < 8  # in the blank lines that follow a record


def lines_of(*fields: str, body: str = 'A text.', version: str = 'WARC/1.0') -> bytes:
  return '\r\n'.join([version, *fields, '', body, '', '']).encode()


@pytest.mark.parametrize('data, message', [
    (lines_of('WARC-Type: conversion'), 'byte 0: this record .* has no Content-Length'),
    (lines_of('WARC-Type: conversion', 'Content-Length: -7'), "no Content-Length that is a number .b'-7'"),
    (lines_of('WARC-Type: conversion', 'Content-Length: 7.5'), 'no Content-Length that is a number'),
    (lines_of('WARC-Type: conversion', 'Content-Length: 3'), 'byte 57: no record .* begins here .*that of the record'),
    (lines_of('WARC-Type: conversion', 'Content-Length: 300'), 'byte 0: the file ends inside this record'),
    (lines_of('WARC-Type: conversion', f'Content-Length: {10**30}'), 'byte 0: the file ends inside this record'),
    (lines_of('WARC-Type: conversion', 'Content-Length: 7') + b'What is this?\r\n', 'byte .*no record .* begins here'),
    (b'WARC/1.0\r\n' + b'X: ' + b'y' * (3 << 20) + b'\r\n\r\n', 'has no end'),
    (b'WARC/1.0\r\nX: y\r\n', 'byte 0: the file ends inside this record')])
def test_heads_that_lie(tmp_path, data, message):
  (tmp_path / 'a.warc').write_bytes(data)
  found = refused(tmp_path / 'a.warc')
  assert re.search(message, found) and 'truncated or damaged' in found


def test_fields_in_any_case_and_line_ends_of_unix(tmp_path):
  body = 'A text.'
  (tmp_path / 'a.wet').write_bytes(
      f'WARC/1.1\nwarc-type: Conversion\nwarc-target-uri: u:1\ncontent-length:{len(body)}\n\n{body}\n\n'.encode() +
      lines_of('WARC-Type: conversion', 'WARC-Record-ID: <urn:2>', 'Content-Length: 8', body='A text 2'))
  found, _ = read(tmp_path / 'a.wet')
  assert [(one.id, one.text) for one in found] == [('u:1', 'A text.'), ('<urn:2>', 'A text 2')]


def test_a_huge_record_is_passed_over(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(document, 'LONGEST_RECORD', 2000)
  bomb = gzip.compress(bytes(10**6), mtime=0)
  (tmp_path / 'a.warc').write_bytes(archive(
      ('conversion', 'u:1', b'One.'), ('conversion', 'u:2', b'Two. ' * 999), ('metadata', 'u:3', b'x' * 5000),
      page('http://x/', bomb, status='200 OK', headers=[('Content-Encoding', 'gzip')]),
      ('conversion', 'u:4', b'Four.')))
  found, dropped = read(tmp_path / 'a.warc')
  assert [one.id for one in found] == ['u:1', 'u:4'] and dropped == {'too_long': 2, 'other_records': 1}
  assert 'left out' in capsys.readouterr().err


def test_pages_that_would_break_a_parser(tmp_path):
  """Each in a moment: what takes time with the square of something is left out."""
  deep = b'<div>' * 200_000 + b'Text.'
  (tmp_path / 'a.warc').write_bytes(archive(
      page('u:1', deep), page('u:2', b'<p>' + bytes(range(1, 256)) * 9), page('u:3', b'<' * 10**5), page('u:4', b''),
      page('u:5', b'<p>\xff\xfe\xfd', 'text/html; charset=no-such-thing')))
  read(tmp_path / 'a.warc')


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.data())
def test_bytes_that_change_are_read_or_one_sentence(tmp_path_factory, draw):
  whole = bytearray(archive(('conversion', 'u:1', b'One.'), page('u:2', b'<p>Two.'), ('conversion', 'u:3', b'Three.'),
                            compressed=False))
  for _ in range(draw.draw(st.integers(1, 4))):
    whole[draw.draw(st.integers(0, len(whole) - 1))] = draw.draw(st.sampled_from([*b'\r\n:19 \x00\xffA']))
  path = tmp_path_factory.mktemp('crawl') / 'a.warc'
  path.write_bytes(bytes(whole))
  try:
    assert len(list(sources.documents(str(path), 'warc'))) <= 3
  except records.DataError as error:
    assert '\n' not in str(error) and 'a.warc' in str(error)


def test_all_the_way_to_shards(tmp_path):
  """The shards of a crawl are those of the same text as JSON lines."""
  texts = {f'https://example.org/{number}': corpora.text_of(number) for number in range(40)}
  (tmp_path / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  (tmp_path / 'a.warc.wet.gz').write_bytes(wet(texts))
  (tmp_path / 'a.jsonl').write_text(''.join(json.dumps({'id': address, 'text': text}) + '\n'
                                            for address, text in texts.items()))
  vocabulary = str(tmp_path / 'vocab.txt')
  made = [corpus.prepare(settings.Prepare(str(tmp_path / name), vocabulary, str(tmp_path / f'{name}.data'),
                                          sequence_length=32), progress=False) for name in ('a.warc.wet.gz', 'a.jsonl')]
  assert made[0].splits == made[1].splits
  assert (made[0].counts['pages'], made[0].counts['other_records']) == (41, 1)


@pytest.mark.parametrize('text', ['WARC/1.0 is a format.', 'WARC/1.0', 'WARC/1.0 \nWARC', 'WARC files'])
def test_prose_about_archives(text):
  found = formats.recognize(text.encode(), 'a.txt')
  assert found == ('warc' if text.partition('\n')[0].strip() == 'WARC/1.0' else 'text')

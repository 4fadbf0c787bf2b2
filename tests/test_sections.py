"""A large file read in sections: the same documents in the same order, and the same shards, wherever sections begin."""

import bz2
import collections
import functools
import io
import json
import pathlib
import random
import re
import shutil

import corpora
import pytest

from input_pipeline import records
from input_pipeline.prepare import corpus, settings
from input_pipeline.text import bzip2, compression, document, files, formats, sources

# ---------------------------------------------------------------- blocks of bzip2


def read_from(data: bytes, start: int) -> list[tuple[int, bytes]]:
  return list(bzip2.blocks(io.BytesIO(data), start))


@functools.cache
def large_block_file() -> tuple[bytes, bytes]:
  """Streams of several blocks, which begin at any bit, of text that hardly can be compressed."""
  draw = random.Random(5)
  contents = [bytes(draw.choices(range(32, 127), k=size)) for size in (250_000, 99_000, 130_000)]
  return b''.join(bz2.compress(content, 1) for content in contents), b''.join(contents)


def test_blocks_begin_at_any_bit():
  data, content = large_block_file()
  blocks = read_from(data, 0)
  assert b''.join(own for _, own in blocks) == content and len(blocks) == 6
  assert len({place % 8 for place, _ in blocks}) > 2
  for place, _ in blocks:
    for start in (place // 8, -(-place // 8), place // 8 + 1):
      assert read_from(data, start) == [block for block in blocks if block[0] >= 8 * start]


@pytest.mark.parametrize('seed', range(30))
def test_the_blocks_of_streams_are_the_file_from_any_byte_on(seed):
  draw = random.Random(seed)
  contents = [draw.randbytes(draw.choice([0, 1, 30, 60])) for _ in range(draw.randint(1, 10))]
  data = b''.join(map(bz2.compress, contents))
  blocks = read_from(data, 0)
  assert b''.join(content for _, content in blocks) == b''.join(contents)
  start = draw.randint(0, len(data))
  assert read_from(data, start) == [block for block in blocks if block[0] >= 8 * start]


@pytest.mark.parametrize('seed', range(150))
def test_what_is_damaged_is_an_error_of_some_section(seed):
  """Where one process reads an error, the sections of a file do not all pass; but for the checksum of a whole stream,
  whose blocks have their own."""
  draw = random.Random(seed)
  streams = [bz2.compress(draw.randbytes(draw.choice([0, 1, 20, 60]))) for _ in range(draw.randint(1, 8))]
  data = bytearray(b''.join(streams))
  changed = [draw.randrange(len(data)) for _ in range(draw.choice([0, 1, 1, 2]))]
  for at in changed:
    data[at] ^= draw.randint(1, 255)
  cut = draw.choice([len(data), len(data), draw.randint(compression._LONGEST, len(data))])
  end = draw.choice([b'', b'', b'garbage', bytes(3), b'BZh9'])
  data = bytes(data[:cut]) + end
  if not data.startswith(compression._BZIP2):
    return  # it is no bzip2
  try:
    whole = compression.content(io.BytesIO(data)).read()
  except compression.Damaged:
    whole = None
  size = draw.randint(max(1, len(data) // 12), len(data))
  found = []
  try:
    for start in range(0, len(data), size):
      found += [content for place, content in read_from(data, start) if place < 8 * (start + size)]
  except compression.Damaged:
    assert whole is None
    return
  ends = [sum(map(len, streams[:number + 1])) for number in range(len(streams))]
  if whole is None:
    assert cut == ends[-1] and not end and all(any(end - 5 <= at < end for end in ends) for at in changed)
  else:
    assert b''.join(found) == whole


class Bits:
  """Numbers of some bits, one after the other."""

  def __init__(self):
    self.value = self.length = 0

  def put(self, number: int, width: int) -> None:
    self.value, self.length = self.value << width | number, self.length + width


def block_of(last_column: bytes, level: int = 1) -> tuple[bytes, bytes]:
  """(a bzip2 stream, its content) whose codes are bytes: 254 symbols of eight bits, and four of nine.

  The symbols are what is asked for, so that any bytes below 254 can be in the middle of a block.
  """
  lengths = [9, 9, *[8] * 254, 9, 9]  # of RUNA, RUNB, 254 places of the list, one more, the end
  codes, code = {}, 0
  for width in (8, 9):
    for symbol, own in enumerate(lengths):
      if own == width:
        codes[symbol] = code, width
        code += 1
    code <<= 1
  symbols = [byte + 2 for byte in last_column]  # code n is of symbol n + 2, which is place n + 1 of the list
  order, column = list(range(256)), []
  for symbol in symbols:
    order.insert(0, order.pop(symbol - 1))
    column.append(order[0])
  followers = sorted(range(len(column)), key=lambda place: (column[place], place))
  text, at = bytearray(), followers[0]
  for _ in column:
    text.append(column[at])
    at = followers[at]
  content, run = bytearray(), 0  # the first coding of runs: after four of a kind comes how many more
  for byte in text:
    if run == 4:
      content += content[-1:] * byte
      run = 0
      continue
    run = run + 1 if content and byte == content[-1] and run else 1
    content.append(byte)
  checksum = 0xffffffff
  for byte in content:
    checksum ^= byte << 24
    for _ in range(8):
      checksum = (checksum << 1 ^ (0x04c11db7 if checksum & 1 << 31 else 0)) & 0xffffffff
  checksum ^= 0xffffffff
  bits = Bits()
  bits.put(bzip2._BLOCK, 48)
  bits.put(checksum, 32)
  bits.put(0, 1)
  bits.put(0, 24)
  bits.put((1 << 16) - 1, 16)
  for _ in range(16):
    bits.put((1 << 16) - 1, 16)
  bits.put(2, 3)
  groups = -(-(len(symbols) + 1) // 50)
  bits.put(groups, 15)
  for _ in range(groups):
    bits.put(0, 1)
  for _ in range(2):
    bits.put(lengths[0], 5)
    before = lengths[0]
    for own in lengths:
      bits.put(*{0: (0, 1), 1: (0b100, 3), -1: (0b110, 3)}[own - before])
      before = own
  for symbol in [*symbols, 257]:
    bits.put(*codes[symbol])
  block = bits.length
  bits.put(bzip2._END, 48)
  bits.put(checksum, 32)
  bits.put(0, -bits.length % 8)
  assert block
  return b'BZh%d' % level + bits.value.to_bytes(bits.length // 8, 'big'), bytes(content)


@pytest.mark.parametrize('magic', [bzip2._BLOCK, bzip2._END])
def test_bits_that_look_like_a_block_are_none(magic):
  """In the middle of a block: to one process and to any section they are the codes of its text."""
  draw = random.Random(magic)
  noise = lambda size: bytes(draw.choices(range(200), k=size))
  false = magic.to_bytes(6, 'big')
  made, content = block_of(noise(300) + false + noise(70) + false + noise(400))
  assert bz2.decompress(made) == content
  before, after = (bytes(draw.choices(b'abcdef', k=3000)) for _ in range(2))
  data = bz2.compress(before) + made + bz2.compress(after)
  finds = bzip2._Finds(io.BytesIO(data), 0)
  finds.bytes(0, len(data) + 1)
  assert len(finds.places) == 6 + 2
  blocks = read_from(data, 0)
  assert [own for _, own in blocks] == [before, content, after]
  for start in draw.sample(range(len(data)), 60):
    assert read_from(data, start) == [block for block in blocks if block[0] >= 8 * start]

# ---------------------------------------------------------------- documents

LINE_ENDS = ['\n', '\n', '\r\n']
BLANKS = ['', '', ' ', '\t ', '\u3000', '\u00a0\u2028']


def words(draw: random.Random) -> str:
  some = ['naïve', 'Größe', '北京', '😀', 'one', 'two', '{', '</doc>', 'x' * 90]
  return ' '.join(draw.choices(some, k=draw.randint(1, 9)))


def plain(draw: random.Random) -> str:
  end = draw.choice(LINE_ENDS)
  line = lambda: draw.choice(BLANKS) if draw.random() < 0.4 else words(draw)
  text = draw.choice(['', '\ufeff']) + ''.join(line() + end for _ in range(draw.randint(0, 60)))
  return text.removesuffix(end) if draw.random() < 0.5 else text


def json_lines(draw: random.Random) -> str:
  end = draw.choice(LINE_ENDS)
  lines = [draw.choice(BLANKS[:4]) if draw.random() < 0.2 else
           json.dumps({'id': number, 'text': words(draw)}, ensure_ascii=draw.random() < 0.5)
           for number in range(draw.randint(0, 40))]
  return end.join([json.dumps({'text': 'first'}), *lines]) + draw.choice(['', end])


def extracted(draw: random.Random) -> str:
  return ''.join(f'<doc id="{number}" url="u" title="t{number}">\n{words(draw)}.\n\nsaid </doc> here\n'
                 f'{words(draw)}.\n</doc>{draw.choice(["", " ", chr(9)])}\n{draw.choice(["", chr(10)])}'
                 for number in range(1, draw.randint(2, 25)))


HEADER = ('<mediawiki xml:lang="en"><siteinfo><namespaces><namespace key="0" />'
          '<namespace key="1">Talk</namespace></namespaces></siteinfo>\n')


def dump(draw: random.Random) -> str:
  def page(number: int) -> str:
    older = f'<revision><text>old {words(draw)}</text></revision>' * draw.choice([0, 0, 3])
    text = re.sub('[<{]', '', ' '.join(words(draw) for _ in range(3)))
    return (f'<page><title>T{number}</title><ns>{draw.choice([0, 0, 1])}</ns><id>{number}</id>{older}'
            f'<revision><model>wikitext</model><text>{text}.</text></revision></page>\n')
  one = lambda first: HEADER + ''.join(map(page, range(first, first + draw.randint(1, 15)))) + '</mediawiki>\n'
  if draw.random() < 0.2:
    return ''.join(map(page, range(1, 9)))
  return ''.join(one(100 * number) for number in range(draw.choice([1, 1, 2])))


MAKE = {'text': plain, 'jsonl': json_lines, 'wikiextractor': extracted, 'mediawiki': dump}


def parquet(draw: random.Random, path: pathlib.Path) -> None:
  import pyarrow
  import pyarrow.parquet
  table = pyarrow.table({'id': [str(number) for number in range(40)], 'text': [words(draw) for _ in range(40)]})
  pyarrow.parquet.write_table(table, path, row_group_size=draw.randint(1, 20), use_dictionary=draw.random() < 0.5)


def squeezed(draw: random.Random, data: bytes) -> bytes:
  """bzip2 of one stream or many, some of them empty."""
  if draw.random() < 0.2:
    return bz2.compress(data)
  ends = sorted(draw.choices(range(len(data) + 1), k=draw.randint(0, 30)))
  return b''.join(bz2.compress(data[start:end]) for start, end in zip([0, *ends], [*ends, len(data)]))


def everything(part: files.File, chunk_bytes: int) -> tuple[list, collections.Counter]:
  counts, found = collections.Counter(), []
  for chunk in part.chunks(chunk_bytes):
    parsed = part.documents(chunk)
    found += parsed.documents
    counts.update(parsed.counts)
  return found, +counts


def assert_same_in_sections(path: pathlib.Path, kind: str, options: formats.Options, draw: random.Random) -> None:
  whole = files.File(str(path), kind, options)
  expected = everything(whole, 300)
  size = path.stat().st_size
  for count in {2, 3, draw.randint(4, 30)}:
    section = max(1, size // count)
    if section >= size:
      continue
    parts = whole.sections(section, size)
    assert len(parts) == -(-size // section)
    assert parts[0].section.start == 0 and parts[-1].section.end == size
    found = [everything(part, draw.choice([1, 200, 1 << 20])) for part in parts]
    assert [one for own, _ in found for one in own] == expected[0], (section, size)
    assert +sum((counts for _, counts in found), collections.Counter()) == expected[1]


@pytest.mark.parametrize('seed', range(12))
@pytest.mark.parametrize('kind', [*MAKE, 'parquet'])
def test_sections_have_the_documents_of_the_file(kind, seed, tmp_path, monkeypatch):
  draw = random.Random(seed)
  path = tmp_path / 'file'
  options = formats.Options(documents=draw.choice(['blank', 'line']) if kind == 'text' else 'blank')
  monkeypatch.setattr(document, 'LONGEST_TEXT', draw.choice([document.LONGEST_TEXT, 300, 60]))
  monkeypatch.setattr(document, 'LONGEST_RECORD', draw.choice([document.LONGEST_RECORD, 400]))
  monkeypatch.setattr(document, 'READ', draw.choice([document.READ, 64, 700]))
  if kind == 'parquet':
    parquet(draw, path)
  else:
    data = MAKE[kind](draw).encode()
    path.write_bytes(squeezed(draw, data) if draw.random() < 0.5 else data)
  assert_same_in_sections(path, kind, options, draw)

# ---------------------------------------------------------------- shards


def made(folder: pathlib.Path, **chosen) -> dict[str, bytes]:
  output = folder / 'data'
  shutil.rmtree(output, ignore_errors=True)
  corpus.prepare(settings.Prepare(f'{folder}/in', str(folder / 'vocab.txt'), str(output), sequence_length=32, **chosen),
                 progress=False)
  return {path.name: path.read_bytes() for path in output.iterdir()}


@pytest.mark.parametrize('chosen', [{}, {'limit': 25}, {'pairs': 'google', 'masks': 'google', 'dupe_factor': 2}])
def test_shards_are_the_same_however_files_are_divided(chosen, tmp_path, monkeypatch):
  """By one process, and by three where each does some sections; of several formats beside small files."""
  import pyarrow
  import pyarrow.parquet
  (tmp_path / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  (tmp_path / 'in').mkdir()
  texts = list(map(corpora.text_of, range(60)))
  (tmp_path / 'in/a.txt').write_bytes('\r\n \r\n'.join(texts[:20]).encode())
  (tmp_path / 'in/b.txt.bz2').write_bytes(b''.join(bz2.compress(f'{text}\n\n'.encode()) for text in texts[15:35]))
  (tmp_path / 'in/c.jsonl').write_text('\n'.join(json.dumps({'id': text[:9], 'text': text}) for text in texts[30:50]))
  (tmp_path / 'in/d.txt').write_text(texts[50])
  pyarrow.parquet.write_table(pyarrow.table({'text': texts[45:]}), tmp_path / 'in/e.parquet', row_group_size=3)
  whole = made(tmp_path, **chosen)
  monkeypatch.setattr(sources, 'CHUNK_BYTES', 900)
  monkeypatch.setattr(sources, 'SECTION_BYTES', 1500)
  parts = sources.divided(sources.mixture(f'{tmp_path}/in'), sources.SECTION_BYTES)
  assert len(parts) > 12 and not all(map(sources.is_section, parts))
  for workers in (1, 3):
    assert made(tmp_path, workers=workers, **chosen) == whole
  counts = json.loads(whole[records.MANIFEST])['counts']
  assert counts['pages'] == 76 and (counts['duplicates'] or 'limit' in chosen)


@pytest.mark.parametrize('name, content', [('a.txt.gz', None), ('a.csv', b'text\n"a\n\nb"\n'), ('a.txt.xz', None),
                                           ('a.json', b'[{"text": "a"},\n{"text": "b"}]')])
def test_what_cannot_be_divided_is_read_whole(name, content, tmp_path):
  import gzip
  import lzma
  squeeze = {'.gz': gzip.compress, '.xz': lzma.compress}.get(name[-3:], bytes)
  path = tmp_path / name
  path.write_bytes(squeeze(content or b'one two three.\n\nfour five six.\n'))
  assert [part.source for part in sources.divided(sources.mixture(str(path)), 1)] == [files.File(str(path))]
  text = tmp_path / 'plain.txt'
  text.write_text('one two.\n\nthree four.\n')
  of_file = formats.Options(documents='file')
  assert len(sources.divided(sources.mixture(str(text), options=of_file), 5)) == 1
  assert len(sources.divided(sources.mixture(str(text)), 5)) > 1


def test_dumps_of_different_wikis_in_one_file_are_refused_where_it_is_divided(tmp_path):
  """What belongs to which wiki is known only to who reads it from its beginning."""
  draw = random.Random(1)
  one = HEADER + re.sub('(?s).*?(<page>.*</page>).*', r'\1', dump(draw)) + '</mediawiki>'
  path = tmp_path / 'a.xml'
  path.write_text(one + one.replace('"en"', '"fr"'))
  whole = files.File(str(path))
  assert everything(whole, 900)[1]['pages'] > 2
  for size in range(200, path.stat().st_size, 331):
    with pytest.raises(records.DataError, match='holds dumps of different wikis'):
      for part in whole.sections(size, path.stat().st_size):
        everything(part, 900)


def test_a_place_in_a_section_is_told(tmp_path):
  path = tmp_path / 'a.jsonl'
  lines = [b'{"text": "one two"}\n'] * 20
  lines[13] = b'{"text": "\xff"}\n'
  for squeeze, place in ((bytes, 'byte 270 of'), (bz2.compress, 'from its compressed byte')):
    path.write_bytes(b''.join(map(squeeze, lines)))
    with pytest.raises(records.DataError, match=f'a.jsonl.*is not UTF-8.*{place if squeeze is bytes else ""}') as told:
      for part in files.File(str(path)).sections(90, path.stat().st_size):
        everything(part, 100)
    assert place in str(told.value)

"""A compressed file gives all of its content or an error: never a part of it."""

import bz2
import gzip
import io
import lzma
import pathlib

import pytest
import written
from hypothesis import assume, given, strategies as st

from input_pipeline import records
from input_pipeline.text import compression, sources

CASES = pathlib.Path(__file__).parents[2] / 'shared/cases/text'
COMPRESS = {'gzip': gzip.compress, 'bzip2': bz2.compress, 'xz': lzma.compress, 'zstd': written.zstd}
KINDS = st.sampled_from(sorted(COMPRESS))
CONTENTS = st.lists(st.binary(max_size=300), min_size=1, max_size=4)


def read(data: bytes) -> bytes:
  return compression.content(io.BytesIO(data)).read()


class Trickle(io.RawIOBase):
  """A pipe, which gives little at once and does not seek."""

  def __init__(self, data: bytes):
    self.data = data

  def readable(self) -> bool:
    return True

  def readinto(self, buffer) -> int:
    part, self.data = self.data[:min(3, len(buffer))], self.data[3:] if len(buffer) >= 3 else self.data[len(buffer):]
    buffer[:len(part)] = part
    return len(part)


@given(KINDS, CONTENTS)
def test_streams_one_after_the_other_are_one(kind, contents):
  data = b''.join(map(COMPRESS[kind], contents))
  assert read(data) == b''.join(contents) == compression.content(Trickle(data)).read()
  assert read(COMPRESS['gzip'](data)) == b''.join(contents)  # compressed twice
  if compression.COMPRESSIONS[kind].padded:
    assert read(data + bytes(1000)) == b''.join(contents)


@given(KINDS, CONTENTS, st.data())
def test_a_part_is_an_error(kind, contents, draw):
  streams = list(map(COMPRESS[kind], contents))
  ends = {sum(map(len, streams[:number])) for number in range(len(streams) + 1)}
  data = b''.join(streams)
  cut = draw.draw(st.integers(compression._LONGEST, max(compression._LONGEST, len(data))))
  if cut not in ends and cut < len(data):
    with pytest.raises(compression.Damaged):
      read(data[:cut])
  for garbage in (b'x', b'garbage after it all', streams[0][1:], streams[0][:5]):
    with pytest.raises(compression.Damaged):
      read(data + garbage)


@given(KINDS, st.binary(min_size=1, max_size=300), st.data())
def test_a_later_stream_that_begins_damaged_is_an_error(kind, content, draw):
  stream = bytearray(COMPRESS[kind](content))
  place = draw.draw(st.integers(0, 2))
  stream[place] ^= draw.draw(st.integers(1, 255))
  with pytest.raises(compression.Damaged):
    read(COMPRESS[kind](b'The first is whole.') + stream)


@given(st.binary(max_size=100))
def test_what_is_not_compressed_is_itself(data):
  assume(not any(data.startswith(its.magics) for its in compression.COMPRESSIONS.values()))
  assert read(data) == data


def test_prose_that_begins_like_bzip2():
  assert read(b'BZh9 is a name.') == b'BZh9 is a name.'


@pytest.mark.skipif(not CASES.exists(), reason='../shared/cases/text is not here')
def test_the_case():
  with pytest.raises(records.DataError, match='after 1 whole bzip2 streams comes something else'):
    list(sources.documents(str(CASES / 'multi_badhead.txt.bz2')))

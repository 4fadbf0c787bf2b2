"""Broken shards: each fault is found before step 1, none crashes or hangs a process, sound data is not refused."""

import gzip
import json
import shutil
import struct

import numpy as np
import pytest
import synthetic

from input_pipeline import records
from input_pipeline.batches import loader
from input_pipeline.batches.loader import BatchConfig

CONFIG = BatchConfig(sequence_length=64, predictions=10)
SHARDS = 4


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('data') / 'sound', pieces=1000, shards=SHARDS, block=32)


def shard(data, i):
  return data / records.shard_name('train', i, SHARDS)


def edit(change):
  """A fault that changes the bytes of shard 1."""
  def fault(data):
    content = bytearray(shard(data, 1).read_bytes())
    shard(data, 1).write_bytes(bytes(change(content, records.frame_spans(memoryview(bytes(content)), 'shard'))))
  return fault


def flip(place):
  def change(content, spans):
    start, length = spans[3]
    end = start + length
    low, high = {'length': (start - 12, start - 4), 'length CRC': (start - 4, start), 'payload': (start, end),
                 'payload CRC': (end, end + 4)}[place]
    content[int(np.random.default_rng(len(place)).integers(low, high))] ^= 1 << 3
    return content
  return edit(change)


def bomb(power):
  """A fault by which a record says that it is very long."""
  length = struct.pack('<Q', 2**power)
  return edit(lambda content, spans: content[:spans[2][0] - 12] + length + content[spans[2][0] - 4:])


def swap(data):
  first, second = shard(data, 0).read_bytes(), shard(data, 1).read_bytes()
  shard(data, 0).write_bytes(second)
  shard(data, 1).write_bytes(first)


def drop_last_record(content, spans):
  return content[:spans[-1][0] - 12]


def reframe(change):
  """A fault that a careful forger makes: sizes, checksums and counts of the manifest fit the changed block."""
  def fault(data):
    manifest = records.read_manifest(data)
    dtype = records.id_dtype(manifest.vocabulary.size)
    content = shard(data, 1).read_bytes()
    spans = records.frame_spans(memoryview(content), 'shard')
    blocks = [records.decode_block(content[a:a + n], dtype) for a, n in spans]
    fields = {name: np.array(value) for name, value in vars(blocks[0]).items() if value is not None}
    change(fields)
    written = synthetic.write_shard(shard(data, 1), [records.Block(**fields), *blocks[1:]])
    def rewrite(m):
      m['splits']['train']['shards'][1] = vars(written)
      for name in ('pieces', 'tokens'):
        m['splits']['train'][name] = sum(s[name] for s in m['splits']['train']['shards'])
    synthetic.rewrite_manifest(data, rewrite)
  return fault


def too_long(fields):
  fields['sentence_lengths'][0] += 60
  fields['input_ids'] = np.concatenate([np.full(60, 7, fields['input_ids'].dtype), fields['input_ids']])


FAULTS = {
    **{f'flipped bit in the {place}': flip(place) for place in ('length', 'length CRC', 'payload', 'payload CRC')},
    'truncated inside a record': edit(lambda content, spans: content[:spans[3][0] + 9]),
    'truncated inside a header': edit(lambda content, spans: content[:spans[3][0] - 5]),
    'truncated between records': edit(drop_last_record),
    'empty': edit(lambda content, spans: b''),
    'appended garbage': edit(lambda content, spans: content + b'garbage'),
    'appended record': edit(lambda content, spans: content + content[:spans[0][0] + spans[0][1] + 4]),
    'missing': lambda data: shard(data, 1).unlink(),
    'extra': lambda data: shutil.copy(shard(data, 1), data / records.shard_name('train', SHARDS, SHARDS + 1)),
    'swapped': swap,
    'compressed': edit(lambda content, spans: gzip.compress(content)),
    'compressed and flipped': edit(lambda content, spans: gzip.compress(content)[:-3] + b'abc'),
    **{f'length of 2^{power}': bomb(power) for power in (31, 34, 36, 48, 62, 63)},
    'manifest cut short': lambda data: (data / records.MANIFEST).write_text(
        (data / records.MANIFEST).read_text()[:500]),
    'manifest missing': lambda data: (data / records.MANIFEST).unlink(),
    'manifest of another format': lambda data: synthetic.rewrite_manifest(data, lambda m: m.update(version=99)),
    'manifest without a shard': lambda data: synthetic.rewrite_manifest(
        data, lambda m: m['splits']['train']['shards'].pop()),
    'manifest with a strange path': lambda data: synthetic.rewrite_manifest(
        data, lambda m: m['splits']['train']['shards'][1].update(file='../../etc/passwd')),
    'manifest with other counts': lambda data: synthetic.rewrite_manifest(
        data, lambda m: m['splits']['train'].update(pieces=999)),
    'vocabulary changed': lambda data: (data / records.VOCABULARY).write_text('[PAD]\n'),
    'vocabulary missing': lambda data: (data / records.VOCABULARY).unlink(),
    'forged: id outside the vocabulary': reframe(lambda fields: fields['input_ids'].__setitem__(5, 65535)),
    'forged: [SEP] inside a piece': reframe(lambda fields: fields['input_ids'].__setitem__(9, 3)),
    'forged: piece longer than a row': reframe(too_long),
    'forged: empty sentence': reframe(lambda fields: fields['sentence_lengths'].__setitem__(slice(0, 2), [
        0, fields['sentence_lengths'][:2].sum()])),
    'forged: lengths that do not add up': reframe(lambda fields: fields['sentence_lengths'].__setitem__(0, 1)),
    'forged: ids of half a token': reframe(lambda fields: fields.update(
        input_ids=fields['input_ids'].astype(np.uint8)[:-1])),
    'forged: a label in dynamic data': reframe(lambda fields: fields.update(
        next_sentence_labels=np.zeros(len(fields['document_ids']), np.uint16))),
}

@pytest.mark.reliability(21)
@pytest.mark.parametrize('name', FAULTS)
def test_faults_are_found_before_step_1(sound, tmp_path, name, tally):
  data = tmp_path / 'data'
  shutil.copytree(sound, data)
  tally.control(loader.open_split(data, 'train', CONFIG).batch(0)['input_ids'].any())
  whole = {path.name: path.read_bytes() for path in data.iterdir()}
  FAULTS[name](data)
  with pytest.raises(records.DataError) as found:
    loader.open_split(data, 'train', CONFIG)
  assert any(file in str(found.value) for file in ('pieces-', 'manifest', 'vocab'))
  assert len(str(found.value)) < 400 and '\n' not in str(found.value)
  tally.fault({path.name: path.read_bytes() for path in data.iterdir()} != whole, detected=True)


@pytest.mark.reliability(21)
def test_random_bytes_never_pass(tmp_path, tally):
  """200 random faults, each proved to have changed the file."""
  data = synthetic.write_data(tmp_path, pieces=100, shards=SHARDS, block=8, vocabulary_size=1000)
  rng = np.random.default_rng(0)
  tally.note('seed 0')
  whole = {i: shard(data, i).read_bytes() for i in range(SHARDS)}
  for _ in range(200):
    i = int(rng.integers(SHARDS))
    content = bytearray(whole[i])
    if rng.random() < .5:
      content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    else:
      content = content[:int(rng.integers(len(content)))]
    shard(data, i).write_bytes(bytes(content))
    with pytest.raises(records.DataError):
      loader.open_split(data, 'train', CONFIG)
    tally.fault(bytes(content) != whole[i], detected=True)
    shard(data, i).write_bytes(whole[i])
  tally.control(loader.open_split(data, 'train', CONFIG).rows_per_epoch)


def test_empty_shards_of_a_small_split_are_no_fault(tmp_path):
  data = synthetic.write_data(tmp_path, pieces=40, shards=9, block=16)
  assert any(s.pieces == 0 for s in records.read_manifest(data).splits['train'].shards)
  assert loader.open_split(data, 'train', CONFIG).rows_per_epoch == 40


def test_the_manifest_is_plain_json(sound):
  assert json.loads((sound / records.MANIFEST).read_text())['format'] == records.FORMAT

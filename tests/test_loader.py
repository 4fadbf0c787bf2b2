"""The global batch of a step is a function of (shards, config, step): no process, restart or engine changes it."""

import dataclasses
import itertools
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import synthetic

from input_pipeline import records, storage
from input_pipeline.batches import loader, shards
from input_pipeline.batches.loader import BatchConfig, Masking

CONFIG = BatchConfig(size=32, sequence_length=64, predictions=10)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('data'), pieces=3000, block=16)  # five windows


@pytest.fixture(scope='module')
def stream(data):
  return loader.open_split(data, 'train', CONFIG)


def equal(one, other):
  same = lambda a, b: a.dtype == b.dtype and np.array_equal(a, b)
  return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)


def test_a_batch_has_its_shapes_and_types(stream):
  batch = stream.batch(0)
  wanted = {'input_ids': (np.int32, (32, 64)), 'token_type_ids': (np.int32, (32, 64)),
            'position_ids': (np.int32, (32, 64)), 'pair_ids': (np.int32, (32, 64)),
            'masked_lm_positions': (np.int32, (32, 10)), 'masked_lm_ids': (np.int32, (32, 10)),
            'masked_lm_weights': (np.float32, (32, 10)), 'cls_positions': (np.int32, (32, 1)),
            'next_sentence_labels': (np.int32, (32, 1)), 'next_sentence_weights': (np.float32, (32, 1))}
  assert {name: (array.dtype, array.shape) for name, array in batch.items()} == wanted


def test_every_token_comes_once_an_epoch_and_batches_cross_its_border(stream):
  assert len(stream.window_rows) > 3
  rows = stream.rows(0, stream.rows_per_epoch)
  ids = rows['input_ids'].copy()
  row, slot = np.nonzero(rows['masked_lm_weights'])
  ids[row, rows['masked_lm_positions'][row, slot]] = rows['masked_lm_ids'][row, slot]
  counts = np.bincount(ids.ravel(), minlength=stream.vocabulary.size)[5:]
  assert (counts == 1).all()
  steps = stream.rows_per_epoch // 32 + 1
  joined = [stream.batch(step)['masked_lm_ids'] for step in range(steps)]
  assert np.array_equal(np.concatenate(joined)[:stream.rows_per_epoch], rows['masked_lm_ids'])


def test_epochs_differ(stream):
  first = stream.rows(0, 100)['input_ids']
  assert not np.array_equal(first, stream.rows(stream.rows_per_epoch, stream.rows_per_epoch + 100)['input_ids'])
  assert len({tuple(stream.window_order(epoch)) for epoch in range(6)}) > 1


def test_a_far_step_is_reached_at_once_and_alone(data, stream):
  start = time.process_time()
  far = loader.open_split(data, 'train', CONFIG).batch(1_000_000)
  assert time.process_time() - start < 1
  assert equal(far, stream.batch(1_000_000))


@pytest.mark.parametrize('count', [1, 2, 4, 8, 16])
def test_processes_see_one_global_batch(stream, count):
  for step in (0, 17, 93, 1_000_000):  # 93 crosses from one epoch into the next
    whole = stream.batch(step)
    parts = [stream.batch(step, i, count) for i in range(count)]
    assert equal(whole, {name: np.concatenate([part[name] for part in parts]) for name in whole})


def test_a_batch_may_be_longer_than_an_epoch(data):
  stream = loader.open_split(data, 'train', dataclasses.replace(CONFIG, size=7000))
  assert stream.batch(1)['input_ids'].shape == (7000, 64)


@pytest.mark.parametrize('processes, size', [(3, 32), (7, 5)])
def test_processes_that_do_not_divide_the_batch_have_it_together(data, processes, size):
  """As many rows each, the last of which are empty where there are too few."""
  stream = loader.open_split(data, 'train', dataclasses.replace(CONFIG, size=size))
  for step in (0, 90):
    whole, parts = stream.batch(step), [stream.batch(step, index, processes) for index in range(processes)]
    assert {len(part['input_ids']) for part in parts} == {-(-size // processes)}
    together = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    assert equal(whole, {name: array[:size] for name, array in together.items()})
    assert not any(array[size:].any() for array in together.values())


@pytest.mark.parametrize('engine', ['threads', 'tf.data', 'none'])
@pytest.mark.parametrize('first, count', [(90, 7), (0, 8), (3, 20), (5, 0)])
def test_engines_resume_anywhere_with_the_same_batches(stream, engine, first, count):
  batches = list(stream.batches(first, first + count, engine=engine))
  assert len(batches) == count
  assert all(equal(batch, stream.batch(first + i)) for i, batch in enumerate(batches))


@pytest.mark.parametrize('masking, processes', [(Masking(schedule=((0, 0.15), (10, 0.05))), 1), (Masking(), 2)])
def test_small_batches_are_the_same_where_they_cannot_be_made_together(data, masking, processes):
  stream = loader.open_split(data, 'train', dataclasses.replace(CONFIG, size=4, masking=masking))
  batches = list(stream.batches(0, 12, processes - 1, processes, engine='none'))
  assert len(batches) == 12
  assert all(equal(batch, stream.batch(i, processes - 1, processes)) for i, batch in enumerate(batches))


@pytest.mark.parametrize('engine', ['threads', 'tf.data'])
def test_closing_ends_the_threads(stream, engine):
  before = threading.active_count()
  endless = stream.batches(5, engine=engine)
  assert len(list(itertools.islice(endless, 9))) == 9
  endless.close()
  assert threading.active_count() <= before + (engine == 'tf.data')


def test_a_program_ends_with_its_iterators_open(data):
  """TensorFlow's threads used to hang the interpreter's end."""
  program = ('import sys\nfrom input_pipeline.batches import loader\n'
             'config = loader.BatchConfig(size=32, sequence_length=64, predictions=10)\n'
             'stream = loader.open_split(sys.argv[1], "train", config)\n'
             'open = [stream.batches(0, engine=engine) for engine in ("threads", "tf.data")]\n'
             'for batches in open:\n  next(batches)\nraise SystemExit(7)')
  assert subprocess.run([sys.executable, '-c', program, str(data)], timeout=120).returncode == 7


@pytest.mark.parametrize('engine', ['threads', 'tf.data'])
def test_errors_of_the_background_come_out(data, engine, monkeypatch):
  stream = loader.open_split(data, 'train', CONFIG)
  rows = stream.rows
  monkeypatch.setattr(stream, 'rows', lambda first, *rest: rows(first, *rest) if first < 600 else (_ for _ in ()).throw(
      records.DataError('the disk went away')))
  batches = stream.batches(0, engine=engine)
  with pytest.raises(records.DataError, match='the disk went away'):
    list(batches)


def test_evaluation_is_one_pass_with_exact_sums(stream):
  batches = list(stream.evaluation_batches(64))
  assert {batch['input_ids'].shape for batch in batches} == {(64, 64)}
  pairs = sum(batch['next_sentence_weights'].sum() for batch in batches)
  assert pairs == stream.rows_per_epoch == 3000
  assert sum(batch['next_sentence_weights'].sum() for batch in stream.evaluation_batches(64, limit=100)) == 100
  halves = [list(stream.evaluation_batches(64, 100, i, 2)) for i in range(2)]
  for step, whole in enumerate(stream.evaluation_batches(64, 100)):
    assert equal(whole, {k: np.concatenate([half[step][k] for half in halves]) for k in whole})


def test_token_counts(stream):
  counts = stream.token_counts()
  assert counts.sum() == stream.manifest.splits['train'].tokens and counts.max() == 1


def test_the_fingerprint_names_data_and_config(data, stream):
  assert stream.fingerprint == loader.open_split(data, 'train', CONFIG).fingerprint
  assert stream.fingerprint != loader.open_split(data, 'train', dataclasses.replace(CONFIG, seed=1)).fingerprint


@pytest.mark.parametrize('change, message', [
    ({'sequence_length': 128, 'predictions': 20}, '--sequence-length'),
    ({'pairs': 'google'}, 'batch.pairs'),
    ({'size': 0}, 'batch.size'),
    ({'predictions': 63}, 'batch.predictions'),
    ({'pairs_per_row': 4}, 'batch.pack'),
    ({'pack': True}, 'batch.pairs_per_row'),
    ({'masking': loader.Masking(share=.4)}, 'raise batch.predictions'),
    ({'masking': loader.Masking(schedule=((0, .15), (10, .5)))}, 'raise batch.predictions'),
    ({'masking': loader.Masking(share=1.5)}, 'masking.share'),
    ({'masking': loader.Masking(mask=.8, random=.3)}, 'masking.random'),
])
def test_configs_that_do_not_fit_are_refused(data, change, message):
  with pytest.raises(ValueError, match=message):
    loader.open_split(data, 'train', dataclasses.replace(CONFIG, **change))


@pytest.mark.parametrize('held_bytes', [0, 1 << 20])
def test_remote_files_are_read_by_their_ranges_or_held(data, stream, monkeypatch, held_bytes):
  monkeypatch.setattr(shards, 'HELD_BYTES', held_bytes)
  url = f'memory://bucket/{held_bytes}'
  storage.upload(data, storage.path(url), last=records.MANIFEST)
  remote = loader.open_split(url, 'train', CONFIG)
  assert bool(remote.index.held) == bool(held_bytes)
  assert equal(remote.batch(3), stream.batch(3))


def test_shards_that_change_during_a_run_are_noticed(tmp_path):
  data = synthetic.write_data(tmp_path, pieces=1200, block=16, shards=1)
  stream = loader.open_split(data, 'train', CONFIG)
  path = data / records.shard_name('train', 0, 1)
  path.write_bytes(path.read_bytes()[:2000])
  with pytest.raises(records.DataError, match='became shorter'):
    stream.batch(0)


@pytest.mark.parametrize('seed', range(25))
def test_a_bit_that_flips_during_a_run_is_noticed(data, tmp_path, seed):
  """Wherever it is in a record, and whatever it makes of it: another id, one beyond the vocabulary, another length."""
  rng = np.random.default_rng(seed)
  copied = shutil.copytree(data, tmp_path / 'data')
  stream = loader.open_split(copied, 'train', CONFIG)
  block = int(rng.integers(len(stream.index.shard)))
  path = pathlib.Path(stream.index.paths[stream.index.shard[block]])
  place = int(stream.index.start[block] + rng.integers(stream.index.bytes[block]))
  before = [stream.batch(step) for step in range(2)]
  content = bytearray(path.read_bytes())
  content[place] ^= 1 << int(rng.integers(8))
  path.write_bytes(content)
  again = loader.open_split(data, 'train', CONFIG)
  assert all(equal(batch, again.batch(step)) for step, batch in enumerate(before))  # the control
  stream._cache.clear()
  with pytest.raises(records.DataError, match=f'{path.name}, record at byte {stream.index.start[block]}, is not what'):
    for step in range(stream.rows_per_epoch // CONFIG.size + 1):
      stream.batch(step)


def test_a_missing_or_empty_split_is_refused(data, tmp_path):
  with pytest.raises(records.DataError, match='no split'):
    loader.open_split(data, 'validation', CONFIG)
  empty = synthetic.write_data(tmp_path / 'empty', pieces=0, shards=1, vocabulary_size=100)
  with pytest.raises(records.DataError, match='empty'):
    loader.open_split(empty, 'train', CONFIG)

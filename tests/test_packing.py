"""Packed rows: every token once, pairs apart from each other, rows that are full, as many in every epoch."""

import dataclasses

import numpy as np
import pytest
import synthetic

from input_pipeline import random, records
from input_pipeline.batches import layout, loader, packing
from input_pipeline.batches.loader import BatchConfig
from input_pipeline.batches.segments import Pairs

CONFIG = BatchConfig(size=32, sequence_length=64, predictions=14, pack=True, pairs_per_row=6)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('data'), pieces=3000, block=16)


@pytest.fixture(scope='module')
def stream(data):
  return loader.open_split(data, 'train', CONFIG)


def originals(batch):
  ids = batch['input_ids'].copy()
  row, slot = np.nonzero(batch['masked_lm_weights'])
  ids[row, batch['masked_lm_positions'][row, slot]] = batch['masked_lm_ids'][row, slot]
  return ids


@pytest.mark.parametrize('epoch', [0, 1, 2])
def test_every_token_comes_once_an_epoch(stream, epoch):
  first = epoch * stream.rows_per_epoch
  ids = originals(stream.rows(first, first + stream.rows_per_epoch))
  assert sum(stream.arrangement(epoch, w).pairs.trimmed for w in range(len(stream.window_rows))) == 0
  assert (np.bincount(ids.ravel(), minlength=stream.vocabulary.size)[5:] == 1).all()


def test_rows_hold_pairs_side_by_side(stream):
  batch = stream.rows(0, 500)
  ids, pair, position = originals(batch), batch['pair_ids'], batch['position_ids']
  assert pair.max() > 2
  real = pair > 0
  assert (np.diff(np.where(real, pair, 99), axis=1) >= 0).all()  # pairs in order, padding after them
  starts = real & (position == 0)
  assert (ids[starts] == 2).all() and (np.count_nonzero(ids == 2) == np.count_nonzero(starts))
  assert np.array_equal(starts.sum(1), pair.max(1))
  assert (position[:, 1:] == np.where(starts[:, 1:] | ~real[:, 1:], 0, position[:, :-1] + 1)).all()
  assert np.count_nonzero(ids == 3) == 2 * np.count_nonzero(starts)
  assert not ids[~real].any() and not batch['token_type_ids'][~real].any()
  weights = batch['next_sentence_weights'] > 0
  assert np.array_equal(weights.sum(1), pair.max(1))
  row, slot = np.nonzero(weights)
  assert np.array_equal(pair[row, batch['cls_positions'][row, slot]], slot + 1)
  assert (position[row, batch['cls_positions'][row, slot]] == 0).all()


def test_counts_of_masks_follow_the_rule_for_each_pair(stream):
  batch = stream.rows(0, 500)
  row, slot = np.nonzero(batch['masked_lm_weights'])
  pair = batch['pair_ids'][row, batch['masked_lm_positions'][row, slot]]
  for k in range(1, 4):
    length = (batch['pair_ids'] == k).sum(1)
    wanted = np.where(length, np.maximum(1, np.rint(length * .15)), 0)
    assert np.array_equal(np.bincount(row[pair == k], minlength=500), wanted)
  assert (np.diff(np.where(batch['masked_lm_weights'] > 0, batch['masked_lm_positions'], 100 + np.arange(14)),
                  axis=1) > 0).all()


def test_half_of_packed_pairs_are_negatives(stream):
  for epoch in range(2):
    for window in range(len(stream.window_rows)):
      label = stream.arrangement(epoch, window).pairs.label
      assert abs(2 * label.sum() - len(label)) <= len(label) % 2


def test_epochs_pack_afresh(stream):
  rows = [originals(stream.rows(e * stream.rows_per_epoch, e * stream.rows_per_epoch + 400)) for e in range(2)]
  contents = [{tuple(sorted(row[row > 4])) for row in part} for part in rows]
  assert len(contents[0] & contents[1]) < 50  # rows of a single whole piece that kept its own second segment


def test_processes_see_one_global_batch(stream):
  for count in (2, 4, 8):
    parts = [stream.batch(50_000, i, count) for i in range(count)]
    for name, array in stream.batch(50_000).items():
      assert np.array_equal(array, np.concatenate([part[name] for part in parts]))


@pytest.mark.parametrize('pairs', ['none', 'sop'])
def test_other_pairs_are_packed_too(data, pairs):
  stream = loader.open_split(data, 'train', dataclasses.replace(CONFIG, pairs=pairs))
  batch = stream.rows(0, stream.rows_per_epoch)
  assert (np.bincount(originals(batch).ravel(), minlength=stream.vocabulary.size)[5:] == 1).all()
  if pairs == 'none':
    assert not batch['next_sentence_weights'].any() and not batch['token_type_ids'].any()
    assert np.count_nonzero(originals(batch) == 3) == np.count_nonzero(originals(batch) == 2)


def test_google_pairs_are_packed_whole(tmp_path):
  stream = loader.open_split(synthetic.write_data(tmp_path, pairs='google'), 'train',
                             dataclasses.replace(CONFIG, pairs='google'))
  batch = stream.rows(0, stream.rows_per_epoch)
  assert (np.bincount(originals(batch).ravel(), minlength=stream.vocabulary.size)[5:] == 1).all()
  assert batch['next_sentence_weights'].sum() == 600 and batch['next_sentence_labels'].sum() == 300


def wikipedia_like(count, rng):
  """Lengths as of the BERT paper's 512 tokens: median about 204, a quarter full."""
  return np.clip(np.exp(rng.normal(5.3, 1.1, count)), 5, 512).astype(int)


def test_rows_of_512_have_hardly_any_padding():
  """99.5 % real tokens, as also measured on articles (docs/measured.md)."""
  lengths = wikipedia_like(8192, np.random.default_rng(0))
  row_of = packing.pack(lengths, 512, 12, None, random.key(1, 'pack'))
  used = np.bincount(row_of, lengths)
  assert used.max() <= 512 and np.bincount(row_of).max() <= 12
  print(f'\npacked: {lengths.sum() / 512 / len(used):.4f} real tokens, unpacked {lengths.mean() / 512:.4f}')
  assert lengths.sum() / (512 * len(used)) >= .995


def test_full_pieces_are_split_until_rows_are_full(tmp_path):
  """Long documents: pieces of whole sentences leave 2 % of their rows free, too little for another piece."""
  rng = np.random.default_rng(0)
  pieces = []
  for document in range(3000):
    for _ in range(2):
      sentences, room = [], int(509 if document % 4 else rng.integers(40, 509))
      while (length := int(rng.gamma(3.5, 8)) + 2) + sum(sentences) <= room:
        sentences.append(length)
      pieces.append((document, sentences or [room]))
  pieces = [pieces[i] for i in rng.permutation(len(pieces))]
  data = synthetic.write_data(tmp_path, made=pieces, sequence_length=512, block=256, vocabulary_size=1000)
  stream = loader.open_split(data, 'train',
                             BatchConfig(sequence_length=512, predictions=84, pack=True, pairs_per_row=12))
  assert stream.trials.split_share > 0
  real = np.count_nonzero(stream.rows(0, stream.rows_per_epoch)['pair_ids']) / (stream.rows_per_epoch * 512)
  unpacked = np.mean([(sum(s) + 3) / 512 for _, s in pieces])
  print(f'\npacked: {real:.4f} real tokens, unpacked {unpacked:.4f}')
  assert real >= .995


def test_what_finds_no_room_is_cut_and_counted():
  lengths = np.array([40, 40, 40, 30])
  row_of = packing.pack(lengths + 3, 64, 4, 3, 1)
  assert (row_of < 0).sum() == 1
  pairs = Pairs(np.arange(4) * 50, lengths // 2, np.arange(4) * 50 + lengths // 2, lengths - lengths // 2,
                np.zeros(4, int))
  cut, rows = packing.cut_to_fit(pairs, row_of, 3, 64, 4, 2)
  assert np.bincount(rows, cut.a_length + cut.b_length + 3).max() <= 64
  assert len(cut.a_length) == 4 and cut.trimmed == 150 - (cut.a_length + cut.b_length).sum() > 0


def test_a_pair_goes_into_the_fullest_row_that_has_room():
  lengths = np.array([9, 7, 3, 4])  # the example of pack, in rows of 12: 3 and 5 tokens are left, and then a row of 4
  assert packing.pack(lengths, 12, 4, None, 1).tolist() == [0, 1, 0, 1]
  assert packing.pack(lengths, 12, 1, 3, 1).tolist() == [0, 1, -1, 2]  # of one pair each


def test_the_example_of_the_layout():
  pairs = Pairs(*(np.array([n]) for n in (50, 2, 80, 3, 1)))
  vocabulary = records.Vocabulary('wordpiece', 100, '', True, 0, 1, 2, 3, 4)
  batch = layout.lay_out(np.arange(100), layout.place(pairs, np.array([0]), 2), 1, 12, 2, vocabulary)
  assert batch['input_ids'].tolist() == [[2, 50, 51, 3, 80, 81, 82, 3, 0, 0, 0, 0]]
  assert batch['token_type_ids'].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]]
  assert layout.sum_before(np.array([3, 2, 4, 1]), np.array([0, 1, 0, 1])).tolist() == [0, 3, 0, 4]


@pytest.mark.parametrize('cap', [2, 3, 4])
def test_rows_never_hold_more_pairs_than_asked(data, cap):
  stream = loader.open_split(data, 'train', dataclasses.replace(CONFIG, pairs_per_row=cap))
  batch = stream.rows(0, stream.rows_per_epoch)
  assert batch['pair_ids'].max() <= cap and batch['cls_positions'].shape[1] == cap
  assert (np.bincount(originals(batch).ravel(), minlength=stream.vocabulary.size)[5:] == 1).all()

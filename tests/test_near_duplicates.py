"""MinHash estimates what two documents share, and of each pair that shares enough the one of smaller rank stays."""

import dataclasses

import corpora
import numpy as np
import pytest
from hypothesis import given, strategies as st

from input_pipeline.prepare import corpus, near_duplicates


def copies_with_changes(share: float, count: int = 400):
  draw = np.random.default_rng(int(share * 100))
  for _ in range(count):
    text = draw.integers(5, 30_000, 600)
    other = text.copy()
    changed = int(len(text) * share)
    other[:changed] = draw.integers(5, 30_000, changed)
    yield text, other


@pytest.mark.parametrize('changed', [0.02, 0.1, 0.3, 0.9])
def test_the_estimate_is_the_share(changed):
  for a, b in copies_with_changes(changed, 20):
    runs = [{tuple(ids[i:i + 5]) for i in range(len(ids) - 4)} for ids in (a, b)]
    true = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
    estimate = (near_duplicates.signature(a) == near_duplicates.signature(b)).mean()
    assert abs(estimate - true) < 5 * np.sqrt(max(true * (1 - true), 0.01) / near_duplicates.HASHES)


def test_the_document_of_smaller_rank_stays_in_any_order():
  pairs = list(copies_with_changes(0.02)) + list(copies_with_changes(0.9))
  signatures = np.stack([near_duplicates.signature(ids) for pair in pairs for ids in pair])
  ranks = np.random.default_rng(0).permutation(len(signatures)).astype(np.uint64)
  found = near_duplicates.find(signatures, ranks, 0.8)
  order = np.random.default_rng(1).permutation(len(ranks))
  assert np.array_equal(near_duplicates.find(signatures[order], ranks[order], 0.8), found[order])
  near, far = found[:800].reshape(-1, 2), found[800:]
  assert not far.any() and near.sum(1).max() == 1 and near.any(1).mean() > 0.99
  assert all(ranks[2 * i + place] > ranks[2 * i + 1 - place] for i, place in zip(*np.nonzero(near)))


def test_short_documents_have_signatures():
  a, b = near_duplicates.signature(np.array([7])), near_duplicates.signature(np.array([8]))
  assert a.shape == (64,) and not np.array_equal(a, b)
  assert near_duplicates.find(np.zeros((0, 64), np.uint32), np.zeros(0, np.uint64), 0.8).shape == (0,)


def drawn(count: int, same: float, ranks: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Signatures whose bands hold one of three things each, the first of them in this share; and some ranks."""
  draw = np.random.default_rng(seed)
  bands = draw.choice(3, (count, 16), p=[same, *[(1 - same) / 2] * 2]).astype('<u4')
  return np.repeat(bands, 4, axis=1), draw.choice(draw.integers(0, 2**64, ranks, np.uint64), count)


def marks_of(rows: np.ndarray, found: np.ndarray, documents: int) -> np.ndarray:  # [R] ROW, [R] bool -> [16 D] bool
  """In which band what document is found."""
  marks = np.zeros((16, documents), bool)
  marks[rows['band'], rows['place']] = found
  return marks


def found_in_slices(signatures: np.ndarray, ranks: np.ndarray, share: float, parts: int, of_a_part: int, blocks: int
                    ) -> tuple[np.ndarray, list[int]]:
  """As an engine schedules it, of documents in so many blocks: marks, and how many rows each slice has."""
  some = np.array_split(np.arange(len(ranks)), blocks)
  drawn = [near_duplicates.drawn(signatures[own], ranks[own], parts, of_a_part) for own in some]
  cut = near_duplicates.cuts(np.concatenate(drawn[::-1]), of_a_part)
  every = [near_duplicates.rows_of(signatures[own], ranks[own], own, 0, parts, cut) for own in some]
  assert {len(slices) for slices in every} == {parts + len(cut)}
  ended = {}
  for number, of_slice in enumerate(zip(*every)):
    rows = np.concatenate([own[near_duplicates.ends(own)] for own in of_slice])
    ended[number] = rows[near_duplicates.ends(rows)]
  known = near_duplicates.before(ended, near_duplicates.continued(cut))
  marks, sizes = np.zeros((16, len(ranks)), bool), []
  for number, of_slice in enumerate(zip(*every)):
    rows, first = np.concatenate(of_slice), known.get(number, np.zeros(0, near_duplicates.ROW))
    found = near_duplicates.find_in(np.concatenate([first, rows]), share)[len(first):]
    marks |= marks_of(rows, found, len(ranks))
    sizes.append(len(rows))
  assert sum(sizes) == 16 * len(ranks)
  return marks, sizes


@given(st.integers(0, 60), st.sampled_from([0.3, 0.6, 0.9]), st.integers(1, 60), st.integers(0, 2**32),
       st.sampled_from([0.3, 0.5, 0.8, 1]), st.integers(1, 4), st.integers(1, 60), st.integers(1, 4))
def test_in_slices_of_any_size_the_same_are_found(count, same, distinct, seed, share, parts, rows, blocks):
  signatures, ranks = drawn(count, same, distinct, seed)
  found, _ = found_in_slices(signatures, ranks, share, parts, rows * near_duplicates.ROW.itemsize, blocks)
  [whole] = near_duplicates.rows_of(signatures, ranks, np.arange(len(ranks)), 0, 1, np.zeros(0, near_duplicates.KEY))
  np.testing.assert_array_equal(found, marks_of(whole, near_duplicates.find_in(whole, share), len(ranks)))
  np.testing.assert_array_equal(found.any(0), near_duplicates.find(signatures, ranks, share))


@pytest.mark.parametrize('alike', [0, 0.9, 1])
def test_no_slice_grows_by_a_band_that_many_documents_share(alike):
  """And where few do, there are no more slices than parts."""
  draw = np.random.default_rng(0)
  count, rows = 20_000, 4000
  signatures = draw.integers(0, 2**32, (count, near_duplicates.HASHES), np.uint32)
  signatures[:int(alike * count), :32] = 7  # in eight bands of 16
  ranks = draw.integers(0, 2**64, count, np.uint64)
  of_a_part = rows * near_duplicates.ROW.itemsize
  parts = near_duplicates.parts_of(count, of_a_part)
  found, sizes = found_in_slices(signatures, ranks, 0.5, parts, of_a_part, 3)
  np.testing.assert_array_equal(found.any(0), near_duplicates.find(signatures, ranks, 0.5))
  assert found.any(0).sum() == max(0, int(alike * count) - 1)
  assert parts == 80 and max(sizes) < 2 * rows
  assert len(sizes) - parts <= 2 * len(sizes) * alike and len(sizes) < 2.2 * parts


def test_prepare_drops_and_counts_them(tmp_path):
  prepare, manifest = corpora.make(tmp_path)
  longest = max((corpora.text_of(i) for i in range(290)), key=len)
  (tmp_path / 'more.txt').write_text(open(prepare.input).read() + '\n\n' + longest + '\nOne more line.')
  more = dataclasses.replace(prepare, input=str(tmp_path / 'more.txt'), output=str(tmp_path / 'more'),
                             near_duplicates=0.8)
  counts = corpus.prepare(more, progress=False).counts
  assert (counts['documents'], counts['duplicates'], counts['near_duplicates']) == (290, 10, 1)

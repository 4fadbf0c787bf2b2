"""MinHash estimates what two documents share, and of each pair that shares enough the one of smaller rank stays."""

import dataclasses

import corpora
import numpy as np
import pytest

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


def test_prepare_drops_and_counts_them(tmp_path):
  prepare, manifest = corpora.make(tmp_path)
  longest = max((corpora.text_of(i) for i in range(290)), key=len)
  (tmp_path / 'more.txt').write_text(open(prepare.input).read() + '\n\n' + longest + '\nOne more line.')
  more = dataclasses.replace(prepare, input=str(tmp_path / 'more.txt'), output=str(tmp_path / 'more'),
                             near_duplicates=0.8)
  counts = corpus.prepare(more, progress=False).counts
  assert (counts['documents'], counts['duplicates'], counts['near_duplicates']) == (290, 10, 1)

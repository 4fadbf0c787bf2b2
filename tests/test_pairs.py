"""Next-sentence pairs: exactly half negatives, never of one document, and no sentence lost."""

import numpy as np
import pytest
import synthetic

from input_pipeline import random
from input_pipeline.batches import pairs
from input_pipeline.batches.shards import Window
from input_pipeline.records import DataError

ROOM = 61
NO_CONTINUATION = np.zeros(10**6, bool)


def make_window(pieces) -> Window:
  """Every token has its own id, its place."""
  lengths = [length for _, sentences in pieces for length in sentences]
  starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
  piece_starts = np.concatenate([[0], np.cumsum([len(s) for _, s in pieces])]).astype(np.int64)
  return Window(np.arange(starts[-1]), starts, piece_starts, np.array([d for d, _ in pieces]),
                np.arange(len(pieces)) % 2)


def random_window(count, documents, seed=0) -> Window:
  return make_window(synthetic.make_pieces(count, documents, ROOM, np.random.default_rng(seed)))


def tokens_of(found: pairs.Pairs, window: Window):
  runs = [np.arange(s, s + n) for start, length in ((found.a_start, found.a_length), (found.b_start, found.b_length))
          for s, n in zip(start, length)]
  return np.sort(np.concatenate(runs))


def documents_of(window: Window, places):
  sentence = np.searchsorted(window.sentence_starts, places, side='right') - 1
  return window.document_ids[np.searchsorted(window.piece_starts, sentence, side='right') - 1]


def exchange(window, epoch=0, continues=NO_CONTINUATION):
  return pairs.exchange(window, random.key(1, 'pairs', epoch), ROOM, continues)


@pytest.mark.parametrize('count', [3, 4, 5, 6, 7, 8, 10, 14, 50, 51, 600, 2002, 4096])
@pytest.mark.parametrize('epoch', [0, 1])
def test_half_are_negatives_of_other_documents_and_no_token_is_lost(count, epoch):
  window = random_window(count, documents=max(3, count // 10), seed=count)
  found = exchange(window, epoch)
  negatives = int(found.label.sum())
  assert abs(2 * negatives - count) <= count % 2
  able = found.b_length > 0
  same = documents_of(window, found.a_start) == documents_of(window, np.where(able, found.b_start, found.a_start))
  assert (same == (found.label == 0)).all()
  assert (found.a_length + found.b_length <= ROOM).all() and (found.a_length > 0).all()
  assert len(tokens_of(found, window)) + found.trimmed == len(window.tokens)
  if count >= 600:
    assert found.trimmed == 0
    assert np.array_equal(tokens_of(found, window), window.tokens)


def test_cuts_stand_between_sentences_where_there_are_two():
  window = random_window(600, 60)
  found = exchange(window)
  many = np.diff(window.piece_starts) > 1
  assert many.sum() > 300
  assert np.isin((found.a_start + found.a_length)[many], window.sentence_starts).all()


def test_a_single_sentence_is_cut_between_words():
  window = make_window([(i, [20]) for i in range(64)])
  continues = np.arange(64 * 20) % 4 != 0  # words of four tokens
  found = exchange(window, continues=continues)
  assert not (found.a_length % 4).any() and not (found.b_length % 4).any() and not found.trimmed
  assert (found.b_length > 0).all()
  one_word = np.ones(64 * 20, bool)
  assert (exchange(window, continues=one_word).b_length > 0).all()


def test_pieces_of_one_token_stay_whole():
  window = make_window([(i, [1]) for i in range(10)] + [(i, [5, 5]) for i in range(10)])
  found = exchange(window)
  assert found.label.sum() == 10 and (found.label[:10] == 0).all() and (found.b_length[:10] == 0).all()


def test_epochs_cut_and_pair_afresh():
  window = random_window(600, 60)
  first, second = exchange(window, 0), exchange(window, 1)
  assert (first.label != second.label).mean() > .3
  assert (first.a_length != second.a_length).mean() > .3


def test_negatives_look_like_positives():
  """Lengths must not tell the label."""
  window = random_window(4096, 400)
  found = exchange(window)
  for name in ('a_length', 'b_length'):
    values = getattr(found, name)
    difference = values[found.label == 1].mean() - values[found.label == 0].mean()
    assert abs(difference) < 5 * values.std() / np.sqrt(1024)


def test_one_document_has_no_negatives():
  with pytest.raises(DataError, match='one document'):
    exchange(random_window(20, documents=1))


@pytest.mark.parametrize('minor, negatives', [(30, 50), (25, 50), (20, 40), (3, 6), (1, 2)])
def test_a_document_with_most_of_the_pieces_gives_as_many_as_can_be(minor, negatives):
  pieces = [(0, [10, 10, 12])] * (100 - minor) + [(1 + i, [9, 12, 11]) for i in range(minor)]
  window = make_window([pieces[i] for i in np.random.default_rng(0).permutation(100)])
  found = exchange(window)
  assert found.label.sum() == negatives
  assert (documents_of(window, found.a_start) != documents_of(window, found.b_start))[found.label == 1].all()


def test_two_documents_give_half_to_within_one():
  for count in range(4, 20):
    window = make_window([(i % 2, [10, 10]) for i in range(count)])
    found = exchange(window)
    assert abs(2 * found.label.sum() - count) <= 2
    assert (documents_of(window, found.a_start) != documents_of(window, found.b_start))[found.label == 1].all()


def test_sentence_order_swaps_half():
  window = random_window(601, 60)
  found = pairs.sentence_order(window, 7, NO_CONTINUATION)
  assert found.label.sum() == 300
  assert np.array_equal(tokens_of(found, window), window.tokens)
  split = found.b_length > 0
  assert ((found.a_start < found.b_start) == (found.label == 0))[split].all()


def test_google_pairs_are_read_as_stored():
  window = make_window([(i, [5, 7]) for i in range(10)])
  found = pairs.google(window)
  assert (found.a_length == 5).all() and (found.b_length == 7).all() and np.array_equal(found.label, np.arange(10) % 2)


def test_full_sentences_have_one_segment():
  window = random_window(50, 5)
  found = pairs.one_segment(window)
  assert np.array_equal(tokens_of(found, window), window.tokens) and not found.b_length.any()

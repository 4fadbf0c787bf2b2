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


def make_window(made) -> Window:
  """Every token has its own id, its place."""
  lengths = [length for _, sentences in made for length in sentences]
  starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
  piece_starts = np.concatenate([[0], np.cumsum([len(s) for _, s in made])]).astype(np.int64)
  return Window(np.arange(starts[-1]), starts, piece_starts, np.array([d for d, _ in made]), np.arange(len(made)) % 2)


def random_window(count, documents, seed=0) -> Window:
  return make_window(synthetic.make_pieces(count, documents, ROOM, np.random.default_rng(seed)))


def tokens_of(made: pairs.Pairs, window: Window):
  runs = [np.arange(s, s + n) for start, length in ((made.a_start, made.a), (made.b_start, made.b)) for s, n in zip(start, length)]
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
  made = exchange(window, epoch)
  negatives = int(made.label.sum())
  assert abs(2 * negatives - count) <= count % 2
  able = made.b > 0
  same = documents_of(window, made.a_start) == documents_of(window, np.where(able, made.b_start, made.a_start))
  assert (same == (made.label == 0)).all()
  assert (made.a + made.b <= ROOM).all() and (made.a > 0).all()
  assert len(tokens_of(made, window)) + made.trimmed == len(window.tokens)
  if count >= 600:
    assert made.trimmed == 0
    assert np.array_equal(tokens_of(made, window), window.tokens)


def test_cuts_stand_between_sentences_where_there_are_two():
  window = random_window(600, 60)
  made = exchange(window)
  many = np.diff(window.piece_starts) > 1
  assert many.sum() > 300
  assert np.isin((made.a_start + made.a)[many], window.sentence_starts).all()


def test_a_single_sentence_is_cut_between_words():
  window = make_window([(i, [20]) for i in range(64)])
  continues = np.arange(64 * 20) % 4 != 0  # words of four tokens
  made = exchange(window, continues=continues)
  assert (made.a % 4 == 0).all() and (made.b % 4 == 0).all() and (made.b > 0).all() and made.trimmed == 0
  one_word = np.ones(64 * 20, bool)
  assert (exchange(window, continues=one_word).b > 0).all()


def test_pieces_of_one_token_stay_whole():
  window = make_window([(i, [1]) for i in range(10)] + [(i, [5, 5]) for i in range(10)])
  made = exchange(window)
  assert made.label.sum() == 10 and (made.label[:10] == 0).all() and (made.b[:10] == 0).all()


def test_epochs_cut_and_pair_anew():
  window = random_window(600, 60)
  first, second = exchange(window, 0), exchange(window, 1)
  assert (first.label != second.label).mean() > .3
  assert (first.a != second.a).mean() > .3


def test_negatives_look_like_positives():
  """Lengths must not tell the label."""
  window = random_window(4096, 400)
  made = exchange(window)
  for name in ('a', 'b'):
    values = getattr(made, name)
    difference = values[made.label == 1].mean() - values[made.label == 0].mean()
    assert abs(difference) < 5 * values.std() / np.sqrt(1024)


def test_one_document_has_no_negatives():
  with pytest.raises(DataError, match='one document'):
    exchange(random_window(20, documents=1))


@pytest.mark.parametrize('minor, negatives', [(30, 50), (25, 50), (20, 40), (3, 6), (1, 2)])
def test_a_document_with_most_of_the_pieces_gives_as_many_as_can_be(minor, negatives):
  made = [(0, [10, 10, 12])] * (100 - minor) + [(1 + i, [9, 12, 11]) for i in range(minor)]
  window = make_window([made[i] for i in np.random.default_rng(0).permutation(100)])
  result = exchange(window)
  assert result.label.sum() == negatives
  assert (documents_of(window, result.a_start) != documents_of(window, result.b_start))[result.label == 1].all()


def test_two_documents_give_half_to_within_one():
  for count in range(4, 20):
    window = make_window([(i % 2, [10, 10]) for i in range(count)])
    made = exchange(window)
    assert abs(2 * made.label.sum() - count) <= 2
    assert (documents_of(window, made.a_start) != documents_of(window, made.b_start))[made.label == 1].all()


def test_sentence_order_swaps_half():
  window = random_window(601, 60)
  made = pairs.ordered(window, 7, NO_CONTINUATION)
  assert made.label.sum() == 300
  assert np.array_equal(tokens_of(made, window), window.tokens)
  split = made.b > 0
  assert ((made.a_start < made.b_start) == (made.label == 0))[split].all()


def test_static_pairs_are_read_as_stored():
  window = make_window([(i, [5, 7]) for i in range(10)])
  made = pairs.static(window)
  assert (made.a == 5).all() and (made.b == 7).all() and np.array_equal(made.label, np.arange(10) % 2)


def test_full_sentences_have_one_segment():
  window = random_window(50, 5)
  made = pairs.whole(window)
  assert np.array_equal(tokens_of(made, window), window.tokens) and not made.b.any()

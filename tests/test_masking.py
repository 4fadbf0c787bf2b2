"""Masks: the original's counts, never a special token, 80/10/10, and the same bits for the same place."""

import numpy as np
import pytest

from input_pipeline import random, records
from input_pipeline.batches import choosing, layout, masking, shards
from input_pipeline.batches.masking import Masking
from input_pipeline.batches.segments import Pairs

VOCABULARY = records.Vocabulary('wordpiece', 1000, '', True, 0, 1, 2, 3, 4)
KINDS = shards.TokenKinds(VOCABULARY, np.arange(1000) % 4 == 3, np.arange(5, 1000, dtype=np.int32))
PLAIN = Masking()


def make(lengths, row_length, slots, setting=PLAIN, share=.15, seed=1, first=0):
  """One pair a row with tokens 5 … : the batch before and after."""
  lengths = np.asarray(lengths)
  a = np.maximum(1, (lengths - 3) // 3)
  tokens = np.random.default_rng(0).integers(5, 1000, lengths.sum())
  starts = np.cumsum(lengths) - lengths
  pairs = Pairs(starts, a, starts + a, lengths - 3 - a, np.zeros(len(lengths), np.int32))
  placed = layout.place(pairs, np.arange(len(lengths)), 2)
  batch = layout.lay_out(tokens, placed, len(lengths), row_length, 2, VOCABULARY)
  before = batch['input_ids'].copy()
  draws = masking.bits_per_pair(setting.unit, row_length, slots)
  bits = random.bits(seed, first * draws, len(lengths) * draws).reshape(-1, draws)
  batch |= masking.mask_batch(batch['input_ids'], placed, bits, setting, share, slots, KINDS)
  return before, batch


@pytest.mark.parametrize('length, count', [(4, 1), (10, 2), (30, 4), (70, 10), (110, 16), (128, 19), (512, 77)])
def test_the_count_is_the_originals_rule(length, count):
  assert masking.prediction_count(np.array([length]), .15, 80) == count
  assert masking.prediction_count(np.array([length]), .15, 5) == min(count, 5)
  _, batch = make([length] * 3, 512, 80)
  assert (batch['masked_lm_weights'].sum(1) == count).all()


def test_special_tokens_are_never_chosen_and_slots_are_sorted():
  before, batch = make(np.random.default_rng(3).integers(4, 129, 500), 128, 20)
  row, slot = np.nonzero(batch['masked_lm_weights'])
  original = before[row, batch['masked_lm_positions'][row, slot]]
  assert (original >= 5).all()
  assert np.array_equal(original, batch['masked_lm_ids'][row, slot])
  positions = np.where(batch['masked_lm_weights'] > 0, batch['masked_lm_positions'], 1000 + np.arange(20))
  assert (np.diff(positions, axis=1) > 0).all()
  unused = batch['masked_lm_weights'] == 0
  assert not batch['masked_lm_positions'][unused].any() and not batch['masked_lm_ids'][unused].any()
  changed = before != batch['input_ids']
  marked = np.zeros_like(changed)
  marked[row, batch['masked_lm_positions'][row, slot]] = True
  assert not (changed & ~marked).any()


def test_shares_within_three_sigma_over_ten_million_tokens():
  tokens = chosen = masked = kept = drawn = 0
  where = np.zeros(512)
  counts = np.zeros(1000)
  for i in range(20):
    before, batch = make([512] * 1000, 512, 77, seed=i)
    weights = batch['masked_lm_weights'] > 0
    row, slot = np.nonzero(weights)
    position = batch['masked_lm_positions'][row, slot]
    after, original = batch['input_ids'][row, position], before[row, position]
    tokens, chosen = tokens + before.size, chosen + len(row)
    masked, kept = masked + np.sum(after == 4), kept + np.sum(after == original)
    drawn += np.sum((after != 4) & (after != original))
    where += np.bincount(position, minlength=512)
    counts += np.bincount(after[(after != 4) & (after != original)], minlength=1000)
  assert tokens > 10_000_000 and chosen == 20 * 1000 * 77
  sigma = lambda share: 3 * np.sqrt(chosen * share * (1 - share))
  assert abs(masked - .8 * chosen) < sigma(.8)
  same = .1 / 995  # a random token that is the original
  assert abs(kept - (.1 + same) * chosen) < sigma(.1) and abs(drawn - (.1 - same) * chosen) < sigma(.1)
  places = where[where > 0]
  assert len(places) == 509 and not counts[:5].any()
  assert abs(((places - places.mean())**2 / places.mean()).sum() - 508) < 5 * np.sqrt(2 * 508)  # even over places
  used = counts[5:]
  assert abs(((used - used.mean())**2 / used.mean()).sum() - 994) < 5 * np.sqrt(2 * 994)  # even over the vocabulary


def test_bits_belong_to_places_not_to_calls():
  lengths = [40] * 64
  _, whole = make(lengths, 64, 10)
  _, half = make(lengths[32:], 64, 10, first=32)
  assert np.array_equal(whole['masked_lm_positions'][32:], half['masked_lm_positions'])


@pytest.mark.parametrize('setting', [Masking(mask=1, random=0), Masking(mask=0, random=1), Masking(mask=0, random=0)])
def test_mixes(setting):
  before, batch = make([64] * 200, 64, 10, setting)
  row, slot = np.nonzero(batch['masked_lm_weights'])
  after = batch['input_ids'][row, batch['masked_lm_positions'][row, slot]]
  assert (after == 4).mean() == setting.mask
  if not setting.mask and not setting.random:
    assert np.array_equal(before, batch['input_ids'])


def word_numbers(before, batch):
  """A number for each word of the batch, by the vocabulary and the segments; each special token is one."""
  starts = (before % 4 != 3) | (before < 5) | (batch['position_ids'] == 1)
  starts[:, 1:] |= before[:, :-1] == 3  # after [SEP]
  return np.cumsum(starts.ravel()).reshape(starts.shape)


def chosen_of(before, batch):
  chosen = np.zeros(before.shape, bool)
  row, slot = np.nonzero(batch['masked_lm_weights'])
  chosen[row, batch['masked_lm_positions'][row, slot]] = True
  return chosen


@pytest.mark.parametrize('lengths', [[128] * 300, list(range(4, 129)) * 3])
def test_whole_words_are_chosen_whole(lengths):
  before, batch = make(lengths, 128, 20, Masking(unit='word'))
  chosen, word = chosen_of(before, batch), word_numbers(before, batch)
  whole = np.bincount(word.ravel(), chosen.ravel()) / np.bincount(word.ravel()).clip(1)
  assert set(np.unique(whole)) == {0, 1}
  wanted = masking.prediction_count(np.array(lengths), .15, 20)
  count = batch['masked_lm_weights'].sum(1)
  assert (count <= wanted).all() and (count >= wanted - 2).all() and (count == wanted).mean() > .9
  assert (before[chosen] >= 5).all()
  assert (np.diff(np.where(batch['masked_lm_weights'] > 0, batch['masked_lm_positions'], 1000 + np.arange(20)),
                  axis=1) > 0).all()


@pytest.mark.parametrize('lengths, share, slots',
                         [([128] * 300, .15, 20), ([128] * 50, .4, 52), (list(range(4, 129)) * 3, .15, 20)])
def test_spans_have_the_rules_count(lengths, share, slots):
  before, batch = make(lengths, 128, slots, Masking(unit='span'), share)
  lengths = np.array(lengths)
  wanted = np.minimum(masking.prediction_count(lengths, share, slots), lengths - 3)
  assert np.array_equal(batch['masked_lm_weights'].sum(1), wanted)
  assert (before[chosen_of(before, batch)] >= 5).all()


def test_spans_are_geometric_whole_words_and_replaced_together():
  before, batch = make([512] * 2000, 512, 77, Masking(unit='span'))
  chosen, word = chosen_of(before, batch), word_numbers(before, batch)
  edges = np.diff(np.pad(chosen, ((0, 0), (1, 1))).astype(int), axis=1)
  begin, end = (np.argwhere(edges == sign) for sign in (1, -1))
  words = word[end[:, 0], end[:, 1] - 1] - word[begin[:, 0], begin[:, 1]] + 1
  assert 3.2 < words.mean() < 4.6  # SpanBERT's 3.8 words, shortened by the last one and lengthened by neighbours
  first = begin[:, 1]
  starts_a_word = np.concatenate([np.ones((2000, 1), bool), np.diff(word, axis=1) > 0], axis=1)
  assert starts_a_word[begin[:, 0], first].mean() > .97  # all but what stands after a span that was cut short
  masked = batch['input_ids'] == 4
  together = [masked[row, a:b].mean() for (row, a), (_, b) in zip(begin, end)]
  assert np.mean([share in (0, 1) for share in together]) > .9
  assert abs(masked.sum() / chosen.sum() - .8) < .01


@pytest.mark.parametrize('unit', masking.CHOOSERS)
def test_a_share_of_zero_leaves_the_text_as_it_is(unit):
  before, batch = make([60, 4, 33], 64, 1, Masking(unit=unit, share=0.), share=0.)
  assert np.array_equal(batch['input_ids'], before) and not batch['masked_lm_weights'].any()
  assert batch['masked_lm_ids'].shape == (3, 1)


def test_units_are_stateless_too():
  for unit in ('word', 'span'):
    _, whole = make([60] * 64, 64, 10, Masking(unit=unit))
    _, half = make([60] * 32, 64, 10, Masking(unit=unit), first=0)
    assert np.array_equal(whole['masked_lm_positions'][:32], half['masked_lm_positions'])


def test_the_share_follows_its_schedule():
  schedule = Masking(schedule=((0, .3), (100, .3), (200, .15)))
  shares = [masking.share_at(schedule, step) for step in (0, 100, 150, 200, 10**6)]
  assert shares == pytest.approx([.3, .3, .225, .15, .15])
  assert masking.share_at(Masking(share=.2), 7) == .2
  with pytest.raises(ValueError, match='masking.schedule'):
    Masking(schedule=((5, .1), (5, .2))).check()


def test_one_draw_decides_two_things_by_its_halves():
  bits = np.array([0xC000000040000000], np.uint64)
  assert (random.fraction(random.upper(bits)), random.fraction(random.lower(bits))) == (.75, .25)
  assert (random.below(bits, 10), random.below(random.lower(bits) << random.HALF, 10)) == (7, 2)


def test_words_are_taken_in_the_order_of_their_draws():
  bits = np.array([[0b101101, 0b000111, 0b011000, 0]], np.uint64) << np.uint64(58)  # the example of choose_words
  starts = np.array([[True, False, True, True]])  # two words, 0 1 and 2, then the end
  choice = choosing.choose_words(bits, np.array([3]), np.array([1]), starts, np.array([3]))
  assert choice.candidates[choice.used].tolist() == [2]
  assert choosing.word_of(starts).tolist() == [[0, 0, 2, 3]] and choosing.next_start(starts).tolist() == [[2, 2, 3, 4]]


def test_golden_masks():
  """The bits of NumPy's Philox are promised not to change; if this fails, old runs cannot be resumed."""
  assert random.bits(random.key(12345, 'masks', 0, 0), 5, 3).tolist() == GOLDEN_BITS
  _, batch = make([20, 33], 40, 6)
  assert batch['masked_lm_positions'].tolist() == GOLDEN_POSITIONS


GOLDEN_BITS = [11887296908972110342, 5096172391178263541, 3861603400109116056]
GOLDEN_POSITIONS = [[5, 7, 16, 0, 0, 0], [4, 10, 14, 20, 24, 0]]

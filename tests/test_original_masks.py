"""Static masks are the original's: one stream of random numbers gives its instances, in its order, over a whole corpus.

The functions of google-research/bert @ eedf571 stand here (Apache-2.0), less what is not asked for; its pairs are in
test_original_pairs.py.
"""

import dataclasses
import math
import random

import corpora
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from test_original_pairs import originals

from input_pipeline import records
from input_pipeline.batches import loader
from input_pipeline.batches.masking import STORED, Masking
from input_pipeline.prepare import corpus, original_masks
from input_pipeline.text.document import Options
from input_pipeline.vocabulary import tokenizer

CLS, SEP, MASK = tokenizer.CLS, tokenizer.SEP, tokenizer.MASK


def create_masked_lm_predictions(tokens, masked_lm_prob, max_predictions_per_seq, vocab_words, rng, whole_words):
  cand_indexes = []
  for i, token in enumerate(tokens):
    if token == CLS or token == SEP:
      continue
    if whole_words and len(cand_indexes) >= 1 and token.startswith('##'):
      cand_indexes[-1].append(i)
    else:
      cand_indexes.append([i])
  rng.shuffle(cand_indexes)
  output_tokens = list(tokens)
  num_to_predict = min(max_predictions_per_seq, max(1, int(round(len(tokens) * masked_lm_prob))))
  masked_lms = []
  for index_set in cand_indexes:
    if len(masked_lms) >= num_to_predict:
      break
    if len(masked_lms) + len(index_set) > num_to_predict:
      continue
    for index in index_set:
      if rng.random() < 0.8:
        masked_token = MASK
      else:
        masked_token = tokens[index] if rng.random() < 0.5 else vocab_words[rng.randint(0, len(vocab_words) - 1)]
      output_tokens[index] = masked_token
      masked_lms.append((index, tokens[index]))
  return output_tokens, sorted(masked_lms)


def create_training_instances(all_documents, vocab_words, max_seq_length, dupe_factor, short_seq_prob, masked_lm_prob,
                              max_predictions_per_seq, rng, whole_words):
  """`originals` draws pair after pair, so that masks would come too late: it takes what is drawn after each pair."""
  all_documents = list(all_documents)
  rng.shuffle(all_documents)
  instances = []

  def instance(tokens_a, tokens_b, is_random_next):
    tokens = [CLS, *tokens_a, SEP, *tokens_b, SEP]
    masked = create_masked_lm_predictions(tokens, masked_lm_prob, max_predictions_per_seq, vocab_words, rng,
                                          whole_words)
    return (tokens, *masked, len(tokens_a), is_random_next)

  for _ in range(dupe_factor):
    for document_index in range(len(all_documents)):
      instances.extend(originals(all_documents, document_index, max_seq_length - 3, short_seq_prob, rng, instance))
  rng.shuffle(instances)
  return instances


TOKENS = st.sampled_from(['a', 'b', '##c', '##d', 'word', '[UNK]'])


@settings(max_examples=300, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=60), st.lists(TOKENS, min_size=1, max_size=60), st.integers(1, 20),
       st.booleans(), st.integers(0, 2**32))
def test_2_2_masks_are_the_originals(a, b, most, whole_words, seed):
  """FIDELITY 2.2: counts, rounding, 80/10/10, any line of the vocabulary; words also across [SEP]."""
  vocab_words = [*tokenizer.SPECIAL, 'a', 'b', '##c', '##d', 'word']
  ours, theirs = random.Random(seed), random.Random(seed)
  output, masked = create_masked_lm_predictions([CLS, *a, SEP, *b, SEP], .15, most, vocab_words, theirs, whole_words)
  joins = [token.startswith('##') for token in vocab_words] if whole_words else None
  drawn = original_masks.draw(ours, [vocab_words.index(token) for token in [*a, *b]], joins, most,
                              vocab_words.index(MASK), len(vocab_words))
  place = lambda token: token + 1 + (token >= len(a))
  assert sorted(map(place, drawn)) == [index for index, _ in masked]
  assert all(vocab_words[shown] == output[place(token)] for token, shown in drawn.items())
  assert ours.getstate() == theirs.getstate()


def test_2_2_slots_are_the_readmes():
  assert [original_masks.most_of(length) for length in (128, 512)] == [20, 77]


@pytest.fixture(scope='module', params=[records.GOOGLE, records.GOOGLE_WORDS])
def made(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp('masks')
  texts = [corpora.text_of(i) for i in range(40)]
  (folder / 'corpus.txt').write_text('\n\n'.join(texts))
  (folder / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  settings_ = corpora.settings.Prepare(
      str(folder / 'corpus.txt'), str(folder / 'vocab.txt'), str(folder / 'data'), sequence_length=32, shards=3,
      validation_share=0.0, pairs='google', masks=request.param, rules=records.GOOGLE, dupe_factor=2, seed=12345,
      reading=Options(lines='sentences'))
  manifest = corpus.prepare(settings_, progress=False)
  words = tokenizer.load(folder, rules=records.GOOGLE)
  documents = [[[words.tokens[i] for i in ids] for ids in words.encode(text.split('\n'))] for text in texts]
  wanted = create_training_instances(documents, list(words.tokens), 32, 2, 0.1, 0.15, math.ceil(.15 * 32),
                                     random.Random(12345), request.param == records.GOOGLE_WORDS)
  return settings_, manifest, words, wanted


def test_2_1_and_2_2_shards_hold_the_originals_instances_in_its_order(made):
  settings_, manifest, words, wanted = made
  assert len(wanted) == manifest.splits['train'].pieces > 300
  found = iter(wanted)
  for block in corpora.blocks(settings_, manifest, 'train'):
    predicted = np.unpackbits(block.predicted, count=len(block.input_ids)).astype(bool)
    ends = np.cumsum(block.sentence_lengths)[1::2]
    for ids, shown, chosen, label, a_length in zip(
        np.split(block.input_ids, ends[:-1]), np.split(block.shown_ids, ends[:-1]), np.split(predicted, ends[:-1]),
        block.next_sentence_labels, block.sentence_lengths[::2], strict=True):
      tokens, output, masked, wanted_a, is_random = next(found)
      assert (a_length, label) == (wanted_a, is_random)
      laid = lambda ids, a=a_length: [CLS, *(words.tokens[i] for i in ids[:a]), SEP,
                                      *(words.tokens[i] for i in ids[a:]), SEP]
      assert (laid(ids), laid(shown)) == (tokens, output)
      places = np.flatnonzero(chosen)
      assert (places + 1 + (places >= a_length)).tolist() == [index for index, _ in masked]
  assert next(found, None) is None
  seen = {token for _, output, masked, *_ in wanted for index, _ in masked for token in [output[index]]}
  assert seen & {tokenizer.PAD, tokenizer.CLS, tokenizer.SEP}  # specials too are random words


def test_2_3_batches_are_the_originals_features(made):
  """Each instance once an epoch, as its TFRecord has it: unused slots are position 0, id 0, weight 0.0."""
  settings_, manifest, words, wanted = made
  slots = original_masks.most_of(32)
  config = loader.BatchConfig(size=16, sequence_length=32, predictions=slots, pairs='google',
                              masking=Masking(unit=STORED))
  stream = loader.open_split(settings_.output, 'train', config)
  rows = stream.rows(0, stream.rows_per_epoch)
  number = {token: i for i, token in enumerate(words.tokens)}
  padded = lambda values, size: tuple(values) + (0,) * (size - len(values))
  expected = sorted((
      padded([number[token] for token in output], 32), padded([0] * (a + 2) + [1] * (len(output) - a - 2), 32),
      padded([1] * len(output), 32), padded([index for index, _ in masked], slots),
      padded([number[token] for _, token in masked], slots), padded([1.0] * len(masked), slots), int(is_random))
      for _, output, masked, a, is_random in wanted)
  names = ('input_ids', 'token_type_ids', 'pair_ids', 'masked_lm_positions', 'masked_lm_ids', 'masked_lm_weights')
  found = sorted((*(tuple(rows[name][row].tolist()) for name in names), int(rows['next_sentence_labels'][row, 0]))
                 for row in range(len(wanted)))
  assert found == expected
  with pytest.raises(ValueError, match='masking.unit'):
    loader.open_split(settings_.output, 'train', dataclasses.replace(config, masking=Masking()))
  with pytest.raises(ValueError, match='batch.pairs'):
    dataclasses.replace(config, pairs='nsp').check()
  fewer = loader.open_split(settings_.output, 'train', dataclasses.replace(config, predictions=4))
  first, batch = stream.batch(0), fewer.batch(0)
  for row in range(16):  # what has no slot stays as it is in the text
    place = first['masked_lm_positions'][row, slots - 1]
    if first['masked_lm_weights'][row, slots - 1]:
      assert batch['input_ids'][row, place] == first['masked_lm_ids'][row, slots - 1]


@pytest.mark.parametrize('changes, match', [
    ({'pairs': 'dynamic', 'dupe_factor': 10}, '--masks has no effect: it needs --pairs google'),
    ({'words': 'jieba'}, '--words jieba'), ({'masks': 'x'}, '--masks x: wanted one of dynamic, google')])
def test_what_does_not_fit_is_refused(changes, match):
  fine = corpora.settings.Prepare('corpus.txt', 'vocab.txt', 'data', pairs='google', masks='google')
  with pytest.raises(records.DataError, match=match):
    dataclasses.replace(fine, **changes)

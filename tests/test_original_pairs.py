"""The static pairs are the original's: the same draws give the same pairs, by its own text, over a whole corpus."""

import dataclasses
import random

import corpora
import numpy as np
import pytest

from input_pipeline import records
from input_pipeline.prepare import corpus, original_pairs


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return corpora.make(tmp_path_factory.mktemp('corpus'))


def originals(all_documents, document_index, max_num_tokens, short_seq_prob, rng, instance=lambda *pair: pair):
  """google-research/bert @ eedf571, create_instances_from_document, less what makes tokens and masks of A and B
  (Apache-2.0)."""
  document = all_documents[document_index]
  target_seq_length = max_num_tokens
  if rng.random() < short_seq_prob:
    target_seq_length = rng.randint(2, max_num_tokens)
  instances, current_chunk, current_length, i = [], [], 0, 0
  while i < len(document):
    segment = document[i]
    current_chunk.append(segment)
    current_length += len(segment)
    if i == len(document) - 1 or current_length >= target_seq_length:
      if current_chunk:
        a_end = 1
        if len(current_chunk) >= 2:
          a_end = rng.randint(1, len(current_chunk) - 1)
        tokens_a = []
        for j in range(a_end):
          tokens_a.extend(current_chunk[j])
        tokens_b = []
        is_random_next = False
        if len(current_chunk) == 1 or rng.random() < 0.5:
          is_random_next = True
          target_b_length = target_seq_length - len(tokens_a)
          for _ in range(10):
            random_document_index = rng.randint(0, len(all_documents) - 1)
            if random_document_index != document_index:
              break
          random_document = all_documents[random_document_index]
          random_start = rng.randint(0, len(random_document) - 1)
          for j in range(random_start, len(random_document)):
            tokens_b.extend(random_document[j])
            if len(tokens_b) >= target_b_length:
              break
          num_unused_segments = len(current_chunk) - a_end
          i -= num_unused_segments
        else:
          for j in range(a_end, len(current_chunk)):
            tokens_b.extend(current_chunk[j])
        while len(tokens_a) + len(tokens_b) > max_num_tokens:
          trunc_tokens = tokens_a if len(tokens_a) > len(tokens_b) else tokens_b
          if rng.random() < 0.5:
            del trunc_tokens[0]
          else:
            trunc_tokens.pop()
        instances.append(instance(tokens_a, tokens_b, is_random_next))
      current_chunk, current_length = [], 0
    i += 1
  return instances


@pytest.mark.parametrize('short_share', [0.0, 0.1, 1.0])
def test_the_same_draws_give_the_originals_pairs(short_share):
  draw = random.Random(1)
  documents = [[[(d, s, t) for t in range(draw.randint(1, 40))] for s in range(draw.randint(1, 30))] for d in range(40)]
  flat = [[token for sentence in document for token in sentence] for document in documents]
  ours, theirs = random.Random(5), random.Random(5)
  for _ in range(5):
    for index in range(len(documents)):
      wanted = originals(documents, index, 125, short_share, theirs)
      pairs = list(original_pairs.pairs_of_document(
          ours, index, lambda i: [len(sentence) for sentence in documents[i]], len(documents), 125, short_share))
      assert [(flat[index][p.a_start:p.a_end], flat[p.b_document][p.b_start:p.b_end], p.is_random)
              for p in pairs] == wanted
  assert ours.getstate() == theirs.getstate()


def test_a_negative_is_never_of_the_same_document():
  for seed in range(200):
    pairs = original_pairs.pairs_of_document(random.Random(seed), 1, lambda i: [5, 6, 7], 2, 20, 0.1)
    assert all(pair.b_document == (0 if pair.is_random else 1) for pair in pairs)


def test_static_pairs_of_a_corpus(made, tmp_path):
  prepare, _ = made
  results = []
  for workers in (1, 2):
    static = dataclasses.replace(
        prepare, output=str(tmp_path / f'data{workers}'), pairs='google', dupe_factor=3, workers=workers)
    results.append(corpus.prepare(static, progress=False))
  manifest = results[0]
  assert results[1].splits == manifest.splits and manifest.pairs == 'google'
  assert records.read_manifest(static.output).pairs == 'google'
  for split in manifest.splits:
    labels = np.concatenate([block.next_sentence_labels for block in corpora.blocks(static, manifest, split)])
    found = list(corpora.all_pieces(static, manifest, split))
    assert all(len(piece) == 2 and min(map(len, piece)) >= 1 and sum(map(len, piece)) <= 29 for _, piece in found)
    assert set(labels.tolist()) == {0, 1}
    if split == 'train':
      # the original's: more than half, as a chunk of one sentence is always a negative
      assert 0.5 < labels.mean() < 0.9


def test_weights_are_refused(made):
  with pytest.raises(records.DataError, match='--pairs'):
    corpus.prepare(dataclasses.replace(made[0], input=f'{made[0].input}=2,', pairs='google'), progress=False)

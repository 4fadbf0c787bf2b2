"""The original's masks beside its pairs, made once, all by one stream of random numbers: create_pretraining_data.py.

From the same documents, vocabulary and seed its create_training_instances has the same instances in the same order.
"""

import math
import pathlib
import random
from collections.abc import Sequence

import numpy as np

from input_pipeline import records
from input_pipeline.prepare import original_pairs, pieces, spill
from input_pipeline.prepare.settings import Prepare
from input_pipeline.vocabulary.tokenizer import Tokenizer

SHARE = 0.15  # masked_lm_prob
_MASK, _KEEP = 0.8, 0.5  # of the predicted tokens are [MASK]; of the others stay as they are


def most_of(sequence_length: int) -> int:
  """max_predictions_per_seq: the README's 20 at 128 tokens and 77 at 512."""
  return math.ceil(SHARE * sequence_length)


def draw(rng: random.Random, ids: Sequence[int], joins: Sequence[bool] | None, most: int, mask_id: int,
         vocabulary_size: int) -> dict[int, int]:
  """{place in A and B: what stands there} of the tokens that are predicted: create_masked_lm_predictions.

  `ids` are those of A and B without special tokens. `joins` says which of the vocabulary's tokens are chosen together
  with what stands before, across [SEP] too; None: each token for itself.
  """
  words: list[list[int]] = []
  for place, token in enumerate(ids):
    if joins is not None and words and joins[token]:
      words[-1].append(place)
    else:
      words.append([place])
  rng.shuffle(words)
  wanted = min(most, max(1, round((len(ids) + pieces.SPECIAL_TOKENS) * SHARE)))
  shown: dict[int, int] = {}
  for word in words:
    if len(shown) + len(word) > wanted:
      continue  # draws nothing, and a shorter one may fit
    for place in word:
      if rng.random() < _MASK:
        shown[place] = mask_id
      elif rng.random() < _KEEP:
        shown[place] = ids[place]
      else:
        shown[place] = rng.randint(0, vocabulary_size - 1)  # any line of the vocabulary, [PAD] and [CLS] included
  return shown


def make_runs(paths: list[pathlib.Path], decisions: list[spill.Decisions], settings: Prepare, vocabulary: Tokenizer,
              directory: pathlib.Path) -> tuple[list[pathlib.Path], list[spill.Decisions]]:
  """As original_pairs.make_runs: a run of all pairs of each split, masked, whose order is that of its last shuffle.

  Raises DataError.
  """
  found, made = [], []
  for split, index in original_pairs.indices(paths, decisions, as_read=True).items():
    rng = random.Random(settings.seed)
    order = list(range(len(index)))
    rng.shuffle(order)
    corpus = original_pairs.Documents(paths, index[order])
    path = directory / f'{spill.SPLITS[split]}.run'
    _make_run(rng, corpus, settings, vocabulary, path)
    found.append(path)
    made.append(original_pairs.all_of(split, len(index)))
  return found, made


def _make_run(rng: random.Random, corpus: original_pairs.Documents, settings: Prepare, vocabulary: Tokenizer,
              path: pathlib.Path) -> None:
  most, slots = settings.sequence_length - pieces.SPECIAL_TOKENS, most_of(settings.sequence_length)
  joins = vocabulary.is_continuation.tolist() if settings.masks == records.GOOGLE_WORDS else None
  segments, pairs, documents, places, shown, at = [], [], [], [], [], 0
  for _ in range(settings.dupe_factor):
    for document in range(len(corpus)):
      for pair in original_pairs.pairs_of_document(rng, document, corpus.lengths, len(corpus), most,
                                                   settings.short_piece_share, own_document=True):
        own = corpus.segments(document, pair)
        ids = [*own[0]['input_ids'].tolist(), *own[1]['input_ids'].tolist()]
        drawn = draw(rng, ids, joins, slots, vocabulary.mask_id, len(vocabulary.tokens))
        places += [at + place for place in drawn]
        shown += drawn.values()
        at += len(ids)
        segments += own
        pairs.append(pair)
        documents.append(document)
  order = list(range(len(pairs)))
  rng.shuffle(order)
  keys = np.empty(len(pairs), '<u8')
  keys[order] = [(place << 64) // len(pairs) for place in range(len(pairs))]  # evenly, as shards are ranges of keys
  tokens = original_pairs.joined(segments)
  tokens |= {'predicted': np.zeros(at, bool), 'shown_ids': tokens['input_ids'].copy()}
  tokens['predicted'][places], tokens['shown_ids'][places] = True, shown
  original_pairs.write(path, corpus, range(len(corpus)), pairs, documents, keys, tokens)

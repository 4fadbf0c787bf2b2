"""Documents → pieces: runs of whole sentences of one document, at most what one row of a batch holds.

Letters: S sentences, T tokens, N pieces.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence

import numpy as np

from input_pipeline.text import formats, sentences, word_boundaries as words
from input_pipeline.vocabulary import tokenizer

SPECIAL_TOKENS = 3  # [CLS] A [SEP] B [SEP]
MIN_TOKENS = 2  # A and B need one each
_SPLITMIX = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def encode(documents: Sequence[formats.Document], vocabulary: tokenizer.Tokenizer, cut: 'Cut') -> list['Encoded']:
  """The tokens of each document. All in one go: NumPy and Arrow cost by the call."""
  texts = [sentences.split(document.text, cut.language) for document in documents]
  joined = list(itertools.chain.from_iterable(texts))
  ids, lengths = vocabulary.encode_flat(joined)
  starts = words.STARTS[cut.words](joined, vocabulary, ids, lengths)
  of_document = np.cumsum([len(own) for own in texts], dtype=np.int64)
  of_token = np.concatenate([[0], np.cumsum(lengths)])[of_document]
  own_starts = np.split(starts, of_token) if len(starts) else [starts] * len(documents)
  parts = zip(documents, np.split(ids, of_token), np.split(lengths, of_document), own_starts)
  return [Encoded(ids, lengths[lengths > 0], starts) for _, ids, lengths, starts in parts]


def of_document(document: formats.Document, encoded: 'Encoded', vocabulary: tokenizer.Tokenizer, cut: 'Cut', copy: int = 0) -> 'Pieces':
  """The pieces of a document. A pure function: chance comes from the hash of the seed, the document's id and its text."""
  ids, starts = encoded.input_ids, encoded.word_starts
  base = document_key(document, cut.seed, copy)
  most = cut.sequence_length - SPECIAL_TOKENS
  lengths = _fitting(ids, encoded.sentence_lengths.tolist(), most, vocabulary.is_continuation, starts)
  counts = group(lengths, most, target_length(base, most, cut.short_piece_share))
  lengths, counts = np.array(lengths, np.int64), np.array(counts, np.int64)
  sizes = np.bincount(np.repeat(np.arange(len(counts)), counts), lengths, len(counts))
  kept = sizes >= MIN_TOKENS
  if not kept.all():
    kept_sentences = np.repeat(kept, counts)
    kept_tokens = np.repeat(kept_sentences, lengths)
    ids, starts = ids[kept_tokens], starts[kept_tokens] if len(starts) else starts
    lengths, counts = lengths[kept_sentences], counts[kept]
  return Pieces(ids, lengths.astype(np.uint32), counts.astype(np.uint32), piece_keys(base, len(counts)), starts, int(sizes[~kept].sum()))


def join(many: list['Pieces']) -> 'Pieces':
  if len(many) == 1:
    return many[0]
  arrays = {name: np.concatenate([getattr(one, name) for one in many])
            for name in ('input_ids', 'sentence_lengths', 'piece_sentences', 'keys', 'word_starts')}
  return Pieces(dropped_tokens=sum(one.dropped_tokens for one in many), **arrays)


def copies(document: formats.Document, weight: float) -> int:
  """How often a document of a source with this weight is taken: 0.3 takes 3 of 10, 2.5 takes all twice and half of them thrice."""
  chance = int.from_bytes(hashlib.blake2b(b'weight ' + document.id.encode('utf-8', 'surrogatepass'), digest_size=8).digest(), 'little')
  return int(weight) + (chance < (weight - int(weight)) * 2**64)


def whole_document(document: formats.Document, encoded: 'Encoded', cut: 'Cut') -> 'Pieces':
  """A document as one piece, whatever its length: what static pairs are made of."""
  lengths = encoded.sentence_lengths.astype(np.uint32)
  count = int(len(lengths) > 0)
  key = np.full(count, document_key(document, cut.seed), np.uint64)
  return Pieces(encoded.input_ids, lengths, np.full(count, len(lengths), np.uint32), key, encoded.word_starts, 0)


def mixed(key: int, number: int) -> int:
  """Another 64 bits for each number."""
  return int(piece_keys(key, number + 1)[number])


def document_key(document: formats.Document, seed: int, copy: int = 0) -> int:
  """64 bits that differ from document to document, and do not depend on what else the corpus holds."""
  digest = hashlib.blake2b(digest_size=8, key=seed.to_bytes(8, 'little', signed=True), salt=copy.to_bytes(4, 'little'))
  for field in (document.id, document.text):
    digest.update(hashlib.blake2b(field.encode('utf-8', 'surrogatepass')).digest())
  return int.from_bytes(digest.digest(), 'little')


def target_length(base: int, most: int, short_share: float) -> int:
  """What the pieces of a document aim at: mostly the whole row, sometimes less, drawn once a document.

  create_pretraining_data.py, create_instances_from_document: short_seq_prob, randint(2, max_num_tokens).
  """
  chance, length = (int(x) for x in piece_keys(base ^ 0x5EED, 2))
  return 2 + length % (most - 1) if chance < short_share * 2**64 else most


def piece_keys(base: int, count: int) -> np.ndarray:  # -> [N] uint64
  """A document's keys for the shuffle: splitmix64 of its base and the number of the piece."""
  gamma, first, second = (np.uint64(x) for x in _SPLITMIX)
  x = np.uint64(base) + np.arange(1, count + 1, dtype=np.uint64) * gamma
  x = (x ^ (x >> np.uint64(30))) * first
  x = (x ^ (x >> np.uint64(27))) * second
  return x ^ (x >> np.uint64(31))


def group(lengths: list[int], most: int, target: int) -> list[int]:  # [S] -> [N]
  """The number of sentences of each piece, greedily.

  A piece ends before the sentence that would bring it above `target`; a sentence alone may be longer than that, up to `most`.
  One token alone joins a neighbour where it fits, and is else a piece that the caller drops.
  """
  counts, size, count, before = [], 0, 0, most
  for length in lengths:
    if count and size + length > (target if size >= MIN_TOKENS else most):
      counts.append(count)
      before, size, count = size, 0, 0
    size += length
    count += 1
  if count and size < MIN_TOKENS and before + size <= most and counts:
    counts[-1] += count
  elif count:
    counts.append(count)
  return counts


def _fitting(ids: np.ndarray, lengths: list[int], most: int, is_continuation: np.ndarray, word_starts: np.ndarray) -> list[int]:
  """Sentence lengths [S] after those that fit in no row are cut, between words where there are any."""
  if not lengths or max(lengths) <= most:
    return lengths
  fitting, at = [], 0
  for length in lengths:
    end = at + length
    while end - at > most:
      inside = slice(at + 1, at + most + 1)
      starts = np.flatnonzero(word_starts[inside] if len(word_starts) else ~is_continuation[ids[inside]])
      step = int(starts[-1]) + 1 if len(starts) else most
      fitting.append(step)
      at += step
    fitting.append(end - at)
    at = end
  return fitting


@dataclasses.dataclass(frozen=True)
class Cut:
  """How documents become pieces."""
  sequence_length: int
  language: str
  short_piece_share: float
  seed: int
  words: str = 'none'


@dataclasses.dataclass(frozen=True)
class Encoded:
  """The tokens of one document."""
  input_ids: np.ndarray  # [T] int32
  sentence_lengths: np.ndarray  # [S], none of them 0
  word_starts: np.ndarray  # [T] bool; empty where it is not asked for


@dataclasses.dataclass(frozen=True)
class Pieces:
  """The pieces of one document."""
  input_ids: np.ndarray  # [T] int32
  sentence_lengths: np.ndarray  # [S] uint32
  piece_sentences: np.ndarray  # [N] uint32
  keys: np.ndarray  # [N] uint64, the order of the shuffle
  word_starts: np.ndarray  # [T] bool; empty where it is not asked for
  dropped_tokens: int  # in sentences that were too short for a piece and fitted in no other

"""Documents → pieces: runs of whole sentences of one document, at most what one row of a batch holds.

Letters: S sentences, T tokens, N pieces.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from input_pipeline import records
from input_pipeline.prepare.columns import Pieces
from input_pipeline.text import document as document_lib, formats, sentences, word_boundaries
from input_pipeline.vocabulary import tokenizer

SPECIAL_TOKENS = 3  # [CLS] A [SEP] B [SEP]
MIN_TOKENS = 2  # A and B need one each
_SPLITMIX = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@dataclasses.dataclass(frozen=True)
class Rules:
  """How documents become pieces."""
  sequence_length: int
  language: str
  short_piece_share: float
  seed: int
  words: str = 'none'
  lines: str = 'auto'  # what a line of text is


@dataclasses.dataclass(frozen=True)
class Encoded:
  """The tokens of one document."""
  input_ids: np.ndarray  # [T] int32
  sentence_lengths: np.ndarray  # [S], none of them 0
  word_starts: np.ndarray | None  # [T] bool; None where it is not asked for


def encode(documents: Sequence[formats.Document], vocabulary: tokenizer.Tokenizer, rules: Rules) -> list[Encoded]:
  """The tokens of each document. All in one go: NumPy and Arrow cost by the call."""
  split = sentences.lines if rules.lines == 'sentences' else sentences.split
  texts = [split(document.text, rules.language) for document in documents]
  joined = list(itertools.chain.from_iterable(texts))
  ids, lengths = vocabulary.encode_flat(joined)
  of_document = np.cumsum([len(own) for own in texts], dtype=np.int64)
  of_token = np.concatenate([[0], np.cumsum(lengths)])[of_document]
  find = word_boundaries.STARTS[rules.words]
  starts = [None] * len(texts) if find is None else np.split(find(joined, vocabulary, ids, lengths), of_token)
  parts = zip(documents, np.split(ids, of_token), np.split(lengths, of_document), starts)
  return [Encoded(ids, lengths[lengths > 0], starts) for _, ids, lengths, starts in parts]


def of_document(document: formats.Document, encoded: Encoded, vocabulary: tokenizer.Tokenizer, rules: Rules,
                copy: int = 0) -> Pieces:
  """The pieces of a document. A pure function: chance comes from the hash of the seed, the document's id and its text.

  Tokens that are too few for a piece, and fit into no other, are dropped.
  """
  ids, starts = encoded.input_ids, encoded.word_starts
  base = document_key(document, rules.seed, copy)
  most = rules.sequence_length - SPECIAL_TOKENS
  lengths = _fitting(ids, encoded.sentence_lengths.tolist(), most, vocabulary.is_continuation, starts)
  counts = group(lengths, most, target_length(base, most, rules.short_piece_share))
  lengths, counts = np.array(lengths, np.int64), np.array(counts, np.int64)
  sizes = np.bincount(np.repeat(np.arange(len(counts)), counts), lengths, len(counts))
  kept = sizes >= MIN_TOKENS
  if not kept.all():
    kept_sentences = np.repeat(kept, counts)
    kept_tokens = np.repeat(kept_sentences, lengths)
    ids, starts = ids[kept_tokens], None if starts is None else starts[kept_tokens]
    lengths, counts, sizes = lengths[kept_sentences], counts[kept], sizes[kept]
  return _pieces(document, piece_keys(base, len(counts)), ids, lengths, counts, sizes, starts)


def undivided(document: formats.Document, encoded: Encoded, rules: Rules) -> Pieces:
  """A document as one piece, whatever its length: what static pairs are made of."""
  lengths = encoded.sentence_lengths
  count = int(len(lengths) > 0)
  keys = np.full(count, document_key(document, rules.seed), np.uint64)
  return _pieces(document, keys, encoded.input_ids, lengths, np.full(count, len(lengths)),
                 np.full(count, lengths.sum()), encoded.word_starts)


def _pieces(document: formats.Document, keys: np.ndarray, ids: np.ndarray, lengths: np.ndarray, counts: np.ndarray,
            sizes: np.ndarray, starts: np.ndarray | None) -> Pieces:  # -, [N], [T], [S], [N], [N], [T] -> -
  own = {'input_ids': ids, 'sentence_lengths': lengths.astype('<u4'), 'piece_sentences': counts.astype('<u4'),
         'document_ids': np.full(len(keys), records.document_number(document.id), '<i4'), 'word_starts': starts}
  return Pieces(keys, sizes.astype('<u4'), {name: values for name, values in own.items() if values is not None})


def mixed_key(key: int, number: int) -> int:
  """Another 64 bits for each number."""
  return int(piece_keys(key, number + 1)[number])


def document_key(document: formats.Document, seed: int, copy: int = 0) -> int:
  """64 bits that differ from document to document, and do not depend on what else the corpus holds."""
  return int.from_bytes(document_lib.digest(document, seed, copy), 'little')


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

  A piece ends before the sentence that would bring it above `target`; a single sentence may be longer than that, up to
  `most`. A single token joins a neighbour where it fits, and is else a piece that the caller drops.
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


def _fitting(ids: np.ndarray, lengths: list[int], most: int, is_continuation: np.ndarray,
             word_starts: np.ndarray | None) -> list[int]:
  """Sentence lengths [S] after those that fit in no row are cut, between words where there are any."""
  if not lengths or max(lengths) <= most:
    return lengths
  fitting, at = [], 0
  for length in lengths:
    end = at + length
    while end - at > most:
      inside = slice(at + 1, at + most + 1)
      starts = np.flatnonzero(~is_continuation[ids[inside]] if word_starts is None else word_starts[inside])
      step = int(starts[-1]) + 1 if len(starts) else most
      fitting.append(step)
      at += step
    fitting.append(end - at)
    at = end
  return fitting

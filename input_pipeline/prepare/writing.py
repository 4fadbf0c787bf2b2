"""Writes shards: blocks of pieces as TFRecords."""

import hashlib
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from input_pipeline import records
from input_pipeline.prepare import spill


def write_shard(path: pathlib.Path, parts: Iterable[spill.Selection], unknown_id: int,
                static: bool) -> tuple[records.Shard, dict[str, int]]:
  """Writes pieces, which come in parts, as one shard, with labels where they are `static` pairs.

  Gives the shard, and the counts that its split sums up.
  """
  counts = {'sentences': 0, 'unknown_tokens': 0}
  blocks = pieces = tokens = size = 0
  sha256 = hashlib.sha256()
  with path.open('wb') as file:
    for block in _blocks(parts, static):
      record = records.frame(records.encode_block(block))
      file.write(record)
      sha256.update(record)
      blocks += 1
      pieces += len(block.document_ids)
      tokens += len(block.input_ids)
      size += len(record)
      counts['sentences'] += len(block.sentence_lengths)
      counts['unknown_tokens'] += int(np.count_nonzero(block.input_ids == unknown_id))
  return records.Shard(path.name, blocks, pieces, tokens, size, sha256.hexdigest()), counts


def _blocks(parts: Iterable[spill.Selection], static: bool) -> Iterator[records.Block]:
  """Blocks of PIECES_PER_BLOCK pieces; only the last may be smaller."""
  size, rest = records.PIECES_PER_BLOCK, None
  for part in parts:
    pieces = part if rest is None else spill.concatenate([rest, part])
    whole = len(pieces.keys) // size * size
    yield from (_block(spill.cut(pieces, at, at + size), static) for at in range(0, whole, size))
    rest = spill.cut(pieces, whole, len(pieces.keys))
  if rest is not None and len(rest.keys):
    yield _block(rest, static)


def _block(pieces: spill.Selection, static: bool) -> records.Block:
  return records.Block(
      pieces.input_ids, pieces.sentence_lengths.astype('<u2'), pieces.piece_sentences.astype('<u2'), pieces.document_ids,
      pieces.labels.astype('<u2') if static else None, np.packbits(pieces.word_starts) if len(pieces.word_starts) else None)

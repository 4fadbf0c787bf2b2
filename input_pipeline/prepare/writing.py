"""Writes shards: blocks of pieces as TFRecords."""

import hashlib
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from input_pipeline import records
from input_pipeline.prepare import columns
from input_pipeline.prepare.columns import Pieces


def write_shard(path: pathlib.Path, parts: Iterable[Pieces], unknown_id: int) -> tuple[records.Shard, dict[str, int]]:
  """Writes pieces, which come in parts, as one shard. Gives the shard, and the counts that its split sums up."""
  counts = {'sentences': 0, 'unknown_tokens': 0}
  blocks = pieces = tokens = size = 0
  sha256 = hashlib.sha256()
  with path.open('wb') as file:
    for block in _blocks(parts):
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


def _blocks(parts: Iterable[Pieces]) -> Iterator[records.Block]:
  """Blocks of PIECES_PER_BLOCK pieces; only the last may be smaller."""
  size, rest = records.PIECES_PER_BLOCK, None
  for part in parts:
    pieces = part if rest is None else columns.join([rest, part])
    full = len(pieces.keys) // size * size
    yield from (columns.block_of(columns.cut(pieces, at, at + size)) for at in range(0, full, size))
    rest = columns.cut(pieces, full, len(pieces.keys))
  if rest is not None and len(rest.keys):
    yield columns.block_of(rest)

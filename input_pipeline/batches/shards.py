"""Opening a split: every shard is checked before step 1, its blocks are found, and any range of them is read.

A window is the blocks that are shuffled, paired and packed together: about 8,192 pieces.

Letters: K blocks of the split, W windows, N pieces, S sentences, T tokens, V vocabulary.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
import os
import zlib
from collections.abc import Sequence

import numpy as np

from input_pipeline import foreign, records, storage
from input_pipeline.batches.checks import require
from input_pipeline.records import Block, DataError, Manifest, Shard, Vocabulary

WINDOW_BLOCKS = 32
SPECIALS = 3  # [CLS] and two [SEP]: what `prepare` leaves room for
VERIFICATIONS = 'full', 'framing'  # every byte; sizes and framing only
READERS = 8  # shards that are verified at once, at most
HELD_BYTES = 256 << 20  # a split in a bucket that is no larger is read only once


@dataclasses.dataclass(frozen=True)
class Index:
  """Where the blocks of a split are, in shard order."""
  paths: tuple[storage.PathLike, ...]
  shard: np.ndarray  # [K] which of the paths
  start: np.ndarray  # [K] first byte of the payload
  bytes: np.ndarray  # [K]
  pieces: np.ndarray  # [K]
  tokens: np.ndarray  # [K]
  documents: np.ndarray  # [K 2] least and greatest document number
  crc: np.ndarray | None  # [K] CRC-32 of each payload when every byte was verified; None where that was not asked for
  dtype: np.dtype  # of the token ids
  held: tuple[memoryview, ...] = ()  # the contents of the shards, where they are kept in memory

  def read(self, shard: int, start: int, end: int) -> memoryview:
    return self.held[shard][start:end] if self.held else storage.read_span(self.paths[shard], start, end)

  @property
  def window_bounds(self) -> np.ndarray:  # -> [W + 1] first block of each window
    # A last window of less than half joins its neighbour.
    windows = max(1, (len(self.shard) + WINDOW_BLOCKS // 2) // WINDOW_BLOCKS)
    return np.append(np.arange(windows) * WINDOW_BLOCKS, len(self.shard))


@dataclasses.dataclass(frozen=True)
class StoredMasks:
  """The masks that `prepare` drew for the tokens of a window."""
  predicted: np.ndarray  # [T] bool
  shown_ids: np.ndarray  # [T] what stands in the place of each; its own id where it is not predicted


@dataclasses.dataclass(frozen=True)
class Window:
  """The pieces of consecutive blocks, joined."""
  tokens: np.ndarray  # [T] ids
  sentence_starts: np.ndarray  # [S + 1] int64, places in tokens
  piece_starts: np.ndarray  # [N + 1] int64, places in sentence_starts
  document_ids: np.ndarray  # [N]
  labels: np.ndarray | None  # [N] of google pairs
  word_starts: np.ndarray | None = None  # [T] bool, where the data has them
  masks: StoredMasks | None = None  # likewise

  @property
  def piece_lengths(self) -> np.ndarray:  # -> [N] tokens
    return np.diff(self.sentence_starts[self.piece_starts])


@dataclasses.dataclass(frozen=True)
class TokenKinds:
  """What each token of the vocabulary is."""
  vocabulary: Vocabulary
  continues: np.ndarray  # [V] bool: the token continues a word: '##…' of WordPiece, no '▁' of SentencePiece
  ordinary: np.ndarray  # [V - 5] int32: all but the special tokens


def open_index(directory: storage.PathLike, split: str, manifest: Manifest, verify: str = 'full',
               tables: Sequence[np.ndarray] | None = None) -> Index:
  """Checks the shards of a split against the manifest and indexes their blocks.

  verify='full' reads every byte (SHA-256, ids, lengths); 'framing' checks only sizes and framing. `tables`: what
  scan_shard gave of each shard, where others read it. Raises DataError.
  """
  directory = storage.path(directory)
  require(verify in VERIFICATIONS, f'verify is {verify!r}; wanted one of {", ".join(VERIFICATIONS)}')
  if split not in manifest.splits:
    raise DataError(f'{directory} has no split {split!r}; it has {sorted(manifest.splits)}: name one of them')
  shards = manifest.splits[split].shards
  check_names(directory, split, shards)
  fields = manifest.splits[split]
  sums = {name: sum(getattr(shard, name) for shard in shards) for name in ('pieces', 'tokens')}
  if sums != {'pieces': fields.pieces, 'tokens': fields.tokens}:
    raise DataError(f'the manifest of {directory} contradicts itself: its shards of {split} add up to {sums}, '
                    f'the split says {fields.pieces} pieces and {fields.tokens} tokens: run `bert-jax prepare` again')
  if not fields.pieces:
    raise DataError(f'split {split!r} of {directory} is empty: '
                    'prepare more text, or hold out a smaller or larger share of it')
  hold = tables is None and not storage.is_local(directory) and sum(shard.bytes for shard in shards) <= HELD_BYTES
  if tables is None:
    scan = functools.partial(scan_shard, manifest=manifest, verify=verify)
    with concurrent.futures.ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
      scanned = list(pool.map(scan, [directory / shard.file for shard in shards], shards, itertools.repeat(hold)))
  else:
    scanned = [(table, None) for table in tables]
  table = np.concatenate([blocks for blocks, _ in scanned])  # [K 7]
  shard_of = np.repeat(np.arange(len(shards)), [len(blocks) for blocks, _ in scanned])
  paths, dtype = tuple(directory / shard.file for shard in shards), records.id_dtype(manifest.vocabulary.size)
  crc = table[:, 6] if verify == 'full' else None
  return Index(paths, shard_of, *table[:, :4].T, table[:, 4:6], crc, dtype, tuple(data for _, data in scanned if hold))


def part_of(index: Index, first: int, last: int) -> Index:
  """Of blocks first … last - 1 only, for another process: it holds no content, and paths as texts."""
  used, own = np.unique(index.shard[first:last], return_inverse=True)
  cut = lambda values: values[first:last]
  return Index(tuple(str(index.paths[shard]) for shard in used), own.reshape(-1), cut(index.start), cut(index.bytes),
               cut(index.pieces), cut(index.tokens), cut(index.documents),
               None if index.crc is None else cut(index.crc), index.dtype)


def read_part(part: Index) -> Window:
  """What part_of is of."""
  found = dataclasses.replace(part, paths=tuple(map(storage.path, part.paths)))
  return read_window(found, 0, len(found.shard))


def check_names(directory: storage.Path, split: str, shards: tuple[Shard, ...]) -> None:
  """Every shard of the manifest is there under its own name, and no other."""
  wanted = [records.shard_name(split, i, len(shards)) for i in range(len(shards))]
  named = [shard.file for shard in shards]
  if named != wanted:
    raise DataError(f'the manifest of {directory} lists the shards {named[:3]} …; wanted {wanted[:3]} …: '
                    'run `bert-jax prepare` again')
  there = {path.name for path in directory.glob(f'{records.DATASET_NAME}-{split}.tfrecord*')}
  missing, extra = sorted(set(wanted) - there), sorted(there - set(wanted))
  if missing:
    raise DataError(f'{directory} lacks {len(missing)} of {len(wanted)} shards of {split}, as {missing[0]}: '
                    'copy them again')
  if extra:
    raise DataError(f'{directory} has {len(extra)} shards of {split} that its manifest does not know, as {extra[0]}: '
                    'remove them')


def scan_shard(path: storage.Path, shard: Shard, hold: bool, manifest: Manifest,
               verify: str) -> tuple[np.ndarray, memoryview | None]:
  # -> [blocks 7] start, bytes, pieces, tokens, least and greatest document number, CRC; and the content, to hold it
  data = storage.map_file(path)
  if len(data) != shard.bytes:
    raise DataError(f'{path} has {len(data)} bytes, the manifest says {shard.bytes}: it is truncated or was changed; '
                    'copy or prepare it again')
  parts = storage.chunks(path, 0, len(data)) if storage.is_local(path) else (data,)
  if verify == 'full' and storage.sha256(parts) != shard.sha256:
    raise DataError(f'{path} differs from what was written: its SHA-256 is not the manifest\'s; '
                    'copy or prepare it again')
  spans = records.frame_spans(data, str(path))
  if len(spans) != shard.records:
    raise DataError(f'{path} has {len(spans)} records, the manifest says {shard.records}; copy or prepare it again')
  table = np.zeros((len(spans), 7), np.int64)
  dtype = records.id_dtype(manifest.vocabulary.size)
  for entry, (start, length) in zip(table, spans):
    try:
      block = records.decode_block(data[start:start + length], dtype)
      check_block(block, manifest, verify)
    except DataError as error:
      raise DataError(f'{path}, record at byte {start}: {error}') from error
    least, greatest = block.document_ids.min(), block.document_ids.max()
    crc = zlib.crc32(data[start:start + length]) if verify == 'full' else 0
    entry[:] = start, length, len(block.piece_sentences), len(block.input_ids), least, greatest, crc
  if (found := tuple(table[:, 2:4].sum(0))) != (shard.pieces, shard.tokens):
    raise DataError(f'{path} holds {found[0]} pieces of {found[1]} tokens, the manifest says {shard.pieces} '
                    f'of {shard.tokens}')
  return table, data if hold else None


def check_block(block: Block, manifest: Manifest, verify: str) -> None:
  if not len(block.piece_sentences) or not block.piece_sentences.all() or not block.sentence_lengths.all():
    raise DataError('the block has no pieces, or an empty piece or sentence')
  if (manifest.pairs == 'google') != (block.next_sentence_labels is not None):
    raise DataError(f'the manifest says pairs={manifest.pairs!r}, the block says otherwise')
  if (manifest.words == 'none') != (block.word_starts is None):
    raise DataError(f'the manifest says words={manifest.words!r}, the block says otherwise')
  for name in ('predicted', 'shown_ids'):
    if (manifest.masks == records.DYNAMIC) != (getattr(block, name) is None):
      raise DataError(f'the manifest says masks={manifest.masks!r}, the block says otherwise')
  if verify != 'full':
    return
  room = manifest.sequence_length - SPECIALS
  sentences = np.cumsum(block.piece_sentences, dtype=np.int64)
  lengths = np.diff(np.cumsum(block.sentence_lengths, dtype=np.int64)[sentences - 1], prepend=0)
  if lengths.max() > room:
    raise DataError(f'a piece has {lengths.max()} tokens; at most {room} fit in rows of {manifest.sequence_length}')
  for ids in (block.input_ids, block.shown_ids):
    if ids is not None and (int(ids.max()) >= manifest.vocabulary.size or int(ids.min()) < 0):
      raise DataError(f'a token id is {ids.max()}, outside the vocabulary of {manifest.vocabulary.size}')
  vocabulary = manifest.vocabulary
  for name in ('pad', 'cls', 'sep', 'mask'):
    if (block.input_ids == getattr(vocabulary, f'{name}_id')).any():
      raise DataError(f'a piece holds the special token [{name.upper()}], which only the loader may place')
  labels = block.next_sentence_labels
  if labels is not None and ((block.piece_sentences != 2).any() or (labels > 1).any()):
    raise DataError('a google pair has not two segments, or a label that is neither 0 nor 1')


def read_window(index: Index, first: int, last: int) -> Window:
  """Blocks first … last - 1, by one sequential read of each shard that they lie in.

  Raises DataError where a block is not what it was when the split was verified.
  """
  blocks = []
  for shard in np.unique(index.shard[first:last]):
    inside = first + np.flatnonzero(index.shard[first:last] == shard)
    starts, ends = index.start[inside], index.start[inside] + index.bytes[inside]
    data = index.read(shard, int(starts[0]), int(ends[-1]))
    if len(data) != ends[-1] - starts[0]:
      raise DataError(f'{index.paths[shard]} became shorter while it was read: it must not change during a run')
    parts = [data[a - starts[0]:b - starts[0]] for a, b in zip(starts, ends)]
    for number, part in zip(inside, parts):
      if index.crc is not None and zlib.crc32(part) != index.crc[number]:
        raise DataError(f'{index.paths[shard]}, record at byte {index.start[number]}, is not what it was when the run '
                        'began: shards must not change during a run, and disk or memory may be at fault; copy it again')
    blocks += [records.decode_block(part, index.dtype) for part in parts]
  joined = lambda name: np.concatenate([getattr(block, name) for block in blocks])
  starts_of = lambda lengths: np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
  labels = None if blocks[0].next_sentence_labels is None else joined('next_sentence_labels')
  predicted = _bits(blocks, 'predicted')
  return Window(joined('input_ids'), starts_of(joined('sentence_lengths')), starts_of(joined('piece_sentences')),
                joined('document_ids'), labels, _bits(blocks, 'word_starts'),
                None if predicted is None else StoredMasks(predicted, joined('shown_ids')))


def _bits(blocks: list[Block], name: str) -> np.ndarray | None:  # -> [T] bool
  if getattr(blocks[0], name) is None:
    return None
  bits = [np.unpackbits(getattr(block, name), count=len(block.input_ids)) for block in blocks]
  return np.concatenate(bits).view(bool)


def read_token_kinds(directory: storage.PathLike, vocabulary: Vocabulary) -> TokenKinds:
  """What masks and cuts need of the vocabulary; a special token continues nothing. Raises DataError."""
  tokens = read_vocabulary(directory, vocabulary)
  special = [vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id]
  if vocabulary.kind == 'wordpiece':
    continues = np.array([token.startswith('##') and len(token) > 2 for token in tokens])
  else:
    continues = np.array([not token.startswith('▁') for token in tokens])
  continues[special] = False
  return TokenKinds(vocabulary, continues, np.delete(np.arange(vocabulary.size, dtype=np.int32), special))


def read_vocabulary(directory: storage.PathLike, vocabulary: Vocabulary) -> list[str]:
  path = storage.path(directory) / records.VOCABULARY
  foreign.check_kind(path)
  try:
    data = path.read_bytes()
  except FileNotFoundError as error:
    raise DataError(f'{path} is missing: copy it again, or run `bert-jax prepare` again') from error
  if hashlib.sha256(data).hexdigest() != vocabulary.sha256:
    raise DataError(f'{path} is not the vocabulary that the data was prepared with (its SHA-256 differs): '
                    'copy it again')
  tokens = data.decode().split('\n')
  tokens = tokens[:-1] if tokens[-1] == '' else tokens
  if len(tokens) != vocabulary.size:
    raise DataError(f'{path} has {len(tokens)} tokens, the manifest says {vocabulary.size}: '
                    'run `bert-jax prepare` again')
  return tokens

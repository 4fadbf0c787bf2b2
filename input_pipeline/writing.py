"""Writes shards: blocks of pieces as TFRecords, and TFDS's description of them. The only file here that needs TensorFlow."""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from input_pipeline import records, spill


def write_shard(path: pathlib.Path, parts: Iterable[spill.Selection], unknown_id: int,
                static: bool) -> tuple[records.Shard, dict[str, int]]:
  """Writes pieces, which come in parts, as one shard, with labels where they are `static` pairs.

  Gives the shard, and the counts that its split sums up.
  """
  tf = tensorflow()
  counts = {'sentences': 0, 'unknown_tokens': 0}
  blocks = pieces = tokens = 0
  with tf.io.TFRecordWriter(str(path)) as writer:
    for block in _blocks(parts, static):
      features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                  for name, value in records.block_features(block).items()}
      writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True))
      blocks += 1
      pieces += len(block.document_ids)
      tokens += len(block.input_ids)
      counts['sentences'] += len(block.sentence_lengths)
      counts['unknown_tokens'] += int(np.count_nonzero(block.input_ids == unknown_id))
  with path.open('rb') as file:
    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
  return records.Shard(path.name, blocks, pieces, tokens, path.stat().st_size, sha256), counts


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


def write_tfds_metadata(directory: pathlib.Path, splits: dict[str, records.Split], dtype: np.dtype, static: bool,
                        words: bool) -> None:
  """features.json and dataset_info.json, so that tfds.builder_from_directory(directory) reads the blocks."""
  tensorflow()
  import tensorflow_datasets as tfds
  kinds = {'input_ids': np.uint16 if dtype.itemsize == 2 else np.int32, 'sentence_lengths': np.uint16, 'piece_sentences': np.uint16,
           'document_ids': np.int32}
  kinds |= {'next_sentence_labels': np.uint16} if static else {}
  kinds |= {'word_starts': np.uint8} if words else {}
  features = tfds.features.FeaturesDict(
      {name: tfds.features.Tensor(shape=(None,), dtype=kind, encoding='bytes') for name, kind in kinds.items()})
  infos = []
  for name, split in splits.items():
    template = tfds.core.ShardedFileTemplate(
        data_dir=str(directory), dataset_name=records.DATASET_NAME, split=name, filetype_suffix='tfrecord')
    infos.append(tfds.core.SplitInfo(
        name=name, shard_lengths=[shard.records for shard in split.shards], num_bytes=sum(shard.bytes for shard in split.shards),
        filename_template=template))
  tfds.folder_dataset.write_metadata(
      data_dir=str(directory), features=features, split_infos=infos, check_data=False,
      description='Pieces of documents as BERT token ids, in blocks; made by `bert-jax prepare`.')


def tensorflow():
  """TensorFlow, silent and off the accelerators; takes seconds and 400 MB, so only where shards are written."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  try:
    import tensorflow as tf
  except ImportError as error:
    raise records.DataError(f"writing shards needs TensorFlow ({error}): pip install 'bert_jax[input]'") from error
  tf.config.set_visible_devices([], 'GPU')
  return tf

"""What we write is what TensorFlow and TFDS would write, byte for byte, and `prepare` needs neither."""

import dataclasses
import os
import subprocess
import sys

import corpora
import numpy as np
import pytest

import input_pipeline
from input_pipeline import records
from input_pipeline.prepare import tfds_layout

ALONE = '''
import sys
from input_pipeline.prepare import corpus, settings
corpus.prepare(settings.Prepare(sys.argv[1], sys.argv[2], sys.argv[3], validation_share=0.1, workers=2), progress=False)
assert not {'tensorflow', 'tensorflow_datasets', 'jax'} & set(sys.modules)
'''


def blocks():
  """Values of every length about which a protocol buffer's or the frame's own lengths get a byte more."""
  for tokens in (0, 1, 63, 64, 127, 128, 8191, 8192, 16384, 1 << 20):
    ids = np.random.default_rng(tokens).integers(0, 2**16, tokens).astype('<u2')
    lengths = np.ones(tokens % 1000, '<u2')
    block = records.Block(ids, lengths, lengths[:60], np.arange(60, dtype='<i4'))
    yield block
    yield dataclasses.replace(block, next_sentence_labels=lengths[:60], input_ids=ids.astype('<i4'))
    yield dataclasses.replace(block, word_starts=np.packbits(ids % 2 == 0))


def test_records_are_tensorflows(tmp_path):
  tf = pytest.importorskip('tensorflow')
  with tf.io.TFRecordWriter(str(tmp_path / 'theirs')) as writer:
    for block in blocks():
      features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                  for name, value in records.block_features(block).items()}
      writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True))
  (tmp_path / 'ours').write_bytes(b''.join(records.frame(records.encode_block(block)) for block in blocks()))
  assert (tmp_path / 'ours').read_bytes() == (tmp_path / 'theirs').read_bytes()
  read = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / 'ours'))]  # checks the checksums
  for record, block in zip(read, blocks(), strict=True):
    assert records.parse_example(record) == records.block_features(block)


@pytest.mark.parametrize('name', records.COLUMNS)
def test_a_column_of_a_wrong_length_is_found(name):
  """As is one that is missing, of those that all data has."""
  block = records.Block(
      np.arange(24, dtype='<u2'), np.full(6, 4, '<u2'), np.full(3, 2, '<u2'), np.arange(3, dtype='<i4'),
      np.zeros(3, '<u2'), np.packbits(np.ones(24, bool)), np.packbits(np.ones(24, bool)), np.arange(24, dtype='<u2'))
  decode = lambda block: records.decode_block(records.encode_block(block), np.dtype('<u2'))
  assert records.block_features(decode(block)) == records.block_features(block)
  values = getattr(block, name)
  for wrong in (values[:-1], np.append(values, values[:1])):
    with pytest.raises(records.DataError, match='contradicts itself'):
      decode(dataclasses.replace(block, **{name: wrong}))
  without = dataclasses.replace(block, **{name: None})
  if records.COLUMNS[name].when is None:
    with pytest.raises(records.DataError, match='not a block of pieces'):
      decode(without)
  else:
    assert getattr(decode(without), name) is None


@pytest.mark.parametrize('dtype, static, words', [('<u2', False, False), ('<i4', True, False), ('<u2', False, True)])
def test_the_description_is_tfdss(tmp_path, dtype, static, words):
  tfds = pytest.importorskip('tensorflow_datasets')
  shard = records.Shard('', 3, 700, 9000, 12345, '')
  splits = {'train': records.Split(9, 1400, 0, 18000, 0, (shard, dataclasses.replace(shard, records=4))),
            'validation': records.Split(1, 700, 0, 9000, 0, (shard,))}
  theirs, ours = tmp_path / 'theirs', tmp_path / 'ours'
  for folder in (theirs, ours):
    folder.mkdir()
    for name in [records.shard_name('train', i, 2) for i in range(2)] + [records.shard_name('validation', 0, 1)]:
      (folder / name).touch()  # TFDS looks for them
  kinds = {'input_ids': np.uint16 if dtype == '<u2' else np.int32, 'sentence_lengths': np.uint16,
           'piece_sentences': np.uint16, 'document_ids': np.int32}
  if static:
    kinds |= {'next_sentence_labels': np.uint16, 'predicted': np.uint8, 'shown_ids': kinds['input_ids']}
  kinds |= {'word_starts': np.uint8} if words else {}
  infos = [tfds.core.SplitInfo(
      name=name, shard_lengths=[shard.records for shard in split.shards],
      num_bytes=sum(shard.bytes for shard in split.shards), filename_template=tfds.core.ShardedFileTemplate(
          data_dir=str(theirs), dataset_name=records.DATASET_NAME, split=name, filetype_suffix='tfrecord'))
           for name, split in splits.items()]
  tfds.folder_dataset.write_metadata(
      data_dir=str(theirs), split_infos=infos, check_data=False, description=tfds_layout.DESCRIPTION,
      features=tfds.features.FeaturesDict(
          {name: tfds.features.Tensor(shape=(None,), dtype=kind, encoding='bytes') for name, kind in kinds.items()}))
  vocabulary = records.Vocabulary('wordpiece', 2**16 if dtype == '<u2' else 2**16 + 1, '', True, 0, 1, 2, 3, 4)
  tfds_layout.write(ours, records.Manifest(
      128, 'google' if static else 'dynamic', vocabulary, splits, {}, {}, {}, words='jieba' if words else 'none',
      masks='google' if static else 'dynamic'))
  assert {path.name: path.read_text() for path in ours.iterdir()} == {path.name: path.read_text()
      for path in theirs.iterdir()}


def test_prepare_needs_neither(tmp_path):
  (tmp_path / 'corpus.txt').write_text('\n\n'.join(map(corpora.text_of, range(20))))
  (tmp_path / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  done = subprocess.run([sys.executable, '-c', ALONE,
                         *(tmp_path / name for name in ('corpus.txt', 'vocab.txt', 'data'))],
                        env=os.environ | {'PYTHONPATH': os.path.dirname(input_pipeline.__path__[0])},
                        capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr[-2000:]
  assert records.read_manifest(tmp_path / 'data').splits['train'].pieces

"""The two files beside the shards by which `tfds.builder_from_directory` reads them, as `tfds.folder_dataset.write_metadata` writes them.

Written here, as importing tensorflow-datasets for them costs seconds and brings TensorFlow along.
"""

import json
import pathlib

import numpy as np

from input_pipeline import records

_FEATURES = 'tensorflow_datasets.core.features'
DESCRIPTION = 'Pieces of documents as BERT token ids, in blocks; made by `bert-jax prepare`.'


def write(directory: pathlib.Path, splits: dict[str, records.Split], dtype: np.dtype, static: bool, words: bool) -> None:
  """features.json and dataset_info.json of shards whose ids have this dtype, with the labels of `static` pairs, with `words`' starts."""
  kinds = {'document_ids': 'int32', 'input_ids': np.dtype(dtype).name, 'piece_sentences': 'uint16', 'sentence_lengths': 'uint16'}
  kinds |= {'next_sentence_labels': 'uint16'} if static else {}
  kinds |= {'word_starts': 'uint8'} if words else {}
  features = {
      name: {'pythonClassName': f'{_FEATURES}.tensor_feature.Tensor',
             'tensor': {'shape': {'dimensions': ['-1']}, 'dtype': kind, 'encoding': 'bytes'}} for name, kind in kinds.items()}
  described = {'pythonClassName': f'{_FEATURES}.features_dict.FeaturesDict', 'featuresDict': {'features': features}}
  (directory / 'features.json').write_text(json.dumps(described, indent=4, sort_keys=True))
  info = {
      'name': records.DATASET_NAME, 'version': '1.0.0', 'fileFormat': 'tfrecord', 'description': DESCRIPTION,
      'splits': [{
          'name': name, 'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
          'shardLengths': [str(shard.records) for shard in split.shards],
          'numBytes': str(sum(shard.bytes for shard in split.shards))} for name, split in splits.items()]}
  (directory / 'dataset_info.json').write_text(json.dumps(info, indent=2, sort_keys=True))

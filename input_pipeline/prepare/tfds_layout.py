"""The two files beside the shards by which `tfds.builder_from_directory` reads them.

They are as `tfds.folder_dataset.write_metadata` writes them. Written here, as importing tensorflow-datasets for them
costs seconds and brings TensorFlow along.
"""

import json
import pathlib

import numpy as np

from input_pipeline import records

FILES = _FEATURES_FILE, _INFO_FILE = 'features.json', 'dataset_info.json'
_FEATURES = 'tensorflow_datasets.core.features'
DESCRIPTION = 'Pieces of documents as BERT token ids, in blocks; made by `bert-jax prepare`.'


def write(directory: pathlib.Path, manifest: records.Manifest) -> None:
  """features.json and dataset_info.json of the shards that the manifest describes."""
  ids = records.id_dtype(manifest.vocabulary.size)
  kinds = {name: np.dtype(column.dtype or ids).name for name, column in sorted(records.columns_of(manifest).items())}
  features = {
      name: {'pythonClassName': f'{_FEATURES}.tensor_feature.Tensor',
             'tensor': {'shape': {'dimensions': ['-1']}, 'dtype': kind, 'encoding': 'bytes'}}
             for name, kind in kinds.items()}
  described = {'pythonClassName': f'{_FEATURES}.features_dict.FeaturesDict', 'featuresDict': {'features': features}}
  (directory / _FEATURES_FILE).write_text(json.dumps(described, indent=4, sort_keys=True))
  info = {
      'name': records.DATASET_NAME, 'version': '1.0.0', 'fileFormat': 'tfrecord', 'description': DESCRIPTION,
      'splits': [{
          'name': name, 'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
          'shardLengths': [str(shard.records) for shard in split.shards],
          'numBytes': str(sum(shard.bytes for shard in split.shards))} for name, split in manifest.splits.items()]}
  (directory / _INFO_FILE).write_text(json.dumps(info, indent=2, sort_keys=True))

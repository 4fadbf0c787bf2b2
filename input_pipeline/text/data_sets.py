"""Data sets of TensorFlow Datasets as sources of text."""

import dataclasses
import json
from collections.abc import Iterator

from input_pipeline import records, storage
from input_pipeline.text import files, formats
from input_pipeline.text.source import Parsed, Source, Stamp


def named(name: str, format: str | None) -> list[Source]:
  """`tfds:wikipedia/20230601.en`, `tfds:DIRECTORY`, either with `:SPLIT` after it."""
  return [DataSet(name)]


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A data set of TFDS that has a feature named text; its examples travel as JSON lines."""
  name: str

  def stamp(self) -> Stamp:
    return Stamp(self.name)  # its name has a version, and opening it would import TensorFlow

  def chunks(self, chunk_bytes: int) -> Iterator[files.RawDocuments]:
    raw, size = [], 0
    for number, example in enumerate(self._examples()):
      fields = {key: value.decode() if isinstance(value, bytes) else str(value)
                for key, value in example.items() if key in ('id', 'title', 'text')}
      raw.append((number, json.dumps(fields).encode()))
      size += len(raw[-1][1])
      if size > chunk_bytes:
        yield files.RawDocuments(formats.parse_jsonl, (), tuple(raw))
        raw, size = [], 0
    if raw:
      yield files.RawDocuments(formats.parse_jsonl, (), tuple(raw))

  def documents(self, content: files.RawDocuments) -> Parsed:
    return files.parse_raw(self.name, content)

  def _examples(self) -> Iterator[dict]:
    import tensorflow_datasets as tfds
    name, _, split = self.name.removeprefix('tfds:').partition(':')
    try:
      builder = tfds.builder_from_directory(name) if storage.path(name).exists() else tfds.builder(name)
      if not storage.path(builder.data_dir).exists():
        builder.download_and_prepare()
      examples = tfds.as_numpy(builder.as_dataset(
          split=split or 'train', read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)))
    except Exception as error:  # TFDS raises many kinds
      raise records.DataError(f'--input {self.name}: {" ".join(str(error).split())[:300]}') from error
    if 'text' not in builder.info.features:
      raise records.DataError(
          f'--input {self.name} has the features {", ".join(builder.info.features)}: wanted one named text')
    return examples

"""Data sets of TensorFlow Datasets as sources of text: what their names mean, which data it is, and its examples."""

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from input_pipeline import storage
from input_pipeline.errors import DataError, StorageError
from input_pipeline.text import files, formats, json_files
from input_pipeline.text.source import Parsed, Source, Stamp

WANTED = 'wanted tfds:NAME, tfds:NAME/CONFIG:1.0.0 or tfds:FOLDER, and perhaps :SPLIT after it'
_INFO = 'dataset_info.json'  # a folder that holds it is a data set
_NAME = re.compile(r'(?P<builder>[a-zA-Z]\w*(?:/[\w+.-]+)?(?::(?:\d+|\*)(?:\.(?:\d+|\*)){2})?)(?::(?P<split>.+))?')
_PATH = re.compile(r'[./~]|\w+://')
# wiki40b: _START_ARTICLE_, a line with the title, _START_SECTION_, a line with a heading, _START_PARAGRAPH_, text.
_MARKER = re.compile(r'\s*_START_(ARTICLE|SECTION|PARAGRAPH)_[^\S\n]*(?:\n|$)')
_NEWLINE = '_NEWLINE_'
_NOISE = re.compile(r'\{\{.*?\}\}|\[Op:\w+\]( name: *)?')  # what TensorFlow says of its own operations


def named(name: str, format: str | None, options: formats.Options) -> list[Source]:
  """`tfds:wikipedia/20230601.en:1.0.0`, `tfds:FOLDER`, either with `:SPLIT` after it. Raises DataError."""
  return [DataSet(name, options)]


@dataclasses.dataclass(frozen=True)
class Reference:
  """What a name means: a data set by its TFDS name or by its folder, and a split of it."""
  builder: str | None  # name[/config][:version]
  folder: str | None  # local or gs://; one of the two is None
  split: str


def reference(name: str) -> Reference:
  """What is named. A path is one that looks so (it begins with /, . or ~, or is a URL), or a folder with a data set in
  it. Raises DataError."""
  text = name.removeprefix('tfds:')
  head, slash, last = text.rpartition('/')
  stem, _, split = last.partition(':')  # the split of a folder: a slice, `train[:10%]`, has a colon too
  folder = head + slash + stem
  for candidate, its_split in ((text, ''), (folder, split)):
    if '://' not in candidate and _is_data_set(candidate):
      return Reference(None, str(storage.path(candidate).expanduser()), its_split or 'train')
  if _PATH.match(text):
    if not _is_data_set(folder):
      raise DataError(f'--input {name}: {folder} holds no data set, no {_INFO}: '
                      'wanted the folder of a version, as in NAME/CONFIG/1.0.0')
    return Reference(None, str(storage.path(folder).expanduser()), split or 'train')
  match = _NAME.fullmatch(text)
  if not match:
    raise DataError(f'--input {name}: {WANTED}')
  return Reference(match['builder'], None, match['split'] or 'train')


def _is_data_set(folder: str) -> bool:
  return bool(folder) and (storage.path(folder).expanduser() / _INFO).exists()


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A data set of TFDS that has a text among its features; its examples travel as JSON lines."""
  name: str
  options: formats.Options = formats.USUAL
  at: str = ''  # the name that says where it is, if `name` does not everywhere

  def absolute(self) -> 'DataSet':
    """The same data set for a process with another working directory."""
    found = reference(self.at or self.name)
    if found.folder is None:
      return self
    return dataclasses.replace(self, at=f'tfds:{storage.absolute(found.folder)}:{found.split}')

  def stamp(self) -> Stamp:
    """Its identity is where it lies; its content, what of it changes with other data: no name or version tells that."""
    builder, split = self._opened()
    info = builder.info.splits[split]
    with named_errors(f'--input {self.name}'):
      shards = [storage.path(str(shard)) for shard in dict.fromkeys(info.filepaths)]
      sizes = storage.beside_each_other(storage.size, shards)
    described = [builder.info.full_name, split, [int(length) for length in info.shard_lengths], info.num_examples,
                 [[shard.name, size] for shard, size in zip(shards, sizes)]]
    content = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
    return Stamp(f'tfds:{builder.data_dir}:{split}', sum(sizes), content=f'{content} {builder.info.full_name}')

  def chunks(self, chunk_bytes: int) -> Iterator[files.RawDocuments]:
    raw, size = [], 0
    for number, example in enumerate(self._examples()):
      raw.append((number, json.dumps(self._fields(number, example)).encode()))
      size += len(raw[-1][1])
      if size > chunk_bytes:
        yield files.RawDocuments(json_files.parse, (), tuple(raw), self.options, 'example')
        raw, size = [], 0
    if raw:
      yield files.RawDocuments(json_files.parse, (), tuple(raw), self.options, 'example')

  def documents(self, content: files.RawDocuments) -> Parsed:
    return files.parse_raw(self.name, content)

  def _opened(self) -> tuple[Any, str]:
    """(TFDS's builder, split) of a data set that has a text and that split; it is downloaded where it is not here."""
    wanted = reference(self.at or self.name)
    builder = opened(wanted, f'--input {self.name}')
    with named_errors(f'--input {self.name}'):
      builder.info.splits[wanted.split]  # refuses one that is not there
    features = builder.info.features
    names = {'text': self.options.text_field, 'id': self.options.id_field, 'title': self.options.title_field}
    for flag, name in names.items():
      if name is not None and name not in features:
        raise DataError(f'--input {self.name} has the features {", ".join(features)}: '
                        f'wanted one named {name}, or --{flag}-field')
    text = features[self.options.text_field]
    if not _is_text(text):
      raise DataError(f'--input {self.name}: its feature {self.options.text_field} is '
                      f'{" ".join(repr(text).split())[:200]}: wanted a text, or a sequence of texts')
    return builder, wanted.split

  def _examples(self) -> Iterator[dict[str, Any]]:
    yield from examples(*self._opened(), f'--input {self.name}')

  def _fields(self, number: int, example: dict[str, Any]) -> dict[str, str]:
    """The id, the title and the text of an example; a sequence of texts is the lines of one document."""
    text = example[self.options.text_field]
    parts = [text] if isinstance(text, bytes) else list(text)
    title, prose = without_markers('\n'.join(self._decoded(number, part) for part in parts))
    names = {'id': self.options.id_field or 'id', 'title': self.options.title_field or 'title'}
    found = {names['title']: title} if title else {}
    for key in names.values():
      value = example.get(key)
      if isinstance(value, bytes):
        found[key] = self._decoded(number, value)
      elif value is not None and not getattr(value, 'shape', ()):
        found[key] = str(value)
    return found | {self.options.text_field: prose}

  def _decoded(self, number: int, value: bytes) -> str:
    return decoded(value, f'--input {self.name}', number)


def opened(wanted: Reference, what: str) -> Any:
  """TFDS's builder of a data set, which is downloaded where it is not here. `what`: the flag with its value, as errors
  name it. Raises DataError."""
  import tensorflow_datasets as tfds
  with named_errors(what):
    builder = tfds.builder_from_directory(wanted.folder) if wanted.folder else tfds.builder(wanted.builder)
    if not storage.path(str(builder.data_dir)).exists():
      builder.download_and_prepare()
    return builder


def examples(builder: Any, split: str, what: str) -> Iterator[dict[str, Any]]:
  """The examples of a split in their order: {feature: bytes, number, array …}. Raises DataError."""
  import tensorflow_datasets as tfds
  with named_errors(what):
    yield from tfds.as_numpy(builder.as_dataset(
        split=split, read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)))


@contextlib.contextmanager
def named_errors(what: str) -> Iterator[None]:
  """TFDS and TensorFlow raise many kinds: each becomes a sentence, but for a package that is not installed."""
  try:
    yield
  except (ModuleNotFoundError, DataError, StorageError):
    raise
  except Exception as error:
    said = ' '.join(_NOISE.sub('', str(error)).split())[:300]
    if type(error).__name__ == 'DataLossError':
      said = f'a file of it is truncated or damaged ({said}); make or download it again'
    raise DataError(f'{what}: {said}') from error


def decoded(value: bytes, what: str, number: int) -> str:
  """A text of an example. Raises DataError."""
  try:
    return value.decode()
  except UnicodeDecodeError as error:
    raise DataError(f'{what} is not UTF-8: byte 0x{value[error.start]:02x} at byte {error.start} '
                    f'of a text of example {number} (counted from 0); wanted UTF-8 text') from error


def _is_text(feature: Any) -> bool:
  """Whether a feature is a string or a list of strings; dictionaries and lists of lists have no such shape."""
  dtype, shape = feature.np_dtype, feature.shape
  return not isinstance(dtype, dict) and len(shape) <= 1 and np.dtype(dtype).kind in 'OSU'


def without_markers(text: str) -> tuple[str, str]:
  """(title, prose) of an article of wiki40b, a paragraph a line, headings dropped as in a dump; ('', text) of any
  other."""
  if not text.lstrip().startswith('_START_ARTICLE_'):
    return '', text
  _, *parts = _MARKER.split(text)
  titles, paragraphs = [], []
  for kind, content in zip(parts[::2], parts[1::2]):
    if kind == 'PARAGRAPH':
      paragraphs += [line.strip() for line in content.replace(_NEWLINE, '\n').split('\n') if line.strip()]
    elif kind == 'ARTICLE':
      titles.append(content.strip())
  return titles[0] if titles else '', '\n'.join(paragraphs)

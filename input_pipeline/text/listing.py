"""Which files a name of `--input` means: a path, a glob, a folder with all in it, standard input, the sample."""

import importlib.util
import json

from input_pipeline import input_files, records, storage
from input_pipeline.text import formats
from input_pipeline.text.files import File
from input_pipeline.text.source import Source

STANDARD_INPUT = input_files.STANDARD_INPUT
_SAMPLE_FILE = 'test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2'
_WILD = frozenset('*?[')
_SAVED = 'state.json'  # what `datasets.save_to_disk` writes beside the files that it names
_DESCRIBED = {'dataset_info.json', 'dataset_dict.json', _SAVED}
_OF_TFDS = {'dataset_info.json', 'features.json'}


def named(name: str, format: str | None, options: formats.Options) -> list[Source]:
  """The files of a path, a folder or a glob, local or in a bucket. Raises DataError."""
  path = storage.path(name).expanduser()
  kind = input_files.kind(path)
  if kind == 'missing' and _WILD.intersection(name) and not name.startswith(('http://', 'https://')):
    return [File(str(found), format, options) for found in _glob(name)]
  if kind == 'missing':
    raise records.DataError(f'--input {name}: there is no such file')
  if kind == 'folder':
    files = _in_folder(path)
    if not files:
      raise records.DataError(f'--input {name}: no file with anything in it is in this folder, but for hidden ones')
    return [File(str(found), format, options) for found in files]
  return [File(str(path), format, options, once=kind == 'stream')]


def _glob(name: str) -> list[storage.Path]:
  found = []
  for path in input_files.matches(name):
    kind = input_files.kind(path)
    if kind == 'missing':
      raise records.DataError(f'--input {name}: {path} is a link to something that is not there')
    found += _in_folder(path) if kind == 'folder' else [path]
  if not found:
    raise records.DataError(f'--input {name}: no file matches this glob')
  return list(dict.fromkeys(found))


def _in_folder(folder: storage.Path) -> list[storage.Path]:
  """All files below a folder, in order; of what `datasets` saved, those that it names. Raises DataError."""
  files = input_files.walk(folder)
  beside: dict[storage.Path, set[str]] = {}
  for file in files:
    beside.setdefault(file.parent, set()).add(file.name)
  for parent, names in beside.items():
    if names >= _OF_TFDS and _SAVED not in names:
      raise records.DataError(f'{parent} is a data set of TensorFlow Datasets: name it as --input tfds:{parent}')
  saved = {parent: _saved(parent / _SAVED) for parent, names in beside.items()
           if names >= {_SAVED, 'dataset_info.json'}}
  if not saved:
    return files
  return [file for file in files if file.name in saved.get(file.parent, beside[file.parent] - _DESCRIBED)]


def _saved(state: storage.Path) -> set[str]:
  try:
    return {str(file['filename']) for file in json.loads(state.read_text())['_data_files']}
  except (ValueError, KeyError, TypeError) as error:
    raise records.DataError(f'{state} does not name the files of the data set as `datasets` does') from error


def standard_input(name: str, format: str | None, options: formats.Options) -> list[Source]:
  return [File(STANDARD_INPUT, format, options, once=True)]


def sample(name: str, format: str | None, options: formats.Options) -> list[Source]:
  """`sample`: a slice of a Wikipedia dump. Raises DataError."""
  spec = importlib.util.find_spec('gensim')  # found, not imported: importing gensim takes seconds
  path = storage.path(spec.origin).parent / _SAMPLE_FILE if spec and spec.origin else None
  if path is None or not path.exists():
    raise records.DataError(
        "--input sample is the slice of a Wikipedia dump in gensim's wheel, which is not installed here: "
        "pip install 'bert_jax[sample]'")
  return [File(str(path), format, options)]

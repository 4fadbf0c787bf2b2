"""The same documents in every format that is read, for the tests of formats."""

import bz2
import csv
import gzip
import json
import lzma
import pathlib
from collections.abc import Callable

Records = list[dict[str, str]]


def lines(documents: Records) -> bytes:
  return b''.join(json.dumps(document).encode() + b'\n' for document in documents)


def table(documents: Records, path: pathlib.Path, delimiter: str = ',', quoting: int = csv.QUOTE_ALL) -> None:
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, ['id', 'title', 'text'], delimiter=delimiter, quoting=quoting)
    writer.writeheader()
    writer.writerows(documents)


def arrow(documents: Records, path: pathlib.Path, kind: str) -> None:
  import pyarrow
  made = pyarrow.table({name: pyarrow.array([document[name] for document in documents], pyarrow.string())
                        for name in ('id', 'title', 'text')})
  with pyarrow.OSFile(str(path), 'wb') as file, getattr(pyarrow.ipc, kind)(file, made.schema) as writer:
    writer.write_table(made, max_chunksize=7)


def parquet(documents: Records, path: pathlib.Path) -> None:
  import pyarrow
  import pyarrow.parquet
  schema = pyarrow.schema([(name, pyarrow.string()) for name in ('id', 'title', 'text')])
  made = pyarrow.Table.from_pylist(documents, schema)
  pyarrow.parquet.write_table(made, path, row_group_size=5)


def saved(documents: Records, path: pathlib.Path) -> None:
  """As `datasets.save_to_disk` writes it."""
  path.mkdir()
  half = len(documents) // 2
  names = ['data-00000-of-00002.arrow', 'data-00001-of-00002.arrow']
  arrow(documents[:half], path / names[0], 'new_stream')
  arrow(documents[half:], path / names[1], 'new_stream')
  (path / 'cache-1.arrow').write_bytes(b'left over')
  (path / 'state.json').write_text(json.dumps({'_data_files': [{'filename': name} for name in names]}))
  (path / 'dataset_info.json').write_text('{}')


def folder(documents: Records, path: pathlib.Path) -> None:
  (path / 'b' / '.hidden').mkdir(parents=True)
  half = len(documents) // 2
  (path / 'a.jsonl').write_bytes(lines(documents[:half]))
  (path / 'b' / 'c').write_bytes(gzip.compress(lines(documents[half:])))
  (path / '.hidden').write_text('{"text": "Not this."}\n')
  (path / 'b' / '.hidden' / 'd.jsonl').write_text('{"text": "Nor this."}\n')
  (path / 'empty.csv').touch()


def cirrus(documents: Records, path: pathlib.Path) -> None:
  path.write_bytes(b''.join(
      json.dumps(part).encode() + b'\n' for document in documents for part in (
          {'index': {'_type': 'page', '_id': document['id']}},
          {'title': document['title'], 'text': document['text'], 'namespace': 0, 'category': []})))


def zstd(data: bytes) -> bytes:
  import zstandard
  return zstandard.ZstdCompressor().compress(data)


FORMATS: dict[str, Callable[[Records, pathlib.Path], object]] = {
    'jsonl': lambda documents, path: path.write_bytes(lines(documents)),
    'json': lambda documents, path: path.write_text(json.dumps(documents, indent=2)),
    'values.json': lambda documents, path: path.write_text('\n'.join(json.dumps(one, indent=1) for one in documents)),
    'csv': table,
    'tsv': lambda documents, path: table(documents, path, '\t'),
    'semicolons.csv': lambda documents, path: table(documents, path, ';'),
    'parquet': parquet,
    'arrow': lambda documents, path: arrow(documents, path, 'new_file'),
    'stream.arrow': lambda documents, path: arrow(documents, path, 'new_stream'),
    'saved': saved, 'folder': folder, 'cirrus.json': cirrus,
    'gz': lambda documents, path: path.write_bytes(gzip.compress(lines(documents))),
    'bz2': lambda documents, path: path.write_bytes(bz2.compress(lines(documents))),
    'xz': lambda documents, path: path.write_bytes(lzma.compress(lines(documents))),
    'zst': lambda documents, path: path.write_bytes(zstd(lines(documents)))}


def write(name: str, documents: Records, folder: pathlib.Path) -> pathlib.Path:
  path = folder / f'corpus.{name}'
  FORMATS[name](documents, path)
  return path

"""The corpus-wide shuffle in bounded memory: sorted runs of pieces on disk, merged by key range.

Every piece has a 64-bit key, a hash; the order of the corpus is the order of the keys. So it depends neither on who
made a run nor on how many there are. A *run* holds what one chunk of documents gave, sorted by key; a shard is one
range of keys of all runs:
  run 0, keys 3 7 9   run 1, keys 1 8   with two shards of keys 0-5 and 6-11   ->   shard 0: 1 3   shard 1: 7 8 9
Letters: D documents of a run, N its pieces, K hashes of a signature.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from input_pipeline.prepare import columns
from input_pipeline.prepare.columns import Pieces

TRAIN, VALIDATION, DROPPED = 0, 1, 2  # what is decided of a document
SPLITS = {TRAIN: 'train', VALIDATION: 'validation'}
VERSION = 5  # of the files of runs; raise it when they, or what a chunk is, change
_SIZE = 8  # bytes of the length of the header, JSON that stands before the arrays
_ALIGN = 64


@dataclasses.dataclass(frozen=True)
class Run:
  """What one chunk of documents gave. Documents that are dropped later, as duplicates, are still in it."""
  texts: np.ndarray  # [D 2] uint64, 128 bits of a hash of the token ids: duplicates share them
  ranks: np.ndarray  # [D] uint64, a hash of the id: splits train from validation, and ranks duplicates
  contents: np.ndarray  # [D] uint64, a hash of the id and the text: what `ranks` is for where ids are not unique
  signatures: np.ndarray  # [D K] uint32, near_duplicates.signature; [D 0] where it is not asked for
  documents: np.ndarray  # [N] int32, which document of this run each piece is of
  pieces: Pieces


@dataclasses.dataclass(frozen=True)
class Decisions:
  """What is decided of the documents of a run."""
  splits: np.ndarray  # [D] uint8: TRAIN, VALIDATION or DROPPED
  renamed: np.ndarray  # [D] bool: others have the same id, so that the content tells them apart


def without_signatures(run: Run) -> Run:
  """The same where near-duplicates are known."""
  return dataclasses.replace(run, signatures=run.signatures[:, :0])


def of_pieces(pieces: Pieces) -> Run:
  """Pieces on their way, without their documents, of which all is decided."""
  nothing = np.zeros(0, '<u8')
  return Run(nothing.reshape(0, 2), nothing, nothing, np.zeros((0, 0), '<u4'), np.zeros(len(pieces.keys), '<i4'),
             pieces)


def write(path: pathlib.Path, run: Run, counts: dict[str, int]) -> None:
  """Atomically: a run that is there is whole. `counts` says what the chunk held that it was made of."""
  places, offset, data = {}, 0, []
  for name, array in _arrays(run).items():
    places[name] = (array.dtype.str, array.shape, offset)
    padding = -array.nbytes % _ALIGN
    data += [array.tobytes(), bytes(padding)]
    offset += array.nbytes + padding
  temporary = path.with_suffix('.tmp')
  header = json.dumps({'arrays': places, 'counts': counts}).encode()
  header += b' ' * (-(_SIZE + len(header)) % _ALIGN)
  temporary.write_bytes(len(header).to_bytes(_SIZE, 'little') + header + b''.join(data))
  os.replace(temporary, path)


def _arrays(run: Run) -> dict[str, np.ndarray]:
  return {'texts': run.texts, 'ranks': run.ranks, 'contents': run.contents, 'signatures': run.signatures,
          'documents': run.documents, 'keys': run.pieces.keys, 'tokens': run.pieces.tokens, **run.pieces.columns}


def read(path: pathlib.Path) -> Run:
  """The arrays of a run, mapped from the file rather than read."""
  data = np.memmap(path, np.uint8, 'r').view(np.ndarray)  # whose slices cost a fifth of a memmap's
  arrays = {}
  start = _SIZE + int.from_bytes(data[:_SIZE].tobytes(), 'little')
  for name, (dtype, shape, offset) in json.loads(data[_SIZE:start].tobytes())['arrays'].items():
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    arrays[name] = data[start + offset:start + offset + size].view(dtype).reshape(shape)
  own = {name: arrays.pop(name) for name in ('texts', 'ranks', 'contents', 'signatures', 'documents')}
  return Run(**own, pieces=Pieces(arrays.pop('keys'), arrays.pop('tokens'), arrays))


def read_counts(path: pathlib.Path) -> dict[str, int]:
  with path.open('rb') as file:
    return json.loads(file.read(int.from_bytes(file.read(_SIZE), 'little')))['counts']


def size(run: Run) -> int:
  """Bytes of its arrays."""
  return sum(array.nbytes for array in _arrays(run).values())


def size_of(pieces: Pieces) -> int:
  return pieces.keys.nbytes + pieces.tokens.nbytes + sum(values.nbytes for values in pieces.columns.values())


def order(run: Run) -> Run:
  """The same run, sorted by key."""
  by_key = np.argsort(run.pieces.keys, kind='stable')
  return dataclasses.replace(run, documents=run.documents[by_key], pieces=columns.take(run.pieces, by_key))


def select(run: Run, decisions: Decisions, split: int, low: int, high: int) -> Pieces:
  """The pieces of the documents of this split (TRAIN or VALIDATION) whose keys are in [low, high)."""
  first, last = columns.places_between(run.pieces.keys, low, high)
  pieces = columns.cut(run.pieces, first, last)
  documents = run.documents[first:last]
  if decisions.renamed.any():
    numbers = document_numbers(run, decisions, documents, pieces['document_ids'])
    pieces = dataclasses.replace(pieces, columns=pieces.columns | {'document_ids': numbers})
  return columns.keep(pieces, decisions.splits[documents] == split)


def join(runs: list[Run]) -> Run:
  """One run of several; their documents follow each other."""
  if len(runs) == 1:
    return runs[0]
  starts = np.cumsum([0, *(len(run.ranks) for run in runs[:-1])])
  joined = lambda name: np.concatenate([getattr(run, name) for run in runs])
  return order(Run(joined('texts'), joined('ranks'), joined('contents'), joined('signatures'),
                   np.concatenate([run.documents + np.int32(start) for run, start in zip(runs, starts)]),
                   columns.join([run.pieces for run in runs])))


def document_numbers(run: Run, decisions: Decisions, documents: np.ndarray, numbers: np.ndarray) -> np.ndarray:
  # -, -, [N], [N] -> [N]
  """The numbers of pieces' documents: their own (records.document_number), or the content's where others share it."""
  of_content = (run.contents[documents] & np.uint64(0x7FFFFFFF)).astype('<i4')
  return np.where(decisions.renamed[documents], of_content, numbers)


def has_pieces(run: Run) -> np.ndarray:  # -> [D] bool
  return np.bincount(run.documents, minlength=len(run.ranks)) > 0


def key_ranges(count: int, low: int = 0, high: int = 2**64) -> Iterator[tuple[int, int]]:
  """[low, high) in `count` equal parts."""
  for i in range(count):
    yield low + (high - low) * i // count, low + (high - low) * (i + 1) // count

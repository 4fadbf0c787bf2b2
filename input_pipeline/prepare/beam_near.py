"""Near-duplicates on Beam: near_duplicates.py in parts, in which documents meet by the names of their bands."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from input_pipeline.prepare import near_duplicates

PART_BYTES = 32 << 20  # of rows, of a part


@dataclasses.dataclass(frozen=True)
class Slim:
  """The documents of a run, as far as they are compared."""
  ranks: np.ndarray  # [D] uint64
  contents: np.ndarray  # [D] uint64
  signatures: np.ndarray  # [D K] uint32


def find(runs, decided: dict[str, Any], share: float):
  """(name of a run, places of near-duplicates that go), of a run perhaps several times, and some places twice.

  `runs`: with a name, a run; `decided`: (name, place) of documents that are no copies, as `kept`, and of those that go
  by their content, as `renamed`.
  """
  import apache_beam as beam
  documents = runs | 'documents of a run' >> beam.Map(_documents) | 'all documents' >> beam.CombineGlobally(sum)
  return ({'run': runs | 'slim' >> beam.Map(_slim), **decided}
          | 'to slim runs' >> beam.CoGroupByKey()
          | 'bands' >> beam.FlatMap(_rows, beam.pvalue.AsSingleton(documents), PART_BYTES)
          | 'by band' >> beam.GroupByKey()
          | 'near-duplicates' >> beam.FlatMap(_found, share))


def _documents(named: Any) -> int:
  return len(named.run.ranks)


def _slim(named: Any) -> tuple[str, Slim]:
  return named.name, Slim(named.run.ranks, named.run.contents, named.run.signatures)


def _rows(found: tuple[str, dict[str, Iterable]], documents: int, part_bytes: int
          ) -> Iterator[tuple[int, tuple[str, np.ndarray]]]:
  """(part, (name of the run, rows of its documents)). `documents`: of all runs."""
  name, given = found
  [run] = given['run']
  kept, renamed = (np.sort(np.fromiter(given[which], np.int64)) for which in ('kept', 'renamed'))
  ranks = run.ranks.copy()
  ranks[renamed] = run.contents[renamed]
  parts = max(1, -(-documents * near_duplicates.DOCUMENT_BYTES // part_bytes))
  for part, rows in enumerate(near_duplicates.rows_of(run.signatures[kept], ranks[kept], kept, 0, parts)):
    if len(rows):
      yield part, (name, rows)


def _found(group: tuple[int, Iterable[tuple[str, np.ndarray]]], share: float) -> Iterator[tuple[str, tuple[int, ...]]]:
  """(name of a run, places) of what one part tells; runs come in the order of their names."""
  blocks = sorted(group[1], key=lambda block: block[0])
  rows = np.concatenate([own for _, own in blocks])
  found = near_duplicates.find_in(rows, share)
  ends = np.cumsum([len(own) for _, own in blocks])[:-1]
  for (name, own), marks in zip(blocks, np.split(found, ends)):
    if marks.any():
      yield name, tuple(np.unique(own['place'][marks]).tolist())

"""Near-duplicates on Beam: near_duplicates.py in slices, in which documents meet by what their bands hold."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from input_pipeline.prepare import near_duplicates

PART_BYTES = 32 << 20  # of rows, of a part

_BLOCKS, _ENDED = 'blocks', 'ended'
Block = tuple[str, np.ndarray]  # the name of a run, rows of its documents


@dataclasses.dataclass(frozen=True)
class Slim:
  """The documents of a run, as far as they are compared."""
  places: np.ndarray  # [D]
  ranks: np.ndarray  # [D] uint64
  signatures: np.ndarray  # [D K] uint32


def find(runs, decided: dict[str, Any], share: float):
  """(name of a run, places of near-duplicates that go), of a run perhaps several times, and some places twice.

  `runs`: with a name, a run; `decided`: (name, place) of documents that are no copies, as `kept`, and of those that go
  by their content, as `renamed`.
  """
  import apache_beam as beam
  documents = runs | 'documents of a run' >> beam.Map(_documents) | 'all documents' >> beam.CombineGlobally(sum)
  parts = beam.pvalue.AsSingleton(documents | 'parts' >> beam.Map(near_duplicates.parts_of, PART_BYTES))
  slim = ({'run': runs | 'without pieces' >> beam.Map(_without_pieces), **decided}
          | 'to slim runs' >> beam.CoGroupByKey()
          | 'slim' >> beam.Map(_slim))
  # 21 bytes for each place where a part is cut: as a rule none, 2.8 kB for a million documents that share all bands
  cut = beam.pvalue.AsSingleton(
      slim
      | 'drawn' >> beam.FlatMap(_drawn, parts, PART_BYTES)
      | 'drawn of a part' >> beam.GroupByKey()
      | 'cuts of a part' >> beam.Map(_cuts, PART_BYTES)
      | 'cuts' >> beam.CombineGlobally(_in_order))
  blocks = slim | 'bands' >> beam.FlatMap(_rows, parts, cut).with_outputs(_ENDED, main=_BLOCKS)
  before = (blocks[_ENDED]
            | 'ends of slices' >> beam.CombinePerKey(_ends)
            | 'by part' >> beam.Map(_by_part)
            | 'slices of a part' >> beam.GroupByKey()
            | 'before slices' >> beam.FlatMap(_before))
  return ({'blocks': blocks[_BLOCKS], 'before': before}
          | 'by slice of bands' >> beam.CoGroupByKey()
          | 'near-duplicates' >> beam.FlatMap(_found, share))


def _documents(named: Any) -> int:
  return len(named.run.ranks)


def _without_pieces(named: Any) -> tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
  return named.name, (named.run.ranks, named.run.contents, named.run.signatures)


def _slim(found: tuple[str, dict[str, Iterable]]) -> tuple[str, Slim]:
  name, given = found
  [(ranks, contents, signatures)] = given['run']
  kept, renamed = (np.sort(np.fromiter(given[which], np.int64)) for which in ('kept', 'renamed'))
  ranks = ranks.copy()
  ranks[renamed] = contents[renamed]
  return name, Slim(kept, ranks[kept], signatures[kept])


def _drawn(named: tuple[str, Slim], parts: int, part_bytes: int) -> Iterator[tuple[int, np.ndarray]]:
  """(part, some keys of rows there)."""
  _, slim = named
  keys = near_duplicates.drawn(slim.signatures, slim.ranks, parts, part_bytes)
  for part in np.unique(keys['part']):
    yield int(part), keys[keys['part'] == part]


def _cuts(drawn: tuple[int, Iterable[np.ndarray]], part_bytes: int) -> np.ndarray:
  return near_duplicates.cuts(np.concatenate(list(drawn[1])), part_bytes)


def _in_order(cuts: Iterable[np.ndarray]) -> np.ndarray:
  cut = np.concatenate([np.zeros(0, near_duplicates.KEY), *cuts])
  return cut[np.argsort(cut['part'], kind='stable')]


def _rows(named: tuple[str, Slim], parts: int, cut: np.ndarray) -> Iterator:
  """(slice, (name of the run, rows of its documents)); and ((part, slice), the ends of these) where another slice goes
  on with the part."""
  import apache_beam as beam
  name, slim = named
  part_of = dict(zip(near_duplicates.continued(cut), cut['part'].tolist()))
  for number, rows in enumerate(near_duplicates.rows_of(slim.signatures, slim.ranks, slim.places, 0, parts, cut)):
    if len(rows):
      yield number, (name, rows)
      if (part := part_of.get(number + 1)) is not None:
        yield beam.pvalue.TaggedOutput(_ENDED, ((part, number), _ends([[(name, rows)]])))


def _ends(many: Iterable[list[Block]]) -> list[Block]:
  """Of blocks the two rows at their ends, each with the name of its run; runs come in the order of their names."""
  blocks = sorted((block for some in many for block in some), key=lambda block: block[0])
  if not blocks:
    return []
  rows = np.concatenate([own for _, own in blocks])
  names = [name for name, own in blocks for _ in own]
  return [(names[place], rows[place:place + 1]) for place in near_duplicates.ends(rows)]


def _by_part(ended: tuple[tuple[int, int], list[Block]]) -> tuple[int, tuple[int, np.ndarray]]:
  (part, number), blocks = ended
  return part, (number, np.concatenate([rows for _, rows in blocks]))


def _before(group: tuple[int, Iterable[tuple[int, np.ndarray]]]) -> Iterator[tuple[int, np.ndarray]]:
  """(slice, the rows that are known of those before it)."""
  ended = dict(group[1])  # of all slices but the last: each that begins with a cut has the row that was drawn there
  yield from near_duplicates.before(ended, range(min(ended) + 1, max(ended) + 2)).items()


def _found(group: tuple[int, dict[str, Iterable]], share: float) -> Iterator[tuple[str, tuple[int, ...]]]:
  """(name of a run, places) of what one slice tells; runs come in the order of their names."""
  known, blocks = list(group[1]['before']), sorted(group[1]['blocks'], key=lambda block: block[0])
  rows = np.concatenate([*known, *(own for _, own in blocks)])
  found = near_duplicates.find_in(rows, share)[sum(map(len, known)):]
  ends = np.cumsum([len(own) for _, own in blocks])[:-1]
  for (name, own), marks in zip(blocks, np.split(found, ends)):
    if marks.any():
      yield name, tuple(np.unique(own['place'][marks]).tolist())

"""Runs to shards, on Beam: portions.py and spreading.py, as elements that meet by their keys."""

import dataclasses
import json
import pathlib
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping

from input_pipeline import records, storage
from input_pipeline.prepare import columns, portions, spill, splits, spreading, writing
from input_pipeline.prepare.columns import Pieces
from input_pipeline.prepare.portions import Portion, Shards

RESULTS = 'results'  # the folder in which workers tell of shards
PORTION, SLICED = 'portion', 'sliced'  # what of runs goes there at once, and what by way of slices
Key = tuple[int, ...]


def select(name: str, run: spill.Run, decisions: spill.Decisions, shards: Shards, runs: int, bytes: float) -> Iterator:
  """(portion, its pieces in this run), or, in two rounds, (slice of a bundle, its pieces in this run) that is tagged.

  `runs`, `bytes`: of all that go to these shards.
  """
  every = portions.of_split(shards)
  rounds = spreading.rounds(runs, bytes, len(every))
  if rounds is None:
    for portion in every:
      found = spill.select(run, decisions, shards.split, *portion.bounds())
      if len(found.keys):
        yield dataclasses.astuple(portion), found
    return
  import apache_beam as beam
  bundle = zlib.crc32(name.encode()) % rounds.bundles
  for number, few in enumerate(spreading.slices(every, rounds.slices)):
    found = spill.select(run, decisions, shards.split, *portions.whole(few))
    if len(found.keys):
      key = *dataclasses.astuple(shards), rounds.slices, number, bundle
      yield beam.pvalue.TaggedOutput(SLICED, (key, found))


def cut(group: tuple[Key, Iterable[Pieces]]) -> Iterator[tuple[Key, Pieces]]:
  """(portion, its pieces in a slice of a bundle)."""
  (split, count, tokens, slices, number, _), many = group
  pieces = columns.merge(list(many))
  for portion in spreading.slices(portions.of_split(Shards(split, count, tokens)), slices)[number]:
    found = columns.between(pieces, *portion.bounds())
    if len(found.keys):
      yield dataclasses.astuple(portion), found


def merge(group: tuple[Key, Iterable[Pieces]], unknown_id: int, shared: str) -> Iterator[tuple[Key, Key]]:
  """Writes a portion: the shard, where it is the only one, or else a file of its own, of which ((split, shard, shards),
  portion) tells."""
  portion, many = Portion(*group[0]), list(group[1])
  if portion.of == 1:
    _write_shard(portion, portions.merged(many, portion), unknown_id, shared)
    return
  portions.put(many, portion, storage.path(shared))
  yield group[0][:3], group[0]


def join(group: tuple[Key, Iterable[Key]], unknown_id: int, shared: str) -> None:
  """Writes a shard of the portions that were written."""
  own = [Portion(*one) for one in group[1]]
  _write_shard(own[0], portions.read(own, storage.path(shared)), unknown_id, shared)


def _write_shard(one: Portion, parts: Iterable[Pieces], unknown_id: int, shared: str) -> None:
  """The shard that a portion is of."""
  split, number, count = spill.SPLITS[one.split], one.shard, one.shards
  name = records.shard_name(split, number, count)
  with tempfile.TemporaryDirectory() as folder:
    local = pathlib.Path(folder) / name
    shard, more = writing.write_shard(local, parts, unknown_id)
    storage.put(local, storage.path(shared) / name)
  result = {'split': split, 'number': number, 'count': count, 'shard': dataclasses.asdict(shard), 'more': more}
  storage.write_whole(storage.path(shared) / RESULTS / f'{name}.json', json.dumps(result))


def written(directory: storage.Path) -> list[storage.Path]:
  """What workers told so far, a file for each shard."""
  return storage.files_in(directory, f'{records.DATASET_NAME}-*.json')


def read_results(directory: storage.Path, totals: Mapping[str, splits.Total]) -> dict[str, records.Split]:
  results = list(map(json.loads, storage.read_all(written(directory))))
  made = {}
  for name, total in totals.items():
    found = {result['number']: (records.Shard(**result['shard']), result['more']) for result in results
             if result['split'] == name}
    if found:
      count = next(result['count'] for result in results if result['split'] == name)
      nothing = [(records.Shard(records.shard_name(name, number, count), 0, 0, 0, 0, ''),
                  {'sentences': 0, 'unknown_tokens': 0})
                 for number in range(count)]
      made[name] = splits.split_of(total.documents, [found.get(number, nothing[number]) for number in range(count)])
  return made

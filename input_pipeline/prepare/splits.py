"""From sorted runs to the shards of each split: duplicates, train or validation, and one merge a shard.

Letters: D documents of a run.
"""

import collections
import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from input_pipeline import records
from input_pipeline.prepare import near_duplicates, spill, writing
from input_pipeline.prepare.settings import Prepare

_SHARD_TOKENS = 1 << 24  # of a shard, where --shards does not say: 34 MB
_PART_TOKENS = 1 << 22  # merged in memory at once
_DROPS = ('redirects', 'other_namespaces', 'other_models', 'empty', 'left_out', 'without_pieces', 'duplicates', 'near_duplicates')


def decide(paths: list[pathlib.Path], settings: Prepare, counts: collections.Counter) -> list[np.ndarray]:
  """TRAIN, VALIDATION or DROPPED for each document of each run [D]; counts them. Raises DataError.

  Of documents with the same text the one with the smallest rank stays, so that the order of the source does not matter.
  """
  loaded = [spill.read(path) for path in paths]
  ranks = np.concatenate([np.zeros(0, '<u8'), *(run.document_ranks for run in loaded)])
  texts = np.concatenate([np.zeros(0, '<u8'), *(run.document_texts for run in loaded)]).reshape(-1, 2)
  has_pieces = np.concatenate([np.zeros(0, bool), *(used(run) for run in loaded)])
  order = np.lexsort((ranks, texts[:, 0], texts[:, 1]))
  same = (texts[order[1:]] == texts[order[:-1]]).all(1)
  fates = np.full(len(ranks), spill.TRAIN, np.uint8)
  fates[order[1:][same]] = spill.DROPPED
  counts['duplicates'] = int(same.sum())
  if settings.near_duplicates is not None:
    _drop_near(loaded, fates, ranks, settings.near_duplicates)
    counts['near_duplicates'] = int((fates == spill.DROPPED).sum()) - counts['duplicates']
  counts['documents'] -= int((fates == spill.DROPPED).sum())
  distinct = np.unique(ranks[(fates != spill.DROPPED) & has_pieces])
  check_documents(len(distinct), settings, counts)
  fates[(fates != spill.DROPPED) & (ranks < threshold(distinct[:2].tolist(), len(distinct), settings.validation_share))] = spill.VALIDATION
  return np.split(fates, np.cumsum([len(run.document_ranks) for run in loaded])[:-1])


def _drop_near(loaded: list[spill.Run], fates: np.ndarray, ranks: np.ndarray, share: float) -> None:
  kept = np.flatnonzero(fates != spill.DROPPED)
  signatures = np.concatenate([np.zeros(0, '<u4'), *(run.document_signatures for run in loaded)]).reshape(-1, near_duplicates.HASHES)
  fates[kept[near_duplicates.find(signatures[kept], ranks[kept], share)]] = spill.DROPPED


def threshold(smallest: list[int], documents: int, share: float) -> np.uint64:
  """Validation holds the documents whose rank is below this.

  That is the share, but at least two documents, or one of three: a rule of ids alone, so that documents move only in a tiny corpus.
  """
  least = 0 if not share or documents < 3 else 1 if documents == 3 else 2
  return np.uint64(max(int(share * 2**64), smallest[least - 1] + 1 if least else 0))


def check_documents(distinct: int, settings: Prepare, counts: dict[str, int]) -> None:
  if distinct >= 2:
    return
  held = f'{distinct} document{"s" * (distinct != 1)} with text'
  dropped = ', '.join(f'{counts[name]:,} {name.replace("_", " ")}' for name in _DROPS if counts.get(name))
  raise records.DataError(f'--input {settings.input} holds {held}{" (" + dropped + ")" if dropped else ""}: wanted at least 2, because '
                          'a next-sentence negative comes from another document; in plain text a blank line ends a document')


def shard_counts(settings: Prepare, train_tokens: int) -> dict[int, int]:
  """How many files each split gets."""
  shards = settings.shards or max(1, math.ceil(train_tokens / _SHARD_TOKENS))
  return {spill.TRAIN: shards, spill.VALIDATION: max(1, math.ceil(shards * settings.validation_share))}


def write(settings: Prepare, unknown_id: int, paths: list[pathlib.Path], fates: list[np.ndarray], directory: pathlib.Path,
          submit: Callable) -> dict[str, records.Split]:
  """Every shard of both splits; `submit` is an executor's. Raises DataError where there are more shards than pieces fill."""
  totals = totals_of(map(spill.read, paths), fates)
  files = shard_counts(settings, totals[spill.TRAIN].tokens)
  futures = {}
  for fate, name in spill.SPLITS.items():
    total, count = totals[fate], files[fate]
    if not total.pieces:
      continue
    if total.pieces < count:
      raise records.DataError(f'--shards {settings.shards}: the {name} split has {total.pieces} pieces for {count} files; lower --shards')
    parts = max(1, math.ceil(total.tokens / count / _PART_TOKENS))
    jobs = [(directory / records.shard_name(name, i, count), paths, fates, fate, bounds, parts, unknown_id, settings.pairs == 'google')
            for i, bounds in enumerate(spill.key_ranges(count))]
    futures[fate] = [submit(write_shard, *job) for job in jobs]
  return {spill.SPLITS[fate]: split_of(totals[fate].documents, [future.result() for future in own]) for fate, own in futures.items()}


def split_of(documents: int, done: list[tuple[records.Shard, dict[str, int]]]) -> records.Split:
  """A split from what `writing.write_shard` gave for its shards. Raises DataError where one is empty."""
  shards = tuple(shard for shard, _ in done)
  pieces = sum(shard.pieces for shard in shards)
  if empty := [shard.file for shard in shards if not shard.pieces]:
    raise records.DataError(f'--shards: {len(empty)} of {len(shards)} shards would be empty ({empty[0]} …), with {pieces} pieces in all; '
                            'lower --shards')
  return records.Split(
      documents=documents, pieces=pieces, tokens=sum(shard.tokens for shard in shards),
      sentences=sum(more['sentences'] for _, more in done), unknown_tokens=sum(more['unknown_tokens'] for _, more in done), shards=shards)


def write_shard(path, runs, fates, fate, bounds, parts, unknown_id, static) -> tuple[records.Shard, dict[str, int]]:
  """One shard: the pieces of all runs whose keys are in `bounds`, merged part by part."""
  def merged() -> Iterator[spill.Selection]:
    for low, high in spill.key_ranges(parts, *bounds):
      yield spill.merge([spill.select(spill.read(run), run_fates, fate, low, high) for run, run_fates in zip(runs, fates)])
  return writing.write_shard(path, merged(), unknown_id, static)


def totals_of(runs: Iterable[spill.Run], fates: list[np.ndarray]) -> list['Total']:
  """What TRAIN, VALIDATION and DROPPED hold."""
  sums = np.zeros((3, 3), np.int64)
  for run, fate in zip(runs, fates):
    of_piece = fate[run.piece_documents]
    sums += np.array([np.bincount(fate[used(run)], minlength=3), np.bincount(of_piece, minlength=3),
                      np.bincount(of_piece, run.piece_tokens, 3)]).astype(np.int64)
  return [Total(*map(int, column)) for column in sums.T]


def used(run: spill.Run) -> np.ndarray:  # -> [D] bool
  """Which documents have a piece."""
  return np.bincount(run.piece_documents, minlength=len(run.document_ranks)) > 0


@dataclasses.dataclass(frozen=True)
class Total:
  documents: int
  pieces: int
  tokens: int

"""From sorted runs to the shards of each split: duplicates, train or validation, and one merge a shard.

Letters: D documents of a run.
"""

import collections
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from input_pipeline import records
from input_pipeline.counts import DROPS
from input_pipeline.prepare import columns, disk_spreading, near_duplicates, portions, spill, spreading, writing
from input_pipeline.prepare.settings import Prepare
from input_pipeline.prepare.spill import Decisions
from input_pipeline.text import sources

_MOST_UNKNOWN = 0.05  # of the tokens


@dataclasses.dataclass(frozen=True)
class Total:
  documents: int  # with pieces
  pieces: int
  tokens: int


def decide(paths: list[pathlib.Path], settings: Prepare, counts: collections.Counter) -> list[Decisions]:
  """What is decided of each document of each run; counts them. Raises DataError.

  Of documents with the same tokens the one with the smallest rank stays, so that the order of the source does not
  matter. Where ids are not unique among those that stay, the hash of the content is the rank.
  """
  loaded = [spill.read(path) for path in paths]
  ranks = np.concatenate([np.zeros(0, '<u8'), *(run.ranks for run in loaded)])
  contents = np.concatenate([np.zeros(0, '<u8'), *(run.contents for run in loaded)])
  texts = np.concatenate([np.zeros((0, 2), '<u8'), *(run.texts for run in loaded)])
  has_pieces = np.concatenate([np.zeros(0, bool), *map(spill.has_pieces, loaded)])
  dropped = later_copies(texts, ranks, contents)
  counts['duplicates'] = int(dropped.sum())
  renamed = shared_ranks(ranks, ~dropped & has_pieces)
  counts['repeated_ids'] = int(renamed.sum())
  ranks = np.where(renamed, contents, ranks)
  if settings.near_duplicates is not None:
    kept = np.flatnonzero(~dropped)
    signatures = np.concatenate([np.zeros((0, near_duplicates.HASHES), '<u4'), *(run.signatures for run in loaded)])
    dropped[kept[near_duplicates.find(signatures[kept], ranks[kept], settings.near_duplicates)]] = True
    counts['near_duplicates'] = int(dropped.sum()) - counts['duplicates']
  counts['documents'] -= int(dropped.sum())
  counts['without_pieces'] = int((~dropped & ~has_pieces).sum())
  distinct = np.unique(ranks[~dropped & has_pieces])
  check_documents(len(distinct), settings, counts)
  below = threshold(distinct[:2].tolist(), len(distinct), settings.validation_share)
  ends = np.cumsum([len(run.ranks) for run in loaded])[:-1]
  return list(map(Decisions, np.split(assign(ranks, dropped, below), ends), np.split(renamed, ends)))


def later_copies(texts: np.ndarray, ranks: np.ndarray, contents: np.ndarray) -> np.ndarray:
  # [D 2], [D], [D] -> bool [D]
  """All but the first of the documents with the same tokens."""
  order = np.lexsort((contents, ranks, texts[:, 0], texts[:, 1]))
  same = (texts[order[1:]] == texts[order[:-1]]).all(1)
  later = np.zeros(len(ranks), bool)
  later[order[1:][same]] = True
  return later


def shared_ranks(ranks: np.ndarray, used: np.ndarray) -> np.ndarray:  # [D], bool [D] -> bool [D]
  """Of the documents that are used those whose rank others have too."""
  found, often = np.unique(ranks[used], return_counts=True)
  return used & np.isin(ranks, found[often > 1])


def firsts(run: spill.Run) -> np.ndarray:  # -> [F], places
  """Of the documents of a run with the same tokens the one that stays, if no other run has one of smaller rank.

  So what one text costs, however often it is there, is a line for each run, and not for each copy.
  """
  return np.flatnonzero(~later_copies(run.texts, run.ranks, run.contents))


def assign(ranks: np.ndarray, dropped: np.ndarray, below: np.uint64) -> np.ndarray:  # [D], bool [D], - -> uint8 [D]
  """What is decided of each document."""
  return np.where(dropped, spill.DROPPED, np.where(ranks < below, spill.VALIDATION, spill.TRAIN)).astype(np.uint8)


def threshold(smallest: list[int], documents: int, share: float) -> np.uint64:
  """Validation holds the documents whose rank is below this; `smallest` are the two smallest ranks.

  That is the share, but at least two documents, one of three, or none of one: a rule of ids only, so that documents
  move only in a tiny corpus.
  """
  if documents == 1:  # to learn from
    return np.uint64(0)
  least = 0 if not share or documents < 3 else 1 if documents == 3 else 2
  return np.uint64(max(int(share * 2**64), smallest[least - 1] + 1 if least else 0))


def sum_of(totals: Iterable[Total]) -> Total:
  sums = np.array([*map(dataclasses.astuple, totals)], np.int64).reshape(-1, 3).sum(0)
  return Total(*map(int, sums))


def check_documents(distinct: int, settings: Prepare, counts: dict[str, int]) -> None:
  """Raises DataError where there is too little text, or much of it is unknown and so looks the same."""
  if (share := counts.get('unknown_tokens', 0) / max(counts.get('tokens', 0), 1)) > _MOST_UNKNOWN:
    raise records.DataError(
        f'{share:.1%} of the tokens are unknown to --vocabulary {settings.vocabulary}: wanted at most '
        f'{_MOST_UNKNOWN:.0%}; pass --lower-case or --no-lower-case, as it is made for, name a vocabulary of the '
        'language of the text, or make one with `bert-jax vocabulary`')
  if distinct >= 2 or distinct and settings.pairs == 'dynamic':
    return
  held = f'{distinct} document{"s" * (distinct != 1)} with text'
  dropped = ', '.join(f'{counts[name]:,} {name.replace("_", " ")}' for name in DROPS if counts.get(name))
  raise records.DataError(
      f'--input {sources.shown(settings.input)} holds {held}{" (" + dropped + ")" if dropped else ""}: wanted '
      + ('at least 2, because a next-sentence negative comes from another document' if distinct else 'one at least')
      + '; in plain text a blank line ends one (--documents)')


def shard_counts(settings: Prepare, train_tokens: int) -> dict[int, int]:
  """How many files each split gets."""
  shards = settings.shards or max(1, math.ceil(train_tokens / portions.TOKENS))
  return {spill.TRAIN: shards, spill.VALIDATION: max(1, math.ceil(shards * settings.validation_share))}


def check_totals(settings: Prepare, totals: dict[int, Total]) -> None:
  """Raises DataError where the train split would be empty, or a split has fewer pieces than shards."""
  if not totals[spill.TRAIN].pieces:
    raise records.DataError(
        f'--validation-share {settings.validation_share:g} holds out all {totals[spill.VALIDATION].documents} '
                            'documents with text, so that the train split would be empty: lower it, or give more text')
  for split, count in shard_counts(settings, totals[spill.TRAIN].tokens).items():
    if 0 < totals[split].pieces < count:
      raise records.DataError(
          f'--shards {settings.shards}: the {spill.SPLITS[split]} split has {totals[split].pieces} pieces for '
                              f'{count} files; lower --shards')


def write(settings: Prepare, unknown_id: int, paths: list[pathlib.Path], decisions: list[Decisions],
          directory: pathlib.Path, on_the_way: pathlib.Path, submit: Callable,
          told: Callable[[int, int], None] = lambda done, of: None) -> dict[str, records.Split]:
  """Every shard of both splits; `submit` is an executor's, `on_the_way` an empty folder, and `told` hears how many
  shards there are of how many.

  Raises DataError where there are more shards than pieces fill.
  """
  totals = totals_of(map(spill.read, paths), decisions)
  check_totals(settings, totals)
  size, tokens = sum(path.stat().st_size for path in paths), sum(total.tokens for total in totals.values())
  jobs: dict[int, list[tuple]] = {}
  for split, count in shard_counts(settings, totals[spill.TRAIN].tokens).items():
    if not totals[split].pieces:
      continue
    own = spreading.cells(split, count, portions.count(totals[split].tokens / count, portions.PART_TOKENS))
    name = lambda number, split=split, count=count: directory / records.shard_name(spill.SPLITS[split], number, count)
    rounds = spreading.rounds(len(paths), size * totals[split].tokens / tokens, len(own.ranges))
    if rounds is None:
      jobs[split] = [(write_shard, name(i), paths, decisions, split, own.of_shard(i), unknown_id) for i in range(count)]
    else:
      files = disk_spreading.spread(paths, decisions, own, rounds, on_the_way, submit)
      jobs[split] = [(disk_spreading.write_shard, name(i), files[i * own.of_a_shard:(i + 1) * own.of_a_shard],
                      own.of_shard(i), unknown_id) for i in range(count)]
  made, every = itertools.count(1), sum(map(len, jobs.values()))

  def asked(job: tuple):
    future = submit(*job)
    future.add_done_callback(lambda _: told(next(made), every))  # as each is done, whoever waits for which
    return future

  futures = {split: list(map(asked, own)) for split, own in jobs.items()}
  return {spill.SPLITS[split]: split_of(totals[split].documents, [future.result() for future in own])
          for split, own in futures.items()}


def split_of(documents: int, done: list[tuple[records.Shard, dict[str, int]]]) -> records.Split:
  """A split from what `writing.write_shard` gave for its shards. Raises DataError where one is empty."""
  shards = tuple(shard for shard, _ in done)
  pieces = sum(shard.pieces for shard in shards)
  if empty := [shard.file for shard in shards if not shard.pieces]:
    raise records.DataError(
        f'--shards: {len(empty)} of {len(shards)} shards would be empty ({empty[0]} …), with {pieces} pieces in all; '
                            'lower --shards')
  return records.Split(
      documents=documents, pieces=pieces, tokens=sum(shard.tokens for shard in shards),
      sentences=sum(more['sentences'] for _, more in done),
      unknown_tokens=sum(more['unknown_tokens'] for _, more in done), shards=shards)


def write_shard(path: pathlib.Path, runs: list[pathlib.Path], decisions: list[Decisions], split: int,
                ranges: Sequence[spreading.Range], unknown_id: int) -> tuple[records.Shard, dict[str, int]]:
  """One shard: the pieces of all runs whose keys are in its ranges, merged one after the other."""
  merged = (columns.merge([spill.select(spill.read(run), own, split, *cell) for run, own in zip(runs, decisions)])
            for cell in ranges)
  return writing.write_shard(path, merged, unknown_id)


def totals_of(runs: Iterable[spill.Run], decisions: list[Decisions]) -> dict[int, Total]:
  """What is TRAIN, VALIDATION and DROPPED."""
  sums = np.zeros((3, 3), np.int64)
  for run, own in zip(runs, decisions):
    of_piece = own.splits[run.documents]
    sums += np.array([np.bincount(own.splits[spill.has_pieces(run)], minlength=3), np.bincount(of_piece, minlength=3),
                      np.bincount(of_piece, run.pieces.tokens, 3)]).astype(np.int64)
  return {decision: Total(*map(int, column)) for decision, column in enumerate(sums.T)}

"""What is found of a window of shards, and of many: pure functions, whoever calls them, on whatever machine.

  scan       a shard    -> where its blocks are, after every check of it    here, batches/shards.py
  of_window  a window   -> figures of its tokens, pieces, documents; what of validation stands in it
  together   of some    -> of all, in any order
Letters: V vocabulary, L lengths, D documents.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from input_pipeline import records, storage
from input_pipeline.batches import shards
from input_pipeline.inspection import copies, sample as sample_lib, tokens

Tables = dict[tuple[str, int], np.ndarray]  # {(split, number of a shard): what shards.scan_shard gives}


@dataclasses.dataclass(frozen=True)
class OfSplit:
  pieces: np.ndarray  # [L] int64, by how many tokens they have with special ones
  sentences: np.ndarray  # [L] int64, by how many tokens they have
  documents: np.ndarray | None  # [D 2] int64, number and how many pieces; None where not all of the split is read


@dataclasses.dataclass(frozen=True)
class Figures:
  tokens: tokens.Counted
  splits: dict[str, OfSplit]
  copies: copies.Seen | None  # of windows of train


KINDS = Figures, OfSplit, tokens.Counted, copies.Seen


@dataclasses.dataclass(frozen=True)
class Item:
  """A window that is to be looked at."""
  split: str
  order: tokens.Order
  blocks: shards.Index  # shards.part_of
  whole: bool  # all of the split is read


@dataclasses.dataclass(frozen=True)
class Asked:
  """What all windows are looked at with."""
  key: str  # which tells it from others
  names: list[str] = dataclasses.field(compare=False)  # [V] the tokens
  vocabulary: records.Vocabulary = dataclasses.field(compare=False)
  # windows of validation that are compared with train, if they are
  looked_up: tuple[shards.Index, ...] | None = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class Opened:
  parts: sample_lib.Parts
  unknown_id: int
  looked_up: copies.LookedUp | None


def opened(asked: Asked) -> Opened:
  looked_up = None if asked.looked_up is None else copies.look_up(map(shards.read_part, asked.looked_up))
  return Opened(sample_lib.parts_of(asked.names, asked.vocabulary), asked.vocabulary.unk_id, looked_up)


@functools.lru_cache(maxsize=1)
def _opened(asked: Asked) -> Opened:
  return opened(asked)  # once a process


def of_sent(item: Item, asked: Asked) -> Figures:
  """of_window, with what is asked as a worker gets it."""
  return of_window(item, _opened(asked))


def of_window(item: Item, about: Opened, window: shards.Window | None = None) -> Figures:
  """`window`: where it was read already."""
  window = shards.read_part(item.blocks) if window is None else window
  numbers, counts = np.unique(window.document_ids, return_counts=True)
  documents = np.stack([numbers.astype(np.int64), counts], 1) if item.whole else None
  own = OfSplit(np.bincount(window.piece_lengths + shards.SPECIALS), np.bincount(np.diff(window.sentence_starts)),
                documents)
  compared = about.looked_up is not None and item.split == 'train'
  return Figures(tokens.of_window(window, item.order, about.parts, about.unknown_id), {item.split: own},
                 copies.seen_in(window, about.looked_up) if compared and about.looked_up is not None else None)


def together(many: Iterable[Figures]) -> Figures:
  every = list(many)
  names = dict.fromkeys(name for one in every for name in one.splits)
  seen = [one.copies for one in every if one.copies is not None]
  return Figures(tokens.together([one.tokens for one in every]),
                 {name: _of_split([one.splits[name] for one in every if name in one.splits]) for name in names},
                 copies.together(seen) if seen else None)


def _of_split(many: Sequence[OfSplit]) -> OfSplit:
  documents = [one.documents for one in many if one.documents is not None]
  return OfSplit(_sum([one.pieces for one in many]), _sum([one.sentences for one in many]),
                 _counted(np.concatenate(documents)) if documents else None)


def _sum(many: Sequence[np.ndarray]) -> np.ndarray:  # [L] each, of whatever length -> [L]
  total = np.zeros(max(map(len, many)), np.int64)
  for one in many:
    total[:len(one)] += one
  return total


def _counted(documents: np.ndarray) -> np.ndarray:  # [. 2] -> [D 2]
  numbers, place = np.unique(documents[:, 0], return_inverse=True)
  return np.stack([numbers, np.bincount(place.reshape(-1), documents[:, 1]).astype(np.int64)], 1)


def scan(shard: tuple[str, int, records.Shard], directory: str, manifest: records.Manifest, verify: str) -> Tables:
  """Checks a shard. Raises DataError."""
  split, number, own = shard
  table, _ = shards.scan_shard(storage.path(directory) / own.file, own, False, manifest, verify)
  return {(split, number): table}


def all_tables(many: Iterable[Tables]) -> Tables:
  return {key: table for one in many for key, table in one.items()}


def divided(tables: Mapping[tuple[str, int], np.ndarray], parts: int) -> list[Tables]:
  return [{key: table for key, table in tables.items() if key[1] % parts == part} for part in range(parts)]

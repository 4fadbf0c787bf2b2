"""What is decided of documents where no machine holds the hashes of them all: as splits.decide does, part by part.

Rows of hashes travel twice, each time to where those that must meet are together:
  rows_of       tables of some runs         -> the first of each text there, in parts by text
  drop_copies   one part, of all runs       -> which copies go; what stays, in parts by rank
  rename        one part, of all that stays -> which documents share their id; the smallest ranks
  decide        what came back to the runs  -> train, validation or dropped, each document
A *group* is some runs in a row, whose tables are worked on together; what comes back comes in a block for each group.
Of a text or an id that is there a million times each step sends one row on, so that no part grows by it.
Letters: D documents of a run, R rows, P parts, G groups.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from input_pipeline.prepare import spill, splits
from input_pipeline.prepare.spill import Decisions

_PLACE = [('run', '<u4'), ('place', '<u4')]  # which document: its run, its place there
PLACE = np.dtype(_PLACE)
# used: it has pieces; shared: others with its rank stayed behind, and so has its own place
ROW = np.dtype([('text', '<u8', 2), ('rank', '<u8'), ('content', '<u8'), ('used', '?'), ('shared', '?'), *_PLACE])


@dataclasses.dataclass(frozen=True)
class Table:
  """The documents of a run without their pieces."""
  texts: np.ndarray  # [D 2] uint64, as of the run
  ranks: np.ndarray  # [D] uint64
  contents: np.ndarray  # [D] uint64
  pieces: np.ndarray  # [D] uint32, how many each has
  tokens: np.ndarray  # [D] uint64, of its pieces


@dataclasses.dataclass(frozen=True)
class Found:
  """The documents that are placed in a split, as far as a part knows."""
  documents: int
  smallest: tuple[int, ...]  # the two smallest of the ranks by which they are placed


def table(run: spill.Run) -> Table:
  documents = len(run.ranks)
  return Table(run.texts, run.ranks, run.contents, np.bincount(run.documents, minlength=documents).astype('<u4'),
               np.bincount(run.documents, run.pieces.tokens, documents).astype('<u8'))


def rows_of(first: int, tables: Sequence[Table], parts: int) -> tuple[np.ndarray, list[np.ndarray]]:
  # -> [R] PLACE, P times [R] ROW
  """Of the documents of a group, the runs first, first + 1 …, those that copy another of them; and the others, in parts
  by the hash of their text."""
  made = []
  for number, own in enumerate(tables):
    rows = np.zeros(len(own.ranks), ROW)
    rows['text'], rows['rank'], rows['content'], rows['used'] = own.texts, own.ranks, own.contents, own.pieces > 0
    rows['run'], rows['place'] = first + number, np.arange(len(rows))
    made.append(rows)
  rows = _joined(made)
  copies = splits.later_copies(rows['text'], rows['rank'], rows['content'])
  first_ones = rows[~copies]
  return _places(rows[copies]), _parted(first_ones, first_ones['text'][:, 0], parts)


def drop_copies(blocks: Sequence[np.ndarray], groups: Sequence[int], parts: int
                ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray], Found]:
  # -> G times [R] PLACE, G times [R] PLACE, P times [R] ROW, -
  """Of one part the copies that go, and the documents that share their id, for each group; of what stays and has pieces
  one row for each id, in parts by rank.

  `blocks` come in the order of the runs; `groups` are the first runs of the groups.
  """
  rows = _joined(blocks)
  copies = splits.later_copies(rows['text'], rows['rank'], rows['content'])
  used = rows[~copies & rows['used']]
  used['shared'] = splits.shared_ranks(used['rank'], np.ones(len(used), bool))
  several = used[used['shared']]
  _, first_ones = np.unique(used['rank'], return_index=True)
  onward = used[first_ones]
  return (_to_groups(rows[copies], groups), _to_groups(several, groups), _parted(onward, onward['rank'], parts),
          _found(several['content']))


def rename(blocks: Sequence[np.ndarray], groups: Sequence[int]) -> tuple[list[np.ndarray], Found]:
  # -> G times [R] PLACE, -
  """Of one part the documents whose id others have too, as far as that was not known, for each group."""
  rows = _joined(blocks)
  shared = splits.shared_ranks(rows['rank'], np.ones(len(rows), bool))
  new = ~rows['shared']
  return (_to_groups(rows[shared & new], groups),
          _found(np.where(shared, rows['content'], rows['rank'])[new]))


def _found(ranks: np.ndarray) -> Found:
  distinct = np.unique(ranks)
  return Found(len(distinct), tuple(distinct[:2].tolist()))


def together(found: Sequence[Found]) -> Found:
  return Found(sum(one.documents for one in found),
               tuple(sorted({rank for one in found for rank in one.smallest})[:2]))


def decide(first: int, tables: Sequence[Table], dropped: Sequence[np.ndarray], renamed: Sequence[np.ndarray],
           below: np.uint64) -> tuple[list[Decisions], dict[str, int], dict[int, splits.Total]]:
  """The decisions of a group, the runs first, first + 1 …; what they add to the counts, and to each split."""
  ends = np.cumsum([0, *(len(own.ranks) for own in tables)])
  joined = lambda name: np.concatenate([getattr(own, name) for own in tables])

  def marked(blocks: Sequence[np.ndarray]) -> np.ndarray:
    marks = np.zeros(ends[-1], bool)
    for block in blocks:
      marks[ends[block['run'] - first] + block['place']] = True
    return marks

  copies, of_content = marked(dropped), marked(renamed)
  assigned = splits.assign(np.where(of_content, joined('contents'), joined('ranks')), copies, below)
  pieces, tokens = joined('pieces'), joined('tokens')
  counts = {'duplicates': int(copies.sum()), 'documents': -int(copies.sum()), 'repeated_ids': int(of_content.sum()),
            'without_pieces': int((~copies & (pieces == 0)).sum())}
  totals = {split: splits.Total(int((own & (pieces > 0)).sum()), int(pieces[own].sum()), int(tokens[own].sum()))
            for split in spill.SPLITS for own in [assigned == split]}
  cut = lambda values: np.split(values, ends[1:-1])
  return list(map(Decisions, cut(assigned), cut(of_content))), counts, totals


def _joined(blocks: Sequence[np.ndarray]) -> np.ndarray:
  return np.concatenate([np.zeros(0, ROW), *blocks])


def _parted(rows: np.ndarray, by: np.ndarray, parts: int) -> list[np.ndarray]:  # [R] ROW, [R] uint64 -> P times [R]
  """In parts by equal ranges of a hash, each in the order that the rows have."""
  if parts == 1:
    return [rows]
  part = (by >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
  order = np.argsort(part, kind='stable')
  return np.split(rows[order], np.searchsorted(part[order], np.arange(1, parts, dtype=np.uint64)))


def _to_groups(rows: np.ndarray, groups: Sequence[int]) -> list[np.ndarray]:  # [R] ROW, [G] -> G times [R] PLACE
  """In blocks by the group of their run."""
  places = _places(rows)
  places = places[np.argsort(places['run'], kind='stable')]
  return np.split(places, np.searchsorted(places['run'], np.array(groups[1:], '<u4')))


def _places(rows: np.ndarray) -> np.ndarray:  # [R] ROW -> [R] PLACE
  places = np.zeros(len(rows), PLACE)
  places['run'], places['place'] = rows['run'], rows['place']
  return places

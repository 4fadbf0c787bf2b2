"""What is decided of documents where no machine holds the hashes of them all: as splits.decide does, part by part.

Rows of hashes travel twice, each time to where those that must meet are together:
  rows_of       tables of some runs         -> the first of each text there, in parts by text
  drop_copies   one part, of all runs       -> which copies go; what stays, in parts by rank
  rename        one part, of all that stays -> which documents share their id; the smallest ranks
  near_drawn    a group                     -> with --near-duplicates: some keys of what is left, which tell its slices
  near_rows     a group                     -> what is left, in slices by what bands hold and by rank
  drop_near     one slice, of all groups    -> which of them go
  decide        what came back to the runs  -> train, validation or dropped, each document
A *group* is some runs in a row, whose tables are worked on together; what comes back comes in a block for each group.
Of a text or an id that is there a million times each step sends one row on, so that no part grows by it.
Letters: D documents of a run, R rows, P parts, G groups, C cuts, S slices.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from input_pipeline.prepare import near_duplicates, spill, splits
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
  signatures: np.ndarray  # [D K] uint32, as of the run


@dataclasses.dataclass(frozen=True)
class Found:
  """The documents that are placed in a split, as far as a part knows."""
  documents: int
  smallest: tuple[int, ...]  # the two smallest of the ranks by which they are placed


def table(run: spill.Run) -> Table:
  documents = len(run.ranks)
  return Table(run.texts, run.ranks, run.contents, np.bincount(run.documents, minlength=documents).astype('<u4'),
               np.bincount(run.documents, run.pieces.tokens, documents).astype('<u8'), run.signatures)


def bytes_of_a_document(near: bool) -> int:
  """Of the rows that are sent of it at once."""
  return near_duplicates.DOCUMENT_BYTES if near else ROW.itemsize


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
          found_of(several['content']))


def rename(blocks: Sequence[np.ndarray], groups: Sequence[int]) -> tuple[list[np.ndarray], Found]:
  # -> G times [R] PLACE, -
  """Of one part the documents whose id others have too, as far as that was not known, for each group."""
  rows = _joined(blocks)
  shared = splits.shared_ranks(rows['rank'], np.ones(len(rows), bool))
  new = ~rows['shared']
  return (_to_groups(rows[shared & new], groups),
          found_of(np.where(shared, rows['content'], rows['rank'])[new]))


def found_of(ranks: np.ndarray) -> Found:
  distinct = np.unique(ranks)
  return Found(len(distinct), tuple(distinct[:2].tolist()))


def together(found: Sequence[Found]) -> Found:
  return Found(sum(one.documents for one in found),
               tuple(sorted({rank for one in found for rank in one.smallest})[:2]))


def near_drawn(first: int, tables: Sequence[Table], dropped: Sequence[np.ndarray], renamed: Sequence[np.ndarray],
               parts: int, part_bytes: int) -> np.ndarray:  # -> [R] near_duplicates.KEY
  """Of a group some of what is to be compared, by which it is told where slices end."""
  return np.concatenate([near_duplicates.drawn(own.signatures[kept], ranks, parts, part_bytes)
                         for own, (kept, ranks) in zip(tables, _compared(first, tables, dropped, renamed))])


def near_rows(first: int, tables: Sequence[Table], dropped: Sequence[np.ndarray], renamed: Sequence[np.ndarray],
              parts: int, cut: np.ndarray) -> list[np.ndarray]:
  # -, -, -, -, -, [C] near_duplicates.KEY -> S times [R] near_duplicates.ROW
  """Of a group what is to be compared, slice by slice."""
  every = [near_duplicates.rows_of(own.signatures[kept], ranks, kept, first + number, parts, cut)
           for number, (own, (kept, ranks)) in enumerate(zip(tables, _compared(first, tables, dropped, renamed)))]
  return [np.concatenate(own) for own in zip(*every)]


def _compared(first: int, tables: Sequence[Table], dropped: Sequence[np.ndarray], renamed: Sequence[np.ndarray]
              ) -> list[tuple[np.ndarray, np.ndarray]]:  # -> [R] places, [R] ranks of each run
  """What is compared to find near-duplicates, which no copies are."""
  copies, _, ranks = _marks(first, tables, dropped, renamed)
  ends = _ends(tables)[1:-1]
  return [(kept, own[kept]) for gone, own in zip(np.split(copies, ends), np.split(ranks, ends))
          for kept in [np.flatnonzero(~gone)]]


def near_ends(blocks: Sequence[np.ndarray]) -> np.ndarray:  # G times [R] near_duplicates.ROW -> [0 or 2]
  """Of one slice, of all groups in their order, what later ones must know."""
  rows = np.concatenate(blocks)
  return rows[near_duplicates.ends(rows)]


def drop_near(known: np.ndarray, blocks: Sequence[np.ndarray], groups: Sequence[int], share: float
              ) -> list[np.ndarray]:  # [0 or 2] near_duplicates.ROW, G times [R], [G] -> G times [R] PLACE
  """Of one slice, of all groups in their order, the near-duplicates that go, for each group; `known`: what those before
  it tell."""
  rows = np.concatenate([known, *blocks])
  found = near_duplicates.find_in(rows, share)
  found[:len(known)] = False
  return _to_groups(rows[found], groups)


def left(first: int, tables: Sequence[Table], dropped: Sequence[np.ndarray], renamed: Sequence[np.ndarray],
         near: Sequence[np.ndarray]) -> Found:
  """What is placed in a split of a group, where near-duplicates went."""
  copies, _, ranks = _marks(first, tables, dropped, renamed)
  used = np.concatenate([own.pieces for own in tables]) > 0
  return found_of(ranks[used & ~copies & ~_marked(first, tables, near)])


def _ends(tables: Sequence[Table]) -> np.ndarray:
  return np.cumsum([0, *(len(own.ranks) for own in tables)])


def _marked(first: int, tables: Sequence[Table], blocks: Sequence[np.ndarray]) -> np.ndarray:  # -> bool [R]
  """Of the documents of a group those whose places these are."""
  ends = _ends(tables)
  marks = np.zeros(ends[-1], bool)
  for block in blocks:
    marks[ends[block['run'] - first] + block['place']] = True
  return marks


def _marks(first: int, tables: Sequence[Table], dropped: Sequence[np.ndarray], renamed: Sequence[np.ndarray]
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # -> bool [R], bool [R], [R] uint64
  """Of the documents of a group which are copies, which go by their content; and the rank of each."""
  copies, of_content = _marked(first, tables, dropped), _marked(first, tables, renamed)
  joined = lambda name: np.concatenate([getattr(own, name) for own in tables])
  return copies, of_content, np.where(of_content, joined('contents'), joined('ranks'))


def decide(first: int, tables: Sequence[Table], dropped: Sequence[np.ndarray], renamed: Sequence[np.ndarray],
           below: np.uint64, near: Sequence[np.ndarray] | None = None
           ) -> tuple[list[Decisions], dict[str, int], dict[int, splits.Total]]:
  """The decisions of a group, the runs first, first + 1 …; what they add to the counts, and to each split.

  `near`: places of near-duplicates; None: nobody looked for them.
  """
  copies, of_content, ranks = _marks(first, tables, dropped, renamed)
  gone = copies | _marked(first, tables, near or ())
  assigned = splits.assign(ranks, gone, below)
  joined = lambda name: np.concatenate([getattr(own, name) for own in tables])
  pieces, tokens = joined('pieces'), joined('tokens')
  counts = {'duplicates': int(copies.sum()), 'documents': -int(gone.sum()), 'repeated_ids': int(of_content.sum()),
            'without_pieces': int((~gone & (pieces == 0)).sum())}
  if near is not None:
    counts['near_duplicates'] = int(gone.sum()) - int(copies.sum())
  totals = {split: splits.Total(int((own & (pieces > 0)).sum()), int(pieces[own].sum()), int(tokens[own].sum()))
            for split in spill.SPLITS for own in [assigned == split]}
  cut = lambda values: np.split(values, _ends(tables)[1:-1])
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


def _places(rows: np.ndarray) -> np.ndarray:  # [R] ROW, or of near-duplicates -> [R] PLACE
  places = np.zeros(len(rows), PLACE)
  places['run'], places['place'] = rows['run'], rows['place']
  return places

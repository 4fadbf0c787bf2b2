"""The original's next-sentence pairs, made once: create_pretraining_data.py, create_instances_from_document.

Here on lengths only, so that the rules can be read and tested without text: a segment is a span of tokens of one
document.
Letters: D documents of a split.
"""

import dataclasses
import functools
import pathlib
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from input_pipeline import records
from input_pipeline.prepare import pieces, spill
from input_pipeline.prepare.columns import Pieces
from input_pipeline.records import COLUMNS

_TRIES = 10  # of the original, to draw another document
_JOB_TOKENS = 1 << 20


@dataclasses.dataclass(frozen=True)
class Pair:
  """Segments A, of the document itself, and B, as tokens start … end-1 of their documents."""
  a_start: int
  a_end: int
  b_start: int
  b_end: int
  b_document: int
  is_random: bool


@dataclasses.dataclass(frozen=True)
class Job:
  """Pairs to make in one go: those of documents start … end-1 of a split."""
  runs: tuple[pathlib.Path, ...]  # of whole documents
  table: pathlib.Path  # what _index gave, as .npy
  start: int
  end: int
  most: int
  short_share: float
  seed: int
  dupe_factor: int


def pairs_of_document(rng: random.Random, index: int, lengths: Callable[[int], Sequence[int]], documents: int,
                      most: int, short_share: float, own_document: bool = False) -> Iterator[Pair]:
  """The pairs of document `index` of `documents`; lengths(i) are the tokens of each sentence of document i, none empty.

  Draws from `rng` what the original draws, in its order, except for the masks. `most` is max_num_tokens, the row
  without its three special tokens. One departure, but with `own_document`: where ten draws found only the document
  itself, the next one is taken, so that a negative never comes from the same document.
  """
  document = lengths(index)
  target = rng.randint(2, most) if rng.random() < short_share else most
  first, size, i, start = 0, 0, 0, 0  # the chunk is sentences first … i, from token `start` on
  while i < len(document):
    size += document[i]
    if i == len(document) - 1 or size >= target:
      count = i + 1 - first
      a_count = rng.randint(1, count - 1) if count >= 2 else 1
      middle = start + sum(document[first:first + a_count])
      a, b, other = (start, middle), (middle, start + size), index
      is_random = count == 1 or rng.random() < 0.5
      if is_random:
        other, b = _random_segment(rng, index, lengths, documents, target - (middle - start), own_document)
        i -= count - a_count  # put back, so that they are not lost
        size = middle - start
      yield Pair(*_truncated(rng, a, b, most), other, is_random)
      first, start, size = i + 1, start + size, 0
    i += 1


def _random_segment(rng: random.Random, index: int, lengths: Callable[[int], Sequence[int]], documents: int,
                    target: int, own_document: bool) -> tuple[int, tuple[int, int]]:
  """Whole sentences of another document from a random one on, at least one, until there are `target` tokens."""
  for _ in range(_TRIES):
    other = rng.randint(0, documents - 1)
    if other != index:
      break
  else:
    other = index if own_document else (index + 1) % documents
  document = lengths(other)
  sentence = rng.randint(0, len(document) - 1)
  start = end = sum(document[:sentence])
  for length in document[sentence:]:
    end += length
    if end - start >= target:
      break
  return other, (start, end)


def _truncated(rng: random.Random, a: tuple[int, int], b: tuple[int, int], most: int) -> tuple[int, int, int, int]:
  """truncate_seq_pair: the longer segment, or B, loses a token at its front or its end, by chance, until both fit."""
  (a_start, a_end), (b_start, b_end) = a, b
  while a_end - a_start + b_end - b_start > most:
    front = rng.random() < 0.5
    if a_end - a_start > b_end - b_start:
      a_start, a_end = a_start + front, a_end - (not front)
    else:
      b_start, b_end = b_start + front, b_end - (not front)
  return a_start, a_end, b_start, b_end

# ---------------------------------------------------------------- over a corpus


class Documents:
  """The documents of a split in the order of an index [D 4], each read where it lies."""

  def __init__(self, runs: Sequence[pathlib.Path], index: np.ndarray):
    self.runs, self.index = runs, index
    self.open = functools.lru_cache(maxsize=1024)(_open)

  def __len__(self) -> int:
    return len(self.index)

  def lengths(self, document: int) -> list[int]:
    """Tokens of each of its sentences."""
    number, place, _, _ = self.index[document]
    run, sentences, _ = self.open(self.runs[number])
    return run.pieces['sentence_lengths'][sentences[place]:sentences[place + 1]].tolist()

  def segment(self, document: int, start: int, end: int) -> dict[str, np.ndarray]:
    """Tokens start … end-1 of a document, of every column that has a value for each token."""
    number, place, _, _ = self.index[document]
    run, _, starts = self.open(self.runs[number])
    return {name: values[starts[place] + start:starts[place] + end]
            for name, values in run.pieces.columns.items() if COLUMNS[name].per == 'token'}

  def segments(self, document: int, pair: Pair) -> list[dict[str, np.ndarray]]:
    """A and B."""
    return [self.segment(document, pair.a_start, pair.a_end), self.segment(pair.b_document, pair.b_start, pair.b_end)]

  def key(self, document: int) -> int:
    number, place, _, _ = self.index[document]
    return int(self.open(self.runs[number])[0].pieces.keys[place])

  def rank(self, document: int) -> np.uint64:
    number, place, _, _ = self.index[document]
    run, _, _ = self.open(self.runs[number])
    return run.ranks[run.documents[place]]


def make_runs(paths: list[pathlib.Path], decisions: list[spill.Decisions], most: int, short_share: float, seed: int,
              dupe_factor: int,
              directory: pathlib.Path, submit: Callable) -> tuple[list[pathlib.Path], list[spill.Decisions]]:
  """Runs of pairs, and what is decided of their documents, from runs of whole documents; of each split apart.

  Raises DataError.
  """
  made = []
  for split, index in indices(paths, decisions).items():
    table = directory / f'{spill.SPLITS[split]}.npy'
    np.save(table, index)
    starts = np.flatnonzero(np.diff(np.cumsum(index[:, 2]) // _JOB_TOKENS, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(index)]):
      path = directory / f'{spill.SPLITS[split]}-{start:012d}.run'
      job = Job(tuple(paths), table, start, end, most, short_share, seed, dupe_factor)
      made.append((path, split, submit(make_run, job, path)))
  for _, _, future in made:
    future.result()
  return [path for path, _, _ in made], [all_of(split, len(spill.read(path).ranks)) for path, split, _ in made]


def all_of(split: int, documents: int) -> spill.Decisions:
  return spill.Decisions(np.full(documents, split, np.uint8), np.zeros(documents, bool))


def indices(paths: list[pathlib.Path], decisions: list[spill.Decisions],
            as_read: bool = False) -> dict[int, np.ndarray]:  # -> {split: [D 4]}
  """(run, place in it, tokens, document's number) of every document of each split that is not empty.

  They are sorted by key, so that it does not depend on how runs were cut; or in the order of the input. Raises
  DataError.
  """
  found = {}
  for split, name in spill.SPLITS.items():
    rows, keys = [np.zeros((0, 4), np.int64)], [np.zeros(0, np.uint64)]
    for number, (path, own) in enumerate(zip(paths, decisions)):
      run = spill.read(path)
      places = np.flatnonzero(own.splits[run.documents] == split)
      if as_read:
        places = places[np.argsort(run.documents[places], kind='stable')]
      numbers = spill.document_numbers(run, own, run.documents[places], run.pieces['document_ids'][places])
      columns = np.full(len(places), number), places, run.pieces.tokens[places], numbers
      rows.append(np.stack(columns, 1).astype(np.int64))
      keys.append(run.pieces.keys[places])
    index = np.concatenate(rows)
    if len(index) == 1:
      raise records.DataError(
          f'--pairs google: the {name} split holds one document, and a random B comes from another; wanted at '
          'least 2: give more text, or change --validation-share (0: none is held out)')
    if len(index):
      found[split] = index if as_read else index[np.argsort(np.concatenate(keys), kind='stable')]
  return found


def make_run(job: Job, path: pathlib.Path) -> None:
  """The pairs of documents start … end-1, each `dupe_factor` times, as one run."""
  if path.exists():
    return
  corpus = Documents(job.runs, np.load(job.table, mmap_mode='r'))
  segments, pairs, keys, documents = [], [], [], []
  for document in range(job.start, job.end):
    key = corpus.key(document)
    for copy in range(job.dupe_factor):
      rng = random.Random(f'{job.seed} {key} {copy}')
      made = list(pairs_of_document(rng, document, corpus.lengths, len(corpus), job.most, job.short_share))
      for pair in made:
        segments += corpus.segments(document, pair)
      pairs += made
      documents += [document] * len(made)
      keys.append(pieces.piece_keys(pieces.mixed_key(key, copy), len(made)))
  write(path, corpus, range(job.start, job.end), pairs, documents, np.concatenate(keys), joined(segments))


def joined(segments: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Their columns, one segment after the other."""
  return {name: np.concatenate([one[name] for one in segments]) for name in segments[0]}


def write(path: pathlib.Path, corpus: Documents, of: range, pairs: list[Pair], documents: list[int], keys: np.ndarray,
          tokens: dict[str, np.ndarray]) -> None:
  """A run of pairs: of each its document, which is one of `of`, and its key; `tokens`: the columns of all tokens."""
  sizes = np.array([[pair.a_end - pair.a_start, pair.b_end - pair.b_start] for pair in pairs], '<u4')
  numbers = np.array(documents, np.int64)
  spill.write(path, spill.order(spill.Run(
      texts=np.zeros((0, 2), '<u8'), ranks=np.array([corpus.rank(document) for document in of], '<u8'),
      contents=np.zeros(len(of), '<u8'), signatures=np.zeros((0, 0), '<u4'),
      documents=(numbers - of.start).astype('<i4'),
      pieces=Pieces(keys, sizes.sum(1).astype('<u4'), tokens | {
          'sentence_lengths': sizes.reshape(-1), 'piece_sentences': np.full(len(pairs), 2, '<u4'),
          'document_ids': corpus.index[numbers, 3].astype('<i4'),
          'next_sentence_labels': np.array([pair.is_random for pair in pairs], '<u4')}))), {})


def _open(path: pathlib.Path) -> tuple[spill.Run, np.ndarray, np.ndarray]:
  """A run of documents, and where each one's sentences and tokens begin."""
  run = spill.read(path)
  return run, np.cumsum([0, *run.pieces['piece_sentences']]), np.cumsum([0, *run.pieces.tokens])

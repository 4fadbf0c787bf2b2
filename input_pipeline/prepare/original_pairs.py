"""The original's next-sentence pairs, made once: create_pretraining_data.py, create_instances_from_document.

Here on lengths only, so that the rules can be read and tested without text: a segment is a span of tokens of one
document.
Letters: D documents of a split.
"""

import dataclasses
import functools
import pathlib
import random
from collections.abc import Callable, Sequence

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
                      most: int, short_share: float) -> list[Pair]:
  """The pairs of document `index` of `documents`; lengths(i) are the tokens of each sentence of document i, none empty.

  Draws from `rng` what the original draws, in its order, except for the masks. `most` is max_num_tokens, the row
  without its three special tokens. One departure: where ten draws found only the document itself, the next one is
  taken, so that a negative never comes from the same document.
  """
  document, pairs = lengths(index), []
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
        other, b = _random_segment(rng, index, lengths, documents, target - (middle - start))
        i -= count - a_count  # put back, so that they are not lost
        size = middle - start
      pairs.append(Pair(*_truncated(rng, a, b, most), other, is_random))
      first, start, size = i + 1, start + size, 0
    i += 1
  return pairs


def _random_segment(rng: random.Random, index: int, lengths: Callable[[int], Sequence[int]], documents: int,
                    target: int) -> tuple[int, tuple[int, int]]:
  """Whole sentences of another document from a random one on, at least one, until there are `target` tokens."""
  for _ in range(_TRIES):
    other = rng.randint(0, documents - 1)
    if other != index:
      break
  else:
    other = (index + 1) % documents
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


def make_runs(paths: list[pathlib.Path], decisions: list[spill.Decisions], most: int, short_share: float, seed: int,
              dupe_factor: int,
              directory: pathlib.Path, submit: Callable) -> tuple[list[pathlib.Path], list[spill.Decisions]]:
  """Runs of pairs, and what is decided of their documents, from runs of whole documents; of each split apart.

  Raises DataError.
  """
  made = []
  for split, name in spill.SPLITS.items():
    index = _index(paths, decisions, split)
    if len(index) == 1:
      raise records.DataError(
          f'--pairs google: the {name} split holds one document, and a random B comes from another; wanted at '
          'least 2: give more text, or change --validation-share (0: none is held out)')
    if not len(index):
      continue
    table = directory / f'{name}.npy'
    np.save(table, index)
    starts = np.flatnonzero(np.diff(np.cumsum(index[:, 2]) // _JOB_TOKENS, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(index)]):
      path = directory / f'{name}-{start:012d}.run'
      job = Job(tuple(paths), table, start, end, most, short_share, seed, dupe_factor)
      made.append((path, split, submit(make_run, job, path)))
  for _, _, future in made:
    future.result()
  return [path for path, _, _ in made], [_all_of(split, len(spill.read(path).ranks)) for path, split, _ in made]


def _all_of(split: int, documents: int) -> spill.Decisions:
  return spill.Decisions(np.full(documents, split, np.uint8), np.zeros(documents, bool))


def _index(paths: list[pathlib.Path], decisions: list[spill.Decisions], split: int) -> np.ndarray:  # -> [D 4]
  """(run, place in it, tokens, document's number) of every document of this split, sorted by key: so it does not depend
  on how runs were cut."""
  rows, keys = [np.zeros((0, 4), np.int64)], [np.zeros(0, np.uint64)]
  for number, (path, own) in enumerate(zip(paths, decisions)):
    run = spill.read(path)
    places = np.flatnonzero(own.splits[run.documents] == split)
    numbers = spill.document_numbers(run, own, run.documents[places], run.pieces['document_ids'][places])
    columns = np.full(len(places), number), places, run.pieces.tokens[places], numbers
    rows.append(np.stack(columns, 1).astype(np.int64))
    keys.append(run.pieces.keys[places])
  return np.concatenate(rows)[np.argsort(np.concatenate(keys), kind='stable')]


def make_run(job: Job, path: pathlib.Path) -> None:
  """The pairs of documents start … end-1, each `dupe_factor` times, as one run."""
  if path.exists():
    return
  index = np.load(job.table, mmap_mode='r')
  opened = functools.lru_cache(maxsize=1024)(_open)

  def lengths(document: int) -> list[int]:
    number, place, _, _ = index[document]
    run, sentences, _ = opened(job.runs[number])
    return run.pieces['sentence_lengths'][sentences[place]:sentences[place + 1]].tolist()

  def segment(document: int, start: int, end: int) -> dict[str, np.ndarray]:
    """Tokens start … end-1 of a document, of every column that has a value for each token."""
    number, place, _, _ = index[document]
    run, _, starts = opened(job.runs[number])
    return {name: values[starts[place] + start:starts[place] + end]
            for name, values in run.pieces.columns.items() if COLUMNS[name].per == 'token'}

  segments, pairs, keys, documents, document_ids, ranks = [], [], [], [], [], []
  for document in range(job.start, job.end):
    run, _, _ = opened(job.runs[index[document][0]])
    place = index[document][1]
    key = int(run.pieces.keys[place])
    for copy in range(job.dupe_factor):
      rng = random.Random(f'{job.seed} {key} {copy}')
      made = pairs_of_document(rng, document, lengths, len(index), job.most, job.short_share)
      for pair in made:
        segments += [segment(document, pair.a_start, pair.a_end), segment(pair.b_document, pair.b_start, pair.b_end)]
      pairs += made
      documents += [document - job.start] * len(made)
      document_ids += [index[document][3]] * len(made)
      keys.append(pieces.piece_keys(pieces.mixed_key(key, copy), len(made)))
    ranks.append(run.ranks[run.documents[place]])
  sizes = np.array([[pair.a_end - pair.a_start, pair.b_end - pair.b_start] for pair in pairs], '<u4')
  tokens = {name: np.concatenate([one[name] for one in segments]) for name in segments[0]}
  spill.write(path, spill.order(spill.Run(
      texts=np.zeros((0, 2), '<u8'), ranks=np.array(ranks, '<u8'), contents=np.zeros(len(ranks), '<u8'),
      signatures=np.zeros((0, 0), '<u4'),
      documents=np.array(documents, '<i4'),
      pieces=Pieces(np.concatenate(keys), sizes.sum(1).astype('<u4'), tokens | {
          'sentence_lengths': sizes.reshape(-1), 'piece_sentences': np.full(len(pairs), 2, '<u4'),
          'document_ids': np.array(document_ids, '<i4'),
          'next_sentence_labels': np.array([pair.is_random for pair in pairs], '<u4')}))), {})


def _open(path: pathlib.Path) -> tuple[spill.Run, np.ndarray, np.ndarray]:
  """A run of documents, and where each one's sentences and tokens begin."""
  run = spill.read(path)
  return run, np.cumsum([0, *run.pieces['piece_sentences']]), np.cumsum([0, *run.pieces.tokens])

"""The original's next-sentence pairs, made once: create_pretraining_data.py, create_instances_from_document.

Here on lengths alone, so that the rules can be read and tested without text: a segment is a span of tokens of one document.
Letters: D documents of a split.
"""

import dataclasses
import functools
import pathlib
import random
from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline.prepare import pieces, spill

_TRIES = 10  # of the original, to draw another document
_JOB_TOKENS = 1 << 20


def pairs_of_document(rng: random.Random, index: int, lengths: Callable[[int], Sequence[int]], documents: int, most: int,
                      short_share: float) -> list['Pair']:
  """The pairs of document `index` of `documents`; lengths(i) are the tokens of each sentence of document i, none empty.

  Draws from `rng` what the original draws, in its order, except for the masks. `most` is max_num_tokens, the row without its
  three special tokens. One departure: where ten draws found only the document itself, the next one is taken, so that
  a negative never comes from the same document.
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
  """Whole sentences of another document from a random one on, until there are `target` tokens or it ends; at least one."""
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


def make_runs(paths: list[pathlib.Path], fates: list[np.ndarray], most: int, short_share: float, seed: int, dupe_factor: int,
              directory: pathlib.Path, submit: Callable) -> tuple[list[pathlib.Path], list[np.ndarray]]:
  """Runs of pairs, and their documents' fates, from runs of whole documents; of TRAIN and VALIDATION apart."""
  made = []
  for fate in spill.SPLITS:
    index = _index(paths, fates, fate)
    if len(index) < 2:
      continue  # no negatives possible
    table = directory / f'{spill.SPLITS[fate]}.npy'
    np.save(table, index)
    starts = np.flatnonzero(np.diff(np.cumsum(index[:, 2]) // _JOB_TOKENS, prepend=-1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(index)]):
      path = directory / f'{spill.SPLITS[fate]}-{start:012d}.run'
      job = Job(tuple(paths), table, start, end, most, short_share, seed, dupe_factor)
      made.append((path, fate, submit(make_run, job, path)))
  for _, _, future in made:
    future.result()
  return [path for path, _, _ in made], [np.full(len(spill.read(path).document_ranks), fate, np.uint8) for path, fate, _ in made]


def _index(paths: list[pathlib.Path], fates: list[np.ndarray], fate: int) -> np.ndarray:  # -> [D 3]
  """(run, place in it, tokens) of every document with this fate, sorted by key: so it does not depend on how runs were cut."""
  rows, keys = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.uint64)]
  for number, (path, run_fates) in enumerate(zip(paths, fates)):
    run = spill.read(path)
    places = np.flatnonzero(run_fates[run.piece_documents] == fate)
    rows.append(np.stack([np.full(len(places), number), places, run.piece_tokens[places]], 1).astype(np.int64))
    keys.append(run.keys[places])
  return np.concatenate(rows)[np.argsort(np.concatenate(keys), kind='stable')]


def make_run(job: 'Job', path: pathlib.Path) -> None:
  """The pairs of documents start … end-1, each `dupe_factor` times, as one run."""
  if path.exists():
    return
  index = np.load(job.table, mmap_mode='r')
  opened = functools.lru_cache(maxsize=1024)(_open)

  def lengths(document: int) -> list[int]:
    number, place, _ = index[document]
    run, sentences, _ = opened(job.runs[number])
    return run.sentence_lengths[sentences[place]:sentences[place + 1]].tolist()

  ids, word_starts, sizes, keys, labels, owners, ranks, numbers = [], [], [], [], [], [], [], []
  for document in range(job.start, job.end):
    run, _, starts = opened(job.runs[index[document][0]])
    place = index[document][1]
    key, own = int(run.keys[place]), run.piece_documents[place]
    for copy in range(job.dupe_factor):
      rng = random.Random(f'{job.seed} {key} {copy}')
      pairs = pairs_of_document(rng, document, lengths, len(index), job.most, job.short_share)
      for pair in pairs:
        other, _, other_starts = opened(job.runs[index[pair.b_document][0]])
        there = other_starts[index[pair.b_document][1]]
        a = slice(starts[place] + pair.a_start, starts[place] + pair.a_end)
        b = slice(there + pair.b_start, there + pair.b_end)
        ids += [run.input_ids[a], other.input_ids[b]]
        word_starts += [run.word_starts[a], other.word_starts[b]]
        sizes += [pair.a_end - pair.a_start, pair.b_end - pair.b_start]
        labels.append(pair.is_random)
      owners += [document - job.start] * len(pairs)
      keys.append(pieces.piece_keys(pieces.mixed(key, copy), len(pairs)))
    ranks.append(run.document_ranks[own])
    numbers.append(run.document_numbers[own])
  spill.write(path, spill.order(spill.Run(
      document_texts=np.zeros(0, '<u8'), document_ranks=np.array(ranks, '<u8'), document_numbers=np.array(numbers, '<i4'),
      document_signatures=np.zeros(0, '<u4'), keys=np.concatenate(keys),
      piece_documents=np.array(owners, '<i4'), piece_sentences=np.full(len(labels), 2, '<u4'),
      piece_tokens=np.zeros(0, '<u4'), piece_labels=np.array(labels, 'u1'), sentence_lengths=np.array(sizes, '<u4'),
      input_ids=np.concatenate(ids), word_starts=np.concatenate(word_starts))), {})


def _open(path: pathlib.Path) -> tuple[spill.Run, np.ndarray, np.ndarray]:
  """A run of documents, and where each one's sentences and tokens begin."""
  run = spill.read(path)
  return run, np.cumsum([0, *run.piece_sentences]), np.cumsum([0, *run.piece_tokens])


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
  runs: tuple[pathlib.Path, ...]  # of whole documents
  table: pathlib.Path  # what _index gave, as .npy
  start: int
  end: int
  most: int
  short_share: float
  seed: int
  dupe_factor: int

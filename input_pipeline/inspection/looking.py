"""Looking through prepared data: every checksum verified, every figure of the report found.

Letters: L lengths.
"""

import dataclasses
import functools
import uuid
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from input_pipeline import counts as counts_lib, records, storage
from input_pipeline.batches import loader, shards
from input_pipeline.batches.checks import require
from input_pipeline.batches.loader import BatchConfig
from input_pipeline.batches.masking import STORED, Masking
from input_pipeline.batches.pairs import PairKind
from input_pipeline.engines import gathering, names, table
from input_pipeline.inspection import copies, examples as examples_lib, figures, findings, sample as sample_lib, tokens
from input_pipeline.inspection.findings import Report

VERIFIED = {'full': 'sizes, framing, SHA-256, ids and lengths of every shard',
            'framing': 'sizes and framing of every shard'}
BINS = 8  # of the histogram of lengths
SAMPLED_WINDOWS = 16  # whose pairs are counted
PACKED_PAIRS = 16  # pairs of a packed row, at most
PACKED_SLOTS = 4  # more slots for predictions in a packed row: each pair's count is rounded
SOME_COPIES = 0.01  # of the validation pieces: more of them are worth a warning
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
TABLE_BYTES, PART_BYTES = 56, 32 << 20  # of a block in an index; of an index that is on its way at once


def inspect(directory: storage.PathLike, examples: int = 1, seed: int = 12345, pairs: PairKind | None = None,
            masking: Masking = BatchConfig.masking, pack: bool = False,
            most_tokens: int = sample_lib.SAMPLE_TOKENS, verify: str = 'full',
            by: gathering.Job | None = None) -> Report:
  """Verifies every checksum and describes the data. Raises DataError at the first fault.

  `pairs`: as BatchConfig.pairs; None: as the data was prepared. `examples`: rows of each split that are shown.
  `most_tokens`: of a split, about, that are read for what the manifest does not count. `verify`: as in
  shards.open_index. `by`: who reads the shards (looking_by); None: this process.
  """
  if by is None:
    return _inspect(directory, examples, seed, pairs, masking, pack, most_tokens, verify, None)
  table.ENGINES[by.engine].check(by.arguments)
  with storage.named_errors(f'{directory}'), table.session(_with_shards(by, directory), []) as gather:
    here = str(storage.absolute(directory))
    found = _inspect(here, examples, seed, pairs, masking, pack, most_tokens, verify, gather)
  return dataclasses.replace(found, directory=str(directory))


def looking_by(directory: storage.PathLike, engine: str, arguments: Sequence[str] = (), workers: int = 1,
               progress: bool = False) -> gathering.Job | None:
  """Who looks; None: one process, this one."""
  if engine == names.HERE and workers == 1 and not arguments:
    return None
  return gathering.Job(engine, str(directory), str(directory), tuple(arguments), workers, progress)


def _with_shards(by: gathering.Job, directory: storage.PathLike) -> gathering.Job:
  """What workers must see, for the question before the work."""
  root = storage.absolute(directory)
  shards_of = [shard for split in records.read_manifest(directory).splits.values() for shard in split.shards]
  return dataclasses.replace(by, stored=tuple((str(root / shard.file), shard.bytes) for shard in shards_of))


def _inspect(directory: storage.PathLike, examples: int, seed: int, pairs: PairKind | None, masking: Masking,
             pack: bool, most_tokens: int, verify: str, gather: gathering.Gather | None) -> Report:
  require(examples >= 0, f'examples is {examples}; wanted 0 or more')
  manifest = records.read_manifest(directory)
  length = manifest.sequence_length
  pairs = pairs or ('google' if manifest.pairs == 'google' else 'nsp')
  if manifest.masks != records.DYNAMIC and masking == Masking():
    masking = Masking(unit=STORED)
  masking.check()
  slots = max(1, round(length * masking.greatest_share) + PACKED_SLOTS * pack)
  config = BatchConfig(size=max(examples, 1), sequence_length=length, predictions=slots,
                       pairs=pairs, pack=pack, pairs_per_row=PACKED_PAIRS if pack else 1, masking=masking, seed=seed)
  vocabulary = manifest.vocabulary
  parts = sample_lib.parts_of(shards.read_vocabulary(directory, vocabulary), vocabulary)
  indices = {} if gather is None else _indices(directory, manifest, config, verify, gather)
  streams = {name: open_stream(directory, name, config, verify, indices.get(name))
             for name, split in manifest.splits.items() if split.pieces}
  samples = {name: sample_lib.chosen(stream, most_tokens) for name, stream in streams.items()}
  found, looked_up = _looked_at(streams, samples, parts, vocabulary, gather)
  copied = None
  if looked_up is not None:
    assert found.copies is not None
    copied = copies.describe(looked_up, found.copies, samples['train'][1], parts)
  return Report(
      directory=str(directory), sequence_length=length, pairs=manifest.pairs, vocabulary=vocabulary,
      verified=VERIFIED[verify], documents=counts_lib.documents(manifest),
      splits={name: describe(directory, name, stream, manifest, found.splits[name], samples[name][1], parts, examples)
              for name, stream in streams.items()},
      tokens=tokens.describe(found.tokens, parts), copies=copied,
      warnings=(*counts_lib.warnings(manifest), *copy_warnings(copied)),
      settings=manifest.settings, counts=manifest.counts)


def _indices(directory: storage.PathLike, manifest: records.Manifest, config: BatchConfig, verify: str,
             gather: gathering.Gather) -> dict[str, shards.Index]:
  """Of each split, whose shards others check."""
  for sentence in loader.misfits(directory, manifest, config):
    raise records.DataError(sentence)
  every = [(name, number, shard) for name, split in manifest.splits.items() if split.pieces
           for number, shard in enumerate(split.shards)]
  size = sum(shard.records for *_, shard in every) * TABLE_BYTES
  slim = dataclasses.replace(manifest, splits={}, settings={}, counts={})
  tables = figures.all_tables(gather(gathering.Gathering(
      'verifying shards', functools.partial(figures.scan, directory=str(directory), manifest=slim, verify=verify),
      figures.all_tables, figures.divided, max(1, -(-size // PART_BYTES))), every))
  return {name: shards.open_index(directory, name, manifest, verify, [
      tables[name, number] for number in range(len(split.shards))])
          for name, split in manifest.splits.items() if split.pieces}


def _looked_at(streams: Mapping[str, loader.Stream], samples: Mapping[str, tuple[list[int], float]],
               parts: sample_lib.Parts, vocabulary: records.Vocabulary, gather: gathering.Gather | None
               ) -> tuple[figures.Figures, copies.LookedUp | None]:
  """What is found of the windows of samples; pieces of validation that are compared with train, where there are both.
  """
  used: list[int] = []

  def of_validation() -> Iterator[shards.Window]:
    for number in samples['validation'][0]:
      used.append(number)
      yield streams['validation'].read_window(number)

  window = lambda name, number: shards.part_of(streams[name].index, *map(
      int, streams[name].window_bounds[number:number + 2]))
  looked_up = copies.look_up(of_validation()) if {'train', 'validation'} <= samples.keys() else None
  items = ((figures.Item(name, (place, order), window(name, number), share == 1), number)
           for place, (name, (numbers, share)) in enumerate(samples.items()) for order, number in enumerate(numbers))
  if gather is None:
    about = figures.Opened(parts, vocabulary.unk_id, looked_up)
    return functools.reduce(lambda one, two: figures.together([one, two]), (
        figures.of_window(item, about, streams[item.split].read_window(number)) for item, number in items)), looked_up
  asked = figures.Asked(uuid.uuid4().hex, parts.names, vocabulary, None if looked_up is None else tuple(
      window('validation', number) for number in used))
  return figures.together(gather(gathering.Gathering(
      'windows → figures', functools.partial(figures.of_sent, asked=asked), figures.together,
      kinds=figures.KINDS),
      [item for item, _ in items])), looked_up


def open_stream(directory: storage.PathLike, split: str, config: BatchConfig, verify: str,
                index: shards.Index | None = None) -> loader.Stream:
  try:
    return loader.open_split(directory, split, config, verify, index=index)
  except loader.OneDocument:  # worth a look all the same
    return loader.open_split(directory, split, dataclasses.replace(config, pairs='none'), verify, index=index)


def describe(directory: storage.PathLike, split: str, stream: loader.Stream, manifest: records.Manifest,
             found: figures.OfSplit, read_share: float, parts: sample_lib.Parts, examples: int) -> findings.Split:
  counts, length = manifest.splits[split], manifest.sequence_length
  places = counts.pieces * length  # of rows that hold one piece each
  padding = places - counts.tokens - shards.SPECIALS * counts.pieces
  size = sum(shard.bytes for shard in counts.shards)
  sampled = [stream.arrangement(0, number).pairs for number in range(min(SAMPLED_WINDOWS, len(stream.window_rows)))]
  negatives = sum(int(pairs.label.sum()) for pairs in sampled) / sum(len(pairs.label) for pairs in sampled)
  packed = stream if stream.trials else loader.open_split(
      directory, split, dataclasses.replace(stream.config, pack=True, pairs_per_row=PACKED_PAIRS), index=stream.index)
  lengths = np.histogram(np.arange(len(found.pieces)), BINS, (0, length), weights=found.pieces)[0]
  return findings.Split(
      documents=counts.documents, pieces=counts.pieces, sentences=counts.sentences, tokens=counts.tokens,
      shards=len(counts.shards), bytes=size, bytes_per_token=size / counts.tokens,
      unknown_share=counts.unknown_tokens / counts.tokens,
      padding_share=padding / places, padding_share_packed=1 - packed.expected_fill, rows=counts.pieces,
      rows_packed=packed.rows_per_epoch, negative_share=negatives,
      trimmed_tokens=sum(pairs.trimmed for pairs in sampled), read_share=read_share, piece_tokens=five(found.pieces),
      sentence_tokens=five(found.sentences),
      document_pieces=None if found.documents is None else five(np.bincount(found.documents[:, 1])),
      lengths=tuple(map(int, lengths)),
      examples=tuple(examples_lib.rows(stream, parts.names, examples)))


def five(counts: np.ndarray) -> findings.Five:  # [L] -> -
  """Of numbers, by how often each is there: as np.quantile by its method 'nearest'."""
  ends = np.cumsum(counts)
  places = np.rint((ends[-1] - 1) * np.array(QUARTERS)).astype(np.int64)
  return tuple(map(float, np.searchsorted(ends, places, side='right')))


def copy_warnings(found: findings.Copies | None) -> Sequence[str]:
  share = found.exact_share + found.near_share if found else 0
  if share <= SOME_COPIES:
    return ()
  return (f'{share:.1%} of the validation pieces stand in train too, so that held-out figures flatter: '
          'prepare again with --near-duplicates 0.8',)

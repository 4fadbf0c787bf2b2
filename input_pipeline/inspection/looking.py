"""Looking through prepared data: every checksum verified, every figure of the report found.

Letters: N pieces.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from input_pipeline import counts as counts_lib, records, storage
from input_pipeline.batches import loader, shards
from input_pipeline.batches.checks import require
from input_pipeline.batches.loader import BatchConfig
from input_pipeline.batches.masking import STORED, Masking
from input_pipeline.batches.pairs import PairKind
from input_pipeline.inspection import copies, examples as examples_lib, findings, sample as sample_lib, tokens
from input_pipeline.inspection.findings import Report

VERIFIED = {'full': 'sizes, framing, SHA-256, ids and lengths of every shard',
            'framing': 'sizes and framing of every shard'}
BINS = 8  # of the histogram of lengths
SAMPLED_WINDOWS = 16  # whose pairs are counted
PACKED_PAIRS = 16  # pairs of a packed row, at most
PACKED_SLOTS = 4  # more slots for predictions in a packed row: each pair's count is rounded
SOME_COPIES = 0.01  # of the validation pieces: more of them are worth a warning
QUARTERS = (0, 0.25, 0.5, 0.75, 1)


def inspect(directory: storage.PathLike, examples: int = 1, seed: int = 12345, pairs: PairKind | None = None,
            masking: Masking = BatchConfig.masking, pack: bool = False,
            most_tokens: int = sample_lib.SAMPLE_TOKENS, verify: str = 'full') -> Report:
  """Verifies every checksum and describes the data. Raises DataError at the first fault.

  `pairs`: as BatchConfig.pairs; None: as the data was prepared. `examples`: rows of each split that are shown.
  `most_tokens`: of a split, about, that are read for what the manifest does not count. `verify`: as in
  shards.open_index.
  """
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
  streams = {name: open_stream(directory, name, config, verify)
             for name, split in manifest.splits.items() if split.pieces}
  samples = {name: sample_lib.read(stream, most_tokens) for name, stream in streams.items()}
  both = 'train' in samples and 'validation' in samples
  copied = copies.find(samples['train'], samples['validation'], parts) if both else None
  return Report(
      directory=str(directory), sequence_length=length, pairs=manifest.pairs, vocabulary=vocabulary,
      verified=VERIFIED[verify], documents=counts_lib.documents(manifest),
      splits={name: describe(directory, name, stream, manifest, samples[name], parts, examples)
              for name, stream in streams.items()},
      tokens=tokens.describe(list(samples.values()), parts, vocabulary.unk_id), copies=copied,
      warnings=(*counts_lib.warnings(manifest), *copy_warnings(copied)),
      settings=manifest.settings, counts=manifest.counts)


def open_stream(directory: storage.PathLike, split: str, config: BatchConfig, verify: str) -> loader.Stream:
  try:
    return loader.open_split(directory, split, config, verify)
  except loader.OneDocument:  # worth a look all the same
    return loader.open_split(directory, split, dataclasses.replace(config, pairs='none'), verify)


def describe(directory: storage.PathLike, split: str, stream: loader.Stream, manifest: records.Manifest,
             sample: sample_lib.Sample, parts: sample_lib.Parts, examples: int) -> findings.Split:
  counts, length = manifest.splits[split], manifest.sequence_length
  places = counts.pieces * length  # of rows that hold one piece each
  padding = places - counts.tokens - shards.SPECIALS * counts.pieces
  size = sum(shard.bytes for shard in counts.shards)
  sampled = [stream.arrangement(0, number).pairs for number in range(min(SAMPLED_WINDOWS, len(stream.window_rows)))]
  negatives = sum(int(pairs.label.sum()) for pairs in sampled) / sum(len(pairs.label) for pairs in sampled)
  packed = stream if stream.trials else loader.open_split(
      directory, split, dataclasses.replace(stream.config, pack=True, pairs_per_row=PACKED_PAIRS), 'framing')
  of_pieces = np.concatenate([window.piece_lengths for window in sample.windows]) + shards.SPECIALS  # [N]
  documents = np.concatenate([window.document_ids for window in sample.windows])  # [N]
  return findings.Split(
      documents=counts.documents, pieces=counts.pieces, sentences=counts.sentences, tokens=counts.tokens,
      shards=len(counts.shards), bytes=size, bytes_per_token=size / counts.tokens,
      unknown_share=counts.unknown_tokens / counts.tokens,
      padding_share=padding / places, padding_share_packed=1 - packed.expected_fill, rows=counts.pieces,
      rows_packed=packed.rows_per_epoch, negative_share=negatives,
      trimmed_tokens=sum(pairs.trimmed for pairs in sampled), read_share=sample.share, piece_tokens=five(of_pieces),
      sentence_tokens=five(np.concatenate([np.diff(window.sentence_starts) for window in sample.windows])),
      document_pieces=five(np.unique(documents, return_counts=True)[1]) if sample.share == 1 else None,
      lengths=tuple(map(int, np.histogram(of_pieces, BINS, (0, length))[0])),
      examples=tuple(examples_lib.rows(stream, parts.names, examples)))


def five(numbers: np.ndarray) -> findings.Five:  # [N] -> -
  return tuple(map(float, np.quantile(numbers, QUARTERS, method='nearest')))


def copy_warnings(found: findings.Copies | None) -> Sequence[str]:
  share = found.exact_share + found.near_share if found else 0
  if share <= SOME_COPIES:
    return ()
  return (f'{share:.1%} of the validation pieces stand in train too, so that held-out figures flatter: '
          'prepare again with --near-duplicates 0.8',)

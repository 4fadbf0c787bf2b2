"""How fast batches are made from shards on disk, and how masking compares with the collator of transformers."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from input_pipeline import random, storage
from input_pipeline.batches import loader, masking
from input_pipeline.batches.checks import require
from input_pipeline.batches.config import BatchConfig
from input_pipeline.batches.reading import Batch
from input_pipeline.errors import DataError

ROUNDS = 5  # of each measurement; the report has their median, least and greatest
FAR_STEP = 1_000_000  # a step that a restart may have to reach at once
Spread = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Round:
  """What was made in one round."""
  pairs: int
  tokens: int  # without padding
  places: int  # with padding
  rows: int
  seconds: float


def measure(directory: storage.PathLike, config: BatchConfig, split: str = 'train', seconds: float = 10.0,
            engine: str = 'none', peer: str | None = None) -> dict:
  """Batches per second of one process, over rounds: a dict that is ready for JSON.

  The engine 'none' makes each batch when it is asked for, in this thread (so under `taskset -c 0`, one core); 'tf.data'
  and 'threads' make them ahead. sequences are pairs: in packed rows several a row. tokens_per_second counts real
  tokens. With peer='huggingface', masking by itself and transformers' collator take turns on the same rows; peer_ratio
  is ours over theirs.
  """
  require(peer in (None, *PEERS), f'peer is {peer!r}; wanted one of {", ".join(PEERS)}')
  begin = time.perf_counter()
  stream = loader.open_split(directory, split, config)
  opened = time.perf_counter() - begin
  begin = time.perf_counter()
  stream.batch(FAR_STEP)
  far = time.perf_counter() - begin
  batches = iter(stream.batches(0, engine=engine))
  next(batches)
  rounds = [run_round(batches, seconds / ROUNDS) for _ in range(ROUNDS)]
  batches.close()
  rate = lambda name: spread([getattr(done, name) / done.seconds for done in rounds])
  report = {
      'sequences_per_second': rate('pairs'), 'tokens_per_second': rate('tokens'), 'rows_per_second': rate('rows'),
      'real_token_share': sum(done.tokens for done in rounds) / sum(done.places for done in rounds),
      'rows_per_epoch': stream.rows_per_epoch, 'batches_per_epoch': max(1, stream.rows_per_epoch // config.size),
      'open_seconds': opened, f'step_{FAR_STEP}_seconds': far, 'engine': engine, 'config': dataclasses.asdict(config)}
  return report | (PEERS[peer](stream, seconds) if peer else {})


def run_round(batches: Iterator[Batch], seconds: float) -> Round:
  """Makes batches for so long, and one at least."""
  pairs = tokens = places = rows = 0
  begin = time.perf_counter()
  while not rows or time.perf_counter() - begin < seconds:
    pair_ids = next(batches)['pair_ids']
    pairs, tokens = pairs + int(pair_ids.max(1).sum()), tokens + np.count_nonzero(pair_ids)
    places, rows = places + pair_ids.size, rows + len(pair_ids)
  return Round(pairs, tokens, places, rows, time.perf_counter() - begin)


def spread(values: list[float]) -> Spread:
  return {'median': statistics.median(values), 'min': min(values), 'max': max(values)}


def against_huggingface(stream: loader.Stream, seconds: float = 10.0) -> dict[str, Spread]:
  """Masking, in turns with DataCollatorForLanguageModeling (NumPy) on the same rows. Needs the extra `peers`."""
  config = stream.config
  require(config.masking.unit != masking.STORED, f'--peer huggingface compares masking, and this data has its masks '
          f'already (batch.masking.unit {masking.STORED}): name data that was prepared with --masks dynamic')
  collate = huggingface_collator(stream)
  epoch, window, begin, end = next(stream.spans(0, config.size))
  arrangement = stream.arrangement(epoch, window)
  batch, placed = stream.laid_out(arrangement, begin, end)
  rows, examples = batch['input_ids'], [{'input_ids': row} for row in batch['input_ids'].tolist()]
  draws = masking.bits_per_pair(config.masking.unit, config.sequence_length, config.predictions)

  def ours(turn: int) -> None:
    bits = random.bits(random.key(turn, 'benchmark'), 0, len(placed.row) * draws).reshape(-1, draws)
    masking.mask_batch(rows.copy(), placed, bits, config.masking, config.masking.share, config.predictions,
                       stream.kinds, arrangement.word_starts)

  rates = {'ours': [], 'peer': []}
  for turn in range(ROUNDS):
    for name, work in (('ours', functools.partial(ours, turn)), ('peer', functools.partial(collate, examples))):
      count, begin = 0, time.perf_counter()
      while not count or time.perf_counter() - begin < seconds / ROUNDS / len(rates):
        work()
        count += 1
      rates[name].append(count * len(rows) / (time.perf_counter() - begin))
  return {'masking_sequences_per_second': spread(rates['ours']), 'peer_sequences_per_second': spread(rates['peer']),
          'peer_ratio': spread([ours / theirs for ours, theirs in zip(rates['ours'], rates['peer'])])}


def huggingface_collator(stream: loader.Stream) -> Callable[[list[dict]], object]:
  """transformers' collator for masks, with a vocabulary of the same size and special tokens."""
  try:
    import tokenizers
    import transformers
  except ImportError as error:
    raise DataError(f'peer huggingface needs the extra `peers` ({error}): pip install bert_jax[peers]') from error
  vocabulary = stream.vocabulary
  special_ids = {name: getattr(vocabulary, f'{name}_id') for name in ('unk', 'sep', 'pad', 'cls', 'mask')}
  ids = {f'[{name.upper()}]': token_id for name, token_id in special_ids.items()}
  ids |= {f't{token_id}': token_id for token_id in range(vocabulary.size) if token_id not in special_ids.values()}
  tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordPiece(ids, unk_token='[UNK]')),
      **{f'{name}_token': f'[{name.upper()}]' for name in special_ids})
  return transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=stream.config.masking.share,
                                                      return_tensors='np')


PEERS = {'huggingface': against_huggingface}
if TYPE_CHECKING:
  Peer = str
else:
  Peer = Literal[*PEERS]

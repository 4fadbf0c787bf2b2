"""How fast batches are made from shards on disk, and how masking alone compares with the collator of transformers."""

import dataclasses
import functools
import statistics
import time

import numpy as np
from etils import epath

from input_pipeline import random
from input_pipeline.batches import loader, masking
from input_pipeline.batches.config import BatchConfig

ROUNDS = 5
PEERS = ('huggingface',)


def measure(directory: epath.PathLike, config: BatchConfig, split: str = 'train', seconds: float = 10.0, engine: str | None = None,
            peer: str | None = None) -> dict:
  """Batches per second of one process, over rounds: a dict that is ready for JSON.

  engine None makes each batch when it is asked for, in this thread (so under `taskset -c 0`, one core); 'tf.data' and 'threads' make
  them ahead. sequences are pairs: in packed rows several a row. tokens_per_second counts real tokens. With peer='huggingface',
  masking alone and transformers' collator take turns on the same rows; peer_ratio is ours over theirs.
  """
  if peer not in (None, *PEERS):
    raise ValueError(f'peer is {peer!r}; wanted one of {PEERS}')
  begin = time.perf_counter()
  stream = loader.open_split(directory, split, config)
  opened = time.perf_counter() - begin
  begin = time.perf_counter()
  stream.batch(1_000_000)
  far = time.perf_counter() - begin
  steps = max(1, stream.rows_per_epoch // config.size)
  make = iter(stream.batches(0, engine=engine or 'none'))
  next(make)
  rounds, sums = [], np.zeros(3)
  for _ in range(ROUNDS):
    count, begin, done = 0, time.perf_counter(), np.zeros(3)
    while time.perf_counter() - begin < seconds / ROUNDS:
      batch = next(make)
      done += batch['pair_ids'].max(1).sum(), np.count_nonzero(batch['pair_ids']), batch['pair_ids'].size
      count += 1
    rounds.append((*done[:2], count * config.size, time.perf_counter() - begin))
    sums += done
  make.close()
  rate = lambda i: _spread([r[i] / r[3] for r in rounds])
  report = {
      'sequences_per_second': rate(0), 'tokens_per_second': rate(1), 'rows_per_second': rate(2),
      'real_token_share': float(sums[1] / sums[2]), 'rows_per_epoch': stream.rows_per_epoch, 'batches_per_epoch': steps,
      'open_seconds': opened, 'step_1000000_seconds': far, 'engine': engine or 'none', 'config': dataclasses.asdict(config)}
  return report | (against_huggingface(stream, seconds) if peer else {})


def _spread(values: list[float]) -> dict[str, float]:
  return {'median': statistics.median(values), 'min': min(values), 'max': max(values)}


def against_huggingface(stream: loader.Stream, seconds: float = 10.0) -> dict:
  """Masking alone, in turns with DataCollatorForLanguageModeling (NumPy) on the same unmasked rows. Needs the extra `peers`."""
  try:
    import tokenizers
    import transformers
  except ImportError as error:
    raise ValueError(f'peer huggingface needs the extra `peers` ({error}): pip install bert_jax[peers]') from error
  config, vocabulary = stream.config, stream.vocabulary
  names = {name: getattr(vocabulary, f'{name}_id') for name in ('unk', 'sep', 'pad', 'cls', 'mask')}
  words = {f'[{name.upper()}]': number for name, number in names.items()}
  words |= {f'w{number}': number for number in range(vocabulary.size) if number not in names.values()}
  tokenizer = transformers.PreTrainedTokenizerFast(
      tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token='[UNK]')),
      **{f'{name}_token': f'[{name.upper()}]' for name in names})
  collate = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=config.masking.share, return_tensors='np')
  epoch, window, begin, end = next(stream.spans(0, config.size))
  arranged = stream.arranged(epoch, window)
  batch, placed = stream.laid_out(arranged, begin, end)
  rows, examples = batch['input_ids'], [{'input_ids': row} for row in batch['input_ids'].tolist()]
  width = masking.words_per_pair(config.masking.unit, config.sequence_length, config.predictions)

  def ours(turn):
    words = random.words(random.key(turn, 'benchmark'), 0, len(placed['row']) * width).reshape(-1, width)
    masking.mask_batch(rows.copy(), placed, words, config.masking, config.masking.share, config.predictions, stream.tables,
                       arranged.word_starts)

  rates = {'ours': [], 'peer': []}
  for turn in range(ROUNDS):
    for name, work in (('ours', functools.partial(ours, turn)), ('peer', functools.partial(collate, examples))):
      count, begin = 0, time.perf_counter()
      while time.perf_counter() - begin < seconds / ROUNDS / 2:
        work()
        count += 1
      rates[name].append(count * len(rows) / (time.perf_counter() - begin))
  return {'masking_sequences_per_second': _spread(rates['ours']), 'peer_sequences_per_second': _spread(rates['peer']),
          'peer_ratio': _spread([a / b for a, b in zip(rates['ours'], rates['peer'])])}

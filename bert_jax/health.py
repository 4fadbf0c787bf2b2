"""Whether a run is well: its data and its memory before step 1, its loss and accuracy by the tokens that it has seen.

What is surely wrong is refused; what a careful colleague would ask about is told, with the setting's name. The shards'
checksums, their ids and their documents were read when the streams were opened; here only what the first batch reads is
looked at.
"""

import collections
import dataclasses
import math
import os
import time
from collections.abc import Iterable, Mapping

import jax
import numpy as np

from bert_jax import phases, program as program_lib
from bert_jax.errors import require
from input_pipeline.batches.loader import Stream
from input_pipeline.batches.masking import STORED
from input_pipeline.errors import DataError

ROWS = 256  # of the first ones, of which pairs and predictions are counted
UNKNOWN = 0.02, 0.5  # shares of [UNK] among the tokens: told from the one on, refused from the other on
PADDING = 0.5  # share of padding that is told
DOCUMENTS = 50  # fewer are told
EPOCHS = 40  # the paper's; more are told
FEW_EPOCHS = 2  # in which nothing is learnt by heart, so that dropout only slows
FEW_NEGATIVES = 0.1  # of the pairs; fewer are told
PREDICTED = 0.8  # of what masking.share asks for; less is told
DEVIATIONS = 6.0  # of a fair coin, by which negatives among pairs are off half and half
TENTH, LEFT = 0.1, 0.05  # of the steps, after which the loss should be so many nats below the unigram baseline
BASELINE = 'baseline'
WINDOW = 10  # lines of the log that a band is compared with the median of


@dataclasses.dataclass(frozen=True)
class Band:
  """What a figure should be in, once so many tokens were seen, the schedule's warmup twice over."""
  tokens: float
  least: float
  greatest: float


# Nats below the unigram baseline of the data. All trials of docs/performance.md, "What teaches a small model", are well
# inside: 0.2 to 1.1 nats after 1 million tokens, 0.5 to 1.6 after 4 to 8 million, 2.0 after 15 million. Who comes far
# lower from few tokens is given the answers.
GAIN = Band(1e6, -0.3, 4.0), Band(5e6, 0.1, 5.0), Band(1e8, 0.5, 7.0)
# 0.49 to 0.66 in the same trials; 0.97 to 0.98 at the end of the paper's run.
ACCURACY = Band(1e6, 0.4, 0.9), Band(1e8, 0.45, 0.995)


@dataclasses.dataclass(frozen=True)
class Preflight:
  """What was found of a run before its first step."""
  lines: list[str]  # to print
  warnings: list[str]
  unigram: float  # nats a token of the data's first window costs, by how often each stands there
  tokens_per_step: tuple[tuple[int, float], ...]  # (first step, real tokens of a step) of each phase


def preflight(program: program_lib.Program, streams: list[tuple[phases.Phase, Stream]]) -> Preflight:
  """Looks at the data and the memory of a run. Raises ConfigError, DataError for what cannot work.

  It reads the window that the first batch reads, which the stream keeps: some 0.1 s beside that.
  """
  begin = time.monotonic()
  phase, stream = streams[0]
  batch, split = phase.config.batch, stream.manifest.splits['train']
  (epoch, number, _, _), *_ = stream.spans(0, 1)
  tokens = stream.arrangement(epoch, number).tokens
  rows = stream.rows(0, min(ROWS, batch.size), phase.first)
  unknown, padding = split.unknown_tokens / split.tokens, 1 - stream.expected_fill
  term = program.objective.token_term()
  weights = term.targets(rows)[1] if term else rows['pair_ids'] > 0
  predicted = float(weights.sum()) / np.count_nonzero(rows['pair_ids'])
  pairs, negatives = pairs_of(rows)
  epochs = sum((part.last - part.first) * part.config.batch.size / other.rows_per_epoch for part, other in streams)
  shown = f', {negatives / pairs:.0%} of {pairs:,} pairs are negatives' if pairs else ''
  shards = sum(len(other.manifest.splits['train'].shards) for _, other in streams)
  state, room = state_bytes(program), device_bytes(program.mesh.devices.flat[0])
  memory = f'state {state / 1e9:,.2f} GB of a device' + (f'\'s {room / 1e9:,.1f} GB' if room else '')
  lines = [f'data: {split.documents:,} documents, {split.tokens:,} tokens, {unknown:.2%} unknown; {shards:,} shards as '
           'their checksums say, every id within the vocabulary',
           f'rows: {padding:.0%} padding, {predicted:.1%} of the tokens predicted{shown}; {memory} '
           f'({time.monotonic() - begin:.1f} s to look)']
  refuse(unknown, predicted, pairs, negatives, state, room)
  told = [*warnings(batch, split, unknown, padding, predicted, pairs, negatives, epochs, streams[-1][0].last),
          *dropout_warnings(program.model, epochs), *held_out_warnings(stream.manifest)]
  return Preflight(lines, told, entropy(tokens), tuple(
      (part.first, part.config.batch.size * part.config.batch.sequence_length * other.expected_fill)
      for part, other in streams))


def pairs_of(rows: Mapping[str, np.ndarray]) -> tuple[int, int]:
  """(pairs, those of them that are negatives)"""
  if 'next_sentence_labels' not in rows:
    return 0, 0
  there = rows['next_sentence_weights'] > 0
  return int(there.sum()), int(rows['next_sentence_labels'][there].sum())


def refuse(unknown: float, predicted: float, pairs: int, negatives: int, state: int, room: int | None) -> None:
  if unknown >= UNKNOWN[1]:
    raise DataError(f'{unknown:.0%} of the tokens are [UNK], so there is nothing to learn: prepare the data with a '
                    '--vocabulary of its language, cased as it is')
  if not predicted:
    raise DataError('no token of the first rows is to be predicted: raise batch.masking.share or batch.predictions')
  if pairs >= ROWS // 4 and negatives in (0, pairs):
    raise DataError(f'{"none" if not negatives else "all"} of the first {pairs} pairs are negatives, so there is '
                    'nothing to tell apart: prepare the data again, or use batch.pairs none')
  require(room is None or state <= room, f'parameters and optimizer\'s state take {state / 1e9:,.1f} GB of each '
          f'device, which has {(room or 0) / 1e9:,.1f} GB: raise mesh.fsdp or mesh.tensor, or use more devices')


def dropout_warnings(model, epochs: float) -> Iterable[str]:
  if epochs < FEW_EPOCHS and (model.hidden_dropout or model.attention_dropout):
    yield (f'each row is read {epochs:.2g} times, so that nothing can be learnt by heart, and dropout only slows: '
           '--model.hidden-dropout 0 --model.attention-dropout 0 learn more in the same steps')


def warnings(batch, split, unknown: float, padding: float, predicted: float, pairs: int, negatives: int,
             epochs: float, steps: int) -> Iterable[str]:
  if unknown >= UNKNOWN[0]:
    yield (f'{unknown:.1%} of the tokens are [UNK]: is prepare\'s --vocabulary of this language, and cased as the text '
           'is?')
  if padding >= PADDING:
    how = 'prepare with a smaller --sequence-length'
    yield (f'{padding:.0%} of the rows is padding, more than there is text: ' + (how if batch.pack else
           f'--batch.pack --batch.pairs-per-row {max(round(1 / (1 - padding)), 2)} fills them with several pairs; or '
           + how))
  if split.documents < DOCUMENTS:
    yield (f'there are only {split.documents} documents: next-sentence pairs and held-out figures mean little; is '
           'there an empty line between documents of the --input that was prepared?')
  if pairs and negatives < FEW_NEGATIVES * pairs:
    yield (f'hardly any of the pairs are negatives, {negatives:,} of {pairs:,}, so that next sentences teach nothing: '
           'prepare more documents, or use --objective mlm --batch.pairs none')
  elif pairs and abs(negatives / pairs - 0.5) > DEVIATIONS * 0.5 / math.sqrt(pairs):
    yield f'{negatives / pairs:.0%} of the first {pairs:,} pairs are negatives, wanted half: see batch.pairs'
  wanted = batch.masking.greatest_share
  if batch.masking.unit != STORED and not batch.masking.schedule and predicted < PREDICTED * wanted:
    yield (f'{predicted:.1%} of the tokens are predicted, batch.masking.share asks for {wanted:.1%}: raise '
           f'batch.predictions ({batch.predictions}), which leaves some out')
  if epochs > EPOCHS:
    yield (f'each row is read {epochs:,.0f} times, more than {EPOCHS}: prepare more text, or lower --run.steps, to '
           f'{max(int(steps * EPOCHS / epochs), 1):,} for {EPOCHS} times')


def held_out_warnings(manifest) -> Iterable[str]:
  if 'validation' not in manifest.splits:
    yield ('no document is held out, so that nothing tells how well the run does on other text: prepare with '
           '--validation-share above 0, of three documents or more')


def entropy(tokens: np.ndarray) -> float:
  counts = np.bincount(tokens)
  shares = counts[counts > 0] / len(tokens)
  return float(-(shares * np.log(shares)).sum())


def state_bytes(program: program_lib.Program) -> int:
  """Of a device: parameters and optimizer's state, as they are laid out."""
  return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
             for leaf in jax.tree.leaves(program.abstract))


def of_memory(step: int | None, device: jax.Device) -> Iterable[str]:
  """What to say of the bytes that a compiled step takes of a device."""
  room = device_bytes(device)
  if step is not None:
    yield f'  a step takes {step / 1e9:,.2f} GB of a device, as compiled' + (
        f', of {room / 1e9:,.1f} GB' if room else '')
    if room is not None and step > room:
      yield ('bert-jax: that is more than it has: raise run.microbatches or mesh.fsdp, set model.remat, or lower '
             'batch.size')


def device_bytes(device: jax.Device) -> int | None:
  """The memory of a device; of a CPU the machine's; None where it is not known."""
  stats = device.memory_stats() if device.platform != 'cpu' else None
  if stats and 'bytes_limit' in stats:
    return stats['bytes_limit']
  try:
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') if device.platform == 'cpu' else None
  except (ValueError, OSError):
    return None


class Bands:
  """Compares the figures of a run with those of others that saw as many tokens, and says once what is outside; and of a
  run of `steps` once that it has not left the unigram baseline after a tenth of them."""

  def __init__(self, found: Preflight, warmup_steps: int, steps: int):
    self.found, self.warmup, self.steps, self.said = found, warmup_steps, steps, set[str]()
    self.recent: dict[str, collections.deque[float]] = {}

  def look(self, step: int, scalars: Mapping[str, float]) -> list[str]:
    """What is to be said after a line of the log, with its figures: a sentence for each figure, once."""
    tokens, sentences = self.tokens(step), self.at_the_baseline(step, scalars)
    if step < 2 * self.warmup:
      return sentences
    for name, bands, figure in (
        ('mlm_loss', GAIN, lambda loss: self.found.unigram - loss), ('nsp_accuracy', ACCURACY, float)):
      if name not in scalars:
        continue
      seen = self.recent.setdefault(name, collections.deque(maxlen=WINDOW))
      seen.append(scalars[name])
      band = max((band for band in bands if band.tokens <= tokens), key=lambda band: band.tokens, default=None)
      middle = float(np.median(seen))
      if band and len(seen) == WINDOW and name not in self.said and not band.least <= figure(middle) <= band.greatest:
        self.said.add(name)
        sentences.append(self.sentence(name, middle, figure(middle) < band.least, step, tokens))
    return sentences

  def at_the_baseline(self, step: int, scalars: Mapping[str, float]) -> list[str]:
    """A sentence where a tenth of the steps is over and the loss is still that of guessing; looked at once."""
    loss = scalars.get('mlm_loss', scalars.get('lm_loss'))
    least = max(TENTH * self.steps, 2 * self.warmup)
    if loss is None or BASELINE in self.said or step < least or self.tokens(step) < GAIN[0].tokens:
      return []
    self.said.add(BASELINE)
    if loss <= self.found.unigram - LEFT:
      return []
    self.said.add('mlm_loss')
    return [f'a tenth of the steps is over, and the loss is {loss:.2f}, where guessing by how frequent words are costs '
            f'{self.found.unigram:.2f}: it has not left this baseline; look at --optimizer.peak-learning-rate, '
            '--optimizer.warmup-steps and the data']

  def sentence(self, name: str, value: float, low: bool, step: int, tokens: float) -> str:
    after = f'after {tokens / 1e6:,.1f} million tokens (step {step:,})'
    if name == 'mlm_loss' and low:
      return (f'mlm_loss is {value:.2f} {after}, and guessing by how frequent words are costs '
              f'{self.found.unigram:.2f}: this run does not learn as others do; look at '
              'optimizer.peak_learning_rate, optimizer.warmup_steps and the data')
    if name == 'mlm_loss':
      return (f'mlm_loss is {value:.2f} {after}, far lower than others come so soon: does the text repeat itself, or '
              'do the rows give the answers away?')
    return (f'nsp_accuracy is {value:.2f} {after}, ' + (
        'worse than guessing: are the labels of the pairs right?' if low else
        'far higher than others come so soon: do the pairs give the answers away?'))

  def tokens(self, step: int) -> float:
    """Real tokens seen after `step`."""
    ends = [first for first, _ in self.found.tokens_per_step[1:]] + [step]
    return sum(rate * max(min(step, end) - first, 0) for (first, rate), end in zip(self.found.tokens_per_step, ends))

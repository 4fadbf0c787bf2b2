"""What a job will be, before its work: of some documents of some sources, and the bytes of all. Told, and then a bar.

Figures are rough: what documents hold differs, and duplicates are not known yet.
"""

import dataclasses
import math

from input_pipeline.engines import amounts
from input_pipeline.prepare import jobs, portions, spill, splits, spreading, stages
from input_pipeline.text import sources

_LOOKED_AT = 1 << 18  # bytes of the text of each


@dataclasses.dataclass(frozen=True)
class Forecast:
  """About as much as a job will have."""
  text: float  # bytes as documents are read, decompressed
  run_bytes: float  # of all runs together
  shards: dict[int, int]  # of each split
  tokens: dict[int, float]  # of each split

  def chunks(self) -> int:
    return max(1, math.ceil(self.text / sources.CHUNK_BYTES))

  def cells(self, tokens: int) -> int:
    """Of both splits, of at most so many tokens each."""
    return sum(count * portions.count(self.tokens[split] / count, tokens) for split, count in self.shards.items())

  def rounds(self, runs: int, tokens: int) -> spreading.Rounds | None:
    return spreading.rounds(runs, self.run_bytes, self.cells(tokens))


def of(job: jobs.Job) -> Forecast | None:
  """None where nobody wants to know it, or it cannot be told before all is read."""
  if not job.progress or sources.read_once(job.parts) or not sum(part.stamp.bytes for part in job.parts):
    return None
  try:
    return _of(job)
  except amounts.WHAT_FAILS:
    return None


def _of(job: jobs.Job) -> Forecast | None:
  settings, stored, text, taken = job.settings, 0., 0., 0.
  documents = tokens = size = 0
  for part in amounts.some_of([part for part in job.parts if part.stamp.bytes]):
    chunk = next(iter(sources.chunks([part], _LOOKED_AT)), None)
    if chunk is None:
      continue
    run, counts = stages.make_run(chunk, dataclasses.replace(settings, near_duplicates=None), job.vocabulary)
    raw = max(counts['bytes'], chunk.size(), 1)
    stored += raw / amounts.expansion(part.source)
    text, taken = text + raw, taken + raw * part.weight
    documents += counts['documents']
    tokens += int(run.pieces.tokens.sum())
    size += spill.size(run)
  if not tokens:
    return None
  expansion = text / stored
  whole = sum(part.stamp.bytes for part in job.parts) * expansion
  share = sum(part.stamp.bytes * part.weight for part in job.parts) * expansion / taken  # what was looked at, so often
  most = min((number for number in (settings.limit, settings.first) if number is not None), default=math.inf)
  drawn = min(1., most / (share * documents))
  all_tokens, held_out = share * tokens * drawn, settings.validation_share
  of_splits = {spill.TRAIN: all_tokens * (1 - held_out)}
  if held_out:
    of_splits[spill.VALIDATION] = all_tokens * held_out
  shards = splits.shard_counts(settings, math.ceil(of_splits[spill.TRAIN]))
  return Forecast(whole if settings.first is None else whole * drawn, share * size * drawn,
                  {split: shards[split] for split in of_splits}, of_splits)


def sentence(forecast: Forecast, chunks: int, tasks: int, memory: int, way: str) -> str:
  """What is told before the work. `memory`: bytes of a worker; `way`: where pieces are on their way, and how much."""
  shards = ' and '.join(f'{count:,} of {spill.SPLITS[split]}' for split, count in forecast.shards.items())
  tokens = float(f'{sum(forecast.tokens.values()):.2g}')
  text = amounts.words(forecast.text)
  return (f'plan: about {text} of text in {chunks:,} chunk{"s" * (chunks != 1)}, {tasks:,} tasks; '
          f'{tokens:,.0f} tokens in shards, {shards}; a worker needs about {amounts.words(memory)} of memory; '
          f'{amounts.words(forecast.run_bytes)} {way}')

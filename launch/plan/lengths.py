"""The lengths of rows that a plan is of: one of a recipe's, all of them, or another."""

import dataclasses
import math

from bert_jax import phases
from bert_jax.config import Config, Long

PREDICTED = 0.15  # share of a row's tokens: arXiv:1810.04805 section 3.1


def chosen(config: Config, length: int | None, predictions: int | None, every: bool) -> list[tuple[Config, int]]:
  """The settings of each length asked for, without a phase after it, and the steps that the run has of it.

  By default that is the first length of the run. One that the run does not have is planned as if all steps were of it.
  """
  known = [(phase.config, phase.last - phase.first) for phase in phases.phases(config)]
  length = length or config.batch.sequence_length
  found = known if every else [item for item in known if item[0].batch.sequence_length == length]
  if not found:
    one = dataclasses.replace(config, long=Long())
    predictions = predictions or math.ceil(PREDICTED * length)
    found = [(with_batch(one, sequence_length=length, predictions=predictions), config.run.steps)]
  elif predictions:
    found = [(with_batch(config, predictions=predictions), steps) for config, steps in found]
  return [(dataclasses.replace(config, long=Long()), steps) for config, steps in found]


def with_batch(config: Config, **changes) -> Config:
  """`config` with other fields of `batch`."""
  return dataclasses.replace(config, batch=dataclasses.replace(config.batch, **changes))

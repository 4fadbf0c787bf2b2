"""A run that is to have more steps than it began with: whether what is done would have been the same, and where that
stands.

RUN/extended.json   {"steps": [20, 40]}: how many it had, and has; config.json stays as it was written
"""

import dataclasses
import json

from bert_jax import config as cfg, phases
from bert_jax.errors import ConfigError, require
from bert_jax.optimizer import SAME_UNTIL
from input_pipeline import foreign, storage

FILE = 'extended.json'


def lengths(run_dir: storage.PathLike) -> list[int]:
  """The steps that a run was to have, one number after the other; [] of one that was never extended.

  Raises ConfigError.
  """
  path = storage.path(run_dir) / FILE
  foreign.check_kind(path)
  try:
    found = json.loads(path.read_text())['steps']
    require(isinstance(found, list) and bool(found) and all(type(steps) is int and steps > 0 for steps in found),
            'wanted rising numbers')
    return found
  except FileNotFoundError:
    return []
  except (ValueError, KeyError, TypeError, UnicodeDecodeError, RecursionError) as error:
    raise ConfigError(f'{path} is damaged: {error}') from error


def write(run_dir: storage.PathLike, found: list[int]) -> None:
  storage.write_whole(storage.path(run_dir) / FILE, json.dumps({'steps': found}) + '\n')


def with_steps(config: cfg.Config, steps: int) -> cfg.Config:
  return dataclasses.replace(config, run=dataclasses.replace(config.run, steps=steps))


def why_not(old: cfg.Config, new: cfg.Config, done: int) -> str | None:
  """Why the first `done` steps would have been others in the longer run; None: they would have been the same."""
  if not done:
    return None
  o, before = old.optimizer, old.run.steps
  if o.schedule not in SAME_UNTIL:
    return (f'by the schedule {o.schedule} the rate falls towards the last step, so that the {done:,} steps that are '
            'done would have had other rates')
  if done > (last := SAME_UNTIL[o.schedule](o, before)):
    return f'by the schedule {o.schedule} the rate falls since step {last:,}, and {done:,} are done'
  for phase in phases.phases(old)[1:]:
    if done > phase.first:
      length = phase.config.batch.sequence_length
      return (f'since step {phase.first:,} of the {done:,} that are done rows have {length} tokens, which would have '
              'come later')
  return None

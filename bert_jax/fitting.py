"""A recipe fitted to the data that is there and to the steps that are asked for: what nobody gave follows what is
given.

Settings come in layers: the recipe's, those of a file, those of flags. What a higher layer gives is never changed;
where that cannot work together, all that is wrong is told at once.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bert_jax import config as cfg, phases
from bert_jax.errors import require, together
from bert_jax.fields import flat, replaced
from input_pipeline import records, storage
from input_pipeline.batches.shards import SPECIALS

# What follows: of a run that is there it is as the run recorded it.
FOLLOWING = (
    'optimizer.warmup_steps', 'model.vocab_size', 'model.max_positions', 'batch.sequence_length', 'batch.predictions',
    'batch.pairs', 'batch.masking', 'long.share', 'long.sequence_length', 'long.predictions', 'run.microbatches',
    'run.evaluate_every')

Changes = tuple[dict[str, object], str]  # settings by name, and why


@dataclasses.dataclass(frozen=True)
class Layers:
  """Where settings come from: of each layer all settings as they are with it, the lowest first."""
  settings: Sequence[cfg.Config]
  given: Sequence[frozenset[str]]  # the names that each layer sets; the lowest sets all others

  def level(self, name: str) -> int:
    """The highest layer that sets it."""
    return max((number for number, names in enumerate(self.given) if name in names), default=0)

  def company(self, name: str) -> dict[str, Any]:
    """All settings as they were where this one was set."""
    return flat(self.settings[self.level(name)])


@dataclasses.dataclass(frozen=True)
class Fitted:
  """Settings that go together, and with their data."""
  config: cfg.Config
  lines: tuple[str, ...]  # one for each thing that was changed
  followed: Mapping[str, str]  # {name: why} of what was changed


def fitted(layers: Layers, data_dir: storage.PathLike | None, old: cfg.Config | None = None) -> Fitted:
  """The settings of the highest layer, in which what was not given follows the data and the steps.

  `data_dir`: None where there are only settings. `old`: of a run that is there, whose own settings stay.
  Raises ConfigError, DataError for all that cannot work.
  """
  asked = cfg.Asked.of(layers.settings[-1])
  if old is not None:
    recorded = flat(old)
    names = [name for name in recorded if name.startswith(FOLLOWING) and not layers.level(name)]
    return Fitted(replaced(asked, {name: recorded[name] for name in names}).checked(), (), {})
  prepared = {} if data_dir is None else phases.prepared(data_dir)
  lines: list[str] = []
  followed: dict[str, str] = {}
  for rule in (*RULES, *(RULES_OF_DATA if prepared else ())):
    for changes, why in rule(asked, layers, prepared):
      before = flat(asked)
      asked = replaced(asked, changes)
      lines.append(told({name: (before[name], value) for name, value in changes.items()}, why))
      followed |= dict.fromkeys(changes, why)
  misfits = [] if data_dir is None else wrong(asked, data_dir)
  together(asked.checked, *(functools.partial(require, False, sentence) for sentence in misfits))
  return Fitted(asked.checked(), tuple(lines), followed)


def wrong(asked: cfg.Config, data_dir: storage.PathLike) -> list[str]:
  """What the data has otherwise."""
  found = phases.misfits(data_dir, asked)
  sizes = {manifest.vocabulary.size for manifest in phases.prepared(data_dir).values()}
  if asked.model.vocab_size not in sizes:
    found.append(misfit_of_vocabulary(asked.model, next(iter(sizes)), data_dir))
  return found


def misfit_of_vocabulary(model: cfg.Model, size: int, data_dir: storage.PathLike) -> str:
  return (f'{data_dir} was prepared with a vocabulary of {size:,} tokens, the model has {model.vocab_size:,}: '
          f'pass --model.vocab-size {size}, or prepare the data with the vocabulary that the recipe wants')


def told(changes: Mapping[str, tuple[object, object]], why: str) -> str:
  """'batch.sequence_length 128 → 32, batch.predictions 20 → 5: as the data was prepared'."""
  show = lambda value: f'{value:,}' if isinstance(value, int) and not isinstance(value, bool) else f'{value}'
  return ', '.join(f'{name} {show(old)} → {show(new)}' for name, (old, new) in changes.items()) + f': {why}'

# ---------------------------------------------------------------- rules: (settings, layers, data) -> changes and why


def steps(asked: cfg.Config, layers: Layers, prepared: Mapping[int, records.Manifest]) -> Iterator[Changes]:
  """The warmup is the share of the steps that it was where it was set."""
  del prepared
  if layers.level('optimizer.warmup_steps') >= layers.level('run.steps'):
    return
  usual, o, wanted = layers.company('optimizer.warmup_steps')['run.steps'], asked.optimizer, asked.run.steps
  falls = round(o.decay_share * wanted) if o.schedule == 'wsd' else 0
  warmup = min(max(round(o.warmup_steps * wanted / usual), 1), max(wanted - falls, 0)) if o.warmup_steps else 0
  if warmup != o.warmup_steps:
    yield ({'optimizer.warmup_steps': warmup},
           f'the share stays, warmup {o.warmup_steps:,} of {usual:,} steps → {warmup:,} of {wanted:,}')


def vocabulary(asked: cfg.Config, layers: Layers, prepared: Mapping[int, records.Manifest]) -> Iterator[Changes]:
  sizes = {manifest.vocabulary.size for manifest in prepared.values()}
  if len(sizes) == 1 and asked.model.vocab_size not in sizes and not layers.level('model.vocab_size'):
    yield {'model.vocab_size': sizes.pop()}, 'the size of the data\'s vocabulary'


def lengths(asked: cfg.Config, layers: Layers, prepared: Mapping[int, records.Manifest]) -> Iterator[Changes]:
  """Rows are as long as the data, the last phase's too; without longer ones there is no such phase."""
  there, free = list(prepared), lambda name: not layers.level(name)
  shown = ' and '.join(map(str, there))
  why = f'the data was prepared for rows of {shown}'
  changes: dict[str, object] = {}
  short = asked.batch.sequence_length
  if short not in prepared and free('batch.sequence_length'):
    changes['batch.sequence_length'] = short = max((length for length in there if length <= short), default=there[0])
  slots(changes, 'batch.predictions', 'batch.sequence_length', short, asked, layers)
  long = asked.long
  if long.share and free('long.share') and free('long.sequence_length'):
    longer = [length for length in there if length > short]
    if not longer:
      changes['long.share'] = 0.0
    elif long.sequence_length not in longer:
      changes['long.sequence_length'] = longer[-1]
  last = changes.get('long.sequence_length', long.sequence_length)
  if long.share and changes.get('long.share') != 0:
    slots(changes, 'long.predictions', 'long.sequence_length', last, asked, layers)
    short = max(short, last)
  if short > asked.model.max_positions and free('model.max_positions'):
    changes['model.max_positions'] = short
  if changes:
    yield changes, why if set(changes) - {'batch.predictions', 'long.predictions'} else 'the same share of a row'


def slots(changes: dict[str, object], name: str, of: str, length: int, asked: cfg.Config, layers: Layers) -> None:
  """Adds to `changes` as many slots for predictions as there were for a row's masks where they were set."""
  usual, now = layers.company(name), flat(asked)
  share = 'batch.masking.share'
  level = max(layers.level(of), layers.level(share), 1 if of in changes else 0)  # of what it goes by
  if not asked.learns.masked or layers.level(name) >= level:
    return
  greater = length * now[share] / max(usual[of] * usual[share], 1e-9)
  wanted = min(max(math.ceil(usual[name] * greater - 1e-9), 1), max(length - SPECIALS, 1))
  if wanted != now[name]:
    changes[name] = wanted


def pairs(asked: cfg.Config, layers: Layers, prepared: Mapping[int, records.Manifest]) -> Iterator[Changes]:
  """Pairs and masks are drawn on the way, or stand in the data."""
  manifest = next(iter(prepared.values()))
  stored, allowed = manifest.pairs == 'google', asked.learns.pairs
  if stored != (asked.batch.pairs == 'google') and not layers.level('batch.pairs'):
    kind = 'google' if stored else 'nsp'
    if not allowed or kind in allowed:
      yield {'batch.pairs': kind}, f'the data was prepared with pairs {manifest.pairs}'
  masks, masking = manifest.masks != records.DYNAMIC, asked.batch.masking
  names = [name for name in flat(asked) if name.startswith('batch.masking.')]
  if masks != (masking.unit == cfg.STORED) and asked.learns.masked and not any(map(layers.level, names)):
    usual = cfg.Masking(unit=cfg.STORED if masks else 'token')
    before, after = flat(asked), flat(usual, 'batch.masking.')
    yield ({name: value for name, value in after.items() if value != before[name]},
           f'the data was prepared with masks {manifest.masks}')


def held_out(asked: cfg.Config, layers: Layers, prepared: Mapping[int, records.Manifest]) -> Iterator[Changes]:
  if asked.run.evaluate_every and not layers.level('run.evaluate_every') and any(
      'validation' not in manifest.splits for manifest in prepared.values()):
    yield {'run.evaluate_every': 0}, 'no document of the data is held out; prepare with --validation-share above 0'


def parts(asked: cfg.Config, layers: Layers, prepared: Mapping[int, records.Manifest]) -> Iterator[Changes]:
  """Microbatches divide the batch."""
  del prepared
  rows = math.gcd(asked.batch.size, asked.long.size if asked.long.share else 0)
  if rows % asked.run.parts and not layers.level('run.microbatches'):
    yield {'run.microbatches': math.gcd(rows, asked.run.parts)}, f'batch.size {asked.batch.size}'


Rule = Callable[[cfg.Config, Layers, Mapping[int, records.Manifest]], Iterator[Changes]]
RULES: tuple[Rule, ...] = (steps, parts)
RULES_OF_DATA: tuple[Rule, ...] = (vocabulary, pairs, lengths, held_out)

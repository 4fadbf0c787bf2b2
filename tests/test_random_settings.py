"""Settings drawn at random within their ranges: each trains and stays finite, is refused, or stops as documented."""

import dataclasses
import math
import random

import jax
import numpy as np
import pytest

from bert_jax import config as cfg, optimizer, run_directory, steps, train
from bert_jax.errors import ConfigError, NonFiniteError
from input_pipeline import ranges
from input_pipeline.errors import DataError
from tests import synthetic

VOCABULARY = 120
SMALL = cfg.Config(
    model=cfg.Model(vocab_size=VOCABULARY, hidden_size=8, layers=1, heads=2, intermediate_size=16, max_positions=32,
                    dtype='float32'),
    batch=cfg.BatchConfig(size=8, sequence_length=32, predictions=5), mesh=cfg.MeshShape(data=1),
    optimizer=cfg.Optimizer(warmup_steps=1), run=cfg.Run(steps=3, log_every=1, checkpoint_every=1))
# What a whole range of would be too much to compute, or would not meet these data.
FEW = {
    'hidden_size': (4, 8, 12, 64), 'layers': (1, 2, 3), 'heads': (1, 2, 2, 3), 'intermediate_size': (1, 7, 64),
    'max_positions': (31, 32, 40, 50), 'type_vocab_size': (1, 2, 3, 5),
    'vocab_size': (VOCABULARY,) * 9 + (VOCABULARY + 1,),
    'neighbour_heads': (0, 0, 1, 2), 'unroll': (1, 2, 7), 'size': (4, 8, 12), 'sequence_length': (32, 32, 31),
    'predictions': (4, 5, 20, 29), 'pairs_per_row': (1, 1, 1, 2), 'microbatches': (1, 1, 2, 4),
    'warmup_steps': (0, 1, 2, 3, 4)}
CHANGED = {'model': 3, 'batch': 2, 'optimizer': 4, 'run': 1}  # so many fields of each are drawn
OF_RUN = ('seed', 'microbatches', 'keep_checkpoints')
TRACES_KEPT = 20  # runs whose small functions share what was traced: more would fill the memory


def drawn(name: str, kind, within: ranges.Within, draws: random.Random):
  """A number of the range: a border, or any magnitude between them."""
  if name in FEW:
    return draws.choice(FEW[name])
  whole = not ranges.fits(0.5, kind)
  if draws.random() < 0.2:
    number = draws.choice((within.least, within.greatest))
    return number if within.holds(number) else math.nextafter(number, within.least + within.greatest - number)
  low = math.log10(max(abs(within.least), 1 if whole else 1e-12))
  number = 10 ** draws.uniform(low, math.log10(within.greatest))
  return min(int(number), int(within.greatest)) if whole else min(number, within.greatest)


def at_random(draws: random.Random) -> cfg.Config:
  """Raises ConfigError or DataError for what cannot work."""
  config = SMALL
  names = {'name': tuple(optimizer.OPTIMIZERS), 'schedule': tuple(optimizer.SCHEDULES)}
  for group, count in CHANGED.items():
    settings = getattr(config, group)
    known = {name: found for name, found in ranges.of(settings).items() if group != 'run' or name in OF_RUN}
    changes = {name: drawn(name, *known[name], draws) for name in draws.sample(sorted(known), count)}
    if group == 'optimizer':
      changes |= {name: draws.choice(choices) for name, choices in names.items()}
      changes = {name: value for name, value in changes.items()
                 if name not in optimizer.UNREAD.get(changes['schedule'], ()) or draws.random() < 0.1}
      if 'final_learning_rate' in changes and draws.random() < 0.9:
        peak = changes.get('peak_learning_rate', settings.peak_learning_rate)
        changes['final_learning_rate'] = min(changes['final_learning_rate'], peak)
    if group == 'batch' and draws.random() < 0.5:
      shares = {name: draws.choice((0, 0.1, 0.5, 1, draws.random())) for name in ('mask', 'random')}
      changes['masking'] = cfg.Masking(share=draws.choice((0.01, 0.15, 0.18)), **shares)
    config = dataclasses.replace(config, **{group: dataclasses.replace(settings, **changes)})
  return config


def outcome(number: int, data, folder) -> str:
  """What becomes of the settings of that number: refused, trained, or stopped."""
  try:
    config = at_random(random.Random(number))
    result = train.train(config, data, folder / str(number), devices=jax.devices()[:1], progress=False)
  except (ConfigError, DataError) as error:
    assert '\n' not in str(error)
    return 'refused'
  except NonFiniteError as error:
    assert error.exit_code == 6 and 'changed nothing' in str(error)
    return 'stopped'
  finally:
    if number % TRACES_KEPT == 0:
      jax.clear_caches()
  run = folder / str(number)
  assert result.step == 3 and steps.look(run, run_directory.fingerprints(run))[-1].kind == steps.WHOLE
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((result.state.params, result.state.opt_state)))
  return 'trained'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('drawn') / 'data', vocabulary_size=VOCABULARY, pieces=300,
                              documents=30, sequence_length=32, splits=('train', 'validation'))


@pytest.mark.slow
@pytest.mark.parametrize('first', range(0, 500, 50))
def test_five_hundred_settings_at_random(data, tmp_path, first):
  found = [outcome(number, data, tmp_path) for number in range(first, first + 50)]
  counts = {name: found.count(name) for name in ('trained', 'refused', 'stopped')}
  print(counts)
  assert counts['trained'] > 10 and counts['trained'] + counts['stopped'] > counts['refused'] / 2

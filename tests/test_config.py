"""Settings: checks that name the field, the trip through JSON, and what a resumed run may not change."""

import ast
import dataclasses
import inspect
import itertools
import json

import pytest

from bert_jax import config as cfg

NO_MASKS = cfg.Masking(share=0.)


@pytest.mark.parametrize('make, field', [
    (lambda: cfg.Model(hidden_size=100, heads=12), 'model.heads'),
    (lambda: cfg.Model(heads=0), 'model.heads'),
    (lambda: cfg.Model(neighbour_heads=13), 'model.neighbour_heads is 13: wanted 0 up to model.heads, 12'),
    (lambda: cfg.Model(hidden_size=36, neighbour_heads=1), 'heads are 3 wide'),
    (lambda: cfg.Model(layers=0), 'model.layers'),
    (lambda: cfg.Model(unroll=0), 'model.unroll'),
    (lambda: cfg.Model(hidden_dropout=1.), 'model.hidden_dropout'),
    (lambda: cfg.Model(attention_dropout=-.1), 'model.attention_dropout'),
    (lambda: cfg.Model(activation='relu'), 'model.activation'),
    (lambda: cfg.Optimizer(name='sgd'), 'optimizer.name'),
    (lambda: cfg.Optimizer(peak_learning_rate=0.), 'optimizer.peak_learning_rate'),
    (lambda: cfg.Optimizer(warmup_steps=-1), 'optimizer.warmup_steps'),
    (lambda: cfg.Optimizer(clip_norm=-1.), 'optimizer.clip_norm'),
    (lambda: cfg.Optimizer(final_learning_rate=2e-4), 'optimizer.final_learning_rate'),
    (lambda: cfg.Optimizer(decay_share=0.), 'optimizer.decay_share'),
    (lambda: cfg.Optimizer(decay_power=0.), 'optimizer.decay_power'),
    (lambda: cfg.Optimizer(decay_share=.2),
     "optimizer.decay_share 0.2 changes nothing .* 'bert': .* choose another schedule$"),
    (lambda: cfg.Optimizer(schedule='cosine', decay_power=2.), 'optimizer.decay_power 2.0 changes nothing'),
    (lambda: cfg.Optimizer(schedule='constant', final_learning_rate=1e-5),
     'optimizer.final_learning_rate 1e-05 changes nothing'),
    (lambda: cfg.Optimizer(b2=1.), 'optimizer.b2'),
    (lambda: cfg.Config(optimizer=cfg.Optimizer(schedule='wsd', decay_share=1.)), 'optimizer.decay_share'),
    (lambda: cfg.Run(microbatches=0), 'run.microbatches'),
    (lambda: cfg.Config(batch=cfg.BatchConfig(sequence_length=513, predictions=77)), 'batch.sequence_length'),
    (lambda: cfg.Config(batch=cfg.BatchConfig(size=30), run=cfg.Run(microbatches=4)), 'batch.size'),
    (lambda: cfg.Config(run=cfg.Run(steps=9999)), 'optimizer.warmup_steps'),
    (lambda: cfg.Config(batch=cfg.BatchConfig(pairs='none')), '--batch.pairs nsp, or --objective mlm$'),
    (lambda: cfg.Config(batch=cfg.BatchConfig(pairs='sop')), '--objective mlm_sop'),
    (lambda: cfg.Config(objective='mlm_sop'), '--batch.pairs sop, or --objective mlm_nsp'),
    (lambda: cfg.Config(objective='left_to_right', batch=cfg.BatchConfig(masking=NO_MASKS)), '--model.causal'),
    (lambda: cfg.Config(model=cfg.Model(causal=True)), '--model.no-causal'),
    (lambda: cfg.Model(right_to_left=True), 'set --model.causal too'),
    (lambda: cfg.Config(objective='left_to_right', model=cfg.Model(causal=True, right_to_left=True)),
     '--model.no-right-to-left'),
    (lambda: cfg.Config(objective='left_to_right', model=cfg.Model(causal=True)), 'batch.masking.share'),
    (lambda: cfg.Config(batch=cfg.BatchConfig(masking=NO_MASKS)), 'batch.masking.share'),
    (lambda: cfg.Config(objective='electra'), 'objective'),
])
def test_what_cannot_work_is_refused_by_the_name_of_its_field(make, field):
  with pytest.raises(cfg.ConfigError, match=field):
    make()


def test_json_round_trip_keeps_every_setting():
  config = cfg.Config(model=cfg.Model(layers=3, remat='full'), objective='mlm', mesh=cfg.MeshShape(fsdp=4),
                      batch=cfg.BatchConfig(size=64, seed=7), run=cfg.Run(max_minutes=1.5, seed=9))
  again = cfg.from_json(cfg.Config, json.loads(cfg.to_json(config)))
  assert again == config and hash(again) == hash(config)
  assert type(again.batch.masking) is type(config.batch.masking)


@pytest.mark.parametrize('fields', [{'colour': 'red'}, {'model': {'colour': 'red'}}])
def test_unknown_json_fields_are_refused(fields):
  with pytest.raises(cfg.ConfigError, match='colour'):
    cfg.from_json(cfg.Config, fields)


def replace(config, name, value):
  head, _, rest = name.partition('.')
  return dataclasses.replace(config, **{head: replace(getattr(config, head), rest, value) if rest else value})


def test_drift_names_every_change_but_the_free_ones():
  config = cfg.Config()
  assert cfg.drift(config, config) == []
  others = {bool: lambda v: not v, int: lambda v: 2 * v or 1, float: lambda v: v / 2 or .5, str: lambda v: v + '?',
            type(None): lambda v: 1., tuple: lambda v: v + (1,)}
  before = cfg.flat(config)
  for name, value in before.items():
    after = before | {name: others[type(value)](value)}
    lines = changed(before, after)
    free = any(name == field or name.startswith(field + '.') for field in cfg.FREE_FIELDS)
    assert [line.split(':')[0] for line in lines] == ([] if free else [name]), name


def changed(before, after):
  """drift() of two sets of values, of which some would be refused together."""
  class Fake:
    pass
  pair = [Fake(), Fake()]
  values = {id(pair[0]): before, id(pair[1]): after}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(cfg, 'flat', lambda config: values[id(config)])
    return cfg.drift(*pair)


def test_free_fields_are_fields():
  names = cfg.flat(cfg.Config())
  assert all(any(name == field or name.startswith(field + '.') for name in names) for field in cfg.FREE_FIELDS)
  for fixed in ('optimizer.peak_learning_rate', 'batch.size', 'batch.seed', 'run.seed', 'run.steps', 'model.dtype',
                'objective'):
    assert not any(fixed == field or fixed.startswith(field + '.') for field in cfg.FREE_FIELDS)


def test_a_changed_number_is_shown_from_and_to():
  config = cfg.Config()
  assert cfg.drift(config, replace(config, 'optimizer.b1', .8)) == ['optimizer.b1: 0.9 -> 0.8']
  assert cfg.drift(config, replace(replace(config, 'mesh.fsdp', 8), 'run.log_every', 1)) == []


@pytest.mark.parametrize('settings', [cfg.Run, cfg.Long, cfg.Model, cfg.Optimizer, cfg.MeshShape, cfg.Distributed])
def test_every_field_says_what_it_is(settings):
  """--help shows it: a string after each field."""
  body = ast.parse(inspect.getsource(settings)).body[0].body
  said = {first.target.id for first, second in itertools.pairwise(body) if isinstance(first, ast.AnnAssign)
          and isinstance(second, ast.Expr) and isinstance(second.value, ast.Constant)}
  assert {field.name for field in dataclasses.fields(settings)} - said == set()

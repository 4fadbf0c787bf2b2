"""A recipe fitted to data and steps: all recipes go with all data; what was given stays; all that is wrong is told."""

import contextlib
import itertools
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from bert_jax import config as cfg, fitting, phases, recipes, settings_file
from bert_jax.errors import ConfigError
from bert_jax.fields import flat, replaced
from input_pipeline import records
from input_pipeline.errors import DataError
from launch.commands import pretraining
from tests import synthetic

# Of those that differ only in their size one, and one with the variants that differ.
NAMES = ['sample', 'proof', 'base', *recipes.OTHERS, *(
    f'{size}_{name}' for size in ('base', 'proof')
    for name in ('no_nsp', 'left_to_right', 'sop', '2018', 'mask_0_20_80'))]
DATA = {'32': [32], '128': [128], '512': [512], '1024': [1024], '128 and 512': [128, 512], '64 and 256': [64, 256]}
KINDS = {'dynamic': {}, 'google': {'pairs': 'google'}, 'stored': {'pairs': 'google', 'masks': records.GOOGLE}}
PREPARED = [*((name, 'dynamic') for name in DATA), ('32', 'google'), ('128', 'stored'), ('128 and 512', 'stored')]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """{(lengths, kind): DATA}, without a validation split."""
  folder = tmp_path_factory.mktemp('fitting')
  for name, kind in PREPARED:
    lengths = DATA[name]
    for length in lengths:
      path = folder / name / kind / (str(length) if len(lengths) > 1 else '')
      synthetic.write_data(path, vocabulary_size=90, pieces=8, documents=2, sequence_length=length, shards=1)
      synthetic.rewrite_manifest(path, lambda fields, kind=kind: fields.update(KINDS[kind]))
  return {(name, kind): folder / name / kind for name, kind in PREPARED}


def layers(name, **given):
  """Of a recipe and flags."""
  recipe = recipes.recipe(name)
  values = {key.replace('__', '.'): value for key, value in given.items()}
  return fitting.Layers((recipe, recipe, replaced(cfg.Asked.of(recipe), values)),
                        (frozenset(), frozenset(), frozenset(values)))


def test_every_recipe_goes_with_any_data(data):
  """But for sentence order where the pairs are drawn, and for reading as it is where masks are."""
  for name, (where, kind) in itertools.product(NAMES, data):
    recipe = recipes.recipe(name)
    if kind != 'dynamic' and recipe.batch.pairs == 'sop' or kind == 'stored' and not recipe.learns.masked:
      with pytest.raises(ConfigError, match='was prepared with'):
        fitting.fitted(layers(name, run__steps=20), data[where, kind])
      continue
    found = fitting.fitted(layers(name, run__steps=20), data[where, kind])
    assert type(found.config) is cfg.Config and not phases.misfits(data[where, kind], found.config)
    assert found.config.run.steps == 20 and found.config.optimizer.warmup_steps <= 2 + 20 * 0.4
    before, after = flat(recipe), flat(found.config)
    changed = {key for key in after if after[key] != before[key]} - {'run.steps'}
    assert changed == set(found.followed)
    assert all(sum(key in line for line in found.lines) >= 1 for key in changed)
    if where == '32':
      again = fitting.fitted(layers(name, run__steps=20), data[where, kind], old=found.config)
      assert again.config == found.config and not again.lines


def test_what_the_lines_say(data):
  found = fitting.fitted(layers('base', run__steps=20), data['32', 'dynamic'])
  said = '\n'.join(found.lines)
  assert 'optimizer.warmup_steps 10,000 → 1: the share stays, warmup 10,000 of 1,000,000 steps → 1 of 20' in said
  assert 'model.vocab_size 30,522 → 90: the size' in said and 'long.share 0.1 → 0.0' in said
  assert 'batch.sequence_length 128 → 32, batch.predictions 20 → 5' in said and 'rows of 32' in said
  both = fitting.fitted(layers('base', run__steps=1000), data['64 and 256', 'dynamic']).config
  assert (both.batch.sequence_length, both.batch.predictions) == (64, 10)
  assert (both.long.share, both.long.sequence_length, both.long.predictions) == (0.1, 256, 39)
  usual = fitting.fitted(layers('base', model__vocab_size=90), data['128 and 512', 'dynamic'])
  assert not usual.lines and usual.config == replaced(recipes.recipe('base'), {'model.vocab_size': 90})


VALUES = {
    'run.steps': st.integers(1, 10**6), 'optimizer.warmup_steps': st.integers(0, 10**5),
    'model.vocab_size': st.sampled_from([80, 90]), 'batch.sequence_length': st.sampled_from([32, 64, 128]),
    'batch.predictions': st.integers(1, 40), 'long.share': st.sampled_from([0.0, 0.3]),
    'long.sequence_length': st.sampled_from([256, 512]), 'batch.size': st.integers(1, 64),
    'run.microbatches': st.integers(1, 4), 'batch.masking.share': st.sampled_from([0.1, 0.3]),
    'run.evaluate_every': st.sampled_from([0, 5]), 'optimizer.schedule': st.sampled_from(['bert', 'wsd', 'constant'])}


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(st.data(), st.sampled_from(['base', 'sample', 'proof', 'nvidia_phase1', 'base_left_to_right']))
def test_what_was_given_stays(data, draws, name):
  names = draws.draw(st.sets(st.sampled_from(sorted(VALUES)), max_size=6))
  given = {key: draws.draw(VALUES[key]) for key in sorted(names)}
  with contextlib.suppress(ConfigError, DataError):
    asked = layers(name, **{key.replace('.', '__'): value for key, value in given.items()})
    found = flat(fitting.fitted(asked, data['128', 'dynamic']).config)
    assert {key: found[key] for key in given} == given


def test_all_that_is_wrong_is_told_at_once(data, tmp_path):
  argv = ['tiny', '--data', str(data['32', 'dynamic']), '--run-dir', str(tmp_path / 'run'), '--run.steps', '20',
          '--optimizer.warmup-steps', '30', '--model.vocab-size', '80', '--batch.sequence-length', '64',
          '--batch.size', '9', '--run.microbatches', '2']
  with pytest.raises(ConfigError, match='^4 things are wrong: ') as caught:
    pretraining.pretrain(argv)
  for says in ('warmup_steps 30 is more than run.steps 20', '--model.vocab-size 90', 'prepared for rows of 32',
               'batch.size 9 is not a multiple of run.microbatches 2'):
    assert says in str(caught.value), says
  with pytest.raises(ConfigError, match='^2 things are wrong: .*long.share.*optimizer.final_learning_rate'):
    pretraining.pretrain([*argv, '--long.share', '2', '--optimizer.final-learning-rate', '1'])
  assert not (tmp_path / 'run').exists()

# ---------------------------------------------------------------- settings of a file


@pytest.mark.parametrize('kind', ['a run', 'plain', 'dotted', 'yaml', 'printed'])
def test_a_file_of_settings_is_read_back(tmp_path, capsys, kind):
  changes = {'run.steps': 700, 'model.layer_norm_epsilon': 3e-9, 'model.vocab_size': 90}
  config = replaced(recipes.recipe('proof'), changes)
  path, fields = tmp_path / 'settings', json.loads(cfg.to_json(config))
  yaml = pytest.importorskip('yaml')
  path.write_text({
      'a run': lambda: json.dumps({'id': 'x', 'kind': 'pretrained', 'config': fields, 'data': 'd', 'vocabulary': {}}),
      'plain': lambda: json.dumps(fields), 'dotted': lambda: json.dumps(flat(config)),
      'yaml': lambda: yaml.safe_dump(fields), 'printed': lambda: settings_file.shown(
          config, dict.fromkeys(flat(config), 'flag'))}[kind]())
  assert pretraining.pretrain(['--config', str(path), '--print-config', '--run.seed', '7', '--run.steps', '900']) == 0
  printed = capsys.readouterr().out
  again = tmp_path / 'again'
  again.write_text(printed)
  wanted = replaced(config, {'run.seed': 7, 'run.steps': 900, 'optimizer.warmup_steps': 300 * 900 // 700 + 1})
  values = settings_file.read(again)
  assert settings_file.applied(cfg.Asked(), values, again).checked() == wanted
  source = {line.partition(':')[0]: line.rpartition('# ')[2] for line in printed.splitlines()}
  assert source['run.seed'] == source['run.steps'] == 'flag' and source['model.layers'] == 'file'


def test_where_settings_come_from(data, tmp_path, capsys):
  (tmp_path / 'some.json').write_text('{"run": {"log_every": 5}, "optimizer.b1": 0.8}')
  assert pretraining.pretrain(['base', '--config', str(tmp_path / 'some.json'), '--print-config', '--run.steps', '40',
                               '--data', str(data['32', 'dynamic'])]) == 0
  lines = dict(line.split(': ', 1) for line in capsys.readouterr().out.splitlines())
  for name, value, source in (
      ('run.log_every', '5', 'file'), ('optimizer.b1', '0.8', 'file'), ('run.steps', '40', 'flag'),
      ('model.vocab_size', '90', "data: the size of the data's vocabulary"),
      ('optimizer.weight_decay', '0.01', 'default'), ('batch.size', '256', 'recipe')):
    assert lines[name].split('#')[0].strip() == value and lines[name].endswith(f'# {source}'), lines[name]
  assert not list(tmp_path.glob('run*'))


@pytest.mark.parametrize('text, says', [
    ('{"run": {"stepps": 3}}', 'there is no setting run.stepps'), ('[1]', 'holds no settings'),
    ('{"run": {"steps": "many"}}', "run.steps is 'many'"),
    ('{"kind": "finetuned", "config": {}}', 'of a finetuned run'),
    ('{"a: b', 'neither JSON'), ('{"run.steps": 0}', 'run.steps is 0')])
def test_a_file_that_cannot_work(tmp_path, text, says):
  (tmp_path / 'file').write_text(text)
  with pytest.raises(ConfigError, match=says):
    pretraining.pretrain(['tiny', '--config', str(tmp_path / 'file'), '--print-config'])

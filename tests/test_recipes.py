"""Recipes and their variants: published shapes, objectives that batches and model fit, names told apart."""

import itertools

import pytest

from bert_jax import config as cfg, optimizer, phases, recipes
from bert_jax.model import build
from bert_jax.objectives import PRETRAINING_HEADS

# arXiv:1908.08962 table 1 and arXiv:1810.04805 section 3, with both pretraining heads.
PARAMETERS = {'tiny': 4.4e6, 'mini': 11.2e6, 'small': 28.8e6, 'medium': 41.4e6, 'base': 110.1e6, 'large': 336.2e6}


@pytest.mark.parametrize('name', PARAMETERS)
def test_sizes_are_the_published_ones(name):
  params = build.describe(recipes.recipe(name).model, PRETRAINING_HEADS)[1]
  assert build.parameter_count(params) == pytest.approx(PARAMETERS[name], rel=.02)


def expected_parameters(model: cfg.Model) -> int:
  """Of the encoder, the pooler and both heads, counted from the settings (google-research/bert modeling.py)."""
  V, D, F, L = model.vocab_size, model.hidden_size, model.intermediate_size, model.layers
  layer = 4 * (D * D + D) + 2 * D * F + F + D + 4 * D
  heads = (D * D + D) + (D * D + D + 2 * D + V) + (2 * D + 2)
  return (V + model.max_positions + model.type_vocab_size) * D + 2 * D + L * layer + heads


def test_every_recipe_composes_with_every_variant_and_can_be_planned():
  """A Config checks itself; shapes and FLOPs are what `plan` begins with."""
  objectives = {}
  for size, variant in itertools.product(recipes.RECIPES, ['', *recipes.VARIANTS]):
    config = recipes.recipe(f'{size}_{variant}' if variant else size)
    usual = recipes.RECIPES[size]()
    assert config.run == usual.run and (config.optimizer == usual.optimizer or variant == '2018')
    objectives[size, variant] = config.objective
    for phase in phases.phases(config):
      assert config.learns.flops_per_row(config.model, phase.config.batch) > 1e8
  for size in (*recipes.BY_SIZE, 'sabertooth_1024', 'L-10_H-128_A-2'):  # of the others' shapes the formula is the same
    model = recipes.recipe(size).model
    assert build.parameter_count(build.describe(model, PRETRAINING_HEADS)[1]) == expected_parameters(model)
  assert {variant: objectives['base', variant] for variant in ('', *recipes.VARIANTS) if 'mask' not in variant} == {
      '': 'mlm_nsp', 'no_nsp': 'mlm', 'left_to_right': 'left_to_right', 'right_to_left': 'right_to_left',
      'sop': 'mlm_sop', '2018': 'mlm_nsp'}


def test_tables_of_the_papers():
  """arXiv:1810.04805 tables 6 and 8; the 24 of google-research/bert's README."""
  shape = lambda name: (lambda m: (m.layers, m.hidden_size, m.heads))(recipes.recipe(name).model)
  assert [shape(name) for name in recipes.BY_SIZE] == [
      (3, 768, 12), (6, 768, 3), (6, 768, 12), (12, 768, 12), (12, 1024, 16), (24, 1024, 16)]
  assert len(recipes.SMALLER) == 24 and all(
      name == recipes.shape_name(*shape(name)) and recipes.recipe(name).model.intermediate_size == 4 * shape(name)[1]
      for name in {**recipes.SMALLER, **recipes.BY_SIZE})
  assert recipes.recipe('L-2_H-128_A-2') == recipes.recipe('tiny')
  assert recipes.recipe('L-24_H-1024_A-16') == recipes.recipe('large')
  assert recipes.recipe('base_mask_80_10_10') == recipes.recipe('base')
  masking = recipes.recipe('base_mask_0_20_80').batch.masking
  assert (masking.mask, masking.random, masking.share) == (0, .8, .15)


@pytest.mark.parametrize('name, at, wanted', [
    ('nvidia_phase1', 3519, 6e-3 * .5 ** .5), ('nvidia_phase1', 2000, 6e-3 * 2000 / 2001), ('nvidia_phase2', 1563, 0),
    ('mosaic_base', 70_000, 1e-5), ('mosaic_base', 4_200, 5e-4), ('roberta_large', 265_000, 2e-4),
    ('sabertooth_4096', 3_125, 1e-3), ('mlperf', 280, 0.00288293 / 2), ('base', 10_000, 0.99e-4)])
def test_rates_are_the_published_ones(name, at, wanted):
  config = recipes.recipe(name)
  assert float(optimizer.learning_rate(config.optimizer, config.run.steps)(at)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize('size', ['base', 'large'])
def test_2_4_to_2_7_the_2018_mode_is_the_originals(size):
  """FIDELITY 2.4 (data), 2.5 (optimizer), 2.6 (schedule) and 2.7 (model): each setting by name."""
  config, o = recipes.recipe(f'{size}_2018'), recipes.recipe(f'{size}_2018').optimizer
  assert (o.name, o.b1, o.b2, o.epsilon, o.weight_decay, o.clip_norm) == ('bert_adamw', .9, .999, 1e-6, .01, 1.0)
  assert (o.schedule, o.decay_power, o.final_learning_rate, o.peak_learning_rate, o.warmup_steps) == (
      'bert', 1.0, 0.0, 1e-4, 10_000)
  model = config.model
  assert (model.activation, model.layer_norm_epsilon, model.initializer_range) == ('gelu_tanh', 1e-12, .02)
  assert (model.hidden_dropout, model.attention_dropout, model.max_positions, model.type_vocab_size) == (.1, .1, 512, 2)
  assert (model.dtype, config.batch.pairs, config.batch.masking.unit) == ('float32', 'google', 'google')
  assert [phase.config.batch.predictions for phase in phases.phases(config)] == [20, 77]
  assert (config.objective, config.run.seed, config.batch.seed) == ('mlm_nsp', 12345, 12345)


def test_from_left_to_right_the_text_stays_as_it_is():
  config, other = recipes.recipe('base_left_to_right'), recipes.recipe('base_right_to_left')
  assert config.model.causal and config.batch.masking.share == 0 and config.batch.pairs == 'none'
  assert other.batch == config.batch and (config.model.direction, other.model.direction) == (1, -1)


@pytest.mark.parametrize('name, says', [('bse', "did you mean 'base'"), ('base_no_nps', "did you mean 'base_no_nsp'"),
                                        ('xyzzy', 'wanted one of sample, proof, tiny')])
def test_unknown_names_are_refused(name, says):
  with pytest.raises(cfg.ConfigError, match=says):
    recipes.recipe(name)

"""Recipes and their variants: published shapes, objectives that batches and model fit, names told apart."""

import itertools

import pytest

from bert_jax import config as cfg, recipes
from bert_jax.model import build
from bert_jax.objectives import PRETRAINING_HEADS

# arXiv:1908.08962 table 1 and arXiv:1810.04805 section 3, with both pretraining heads.
PARAMETERS = {'tiny': 4.4e6, 'mini': 11.2e6, 'small': 28.8e6, 'medium': 41.4e6, 'base': 110.1e6, 'large': 336.2e6}


@pytest.mark.parametrize('name', PARAMETERS)
def test_sizes_are_the_published_ones(name):
  params = build.describe(recipes.recipe(name).model, PRETRAINING_HEADS)[1]
  assert build.parameter_count(params) == pytest.approx(PARAMETERS[name], rel=.02)


def test_every_recipe_composes_with_every_variant():
  found = {}
  for size, variant in itertools.product(recipes.RECIPES, ['', *recipes.VARIANTS]):
    found[size, variant] = config = recipes.recipe(f'{size}_{variant}' if variant else size)  # a Config checks itself
    assert config.run == found[size, ''].run and config.optimizer == found[size, ''].optimizer
  objectives = {variant: found['base', variant].objective for variant in ('', *recipes.VARIANTS)}
  assert objectives == {'': 'mlm_nsp', 'no_nsp': 'mlm', 'left_to_right': 'left_to_right',
                        'right_to_left': 'right_to_left', 'sop': 'mlm_sop'}


def test_from_left_to_right_the_text_stays_as_it_is():
  config, other = recipes.recipe('base_left_to_right'), recipes.recipe('base_right_to_left')
  assert config.model.causal and config.batch.masking.share == 0 and config.batch.pairs == 'none'
  assert other.batch == config.batch and (config.model.direction, other.model.direction) == (1, -1)


@pytest.mark.parametrize('name, says', [('bse', "did you mean 'base'"), ('base_no_nps', "did you mean 'base_no_nsp'"),
                                        ('xyzzy', 'wanted one of sample, proof, tiny')])
def test_unknown_names_are_refused(name, says):
  with pytest.raises(cfg.ConfigError, match=says):
    recipes.recipe(name)

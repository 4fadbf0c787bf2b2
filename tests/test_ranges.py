"""Ranges of settings: every number has one, which its check, its error, --help and docs/ read."""

import dataclasses
import math
import pathlib
import re
import typing

import pytest

from bert_jax import recipes
from bert_jax.errors import ConfigError
from bert_jax.tasks.table import TASKS
from input_pipeline import ranges
from input_pipeline.errors import DataError
from launch import settings_page
from launch.commands import flags, training
from tests.test_flags import SETTINGS

APART = {('Masking', 'schedule')}  # points, which have a check of their own


def numeric(kind) -> bool:
  """Whether a field of this type holds a number, or several."""
  return kind in (int, float) or any(map(numeric, typing.get_args(kind)))


def all_kinds():
  """Every class of settings of every command, and those within them."""
  found, waiting = [], [*SETTINGS.values(), *(task.settings for task in TASKS.values())]
  while waiting:
    kind = waiting.pop()
    if kind not in found:
      found.append(kind)
      hints = typing.get_type_hints(kind)
      waiting += filter(dataclasses.is_dataclass, (hints[field.name] for field in dataclasses.fields(kind)))
  return found


KINDS = all_kinds()
FIELDS = [(kind, name) for kind in KINDS for name in ranges.of(kind)]
COMMANDS = {*SETTINGS.values()}


def an_instance(kind):
  """One that is allowed: defaults, and some text where there is none."""
  needed: dict = {}
  hints = typing.get_type_hints(kind)
  for field in dataclasses.fields(kind):
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      hint = hints[field.name]
      needed[field.name] = an_instance(hint) if dataclasses.is_dataclass(hint) else (
          ('x',) if typing.get_origin(hint) is tuple else 'x')
  return kind(**needed)


def check(kind, settings, name, value):
  """As a call and as a command line would."""
  changed = dataclasses.replace(settings, **{name: value})
  if hasattr(changed, 'check') and not isinstance(changed, tuple):
    changed.check()
  if kind in COMMANDS or not hasattr(changed, '__post_init__') and not hasattr(changed, 'check'):
    flags.require_values(changed)


def values_of(within: ranges.Within, whole: bool):
  """Each border, just beyond it, and what is often meant by mistake."""
  beyond = (lambda x, up: x + (1 if up else -1)) if whole else (
      lambda x, up: math.nextafter(x, math.inf if up else -math.inf))
  for border, up in ((within.least, False), (within.greatest, True)):
    yield from (border, beyond(border, up), beyond(border, not up))
  yield from (0, -1, math.nan, math.inf, -math.inf, 1e30, 10**30, 0.5, '', 'much', True)


def test_every_number_has_a_range_with_two_ends():
  for kind in KINDS:
    hints = typing.get_type_hints(kind)
    known = ranges.of(kind)
    for field in dataclasses.fields(kind):
      if numeric(hints[field.name]) and (kind.__name__, field.name) not in APART:
        within = known[field.name][1]
        assert math.isfinite(within.least) and math.isfinite(within.greatest), (kind, field.name)
  assert len(FIELDS) > 90


@pytest.mark.parametrize('kind, name', FIELDS, ids=[f'{kind.__name__}.{name}' for kind, name in FIELDS])
def test_a_number_outside_its_range_is_refused_in_a_sentence(kind, name):
  settings = an_instance(kind)
  hint, within = ranges.of(kind)[name]
  whole = not ranges.fits(0.5, hint) and not ranges.fits((0.5,), hint)
  many = isinstance(getattr(settings, name), tuple) or ranges.fits((1,), hint)
  for value in values_of(within, whole):
    given = (value,) if many else value
    inside = ranges.fits(given, hint) and within.holds(value)
    try:
      check(kind, settings, name, given)
      assert inside, given
    except (ConfigError, DataError) as error:
      said = str(error)
      assert '\n' not in said and len(said) < 400, said
      if not inside:
        assert re.search(rf'\b{name}\b|--{name.replace("_", "-")}\b', said) and within.words in said, said
        assert re.search(re.escape(f'{value!r}'[:40]) + '|' + re.escape(f'{value!s}'[:40]), said), said


@pytest.mark.parametrize('words, says', [
    (['--run.steps', '0'], r'run.steps is 0: wanted a whole number, at least 1 and at most 1,000,000,000'),
    (['--run.steps', ''], r"run.steps is '': wanted a whole number, at least 1"),
    (['--run.steps', '1e30'], r"run.steps is '1e30': wanted a whole number"),
    (['--run.max-minutes', 'soon'], r"run.max_minutes is 'soon': wanted a finite number or nothing, at least 0"),
    (['--run.max-minutes=-1'], r'run.max_minutes is -1.0: wanted'),
    (['--model.layer-norm-epsilon=nan'], r'model.layer_norm_epsilon is nan: wanted a finite number, more than 0'),
    (['--optimizer.weight-decay=-inf'], r'optimizer.weight_decay is -inf: wanted a finite number, at least 0'),
    (['--batch.seed', str(2**64)], r'batch.seed is 18446744073709551616: wanted a whole number, at least 0'),
    (['--rewind-to=-1'], r'--rewind-to is -1: wanted a whole number or nothing'),
    (['--initialize-from', ''], r'--initialize-from is empty: wanted a text')])
def test_a_command_says_it_in_one_sentence(words, says):
  with pytest.raises((ConfigError, DataError), match='^' + says):
    training.pretrain(['tiny', '--data', 'd', '--run-dir', 'r', *words])


def test_help_shows_the_ranges(capsys):
  with pytest.raises(SystemExit) as ended:
    training.pretrain(['tiny', '--help'])
  shown = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
  assert ended.value.code == 0
  assert 'dropped (appendix A.2). (default: 0.1; at least 0 and less than 1)' in shown
  assert 'at least 1 and at most 1,000,000,000)' in shown


def test_the_page_of_settings_is_as_they_are():
  path = pathlib.Path(settings_page.__file__).parents[1] / 'docs' / 'settings.md'
  assert path.read_text(encoding='utf-8') == settings_page.page(), 'python -m launch.settings_page > docs/settings.md'


def test_what_is_surely_a_mistake_is_told(capsys):
  default = training.Pretrain('data', 'run', recipes.recipe('tiny'))
  flags.parse(training.Pretrain, ['--optimizer.peak-learning-rate', '2', '--model.hidden-dropout', '0.95'],
              'pretrain tiny', default, training.check)
  said = capsys.readouterr().err.splitlines()
  assert 'bert-jax: optimizer.peak_learning_rate is 2: more than 1 is surely a mistake' in said
  assert 'bert-jax: model.hidden_dropout is 0.95: more than 0.9 is surely a mistake' in said and len(said) == 2

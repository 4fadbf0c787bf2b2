"""Ranges of settings: every number has one, which its check, its error, --help and docs/ read."""

import dataclasses
import math
import pathlib
import re
import typing

import pytest

from bert_jax import recipes
from bert_jax.errors import ConfigError
from bert_jax.tasks.settings import Grid
from bert_jax.tasks.table import TASKS
from input_pipeline import ranges
from input_pipeline.errors import DataError
from launch import settings_page
from launch.commands import flags, measuring, pretraining, text, training
from tests.test_flags import SETTINGS


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
      if numeric(hints[field.name]):
        within = known[field.name][1]
        assert math.isfinite(within.least) and math.isfinite(within.greatest), (kind, field.name)
  assert len(FIELDS) > 90


def values_at(hint, fitting):
  """(value of a field of this type, what stands in one place of it, the range of that place): each of `values_of` in
  each place of one number or of a tuple, whose other numbers are `fitting`."""
  if own := ranges.own_of(hint):
    whole = not ranges.fits(0.5, hint)
    yield from ((value, value, own, hint) for value in values_of(own, whole))
    return
  many = ranges.tuple_in(hint)
  parts = typing.get_args(many) if many else [part for part in typing.get_args(hint) if ranges.found_in(part)]
  for place, part in enumerate(parts[:1] if parts[-1] is Ellipsis else parts):
    for value, *rest in values_at(part, fitting):
      others = [fitting(ranges.found_in(other)[0]) for other in parts[:-1] + parts[-1:] if other is not Ellipsis]
      yield (value if not many else tuple(value if at == place else other for at, other in enumerate(others)), *rest)


@pytest.mark.parametrize('kind, name', FIELDS, ids=[f'{kind.__name__}.{name}' for kind, name in FIELDS])
def test_a_number_outside_its_range_is_refused_in_a_sentence(kind, name):
  settings = an_instance(kind)
  hint, _ = ranges.of(kind)[name]
  for given, value, within, own in values_at(hint, lambda within: within.least):
    inside = ranges.fits(value, own) and within.holds(value)
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
    (['--batch.masking.schedule', '0', '0.1', '9', 'x'], r"batch.masking.schedule has 'x': wanted a tuple"),
    (['--rewind-to=-1'], r'--rewind-to is -1: wanted a whole number or nothing'),
    (['--initialize-from', ''], r'--initialize-from is empty: wanted a text')])
def test_a_command_says_it_in_one_sentence(words, says):
  with pytest.raises((ConfigError, DataError), match='^' + says):
    pretraining.pretrain(['tiny', '--data', 'd', '--run-dir', 'r', *words])


@pytest.mark.parametrize('words, says', [
    (['--grid.rates', '3e-5', '1e400'], 'grid.rates has inf: wanted a tuple of a finite number, more than 0'),
    (['--grid.sizes', '16', '1e3'], "grid.sizes has '1e3': wanted a tuple of a whole number, at least 1"),
    (['--grid.epochs', ''], "grid.epochs has '': wanted a tuple of a whole number"),
    (['--seeds', '9' * 400], '--seeds is 9{60}: wanted a whole number, at least 1 and at most 10,000')])
def test_a_list_of_numbers_is_refused_by_the_one_that_is_outside(words, says):
  with pytest.raises(ConfigError, match='^' + says):
    training.finetune(['classification', '--data', 'd', '--run-dir', 'r', '--checkpoint', 'c', *words])


@pytest.mark.parametrize('command, words, says', [
    (text.inspect, ['d', '--masking.share', 'x'], "--masking.share is 'x': wanted a finite number, at least 0"),
    (text.inspect, ['d', '--masking.schedule', '0', '2'], '--masking.schedule has 2.0: wanted a tuple of a tuple of'),
    (measuring.benchmark, ['tasks', 'c', '--data-root', 'r', '--output', 'o', '--seeds', '0'], 'seeds is 0: wanted a')])
def test_settings_within_a_command_are_looked_at_before_anything_is_read(command, words, says):
  with pytest.raises(ConfigError, match='^' + says):
    command(words)


def test_help_shows_the_ranges(capsys):
  with pytest.raises(SystemExit) as ended:
    pretraining.pretrain(['tiny', '--help'])
  shown = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
  assert ended.value.code == 0
  assert 'dropped (appendix A.2). (default: 0.1; at least 0 and less than 1)' in shown
  assert 'at least 1 and at most 1,000,000,000)' in shown


def test_the_page_of_settings_is_as_they_are():
  path = pathlib.Path(settings_page.__file__).parents[1] / 'docs' / 'settings.md'
  assert path.read_text(encoding='utf-8') == settings_page.page(), 'python -m launch.settings_page > docs/settings.md'


def test_what_is_surely_a_mistake_is_told(capsys):
  default = pretraining.Pretrain('data', 'run', recipes.recipe('tiny'))
  grid = Grid(rates=(1e-5, 2.0))
  assert list(ranges.unwise(grid)) == ['rates is 2: more than 1 is surely a mistake']
  flags.parse(pretraining.Pretrain, ['--optimizer.peak-learning-rate', '2', '--model.hidden-dropout', '0.95'],
              'pretrain tiny', default, pretraining.check)
  said = capsys.readouterr().err.splitlines()
  assert 'bert-jax: optimizer.peak_learning_rate is 2: more than 1 is surely a mistake' in said
  assert 'bert-jax: model.hidden_dropout is 0.95: more than 0.9 is surely a mistake' in said and len(said) == 2

"""Every field of what a batch is made of is checked by its type, its table and its range, and named."""

import dataclasses
import math
import typing

import numpy as np
import pytest

from bert_jax import config as cfg
from input_pipeline.batches.choosing import CHOOSERS
from input_pipeline.batches.config import BatchConfig
from input_pipeline.batches.masking import STORED, Masking
from input_pipeline.batches.pairs import MAKERS
from input_pipeline.errors import DataError

PACKED = BatchConfig(pack=True, pairs_per_row=4)

whole = lambda value: type(value) is int
number = lambda value: type(value) in (int, float) and math.isfinite(value)
# What each field may be beside the other fields' defaults. A new field must be added here.
FITTING = {
    BatchConfig: {
        'size': lambda value: whole(value) and value >= 1,
        'sequence_length': lambda value: whole(value) and value >= 23,  # for 20 predictions and 3 special tokens
        'predictions': lambda value: whole(value) and value >= 16,  # for 15 % of 128
        'pairs': lambda value: type(value) is str and value in MAKERS,
        'pack': lambda value: value is True,
        'pairs_per_row': lambda value: whole(value) and value >= 2,
        'masking': lambda value: isinstance(value, Masking),
        'seed': lambda value: whole(value) and value >= 0},
    Masking: {
        'share': lambda value: number(value) and 0 <= value < 1,
        'mask': lambda value: number(value) and 0 <= value <= .9,
        'random': lambda value: number(value) and 0 <= value <= .2,
        'unit': lambda value: type(value) is str and value in CHOOSERS,
        'schedule': lambda value: type(value) is tuple and value in ((), ((0, .1), (5, .2)))}}
VALUES = (
    None, True, False, -1, 0, 1, 2, 20, 10**9, -.5, 0., .1, .5, 1.5, math.nan, math.inf, -math.inf,
    np.int64(32), np.float32(.1), '', 'foo', 'nsp', 'word', 'none', b'nsp', [], {}, Masking(), (),
    ((0, .1), (5, .2)), ((5, .1), (5, .2)), ((5, .1), (0, .2)),
    ((-1, .1),), ((0, 1.),), ((0, math.nan),), ((.5, .1),), (0, .1), ((0, .1, 2),))


def accepted(settings) -> bool:
  try:
    settings.check()
  except DataError:
    return False
  return True


@pytest.mark.parametrize('kind, name', [(kind, name) for kind, fields in FITTING.items() for name in fields])
def test_a_field_takes_what_fits_and_refuses_the_rest_by_its_name(kind, name):
  base = PACKED if kind is BatchConfig else Masking()
  for value in VALUES:
    if kind is BatchConfig and name in ('sequence_length', 'predictions') and value == 10**9:
      continue  # one bounds the other
    settings = dataclasses.replace(base, **{name: value})
    if FITTING[kind][name](value):
      settings.check()
    else:
      with pytest.raises(DataError, match=name):
        settings.check()


def test_no_field_is_forgotten():
  for kind, fields in FITTING.items():
    assert set(fields) == {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize('kind, name, table', [(BatchConfig, 'pairs', MAKERS), (Masking, 'unit', (*CHOOSERS, STORED))])
def test_choices_are_those_of_the_tables(kind, name, table):
  assert typing.get_args(typing.get_type_hints(kind)[name]) == tuple(table)
  assert all(accepted(dataclasses.replace(kind(), **{name: choice})) for choice in table)
  with pytest.raises(DataError, match='one of ' + ', '.join(map(repr, table))):
    dataclasses.replace(kind(), **{name: 'foo'}).check()


def test_masks_of_a_batch_are_checked_with_it():
  with pytest.raises(DataError, match='masking.unit'):
    BatchConfig(masking=Masking(unit='sentence')).check()


def test_a_run_refuses_them_too():
  for batch in (BatchConfig(pairs='foo'), BatchConfig(seed=-1), BatchConfig(masking=Masking(share=math.nan))):
    with pytest.raises(cfg.ConfigError):
      cfg.Config(batch=batch)

"""What is said of two states that should be the same and are not: tests/states.py."""

import json

import numpy as np
import pytest

from bert_jax import run_directory
from tests import states


def tree(bias, kernel=1.5):
  return {'dense': {'bias': np.float32(bias), 'kernel': np.full((2, 3), kernel, np.float32)}}


def test_the_same_is_the_same_to_the_bit():
  states.assert_same(tree([0, 0.5]), tree([0, 0.5]))
  states.assert_same(tree([np.nan, 0]), tree([np.nan, 0]))
  with pytest.raises(AssertionError, match='1 of 2 arrays differ'):
    states.assert_same(tree([0.0, 1]), tree([-0.0, 1]))
  with pytest.raises(AssertionError, match=r'dense/bias: float32\[2\] and float32\[3\]'):
    states.assert_same(tree([0, 1]), tree([0, 1, 2]))


def test_what_differs_is_told(tmp_path):
  for name, last in (('one', 2.5), ('other', 2.25)):
    (tmp_path / name).mkdir()
    lines = [{'step': step, 'kind': 'train', 'loss': loss} for step, loss in ((1, 3.0), (2, last))]
    (tmp_path / name / run_directory.LOG).write_text(''.join(json.dumps(line) + '\n' for line in lines))
  with pytest.raises(AssertionError) as caught:
    states.assert_same(tree([0, 0.5, 0.25]), tree([0, 0, 0]), tmp_path / 'one', tmp_path / 'other')
  said = str(caught.value)
  assert '1 of 2 arrays differ' in said and 'dense/kernel' not in said
  assert 'dense/bias float32[3]: 2 numbers, by up to 0.5; the second is 0.0 throughout' in said
  assert f"{tmp_path / 'one'}: {{'step': 2" in said and "'loss': 2.25" in said and "'step': 1" not in said
  assert 'programs were compiled by this process or read from' in said


def test_biases_and_scales_that_have_not_moved_are_named():
  still = {'bias': np.zeros(3), 'scale': np.ones(3), 'kernel': np.zeros(3)}
  assert states.unmoved({'norm': still}) == ['norm/bias', 'norm/scale']
  assert not states.unmoved({'norm': {'bias': np.ones(3), 'scale': np.zeros(3)}})

"""What a worker finds out before the work, each by one sentence."""

import dataclasses

import pytest

from input_pipeline import records
from input_pipeline.engines import probing
from input_pipeline.text import sources


@pytest.fixture
def question(tmp_path, monkeypatch):
  (tmp_path / 'a.txt').write_text('One text.\n\nAnother one.\n')
  monkeypatch.chdir(tmp_path)
  parts = [sources.absolute(part) for part in sources.mixture('a.txt')]
  return probing.ask(tmp_path / 'shared', '--output out', 'beam', parts)


def test_all_is_well_and_nothing_is_left(question, tmp_path, monkeypatch):
  (tmp_path / 'elsewhere').mkdir()
  monkeypatch.chdir(tmp_path / 'elsewhere')
  probing.answer(question)
  probing.check_answered(question)
  assert not list((tmp_path / 'shared').iterdir())


def test_an_output_that_is_not_shared_is_noticed_from_both_sides(question, tmp_path):
  (tmp_path / 'other').mkdir()
  elsewhere = dataclasses.replace(question, shared=str(tmp_path / 'other'))
  with pytest.raises(records.DataError, match='--output out is not shared: the worker .* does not see'):
    probing.answer(elsewhere)
  (tmp_path / 'other/asked').write_text('of another job')
  with pytest.raises(records.DataError, match='does not see'):
    probing.answer(elsewhere)
  (tmp_path / 'other/asked').write_text(question.token)  # a copy, as of a disk that was cloned
  probing.answer(elsewhere)
  with pytest.raises(records.DataError, match='--output out is not shared: what a worker wrote there'):
    probing.check_answered(question)


@pytest.mark.parametrize('changes, message', [
    ({'project': 'other'}, 'has another version of bert_jax'),
    ({'packages': (('numpy', '0.1'),)}, r'has numpy \d.*, this machine 0.1'),
    ({'packages': (('jieba-of-old', '7'),)}, 'has jieba-of-old not at all, this machine 7')])
def test_workers_of_other_versions_are_refused(question, changes, message):
  with pytest.raises(records.DataError, match=message):
    probing.answer(dataclasses.replace(question, **changes))


def test_inputs_that_a_worker_does_not_see_are_named(question, tmp_path):
  (tmp_path / 'a.txt').write_text('Shorter.')
  with pytest.raises(records.DataError, match='another --input a.txt, of 8 bytes, than this machine, of 24'):
    probing.answer(question)
  (tmp_path / 'a.txt').unlink()
  with pytest.raises(records.DataError, match='cannot read --input a.txt .*every worker sees it'):
    probing.answer(question)


def test_of_many_inputs_some_stand_for_all(question, tmp_path):
  many = probing.ask(tmp_path / 'shared', '--output out', 'beam', [*question.parts] * 1000)
  assert 8 <= len(many.parts) <= 16

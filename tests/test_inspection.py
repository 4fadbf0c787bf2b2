"""What `inspect` shows is what is there, and a fault in a shard is found before anything is shown."""

import numpy as np
import pytest
import synthetic

from input_pipeline import records
from input_pipeline.batches.masking import Masking
from input_pipeline.inspection import inspect


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('data'), splits=('train', 'validation'))


def test_the_report_counts_what_is_there(data):
  report = inspect(data, examples=2)
  manifest = records.read_manifest(data)
  for name, split in manifest.splits.items():
    found = report.splits[name]
    assert (found.pieces, found.tokens, found.documents) == (split.pieces, split.tokens, split.documents)
    assert sum(found.lengths) == split.pieces and len(found.examples) == 2
    real = (split.tokens + 3 * split.pieces) / (split.pieces * 64)
    assert found.padding_share == pytest.approx(1 - real)


def test_packed_examples_show_their_pairs(data):
  report = inspect(data, examples=4, pack=True)
  assert 'pair 2: label' in str(report)
  assert report.splits['train'].padding_share_packed < report.splits['train'].padding_share


def test_examples_show_text_masks_and_pairs(data):
  shown = str(inspect(data, examples=3, masking=Masking(mask=1, random=0)))
  assert 'train:' in shown and 'validation:' in shown and 'SHA-256' in shown
  assert '[CLS]' in shown and '[MASK]' in shown
  assert 'label 0, B follows A' in shown and 'label 1, B is of another document' in shown
  assert '##' not in shown and '{' in shown


def test_google_pairs_are_shown(tmp_path):
  assert 'label 1' in str(inspect(synthetic.write_data(tmp_path, pairs='google')))


def test_one_document_can_be_looked_at(tmp_path):
  assert 'one segment' in str(inspect(synthetic.write_data(tmp_path, pieces=20, documents=1)))


def test_masks_of_a_schedule_have_their_slots(data):
  assert 'predicted' in str(inspect(data, examples=1, masking=Masking(schedule=((0, .5), (10, .1)))))


@pytest.mark.parametrize('change, name', [
    ({'examples': -1}, 'examples'), ({'pairs': 'foo'}, 'batch.pairs'), ({'seed': -1}, 'batch.seed')])
def test_settings_that_cannot_work_are_refused_by_name(data, change, name):
  with pytest.raises(records.DataError, match=name):
    inspect(data, **change)


def test_a_flipped_byte_is_found(tmp_path):
  data = synthetic.write_data(tmp_path)
  path = data / records.shard_name('train', 1, 3)
  content = bytearray(path.read_bytes())
  content[np.random.default_rng(0).integers(len(content))] ^= 1
  path.write_bytes(bytes(content))
  with pytest.raises(records.DataError, match='SHA-256'):
    inspect(data)

"""Apache Beam's shards are ours, byte for byte."""

import dataclasses

import corpora
import pytest

from input_pipeline import records
from input_pipeline.prepare import corpus

pytestmark = pytest.mark.beam
MULTI = ('--direct_running_mode=multi_processing', '--direct_num_workers=2')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return corpora.make(tmp_path_factory.mktemp('corpus'))


@pytest.mark.parametrize('arguments', [(), MULTI], ids=['one process', 'two processes'])
def test_the_same_shards(made, tmp_path, arguments):
  prepare, manifest = made
  on_beam = dataclasses.replace(prepare, output=str(tmp_path / 'data'), engine='beam')
  found = corpus.prepare(on_beam, arguments=arguments)
  assert (found.splits, found.counts, found.settings) == (manifest.splits, manifest.counts, manifest.settings)
  # finished, whoever made it
  assert corpus.prepare(dataclasses.replace(on_beam, engine='processes')) == found
  assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_errors_are_one_sentence(made, tmp_path):
  (tmp_path / 'one.txt').write_text('文字 文字')
  prepare = dataclasses.replace(made[0], output=str(tmp_path / 'data'), engine='beam')
  with pytest.raises(records.DataError, match='of the tokens are unknown to --vocabulary') as error:
    corpus.prepare(dataclasses.replace(prepare, input=str(tmp_path / 'one.txt')))
  assert '\n' not in str(error.value) and 'while running' not in str(error.value)
  assert [path.name for path in tmp_path.iterdir()] == ['one.txt']

"""The benchmark of the input pipeline reports what it says."""

import pytest
import synthetic

from input_pipeline import benchmark
from input_pipeline.batches.config import BatchConfig


@pytest.mark.parametrize('pack', [False, True])
def test_rates_belong_together(tmp_path, pack):
  data = synthetic.write_data(tmp_path)
  config = BatchConfig(sequence_length=64, predictions=14, pack=pack, pairs_per_row=6 if pack else 1)
  report = benchmark.measure(data, config, seconds=.2)
  assert 0 < report['real_token_share'] <= 1
  for rate in ('sequences_per_second', 'tokens_per_second', 'rows_per_second'):
    assert 0 < report[rate]['min'] <= report[rate]['median'] <= report[rate]['max']
  assert (report['sequences_per_second']['median'] > report['rows_per_second']['median']) == pack


def test_a_time_that_is_over_at_once_is_one_batch_a_round(tmp_path):
  config = BatchConfig(sequence_length=64, predictions=14)
  report = benchmark.measure(synthetic.write_data(tmp_path), config, seconds=5e-324)
  assert report['rows_per_second']['min'] > 0


def test_engines_are_measured_too(tmp_path):
  config = BatchConfig(sequence_length=64, predictions=10)
  report = benchmark.measure(synthetic.write_data(tmp_path), config, seconds=.2, engine='threads')
  assert report['engine'] == 'threads' and report['rows_per_second']['min'] > 0


def test_an_unknown_engine_is_refused(tmp_path):
  with pytest.raises(ValueError, match='auto, tf.data, threads, none'):
    benchmark.measure(synthetic.write_data(tmp_path), BatchConfig(sequence_length=64, predictions=10), engine='spark')


def test_an_unknown_peer_is_refused(tmp_path):
  with pytest.raises(ValueError, match='huggingface'):
    benchmark.measure(tmp_path, BatchConfig(), peer='gluon')


@pytest.mark.peers
def test_masking_is_15_times_the_collator_of_transformers(tmp_path):
  """How many times depends on the processor: 32 to 43 on an EPYC with AVX2, 18 to 24 on a Xeon with AVX-512."""
  data = synthetic.write_data(tmp_path, pieces=600, sequence_length=128, vocabulary_size=30522)
  report = benchmark.measure(data, BatchConfig(size=256), seconds=4, peer='huggingface')
  assert report['peer_ratio']['median'] >= 15

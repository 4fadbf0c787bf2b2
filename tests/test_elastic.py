"""Hosts and shards: the same rows in the same order, whatever the number of either, and wherever a run resumes."""

import dataclasses
import hashlib

import numpy as np
import pytest
import synthetic

from input_pipeline.batches import loader
from input_pipeline.batches.loader import BatchConfig

HOSTS = SHARDS = range(1, 10)
LOCAL = 40  # rows of a host's batch
ROWS = 1100  # two epochs of 500, and a bit
CONFIG = BatchConfig(sequence_length=32, predictions=5)


def digest(batch):
  return hashlib.sha256(b''.join(name.encode() + np.ascontiguousarray(batch[name]).tobytes()
                                 for name in sorted(batch))).hexdigest()


def originals(batch):
  ids = batch['input_ids'].copy()
  row, slot = np.nonzero(batch['masked_lm_weights'])
  ids[row, batch['masked_lm_positions'][row, slot]] = batch['masked_lm_ids'][row, slot]
  return ids


def first_rows(data, hosts, resumed_at=0):
  """The first rows of the stream, as that many hosts see them from some step on."""
  stream = loader.open_split(data, 'train', dataclasses.replace(CONFIG, size=LOCAL * hosts))
  parts = [stream.batch(step, host, hosts) for step in range(resumed_at, -(-ROWS // stream.config.size))
           for host in range(hosts)]
  return {name: np.concatenate([part[name] for part in parts])[:ROWS - resumed_at * stream.config.size]
          for name in parts[0]}, stream


@pytest.mark.reliability(4, 23)
def test_hosts_and_shards(tmp_path, capsys, tally):
  orders, duplicates, missing = {}, 0, 0
  for shards in SHARDS:
    data = synthetic.write_data(tmp_path / str(shards), pieces=500, shards=shards, sequence_length=32, block=8)
    for hosts in HOSTS:
      rows, stream = first_rows(data, hosts)
      orders[shards, hosts] = digest(rows)
      for first in range(0, ROWS - stream.rows_per_epoch, stream.rows_per_epoch):
        seen = np.bincount(originals(rows)[first:first + stream.rows_per_epoch].ravel(),
                           minlength=stream.vocabulary.size)[5:]
        duplicates, missing = duplicates + int((seen > 1).sum()), missing + int((seen == 0).sum())
    resumed, _ = first_rows(data, 10 - shards, resumed_at=2)  # a run that stopped, on other hosts
    assert digest(resumed) == digest({name: array[2 * LOCAL * (10 - shards):] for name, array in rows.items()})
  tally.control(bool(orders[1, 1]))
  for combination, order in orders.items():
    if combination != (1, 1):
      tally.fault(combination, survived=not duplicates and not missing, exact=order == orders[1, 1])
  tally.note(f'{len(orders)} pairs of hosts and shards: duplicates {duplicates}, missing {missing}')
  with capsys.disabled():
    print(f'\nhosts 1-9 x shards 1-9: the first {ROWS} rows, two epochs and more; '
          'each also resumed at step 2 by other hosts\n'
          '  shards  ' + '  '.join(f'{hosts} hosts ' for hosts in HOSTS))
    for shards in SHARDS:
      print(f'  {shards:>6}  ' + '  '.join(orders[shards, hosts][:8] for hosts in HOSTS))
    print(f'  duplicates {duplicates}, missing {missing}, orders {len(set(orders.values()))}')
  assert len(orders) == 81 and not duplicates and not missing and len(set(orders.values())) == 1


GOLDEN = {
    'nsp': ['663858f5af136d4f', '8aaef281f4471fee', 'e58ae5c37245fe0b'],
    'sop': ['8080c6ccba070bb1', '70faf10867866ac6', 'bb092c7dd7afe294'],
    'none': ['74f9a5327ea3fa1d', '702ec9d01783c799', 'ace7f9ca7420748f'],
    'google': ['56c37d7585bb7e78', '1d06505f305094b3', '66a0e3d6d929f6cd'],
    'packed': ['7b845bdfbe7bdfc5', 'ecb3564578e3ed49', '8e98d41eb51adefd'],
    'word': ['d7d2b95a91625f08', '9d4cad931e5acde3', '18ccfad53cd779f8'],
    'span': ['152ed87f4cd9fd43', '95447f55298ddbb7', '6655f40e914622ac'],
}


@pytest.mark.reliability(5)
@pytest.mark.parametrize('kind', ['nsp', 'sop', 'none', 'google', 'packed', 'word', 'span'])
def test_golden_batches(tmp_path, kind, tally):
  """Batches 0, 1 and 1,000,000 never change: a run that stopped under an older version goes on with the same data."""
  config = dataclasses.replace(CONFIG, size=16, predictions=8)
  if kind in ('nsp', 'sop', 'none', 'google'):
    config = dataclasses.replace(config, pairs=kind)
  if kind == 'packed':
    config = dataclasses.replace(config, pack=True, pairs_per_row=4)
  if kind in ('word', 'span'):
    config = dataclasses.replace(config, masking=loader.Masking(unit=kind))
  data = synthetic.write_data(tmp_path, made=synthetic.steady_pieces(1500, 60, 29), sequence_length=32, block=16,
                              pairs='google' if kind == 'google' else 'dynamic')
  stream = loader.open_split(data, 'train', config)
  tally.control([digest(stream.batch(step))[:16] for step in (0, 1, 1_000_000)] == GOLDEN[kind])
  other = loader.open_split(data, 'train', dataclasses.replace(config, seed=config.seed + 1))
  seen = digest(other.batch(0))[:16] != GOLDEN[kind][0]
  tally.fault(other.config != config, detected=seen)

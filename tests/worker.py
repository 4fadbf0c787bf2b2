"""One process of several: the command line as it is, which at its end writes down a digest of the state. For tests.

FAIL_AT=n makes this process raise an error after step n.
"""

import hashlib
import os
import pathlib

import jax
import numpy as np

from bert_jax import train
from launch import cli

TRAIN = train.train


def whole(x: jax.Array) -> np.ndarray:
  """The array from the shards of this process, which has all of them where data runs along the processes."""
  array = np.zeros(x.shape, x.dtype)
  for shard in x.addressable_shards:
    array[shard.index] = shard.data
  return array


def digest(state) -> str:
  leaves = [whole(x) for x in jax.tree.leaves((state.params, state.opt_state))]
  return hashlib.sha256(b''.join(str((x.shape, x.dtype)).encode() + x.tobytes() for x in leaves)).hexdigest()


def fail(step: int) -> bool:
  if str(step) == os.environ.get('FAIL_AT'):
    raise RuntimeError('made to fail')
  return False


def train_and_tell(config, data, run_dir, **settings):
  result = TRAIN(config, data, run_dir, **settings | {'engine': 'threads', 'stop': fail})
  if jax.process_index() == 0:
    (pathlib.Path(run_dir) / 'digest').write_text(digest(result.state))
  return result


if __name__ == '__main__':
  train.train = train_and_tell
  cli.main()

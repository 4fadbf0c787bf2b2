"""One process of several: the command line as it is, which at its end writes down a digest of the state. For tests.

FAIL_AT=n makes this process raise an error after step n. LIMIT_AT=n lets it write to no file from then on,
UNTIL_FAILED=1: until a save has failed. EVALUATION_SECONDS=s makes each batch of an evaluation take so long.
"""

import hashlib
import os
import pathlib
import resource
import sys
import time

import jax
import numpy as np

from bert_jax import checkpoint, distributed, evaluate, train
from launch import cli

TRAIN = train.train
FAILED = checkpoint.failed
FIGURES = evaluate.figures
LIMIT = resource.getrlimit(resource.RLIMIT_FSIZE)


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
  if str(step) == os.environ.get('LIMIT_AT'):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, LIMIT[1]))
  return False


def failed(*arguments, **settings) -> bool:
  """As checkpoint.failed, and says so; where it was asked for, it ends what made it fail."""
  if found := FAILED(*arguments, **settings):
    print(f'process {jax.process_index()} has heard of a save that failed', file=sys.stderr, flush=True)
    if 'UNTIL_FAILED' in os.environ:
      resource.setrlimit(resource.RLIMIT_FSIZE, LIMIT)
  return found


def train_and_tell(config, data, run_dir, **settings):
  last = jax.process_index() == jax.process_count() - 1
  assert distributed.any_says(last) and not distributed.any_says(False)
  result = TRAIN(config, data, run_dir, **settings | {'engine': 'threads', 'stop': fail})
  if jax.process_index() == 0:
    (pathlib.Path(run_dir) / 'digest').write_text(digest(result.state))
  return result


def slowly(batches):
  print('evaluating', file=sys.stderr, flush=True)
  for batch in batches:
    time.sleep(float(os.environ['EVALUATION_SECONDS']))
    yield batch


def slow_figures(program, params, batches, **settings):
  return FIGURES(program, params, slowly(batches), **settings)


if __name__ == '__main__':
  if 'EVALUATION_SECONDS' in os.environ:
    evaluate.figures = slow_figures
  train.train = train_and_tell
  checkpoint.failed = failed
  cli.main()

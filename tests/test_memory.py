"""A device that has too little memory: one sentence with the numbers and the settings, on a CPU whose process may have
little."""

import functools
import resource

import jax
import pytest

from bert_jax import memory
from bert_jax.errors import ConfigError
from tests import children, synthetic

ROOM = 12 * 2**30  # addresses of a process; JAX takes some 4 GB of them for nothing
# What compilers and runtimes have said, of v5e, of CUDA and of a CPU: bytes of the program, bytes asked for.
SAID = {
    'Used 17.58G of 15.75G hbm. Exceeded hbm capacity by 1.83G.': (17.58 * 2**30, None),
    'Ran out of memory in memory space hbm: temporaries (200.50M) and more': (200.5 * 2**20, None),
    'Out of memory while trying to allocate 1.50GiB.': (None, 1.5 * 2**30),
    'Out of memory allocating 270926820928 bytes.': (None, 270926820928)}


@pytest.mark.parametrize('said', SAID)
def test_numbers_are_read(said):
  assert [memory.told(pattern, said) for pattern in (memory.USED, memory.ASKED)] == [
      found and int(found) for found in SAID[said]]


def test_another_error_stays_what_it_is():
  with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'), memory.of_rows(1):
    raise jax.errors.JaxRuntimeError('INTERNAL: no memory of it')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('memory') / 'data', vocabulary_size=30_000, pieces=300,
                              documents=20, sequence_length=64)


def said_of(tmp_path, *argv):
  """(exit code, its last line) of a command whose process may have little memory."""
  limit = functools.partial(resource.setrlimit, resource.RLIMIT_AS, (ROOM, ROOM))
  with children.Child(tmp_path / 'said', *argv, prepare=limit) as child:
    code = child.end()
  assert 'Traceback' not in child.said, child.said
  return code, child.said.strip().splitlines()[-1]


@pytest.mark.parametrize('more, remat', [((), True), (('--model.remat', 'full', '--run.microbatches', 2), False)])
def test_a_run_says_what_to_change(data, tmp_path, more, remat):
  code, said = said_of(tmp_path, 'pretrain', 'tiny', '--data', data, '--run-dir', tmp_path / 'run', '--run.steps', 2,
                       '--batch.size', 16384, *more)
  parts = more[-1] if more else 1
  words = ['bert-jax: out of memory on cpu, which was asked for ', ': a step of 16,384 rows of 64 in ',
           ' GB, as compiled, of the ', f'raise --run.microbatches (it is {parts}, or auto: the fewest that fit)',
           'lower --batch.size (it is 16,384)']
  assert code == ConfigError.exit_code and all(word in said for word in words), said
  assert ('keep less by --model.remat full (it is elementwise)' in said) == remat


def test_a_benchmark_says_it_too(tmp_path):
  code, said = said_of(tmp_path, 'benchmark', 'step', 'tiny', '--batch.sequence-length', 64, '--batch.size', 16384)
  assert code == ConfigError.exit_code and ': a step of 16,384 rows of 64 in 1 microbatch takes ' in said, said

"""Eight fake devices, quick compilation and a compilation cache, set before anything imports jax; and what tests share.

Tests that are skipped fail a run with `--no-skips`, but for the reasons in allowed_skips.txt.
"""

import fnmatch
import getpass
import os
import pathlib
import platform
import sys
import tempfile

from tests import compiling

os.environ['JAX_PLATFORMS'] = os.environ.get('JAX_PLATFORMS') or 'cpu'
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('XLA_FLAGS', compiling.flags(8))
# Keyed by what the compiled code depends on and JAX does not: another machine may share the directory.
# Subprocesses use it too.
_CACHE = os.path.join(tempfile.gettempdir(), f'bert_jax-tests-{getpass.getuser()}', platform.node(), platform.machine())
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', _CACHE)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '0')

# No array gets axes without a word: [D] + [B T D] is an error, [1 1 D] + [B T D] is not.
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'

import dataclasses  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# The same examples in each run, so that one that fails is a fault of the change, and not of a machine that has much
# else to do; HYPOTHESIS_PROFILE=default: new ones.
hypothesis.settings.register_profile('same', derandomize=True, deadline=None)
hypothesis.settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'same'))

pytest_plugins = ['tests.reliability']
ALLOWED_SKIPS = pathlib.Path(__file__).with_name('allowed_skips.txt')
# Tests with these marks have a `make` target of their own, which installs what they need. {mark: its module}
COMPANIONS = {'beam': 'apache_beam', 'ray': 'ray', 'peers': 'torch', 'gpu_plan': 'jax_cuda12_plugin', 'docs': 'mkdocs',
              'trackers': 'mlflow'}
TARGETS = {'beam': 'engines', 'ray': 'engines', 'gpu_plan': 'gpu-plan'}  # where its name is another
# The files of tests that hang on the versions of jax, flax, optax, Orbax, numpy or Python: `make test-newest`.
VERSIONS = frozenset('''
    attention bfloat16 checkpoint_damage choices command compiled config dropout elastic fill_mask finetune finite flags
    google growing health huggingface imports loader lookup masking mesh metrics model multiple_choice objectives onnx
    opinion optimizer optimizer_parity packing packing_equivalence parameters phases plan probes program
    question_answering recheck recipes replicas rewind roofline score sums tagging train triton two_processes using
    warm_start watchdog workarounds'''.split())


def pytest_addoption(parser):
  parser.addoption('--no-skips', action='store_true',
                   help=f'fail where a test is skipped for no reason in {ALLOWED_SKIPS.name}')


def pytest_collection_modifyitems(items):
  for item in items:
    if item.path.stem.removeprefix('test_') in VERSIONS:
      item.add_marker('versions')


def pytest_runtest_setup(item):
  for mark, module in COMPANIONS.items():
    if item.get_closest_marker(mark):
      pytest.importorskip(module, reason=f'{module} is not installed: make test-{TARGETS.get(mark, mark)}')


def allowed_skips() -> list[str]:
  """Shell patterns of pytest's own words for a skip."""
  lines = ALLOWED_SKIPS.read_text(encoding='utf-8').splitlines()
  return [line.partition('  # ')[0].strip() for line in lines if line.strip() and not line.startswith('#')]


def unexpected_skips(config) -> list[str]:
  """'path:line: reason' of each test or module that was skipped for a reason that is not allowed."""
  reporter = config.pluginmanager.get_plugin('terminalreporter')  # none in xdist's workers, whose reports come to it
  found = [report.longrepr for report in reporter.stats.get('skipped', [])] if reporter else []
  return [f'{path}:{line}: {reason}' for path, line, reason in found
          if not any(fnmatch.fnmatchcase(reason.removeprefix('Skipped: '), pattern) for pattern in allowed_skips())]


def pytest_sessionfinish(session):
  if session.config.option.no_skips and unexpected_skips(session.config):
    session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
  for skip in unexpected_skips(config) if config.option.no_skips else ():
    terminalreporter.line(f'NOT ALLOWED TO SKIP {skip}', red=True)


@pytest.fixture(scope='session')
def tiny():
  """A pretraining run small enough to compile in seconds, in float32, with dropout."""
  from bert_jax import config as cfg
  return cfg.Config(
      model=cfg.Model(vocab_size=64, hidden_size=16, layers=2, heads=2, intermediate_size=32, max_positions=16,
                      dtype='float32'),
      batch=cfg.BatchConfig(size=16, sequence_length=16, predictions=4),
      optimizer=cfg.Optimizer(peak_learning_rate=1e-3, warmup_steps=2), run=cfg.Run(steps=10))


@pytest.fixture(scope='session')
def still(tiny):
  """The same without dropout."""
  return dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, hidden_dropout=0., attention_dropout=0.))


@pytest.fixture(scope='session')
def bucket():
  """A server of two buckets; nearly all tests use the one called `bucket`."""
  from tests.bucket_server import Server
  with Server('bucket', 'my-bucket') as server:
    yield server


@pytest.fixture(scope='session')
def ray_nodes(bucket):
  """A Ray cluster of two nodes whose workers reach the bucket, for tests that leave it as it is."""
  from tests import ray_cluster
  with ray_cluster.running(2, more=bucket.environment()) as cluster:
    yield cluster


@pytest.fixture(scope='session')
def beam_workers(tmp_path_factory):
  """Beam's portable runner with two workers, processes in a folder of their own; the arguments that reach it."""
  from tests import beam_cluster
  path = os.pathsep.join([str(pathlib.Path(__file__).parent.parent), *sys.path])
  with beam_cluster.portable(tmp_path_factory.mktemp('cluster') / 'workers', path) as found:
    yield found


@pytest.fixture(params=['two processes', pytest.param('Beam', marks=pytest.mark.beam)])
def other(request):
  """An engine beside one process, by the name that tests have for it, and the arguments that reach it."""
  return request.param, ()


@pytest.fixture(params=[pytest.param('Beam, two workers', marks=pytest.mark.beam),
                        pytest.param('Ray, two nodes', marks=pytest.mark.ray)])
def on_cluster(request):
  """The same, of one whose workers are elsewhere."""
  if request.param == 'Beam, two workers':
    return request.param, request.getfixturevalue('beam_workers')
  return request.param, request.getfixturevalue('ray_nodes').direct


@pytest.fixture
def healthy(bucket):
  """The same, without faults before and after the test."""
  from tests.bucket_server import Faults
  bucket.faults = Faults()
  yield bucket
  bucket.faults = Faults()


@pytest.fixture(scope='session')
def local_way(bucket, tmp_path_factory) -> pathlib.Path:
  """The whole way on a disk, beside its inputs."""
  from tests import buckets
  base = tmp_path_factory.mktemp('local')
  buckets.put_inputs(bucket, base)
  buckets.whole_way(bucket, str(base), 'way')
  return base / 'way'

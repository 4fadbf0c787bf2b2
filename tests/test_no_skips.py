"""With --no-skips a run fails for a test, or a whole module, that is skipped for a reason that nobody has allowed."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
MODULES = {
    'allowed': "import pytest\ndef test_it():\n  pytest.skip('../shared/data/vocab is not here')\n",
    'other reason': "import pytest\ndef test_it():\n  pytest.skip('it is Monday')\n",
    'missing module': "import pytest\npytest.importorskip('no_such_module')\ndef test_it():\n  pass\n",
    'skipif': "import pytest\n@pytest.mark.skipif(True, reason='it is Monday')\ndef test_it():\n  pass\n",
    'expected to fail': "import pytest\n@pytest.mark.xfail\ndef test_it():\n  assert False\n",
}
PASSES = 'def test_that():\n  pass\n'


SAID = re.compile(r'NOT ALLOWED TO SKIP \S*/test_(\w+)\.py:\d+: ')


def ran(directory, kinds, *flags) -> tuple[int, list[str]]:
  """The exit code of a run of these modules and of one that passes; those that it says were not allowed to skip."""
  for name in ('conftest.py', 'allowed_skips.txt'):
    (directory / name).write_text((HERE / name).read_text(encoding='utf-8'), encoding='utf-8')
  for kind in kinds:
    (directory / f'test_{kind.replace(" ", "_")}.py').write_text(MODULES[kind])
  (directory / 'test_two.py').write_text(PASSES)
  command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *flags, str(directory)]
  environment = {name: value for name, value in os.environ.items() if not name.startswith('PYTEST')}
  environment['PYTHONPATH'] = str(HERE.parent)  # conftest.py names modules of tests
  done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, timeout=300, text=True)
  return done.returncode, sorted(name.replace('_', ' ') for name in SAID.findall(done.stdout))


REFUSED = ['missing module', 'other reason', 'skipif']


@pytest.mark.parametrize('flags', [(), ('-n', '2')])
def test_only_allowed_reasons_pass(tmp_path, flags):
  assert ran(tmp_path, MODULES, '--no-skips', *flags) == (1, REFUSED)


def test_a_run_whose_skips_are_all_allowed_passes(tmp_path):
  assert ran(tmp_path, MODULES.keys() - REFUSED, '--no-skips') == (0, [])


def test_a_module_that_is_skipped_fails_a_run_by_itself(tmp_path):
  assert ran(tmp_path, ['missing module'], '--no-skips', '-n', '2') == (1, ['missing module'])


def test_without_the_flag_skips_are_no_fault(tmp_path):
  assert ran(tmp_path, MODULES) == (0, [])

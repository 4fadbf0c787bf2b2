"""With --no-skips a run fails for a test, or a whole module, that is skipped for a reason that nobody has allowed."""

import os
import pathlib
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


def exit_code(directory, module, *flags):
  for name in ('conftest.py', 'allowed_skips.txt'):
    (directory / name).write_text((HERE / name).read_text(encoding='utf-8'), encoding='utf-8')
  (directory / 'test_one.py').write_text(module)
  (directory / 'test_two.py').write_text(PASSES)
  command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *flags, str(directory)]
  environment = {name: value for name, value in os.environ.items() if not name.startswith('PYTEST')}
  environment['PYTHONPATH'] = str(HERE.parent)  # conftest.py names tests.reliability
  return subprocess.run(command, cwd=directory, env=environment, capture_output=True, timeout=300).returncode


@pytest.mark.parametrize('kind, code', [('allowed', 0), ('other reason', 1), ('missing module', 1), ('skipif', 1),
                                        ('expected to fail', 0)])
def test_only_allowed_reasons_pass(tmp_path, kind, code):
  assert exit_code(tmp_path, MODULES[kind], '--no-skips') == code


def test_reports_of_several_workers_count(tmp_path):
  assert exit_code(tmp_path, MODULES['other reason'], '--no-skips', '-n', '2') == 1
  assert exit_code(tmp_path, MODULES['missing module'], '--no-skips', '-n', '2') == 1


def test_without_the_flag_skips_are_no_fault(tmp_path):
  assert exit_code(tmp_path, MODULES['other reason']) == 0

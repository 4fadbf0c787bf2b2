"""What the tests of the plan of faults tell is added up right, and what shows too little fails."""

import pathlib
import re
import types

import pytest

from tests import reliability
from tests.reliability import LINES, NIGHTLY, Report, Tally


def told(report: Report, name: str, lines, tally: Tally, failed: bool = False) -> None:
  properties = [('reliability', {'lines': list(lines), **vars(tally)})]
  for when in ('setup', 'call', 'teardown'):
    report.pytest_runtest_logreport(types.SimpleNamespace(
        nodeid=name, when=when, duration=1.0, failed=failed and when == 'call', user_properties=properties))


def whole() -> Report:
  report = Report()
  for line in set(LINES) - NIGHTLY:
    tally = Tally()
    tally.control()
    tally.fault(True, detected=True, exact=True)
    told(report, f'tests/x.py::test_{line}', [line], tally)
  return report


def test_a_row_adds_up_what_tests_of_its_line_told():
  report, tally = whole(), Tally()
  for _ in range(3):
    tally.fault('it happened', survived=True)
  tally.control()
  tally.note('seed 7')
  told(report, 'tests/x.py::test_more[1]', [14, 15], tally)
  row = report.row(14)
  assert row['injected'] == 4 and row['survived'] == 3 and row['detected'] == 1 and row['silent'] == 0
  assert row['bit_exact'] is True and row['compared'] == 1 and row['seconds'] == 6 and row['notes'] == ['seed 7']
  assert report.row(15)['injected'] == 4 and report.row(16)['injected'] == 1 and not report.problems()
  assert {'id', 'injected', 'survived', 'detected', 'silent', 'bit_exact', 'seconds'} <= row.keys()


@pytest.mark.parametrize('change, problem', [
    (lambda report: report.tests.pop('tests/x.py::test_9'), 'line 9, .*no test ran'),
    (lambda report: report.tests['tests/x.py::test_9'].update(controls=0), 'test_9: no control'),
    (lambda report: report.tests['tests/x.py::test_9'].update(injected=0), 'test_9: no fault'),
    (lambda report: report.tests['tests/x.py::test_9'].update(silent=2), 'line 9: 2 faults went by in silence'),
    (lambda report: report.failed.add('tests/x.py::test_9'), 'test_9 failed')])
def test_what_shows_too_little_is_a_problem(change, problem):
  report = whole()
  assert not report.problems()
  change(report)
  assert any(re.search(problem, found) for found in report.problems()), report.problems()


def test_faults_that_nobody_noticed_are_silent():
  tally = Tally()
  tally.fault(True)
  assert (tally.injected, tally.silent) == (1, 1)
  for wrong in (lambda: tally.fault(False, detected=True), lambda: tally.fault(True, survived=True, exact=False),
                lambda: tally.control(False)):
    with pytest.raises(AssertionError):
      wrong()
  assert (tally.injected, tally.silent, tally.controls) == (2, 2, 0)


def test_each_line_of_the_plan_has_a_test_and_none_is_unknown():
  found = set()
  for path in pathlib.Path(reliability.__file__).parent.glob('test_*.py'):
    for numbers in re.findall(r'^ *@pytest\.mark\.reliability\(([\d, ]+)\)', path.read_text(), re.MULTILINE):
      found |= {int(number) for number in numbers.split(',')}
  assert found == set(LINES)

"""The plan of faults: its lines, what tests of a line found, and at the end reliability.json and its table.

A test is of a line by `@pytest.mark.reliability(14)`. It takes the fixture `tally` and tells it of each fault, and of
the same check without one, its control. `--reliability FILE` (`make reliability`) writes what all of them told, and
fails where a fault went by in silence, or a line, a fault or a control is missing.
"""

import collections
import dataclasses
import json
import pathlib

import pytest

LINES = {
    1: 'stopped at random steps and resumed', 2: 'two processes <-> one with two devices',
    3: 'restored on other meshes', 4: 'every sequence once an epoch', 5: 'golden batches', 6: 'kill -9 in saves',
    7: 'kill -9 in removals', 8: 'kill -9 of one of two in saves', 9: 'SIGTERM at any moment',
    10: 'SIGTERM at a step that is saved anyway', 11: 'stuck processes; clocks that jump', 12: 'an error in one of two',
    13: 'ten faults in one run of two', 14: 'damaged checkpoints', 15: 'strays among checkpoints',
    16: 'arrays of another kind', 17: 'settings that drift', 18: 'full disks', 19: 'the last save fails',
    20: 'storage in bad weather', 21: 'damaged shards', 22: 'texts that are none', 23: 'hosts and shards',
    24: 'numbers that are not finite', 25: 'going back, spikes', 26: 'bits that flip in devices',
    27: 'processes that disagree', 28: 'starts that cannot succeed', 29: 'donated buffers saved beside steps',
    30: 'memory over 5,000 steps', 31: 'hostile imports', 32: 'kill -9 in exports', 33: 'open ports, secrets in logs',
    34: 'kill -9 with logs and caches open', 35: 'checkpoints of earlier versions'}
NIGHTLY = {13, 30}  # only in `make reliability-full`
COUNTS = 'injected', 'survived', 'detected', 'silent'


@dataclasses.dataclass
class Tally:
  """What a test found of its line."""
  injected: int = 0
  survived: int = 0  # faults after which all that was promised was there
  detected: int = 0  # faults that were said
  silent: int = 0  # neither
  compared: int = 0  # states, logs or batches that should have every bit of an undisturbed one
  exact: int = 0  # those that had
  controls: int = 0  # the same checks without a fault
  notes: list[str] = dataclasses.field(default_factory=list)  # seeds, and figures of the promise

  def control(self, passed: bool = True) -> None:
    assert passed, 'the check fails without a fault'
    self.controls += 1

  def fault(self, happened: object, *, detected: bool = False, survived: bool = False, exact: bool | None = None):
    """One fault; `happened`: the proof that there was one. `exact`: whether what was compared had every bit."""
    assert happened, 'a fault that did not happen shows nothing'
    self.injected += 1
    self.detected += detected
    self.survived += survived
    self.silent += not (detected or survived) or exact is False
    self.compared += exact is not None
    self.exact += bool(exact)
    assert exact is not False, 'a state is not that of an undisturbed run'

  def note(self, text: str) -> None:
    self.notes.append(text)


@pytest.fixture
def tally(request):
  found, lines = Tally(), request.node.get_closest_marker('reliability').args
  yield found
  request.node.user_properties.append(('reliability', {'lines': list(lines), **dataclasses.asdict(found)}))


def pytest_addoption(parser):
  parser.addoption('--reliability', metavar='FILE', help='write there what the tests of the plan of faults found')


def pytest_configure(config):
  if config.option.reliability and not hasattr(config, 'workerinput'):  # xdist's workers send their reports
    config.pluginmanager.register(Report(), 'reliability-report')


class Report:
  """Gathers what tests told."""

  def __init__(self):
    self.tests: dict[str, dict] = {}
    self.seconds: collections.Counter[str] = collections.Counter()
    self.failed: set[str] = set()

  def pytest_runtest_logreport(self, report):
    self.seconds[report.nodeid] += report.duration
    self.failed |= {report.nodeid} if report.failed else set()
    if report.when == 'teardown' and (found := dict(report.user_properties).get('reliability')):
      self.tests[report.nodeid] = found

  def row(self, line: int) -> dict:
    """What stands of a line in reliability.json."""
    tests = {name: found for name, found in self.tests.items() if line in found['lines']}
    total = lambda key: sum(found[key] for found in tests.values())
    return {'id': line, 'what': LINES[line], **{key: total(key) for key in COUNTS},
            'bit_exact': total('exact') == total('compared') if total('compared') else None,
            'seconds': round(sum(self.seconds[name] for name in tests), 1), 'compared': total('compared'),
            'controls': total('controls'), 'tests': len(tests),
            'notes': list(dict.fromkeys(note for found in tests.values() for note in found['notes']))}

  def rows(self) -> list[dict]:
    return [row for line in LINES if (row := self.row(line))['tests']]

  def problems(self) -> list[str]:
    """Why what was found shows too little, or something bad."""
    rows = {row['id']: row for row in self.rows()}
    found = [f'line {line}, {LINES[line]}: no test ran' for line in LINES if line not in rows and line not in NIGHTLY]
    found += [f'line {line}: {row["silent"]} faults went by in silence' for line, row in rows.items() if row['silent']]
    functions: dict[str, collections.Counter] = {}
    for name, tests in self.tests.items():
      functions.setdefault(name.partition('[')[0], collections.Counter()).update(
          {key: tests[key] for key in ('injected', 'controls')})
    found += [f'{name}: no {"fault" if key == "injected" else "control"}' for name, counts in functions.items()
              for key in ('injected', 'controls') if not counts[key]]
    return found + [f'{name} failed' for name in sorted(self.failed)]

  def pytest_sessionfinish(self, session):
    path = pathlib.Path(session.config.option.reliability)
    path.write_text(json.dumps(self.rows(), indent=1, ensure_ascii=False) + '\n')
    if self.problems() and session.exitstatus == pytest.ExitCode.OK:
      session.exitstatus = pytest.ExitCode.TESTS_FAILED

  def pytest_terminal_summary(self, terminalreporter, config):
    write = terminalreporter.line
    terminalreporter.section(f'reliability: {config.option.reliability}')
    write(f'{"line":<44}{"injected":>9}{"survived":>9}{"detected":>9}{"silent":>7}{"bit-exact":>11}{"seconds":>8}')
    for row in self.rows():
      exact = f'{self.exact_of(row)}/{row["compared"]}' if row['compared'] else '-'
      write(f'{row["id"]:>2} {row["what"]:<41}{row["injected"]:>9}{row["survived"]:>9}{row["detected"]:>9}'
            f'{row["silent"]:>7}{exact:>11}{row["seconds"]:>8.0f}')
      for note in row['notes']:
        write(f'     {note}')
    for problem in self.problems():
      write(f'NOT SHOWN: {problem}', red=True)

  def exact_of(self, row: dict) -> int:
    return sum(found['exact'] for found in self.tests.values() if row['id'] in found['lines'])

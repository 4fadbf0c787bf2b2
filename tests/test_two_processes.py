"""Two processes as one run: stopped, killed, stuck, failing, disagreeing; and ten such faults in one run."""

import contextlib
import functools
import random
import re
import shutil
import signal
import time

import pytest

from bert_jax import metrics, steps as steps_lib
from bert_jax.errors import FINAL, HUNG, STOPPED, UNSAVED, PeerError
from tests import buckets, children, compiling, troubles
from tests.children import Child

STEPS, EVERY, HEARTBEAT = 30, 3, 10
PEER = PeerError.exit_code
AT = functools.partial
ENDS_SECONDS = 5 + 10  # the promise is 5 s on a quiet machine; the table says what was seen


@contextlib.contextmanager
def pair(folder, run: str, prepare=(None, None), more=((), ()), steps: int = STEPS, every: int = EVERY,
         heartbeat: int = 60):
  """The two processes of a run, each with trouble of its own, and with settings of its own."""
  port, children_ = buckets.free_port(), []
  with contextlib.ExitStack() as stack:
    for number in range(2):
      argv = children.pretrain(folder / 'data', folder / run, steps, every,
                               *children.of_two(number, port, heartbeat), *more[number])
      out = folder / f'{run}.{number}.{port}.txt'
      children_.append(stack.enter_context(Child(out, *argv, prepare=prepare[number])))
    yield children_


def ends(processes) -> list[int]:
  return [child.end() for child in processes]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Data, and `straight`: a run of two processes that nobody disturbed, each of whose steps is kept."""
  folder = tmp_path_factory.mktemp('two')
  children.write_data(folder)
  with pair(folder, 'straight', more=(children.EVERY_STEP,) * 2) as processes:
    assert ends(processes) == [0, 0], [child.said for child in processes]
  assert children.saved(folder / 'straight') == list(range(1, STEPS + 1))
  return folder


def alike(folder, run: str) -> bool:
  return children.as_far_as_it_went(folder / run, folder / 'straight')


def said(processes) -> list[str]:
  return [child.said[-1500:] for child in processes]


def alone(folder, run: str, *more: object, steps: int = STEPS) -> None:
  """The same run in one process of two devices, to its end."""
  flags = compiling.flags(2)
  argv = children.pretrain(folder / 'data', folder / run, steps, EVERY, '--mesh.data', 2, *more)
  with Child(folder / f'{run}.txt', *argv, XLA_FLAGS=flags) as child:
    assert child.end() == 0, child.said


def cut(folder, source: str, run: str, step: int) -> None:
  """A copy of a run that went no further than a step."""
  shutil.copytree(folder / source, folder / run)
  for number in children.saved(folder / run):
    if number > step:
      shutil.rmtree(folder / run / 'checkpoints' / str(number))


@pytest.mark.reliability(2)
def test_one_process_of_two_devices_and_two_of_one_are_the_same_run(folder, tally):
  alone(folder, 'alone')
  tally.control(alike(folder, 'alone') and children.saved(folder / 'alone')[-1] == STEPS)
  cut(folder, 'straight', 'on alone', 15)
  alone(folder, 'on alone')
  tally.fault(children.saved(folder / 'on alone')[-1] == STEPS, survived=True, exact=alike(folder, 'on alone'))
  cut(folder, 'alone', 'on as two', children.saved(folder / 'alone')[0])
  with pair(folder, 'on as two') as processes:
    assert ends(processes) == [0, 0], said(processes)
  tally.fault(children.saved(folder / 'on as two')[-1] == STEPS, survived=True, exact=alike(folder, 'on as two'))


@pytest.mark.slow
def test_rows_that_two_processes_do_not_divide_are_those_of_two_devices(tmp_path):
  """In training and in evaluations on the way."""
  children.write_data(tmp_path)
  more = '--batch.size', 7, '--run.microbatches', 7, '--run.evaluate-every', 4, '--run.evaluation-rows', 9
  alone(tmp_path, 'alone', *more, steps=6)
  with pair(tmp_path, 'two', more=(more, more), steps=6) as processes:
    assert ends(processes) == [0, 0], said(processes)
  assert children.as_far_as_it_went(tmp_path / 'two', tmp_path / 'alone')
  assert 'rows: 7 over 2 devices: 4 times 1 on each, empty ones counted (1)' in processes[0].said


@pytest.mark.reliability(9)
@pytest.mark.parametrize('who', [(0,), (1,), (0, 1)], ids=str)
def test_sigterm_to_any_stops_both_at_one_step(folder, tally, who):
  run = f'stopped{"".join(map(str, who))}'
  tally.control(alike(folder, 'straight'))
  slow = AT(troubles.slow_steps, 0.05)  # that there are steps left when both have heard
  with pair(folder, run, prepare=(slow, slow), steps=2000, every=2000) as processes:
    processes[0].until(lambda: metrics.read(folder / run))
    begin = time.monotonic()
    told = [processes[number].tell(signal.SIGTERM) for number in who]
    codes = ends(processes)
    seconds = time.monotonic() - begin
  assert codes == [STOPPED, STOPPED] and seconds < ENDS_SECONDS, (codes, seconds, said(processes))
  (step,) = children.saved(folder / run)
  assert step == metrics.read(folder / run)[-1]['step']
  tally.note(f'SIGTERM to {who} of two: saved at one step, both ended in {seconds:.1f} s')
  tally.fault(all(told), detected=True, survived=True)


LONGER = ('--long.share', 0.5, '--long.sequence-length', 32, '--long.predictions', 5, '--long.size', 8,
          '--model.max-positions', 32)


@pytest.mark.reliability(9)
@pytest.mark.parametrize('who', [0, 1])
@pytest.mark.parametrize('call', [pytest.param(1, id='of the first step'),
                                  pytest.param(2, id='of longer rows', marks=pytest.mark.slow)])
def test_sigterm_while_all_compile_ends_both_before_that_is_done(folder, tally, call, who):
  """Whoever is told: with nothing new to save, or saved at the step before."""
  run, data, seconds = f'compiling{call}{who}', folder / 'lengths', 10 * children.SECONDS
  for length in (16, 32):
    if not (data / str(length)).exists():
      children.synthetic.write_data(data / str(length), vocabulary_size=children.VOCABULARY, pieces=100, documents=20,
                                    sequence_length=length, splits=('train', 'validation'))
  more = ('--data', data, *LONGER)
  if call == 2 and not (folder / 'lengthened').exists():
    with pair(folder, 'lengthened', more=(more + tuple(children.EVERY_STEP),) * 2) as processes:
      assert ends(processes) == [0, 0], said(processes)
  tally.control(alike(folder, 'straight') if call == 1 else children.saved(folder / 'lengthened')[-1] == STEPS)
  proofs = [folder / f'{run}.{number}.proof' for number in range(2)]
  prepare = [AT(troubles.slow_compilation, seconds, str(proof), call) for proof in proofs]
  with pair(folder, run, prepare=prepare, more=(more, more)) as processes:
    processes[who].until(lambda: all(proof.exists() for proof in proofs))
    begin = time.monotonic()
    told = processes[who].tell(signal.SIGTERM)
    codes = ends(processes)
    took = time.monotonic() - begin
  assert codes == [UNSAVED if call == 1 else STOPPED] * 2 and took < ENDS_SECONDS, (codes, took, said(processes))
  saved = children.saved(folder / run)
  assert bool(saved) == (call == 2) and not (folder / run / 'lock.json').exists()
  tally.note(f'SIGTERM to {who} of two in a compilation: both ended with {codes[0]} in {took:.1f} s')
  same = children.as_far_as_it_went(folder / run, folder / 'lengthened') if saved else None
  tally.fault(told and all(proof.exists() for proof in proofs), detected=True, survived=True, exact=same)


def kills_in_saves(folder, tally, kills: int, steps: int) -> None:
  """Each kill is of one of the two, at random, within a save of the run that goes on; none loses a step."""
  draw, run, inside, before = random.Random(kills), f'killed{kills}', 0, 0
  slow = AT(troubles.slow_saves, 0.5)
  newest = lambda: max(children.saved(folder / run), default=0)
  for number in range(kills):
    victim = number % 2
    with pair(folder, run, prepare=(slow, slow), steps=steps, every=1, heartbeat=HEARTBEAT) as processes:
      processes[victim].until(lambda before=before: newest() > before)
      saved = newest()
      time.sleep(draw.random() * 0.5)
      killed = processes[victim].kill()
      begin = time.monotonic()
      codes = ends(processes)
      seconds = time.monotonic() - begin
    assert codes[victim] == -signal.SIGKILL and codes[1 - victim] not in (0, *FINAL), (codes, said(processes))
    assert seconds < HEARTBEAT + ENDS_SECONDS
    tally.note(f'kill -9 of {victim}: the other ended after {seconds:.1f} s')
    found = steps_lib.look(folder / run, children.run_directory.fingerprints(folder / run))
    inside += any(step.kind == steps_lib.UNFINISHED for step in found)
    assert newest() >= saved > before
    tally.fault(killed, detected=True, survived=True, exact=alike(folder, run) if steps == STEPS else None)
    before = newest()
  tally.note(f'{kills} kills of one of two, {inside} within a save, seed {kills}')
  assert inside


@pytest.mark.reliability(8)
def test_a_kill_of_one_in_a_save_loses_nothing(folder, tally):
  tally.control(alike(folder, 'straight'))
  kills_in_saves(folder, tally, 6, STEPS)


@pytest.mark.slow
@pytest.mark.reliability(8)
def test_twenty_kills_of_one_in_saves_lose_nothing(folder, tally):
  tally.control(alike(folder, 'straight'))
  kills_in_saves(folder, tally, 20, 1000)


@pytest.mark.reliability(11)
@pytest.mark.parametrize('who', [0, 1])
def test_one_that_is_stuck_takes_both_down(folder, tally, who):
  run, proof = f'stuck{who}', folder / f'stuck{who}.proof'
  tally.control(alike(folder, 'straight'))
  trouble = [None, None]
  trouble[who] = AT(troubles.at_step, 7, troubles.hang, str(proof))
  with pair(folder, run, prepare=trouble, heartbeat=HEARTBEAT) as processes:
    processes[who].until(proof.exists)
    begin = time.monotonic()
    codes = ends(processes)
  seconds = time.monotonic() - begin
  assert codes[who] == HUNG and codes[1 - who] not in (0, *FINAL), (codes, said(processes))
  assert 'in hang' in processes[who].said and seconds < troubles.HANG_SECONDS + HEARTBEAT + ENDS_SECONDS
  tally.note(f'{who} of two stuck, {troubles.HANG_SECONDS:.0f} s allowed: both ended after {seconds:.1f} s')
  tally.fault(proof.exists(), detected=True, survived=True, exact=alike(folder, run))


@pytest.mark.reliability(12)
@pytest.mark.parametrize('who', [0, 1])
def test_an_error_in_one_ends_both_soon(folder, tally, who):
  run, proof = f'failed{who}', folder / f'failed{who}.proof'
  tally.control(alike(folder, 'straight'))
  trouble = [None, None]
  trouble[who] = AT(troubles.at_step, 7, troubles.fail, str(proof))
  with pair(folder, run, prepare=trouble) as processes:
    processes[who].until(proof.exists)
    begin = time.monotonic()
    codes = ends(processes)
  seconds = time.monotonic() - begin
  assert codes == [PEER, PEER] and 'made to fail' in processes[who].said, (codes, said(processes))
  heard = re.search('ended with exit code 13|Connection (reset|closed) by peer', processes[1 - who].said)  # or by gloo
  assert heard and seconds < ENDS_SECONDS, (seconds, said(processes))
  tally.note(f'an error in {who} of two: both ended after {seconds:.1f} s')
  tally.fault(proof.exists(), detected=True, survived=True, exact=alike(folder, run))


DIFFERENT = {
    'a setting': (lambda folder: ('--optimizer.b1', 0.8), None, 2, 'do not agree on optimizer.b1'),
    'the data': (lambda folder: ('--data', folder / 'others'), None, 2, 'do not agree on the shards'),
    'the program': (lambda folder: (), AT(troubles.another_version, '0.0.1'), 2, 'do not agree on the program'),
    'the directory': (lambda folder: ('--run-dir', folder / 'elsewhere'), None, None, 'storage that all hosts share')}


@pytest.mark.reliability(27, 28)
@pytest.mark.parametrize('what', DIFFERENT)
def test_processes_that_differ_say_in_what(folder, tally, what):
  if not (folder / 'others').exists():
    children.synthetic.write_data(folder / 'others', vocabulary_size=children.VOCABULARY, pieces=100, documents=20,
                                  sequence_length=children.LENGTH, splits=('train', 'validation'), seed=1)
  more, prepare, code, sentence = DIFFERENT[what]
  tally.control(alike(folder, 'straight'))
  with pair(folder, f'differ in {what}', prepare=(None, prepare), more=((), more(folder))) as processes:
    codes = ends(processes)
  assert 0 not in codes and (code is None or codes == [code, code]), (codes, said(processes))
  assert any(sentence in child.said for child in processes), said(processes)
  assert not any('Traceback' in child.said for child in (processes if code else processes[1:])), said(processes)
  assert code is None or not (folder / f'differ in {what}').exists()
  assert not children.saved(folder / f'differ in {what}')
  tally.fault(True, detected=True)


@pytest.mark.reliability(28)
@pytest.mark.parametrize('who', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_one_that_looks_late_finds_what_the_other_began(folder, tally, who):
  run, proof = f'late{who}', folder / f'late{who}.proof'
  tally.control(alike(folder, 'straight'))
  prepare = [None, None]
  prepare[who] = AT(troubles.slow_start, 3.0, str(proof))
  with pair(folder, run, prepare=prepare) as processes:
    assert ends(processes) == [0, 0], said(processes)
  tally.fault(proof.exists(), survived=children.saved(folder / run)[-1] == STEPS, exact=alike(folder, run))


STEPS_OF_TEN = 200
KINDS = {'kill 0': (0, None), 'kill 1': (1, None), 'SIGTERM 0': (0, None), 'SIGTERM 1': (1, None),
         'stuck': (1, troubles.hang), 'an error': (0, troubles.fail), 'a full disk': (0, troubles.full)}


@pytest.mark.slow
@pytest.mark.reliability(13)
def test_ten_faults_in_one_run_of_two_processes_change_nothing(folder, tally):
  """Each is started again as a supervisor does; goodput: steps of the run by steps that were computed."""
  draw, run, faults, starts, steps = random.Random(13), 'ten', 0, 0, folder / 'steps of ten'
  with pair(folder, 'straight200', steps=STEPS_OF_TEN, every=10) as processes:
    assert ends(processes) == [0, 0], said(processes)
  tally.control(children.saved(folder / 'straight200')[-1] == STEPS_OF_TEN)
  kinds = draw.sample(list(KINDS), len(KINDS)) + draw.choices(list(KINDS), k=3)
  codes, begin = [STOPPED], time.monotonic()
  size = lambda: steps.stat().st_size if steps.exists() else 0
  while codes != [0, 0]:
    kind = kinds[faults] if faults < len(kinds) else None
    ahead = draw.randrange(3, 18)
    far = size() + ahead
    at = max(children.saved(folder / run), default=0) + ahead
    proof = folder / f'ten.{starts}.proof'
    prepare = [AT(troubles.count_steps, str(steps)), None]
    if kind and (action := KINDS[kind][1]):
      who = KINDS[kind][0]
      trouble = (AT(troubles.in_all_saves, action, str(proof)) if kind == 'a full disk'
                 else AT(troubles.at_step, at, action, str(proof)))
      prepare[who] = AT(troubles.both, prepare[who], trouble)
    slow = AT(troubles.slow_steps, 0.05)  # JAX looks once a second whether a signal came
    prepare = [AT(troubles.both, one, slow) for one in prepare]
    with pair(folder, run, prepare=prepare, steps=STEPS_OF_TEN, every=10,
              heartbeat=HEARTBEAT) as processes:
      if kind and not KINDS[kind][1]:
        processes[0].until(lambda far=far: size() >= far)
        told = processes[KINDS[kind][0]].tell(signal.SIGKILL if 'kill' in kind else signal.SIGTERM)
        proof.touch() if told else None
      codes = ends(processes)
    starts += 1
    assert starts < 20 and not set(codes) & set(FINAL), (codes, said(processes))
    if kind:
      assert proof.exists(), f'{kind} did not happen'
      faults += 1
      tally.fault(True, detected=codes != [0, 0], survived=True)
  same = children.as_far_as_it_went(folder / run, folder / 'straight200')
  goodput = STEPS_OF_TEN / size()
  tally.note(f'seed 13: {", ".join(kinds)}; {starts} starts, {time.monotonic() - begin:.0f} s')
  tally.note(f'goodput {goodput:.0%}: {STEPS_OF_TEN} steps kept of {size()} computed')
  assert children.saved(folder / run)[-1] == STEPS_OF_TEN
  tally.fault(faults == 10, survived=True, exact=same)

"""Runs that are asked to stop, that are stuck, and whose clock jumps: real processes and real signals."""

import functools
import os
import random
import shutil
import signal
import time

import pytest

from bert_jax.errors import HUNG, STOPPED, UNSAVED
from tests import children, troubles
from tests.children import Child

STEPS, EVERY, STOP_SECONDS = 12, 4, 15  # the promise is 5 s on a quiet machine; the table says what was seen
SECRETS = {name: f'canary-{number}-of-{name}' for number, name in enumerate((
    'AWS_SECRET_ACCESS_KEY', 'GOOGLE_API_KEY', 'HF_TOKEN', 'WANDB_API_KEY', 'DB_PASSWORD'))}
EVALUATE = ['--run.evaluate-every', 6, '--run.evaluation-rows', 16]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Data, and `straight`: a run that nobody disturbed, each of whose steps is kept."""
  folder = tmp_path_factory.mktemp('stopped')
  children.write_data(folder)
  with Child(folder / 'straight.txt', *command(folder, 'straight', *children.EVERY_STEP), **SECRETS) as child:
    assert child.end() == 0, child.said
  assert children.saved(folder / 'straight') == list(range(1, STEPS + 1))
  return folder


def command(folder, run: str, *more) -> list:
  return children.pretrain(folder / 'data', folder / run, STEPS, EVERY, *EVALUATE, *more)


@pytest.mark.reliability(33)
@pytest.mark.parametrize('name', SECRETS)
def test_no_secret_of_the_environment_is_written(folder, tally, name):
  """In no file of the run, and not in what it says."""
  files = [folder / 'straight.txt', *(path for path in (folder / 'straight').rglob('*') if path.is_file())]
  holding = lambda text: [path for path in files if text.encode() in path.read_bytes()]
  tally.control(bool(holding(str(folder / 'data'))))
  tally.fault(SECRETS[name], survived=not holding(SECRETS[name]))
  assert not holding(SECRETS[name])


def alike(folder, run: str) -> bool:
  return children.as_far_as_it_went(folder / run, folder / 'straight')


def goes_on(folder, run: str) -> bool:
  """Whether the same command again ends as the run that nobody disturbed."""
  with Child(folder / f'{run}-again.txt', *command(folder, run)) as child:
    assert child.end() == 0, child.said
  return children.saved(folder / run)[-1] == STEPS and alike(folder, run)


AT = functools.partial
MOMENTS = {
    'at a step': AT(troubles.at_step, 3, troubles.told_to_stop),
    'twice': AT(troubles.at_step, 3, troubles.told_twice),
    'in a save': AT(troubles.in_a_save, troubles.told_to_stop),
    'in an evaluation': AT(troubles.in_an_evaluation, troubles.told_to_stop)}


@pytest.mark.reliability(9)
@pytest.mark.parametrize('moment', MOMENTS)
def test_sigterm_at_any_moment_saves(folder, tally, moment):
  run, proof = moment.replace(' ', '_'), folder / f'{moment}.proof'
  tally.control(children.as_far_as_it_went(folder / 'straight', folder / 'straight'))
  with Child(folder / f'{run}.txt', *command(folder, run), prepare=AT(MOMENTS[moment], str(proof))) as child:
    child.until(proof.exists)
    begin = time.monotonic()
    code = child.end()
  seconds, steps = time.monotonic() - begin, children.saved(folder / run)
  assert code == STOPPED and seconds < STOP_SECONDS, (seconds, child.said)
  assert max(steps) == children.log(folder / run)[-1]['step'] < STEPS
  names = {path.name for path in (folder / run / 'checkpoints').iterdir()}
  assert names == set(map(str, steps))  # no half of one
  tally.note(f'SIGTERM {moment}: saved at step {max(steps)}, ended in {seconds:.1f} s')
  tally.fault(proof.exists(), detected=code == STOPPED, survived=True, exact=alike(folder, run))


@pytest.mark.reliability(10)
@pytest.mark.parametrize('step', [EVERY, 2 * EVERY, STEPS])
def test_sigterm_at_a_step_that_is_saved_anyway(folder, tally, step):
  """It is saved once, the last one too."""
  run, proof = f'saved{step}', folder / f'saved{step}.proof'
  tally.control(alike(folder, 'straight'))
  with Child(folder / f'{run}.txt', *command(folder, run), prepare=AT(
      troubles.at_step, step, troubles.told_to_stop, str(proof))) as child:
    code = child.end()
  assert code == STOPPED, child.said
  assert children.saved(folder / run)[-1] == step == children.log(folder / run)[-1]['step']
  tally.fault(proof.exists(), detected=True, survived=True, exact=alike(folder, run))


@pytest.mark.reliability(9)
def test_sigterm_before_the_first_step_ends_at_once(folder, tally):
  """While it compiles, or just before."""
  tally.control(children.as_far_as_it_went(folder / 'straight', folder / 'straight'))
  with Child(folder / 'early.txt', *command(folder, 'early')) as child:
    child.until(lambda: 'starting; mesh' in child.said)
    begin = time.monotonic()
    told = child.tell(signal.SIGTERM)
    code = child.end()
  seconds = time.monotonic() - begin
  assert code in (UNSAVED, STOPPED) and seconds < STOP_SECONDS, child.said
  assert (code == STOPPED) == bool(children.saved(folder / 'early'))
  tally.note(f'SIGTERM before the first step: ended with {code} in {seconds:.1f} s')
  assert not (folder / 'early/lock.json').exists()
  tally.fault(told, detected=True, survived=True, exact=code == UNSAVED or alike(folder, 'early'))


HANGS = {'a step': AT(troubles.at_step, 6, troubles.hang), 'a restore': AT(troubles.in_a_restore, troubles.hang)}


@pytest.mark.reliability(11)
@pytest.mark.parametrize('where', HANGS)
def test_what_is_stuck_ends_and_goes_on(folder, tally, where):
  run, proof = f'stuck_in_{where.replace(" ", "_")}', folder / f'{where}.proof'
  tally.control(children.as_far_as_it_went(folder / 'straight', folder / 'straight'))
  if where == 'a restore':
    with Child(folder / f'{run}-first.txt', *command(folder, run), prepare=AT(
        troubles.at_step, 5, troubles.told_to_stop, str(folder / 'first.proof'))) as child:
      assert child.end() == STOPPED, child.said
  with Child(folder / f'{run}.txt', *command(folder, run), prepare=AT(HANGS[where], str(proof))) as child:
    child.until(proof.exists)
    begin = time.monotonic()
    code = child.end()
  seconds = time.monotonic() - begin
  assert code == HUNG and 'nothing has happened for' in child.said and 'in hang' in child.said, child.said
  assert seconds < troubles.HANG_SECONDS + 10
  tally.note(f'stuck in {where}: ended after {seconds:.0f} s of {troubles.HANG_SECONDS:.0f}')
  tally.fault(proof.exists(), detected=True, survived=True, exact=goes_on(folder, run))


@pytest.mark.reliability(11)
@pytest.mark.parametrize('jump', [-86_400.0, 86_400.0], ids=['back', 'ahead'])
def test_a_clock_that_jumps_changes_nothing(folder, tally, jump):
  """By a day, between a save and the next: the run ends, and as it would have."""
  run, proof = f'clock{jump:.0f}', folder / f'clock{jump:.0f}.proof'
  tally.control(children.as_far_as_it_went(folder / 'straight', folder / 'straight'))
  with Child(folder / f'{run}.txt', *command(folder, run), prepare=AT(
      troubles.clock_jumps, EVERY + 1, jump, str(proof))) as child:
    code = child.end(120)
  assert code == 0, child.said
  tally.fault(proof.exists(), survived=True, exact=alike(folder, run))
  assert children.saved(folder / run)[-1] == STEPS


def pipe(path) -> None:
  path.unlink(missing_ok=True)
  os.mkfifo(path)


def device(path) -> None:
  path.unlink(missing_ok=True)
  path.symlink_to('/dev/zero')


@pytest.mark.reliability(31)
@pytest.mark.parametrize('make', [pipe, device])
@pytest.mark.parametrize('name, reader', [
    ('run/config.json', 'verify'), ('run/vocab.txt', 'verify'), ('run/checkpoints/12/manifest.json', 'verify'),
    ('data/manifest.json', 'pretrain'), ('data/vocab.txt', 'pretrain'), ('run/lock.json', 'pretrain'),
    ('run/metrics.jsonl', 'pretrain')])
def test_our_own_files_are_files(folder, tmp_path, tally, name, reader, make):
  """A pipe gives nothing for ever, /dev/zero gives zeros for ever: of a run, or of data, that others had."""
  shutil.copytree(folder / 'straight', tmp_path / 'run')
  shutil.copytree(folder / 'data', tmp_path / 'data')
  tally.control(alike(folder, 'straight'))
  argv = {'verify': ['verify', tmp_path / 'run'], 'pretrain': command(tmp_path, 'run')}[reader]
  make(tmp_path / name)
  with Child(tmp_path / 'out.txt', *argv) as child:
    code = child.end(60)  # the promise is 10 s on a quiet machine
  assert code == 2 and (tmp_path / name).name in child.said and 'Traceback' not in child.said, (code, child.said)
  tally.fault(not (tmp_path / name).is_file(), detected=True)


@pytest.mark.reliability(34)
@pytest.mark.parametrize('kills', [3, pytest.param(10, marks=pytest.mark.slow)])
def test_kill_9_with_the_log_and_the_compile_cache_open(kills, folder, tally, tmp_path):
  """Several times, with a compile cache of its own, of which then an entry is cut short: lines are whole, each once."""
  tally.control(children.as_far_as_it_went(folder / 'straight', folder / 'straight'))
  draw, cache = random.Random(34), tmp_path / 'cache'
  tally.note('seed 34')
  run = f'killed{kills}'
  log = folder / run / 'metrics.jsonl'
  size = lambda: log.stat().st_size if log.exists() else 0
  slow = AT(troubles.slow_steps, 0.03)
  for number in range(kills):
    before = size()
    with Child(folder / f'{run}-{number}.txt', *command(folder, run, '--run.checkpoint-every', 1000),
               prepare=AT(troubles.both, AT(troubles.with_cache, str(cache)), slow)) as child:
      child.until(lambda before=before: size() != before)
      time.sleep(draw.random() * 0.05)
      killed = child.kill()
      assert child.end() in (-signal.SIGKILL, 0), child.said
    steps = [line['step'] for line in children.log(folder / run) if line['kind'] == 'train']
    assert steps == list(range(1, len(steps) + 1))
    if number % 2:
      for entry in cache.iterdir():
        entry.write_bytes(entry.read_bytes()[:100])
    tally.fault(killed or number, survived=True)
  tally.fault(True, survived=True, exact=goes_on(folder, run))

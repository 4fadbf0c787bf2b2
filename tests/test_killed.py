"""kill -9 in saves, in removals and in exports: what was saved is there, what was not is not seen."""

import functools
import random
import re
import signal
import time

import jax
import numpy as np
import pytest

from bert_jax import checkpoint, run_directory, steps, verify
from tests import children, parameters, synthetic, troubles
from tests.children import Child
from tests.saves import BIG, CONFIG, abstract_of, save_for_ever, state_of

AT = functools.partial


def kill_in_saves(tmp_path, tally, kills: int, removals: bool = False) -> int:
  """Kills that many processes in saves, or in removals; how many were within one. No step that was saved is lost."""
  (tmp_path / 'vocabulary').mkdir()
  synthetic.write_vocabulary(tmp_path / 'vocabulary', BIG.vocab_size)
  run = tmp_path / 'run'
  parameters.write_run(run, CONFIG, tmp_path / 'vocabulary', steps=())
  template, saved, inside, draw = parameters.random(BIG), 0, 0, random.Random(kills)
  words = lambda child: [line.split() for line in child.said.splitlines() if re.fullmatch(r'(begun|saved) \d+', line)]
  for number in range(kills):
    proof, out = tmp_path / f'{number}.proof', tmp_path / f'{number}.txt'
    save = AT(save_for_ever, str(run), saved + 1)
    prepare = AT(troubles.both, AT(troubles.slow_removals, 0.02, str(proof)), save) if removals else save
    with Child(out, prepare=prepare) as child:
      second = lambda child=child: [word for word, _ in words(child)].count('begun') > 1
      child.until(proof.exists if removals else second)
      time.sleep(draw.random() * (0.1 if removals else 0.3))
      killed = child.kill()
      assert child.end() == -signal.SIGKILL
    saved = max([saved, *(int(step) for word, step in words(child) if word == 'saved')])
    halves = [path.name for path in (run / run_directory.CHECKPOINTS).iterdir() if path.name.endswith('.half')]
    with checkpoint.manager(run) as checkpoints:
      found = steps.look(run, checkpoints.fingerprints)
      inside += bool(halves) if removals else any(step.kind == steps.UNFINISHED for step in found)
      assert {step.kind for step in found} <= {steps.WHOLE, steps.UNFINISHED}
      assert not [item for item in verify.verify(run).items if item.state == verify.DAMAGED]
      state, meta = checkpoint.restore(checkpoints, abstract_of(template))
    same = jax.tree.map(np.array_equal, state.params, state_of(meta.step, template).params)
    assert all(step.usable for step in steps.look(run, checkpoints.fingerprints))  # swept
    tally.fault(killed, survived=meta.step >= saved, exact=meta.step >= saved and all(jax.tree.leaves(same)))
    saved = meta.step
  return inside


def control(tmp_path, tally) -> None:
  """The same saves, ended by themselves."""
  parameters.write_run(tmp_path / 'calm', CONFIG, synthetic_vocabulary(tmp_path), steps=())
  with Child(tmp_path / 'calm.txt', prepare=AT(save_for_ever, str(tmp_path / 'calm'), 1, 3)) as child:
    assert child.end() == 0, child.said
  tally.control(children.saved(tmp_path / 'calm')[-1] == 3 and verify.verify(tmp_path / 'calm').sound)


def synthetic_vocabulary(tmp_path):
  (tmp_path / 'calm vocabulary').mkdir()
  synthetic.write_vocabulary(tmp_path / 'calm vocabulary', BIG.vocab_size)
  return tmp_path / 'calm vocabulary'


@pytest.mark.reliability(6)
@pytest.mark.parametrize('kills', [20, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_in_saves_lose_nothing(tmp_path, tally, kills):
  control(tmp_path, tally)
  inside = kill_in_saves(tmp_path, tally, kills)
  tally.note(f'{kills} kills, {inside} within a save or a removal; seed {kills}')
  assert inside > kills / 10


@pytest.mark.reliability(7)
def test_kills_in_removals_lose_nothing(tmp_path, tally):
  control(tmp_path, tally)
  inside = kill_in_saves(tmp_path, tally, 8, removals=True)
  tally.note(f'8 kills, {inside} within a removal; seed 8')
  assert inside > 1


@pytest.mark.reliability(32)
@pytest.mark.parametrize('kills', [5, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_in_exports_leave_the_old_one_or_the_new_one(kills, tmp_path, tally):
  """At random times, over an export that is there: never half of one."""
  children.write_data(tmp_path)
  run, out = tmp_path / 'run', tmp_path / 'out'
  with Child(tmp_path / 'run.txt', *children.pretrain(tmp_path / 'data', run, 2, 1)) as child:
    assert child.end() == 0, child.said
  argv = ['export', run, '--output', out]
  alone = AT(troubles.without, 'torch', 'transformers')  # whose import would take most of the time
  with Child(tmp_path / 'first.txt', *argv, prepare=alone) as child:
    begin = time.monotonic()
    assert child.end() == 0, child.said
    whole = time.monotonic() - begin
  tally.control(verify.verify(out).sound)
  weights = (out / 'model.safetensors').read_bytes()
  draw, cut = random.Random(32), 0
  for number in range(kills):
    with Child(tmp_path / f'{number}.txt', *argv, prepare=alone) as child:
      time.sleep(whole * (0.4 + 0.6 * draw.random()))
      child.kill()
      killed = child.end() == -signal.SIGKILL
    cut += killed
    there = out.exists()
    assert not there or verify.verify(out).sound
    tally.fault(killed or number, survived=True, exact=(out / 'model.safetensors').read_bytes() == weights
                if there else None)
  with Child(tmp_path / 'last.txt', *argv, prepare=alone) as child:
    assert child.end() == 0, child.said
  tally.note(f'{kills} exports, {cut} killed in time; seed 32')
  assert cut > 2 and verify.verify(out).sound and (out / 'model.safetensors').read_bytes() == weights
  left = {path.name for path in tmp_path.iterdir()} - {f'{number}.txt' for number in range(10)}
  assert left == {'data', 'run', 'out', 'run.txt', 'first.txt', 'last.txt'}

"""Disks that are full, or may only be read: small ones of their own, mounted; at each kind of write, and in a run."""

import asyncio
import functools
import gc
import logging
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from bert_jax import arrays, metrics
from bert_jax.errors import CheckpointError
from tests import children, corpora, troubles
from tests.children import Child

AT = functools.partial
STEPS, EVERY, SECONDS = 12, 2, 120
FULL = CheckpointError.exit_code
MEGABYTES = 8


@pytest.fixture
def disk(tmp_path):
  """An empty disk of a few megabytes."""
  place = tmp_path / 'disk'
  place.mkdir()
  mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={MEGABYTES}m', 'none', place], capture_output=True)
  if mounted.returncode:
    pytest.skip('needs the right to mount a disk')
  yield place
  subprocess.run(['umount', '--lazy', place], check=True)


@pytest.fixture(scope='module')
def way(tmp_path_factory):
  """Text, vocabulary, data, a run that nobody disturbed, and its export."""
  way = tmp_path_factory.mktemp('way')
  children.write_data(way)
  (way / 'corpus.txt').write_text('\n\n'.join(map(corpora.text_of, range(100))))
  (way / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  (way / 'lines.txt').write_text('T5 T6 T8\n' * 3000)
  for name, argv in {'run': pretrain(way, way / 'run', *children.EVERY_STEP),
                     'export': ['export', way / 'run', '--output', way / 'export']}.items():
    with Child(way / f'{name}.txt', *argv) as child:
      assert child.end() == 0, child.said
  return way


def pretrain(way, run, *more) -> list:
  return children.pretrain(way / 'data', run, STEPS, EVERY, *more)


def free(disk) -> int:
  found = os.statvfs(disk)
  return found.f_bavail * found.f_frsize


def room_of(folder) -> int:
  """Bytes that it takes on a disk like these."""
  return sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in folder.rglob('*'))


def contents(folder) -> dict[str, bytes]:
  return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def lay_out(way, disk) -> dict[str, bytes]:
  """What lies on the disk before a command: a run with its newest step."""
  for path in disk.iterdir():
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  older = [str(step) for step in range(1, STEPS)]
  shutil.copytree(way / 'run', disk / 'run', ignore=lambda folder, names: older)
  return contents(disk)


WRITES = {
    'vocabulary': lambda way, disk: ['--input', way / 'corpus.txt', '--size', 70, '--output', disk / 'vocab.txt'],
    'prepare': lambda way, disk: ['--input', way / 'corpus.txt', '--vocabulary', way / 'vocab.txt', '--sequence-length',
                                  32, '--validation-share', 0.2, '--output', disk / 'data'],
    'evaluate': lambda way, disk: [disk / 'run'],
    'plot': lambda way, disk: [disk / 'run'],
    'report': lambda way, disk: [disk / 'run'],
    'export': lambda way, disk: [disk / 'run'],
    'import': lambda way, disk: [way / 'export', '--output', disk / 'imported'],
    'features': lambda way, disk: [way / 'run', '--input', way / 'lines.txt', '--pooling', 'mean', '--output',
                                   disk / 'vectors.npy'],
    'launch-files': lambda way, disk: [disk / 'launch']}


@pytest.mark.reliability(18)
@pytest.mark.parametrize('name', WRITES)
def test_a_full_disk_at_each_kind_of_write(way, disk, tally, name):
  """Room for half of what the command writes: one sentence, the exit code of storage, and nothing else changed."""
  argv = [name, *WRITES[name](way, disk)]
  lay_out(way, disk)
  room = free(disk)
  with Child(way / f'{name}-control.txt', *argv) as child:
    assert child.end() == 0, child.said
  wrote = room - free(disk)
  tally.control(wrote > 0)
  before = lay_out(way, disk)
  troubles.fill(str(disk / 'filler'), leave=wrote // 8192 * 4096)
  left = free(disk)
  with Child(way / f'{name}-full.txt', *argv) as child:
    code = child.end(SECONDS)
  sentences = [line for line in child.said.splitlines()
               if line.startswith('bert-jax:') and not line.startswith('bert-jax: plan:')]
  assert code == FULL and len(sentences) == 1 and 'No space left' in sentences[0], (code, child.said)
  assert 'Traceback' not in child.said
  after = contents(disk)
  same = {path: after.get(path) for path in before} == before
  tally.fault(left < wrote, detected=True, survived=same, exact=same)


@pytest.mark.reliability(18, 19)
@pytest.mark.parametrize('step', [5, STEPS], ids=['in the middle', 'at the last step'])
def test_a_run_whose_disk_is_full_ends_and_goes_on(way, disk, tally, step):
  """Three saves in a row fail, or the last; those before are whole, no half is left, and with room it goes on."""
  run, proof = disk / 'run', way / f'full{step}.proof'
  tally.control(children.as_far_as_it_went(way / 'run', way / 'run'))
  with Child(way / f'full{step}.txt', *pretrain(way, run), prepare=AT(
      troubles.at_step, step, AT(troubles.fill, str(disk / 'filler')), str(proof))) as child:
    code = child.end(SECONDS)
  assert code == FULL and 'Traceback' not in child.said, (code, child.said)
  # What is free was free beside the half of a step that is gone again.
  assert re.search('No space left|are free, and a checkpoint wants', child.said) and free(disk) < 2 * room_of(
      way / 'run/checkpoints' / str(STEPS)), (free(disk), child.said)
  saved = children.saved(run)
  before = (step - 1) // EVERY * EVERY  # a save may still have been on its way
  assert saved[-1] in (before, before - EVERY)
  assert {path.name for path in (run / 'checkpoints').iterdir()} == set(map(str, saved))
  so_far = children.digest(run) == children.digest(way / 'run', saved[-1])
  (disk / 'filler').unlink()
  with Child(way / f'full{step}-again.txt', *pretrain(way, run)) as child:
    assert child.end(SECONDS) == 0, child.said
  tally.fault(proof.exists(), detected=True, survived=children.saved(run)[-1] == STEPS,
              exact=so_far and children.as_far_as_it_went(run, way / 'run'))


@pytest.mark.reliability(18)
def test_space_that_comes_back_costs_a_save_and_no_line(way, disk, tally):
  run, proofs = disk / 'run', [way / f'space{number}.proof' for number in range(2)]
  tally.control(children.as_far_as_it_went(way / 'run', way / 'run'))
  filler = str(disk / 'filler')
  with Child(way / 'space.txt', *pretrain(way, run), prepare=AT(
      troubles.both, AT(troubles.at_step, 5, AT(troubles.fill, filler), str(proofs[0])),
      AT(troubles.at_step, 7, AT(os.unlink, filler), str(proofs[1])))) as child:
    code = child.end(SECONDS)
  assert code == 0 and 'could not be written' in child.said, (code, child.said)
  assert [line['step'] for line in metrics.read(run)] == list(range(1, STEPS + 1))
  tally.fault(all(proof.exists() for proof in proofs), detected=True, survived=True,
              exact=children.saved(run)[-1] == STEPS and children.as_far_as_it_went(run, way / 'run'))


@pytest.mark.reliability(18)
def test_only_the_room_where_checkpoints_are_counts(way, disk, tally):
  """A run's folder on a disk that is as good as full, its checkpoints on another, by a link."""
  run, proof, left = disk / 'run', way / 'link.proof', 20_480  # for the log
  tally.control(children.as_far_as_it_went(way / 'run', way / 'run'))
  shutil.copytree(way / 'run', run, ignore=shutil.ignore_patterns('checkpoints'))
  shutil.copytree(way / 'run/checkpoints/2', way / 'elsewhere/2')
  (run / 'checkpoints').symlink_to(way / 'elsewhere')
  with Child(way / 'link.txt', *pretrain(way, run), prepare=AT(
      troubles.at_step, 3, AT(troubles.fill, str(disk / 'filler'), left), str(proof))) as child:
    code = child.end(SECONDS)
  assert code == 0, child.said
  size = sum(path.stat().st_size for path in (way / 'elsewhere' / str(STEPS)).rglob('*') if path.is_file())
  assert free(disk) <= left < size
  tally.fault(proof.exists(), survived=children.saved(run)[-1] == STEPS, exact=children.digest(run) ==
              children.digest(way / 'run', STEPS))


@pytest.mark.reliability(28)
@pytest.mark.parametrize('there', [False, True], ids=['a new run', 'a run that goes on'])
def test_a_disk_that_may_only_be_read_is_a_sentence(way, disk, tally, there):
  run = disk / 'run'
  with Child(way / f'read{there}-control.txt', *pretrain(way, run)) as child:
    tally.control(child.end() == 0)
  if not there:
    shutil.rmtree(run)
  subprocess.run(['mount', '-o', 'remount,ro', disk], check=True)
  before = contents(disk)
  with Child(way / f'read{there}.txt', *pretrain(way, run)) as child:
    code = child.end(SECONDS)
  assert code in (2, FULL) and re.search('[Rr]ead-only', child.said) and 'Traceback' not in child.said, child.said
  with pytest.raises(OSError):
    pathlib.Path(disk / 'x').touch()
  tally.fault(True, detected=True, survived=contents(disk) == before)


@pytest.mark.parametrize('place, told', [('/site/orbax/serialization.py', 0), ('/site/other/writing.py', 1)])
def test_writes_that_failed_beside_another_are_told_once(caplog, monkeypatch, place, told):
  """asyncio tells of each write that nobody waits for any more, by its traceback; those of Orbax' are told already."""
  space: dict = {}
  exec(compile("async def write():\n  raise ValueError('no space')", place, 'exec'), space)

  async def save():
    gathered = asyncio.gather(space['write'](), space['write']())
    await asyncio.sleep(0.01)
    del gathered
    gc.collect()

  monkeypatch.setattr(logging.getLogger('asyncio'), 'filters', [arrays.not_of_saves])
  asyncio.run(save())
  assert [record.name for record in caplog.records] == ['asyncio'] * told

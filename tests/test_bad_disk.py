"""Disks that cannot read some of what they hold: real ones, on a file that is cut short while they are mounted."""

import contextlib
import errno
import functools
import os
import pathlib
import random
import shutil
import subprocess

import pytest

from bert_jax import verify
from bert_jax.errors import CheckpointError
from tests import children, synthetic, troubles
from tests.children import Child

AT = functools.partial
STEPS, EVERY = 12, 4
LONG = 400  # steps: more than are read ahead
MEGABYTES, CUT = 8, 1 << 15
STORAGE = CheckpointError.exit_code


@pytest.fixture
def disk(tmp_path):
  """An empty disk of a few megabytes, which lies in `disk.img` beside it."""
  place, image = tmp_path / 'disk', tmp_path / 'disk.img'
  place.mkdir()
  with open(image, 'wb') as file:
    file.truncate(MEGABYTES << 20)
  for command in (['mkfs.ext2', '-q', '-F', '-b', '4096', image], ['mount', '-o', 'loop', image, place]):
    if not shutil.which(command[0]) or subprocess.run(command, capture_output=True).returncode:
      pytest.skip('needs the right to mount a disk')
  yield place
  subprocess.run(['umount', '--lazy', place], check=True)


def can_read(file: pathlib.Path) -> bool:
  """Whether the disk, not the memory of the kernel, gives every byte of a file."""
  try:
    with open(file, 'rb') as stream:
      os.fsync(stream.fileno())
      os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
      while stream.read(CUT):
        pass
  except OSError as error:
    assert error.errno == errno.EIO
    return False
  return True


def spoil(victim: str, image: str) -> None:
  """Cuts off the end of a disk, until it cannot read a file any more."""
  subprocess.run(['sync', '--file-system', victim], check=True)
  for size in range(os.path.getsize(image), 0, -CUT):
    os.truncate(image, size)
    if not can_read(pathlib.Path(victim)):
      return
  raise AssertionError(f'{victim} can still be read')


@pytest.fixture(scope='module')
def way(tmp_path_factory):
  """Data of a few windows, and a run that nobody disturbed."""
  way = tmp_path_factory.mktemp('way')
  synthetic.write_data(way / 'data', vocabulary_size=children.VOCABULARY, pieces=1000, documents=100, block=8,
                       sequence_length=children.LENGTH, splits=('train', 'validation'))
  with Child(way / 'run.txt', *children.pretrain(way / 'data', way / 'run', STEPS, EVERY)) as child:
    assert child.end() == 0, child.said
  return way


def largest(folder: pathlib.Path) -> pathlib.Path:
  return max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)


def states(run: pathlib.Path) -> dict[str, str]:
  return {item.name: item.state for item in verify.verify(run).items}


@pytest.mark.reliability(14)
def test_a_checkpoint_that_cannot_be_read_is_passed_over(way, disk, tmp_path, tally):
  """The newest of three: `verify` says so, and the run goes on from the one before it."""
  run = tmp_path / 'run'
  shutil.copytree(way / 'run', run, ignore=shutil.ignore_patterns('checkpoints'))
  (run / 'checkpoints').symlink_to(disk)
  for step in range(EVERY, STEPS + 1, EVERY):
    shutil.copytree(way / 'run/checkpoints' / str(step), disk / str(step))
  tally.control(verify.verify(run).sound and children.as_far_as_it_went(run, way / 'run'))
  victim = largest(disk / str(STEPS))
  spoil(str(victim), str(tmp_path / 'disk.img'))
  unreadable = not can_read(victim)  # until something is written behind the cut
  assert states(run)[f'step {STEPS}'] == verify.DAMAGED
  with Child(tmp_path / 'verify.txt', 'verify', run) as child:
    code = child.end()
  assert code == 2 and 'Input/output error' in child.said and 'Traceback' not in child.said, (code, child.said)
  older = next(step for step in (STEPS - EVERY, EVERY) if states(run)[f'step {step}'] == verify.SOUND)
  with Child(tmp_path / 'again.txt', *children.pretrain(way / 'data', run, STEPS, EVERY)) as child:
    code = child.end()
  assert code == 0 and f'step {older} is taken' in child.said and 'Traceback' not in child.said, (code, child.said)
  tally.fault(unreadable, detected=True,
              survived=children.saved(run)[-1] == STEPS, exact=children.as_far_as_it_went(run, way / 'run'))


@pytest.mark.reliability(21)
@pytest.mark.parametrize('when', ['before the run', 'in its middle'])
def test_a_shard_that_cannot_be_read_is_named(way, disk, tmp_path, tally, when):
  data, run, proof = disk / 'data', tmp_path / 'run', tmp_path / 'proof'
  shutil.copytree(way / 'data', data)
  draw = random.Random(21)
  shard = draw.choice(sorted(data.glob('*train*')))
  command = children.pretrain(data, run, LONG, LONG)
  with Child(tmp_path / 'control.txt', *children.pretrain(data, tmp_path / 'control', 1, 1)) as child:
    tally.control(child.end() == 0)
  with contextlib.ExitStack() as stack:
    act = AT(spoil, str(shard), str(tmp_path / 'disk.img'))
    if when == 'before the run':
      act()
      proof.touch()
    child = stack.enter_context(Child(tmp_path / 'run.txt', *command,
                                      prepare=None if proof.exists() else AT(troubles.at_step, 3, act, str(proof))))
    code = child.end()
  assert code == STORAGE and 'tfrecord' in child.said and 'Traceback' not in child.said, (code, child.said)
  assert 'Input/output error' in child.said
  tally.fault(proof.exists() and not can_read(shard), detected=True)

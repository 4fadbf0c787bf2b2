"""Checkpoints and locks in a bucket: damage is found by what the storage says, half steps are swept, requests are few.

What is tried runs in a process of its own, whose libraries are led to a server in it.
"""

import contextlib
import io
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
pytestmark = pytest.mark.slow
FAULTS = 40
RUN, BUCKET = 'gs://bucket/run', 'bucket'


@pytest.mark.parametrize('what', ['damage', 'strays', 'moves', 'locks', 'requests'])
def test_in_a_bucket(what):
  pytest.importorskip('gcsfs', reason="gcsfs is not installed: pip install 'bert_jax[gcs]'")
  code = f'from tests import test_checkpoint_bucket as t; t.in_a_bucket(t.{what})'
  environment = os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
  ran = subprocess.run([sys.executable, '-P', '-c', code], capture_output=True, text=True, cwd=ROOT, timeout=500,
                       env=environment)
  assert ran.returncode == 0, ran.stderr[-3000:]
  print(ran.stdout)


def in_a_bucket(what) -> None:
  from tests.bucket_server import Server
  with Server(BUCKET) as server:
    os.environ.update(server.environment())
    what(server)


def written(server):
  """(parameters of step 0, the names of what lies below the run), after a run was written."""
  from tests import parameters, synthetic, test_checkpoint_damage as local
  template = parameters.random(local.MODEL)
  vocabulary = pathlib.Path(tempfile.mkdtemp())
  synthetic.write_vocabulary(vocabulary, local.MODEL.vocab_size)
  local.write(RUN, template, vocabulary)
  return template, sorted(server.files(BUCKET, 'run/'))


def newest():
  """(the newest step whose every object is as it was saved, those that are not used)."""
  from bert_jax import run_directory, steps
  from input_pipeline import storage
  rejected = []
  run = storage.path(RUN)
  found = next(steps.sound(steps.look(run, run_directory.fingerprints(run)), rejected), None)
  return found and found.number, rejected


def damage(server):
  from tests import test_checkpoint_damage as local
  template, _ = written(server)
  assert local.taken(RUN, template) == 9
  sound, kinds = dict(server.buckets[BUCKET]), {}
  for seed in range(FAULTS):
    draw = random.Random(seed)
    names = sorted(name for name in sound if name.startswith('run/checkpoints/9/'))
    name = draw.choice(names)
    data = bytearray(sound[name].data)
    kind = draw.choice(['flip', 'truncate', 'append', 'remove', 'swap'])
    if kind == 'flip':
      data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == 'truncate':
      del data[draw.randrange(len(data)):]
    elif kind == 'append':
      data += b'x'
    elif kind == 'swap':
      data = sound[draw.choice([other for other in names if sound[other].data != sound[name].data])].data
    if kind == 'remove':
      del server.buckets[BUCKET][name]
    else:
      server.put(BUCKET, name, bytes(data))
    assert server.buckets[BUCKET] != sound
    number, rejected = newest()
    assert number == 7 and [step.number for step in rejected] == [9], (kind, name, rejected)
    if seed % 10 == 0:
      assert local.taken(RUN, template) == 7
    server.buckets[BUCKET] = dict(sound)
    kinds[kind] = kinds.get(kind, 0) + 1
  assert local.taken(RUN, template) == 9
  print(f'{FAULTS} faults, {FAULTS} found: {kinds}')


def strays(server):
  from bert_jax import checkpoint, manifest, run_directory
  from input_pipeline import storage
  from tests import test_checkpoint_damage as local
  template, names = written(server)
  for name, found in list(server.buckets[BUCKET].items()):  # step 7 as 70, and half of it as 80
    if name.startswith('run/checkpoints/7/'):
      server.put(BUCKET, name.replace('/7/', '/70/'), found.data)
      if not name.endswith(manifest.NAME):
        server.put(BUCKET, name.replace('/7/', '/80/'), found.data)
  for name in ('run/', 'run/checkpoints/', 'run/checkpoints/9/', 'run/checkpoints/99/', 'run/checkpoints/notes.txt'):
    server.put(BUCKET, name, b'')
  run = storage.path(RUN)
  half = manifest.Manifest(12, run_directory.fingerprints(run))
  manifest.write(run / 'checkpoints' / '12', half)
  server.put(BUCKET, 'run/checkpoints/12/state/d/x', b'half')
  before = dict(server.buckets[BUCKET])
  assert local.taken(RUN, template) == 9 and server.buckets[BUCKET] == before
  with checkpoint.manager(RUN) as checkpoints:
    assert checkpoint.restore(checkpoints, local.abstract_of(template))[1].step == 9
    swept = {name for name in before if name not in server.buckets[BUCKET]}
    assert swept == {'run/checkpoints/12/manifest.json', 'run/checkpoints/12/state/d/x'}
    for step in (70, 71):
      checkpoint.save(checkpoints, local.state_of(step, template), checkpoint.Meta(step, 0.0, {}, ''))
  assert local.taken(RUN, template) == 71
  aside = server.files(BUCKET, 'run/checkpoints/70.aside/')
  assert sorted(aside) == [name.removeprefix('checkpoints/7/') for name in names if name.startswith('checkpoints/7/')]
  assert server.files(BUCKET, 'run/checkpoints/80/')
  assert not server.files(BUCKET, 'run/checkpoints/3/')  # superfluous: removed, with nothing left of it


def moves(server):
  """A run that was copied to a disk, or from there, is checked by what its manifest has."""
  from bert_jax import checkpoint, verify
  from tests import test_checkpoint_damage as local
  template, _ = written(server)
  folder = pathlib.Path(tempfile.mkdtemp())
  for name, data in server.files(BUCKET, 'run/').items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
  assert local.taken(folder, template) == 9
  file = max((path for path in (folder / 'checkpoints/9').rglob('*') if path.is_file()), key=lambda x: x.stat().st_size)
  local.flip(file, random.Random(0))
  assert local.taken(folder, template) == 7
  with checkpoint.manager(folder) as checkpoints:  # of the disk's kind
    checkpoint.restore(checkpoints, local.abstract_of(template))
    checkpoint.save(checkpoints, local.state_of(11, template), checkpoint.Meta(11, 0.0, {}, ''))
  for path in folder.rglob('*'):
    if path.is_file():
      server.put(BUCKET, f'back/{path.relative_to(folder)}', path.read_bytes())
  assert local.taken('gs://bucket/back', template) == 11
  assert verify.verify('gs://bucket/back/checkpoints/11').sound
  name = max((name for name in server.buckets[BUCKET] if name.startswith('back/checkpoints/11/state')),
             key=lambda name: len(server.buckets[BUCKET][name].data))
  server.put(BUCKET, name, bytes(len(server.buckets[BUCKET][name].data)))
  assert local.taken('gs://bucket/back', template) == 7
  assert not verify.verify('gs://bucket/back').sound


def locks(server):
  from input_pipeline import locking, storage
  from input_pipeline.errors import LockError
  locking.BEAT_SECONDS = 0.5
  path, name = storage.path(f'{RUN}/lock.json'), 'run/lock.json'
  first, second = locking.Lock(path), locking.Lock(path)
  first.acquire()
  assert json.loads(server.files(BUCKET)[name])['pid'] == os.getpid()
  for owner in (first.owner, first.owner | {'host': 'elsewhere'}):  # here, and on another machine
    first.owner = owner
    first._write(first.generation)
    with pytest.raises(LockError, match=f'process {os.getpid()} on {owner["host"]}'):
      second.acquire()
  first.ending.set()  # it falls silent, or is stopped
  first.thread.join()
  with contextlib.redirect_stderr(io.StringIO()) as said:
    second.acquire()
  assert 'waiting up to' in said.getvalue()
  first.ending.clear()  # and comes back
  first._beat()
  with pytest.raises(LockError, match='has taken this run over'):
    first.check()
  second.check()
  first.release()
  assert json.loads(server.files(BUCKET)[name])['owner'] == second.owner['owner']
  at = len(server.requests)
  second.ending.wait(3.2)
  beats = len(server.requests) - at
  assert 4 <= beats <= 7, beats  # one request each
  second.release()
  assert name not in server.files(BUCKET)
  # two at once: the storage decides
  both = [locking.Lock(path), locking.Lock(path)]
  assert [lock._write(0) for lock in both] == [True, False]
  server.put(BUCKET, name, json.dumps(first.owner | {'host': locking.socket.gethostname(), 'born': 'before'}).encode())
  third = locking.Lock(path)
  third.acquire()  # at once: the process of that name on this machine is another by now
  third.release()


def requests(server):
  import jax.numpy as jnp

  from bert_jax import checkpoint, program
  from input_pipeline import storage
  from tests import parameters, synthetic, test_checkpoint_damage as local
  vocabulary, counts = pathlib.Path(tempfile.mkdtemp()), {}
  synthetic.write_vocabulary(vocabulary, local.MODEL.vocab_size)
  for leaves in (10, 100):  # times three, with the optimizer's
    run = f'gs://bucket/{leaves}'
    parameters.write_run(run, local.CONFIG, vocabulary, steps=())
    tree = {f'p{i}': jnp.ones((16, 8)) for i in range(leaves)}
    state = program.TrainState(jnp.int32(1), jnp.int32(0), tree, {'mu': tree, 'nu': tree})
    with checkpoint.manager(run, keep=2) as checkpoints:
      checkpoint.restore(checkpoints, state)
      for step in range(1, 5):
        at = len(server.requests)
        checkpoint.save(checkpoints, state, checkpoint.Meta(step, 0.0, {}, ''))
        blocked = len(server.requests) - at
        checkpoint.finish(checkpoints)
        counts[leaves, 'save' if step < 3 else 'save and removal'] = len(server.requests) - at, blocked
    at = len(server.requests)
    abstract = local.jax.tree.map(
        lambda x: local.jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    with checkpoint.manager(run) as checkpoints:
      checkpoint.restore(checkpoints, abstract)
    counts[leaves, 'restore'] = len(server.requests) - at, 0
  print(json.dumps({f'{leaves} leaves, {what}': found for (leaves, what), found in counts.items()}))
  assert storage.path('gs://bucket/10/checkpoints/4/manifest.json').exists()
  assert all(found <= 80 for (_, what), (found, _) in counts.items()), counts
  assert counts[100, 'save'][0] < counts[10, 'save'][0] + 10, counts  # how often Orbax commits is a matter of time

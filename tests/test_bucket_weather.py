"""A bucket in bad weather: what may pass is tried again, training goes on beside it, and nothing is lost."""

import os
import subprocess
import sys
import threading
import time

import pytest

from tests import buckets
from tests.bucket_server import Faults
from tests.buckets import ALONE, BUCKET, RUN

pytestmark = pytest.mark.bucket

STEPS = ['--run.steps', '200', '--run.checkpoint-every', '40', '--run.evaluate-every', '100']
KINDS = ['503', '429', 'drop', 'cut', 'hang']  # of weather: each once in every part
PARTS = {'data': '/data/|prefix=(weather/)?data', 'saves': 'checkpoints/', 'log': 'metrics|tensorboard',
         'export': '/export'}
SILENCE = {'REQUEST_SECONDS': '3', 'TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS': '3'}  # a minute elsewhere


@pytest.mark.slow
@pytest.mark.reliability(20)
def test_twenty_faults_in_200_steps_change_nothing(healthy, local_way, tmp_path, tally):
  """Each kind in reading data, saving, logging and exporting."""
  for file in (local_way / 'data').iterdir():
    healthy.put('bucket', f'weather/data/{file.name}', file.read_bytes())
  calm, run = tmp_path / 'calm', f'{BUCKET}/weather/run'
  pretrain = ['pretrain', 'tiny', *RUN, *STEPS, *ALONE]
  buckets.done(healthy, [*pretrain, '--data', local_way / 'data', '--run-dir', calm], ['export', calm])
  tally.control(len(buckets.lines_of((calm / 'metrics.jsonl').read_text())) > 0)
  healthy.faults = Faults(plan={pattern: list(KINDS) for pattern in PARTS.values()}, silence=300)
  commands = [[*pretrain, '--data', f'{BUCKET}/weather/data', '--run-dir', run], ['evaluate', run], ['plot', run],
              ['export', run], ['verify', run]]
  found = buckets.in_turn(healthy, *commands, more=SILENCE)
  assert [result['code'] for result in found] == [0] * len(commands), found
  assert not any(healthy.faults.plan.values()), 'some faults were not made'
  assert 'storage is slow' in found[0]['errors']
  files = healthy.files('bucket', 'weather/run/')
  assert buckets.log_of(healthy, 'weather/run') == buckets.lines_of((calm / 'metrics.jsonl').read_text())
  same = files['export/model.safetensors'] == (calm / 'export/model.safetensors').read_bytes()
  for pattern in PARTS:
    for kind in KINDS:
      tally.fault((pattern, kind), survived=True, exact=same)


STORAGE = '''
import sys, time
import fsspec, gcsfs
from input_pipeline import storage, storage_errors
storage_errors.REQUEST_SECONDS = 3
path = storage.path('gs://bucket/weather.txt')
{body}
'''


def script(server, body: str, more=None) -> tuple[str, str]:
  """What lines that use `path` print."""
  done = subprocess.run([sys.executable, '-P', '-c', STORAGE.format(body=body)], capture_output=True, text=True,
                        env=buckets.environment(server, more), timeout=buckets.SECONDS)
  assert done.returncode == 0, done.stderr
  return done.stdout, done.stderr


@pytest.mark.reliability(20)
@pytest.mark.parametrize('kind', KINDS)
def test_what_may_pass_is_tried_again_and_told(healthy, kind, tally):
  _, errors = script(healthy, 'path.write_bytes(b"some text")\nassert path.read_bytes() == b"some text"')
  tally.control('storage is slow' not in errors)
  healthy.faults = Faults(1.0, (kind,), most=2, silence=300)
  _, errors = script(healthy, '''
path.write_bytes(b'some text')
assert path.read_bytes() == b'some text' and [found.name for found in path.parent.glob('weather*')] == ['weather.txt']
''')
  assert errors.count('storage is slow') == 1, errors
  tally.fault(healthy.faults.most == 0, detected=True, survived=True, exact=True)


@pytest.mark.parametrize('faults, calls', [(Faults(deny=403), 1), (Faults(deny=401), 1), (Faults(1.0, ('400',)), 1)])
def test_what_cannot_pass_is_not_tried_again(healthy, faults, calls):
  healthy.faults = faults
  healthy.requests.clear()
  out, _ = script(healthy, '''
try:
  path.read_bytes()
except Exception as error:
  print(type(error).__name__)
''')
  assert out.strip() == 'RefusedError' and len(healthy.requests) == calls


def test_slow_answers_are_told_once(healthy):
  healthy.faults = Faults(seconds=1.2)
  _, errors = script(healthy, 'for number in range(5):\n  path.write_bytes(b"text")')
  assert errors.count('storage is slow: gs://: a request takes 1.') == 1, errors


GOES_ON = '''
import sys
from launch import cli
from bert_jax import loop, train
loop.WAIT_SECONDS = 1.0
inner = train.train
def stop(step):
  print(step, flush=True)
  return False
train.train = lambda *args, **options: inner(*args, **options, stop=stop)
sys.argv = ['bert-jax', *{argv!r}]
cli.main()
'''


def test_training_goes_on_beside_a_save(healthy, local_way, monkeypatch):
  """Whose arrays are not taken before the steps after it are done."""
  may_end = threading.Event()
  inner = type(healthy).fault

  def held(server, path: str) -> str:
    if '/upload/' in path and 'checkpoints/4/state' in path.replace('%2F', '/'):
      may_end.wait(buckets.SECONDS)
    return inner(server, path)

  monkeypatch.setattr(type(healthy), 'fault', held)
  argv = ['pretrain', 'tiny', '--data', str(local_way / 'data'), '--run-dir', f'{BUCKET}/beside', *RUN, *ALONE]
  process = subprocess.Popen([sys.executable, '-P', '-c', GOES_ON.format(argv=argv)],
                             env=buckets.environment(healthy) | {'PYTHONUNBUFFERED': '1'}, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, cwd=os.fspath(buckets.ROOT))
  try:
    steps = iter(process.stdout)
    assert '8' in (line.strip() for line in steps)  # the next save waits for this one
    assert not [name for name in healthy.files('bucket', 'beside/checkpoints/4/state/') if 'ocdbt' in name]
    time.sleep(3)
    may_end.set()
    _, errors = process.communicate(timeout=buckets.SECONDS)
    assert process.returncode == 0 and 'storage is slow: training waited' in errors, errors
  finally:
    may_end.set()
    process.kill()

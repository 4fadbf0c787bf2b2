"""What keeps a command from a bucket is known before its work, within seconds, and said in a sentence."""

import json
import subprocess
import sys

import pytest

from tests import buckets
from tests.bucket_server import Faults
from tests.buckets import ALONE, BUCKET, RUN, TASK

pytestmark = pytest.mark.bucket

NOBODY = 'http://127.0.0.1:9'  # where nothing listens
NO_NAME = 'http://storage.invalid'  # which no server of names knows


def commands_that_write(way, bucket: str) -> list[list]:
  texts, data = way.parent, way / 'data'
  return [
      ['vocabulary', '--input', texts / 'corpus.txt', '--size', '70', '--output', f'{bucket}/v.txt'],
      ['prepare', '--input', texts / 'corpus.txt', '--vocabulary', texts / 'vocab.txt', '--output', f'{bucket}/d'],
      ['pretrain', 'tiny', '--data', data, '--run-dir', f'{bucket}/r', *RUN, *ALONE],
      ['finetune', 'classification', '--data', texts / 'task', '--checkpoint', way / 'run', '--run-dir', f'{bucket}/f',
       *TASK],
      ['export', way / 'run', '--output', f'{bucket}/e']]


@pytest.mark.parametrize('place, faults, words', [
    ('gs://missing', Faults(), "there is no bucket 'missing'"), (BUCKET, Faults(read_only=True), 'objects.create'),
    (BUCKET, Faults(deny=403), 'no right'), (BUCKET, Faults(deny=401), 'no credentials')])
def test_what_cannot_be_written_is_known_before_the_work(healthy, local_way, place, faults, words):
  before = healthy.files('bucket')
  healthy.faults = faults
  for code, said in buckets.sentences(healthy, *commands_that_write(local_way, place)):
    assert code == 2 and words in said
  assert healthy.files('bucket') == before


PROBE = '''
import json, time
import fsspec, gcsfs
from input_pipeline import storage
begin, error = time.monotonic(), None
try:
  storage.probe('gs://bucket/new/run', '--run-dir', checkpoints=True)
except Exception as caught:
  error = caught
print(json.dumps([time.monotonic() - begin, getattr(error, 'exit_code', 0), str(error)]))
'''


@pytest.mark.parametrize('faults, url, code, words', [
    (Faults(), None, 0, ''),
    (Faults(seconds=1.0), None, 0, ''),
    (Faults(deny=403), None, 2, 'no right'),
    (Faults(deny=401), None, 2, 'no credentials'),
    (Faults(read_only=True), None, 2, 'written to'),
    (Faults(1.0), None, 7, 'no answer'),
    (Faults(1.0, ('429',)), None, 7, 'no answer'),
    (Faults(1.0, ('drop',)), None, 7, 'no answer'),
    (Faults(seconds=30.0), None, 7, 'no answer'),
    (Faults(), NOBODY, 7, 'no answer'),
    (Faults(), NO_NAME, 7, 'no answer')])
def test_a_probe_ends_within_ten_seconds(healthy, faults, url, code, words):
  healthy.faults = faults
  more = {'STORAGE_EMULATOR_HOST': url} if url else None
  done = subprocess.run([sys.executable, '-P', '-c', PROBE], env=buckets.environment(healthy, more),
                        capture_output=True, text=True, timeout=buckets.SECONDS)
  seconds, found, said = json.loads(done.stdout)
  print(f'{seconds:.2f} s  {found}  {said}')
  assert seconds < 10 and found == code and words in said, said
  assert not [name for name in healthy.files('bucket') if 'probe' in name]


def test_a_library_that_is_missing_is_named_with_its_extra(healthy, local_way):
  for code, said in buckets.sentences(healthy, *commands_that_write(local_way, BUCKET), absent='gcsfs'):
    assert code == 2 and 'bert_jax[gcs]' in said
  [_, _, pretrain, finetune, _] = commands_that_write(local_way, BUCKET)
  for code, said in buckets.sentences(healthy, pretrain, finetune, absent='google.cloud.storage'):
    assert code == 2 and 'bert_jax[gcs]' in said
  vocabulary, prepare, _, _, export = commands_that_write(local_way, 's3://bucket')
  for code, said in buckets.sentences(healthy, vocabulary, prepare, export, absent='s3fs'):
    assert code == 2 and 's3fs' in said

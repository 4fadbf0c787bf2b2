"""s3:// against moto's server: all commands but those of a run, which are refused in a sentence before any work."""

import pytest

from tests import buckets
from tests.buckets import ALONE, RUN

pytestmark = pytest.mark.bucket
KEYS = {'AWS_ACCESS_KEY_ID': 'x', 'AWS_SECRET_ACCESS_KEY': 'y', 'AWS_DEFAULT_REGION': 'us-east-1'}


class Server:
  """What tests.buckets wants of a server."""

  def __init__(self, url: str):
    import boto3
    self.url = url
    self.client = boto3.client('s3', endpoint_url=url, region_name='us-east-1', aws_access_key_id='x',
                               aws_secret_access_key='y')
    self.client.create_bucket(Bucket='bucket')

  def environment(self) -> dict[str, str]:
    return KEYS | {'AWS_ENDPOINT_URL': self.url}

  def put(self, bucket: str, name: str, data: bytes) -> None:
    self.client.put_object(Bucket=bucket, Key=name, Body=data)

  def files(self, prefix: str) -> dict[str, bytes]:
    found = self.client.list_objects_v2(Bucket='bucket', Prefix=prefix).get('Contents', [])
    return {entry['Key'].removeprefix(prefix): self.client.get_object(Bucket='bucket', Key=entry['Key'])['Body'].read()
            for entry in found}


@pytest.fixture(scope='module')
def s3():
  from moto.server import ThreadedMotoServer
  server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
  server.start()
  yield Server('http://{}:{}'.format(*server.get_host_and_port()))
  server.stop()


def test_text_data_and_exports_can_be_there(s3, local_way, tmp_path):
  buckets.put_inputs(s3, tmp_path)
  base, run = 's3://bucket', tmp_path / 'run'
  _, _, inspected, _, exported, _, filled = buckets.done(
      s3, ['vocabulary', '--input', f'{base}/corpus.txt', '--size', '70', '--output', f'{base}/trained.txt'],
      ['prepare', '--input', f'{base}/corp*.txt', '--vocabulary', f'{base}/vocab.txt', '--sequence-length', '32',
       '--validation-share', '0.2', '--output', f'{base}/data'],
      ['inspect', f'{base}/data', '--examples', '1'],
      ['pretrain', 'tiny', '--data', f'{base}/data', '--run-dir', run, *RUN, *ALONE],
      ['export', run, '--output', f'{base}/export'], ['export', run, '--output', f'{base}/export'],
      ['fill-mask', f'{base}/export', 'one [MASK] three .', '--json'])
  assert 'train, example 1:' in inspected and 'results' in filled and exported.endswith(f'{base}/export\n')
  assert s3.files('trained.txt')[''] == (local_way / 'trained.txt').read_bytes()
  shards = s3.files('data/')
  for file in (local_way / 'data').glob('*.tfrecord*'):
    assert shards[file.name] == file.read_bytes()
  assert s3.files('export/')['model.safetensors'] == (local_way / 'run/export/model.safetensors').read_bytes()


def test_what_cannot_be_there_is_said_before_the_work(s3, local_way):
  before = s3.files('')
  pretrain = ['pretrain', 'tiny', '--data', local_way / 'data', *RUN, *ALONE]
  finetune = ['finetune', 'classification', '--data', local_way.parent / 'task', '--checkpoint', local_way / 'run']
  for code, said in buckets.sentences(
      s3, [*pretrain, '--run-dir', 's3://bucket/run'], [*finetune, '--run-dir', 's3://bucket/run', *ALONE],
      [*pretrain, '--run-dir', 'az://bucket/run']):
    assert code == 2 and 'checkpoints can be kept on local disks and gs://' in said
  for code, said in buckets.sentences(
      s3, ['export', local_way / 'run', '--output', 's3://missing/e'],
      ['vocabulary', '--input', local_way.parent / 'corpus.txt', '--size', '70', '--output', 's3://missing/v.txt']):
    assert code == 2 and "there is no bucket 'missing'" in said
  assert s3.files('') == before

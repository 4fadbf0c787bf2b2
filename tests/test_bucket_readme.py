"""docs/pods.md's way with all in a bucket, line by line, at the size of a test."""

import gzip
import shlex

import pytest

from tests import buckets, corpora, pages

pytestmark = pytest.mark.bucket

PAGE = pages.ROOT / 'docs/pods.md'
# What is no command of ours, and how its line is read here.
LEFT_OUT = {'export': 'settings of the launcher'}
LAUNCHER = 'launch/cloud_tpu/train.sh'  # needs gcloud: what it starts on every host is run in its place
SIZE = {  # flags that a line gets for the size of a test
    'vocabulary': ['--size', '70'],
    'prepare': ['--sequence-length', '16', '--long-sequence-length', '32', '--validation-share', '0.2'],
    'pretrain': [*buckets.SMALL, '--batch.size', '8', '--batch.sequence-length', '16', '--batch.predictions', '3',
                 '--long.sequence-length', '32', '--long.predictions', '5', '--long.size', '4', '--run.steps', '10',
                 '--optimizer.warmup-steps', '2', '--run.checkpoint-every', '5', '--model.vocab-size', '70',
                 *buckets.ALONE]}


def lines() -> list[list[str]]:
  """The page's commands, in words."""
  block, = pages.blocks(PAGE)
  return [shlex.split(line) for line in block.text.splitlines()]


def test_every_line_of_the_page_works_on_a_bucket(healthy, tmp_path):
  for part in range(2):
    text = '\n\n'.join(corpora.text_of(i) for i in range(part, 120, 2))
    healthy.put('my-bucket', f'corpus/{part}.txt.gz', gzip.compress(text.encode()))
  commands = []
  for program, *argv in lines():
    if program in LEFT_OUT:
      continue
    assert program in ('bert-jax', LAUNCHER), f'{program}: not run here; say why in LEFT_OUT'
    argv = [argument.replace('data/128', 'data/16') for argument in argv]
    commands.append([*argv, *SIZE.get(argv[0], [])])
  assert {command[0] for command in commands} >= {'vocabulary', 'prepare', 'inspect', 'pretrain', 'verify', 'export'}
  said = buckets.done(healthy, *commands, cwd=tmp_path)
  assert 'france is' in said[-1].lower()
  assert (tmp_path / LAUNCHER).exists()
  assert {'vocab.txt', 'data/16/manifest.json', 'data/32/manifest.json', 'runs/base/evaluation.json',
          'runs/base/loss.png', 'runs/base/export/model.safetensors'} <= set(healthy.files('my-bucket'))

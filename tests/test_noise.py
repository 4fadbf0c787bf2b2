"""What a person sees from the first command to the last, in a terminal and in a log: each line is ours.

The commands run in turn in one process, as in a shell that imports once, with a real terminal or a pipe as its streams.
"""

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from tests import buckets, compiling, pages
from tests.test_documented import write_corpus

PROGRAM = '''
import json, sys
from launch import cli
for argv in json.loads(sys.argv[1]):
  sys.argv = ['bert-jax', *argv]
  print('$', argv[0], flush=True)
  try:
    cli.main()
  except SystemExit as end:
    sys.stdout.flush()
    if end.code:
      sys.exit(f'{argv} ended with {end.code}')
'''
SMALL = ['--model.hidden-size', '32', '--model.layers', '1', '--model.heads', '2', '--model.intermediate-size', '32']
COMMANDS = [
    ['vocabulary', '--input', 'corpus', '--size', '900', '--output', 'vocab.txt'],
    ['prepare', '--for', 'sample', '--input', 'corpus', '--vocabulary', 'vocab.txt', '--output', 'data'],
    ['pretrain', 'sample', '--data', 'data', '--run-dir', 'run', *SMALL, '--run.steps', '12', '--run.evaluate-every',
     '6', '--run.log-every', '3'],
    ['evaluate', 'run'],
    ['finetune', 'classification', '--checkpoint', 'run', '--data', 'reviews.csv', '--run-dir', 'tuned', '--epochs',
     '1', '--batch.max-length', '16'],
    ['export', 'run'], ['fill-mask', 'run', 'a [MASK] b']]
OURS = {  # what lines of each command look like, beside sentences that begin with our name
    'vocabulary': r'vocab\.txt: wordpiece, 900 tokens',
    'prepare': r'data|documents|splits .*|next|  (read|in train|in validation|also counted|tokens of|documents|pieces|'
               r'sentences|tokens|unknown tokens|shards|bert-jax) .*| {20,}\S.*|text → pieces: .*',
    'pretrain': r'run: (starting; mesh|stopped at step 12: all 12 steps are done).*|  (12 steps of|data:|rows:|'
                r'compiling …|compiled in|a step takes|first step) ?.*|step (3|6|9|12)/12  (loss|held-out MLM) .*',
    'evaluate': r'(loss|mlm_accuracy|mlm_loss|nsp_accuracy|nsp_loss|unigram_loss|documents|sequences|step) +[\d,.]+',
    'finetune': r'tuned: (starting; mesh|stopped at step).*|  .*|step \d+/\d+  (loss|held-out) .*|'
                r'(right|wrong): \d+ of \d+|'
                r'classification, 1 seed: .*|'
                r'[\d,.]+ examples/s in training|best run: tuned|.*(good|bad).*|',
    'export': r'(\S*/)?run/export.*|read again, .*|compared with .*|\w+ +differ by .*|  .*',
    'fill-mask': r'a\S*( \S+)? b|  \S+ +[\d.]+%.*'}
BAR = re.compile(r' *\d+%\|.*')  # of tqdm, which draws it again and again
CONTROL = re.compile(r'\x1b\[[\d;?]*[A-Za-z]')


def in_terminal(command, **more) -> str:
  ours, theirs = pty.openpty()
  process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, **more)
  os.close(theirs)
  said = b''
  while True:
    try:
      part = os.read(ours, 1 << 16)
    except OSError:  # as Linux says that nobody writes any more
      part = b''
    if not part:
      break
    said += part
  os.close(ours)
  assert process.wait() == 0, said.decode(errors='replace')[-3000:]
  return said.decode()


def in_log(command, **more) -> str:
  done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                        timeout=buckets.SECONDS, **more)
  assert done.returncode == 0, done.stdout[-3000:]
  return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize('show', [in_terminal, in_log])
def test_each_line_is_ours(tmp_path, show):
  write_corpus(tmp_path)
  environment = {name: value for name, value in os.environ.items()
                 if not name.startswith(('TF_', 'JAX_', 'XLA_')) or name == 'JAX_COMPILATION_CACHE_DIR'}
  environment |= {'PYTHONPATH': os.pathsep.join([str(pages.ROOT), *sys.path]), 'XLA_FLAGS': compiling.FLAGS}
  text = show([sys.executable, '-P', '-c', PROGRAM, json.dumps(COMMANDS)], cwd=tmp_path, env=environment)
  by_command = re.split(r'^\$ ', text.replace('\r\n', '\n'), flags=re.M)
  assert by_command[0] == '' and len(by_command) == len(COMMANDS) + 1
  said = {part.split('\n', 1)[0]: CONTROL.sub('', part.split('\n', 1)[1]) for part in by_command[1:]}
  strange = [(command, line) for command, lines in said.items() for line in re.split('[\n\r]', lines)
             if line.strip() and not re.fullmatch(rf'bert-jax: .*|{OURS[command]}', line.rstrip())
             and not (show is in_terminal and BAR.fullmatch(line))]
  assert not strange
  stays = [line for line in re.split('[\n\r]', said['pretrain']) if line.startswith('step ')]
  assert [line.split()[1] for line in stays if 'held-out' in line] == ['6/12', '12/12'], stays
  assert re.search(r'held-out MLM \d\.\d\d, NSP \d\.\d\d', said['pretrain'])
  assert any(line.startswith('step 12/12  loss') for line in stays)
  assert '  compiling …\n  compiled in ' in said['pretrain'].replace('\r', '')
  left = [int(minutes) for minutes in re.findall(r'left (\d+):\d\d', said['pretrain'])]
  assert left[-1] == 0

"""Commands run against a bucket on the loopback, and the way from text to exports that they make, for the tests of it.

A process costs more time than most commands: those of one test run in turn in one where they can.
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tests import compiling, corpora
from tests.bucket_server import Server

ROOT = pathlib.Path(__file__).parent.parent
BUCKET = 'gs://bucket'
WITHOUT_TENSORFLOW = 'tensorflow,tensorflow_datasets'
SECONDS = 500  # a limit for a machine with much else to do
TIMED = {'tokens_per_second', 'steps_per_second', 'data_stall_share', 'minutes', 'mfu', 'time'}  # of a line of the log
SMALL = ['--model.hidden-size', '16', '--model.layers', '2', '--model.heads', '2', '--model.intermediate-size', '32',
         '--model.max-positions', '32', '--model.dtype', 'float32']
RUN = [*SMALL, '--model.vocab-size', str(len(corpora.TOKENS)), '--long.share', '0', '--batch.size', '8',
       '--batch.sequence-length', '32', '--batch.predictions', '5', '--run.steps', '12', '--optimizer.warmup-steps',
       '2', '--run.log-every', '2', '--run.checkpoint-every', '4', '--run.evaluate-every', '4',
       '--run.evaluation-rows', '16', '--run.keep-checkpoints', '2']
ALONE = ['--distributed.no-auto']
TASK = ['--epochs', '1', '--batch.size', '8', '--batch.max-length', '32', '--optimizer.warmup-steps', '1',
        '--model.dtype', 'float32', '--run.log-every', '1', '--run.checkpoint-every', '2', *ALONE]
Command = Sequence[str | os.PathLike]


def environment(server: Server, more: Mapping[str, str] | None = None) -> dict[str, str]:
  own = {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path]), 'XLA_FLAGS': compiling.FLAGS,
         'PYTHONWARNINGS': 'ignore'}
  return os.environ | server.environment() | own | dict(more or {})


def start(server: Server, *argv, absent: str = '-', cwd=ROOT, more: Mapping[str, str] | None = None
          ) -> subprocess.Popen:
  """`bert-jax` as it is without the packages `absent`, in a folder, with more variables of the environment."""
  return subprocess.Popen([sys.executable, '-P', ROOT / 'tests/without.py', absent, *map(str, argv)],
                          env=environment(server, more), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True)


def in_turn(server: Server, *commands: Command, **options) -> list[dict]:
  """code, out, errors and seconds of each command; all run in one process, one after the other."""
  argv = [argument for command in commands for argument in (*command, '+')]
  process = start(server, *argv, **options)
  out, errors = process.communicate(timeout=SECONDS)
  found = [json.loads(line) for line in out.splitlines()]
  assert len(found) == len(commands), errors
  return found


def done(server: Server, *commands: Command, **options) -> list[str]:
  """What each command says on stdout; none may fail."""
  found = in_turn(server, *commands, **options)
  for command, result in zip(commands, found):
    assert result['code'] == 0, (command[0], result['errors'])
  return [result['out'] for result in found]


def sentences(server: Server, *commands: Command, within: float = 60, **options) -> list[tuple[int, str]]:
  """(exit code, what it says) of commands that fail, each by one sentence and soon."""
  found = []
  for result in in_turn(server, *commands, **options):
    lines = [line for line in result['errors'].splitlines() if line.startswith('bert-jax:')]
    assert 'Traceback' not in result['errors'] and len(lines) == 1, result
    assert result['seconds'] < within, result
    found.append((result['code'], lines[0]))
  return found


def put_inputs(server: Server, folder: pathlib.Path) -> None:
  """A text, a vocabulary, and examples of a task, in a folder and in the bucket."""
  examples = lambda numbers: '\n'.join(json.dumps({'text': corpora.text_of(i)[:80], 'label': 'yes' if i % 2 else 'no'})
                                       for i in numbers)
  inputs = {'corpus.txt': '\n\n'.join(corpora.text_of(i) for i in range(120)),
            'vocab.txt': '\n'.join(corpora.TOKENS) + '\n', 'task/train.jsonl': examples(range(32)),
            'task/validation.jsonl': examples(range(32, 44))}
  for name, text in inputs.items():
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    server.put('bucket', name, text.encode())


def whole_way(server: Server, base: str, name: str, **options) -> None:
  """From text to exports, of a pretrained run and of a fine-tuned one, below `base`, where the inputs are."""
  way = f'{base}/{name}'
  run, task = f'{way}/run', f'{way}/task'
  commands = {
      'vocabulary': ['--input', f'{base}/corpus.txt', '--size', '70', '--output', f'{way}/trained.txt'],
      'prepare': ['--input', f'{base}/corp*.txt', '--vocabulary', f'{base}/vocab.txt', '--sequence-length', '32',
                  '--validation-share', '0.2', '--output', f'{way}/data'],
      'inspect': [f'{way}/data', '--examples', '1'],
      'pretrain': ['tiny', '--data', f'{way}/data', '--run-dir', run, *RUN, *ALONE],
      'evaluate': [run, '--json'], 'plot': [run], 'export': [run],
      'fill-mask': [f'{run}/export', 'one [MASK] three .', '--json'],
      'finetune': ['classification', '--data', f'{base}/task', '--run-dir', task, '--checkpoint', run, *TASK]}
  # The first replaces what is there.
  again = [['export', run], ['evaluate', task], ['export', task], ['plot', task], ['verify', run], ['verify', task]]
  said = dict(zip(commands, done(server, *([command, *argv] for command, argv in commands.items()), *again, **options)))
  assert 'train, example 1:' in said['inspect'] and 'results' in said['fill-mask']
  assert json.loads(said['evaluate'])['step'] == 12 and said['export'].splitlines()[-1] == f'{run}/export'


def lines_of(text: str) -> list[dict]:
  """The lines of a log, without what a clock says."""
  return [{name: value for name, value in json.loads(line).items() if name not in TIMED} for line in text.splitlines()]


def log_of(server: Server, run: str) -> list[dict]:
  """The lines of a run's segments, each once, in order."""
  lines = lines_of(''.join(data.decode() for data in server.files('bucket', f'{run}/metrics/').values()))
  return list({(line['step'], line['kind']): line for line in lines}.values())


def like_files(names) -> set[str]:
  """The names of what has the same bytes in a bucket and on a disk, or is at least there in both."""
  return {name for name in names if not re.search('checkpoints/|tensorboard/|metrics', name)}


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]

"""What is stuck ends, with the stacks that say where; what is only slow does not. What is asked to stop, stops."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

import bert_jax
from bert_jax.errors import HUNG, UNSAVED

ROOT = pathlib.Path(bert_jax.__file__).parents[1]
WITH_DOG = '''
import ctypes, threading, time
from bert_jax.watchdog import Watchdog
with Watchdog({seconds}) as dog:
  dog.beat()
  {what}
print('done')
'''


def run(program: str, **settings) -> tuple[int, str, float]:
  begin = time.monotonic()
  process = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=120,
                           env=os.environ | {'PYTHONPATH': str(ROOT)}, **settings)
  return process.returncode, process.stdout + process.stderr, time.monotonic() - begin


@pytest.mark.parametrize('what', ['time.sleep(600)', 'threading.Event().wait()', 'while True: pass'])
def test_a_stuck_process_ends_and_says_where(what):
  code, said, _ = run(WITH_DOG.format(seconds=0.5, what=what))
  assert code == HUNG and 'nothing has happened for' in said and 'run.hang-minutes' in said
  assert 'File "<string>", line 6 in <module>' in said and 'done' not in said


def test_a_process_whose_interpreter_is_stuck_ends_too():
  code, said, _ = run(WITH_DOG.format(seconds=0.5, what='ctypes.PyDLL(None).sleep(600)'))  # PyDLL keeps the lock
  assert code == -signal.SIGALRM and 'line 6 in <module>' in said and 'done' not in said


@pytest.mark.parametrize('seconds, what', [(1.0, '[(dog.beat(), time.sleep(0.2)) for _ in range(8)]'),
                                           (0.5, '(dog.beat(9), time.sleep(1.5))')])
def test_a_slow_one_goes_on(seconds, what):
  assert run(WITH_DOG.format(seconds=seconds, what=what))[:2] == (0, 'done\n')


def test_none_watches_where_none_is_wanted():
  assert run(WITH_DOG.format(seconds=0, what='time.sleep(0.5)'))[:2] == (0, 'done\n')


def test_no_alarm_is_left():
  code, said, _ = run(WITH_DOG.format(seconds=0.2, what='pass') + 'time.sleep(2)')
  assert (code, said) == (0, 'done\n')


STOPPABLE = '''
import hashlib
from bert_jax import early_stop
early_stop.begin()
{before}
print('ready', flush=True)
hashlib.pbkdf2_hmac('sha256', b'', b'', {work})  # without Python's lock and not to be interrupted, as a compilation
'''


@pytest.mark.parametrize('before, code', [('', UNSAVED), ('early_stop.over()', 0)])
def test_sigterm_before_there_is_anything_to_save(before, code):
  program = STOPPABLE.format(before=before, work=10**9 if code else 10**6)
  process = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=os.environ | {'PYTHONPATH': str(ROOT)})
  assert process.stdout.readline() == 'ready\n'
  time.sleep(0.1)
  begin = time.monotonic()
  process.send_signal(signal.SIGTERM)
  said = process.communicate(timeout=60)[1]
  assert process.returncode == code and time.monotonic() - begin < 10
  assert ('there is nothing new to save' in said) == bool(code)

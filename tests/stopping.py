"""A training command that is slow at one place, and says that it is there. For tests of what a signal does there.

AT=evaluation, data, compilation, save or finish; from step FROM on, once.
"""

import functools
import hashlib
import os
import time

from bert_jax import checkpoint, evaluate, loop, program, train
from input_pipeline.batches import loader
from launch import cli

SECONDS = 120
step = 0


def slow_once(function, sleep=time.sleep, seconds: float = SECONDS):
  """`function`, which says once that it is there, and takes long."""
  def slow(*arguments, **settings):
    global step
    if step >= int(os.environ['FROM']):
      step = -10**9
      print('at it', flush=True)
      sleep(seconds)
    return function(*arguments, **settings)
  return slow


def compute(_) -> None:
  """Without Python's lock and not to be interrupted, as a compilation is."""
  hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)


def counting(function):
  def reason(self, number):
    global step
    step += 1
    return function(self, number)
  return reason


if __name__ == '__main__':
  loop.Stopper.reason = counting(loop.Stopper.reason)
  place = os.environ.get('AT')
  if place == 'evaluation':
    evaluate.figures = slow_once(evaluate.figures)
  elif place == 'data':
    loader.Stream.rows = slow_once(loader.Stream.rows)
  elif place == 'compilation':
    program.Program.compile_step = slow_once(program.Program.compile_step, compute)
  elif place == 'save':
    checkpoint.save = slow_once(checkpoint.save, seconds=2)
  elif place == 'finish':
    checkpoint.finish = slow_once(checkpoint.finish, seconds=2)
  train.train = functools.partial(train.train, engine='threads')
  cli.main()

"""Commands as processes of their own that begin in a moment: forked from a server that has imported all, no more.

A child is ended by its id, never outlives its test, and nobody waits for it without a limit.
"""

import atexit
import functools
import gc
import hashlib
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
import optax  # noqa: F401
import orbax.checkpoint as ocp
import tensorboardX  # noqa: F401

from bert_jax import evaluate, metrics, run_directory, steps as steps_lib, train  # noqa: F401
from bert_jax.convert import exchange  # noqa: F401
from input_pipeline.prepare import corpus  # noqa: F401
from launch import cli
from launch.commands import pretraining, training, using  # noqa: F401
from tests import buckets, compiling, synthetic

SECONDS = 300.0  # a limit for a machine with much else to do
FORKS = multiprocessing.get_context('forkserver')
FORKS.set_forkserver_preload(['tests.children', 'tests.troubles'])
gc.freeze()  # what is imported by now: a child, which lives for seconds, need not look through it for cycles


def run(argv: Sequence[str], out: str, environ: Mapping[str, str], cwd: str,
        prepare: Callable[[], None] | None) -> None:
  """What a child does: `bert-jax` of these arguments, or only `prepare`; it ends as the interpreter would."""
  os.environ.update({'XLA_FLAGS': compiling.FLAGS} | dict(environ))
  os.chdir(cwd)
  for descriptor in (1, 2):
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
  sys.stdout, sys.stderr = (os.fdopen(descriptor, 'w', buffering=1, closefd=False) for descriptor in (1, 2))
  code: object = 0
  train.train = functools.partial(train.train, engine='threads')  # tf.data takes seconds to begin
  try:
    if prepare is not None:
      prepare()
    if argv:
      sys.argv = ['bert-jax', *argv]
      cli.main()
  except SystemExit as end:
    code = end.code or 0
  except BaseException as error:
    sys.excepthook(type(error), error, error.__traceback__)
    code = 1
  threading._shutdown()
  atexit._run_exitfuncs()
  sys.stdout.flush()
  os._exit(int(str(code)))


class Child:
  """One process; as a context manager it is ended at the end of the block, if it still runs.

  `prepare` is called in it before the command: a function of a module, or a functools.partial of one.
  """

  def __init__(self, out: pathlib.Path, *argv: object, prepare: Callable[[], None] | None = None,
               cwd: pathlib.Path | None = None, **environ: str):
    self.out = pathlib.Path(out)
    self.begin = time.monotonic()
    self.process = FORKS.Process(target=run, args=([str(part) for part in argv], str(out), environ,
                                                   str(cwd or out.parent), prepare))
    self.process.start()

  @property
  def said(self) -> str:
    return self.out.read_text(errors='replace') if self.out.exists() else ''

  @property
  def alive(self) -> bool:
    return self.process.is_alive()

  def tell(self, number: int) -> bool:
    """Sends a signal; whether there was a process to take it."""
    if alive := self.alive:
      os.kill(self.process.pid, number)
    return alive

  def kill(self) -> bool:
    return self.tell(signal.SIGKILL)

  def until(self, condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Waits for something that happens while the child runs."""
    end = time.monotonic() + seconds
    while not condition():
      assert self.alive, f'it ended with {self.process.exitcode}:\n{self.said[-2000:]}'
      assert time.monotonic() < end, f'it waits for {condition}:\n{self.said[-2000:]}'
      time.sleep(0.01)

  def end(self, seconds: float = SECONDS) -> int:
    """Waits for its end; its exit code, negative of a signal. One that hangs fails the test."""
    self.process.join(seconds)
    assert not self.alive, f'it hangs:\n{self.said[-2000:]}'
    return self.process.exitcode

  def __enter__(self) -> 'Child':
    return self

  def __exit__(self, *_) -> None:
    self.kill()
    self.process.join()


# ---------------------------------------------------------------- a small run, and what it left

VOCABULARY, LENGTH = 40, 16
SMALL = ('--model.vocab-size 40 --model.hidden-size 8 --model.layers 1 --model.heads 2 --model.intermediate-size 16 '
         '--model.max-positions 16 --model.dtype float32 --long.share 0 --batch.size 8 --batch.sequence-length 16 '
         '--batch.predictions 3 --optimizer.warmup-steps 1 --run.log-every 1').split()

EVERY_STEP = ['--run.checkpoint-every', 1, '--run.keep-checkpoints', 999]


def write_data(folder: pathlib.Path) -> None:
  """FOLDER/data, for runs by `pretrain`."""
  synthetic.write_data(folder / 'data', vocabulary_size=VOCABULARY, pieces=100, documents=20, sequence_length=LENGTH,
                       splits=('train', 'validation'))


def pretrain(data: pathlib.Path, run: pathlib.Path, steps: int, every: int, *more: object) -> list[object]:
  """The command of a run in one process, or with `of_two` of several."""
  alone = () if '--distributed.process-id' in more else ('--distributed.no-auto',)
  return ['pretrain', 'tiny', '--data', data, '--run-dir', run, *SMALL, '--run.steps', steps, '--run.checkpoint-every',
          every, *alone, *more]


def of_two(number: int, port: int, heartbeat: int) -> list[object]:
  return ['--distributed.coordinator', f'127.0.0.1:{port}', '--distributed.processes', 2, '--distributed.process-id',
          number, '--distributed.heartbeat-seconds', heartbeat, '--mesh.data', 2]


def saved(run: pathlib.Path) -> list[int]:
  """The steps that were saved whole, by their manifests."""
  if not (run / run_directory.CONFIG).exists():
    return []
  return [step.number for step in steps_lib.look(run, run_directory.fingerprints(run)) if step.usable]


def digest(run: pathlib.Path, step: int | None = None) -> str:
  """Of every array of a step, which is sound; by default of the newest."""
  rejected: list[steps_lib.Step] = []
  found = [one for one in steps_lib.look(run, run_directory.fingerprints(run)) if step in (None, one.number)]
  chosen = next(steps_lib.sound(found, rejected), None)
  assert chosen is not None and not rejected, rejected
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    there = reader.metadata(chosen.directory / steps_lib.STATE).item_metadata.tree
    plain = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), there)
    tree = reader.restore(chosen.directory / steps_lib.STATE, args=ocp.args.PyTreeRestore(restore_args=plain))
  hashed = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.asarray(leaf)
    hashed.update(f'{path} {array.dtype} {array.shape}'.encode() + array.tobytes())
  return hashed.hexdigest()


def log(run: pathlib.Path) -> list[dict]:
  """The lines of a run's log, without what a clock says."""
  return [{name: value for name, value in line.items() if name not in buckets.TIMED} for line in metrics.read(run)]


def as_far_as_it_went(run: pathlib.Path, straight: pathlib.Path) -> bool:
  """Whether the newest step of a run, and its log up to there, are those of one that nobody disturbed: less held-out
  figures of that step, for which a signal leaves no time."""
  step = saved(run)[-1]
  found, wanted = ([line for line in log(path) if line['step'] <= step] for path in (run, straight))
  due = [line for line in wanted if (line['kind'], line['step']) != (metrics.VALIDATION, step)]
  return digest(run, step) == digest(straight, step) and found in (wanted, due)

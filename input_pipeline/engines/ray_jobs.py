"""Jobs on Ray: what stands after --, a process of its own that is connected to the cluster, what is told of a failure.

Ray's libraries print what they like, and may end the process that they are in. So the driver is a process beside this
one, whose words go to a file; it ends when this one does, however that is, and its tasks with it.
"""

import argparse
import contextlib
import difflib
import importlib.util
import json
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import socket
import threading
import traceback
from collections.abc import Callable
from typing import Any

import input_pipeline
from input_pipeline import records, storage
from input_pipeline.engines import bars, failures
from input_pipeline.errors import EngineError
from input_pipeline.text import files

PATIENCE = 15  # seconds without an answer, after which it is said what is waited for
_CONNECT = 10  # seconds in which somebody must answer at the address
_LEAVE = 20  # seconds in which the driver must have ended its tasks and itself
_BRING = 'a container image with it, or --runtime_env'
_HUGE_PAGES = 'GLIBC_TUNABLES', 'glibc.malloc.hugetlb=1'  # by which workers are a tenth faster
_LONGEST = 300  # characters of Ray's own words in a sentence
_OF_A_NEW_ONE = 'num_cpus', 'object_store_memory'


def _environment(text: str) -> dict:
  """A runtime_env, as JSON, or as a file of JSON or YAML. Raises DataError."""
  try:
    if text.lstrip().startswith('{'):
      found = json.loads(text)
    else:
      from ray.dashboard.modules import dashboard_sdk  # whose YAML runs nothing, and of which JSON is a part
      with storage.named_errors(f'after --: --runtime_env {text}'):
        found = dashboard_sdk.parse_runtime_env_args(runtime_env=str(storage.local(text)))
  except (records.DataError, ImportError):
    raise
  except Exception as error:  # of a library that is Ray's, not ours
    raise records.DataError(f'after --: --runtime_env {text}: {" ".join(str(error).split())}: wanted JSON, or a file '
                            'of JSON or YAML') from error
  if not isinstance(found, dict):
    raise records.DataError(f'after --: --runtime_env {text} holds no fields: wanted such as {{"py_modules": ["DIR"]}}')
  return found


# What may stand after --, by the names that ray.init has. {name: (what makes a value of it, what it is)}
FLAGS: dict[str, tuple[Callable[[str], Any], str]] = {
    'address': (str, 'auto, ray://HOST:PORT, HOST:PORT of a cluster that this machine is part of, or local'),
    'namespace': (str, 'of the job'),
    'runtime_env': (_environment, 'JSON, or a file of JSON or YAML'),
    'num_cpus': (int, 'of a cluster that is started here'),
    'object_store_memory': (int, 'bytes, of a cluster that is started here'),
    '_temp_dir': (lambda text: str(storage.absolute(text)), 'folder of Ray on this machine'),
    '_node_ip_address': (str, 'of this machine')}


class _Parser(argparse.ArgumentParser):
  """One that raises what is wrong, rather than to end the process."""

  def error(self, message: str):
    raise records.DataError(f'after --: {message}: wanted flags of ray.init ({_known()})')


def _known() -> str:
  return ', '.join(f'--{name}' for name in FLAGS)


def options(arguments: tuple[str, ...]) -> dict[str, Any]:
  """What ray.init is called with, of what stands after --. Raises DataError."""
  if not importlib.util.find_spec('ray'):
    raise records.DataError("--engine ray needs Ray, which is not installed here: pip install 'bert_jax[ray]'")
  parser = _Parser(allow_abbrev=False, add_help=False)
  for name in FLAGS:
    parser.add_argument(f'--{name}')
  known, unknown = parser.parse_known_args(list(arguments))
  if unknown:
    word, flag = unknown[0], unknown[0].partition('=')[0]
    if not word.startswith('-'):
      raise records.DataError(f'after --: {word} is no flag, and belongs to none: wanted some of {_known()}')
    close = difflib.get_close_matches(flag, [f'--{name}' for name in FLAGS], 1)
    raise records.DataError(f'after --: --engine ray has no flag {flag}; '
                            f'{f"did you mean {close[0]}? " if close else ""}wanted some of {_known()}')
  made = {}
  for name, text in vars(known).items():
    if text is not None:
      try:
        made[name] = FLAGS[name][0](text)
      except ValueError as error:
        if isinstance(error, records.DataError):
          raise
        raise records.DataError(f'after --: --{name} {text}: wanted a number') from error
      if made[name] == '' or isinstance(made[name], int) and made[name] < 1:
        raise records.DataError(f'after --: --{name} {text}: wanted {"a number from 1" if text else "a value"}')
  if made.get('address') not in (None, 'local'):
    for name in _OF_A_NEW_ONE:
      if name in made:
        raise records.DataError(f'after --: --{name} is of a cluster that is started here, and --address names one '
                                'that runs: leave one of them out')
  return made


def is_by_proxy() -> bool:
  """Whether this process reaches the cluster by its server for clients, as under ray://."""
  from ray.util.client import ray as client
  return client.is_connected()


def run(work: Callable, options: dict[str, Any], progress: bool, *arguments) -> Any:
  """What work(tell, *arguments) gives in a process that is connected to Ray. tell(stage, done, total, documents).

  Raises what it raised, where that is an expected error; else EngineError, which names the file with all that was told.
  """
  _look_for(options.get('address') or os.environ.get('RAY_ADDRESS'))
  with failures.log_file('ray') as log:
    context = multiprocessing.get_context('spawn')
    ours, theirs = context.Pipe()
    driver = context.Process(target=_connected, args=(theirs, log, options, work, arguments), daemon=True)
    driver.start()
    theirs.close()
    try:
      kind, what = _listen(ours, progress)
    except EOFError:
      driver.join(_LEAVE)
      raise failures.with_log(EngineError(
          f'--engine ray: the process that was connected to the cluster ended with {driver.exitcode}, as where the '
          'head of the cluster is lost'), log) from None
    finally:
      ours.close()
      driver.join(_LEAVE)
      if driver.is_alive():
        driver.kill()
        driver.join()
    if kind == 'failed':
      raise failures.with_log(what, log)
  if kind == 'refused':  # by what is known here: no machinery has more to say
    raise what
  return what


def _look_for(address: str | None) -> None:
  """Raises EngineError where nobody listens at HOST:PORT: Ray itself would wait for a minute, or end the process."""
  found = re.fullmatch(r'(?:ray://)?\[?([^/\]]+?)\]?:(\d+)/?', address or '')
  if not found:
    return
  try:
    socket.create_connection((found[1], int(found[2])), _CONNECT).close()
  except (OSError, OverflowError) as error:
    raise EngineError(f'--engine ray: no cluster answers at {address} ({error}): start it, or name another --address'
                      ) from error


def _listen(pipe: multiprocessing.connection.Connection, progress: bool) -> tuple[str, Any]:
  """Shows how far the driver has come, until its last words. Raises EOFError where it ended without any."""
  shown: dict = {}
  with contextlib.ExitStack() as opened:
    while True:
      kind, what = pipe.recv()
      if kind != 'told':
        return kind, what
      stage, done, total, documents = what
      if stage and total == 0:
        files.tell(f'--engine ray {stage}')
      elif stage:
        if stage not in shown:
          unit = bars.TEXT if documents is not None else bars.SHARDS
          shown[stage] = opened.enter_context(bars.bar(stage, unit, total, progress))
        if documents:
          shown[stage].set_postfix(documents=documents, refresh=False)
        shown[stage].update(done - shown[stage].n)

# ---------------------------------------------------------------- the process that is connected


def _connected(pipe: multiprocessing.connection.Connection, log: str, options: dict[str, Any], work: Callable,
               arguments: tuple) -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process above gets it too, and ends this one
  file = os.open(log, os.O_WRONLY | os.O_APPEND)
  for descriptor in (1, 2):
    os.dup2(file, descriptor)
  threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
  try:
    last = 'done', _with_ray(pipe, options, work, arguments)
  except BaseException as error:
    traceback.print_exc()
    last = _of_error(error)
  pipe.send(last)


def _with_ray(pipe: multiprocessing.connection.Connection, options: dict[str, Any], work: Callable,
              arguments: tuple) -> Any:
  import ray
  tell = lambda stage, done, total, documents=None: pipe.send(('told', (stage, done, total, documents)))
  house = os.path.dirname(input_pipeline.__file__)
  if 'runtime_env' not in options:
    options = options | {'runtime_env': {'py_modules': [house], 'env_vars': dict([_HUGE_PAGES])}}
    os.chdir(os.path.dirname(house))  # where workers of this machine look first, and here may be another project
  with contextlib.ExitStack() as opened:
    ray.init(**options)
    opened.callback(ray.shutdown)
    return work(tell, *arguments)


def _end_with(pipe: multiprocessing.connection.Connection) -> None:
  """Ends this process when the one above is gone, or wants no more of it."""
  with contextlib.suppress(EOFError, OSError):
    pipe.recv()
  os._exit(1)


def _of_error(error: BaseException) -> tuple[str, Exception]:
  import ray.exceptions
  if type(error) in failures.EXPECTED.values() and not isinstance(error, ray.exceptions.RayError):
    return 'refused', error
  cause: Any = getattr(error, 'cause', None)  # what a worker raised
  if type(cause) in failures.EXPECTED.values():
    return 'failed', type(cause)(*cause.args)
  if isinstance(cause, OSError) and cause.errno is not None:
    return 'failed', OSError(cause.errno, cause.strerror)
  said = f'{type(error).__name__}: {error}'
  if other := re.search(r'(Version mismatch|versions differ).*', said, re.DOTALL):
    return 'failed', records.DataError(f'--engine ray: {" ".join(other[0].split())[:_LONGEST]}: wanted the same '
                                       'versions of Python and Ray here as in the cluster')
  return 'failed', failures.explained(said, 'ray', _BRING)

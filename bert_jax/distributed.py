"""Several processes as one run: starting them, agreeing on what they do, and ending together.

Every device program of a pod is one that all processes run together, so a process that does something else, or nothing,
stops all. Three things follow, and jax 0.10 to 0.12 has an answer only to the first:

* They must stop after the same step: `asked_to_stop` (JAX's preemption service agrees on the step).
* They must decide alike what is decided by a clock or a file: process 0 decides and tells the others through JAX's
  key-value service (`process_0_says`, `in_turn`, `agree`). Not through the devices: while a step runs, two device
  programs could each wait for the other.
* If one dies of an error, the others wait for it in their next device program until the heartbeat's timeout. So it
  first writes a sentence under the key FAILURE, which a thread of each process looks for (`leave`, `watch_others`).
"""

import atexit
import contextlib
import hashlib
import ipaddress
import itertools
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax._src import distributed as jax_distributed  # the service's keys have no public door; Orbax takes this one too
from jax.experimental import multihost_utils

from bert_jax import config as cfg
from bert_jax.errors import FINAL, PeerError

FAILED = PeerError.exit_code  # an error, or the others were not found: a launcher starts the run again
POLL_SECONDS = 1  # between looks whether another process has failed
GRACE_SECONDS = 2  # from hearing of an error to ending: one that all have is told by all, with its own exit code
LONGEST_ANSWER_MS = 3_600_000  # process 0 may be at its checkpoints; if it is lost, the heartbeat tells
ANSWERS = itertools.count()  # numbers what process 0 decides: every process counts alike, as all ask in the same order
BIND = 'JAX_COORDINATOR_BIND_ADDRESS'  # the variable by which JAX is told where to listen
FAILURE = 'bert_jax/failure'  # the key under which a process tells that it failed


# ---------------------------------------------------------------- start and end


def start(settings: cfg.Distributed) -> None:
  """Joins this process to the others of its run; returns at once where there are none.

  Raises ConfigError where what was given is not enough. A start that fails ends the process with a sentence and exit
  code 13. Call it before anything touches a device.
  """
  nothing_given = settings.coordinator is None and settings.processes is None and settings.process_id is None
  if nothing_given and not settings.auto:
    return
  if settings.process_id == 0 and settings.coordinator:
    check_port(settings.coordinator)
  with deadline(settings):
    try:
      initialize(settings)
      processes = jax.process_count()  # they meet once more, to tell each other of their devices
    except ValueError as error:
      if 'should be defined' not in str(error) and 'must be defined' not in str(error):
        fail(f'the processes of this run could not be found out: {error}')
      cfg.require(nothing_given, 'there is no SLURM, GKE or Cloud TPU here to ask for the rest: all of '
                                 '--distributed.coordinator, --distributed.processes and --distributed.process-id are '
                                 f'needed ({error})')
      return
    except Exception as error:
      if nothing_given and 'must be called before any JAX' in str(error):
        return  # a second command in a process that has computed already, alone
      fail(f'the processes of this run could not meet at {settings.coordinator or "the coordinator"}: '
           f'{type(error).__name__}: {error}')
  if processes > 1:
    sys.excepthook = end_at_once
    watch_others()
  if jax.process_index() == 0:
    warn_if_open(settings)
    print(f'{processes} processes, {jax.device_count()} devices', file=sys.stderr, flush=True)


def initialize(settings: cfg.Distributed) -> None:
  given = settings.coordinator, settings.processes, settings.process_id
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')  # without it CPUs have none between processes
  jax.distributed.initialize(
      *given, cluster_detection_method='deactivate' if None not in given else None,
      initialization_timeout=settings.initialization_seconds + 60,  # JAX's own, at whose end it aborts without a reason
      heartbeat_timeout_seconds=settings.heartbeat_seconds, shutdown_timeout_seconds=settings.shutdown_seconds,
      coordinator_bind_address=bind_address(settings.coordinator))


@contextlib.contextmanager
def deadline(settings: cfg.Distributed):
  """Ends the process where the others are not met in time."""
  timer = threading.Timer(settings.initialization_seconds, fail, [
      f'{settings.processes or "the"} processes did not all meet at {settings.coordinator or "the coordinator"} within '
      f'{settings.initialization_seconds} s: see that each was started, that its network reaches the coordinator, and '
      'that distributed.processes is right; or raise --distributed.initialization-seconds'])
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def bind_address(coordinator: str | None) -> str | None:
  """Where process 0 listens: at the address by which the others come, if that is a number and of this machine; else,
  None, on every interface. A name may be another address to others."""
  host = (coordinator or '').rpartition(':')[0].strip('[]')
  if host == 'localhost':
    return coordinator
  try:
    address = ipaddress.ip_address(host)
  except ValueError:
    return None
  return coordinator if not address.is_unspecified and (address.is_loopback or is_here(address)) else None


def is_here(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
  """Whether it is one of this machine."""
  with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as probe:
    try:
      probe.bind((str(address), 0))
      return True
    except OSError:
      return False


def warn_if_open(settings: cfg.Distributed) -> None:
  """Says so where process 0 listens on every interface: whoever reaches the port can end the run."""
  if bind_address(settings.coordinator) is None and not os.environ.get(BIND):
    print('bert-jax: process 0 listens on every interface of its machine, and whoever reaches the port can end the '
          f'run: keep it within a network of your own, or name the address in --distributed.coordinator or {BIND}',
          file=sys.stderr, flush=True)


def check_port(coordinator: str) -> None:
  """Raises ConfigError where the port is taken: JAX would crash without saying so."""
  port = int(coordinator.rpartition(':')[2])
  address = (bind_address(coordinator) or '').rpartition(':')[0].strip('[]')
  family = socket.AF_INET if not address or '.' in address or address == 'localhost' else socket.AF_INET6
  with socket.socket(family) as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that has just been let go is free
    try:
      probe.bind((address, port))
    except OSError as error:
      raise cfg.ConfigError(
          f'port {port} of --distributed.coordinator {coordinator} is not to be had: {error.strerror}') from error


def fail(sentence: str, code: int = FAILED) -> None:
  print(f'bert-jax: {sentence}', file=sys.stderr, flush=True)
  os._exit(code)


def key_value_service() -> Any:
  """JAX's own service between the processes of a run, which process 0 keeps."""
  return jax_distributed.global_state.client


def told(key: str) -> str | None:
  """What stands under a key of the service; None where nothing does, or where there is no service any more, and JAX
  ends the process."""
  try:
    return key_value_service().key_value_try_get(key)
  except Exception:
    return None


def leave(code: int) -> None:
  """Ends this process at once if the run has others.

  They would wait for it in their next collective, and it for them in its shutdown.
  """
  if jax.distributed.is_initialized() and jax.process_count() > 1:
    sentence, service = f'process {jax.process_index()} ended with exit code {code}', key_value_service()
    tell = threading.Thread(target=lambda: service.key_value_set(FAILURE, sentence, allow_overwrite=True), daemon=True)
    tell.start()
    tell.join(GRACE_SECONDS)
    if jax.process_index() == 0:  # whose end is everyone's
      time.sleep(2 * GRACE_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def watch_others() -> None:
  """Ends this process soon after another failed, and not only at the heartbeat's timeout, as a collective would.

  With its exit code where that is of what comes again, so that nobody starts this one again for nothing.
  """
  stop, first = threading.Event(), jax.process_index() == 0

  def watch():
    while not stop.wait(POLL_SECONDS):
      if (sentence := told(FAILURE)) is None:
        continue
      if not stop.wait(2 * GRACE_SECONDS if first else GRACE_SECONDS):
        code = int(sentence.rpartition(' ')[2])
        fail(f'{sentence}: its own output says why; this one ends with it', code if code in FINAL else FAILED)

  thread = threading.Thread(target=watch, name='others', daemon=True)
  thread.start()

  def end() -> None:
    stop.set()
    thread.join(POLL_SECONDS)

  atexit.register(end)  # before JAX shuts its service down


def end_at_once(kind, error, trace) -> None:
  """sys.excepthook of one process of several."""
  print(f'process {jax.process_index()} of {jax.process_count()} failed:', file=sys.stderr)
  traceback.print_exception(kind, error, trace)
  leave(FAILED)

# ---------------------------------------------------------------- agreement


def asked_to_stop(call: int) -> bool:
  """Whether a process of several was sent SIGTERM: true for all of them at the same `call`, and only at that one.

  Every process must ask once a step, with running numbers from 1. A signal before the first call is told by the first.
  """
  return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(call)


class Meeting:
  """Where the threads of one background task of all processes wait for each other, so that all end alike.

  An error of one is everyone's: who has one comes to where the others wait, and releases them. Every process makes its
  meetings in the same order, and calls `meet` equally often.
  """

  def __init__(self, number: int):
    self.name, self.passed, self.over = f'bert_jax/meeting/{number}', 0, False

  def meet(self, seconds: float) -> None:
    """Waits for all. Raises PeerError where one of them failed."""
    if jax.process_count() > 1:
      self._wait(seconds)
      failures = key_value_service().key_value_dir_get(f'{self.name}/failed/')
      if failures:
        self.over = True
        raise PeerError('; '.join(sorted(sentence for _, sentence in failures)))

  def fail(self, error: BaseException, seconds: float) -> None:
    """Tells the others, where it was not another's error, and waits until they have heard of it."""
    if jax.process_count() > 1 and not self.over:
      process = jax.process_index()
      key_value_service().key_value_set(f'{self.name}/failed/{process}', f'process {process} failed: '
                                        f'{str(error).partition(chr(10))[0]}')
      self._wait(seconds)
      self.over = True

  def _wait(self, seconds: float) -> None:
    self.passed += 1
    key_value_service().wait_at_barrier(f'{self.name}/{self.passed}', int(1000 * seconds))


def is_first() -> bool:
  """Whether this is process 0, which prints and writes for all."""
  return jax.process_index() == 0


def process_0_says(answer: bool) -> bool:
  """The answer of process 0, for all; every process must ask, in the same order.

  It goes by the service and not by the devices: while a step runs, two programs of collectives can wait for each other.
  """
  return bool(process_0_tells(int(answer)))


def process_0_tells(number: int) -> int:
  """The same for a number."""
  if jax.process_count() == 1:
    return number
  key, service = f'bert_jax/answer/{next(ANSWERS)}', key_value_service()
  if jax.process_index() == 0:
    service.key_value_set(key, str(number))
    return number
  return int(service.blocking_key_value_get(key, LONGEST_ANSWER_MS))


def any_says(answer: bool) -> bool:
  """Whether any process says so; every process must ask, in the same order."""
  if jax.process_count() == 1:
    return answer
  key, service = f'bert_jax/answer/{next(ANSWERS)}', key_value_service()
  service.key_value_set(f'{key}/{jax.process_index()}', str(int(answer)))
  return any(int(service.blocking_key_value_get(f'{key}/{process}', LONGEST_ANSWER_MS))
             for process in range(jax.process_count()))


def in_turn(action: Callable):
  """Runs `action` on process 0, then on the others, which see what it wrote. Returns its result.

  An error of process 0 is everyone's.
  """
  result, error, first = None, None, jax.process_index() == 0
  if first:
    try:
      result = action()
    except Exception as caught:
      error = caught
  done = process_0_says(error is None)
  if error:
    raise error
  if not first:
    result = action()
  if not done:
    raise PeerError('process 0 failed where this process did not: its own output says why')
  return result


def agree(items: dict[str, object]) -> None:
  """Raises ConfigError, on every process, that names the items whose values differ between processes."""
  if jax.process_count() == 1:
    return
  for part in ({'the version of bert_jax': tuple(items)}, items):  # names first: else the arrays would not fit
    hashes = [hashlib.sha256(repr(value).encode()).digest() for value in part.values()]
    digests = np.stack([np.frombuffer(digest, np.uint8) for digest in hashes])
    everyone = multihost_utils.process_allgather(digests)  # [processes, items, 32]
    same = (everyone == everyone[0]).all((0, 2))
    differs = [f'{name} (here {value!s:.60})' for (name, value), agreed in zip(part.items(), same) if not agreed]
    cfg.require(not differs, f'process {jax.process_index()}: the processes of this run do not agree on '
                f'{", ".join(differs)}: start each with the same command, on the same data')

"""A SIGTERM to one of several processes, while all of them compile, or have not begun: all end at once.

The loop asks after each step, so that all stop at the same one (distributed.asked_to_stop). A compilation, or what
comes before the first step, can take minutes in which nobody asks. So a thread of each process looks whether a signal
came to any of them. Then it holds its own main thread where that rests, and says at which step; process 0 sees whether
all rest at the same, and decides for all. If so, they save that step, or only end where nothing is new. If not, all go
on, and it is tried again: in the end either all rest, or the loop has asked.
"""

import atexit
import functools
import itertools
import threading
import time

import jax

from bert_jax import distributed, early_stop

NOTICE = 'RECEIVED_PREEMPTION_NOTICE'  # under this key JAX's service keeps that a process was sent SIGTERM
OFFER, DECISION, GONE = 'bert_jax/offer', 'bert_jax/decision', 'bert_jax/gone'
POLL_SECONDS = 0.5
GATHER_SECONDS = 1.0  # that process 0 waits for the others to rest
PAUSE_SECONDS = 0.2  # between two tries, in which the main thread may go on
GONE_SECONDS = 10.0  # that process 0, which keeps the service, stays for the others
EXIT_SECONDS = 0.5  # from the last words of a process to its end

_over = threading.Event()  # this process ends: a thread that is in the service then would abort it


def begin() -> None:
  """Call it once all processes have met; nothing is done for one that is alone."""
  if jax.process_count() > 1:
    watch = threading.Thread(target=_watch, name='stop together', daemon=True)
    watch.start()
    atexit.register(_end, watch)


def _end(watch: threading.Thread) -> None:
  _over.set()
  watch.join(GONE_SECONDS / 2)


def _watch() -> None:
  while not _over.wait(POLL_SECONDS) and not distributed.told(NOTICE):
    pass
  try:
    for number in itertools.count():
      if _over.wait(PAUSE_SECONDS if number else 0):
        return
      if not early_stop.leave_if(functools.partial(_agreed, number), _say_farewell):
        _agreed(number, None)
  except Exception:  # the service is gone, and the run with it
    return


def _agreed(number: int, step: int | None) -> bool:
  """Whether all processes rest at this step; None: this one does not rest."""
  service, key = distributed.key_value_service(), f'{DECISION}/{number}'
  if jax.process_index() == 0:
    good = step is not None and _all_offer(number, step)
    service.key_value_set(key, str(int(good)))
    return good
  if step is not None:
    service.key_value_set(f'{OFFER}/{number}/{jax.process_index()}', str(step))
  deadline = time.monotonic() + distributed.LONGEST_ANSWER_MS / 1000
  while (decided := distributed.told(key)) is None and time.monotonic() < deadline:
    if _over.wait(POLL_SECONDS / 10):
      return False
  return decided == '1'


def _all_offer(number: int, step: int) -> bool:
  deadline, offers = time.monotonic() + GATHER_SECONDS, list[tuple[str, str]]()
  while len(offers) < jax.process_count() - 1 and time.monotonic() < deadline and not _over.wait(GATHER_SECONDS / 20):
    offers = distributed.key_value_service().key_value_dir_get(f'{OFFER}/{number}/')
  return len(offers) == jax.process_count() - 1 and all(offer == str(step) for _, offer in offers)


def _say_farewell() -> None:
  """Process 0 stays until the others are gone: with its service they would be torn down."""
  service, deadline = distributed.key_value_service(), time.monotonic() + GONE_SECONDS
  if jax.process_index():
    service.key_value_set(f'{GONE}/{jax.process_index()}', '')
    return
  while len(service.key_value_dir_get(f'{GONE}/')) < jax.process_count() - 1 and time.monotonic() < deadline:
    time.sleep(POLL_SECONDS / 10)
  time.sleep(EXIT_SECONDS)

"""Making batches ahead of the step that needs them: by tf.data, or by a plain thread where there is no TensorFlow.

An engine is given a function from a step to its batch, the first step, and the step after the last.
"""

import atexit
import importlib.util
import queue
import threading
import weakref
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Literal

import numpy as np

from input_pipeline.batches.checks import require

AHEAD = 4  # batches
WORKERS = 2  # batches that are made at once
RAM_BUDGET = 2**30  # bytes that tf.data may hold
ENDLESS = 2**62  # the step after the last, where there is no last
PATIENCE = 0.1  # seconds after which a thread that waits looks whether it should end
AUTO = 'auto'  # tf.data where there is TensorFlow, else threads

Batch = dict[str, np.ndarray]
# An iterator that is still open when the interpreter ends would hang it: TensorFlow's threads call Python.
_open = weakref.WeakSet()


@atexit.register
def _close() -> None:
  for batches in list(_open):
    batches.close()


def ahead(make: Callable[[int], Batch], first_step: int, last_step: int | None,
          engine: str = AUTO) -> Generator[Batch, None, None]:
  """make(first_step), make(first_step + 1) …, the same by each engine. Errors of `make` come out as they are."""
  require(engine in (AUTO, *ENGINES), f'engine is {engine!r}; wanted one of {", ".join((AUTO, *ENGINES))}')
  if engine == AUTO:
    engine = 'tf.data' if importlib.util.find_spec('tensorflow') else 'threads'
  batches = ENGINES[engine](make, first_step, ENDLESS if last_step is None else last_step)
  _open.add(batches)
  return batches


def by_tf_data(make: Callable[[int], Batch], first: int, last: int) -> Generator[Batch, None, None]:
  if first >= last:
    return
  import tensorflow as tf
  try:
    tf.config.set_visible_devices([], 'GPU')  # the accelerator is JAX's
  except RuntimeError:
    pass  # TensorFlow has started already
  example = make(first)
  ends = np.cumsum([array.size for array in example.values()])
  failed = []  # errors of `make`, which TensorFlow would wrap into its own

  def build(step):
    try:
      return np.concatenate([array.reshape(-1).view(np.int32) for array in make(int(step)).values()])
    except BaseException as error:
      failed.append(error)
      raise

  def element(step):  # all arrays of a batch in one tensor: TensorFlow's cost is by the tensor
    return tf.ensure_shape(tf.numpy_function(build, [step], tf.int32, stateful=False), ends[-1:])

  options = tf.data.Options()
  options.deterministic = True
  options.autotune.enabled = False
  options.autotune.ram_budget = RAM_BUDGET
  options.threading.private_threadpool_size = WORKERS + 1
  dataset = tf.data.Dataset.range(first, last).map(element, num_parallel_calls=WORKERS)
  dataset = dataset.prefetch(AHEAD).with_options(options)
  try:
    for joined in dataset.as_numpy_iterator():
      parts = np.split(joined, ends[:-1])
      yield {name: part.view(array.dtype).reshape(array.shape) for part, (name, array) in zip(parts, example.items())}
  except tf.errors.OpError as error:
    raise (failed[0] if failed else error) from None


def by_thread(make: Callable[[int], Batch], first: int, last: int) -> Generator[Batch, None, None]:
  ready, stop = queue.Queue(AHEAD), threading.Event()

  def put(item) -> None:
    while not stop.is_set():
      try:
        return ready.put(item, timeout=PATIENCE)
      except queue.Full:
        pass

  def work() -> None:
    try:
      for step in range(first, last):
        if stop.is_set():
          return
        put(make(step))
      put(None)
    except BaseException as error:
      put(error)

  thread = threading.Thread(target=work, name='batches', daemon=True)
  thread.start()
  try:
    while (item := ready.get()) is not None:
      if isinstance(item, BaseException):
        raise item
      yield item
  finally:
    stop.set()
    thread.join()


def on_demand(make: Callable[[int], Batch], first: int, last: int) -> Generator[Batch, None, None]:
  """Not ahead, but each in this thread when it is asked for: what one core can do."""
  yield from map(make, range(first, last))


ENGINES = {'tf.data': by_tf_data, 'threads': by_thread, 'none': on_demand}
if TYPE_CHECKING:
  Engine = str
else:
  Engine = Literal[*ENGINES]

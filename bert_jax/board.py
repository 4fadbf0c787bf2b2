"""Scalars for TensorBoard."""

import contextlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Board:
  """Scalars for TensorBoard, where tensorboardX is installed. Never in the way of a run: what fails is told once.

  Its own SummaryWriter hands events to a thread by a queue of ten, which waits for ever once a full disk ended the
  thread. Here each event is written where it is made.
  """

  def __init__(self, directory: str, step: int | None, suffix: str = ''):
    """A new file in a local folder, its name with `suffix`, with what is written first. Steps after `step`, of a run
    that was cut off, count no more."""
    self._events: Any = None
    self._directory, self._step, self._suffix = directory, step, suffix
    self._open: Callable[[], None] | None = self._begin
    if importlib.util.find_spec('tensorboardX') is None:
      print('bert-jax: tensorboardX is not installed: scalars go only to metrics.jsonl', file=sys.stderr)
      self._open = None

  def _begin(self) -> None:
    # Not before there is something to write: where torch is installed, tensorboardX imports it, which takes seconds.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2
    self._event = event_pb2.Event
    os.makedirs(self._directory, exist_ok=True)
    self._events = EventsWriter(os.path.join(self._directory, 'events'), f'.{os.getpid()}{self._suffix}')
    if self._step is not None:
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.SessionStatus.START)
      self._events.write_event(self._event(wall_time=time.time(), step=self._step + 1, session_log=start))

  def write(self, step: int, kind: str, scalars: Mapping[str, float], at: float | None = None) -> None:
    """`at`: when they were measured, in seconds since 1970; now by default."""
    if self._open is not None:
      begin, self._open = self._open, None
      with self._once():
        begin()
    if self._events is not None:
      from tensorboardX import summary
      with self._once():
        for name, value in scalars.items():
          found = summary.scalar(f'{kind}/{name}', value)
          self._events.write_event(self._event(wall_time=at or time.time(), step=step, summary=found))
        self._events.flush()

  def close(self) -> None:
    if self._events is not None:
      with self._once():
        self._events.close()
    self._events = self._open = None

  @contextlib.contextmanager
  def _once(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # whatever it is, training goes on
      self._events = None
      print(f'bert-jax: TensorBoard\'s file cannot be written ({error}): training goes on without it', file=sys.stderr,
            flush=True)

"""The log of a run in a bucket: objects cannot be appended to, so lines go up in segments, from a thread of their own.

RUN/metrics/00000007-1f0c5a.jsonl holds some consecutive lines, and RUN/tensorboard the same as a file of events. Once a
minute the segment at hand is sent, again while it is small: what is sent grows with the lines. No step waits for it.
Lines that were not sent yet go into the next checkpoint, so that none is lost that comes before it. The end of a
segment's name is its writer's: one that was cut off and still writes, on another host, overwrites nothing.
"""

import json
import os
import pathlib
import re
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterable

from bert_jax import board, run_directory
from input_pipeline import storage

UPLOAD_SECONDS = 60.0  # between two uploads
SEGMENT_BYTES = 32 << 10  # a segment that is longer is not sent again
CLOSE_SECONDS = 120.0  # that the end of a run waits for its last lines


class ObjectLog:
  """Where a run in a bucket writes its lines. `kept`: those of before that perhaps no object holds."""

  def __init__(self, run_dir: storage.Path, step: int, kept: list[dict], upload_seconds: float = UPLOAD_SECONDS):
    self.directory, self.board_directory = run_dir / run_directory.SEGMENTS, run_dir / run_directory.BOARD
    self.step: int | None = step
    self.name = uuid.uuid4().hex[:6]
    self.upload_seconds, self.warned = upload_seconds, False
    self.lock, self.wake, self.closing = threading.Lock(), threading.Event(), False
    sent, self.number = _cut(self.directory, step, min((line['step'] for line in kept), default=step + 1))
    self.waiting = [line for line in kept if key(line) not in sent]  # lines that no object holds yet
    self.segment: list[dict] = []  # lines of the segment at hand that were sent
    self.folder = tempfile.TemporaryDirectory(prefix='bert_jax_board_')
    self.board: board.Board | None = None
    self.thread = threading.Thread(target=self._run, name='log', daemon=True)
    self.thread.start()

  def write(self, line: dict) -> None:
    """Takes a line; it is sent within a minute."""
    with self.lock:
      self.waiting.append(line)

  def unsent(self) -> list[dict]:
    """The lines that a checkpoint has to keep: no object holds them yet."""
    with self.lock:
      return list(self.waiting)

  def close(self) -> None:
    """Sends what is left, and waits for that."""
    self.closing = True
    self.wake.set()
    self.thread.join(CLOSE_SECONDS)
    if self.waiting:
      print(f'bert-jax: {len(self.waiting)} lines of the log did not reach {self.directory}', file=sys.stderr)
    if not self.thread.is_alive():
      self.folder.cleanup()

  def _run(self) -> None:
    while True:
      self.wake.wait(self.upload_seconds)
      last = self.closing
      with self.lock:
        lines = list(self.waiting)
      if lines:
        try:
          self._send(lines)
        except Exception as error:  # whatever it is, training goes on
          if not self.warned:  # later tries are not told again
            print(f'bert-jax: the log cannot be sent now: {error}; training goes on, and the lines wait',
                  file=sys.stderr, flush=True)
          self.warned = True
      if last:
        return

  def _send(self, lines: list[dict]) -> None:
    text = encode([*self.segment, *lines])
    storage.write_whole(self.directory / f'{self.number:08d}-{self.name}.jsonl', text)
    with self.lock:
      del self.waiting[:len(lines)]
    self.segment += lines
    self._show(lines)
    if len(text) > SEGMENT_BYTES:
      self.number += 1
      self.segment = []
      self._end_board()

  def _show(self, lines: list[dict]) -> None:
    """Adds lines to a file of events in a local folder, and sends that."""
    if self.board is None:  # the first file says which steps of a run that was cut off count no more
      self.board, self.step = board.Board(self.folder.name, self.step, f'.{self.number:08d}'), None
    for line in lines:
      values = {name: value for name, value in line.items() if name not in ('step', 'kind', 'time')}
      self.board.write(line['step'], line['kind'], values, line.get('time'))
    for file in pathlib.Path(self.folder.name).iterdir():
      storage.copy(file, self.board_directory / file.name)

  def _end_board(self) -> None:
    if self.board is not None:
      self.board.close()
      self.board = None
      for file in pathlib.Path(self.folder.name).iterdir():
        os.unlink(file)


def key(line: dict) -> tuple[int, str]:
  """What tells a line from all others of a run."""
  return line['step'], line['kind']


def encode(lines: Iterable[dict]) -> str:
  return ''.join(json.dumps(line) + '\n' for line in lines)


def decode(text: str) -> list[dict]:
  """Lines of JSON; one that was cut off is none, nor is one without a step and a kind."""
  return [found for line in text.split('\n') if (found := _line(line)) is not None]


def foreign(text: str) -> list[str]:
  """What is no line of a log, but for a last one that was cut off."""
  return [line for line in text.split('\n')[:-1] if line.strip() and _line(line) is None]


def _line(text: str) -> dict | None:
  try:
    found = json.loads(text)
  except (ValueError, RecursionError):
    return None
  right = isinstance(found, dict) and isinstance(found.get('step'), int) and isinstance(found.get('kind'), str)
  return found if right else None


def read(directory: storage.Path) -> list[dict]:
  """The lines of all segments, each once, in the order of their steps."""
  return merged(line for data in storage.read_all(storage.files_in(directory, '*.jsonl'))
                for line in decode(data.decode(errors='surrogateescape')))


def merged(lines: Iterable[dict]) -> list[dict]:
  """Each line once, the last that was written, in the order of steps."""
  return sorted({key(line): line for line in lines}.values(), key=lambda line: line['step'])


def _cut(directory: storage.Path, step: int, first: int) -> tuple[set[tuple[int, str]], int]:
  """Drops the lines after `step`, of a run that was cut off; gives the keys of those from `first` on, at least, and
  the next segment's number. Steps grow from segment to segment, so it begins at the end and reads few."""
  files, sent = storage.files_in(directory, '*.jsonl'), set()
  for file in reversed(files):
    lines = decode(file.read_bytes().decode(errors='surrogateescape'))
    kept = [line for line in lines if line['step'] <= step]
    sent |= set(map(key, kept))
    if len(kept) < len(lines):
      if kept:
        storage.write_whole(file, encode(kept))
      else:
        file.unlink(missing_ok=True)
    elif kept and kept[0]['step'] < first:
      break
  numbers = [int(found[1]) for file in files if (found := re.match(r'(\d+)[-.]', file.name))]
  return sent, max(numbers, default=-1) + 1

"""The log of a run in a bucket: sent in segments beside the steps, merged when read, whole whatever ends a run."""

import time

import pytest

from bert_jax import metrics, object_log, run_directory
from input_pipeline import object_storage, storage
from input_pipeline.errors import StorageError


@pytest.fixture
def run_dir(request) -> storage.Path:
  return storage.path(f'memory://bucket/{request.node.name}')


def opened(run_dir, step: int, unsent=(), seconds: float = 3600.0) -> metrics.Writer:
  """A writer that sends each `seconds`."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(object_log.ObjectLog.__init__, '__defaults__', (seconds,))
    return metrics.Writer(run_dir, step, unsent)


def write(writer: metrics.Writer, first: int, last: int) -> None:
  for step in range(first, last + 1):
    writer.write(step, 'train', {'loss': 1 / step})


def steps(run_dir) -> list[int]:
  return [line['step'] for line in metrics.read(run_dir)]


def names(run_dir, folder: str) -> list[str]:
  return [path.name for path in storage.files_in(run_dir / folder, '*')]


def until(condition, seconds: float = 20.0) -> None:
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def test_lines_are_seen_while_the_run_goes_on(run_dir):
  writer = opened(run_dir, 0, seconds=0.05)
  write(writer, 1, 3)
  until(lambda: steps(run_dir) == [1, 2, 3])
  write(writer, 4, 4)
  until(lambda: steps(run_dir) == [1, 2, 3, 4])
  assert writer.unsent() == []
  writer.close()
  assert len(names(run_dir, run_directory.BOARD)) == len(names(run_dir, run_directory.SEGMENTS)) == 1


def test_lines_that_were_not_sent_come_from_the_checkpoint(run_dir):
  first = opened(run_dir, 0)
  write(first, 1, 4)
  kept = first.unsent()
  write(first, 5, 6)  # after the checkpoint; then the process is killed, so nothing is sent
  second = opened(run_dir, 4, kept)
  write(second, 5, 8)
  second.close()
  assert steps(run_dir) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_lines_after_the_checkpoint_are_dropped_from_what_was_sent(run_dir):
  first = opened(run_dir, 0)
  write(first, 1, 6)
  kept = first.unsent()[:4]
  first.close()
  second = opened(run_dir, 4, kept)  # the checkpoint of step 4, with lines that were sent after it
  assert steps(run_dir) == [1, 2, 3, 4]
  second.write(5, 'train', {'loss': 7.0})
  second.close()
  assert [line['loss'] for line in metrics.read(run_dir)][-1] == 7.0
  assert steps(run_dir) == [1, 2, 3, 4, 5]


def test_what_is_sent_grows_with_the_lines(run_dir, monkeypatch):
  monkeypatch.setattr(object_log, 'SEGMENT_BYTES', 1000)
  sent = []
  send = object_storage.ObjectPath.write_bytes
  monkeypatch.setattr(object_storage.ObjectPath, 'write_bytes',
                      lambda path, data: (sent.append(len(data)), send(path, data))[1])
  writer = opened(run_dir, 0, seconds=0.001)
  for step in range(1, 301):
    write(writer, step, step)
    until(lambda: not writer.unsent())
  writer.close()
  size = sum(len(object_log.encode([line])) for line in metrics.read(run_dir))
  assert steps(run_dir) == list(range(1, 301))
  assert sum(sent) < 300 * 1100  # a segment a line at most; appending would send 300 * size / 2
  assert max(sent) < 1100 < size


def test_a_storage_that_fails_is_told_once_and_stops_nothing(run_dir, monkeypatch, capsys):
  broken = [True]
  send = object_storage.ObjectPath.write_bytes

  def fails(path, data):
    if broken[0]:
      raise StorageError('the storage answers 503')
    send(path, data)

  monkeypatch.setattr(object_storage.ObjectPath, 'write_bytes', fails)
  writer = opened(run_dir, 0, seconds=0.01)
  write(writer, 1, 3)
  time.sleep(0.2)
  assert len(writer.unsent()) == 3
  broken[0] = False
  until(lambda: steps(run_dir) == [1, 2, 3])
  writer.close()
  assert capsys.readouterr().err.count('cannot be sent') == 1


def test_no_line_waits_for_the_storage(run_dir, monkeypatch):
  monkeypatch.setattr(object_storage.ObjectPath, 'write_bytes', lambda path, data: time.sleep(2))
  writer = opened(run_dir, 0, seconds=0.001)
  begin = time.monotonic()
  write(writer, 1, 1000)
  writer.unsent()
  assert time.monotonic() - begin < 1
  writer.close()


def test_a_run_that_was_fetched_from_a_bucket_goes_on_as_a_simple_file(run_dir, tmp_path):
  writer = opened(run_dir, 0)
  write(writer, 1, 3)
  writer.close()
  (tmp_path / run_directory.SEGMENTS).mkdir()
  for file in storage.files_in(run_dir / run_directory.SEGMENTS, '*'):
    storage.copy(file, tmp_path / run_directory.SEGMENTS / file.name)
  assert steps(tmp_path) == [1, 2, 3]
  writer = metrics.Writer(tmp_path, 2)
  write(writer, 3, 4)
  writer.close()
  assert steps(tmp_path) == [1, 2, 3, 4]
  assert (tmp_path / run_directory.LOG).read_text().count('\n') == 4
  assert not (tmp_path / run_directory.SEGMENTS).exists()

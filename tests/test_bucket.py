"""Every command with every path on gs://, against a server on the loopback: what comes out is what local paths give."""

import signal
import time

import pytest

from bert_jax import manifest
from bert_jax.errors import STOPPED, UNSAVED
from input_pipeline.errors import LockError
from tests import buckets
from tests.bucket_server import Faults
from tests.buckets import ALONE, BUCKET, RUN

pytestmark = pytest.mark.bucket

SOME_WAY = {'run/config.json', 'run/loss.png', 'task/config.json', 'task/loss.png', 'data/manifest.json',
            'run/export/README.md', 'run/export/bert_jax_export.json', 'run/export/bert_jax_training.json',
            'task/export/README.md', 'task/export/bert_jax_export.json', 'task/export/bert_jax_training.json',
            'trained.txt.json'}  # they name paths, or are drawn


def same_end(server, run: str, local) -> None:
  """A run in the bucket has the log and the parameters of one on a disk."""
  buckets.done(server, ['export', f'{BUCKET}/{run}'])
  assert buckets.log_of(server, run) == buckets.lines_of((local / 'metrics.jsonl').read_text())
  exported = server.files('bucket', f'{run}/export/')['model.safetensors']
  assert exported == (local / 'export/model.safetensors').read_bytes()


@pytest.mark.parametrize('absent', ['-', buckets.WITHOUT_TENSORFLOW])
def test_all_commands_on_a_bucket_give_what_local_paths_give(healthy, local_way, absent):
  name = 'way' if absent == '-' else 'bare'
  buckets.whole_way(healthy, BUCKET, name, absent=absent)
  found = healthy.files('bucket', f'{name}/')
  here = {str(path.relative_to(local_way)): path.read_bytes() for path in local_way.rglob('*') if path.is_file()}
  assert buckets.like_files(found) == buckets.like_files(here)
  for file in buckets.like_files(here) - SOME_WAY:
    assert found[file] == here[file], file
  for run in ('run', 'task'):
    assert buckets.log_of(healthy, f'{name}/{run}') == buckets.lines_of((local_way / run / 'metrics.jsonl').read_text())
    assert [file for file in found if f'{run}/tensorboard/events' in file]
  assert {file.split('/')[2] for file in found if file.startswith('run/checkpoints/')} == {'8', '12'}


def until(condition, *processes) -> None:
  """Waits for what processes do."""
  deadline = time.monotonic() + buckets.SECONDS
  while not condition() and time.monotonic() < deadline and all(process.poll() is None for process in processes):
    time.sleep(0.01)
  assert condition(), [process.communicate()[1] for process in processes]


def killed_in_a_save(server, run: str, *processes) -> None:
  """Ends processes by SIGKILL while step 8 is being written, after step 4 was."""
  written = lambda: server.files('bucket', f'{run}/checkpoints/8/')
  until(written, *processes)
  for process in processes:
    process.send_signal(signal.SIGKILL)
  for process in processes:
    process.communicate()
  assert written() and not finished(server, run, 8)


def finished(server, run: str, step: int) -> bool:
  """Whether a step says that it was saved whole."""
  return manifest.decode(server.files('bucket', f'{run}/checkpoints/{step}/')[manifest.NAME].decode()).finished


def test_a_run_that_is_killed_in_a_save_goes_on_from_elsewhere_to_the_same_end(healthy, local_way, tmp_path):
  run = ['pretrain', 'tiny', '--data', local_way / 'data', '--run-dir', f'{BUCKET}/killed', *RUN, *ALONE]
  killed_in_a_save(healthy, 'killed', buckets.start(healthy, *run))
  buckets.done(healthy, run, cwd=tmp_path, more={'TMPDIR': str(tmp_path)})  # all that the first had was in the bucket
  same_end(healthy, 'killed', local_way / 'run')
  assert not list(tmp_path.iterdir())


def pair(server, data, run_dir, **options) -> list:
  """Two processes of one run."""
  port = buckets.free_port()
  return [buckets.start(server, 'pretrain', 'tiny', '--data', data, '--run-dir', run_dir, *RUN, '--mesh.data', '2',
                        '--distributed.coordinator', f'127.0.0.1:{port}', '--distributed.processes', '2',
                        '--distributed.process-id', index, **options) for index in range(2)]


def ended(processes) -> None:
  for process in processes:
    _, errors = process.communicate(timeout=buckets.SECONDS)
    assert process.returncode == 0, errors


def test_two_processes_give_what_two_on_a_disk_give(healthy, local_way, tmp_path):
  on_disk, elsewhere = tmp_path / 'run', tmp_path / 'elsewhere'
  elsewhere.mkdir()
  ended(pair(healthy, local_way / 'data', on_disk))
  buckets.done(healthy, ['export', on_disk])
  killed_in_a_save(healthy, 'pair', *pair(healthy, local_way / 'data', f'{BUCKET}/pair'))
  ended(pair(healthy, local_way / 'data', f'{BUCKET}/pair', cwd=elsewhere))
  same_end(healthy, 'pair', on_disk)
  assert [name for name in healthy.files('bucket', 'pair/checkpoints/12/') if 'ocdbt.process_1/' in name]
  assert finished(healthy, 'pair', 12)


def test_a_storage_that_fails_now_and_then_changes_nothing(healthy, local_way):
  healthy.faults = Faults(0.1, ('503', '503', '503', '429', 'drop', 'cut'))
  run = ['pretrain', 'tiny', '--data', local_way / 'data', '--run-dir', f'{BUCKET}/weather', *RUN, *ALONE]
  [found] = buckets.in_turn(healthy, run)
  assert found['code'] == 0 and 'bert-jax: storage is slow' in found['errors'], found['errors']
  same_end(healthy, 'weather', local_way / 'run')


def test_stray_objects_and_placeholders_do_not_matter(healthy, local_way):
  """Consoles make objects called `folder/`, and people put things beside what they know."""
  run = ['pretrain', 'tiny', '--data', f'{BUCKET}/odd/data', '--run-dir', f'{BUCKET}/odd/run', *RUN, *ALONE]
  for name in ('', 'data/', 'run/'):
    healthy.put('bucket', f'odd/{name}', b'')
  for file in (local_way / 'data').iterdir():
    healthy.put('bucket', f'odd/data/{file.name}', file.read_bytes())
  buckets.in_turn(healthy, [*run, '--run.max-minutes', '0.01'])  # some steps, or all
  for name in ('data/notes.txt', 'data/old/', 'run/notes.txt', 'run/checkpoints/', 'run/checkpoints/1/',
               'run/checkpoints/notes.txt', 'run/checkpoints/old/4/x', 'run/metrics/', 'run/metrics/notes.txt',
               'run/metrics/zz.jsonl', 'run/tensorboard/', 'run/export/'):
    healthy.put('bucket', f'odd/{name}', b'')
  buckets.done(healthy, run, ['evaluate', f'{BUCKET}/odd/run'], ['plot', f'{BUCKET}/odd/run'],
               ['inspect', f'{BUCKET}/odd/data'])
  same_end(healthy, 'odd/run', local_way / 'run')


def test_two_runs_on_one_folder_are_noticed(healthy, local_way):
  run = ['pretrain', 'tiny', '--data', local_way / 'data', '--run-dir', f'{BUCKET}/shared', *RUN, *ALONE]
  first = buckets.start(healthy, *run, '--run.steps', '100000')
  until(lambda: 'lock.json' in healthy.files('bucket', 'shared/'), first)
  [(code, said)] = buckets.sentences(healthy, [*run, '--run.steps', '100000'])
  assert code == LockError.exit_code and 'is in use' in said
  first.send_signal(signal.SIGTERM)
  first.communicate(timeout=buckets.SECONDS)
  assert first.returncode in (STOPPED, UNSAVED) and 'lock.json' not in healthy.files('bucket', 'shared/')

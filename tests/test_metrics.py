"""What a run reports: the log is never cut before its replacement is whole, and a window of sums goes through JSON."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bert_jax import metrics, progress, run_directory
from bert_jax.objectives import OBJECTIVES


def write(run_dir, first, last):
  writer = metrics.Writer(run_dir, first - 1)
  for step in range(first, last + 1):
    writer.write(step, 'train', {'loss': 1 / step})
  writer.close()


def steps(run_dir):
  return [line['step'] for line in metrics.read(run_dir)]


def test_lines_after_the_checkpoint_are_dropped_and_written_again(tmp_path):
  write(tmp_path, 1, 6)
  write(tmp_path, 4, 5)
  assert steps(tmp_path) == [1, 2, 3, 4, 5]
  assert not [path for path in tmp_path.iterdir() if path.suffix == '.tmp']


@pytest.mark.parametrize('step', ['write_bytes', 'replace'])
def test_the_log_is_whole_wherever_its_replacement_fails(tmp_path, monkeypatch, step):
  write(tmp_path, 1, 6)
  log = tmp_path / run_directory.LOG
  before = log.read_bytes()

  def fail(path, *arguments):
    if step == 'write_bytes':
      with open(path, 'wb') as half:
        half.write(arguments[0][:10])
    raise OSError('the disk is full')

  with monkeypatch.context() as patch, pytest.raises(OSError, match='full'):
    patch.setattr(type(log), step, fail)
    metrics.Writer(tmp_path, 3)
  assert log.read_bytes() == before
  write(tmp_path, 4, 5)  # what the failure left behind is in nobody's way
  assert steps(tmp_path) == [1, 2, 3, 4, 5]


def test_a_last_line_that_was_cut_off_is_dropped(tmp_path):
  write(tmp_path, 1, 3)
  log = tmp_path / run_directory.LOG
  log.write_text(log.read_text()[:-9])
  assert steps(tmp_path) == [1, 2]
  write(tmp_path, 3, 4)
  assert steps(tmp_path) == [1, 2, 3, 4]


def test_a_window_goes_through_json_and_on_as_if_it_had_not():
  rng = np.random.default_rng(0)

  def sums():
    return {term: dict(zip(('loss', 'weight', 'hits'), rng.random(3, np.float32))) for term in ('mlm', 'nsp')}

  parts = [(sums(), {'tokens': 100.0 + i}) for i in range(6)]
  straight, stopped = metrics.Window(), metrics.Window()
  for i, (terms, counts) in enumerate(parts):
    straight.add(terms, counts)
    stopped.add(terms, counts)
    if i == 3:
      stopped = metrics.Window(json.loads(json.dumps(stopped.sums)))
  assert stopped.sums == straight.sums
  assert straight.count('steps') == 6 and straight.count('tokens') == 615 and straight.count('images') == 0
  assert straight.of_terms().keys() == {'mlm', 'nsp'}
  figures = OBJECTIVES['mlm_nsp'].figures(stopped.of_terms())
  total = lambda term, name: sum(float(terms[term][name]) for terms, _ in parts)
  assert figures['mlm_accuracy'] == pytest.approx(total('mlm', 'hits') / total('mlm', 'weight'))
  assert figures['loss'] == pytest.approx(sum(total(term, 'loss') / total(term, 'weight') for term in ('mlm', 'nsp')))


def test_a_window_does_not_write_into_what_it_was_made_from():
  begun = {'mlm': {'loss': 1.0, 'weight': 2.0}}
  metrics.Window(begun).add({'mlm': {'loss': 1.0, 'weight': 1.0}}, {})
  assert begun == {'mlm': {'loss': 1.0, 'weight': 2.0}}


@pytest.mark.reliability(25)
@pytest.mark.parametrize('line', [12, 30, 59])
def test_a_loss_far_above_those_before_it_is_told_with_what_to_do(tmp_path, capsys, tally, line):
  """Of 60 lines of two steps each; noise is not told."""
  def said(spike: int | None, rewinds: bool = True) -> str:
    rates = metrics.Rates(lambda step: 1.0, None, 1)
    recorder = metrics.Recorder(tmp_path / str(spike), OBJECTIVES['mlm'], step=0, steps=120, log_every=2, rates=rates,
                                progress=False, rewinds=rewinds)
    rng = np.random.default_rng(line)
    for step in range(1, 121):
      loss = 5 + 0.1 * rng.normal() + 3 * ((step - 1) // 2 + 1 == spike)
      terms = {'mlm': {'loss': np.float32(10 * loss), 'weight': np.float32(10), 'hits': np.float32(1)}}
      recorder.step({'terms': terms, 'skipped': 0, 'gradient_norm': 1.0, 'learning_rate': 1.0, 'diagnostics': {}},
                    {'tokens': 9.0}, step)
    recorder.close()
    return capsys.readouterr().err

  (tmp_path / 'None').mkdir()
  (tmp_path / str(line)).mkdir()
  tally.control('far above' not in said(None))
  if line == 12:  # fine-tuning has no such flags
    told = said(line, rewinds=False)
    assert 'far above' in told and '--' not in told and 'optimizer.peak_learning_rate' in told
  told = said(line)
  first = 2 * line - 2
  tally.fault(True, detected=told.count('far above') == 1 and f'--skip-steps {first}:{first + 2} ' in told)


def test_rates_and_the_time_left_are_those_of_steps():
  """Eleven steps in a hundred seconds, of which ninety were spent compiling the first; and that one alone."""
  for steps, rate in ((11, 1.0), (1, 0.01)):
    clock = metrics.Clock(0.0, 0)
    clock.since -= 100.0
    clock.leave_out(90.0)
    rates = clock.rates(steps, 5.0 * steps, 1.0, None)
    assert rates['steps_per_second'] == pytest.approx(rate, rel=0.01)
    assert rates['tokens_per_second'] == pytest.approx(5 * rate, rel=0.01)


@pytest.mark.parametrize('figures, says', [
    ({'loss': 5.82, 'mlm_loss': 5.214, 'mlm_accuracy': 0.1432, 'nsp_loss': 0.606, 'nsp_accuracy': 0.62},
     'held-out MLM 5.21, NSP 0.61, acc 0.143 and 0.620'),
    ({'loss': 0.7, 'task_loss': 0.7, 'task_accuracy': 0.5, 'f1': 0.25}, 'held-out TASK 0.70, acc 0.500, f1 0.250'),
    ({'mlm_loss': 5.0, 'probe_pairs_accuracy': 0.531}, 'held-out MLM 5.00  pairs accuracy 0.531'),
    ({'loss': 1.0, 'pearson': float('nan')}, 'held-out loss 1.00, pearson nan')])
def test_held_out_figures_stand_in_a_line(figures, says):
  assert progress.held_out_text(figures) == says


FULL = '''
import json, pathlib, resource, sys
from bert_jax import metrics
run = pathlib.Path(sys.argv[1])
run.mkdir(exist_ok=True)
writer = metrics.Writer(run, 0)
for step in range(1, 301):
  if step == 100:  # no file may grow from here on, as on a full disk
    sizes = [path.stat().st_size for path in run.rglob('*') if path.is_file()]
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(sizes), resource.RLIM_INFINITY))
  if step == 200:
    before = writer.unsent()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
  writer.write(step, 'train', {'loss': 1 / step})
writer.close()
print(json.dumps([len(before), writer.unsent(), [line['step'] for line in metrics.read(run)]]))
'''


@pytest.mark.reliability(18)
def test_a_full_disk_stops_no_run_and_loses_no_line(tmp_path, tally):
  """As 300 steps of a run that cannot write for 100 of them: TensorBoard's queue held ten, and then waited for ever."""
  calm = subprocess.run([sys.executable, '-c', FULL.replace('step == 100', 'step == 0'), tmp_path / 'calm'],
                        capture_output=True, text=True, timeout=120)
  tally.control(json.loads(calm.stdout) == [0, [], list(range(1, 301))])
  done = subprocess.run([sys.executable, '-c', FULL, tmp_path], capture_output=True, text=True, timeout=120)
  waited, unsent, steps = json.loads(done.stdout)
  assert waited == 100 and unsent == [] and steps == list(range(1, 301))
  told = [line for line in done.stderr.splitlines() if line.startswith('bert-jax:')]
  assert len(told) == 2 and 'metrics.jsonl cannot be written' in told[0] and "TensorBoard's file" in told[1]
  tally.fault(waited == 100, detected=True, survived=steps == list(range(1, 301)))


def test_lines_that_are_none_of_ours_are_told_and_stay(tmp_path, capsys):
  write(tmp_path, 1, 4)
  log = tmp_path / run_directory.LOG
  lines = log.read_bytes().split(b'\n')
  log.write_bytes(b'\n'.join([lines[0], b'{"step": 2, garb\xff', b'[1]', *lines[1:]]))
  assert steps(tmp_path) == [1, 2, 3, 4]
  write(tmp_path, 3, 3)
  assert steps(tmp_path) == [1, 2, 3] and b'{"step": 2, garb\xff\n[1]\n' in log.read_bytes()
  assert '2 lines are none of ours' in capsys.readouterr().err

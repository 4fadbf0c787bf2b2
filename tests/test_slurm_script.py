"""launch/slurm/pretrain.sbatch against an srun and a scontrol that behave as SLURM 22.05's did in test_slurm.py."""

import pytest
from launchers import COMMAND, calls, fake, run

# Starts TASKS, each by its words, with --label's numbers in front; the first that fails ends the others by SIGTERM; its
# own code is the highest.
SRUN = '''
shift 2
pids=()
for task in $(seq 0 $((TASKS - 1))); do
  { SLURM_PROCID=$task setsid "$@" | sed -u "s/^/$task: /"; exit "${PIPESTATUS[0]}"; } &
  pids+=($!)
done
highest=0
for pid in "${pids[@]}"; do
  code=0
  wait -n || code=$?
  if ((code)) && [[ -z "${ended:-}" ]]; then
    ended=1
    echo "srun: error: n2: task: Exited with exit code $code" >&2
    for file in "$0".task*; do kill -TERM -- "-$(<"$file")" 2>/dev/null; done
  fi
  if ((code > highest)); then highest=$code; fi
done
exit "${SRUN_CODE:-$highest}"
'''
# What a task does: it ends with its code of CODES, or waits until it is ended: as a Python that has no handlers
# yet (143), or saving (3).
TASK = '''
echo $PPID > "$(dirname "$0")/srun.task$SLURM_PROCID"
codes=($CODES)
case "${codes[$SLURM_PROCID]}" in
  wait) sleep 20 & wait $! ;;
  save) trap 'exit 3' TERM; sleep 20 & wait $! ;;
  *) sleep 0.3; exit "${codes[$SLURM_PROCID]}" ;;
esac
'''
SCONTROL = '''
case "$*" in
  *'show job'*) ((RANDOM < ${DOWN:-0})) && exit 1
    echo "JobId=7 JobName=run UserId=u JobState=${STATE:-RUNNING} Reason=${REASON:-None} Dependency=(null)" ;;
esac
'''


def submit(folder, codes: str, **env):
  """The script as SLURM would run it, with a task for each word of `codes`."""
  fake(folder, 'srun', SRUN)
  fake(folder, 'scontrol', SCONTROL)
  fake(folder, 'program', TASK)
  settings = {'SLURM_JOB_ID': '7', 'TASKS': str(len(codes.split())), 'CODES': codes, 'BERT_JAX': 'program',
              'LOOK_SECONDS': '0'}
  return run('slurm/pretrain.sbatch', *COMMAND[1:], path=folder, **settings | env)


def requeued(folder) -> bool:
  return 'requeue 7' in calls(folder, 'scontrol')


@pytest.mark.parametrize('codes, code, again', [
    ('0 0', 0, False), ('2 wait', 2, False), ('wait 2', 2, False), ('1 save', 1, False), ('save 9', 9, False),
    ('127 wait', 127, False), ('13 13', 13, True), ('save 137', 137, True), ('3 3', 3, True), ('7 wait', 7, True)])
def test_the_first_failure_is_the_jobs(codes, code, again, tmp_path):
  result = submit(tmp_path, codes)
  assert result.returncode == code, result.stderr
  assert requeued(tmp_path) == again
  first, *_ = calls(tmp_path, 'scontrol')
  assert first == 'update JobId=7 JobName=run'
  assert sorted(calls(tmp_path, 'program')) == ['supervise --attempt 0 -- ' + ' '.join(COMMAND)] * 2
  assert '0: bert-jax-exit-code=' in result.stdout or '1: bert-jax-exit-code=' in result.stdout


@pytest.mark.parametrize('state, reason, again', [
    ('RUNNING', 'None', True), ('COMPLETING', 'None', False), ('CANCELLED', 'None', False),
    ('PENDING', 'BeginTime', False), ('COMPLETING', 'NonZeroExitCode', False), ('COMPLETING', 'TimeLimit', True)])
def test_only_a_job_that_nobody_ended_is_queued_again(state, reason, again, tmp_path):
  result = submit(tmp_path, '3', STATE=state, REASON=reason)
  assert result.returncode == 3 and requeued(tmp_path) == again
  assert again or f'not queued again from here: JobState={state} Reason={reason}' in result.stderr


def test_a_controller_that_does_not_answer(tmp_path):
  """Is asked again; where it never does, nobody knows whether somebody ended the job."""
  assert submit(tmp_path, '3', DOWN='20000', LOOKS='60').returncode == 3 and requeued(tmp_path)
  (tmp_path / 'scontrol.log').unlink()
  assert submit(tmp_path, '3', DOWN='99999', LOOKS='3').returncode == 3 and not requeued(tmp_path)
  assert sum('show job' in call for call in calls(tmp_path, 'scontrol')) == 3


def test_where_no_task_says_anything_srun_does(tmp_path):
  fake(tmp_path, 'scontrol', SCONTROL)
  fake(tmp_path, 'srun', 'echo "srun: error: Unable to create step" >&2; exit 1')
  result = run('slurm/pretrain.sbatch', *COMMAND[1:], path=tmp_path, SLURM_JOB_ID='7')
  assert result.returncode == 1 and not requeued(tmp_path)


@pytest.mark.parametrize('words, name', [
    (['--run-dir', '/runs/my-run/'], 'my-run'), (['--run_dir=runs/x'], 'x'), (['--run-dir', 'gs://b/r'], 'r')])
def test_a_run_is_named_by_its_folder(words, name, tmp_path):
  fake(tmp_path, 'scontrol', SCONTROL)
  fake(tmp_path, 'srun', 'printf "[%s]" "$@" > "$0.words"')
  settings = {'SLURM_JOB_ID': '7', 'SLURM_RESTART_COUNT': '4', 'BERT_JAX': 'a b'}
  result = run('slurm/pretrain.sbatch', 'base', *words, '--x', 'y z', path=tmp_path, **settings)
  assert result.returncode == 0 and f'update JobId=7 JobName={name}' in calls(tmp_path, 'scontrol')
  arrived = ''.join(f'[{word}]' for word in ['a', 'b', 'supervise', '--attempt', '4', '--', 'pretrain', 'base', *words,
                                             '--x', 'y z'])
  assert (tmp_path / 'srun.words').read_text().endswith(arrived)

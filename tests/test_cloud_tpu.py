"""launch/cloud_tpu against a made-up gcloud that says what the real one was heard to say: what is refused before
anything is created, what brings a run back, and that what was created is given back at every end."""

import signal
import subprocess
import time

import pytest
from launchers import COMMAND, LAUNCH, calls, environment, fake, forbid, run

IMAGE = 'us-docker.pkg.dev/p/r/bert-jax:tpu'
TPU = {'PROJECT': 'p', 'ZONE': 'z', 'IMAGE': IMAGE, 'POLL_SECONDS': '0'}
NAME = 'bert-jax-run-b88b97ef'
NOT_FOUND = "ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource 'x' was not found"
UNAVAILABLE = 'ERROR: (gcloud.compute.tpus.queued-resources.describe) HttpError accessing <https://tpu.googleapis.com>'
QUOTA = 'ERROR: (gcloud.compute.tpus.queued-resources.create) RESOURCE_EXHAUSTED: Quota limit exceeded'
DENIED = 'ERROR: (gcloud.compute.tpus.queued-resources.describe) PERMISSION_DENIED: Permission denied'
# In its folder: `state` of the resource, absent where there is none; `outcomes`, a line for each start: the codes of
# the workers, or `gone` where it is taken away meanwhile; `fail-VERB`: how often VERB fails yet, then what it says.
GCLOUD = '''
here=$(dirname "$0")
fails() {
  [[ -s "$here/fail-$1" ]] || return 0
  read -r count said < "$here/fail-$1"
  if ((count > 0)); then echo "$((count - 1)) $said" > "$here/fail-$1"; echo "$said" >&2; exit 1; fi
}
case "$*" in
  'auth print-access-token'*) fails auth; echo token ;;
  'storage ls '*) fails storage; echo "$3" ;;
  'artifacts docker images describe'*) fails image ;;
  *'resources describe'*) fails describe; cat "$here/state" 2>/dev/null || { echo "NOT_FOUND" >&2; exit 1; } ;;
  *'resources create'*) echo "${CREATED:-ACTIVE}" > "$here/state"; fails create ;;
  *'resources delete'*) fails delete; rm "$here/state" 2>/dev/null || { echo "NOT_FOUND" >&2; exit 1; } ;;
  *'docker stop'*) touch "$here/stopped" ;;
  *ssh*)
    n=$(grep -c 'docker run' "$0.log")
    outcome=$(sed -n "${n}p" "$here/outcomes")
    if [[ "$outcome" == gone ]]; then echo SUSPENDED > "$here/state"; exit 255; fi
    for code in $outcome; do
      if [[ "$code" == waits ]]; then
        for i in {1..200}; do [[ -e "$here/stopped" ]] && break; sleep 0.05; done
        code=3
      fi
      echo "bert-jax-exit-code=$code"
    done ;;
esac
'''.replace('NOT_FOUND', NOT_FOUND)


@pytest.fixture
def cloud(tmp_path):
  """A made-up Google, in whose folder a test says what happens."""
  fake(tmp_path, 'gcloud', GCLOUD)
  (tmp_path / 'outcomes').write_text('0 0\n')
  return tmp_path


def train(cloud, *command, outcomes=None, **env):
  if outcomes is not None:
    (cloud / 'outcomes').write_text('\n'.join(outcomes) + '\n')
  return run('cloud_tpu/train.sh', *(command or COMMAND), path=cloud, **TPU | env)


def asked(cloud, verb: str) -> list[str]:
  return [call for call in calls(cloud, 'gcloud') if f'resources {verb}' in call]


# ---------------------------------------------------------------- before anything is created


def without(*names):
  return {name: '' for name in names}


@pytest.mark.parametrize('command, env, said', [
    ([], without('PROJECT'), 'set PROJECT'), ([], without('ZONE'), 'set ZONE'), ([], without('IMAGE'), 'set IMAGE'),
    ([], {'ACCELERATOR': 'h100-8'}, 'no image known .* set RUNTIME'),
    ([], {'ACCELERATOR': 'v5e'}, 'wanted a chip and how'),
    ([], {'SPOT': 'yes'}, 'wanted 1 or 0'), ([], {'POLL_SECONDS': 'soon'}, 'wanted a whole number'),
    ([], {'NAME': 'Bert_Jax'}, 'wanted at most 63 of a-z'), ([], {'CACHE_DIR': '/tmp/c'}, 'wanted gs://'),
    (['train', 'base'], {}, "found 'train', wanted a command"),
    (['pretrain', 'base', '--data', 'gs://b/d'], {}, 'no --run-dir'),
    (['pretrain', 'base', '--data', 'gs://b/d', '--run-dir', 'runs/base'], {}, 'wanted gs://BUCKET/'),
    (['pretrain', 'base', '--data', 'gs://b/d', '--run-dir', 'gs://b'], {}, 'wanted gs://BUCKET/'),
    (['pretrain', 'base', '--run-dir', 'gs://b/r'], {}, 'no --data'),
    (['pretrain', 'base', '--run_dir=gs://b/r', '--data=data/mine'], {}, "'data/mine', wanted gs://")])
def test_what_is_refused_without_asking_google(command, env, said, cloud):
  result = train(forbid(cloud), *command, **env)
  assert result.returncode and subprocess.run(['grep', '-q', said], input=result.stderr, text=True).returncode == 0, (
      result.stderr)
  assert not calls(cloud, 'gcloud')


@pytest.mark.parametrize('verb, what, said', [
    ('auth', 'ERROR: You do not currently have an active account selected.', 'gcloud auth login'),
    ('storage', 'ERROR: (gcloud.storage.ls) gs://b not found: 404.', 'of --run-dir, gs://b cannot be listed'),
    ('image', f'ERROR: NOT_FOUND: {IMAGE}', f'there is no IMAGE {IMAGE}'),
    ('describe', UNAVAILABLE, 'could not be found out'), ('describe', DENIED, 'could not be found out')])
def test_what_is_refused_by_what_google_says(verb, what, said, cloud):
  (cloud / f'fail-{verb}').write_text(f'1 {what}')
  result = train(cloud)
  assert result.returncode == 2 and said in result.stderr and what in result.stderr + what * (verb == 'image')
  assert not asked(cloud, 'create') and not asked(cloud, 'delete')


def test_no_gcloud(cloud):
  """In a folder with all that the script needs but that."""
  for name in ('bash', 'dirname', 'cksum', 'cut', 'tr', 'mktemp', 'rm'):
    (cloud / name).symlink_to(subprocess.run(['which', name], capture_output=True, text=True).stdout.strip())
  (cloud / 'gcloud').unlink()
  result = train(cloud, PATH=str(cloud))
  assert result.returncode == 2 and 'gcloud is not here' in result.stderr


def test_recipe_and_flags_are_checked_where_the_program_is_here(cloud):
  """By `supervise --dry-run` (tests/test_launchers.py)."""
  fake(cloud, 'program', 'echo "$PREFIX $*" >> "$0.words"; exit "${WRONG:-0}"')
  result = train(cloud, BERT_JAX='env PREFIX=1 program', WRONG='2')
  assert result.returncode == 2 and 'nothing was created' in result.stderr and not calls(cloud, 'gcloud')
  assert calls(cloud, 'program') == ['supervise --dry-run -- ' + ' '.join(COMMAND)]
  assert train(cloud, BERT_JAX='env PREFIX=1 program').returncode == 0
  assert 'not here: recipe and flags are checked only' in train(cloud).stderr

# ---------------------------------------------------------------- restarts


@pytest.mark.parametrize('outcomes, code, runs, creations', [
    (['0 0'], 0, 1, 1),
    (['gone', '3 3', '137 13', '0 0'], 0, 4, 2),  # taken away, asked to stop, killed: each time it goes on
    (['13 13 1'], 1, 1, 1), (['13 9 3'], 9, 1, 1),
    (['3'] * 5 + ['0'], 0, 6, 1),  # asked to stop is no failure, however often
    (['137', '125', '3', '7', '7', '0'], 0, 6, 1),
    (['125'] * 5, 125, 4, 1),  # nothing was ever heard of it
    (['137'] * 5, 137, 4, 1),
    (['gone'] * 5, 255, 4, 4),
    (['127'], 127, 1, 1), (['0 134', '0 142', '0 0'], 0, 3, 1),
])
def test_goes_on_after_preemption(outcomes, code, runs, creations, cloud):
  """Which codes may pass: tests/test_launchers.py."""
  result = train(cloud, outcomes=outcomes)
  assert result.returncode == code, result.stderr
  starts = [call for call in calls(cloud, 'gcloud') if 'docker run' in call]
  assert len(starts) == runs
  assert all(f'supervise --attempt {number} -- pretrain' in start for number, start in enumerate(starts))
  assert len(asked(cloud, 'create')) == creations and all(f'create {NAME} ' in call for call in asked(cloud, 'create'))
  assert not (cloud / 'state').exists()  # nothing is left that costs money


def test_a_bug_of_one_worker_ends_the_others(cloud):
  """They would wait for it, and start again, at a price."""
  began = time.monotonic()
  result = train(cloud, outcomes=['1 waits'], GRACE_SECONDS='0')
  assert result.returncode == 1 and time.monotonic() - began < 8
  assert any('docker stop' in call for call in calls(cloud, 'gcloud'))


@pytest.mark.parametrize('verb, said', [('describe', UNAVAILABLE), ('create', QUOTA)])
def test_a_failure_of_google_is_no_absence(verb, said, cloud):
  """While the TPU is on its way: asked again, and nothing is created twice."""
  (cloud / 'outcomes').write_text('0\n')
  (cloud / f'fail-{verb}').write_text(f'0 {said}')
  (cloud / 'sleep').write_text(f'#!/bin/bash\ncd "{cloud}"; if [[ -e state && ! -e once ]]; then touch once; '
                               f'echo "3 {said}" > "fail-{verb}"; fi\n')
  (cloud / 'sleep').chmod(0o755)
  if verb == 'create':  # it fails, and was heard all the same
    (cloud / 'fail-create').write_text(f'1 {said}')
  result = train(cloud)
  assert result.returncode == 0 and said in result.stderr, result.stderr
  assert len(asked(cloud, 'create')) == 1


def test_gives_up_where_google_does_not_answer(cloud):
  (cloud / 'fail-create').write_text(f'99 {QUOTA}')
  # What was asked for never comes to be.
  fake(cloud, 'rm', 'command -p rm -f "$@" 2>/dev/null; command -p rm -f "$(dirname "$0")/state"')
  result = run('cloud_tpu/create.sh', path=cloud, **TPU | {'MOST_FAILURES': '3', 'CREATED': 'WAITING_FOR_RESOURCES'})
  assert result.returncode == 1 and 'gcloud failed 3 times in a row' in result.stderr


def test_a_request_that_becomes_failed_is_not_made_for_ever(cloud):
  result = train(cloud, CREATED='FAILED')
  assert result.returncode == 1 and 'became FAILED 3 times' in result.stderr
  assert len(asked(cloud, 'create')) == 3 and not (cloud / 'state').exists()

# ---------------------------------------------------------------- given back


def test_what_cannot_be_deleted_is_told(cloud):
  (cloud / 'fail-delete').write_text(f'99 {UNAVAILABLE}')
  result = train(cloud)
  assert result.returncode == 1 and 'MAY GO ON COSTING MONEY' in result.stderr
  assert len(asked(cloud, 'delete')) == 5
  (cloud / 'fail-delete').write_text(f'2 {UNAVAILABLE}')
  assert run('cloud_tpu/delete.sh', path=cloud, NAME=NAME, **TPU).returncode == 0 and not (cloud / 'state').exists()
  assert run('cloud_tpu/delete.sh', path=cloud, NAME=NAME, **TPU).returncode == 0  # there is none, as is wanted


def test_what_somebody_else_created_stays(cloud):
  (cloud / 'state').write_text('ACTIVE\n')
  result = train(cloud, NAME='mine', outcomes=['1'])
  assert result.returncode == 1 and 'mine was there before, and stays' in result.stderr and not asked(cloud, 'delete')
  assert train(cloud, outcomes=['1', '1']).returncode == 1 and asked(cloud, 'delete')  # by its name it is this run's


@pytest.mark.parametrize('number, when', [(signal.SIGINT, 'run'), (signal.SIGTERM, 'create'), (signal.SIGHUP, 'run')])
def test_a_signal_gives_it_back(number, when, cloud):
  """At once, whatever is waited for; a run is asked to stop before, so that it saves."""
  (cloud / 'outcomes').write_text('waits\n')
  waiting = {'CREATED': 'WAITING_FOR_RESOURCES', 'POLL_SECONDS': '60'} if when == 'create' else {}
  process = subprocess.Popen(['bash', LAUNCH / 'cloud_tpu/train.sh', *COMMAND], env=environment(cloud, **TPU | waiting),
                             stderr=subprocess.PIPE, text=True,
                             preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))  # nohup has it ignored
  wanted = 'docker run' if when == 'run' else 'resources create'
  end = time.monotonic() + 20
  while not any(wanted in call for call in calls(cloud, 'gcloud')):
    assert time.monotonic() < end
    time.sleep(0.02)
  time.sleep(0.2)
  process.send_signal(number)
  said = process.communicate(timeout=20)[1]
  assert process.returncode == 128 + number, said
  made = calls(cloud, 'gcloud')
  assert f'resources delete {NAME} --force' in made[-1] and not (cloud / 'state').exists()
  assert any('docker stop' in call for call in made) == (when == 'run')

# ---------------------------------------------------------------- what arrives


def test_quotes_the_command_and_every_setting_arrives(cloud):
  env = {'CACHE_DIR': 'gs://b/cache', 'SSH_OPTIONS': '--internal-ip --ssh-flag=-v',
         'DOCKER_OPTIONS': '--env=A=B --user 0'}
  assert run('cloud_tpu/run.sh', *COMMAND, path=cloud, **TPU | env).returncode == 0
  call = calls(cloud, 'gcloud')[-1]
  assert '--internal-ip --ssh-flag=-v --project p --zone z --command ' in call
  remote = call.split('--command ')[1]
  fake(cloud, 'sudo', 'for word in "$@"; do printf "[%s]" "$word" >> "$0.words"; done')
  subprocess.run(['bash', '-c', remote], env=environment(cloud), check=True)
  words = (cloud / 'sudo.words').read_text()
  assert ''.join(f'[{word}]' for word in COMMAND) in words
  assert '[--env][JAX_COMPILATION_CACHE_DIR=gs://b/cache]' in words
  assert f'[--env=A=B][--user][0][{IMAGE}]' in words
  assert '[auth][configure-docker][us-docker.pkg.dev]' in words


@pytest.mark.parametrize('accelerator, runtime', [
    ('v2-8', 'tpu-ubuntu2204-base'), ('v4-32', 'tpu-ubuntu2204-base'), ('v5litepod-16', 'v2-alpha-tpuv5-lite'),
    ('v5e-16', 'v2-alpha-tpuv5-lite'), ('v5p-32', 'v2-alpha-tpuv5'), ('v6e-8', 'v2-alpha-tpuv6e'),
    ('tpu7x-8', 'v2-alpha-tpu7-ubuntu2404')])
def test_create(accelerator, runtime, cloud):
  env = {'ACCELERATOR': accelerator, 'CREATE_OPTIONS': '--network=n --reserved', 'NAME': 'mine'}
  assert run('cloud_tpu/create.sh', path=cloud, **TPU | env).returncode == 0
  call, = asked(cloud, 'create')
  gclouds = accelerator.replace('v5e', 'v5litepod')
  assert f'create mine --node-id mine --accelerator-type {gclouds} --runtime-version {runtime} --spot' in call
  assert '--network=n --reserved --project p --zone z' in call
  (cloud / 'state').unlink()
  assert run('cloud_tpu/create.sh', path=cloud, **TPU | env | {'SPOT': '0', 'RUNTIME': 'other'}).returncode == 0
  assert '--spot' not in asked(cloud, 'create')[-1] and '--runtime-version other' in asked(cloud, 'create')[-1]


def test_every_setting_is_a_variable_that_is_explained():
  text = (LAUNCH / 'cloud_tpu/common.sh').read_text()
  settings = [line for line in text.splitlines() if line.startswith(': "${')]
  assert len(settings) > 15 and all('#' in line or 'set ' in line for line in settings)

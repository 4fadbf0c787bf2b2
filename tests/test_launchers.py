"""Launchers: lint, what a dry run prints, restarts against made-up clouds, manifests against the fields of their kinds.

Nothing here reaches a cloud: gcloud, kubectl, srun and scontrol are scripts of the tests.
"""

import configparser
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from bert_jax.errors import FINAL, GAVE_UP, HUNG, STOPPED, UNSAVED, ConfigError
from input_pipeline.errors import DataError
from launch import cli

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / 'launch'
SCRIPTS = sorted([*LAUNCH.rglob('*.sh'), *LAUNCH.rglob('*.sbatch')])
MANIFESTS = sorted((LAUNCH / 'kubernetes').glob('*.yaml'))
COMMAND = ['pretrain', 'base', '--data', 'gs://b/with space', '--run-dir', 'gs://b/run']
TPU = {'PROJECT': 'p', 'ZONE': 'z', 'IMAGE': 'us-docker.pkg.dev/p/r/bert-jax:tpu', 'POLL_SECONDS': '0'}
# What `supervise` ends with where the machines shall begin again, and where not; 126, 127: there is no such command.
AGAIN = STOPPED, UNSAVED, HUNG, 7, 13, 128 + 6, 128 + 9, 128 + 15
ENDS = *FINAL, GAVE_UP
MISSING = 126, 127
JOB = {'IMAGE': 'registry/bert-jax:1', 'DATA': 'gs://b/data', 'RUN_DIR': 'gs://b/run&1', 'RECIPE': 'large'}


def run(script, *arguments, path=None, **env):
  search = f'{path}:{os.environ["PATH"]}' if path else os.environ['PATH']
  env = os.environ | {'PATH': search} | env
  return subprocess.run(['bash', LAUNCH / script, *arguments], env=env, capture_output=True, text=True, timeout=60)


def fake(directory: pathlib.Path, name: str, body: str) -> None:
  """A program `name` that writes its arguments to NAME.log, then does `body`."""
  path = directory / name
  path.write_text(f'#!/usr/bin/env bash\necho "$*" >> "{directory}/{name}.log"\n{body}\n')
  path.chmod(0o755)


def calls(directory: pathlib.Path, name: str) -> list[str]:
  log = directory / f'{name}.log'
  return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def forbidden(tmp_path):
  """Clouds that may not be reached."""
  for name in ('gcloud', 'kubectl', 'srun', 'scontrol', 'docker'):
    fake(tmp_path, name, 'exit 99')
  return tmp_path


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script):
  assert not subprocess.run(['bash', '-n', script]).returncode
  shellcheck = shutil.which('shellcheck', path=f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}')
  if not shellcheck:
    pytest.skip('shellcheck is not installed')
  result = subprocess.run([shellcheck, '-x', script], cwd=ROOT, capture_output=True, text=True)
  assert not result.returncode, result.stdout
  assert os.access(script, os.X_OK) == (script.name != 'common.sh')


@pytest.mark.parametrize('script, env, wanted', [
    ('cloud_tpu/create.sh', TPU, [
        'queued-resources create bert-jax --node-id bert-jax --accelerator-type v5litepod-16', '--spot']),
    ('cloud_tpu/run.sh', TPU, ['tpu-vm ssh bert-jax --worker all --command', 'docker', '--net', 'pretrain']),
    ('cloud_tpu/train.sh', TPU, ['queued-resources create', 'tpu-vm ssh', r'supervise\ --attempt\ 0\ --\ pretrain',
                              'queued-resources delete bert-jax --force']),
    ('cloud_tpu/delete.sh', TPU, ['queued-resources delete']),
    ('slurm/pretrain.sbatch', {}, ['srun --kill-on-bad-exit=1 --label bert-jax supervise --attempt 0 -- pretrain',
                                   'scontrol requeue JOB']),
])
def test_dry_run_prints_all_and_runs_nothing(script, env, wanted, forbidden):
  result = run(script, *COMMAND, path=forbidden, DRY_RUN='1', **env)
  assert result.returncode == 0, result.stderr
  assert all(text in result.stderr for text in wanted), result.stderr
  assert not list(forbidden.glob('*.log'))


@pytest.mark.parametrize('name', ['PROJECT', 'ZONE', 'IMAGE'])
def test_a_missing_setting_is_named(name, forbidden):
  env = {key: '' if key == name else value for key, value in TPU.items()}
  result = run('cloud_tpu/run.sh', *COMMAND, path=forbidden, **env)
  assert result.returncode and f'set {name}' in result.stderr

# ---------------------------------------------------------------- restarts


GCLOUD = '''
case "$*" in
  *describe*) cat "$(dirname "$0")/state" 2>/dev/null || exit 1 ;;
  *create*) echo ACTIVE > "$(dirname "$0")/state" ;;
  *delete*) rm "$(dirname "$0")/state" ;;
  *ssh*)
    n=$(grep -c ssh "$0.log")
    outcome=$(sed -n "${n}p" "$(dirname "$0")/outcomes")
    if [[ "$outcome" == gone ]]; then echo SUSPENDED > "$(dirname "$0")/state"; exit 255; fi
    for code in $outcome; do echo "bert-jax-exit-code=$code"; done ;;
esac
'''


@pytest.mark.parametrize('outcomes, code, runs, creations', [
    (['0 0'], 0, 1, 1),
    (['gone', '3 3', '137 13', '0 0'], 0, 4, 2),  # taken away, asked to stop, killed: each time it goes on
    (['8 13'], 8, 1, 1),
    (['13 9 3'], 9, 1, 1),
    (['3'] * 5 + ['0'], 0, 6, 1),  # asked to stop is no failure, however often
    (['137', '125', '3', '7', '7', '0'], 0, 6, 1),
    (['125'] * 5, 125, 4, 1),  # nothing was ever heard of it
    (['gone'] * 5, 255, 4, 4),
    *[([f'0 {code}'], code, 1, 1) for code in ENDS],
    *[([f'0 {code}', '0 0'], 0, 2, 1) for code in AGAIN],
])
def test_cloud_tpu_goes_on_after_preemption(outcomes, code, runs, creations, tmp_path):
  fake(tmp_path, 'gcloud', GCLOUD)
  (tmp_path / 'outcomes').write_text('\n'.join(outcomes) + '\n')
  result = run('cloud_tpu/train.sh', *COMMAND, path=tmp_path, **TPU)
  made = calls(tmp_path, 'gcloud')
  assert result.returncode == code, result.stderr
  starts = [call for call in made if 'tpu-vm ssh' in call]
  assert len(starts) == runs
  assert all(f'supervise --attempt {number} -- pretrain' in start for number, start in enumerate(starts))
  assert sum('resources create' in call for call in made) == creations
  assert code or not (tmp_path / 'state').exists()  # done: nothing is left that costs money
  assert code in (0, 255) or (tmp_path / 'state').exists()


def test_cloud_tpu_quotes_the_command(tmp_path):
  fake(tmp_path, 'gcloud', GCLOUD)
  (tmp_path / 'outcomes').write_text('0\n')
  assert run('cloud_tpu/run.sh', *COMMAND, path=tmp_path, CACHE_DIR='gs://b/cache', **TPU).returncode == 0
  remote = calls(tmp_path, 'gcloud')[-1].split('--command ')[1].rsplit(' --project', 1)[0]
  fake(tmp_path, 'sudo', 'for word in "$@"; do printf "[%s]" "$word" >> "$0.words"; done')
  subprocess.run(['bash', '-c', remote], env=os.environ | {'PATH': f'{tmp_path}:{os.environ["PATH"]}'}, check=True)
  words = (tmp_path / 'sudo.words').read_text()
  assert ''.join(f'[{word}]' for word in COMMAND) in words
  assert '[--env][JAX_COMPILATION_CACHE_DIR=gs://b/cache]' in words
  assert '[auth][configure-docker][us-docker.pkg.dev]' in words


@pytest.mark.parametrize('code, before, requeued', [
    *[(code, 0, False) for code in (0, *ENDS, *MISSING)], *[(code, 0, True) for code in AGAIN], (3, 500, True)])
def test_slurm_queues_again(code, before, requeued, tmp_path):
  fake(tmp_path, 'srun', f'exit {code}')
  fake(tmp_path, 'scontrol', '')
  settings = {'SLURM_JOB_ID': '7', 'SLURM_RESTART_COUNT': str(before)}
  result = run('slurm/pretrain.sbatch', *COMMAND[1:], path=tmp_path, **settings)
  assert result.returncode == code
  assert calls(tmp_path, 'scontrol') == ['requeue 7'] * requeued
  assert calls(tmp_path, 'srun') == [
      f'--kill-on-bad-exit=1 --label bert-jax supervise --attempt {before} -- ' + ' '.join(COMMAND)]

# ---------------------------------------------------------------- manifests

# Fields of the kinds that are used here, with the types of their values; (…,): a list of such. '!' in front: required.
VARIABLE = {'!name': str, 'value': str, 'valueFrom': {'!fieldRef': {'!fieldPath': str}}}
CONTAINER = {
    '!name': str, '!image': str, 'args': (str,), 'command': (str,), 'env': (VARIABLE,),
    'ports': ({'!containerPort': int, 'name': str},),
    '!resources': {'!requests': dict, '!limits': dict}, 'volumeMounts': ({'!name': str, '!mountPath': str},)}
POD = {'!restartPolicy': str, '!containers': (CONTAINER,), '!nodeSelector': dict, 'terminationGracePeriodSeconds': int,
       'tolerations': ({'key': str, 'operator': str, 'value': str, 'effect': str},),
       'volumes': ({'!name': str, 'emptyDir': {'medium': str, 'sizeLimit': str}},)}
EXIT_CODES = {'containerName': str, '!operator': str, '!values': (int,)}
POD_RULE = {'!action': str, 'onExitCodes': EXIT_CODES, 'onPodConditions': (dict,)}
JOB_SPEC = {'!completionMode': str, '!parallelism': int, '!completions': int, '!backoffLimit': int,
            'podFailurePolicy': {'!rules': (POD_RULE,)}, '!template': {'metadata': dict, '!spec': POD}}
FAILURE_RULE = {'!action': str, 'onJobFailureReasons': (str,), 'targetReplicatedJobs': (str,), 'name': str}
METADATA = {'!name': str, 'annotations': dict, 'labels': dict, 'namespace': str}
JOB_SET = {'!apiVersion': str, '!kind': str, '!metadata': METADATA, '!spec': {
    'network': {'enableDNSHostnames': bool, 'subdomain': str},
    'failurePolicy': {'maxRestarts': int, 'rules': (FAILURE_RULE,)},
    '!replicatedJobs': ({'!name': str, 'replicas': int, '!template': {'metadata': dict, '!spec': JOB_SPEC}},)}}


def check(value, kind, where: str) -> None:
  if isinstance(kind, dict):
    assert isinstance(value, dict), f'{where} is {value!r}'
    fields = {name.lstrip('!'): (name[0] == '!', inner) for name, inner in kind.items()}
    assert not value.keys() - fields.keys(), f'{where} has unknown {value.keys() - fields.keys()}'
    for name, (required, inner) in fields.items():
      assert name in value or not required, f'{where} lacks {name}'
      if name in value:
        check(value[name], inner, f'{where}.{name}')
  elif isinstance(kind, tuple):
    assert isinstance(value, list) and value, f'{where} is {value!r}'
    for i, item in enumerate(value):
      check(item, kind[0], f'{where}[{i}]')
  else:
    assert type(value) is kind, f'{where} is {value!r}, wanted {kind.__name__}'


def filled(path: pathlib.Path, forbidden) -> dict:
  yaml = pytest.importorskip('yaml')
  result = run('kubernetes/apply.sh', path.stem, path=forbidden, DRY_RUN='1', **JOB)
  assert result.returncode == 0 and not calls(forbidden, 'kubectl'), result.stderr
  assert 'kubectl apply -f -' in result.stderr and not re.search(r'__\w+__', result.stdout)
  return yaml.safe_load(result.stdout)


@pytest.mark.parametrize('path', MANIFESTS, ids=lambda path: path.stem)
def test_manifests(path, forbidden):
  manifest = filled(path, forbidden)
  check(manifest, JOB_SET, path.stem)
  assert (manifest['apiVersion'], manifest['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
  [replicated] = manifest['spec']['replicatedJobs']
  job = replicated['template']['spec']
  pod = job['template']['spec']
  [container] = pod['containers']
  assert job['completionMode'] == 'Indexed' and job['parallelism'] == job['completions']
  assert pod['restartPolicy'] == 'Never'
  assert all(rule['onExitCodes']['containerName'] == container['name'] for rule in job['podFailurePolicy']['rules'])
  mounted = {mount['name'] for mount in container.get('volumeMounts', [])}
  assert mounted == {volume['name'] for volume in pod.get('volumes', [])}
  names = manifest['metadata']['name'], replicated['name'], container['name']
  assert all(re.fullmatch(r'[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?', name) for name in names)
  assert container['image'] == JOB['IMAGE']
  [rule] = job['podFailurePolicy']['rules']
  assert rule['action'] == 'FailJob' and rule['onExitCodes']['operator'] == 'In'
  assert tuple(rule['onExitCodes']['values']) == (*ENDS, *MISSING) and not set(ENDS) & set(AGAIN)
  own, command = container['args'][:4], container['args'][4:]
  assert own == ['supervise', '--attempt', '$(ATTEMPT)', '--']
  assert command[:6] == ['pretrain', 'large', '--data', 'gs://b/data', '--run-dir', 'gs://b/run&1']
  assert all(('value' in variable) != ('valueFrom' in variable) for variable in container['env'])
  sources = {variable['name']: variable.get('valueFrom') for variable in container['env']}
  assert sources['ATTEMPT'] == {'fieldRef': {'fieldPath': "metadata.annotations['jobset.sigs.k8s.io/restart-attempt']"}}
  variables = {variable['name']: variable.get('value') for variable in container['env']}
  assert variables['JAX_COMPILATION_CACHE_DIR'] == 'gs://b/run&1-compilation-cache'
  assert container['resources']['requests'] == container['resources']['limits']
  kind, = container['resources']['limits']
  check_tpu(job, pod, container) if kind == 'google.com/tpu' else check_gpu(manifest, replicated, job, container)


def check_tpu(job, pod, container):
  sides = [int(side) for side in pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x')]
  assert 'cloud.google.com/gke-tpu-accelerator' in pod['nodeSelector']
  assert sides[0] * sides[1] == job['parallelism'] * container['resources']['limits']['google.com/tpu']
  assert not any(word.startswith('--distributed') for word in container['args'])  # GKE tells JAX


def check_gpu(manifest, replicated, job, container):
  from bert_jax.config import Distributed
  flags = dict(zip(container['args'][10::2], container['args'][11::2]))
  assert flags.pop('--distributed.process-id') == '$(JOB_COMPLETION_INDEX)'
  host, port = flags['--distributed.coordinator'].split(':')
  name = manifest['metadata']['name']
  assert host == f'{name}-{replicated["name"]}-0-0.{name}'  # JobSet's host names
  assert manifest['spec']['network']['enableDNSHostnames']
  assert int(port) in [port['containerPort'] for port in container['ports']]
  distributed = Distributed(flags['--distributed.coordinator'], int(flags['--distributed.processes']), 0)
  assert distributed.processes == job['parallelism']


def test_every_setting_has_its_reason_beside_it():
  """A comment on its line or on the line above."""
  setting = re.compile(r'export \w+=|^unset |--env |^ENV |- name: [A-Z]|^ +--[a-z]')
  for path in [*SCRIPTS, *MANIFESTS, LAUNCH / 'Dockerfile']:
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
      if setting.search(line) and not line.lstrip().startswith('#') and 'run gcloud' not in lines[number - 1]:
        assert '#' in line or '#' in lines[number - 1], f'{path.name}:{number + 1}: {line}'


def test_xla_knows_the_flags():
  """XLA ends a program that has a flag which it does not know."""
  flags = sorted({flag for path in [*SCRIPTS, *MANIFESTS] for flag in re.findall(r'--xla_\w+=\w+', path.read_text())})
  assert flags
  env = os.environ | {'XLA_FLAGS': ' '.join(flags)}
  result = subprocess.run([sys.executable, '-c', 'import jax; jax.devices()'], env=env, capture_output=True, text=True)
  assert not result.returncode, result.stderr


def test_container_copies_what_the_package_is():
  assert re.search(r'^COPY \. \.$', (LAUNCH / 'Dockerfile').read_text(), re.M)
  kept = {line[1:] for line in (ROOT / '.dockerignore').read_text().splitlines() if line.startswith('!')}
  packages = {path.parent.name for path in ROOT.glob('*/__init__.py')} - {'tests'}
  files = {'pyproject.toml', 'setup.cfg', 'docs/package.md', 'bert_jax_command.py', 'LICENSE', '*.whl'}
  assert packages | files == kept
  assert all((ROOT / name).exists() for name in kept - {'*.whl'})
  extras = (ROOT / 'setup.cfg').read_text()
  assert all(re.search(rf'^{name} =$', extras, re.M) for name in ('input', 'tpu', 'gpu'))


# ---------------------------------------------------------------- in the package


def test_the_package_holds_every_launcher():
  """setup.cfg's patterns find the files that are here, and those alone."""
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  listed = [path for pattern in setup['options.package_data']['launch'].split() for path in LAUNCH.glob(pattern)]
  assert sorted(listed) == sorted([*SCRIPTS, *LAUNCH.rglob('*.yaml'), LAUNCH / 'Dockerfile'])


def test_launch_files_writes_launchers_that_work(tmp_path, capsys):
  target = tmp_path / 'new' / 'launch'
  for _ in range(2):  # what is there already does not matter
    assert cli.run(['launch-files', str(target)]) == 0
  written = sorted(path for path in target.rglob('*') if path.is_file())
  here = [*SCRIPTS, *MANIFESTS, LAUNCH / 'Dockerfile']
  assert {path.relative_to(target): path.read_bytes() for path in written} == {
      path.relative_to(LAUNCH): path.read_bytes() for path in here}
  assert capsys.readouterr().out.splitlines()[:len(written)] == list(map(str, written))
  printed = subprocess.run([target / 'cloud_tpu/train.sh', *COMMAND], env=os.environ | TPU | {'DRY_RUN': '1'},
                           capture_output=True, text=True, timeout=60)
  assert printed.returncode == 0 and 'queued-resources create' in printed.stderr


def test_launch_files_keeps_what_somebody_changed(tmp_path):
  (tmp_path / 'slurm').mkdir()
  (tmp_path / 'slurm/pretrain.sbatch').write_text('mine')
  with pytest.raises(ConfigError, match='pretrain.sbatch differ'):
    cli.run(['launch-files', str(tmp_path)])
  assert [path.name for path in tmp_path.rglob('*')] == ['slurm', 'pretrain.sbatch']
  with pytest.raises(DataError, match='is a file, wanted a folder'):
    cli.run(['launch-files', str(tmp_path / 'slurm/pretrain.sbatch')])

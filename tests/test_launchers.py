"""Launchers: lint, what a dry run prints, what is in the package. Nothing here reaches a cloud."""

import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys

import packaging.requirements
import pytest
from launchers import AGAIN, COMMAND, ENDS, LAUNCH, MANIFESTS, MISSING, ROOT, SCRIPTS, SOURCED, forbid, run
from test_cloud_tpu import TPU

from bert_jax.errors import ConfigError
from input_pipeline.errors import DataError
from launch import cli, requirements


@pytest.fixture
def forbidden(tmp_path):
  return forbid(tmp_path)


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script):
  assert not subprocess.run(['bash', '-n', script]).returncode
  shellcheck = shutil.which('shellcheck', path=f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}')
  if not shellcheck:
    pytest.skip('shellcheck is not installed')
  result = subprocess.run([shellcheck, '-x', script], cwd=ROOT, capture_output=True, text=True)
  assert not result.returncode, result.stdout
  assert os.access(script, os.X_OK) == (script.name not in SOURCED)


@pytest.mark.parametrize('script, env, wanted', [
    ('cloud_tpu/create.sh', TPU, [
        'queued-resources create bert-jax --node-id bert-jax --accelerator-type v5litepod-16', '--spot',
        '--runtime-version v2-alpha-tpuv5-lite']),
    ('cloud_tpu/run.sh', TPU, ['tpu-vm ssh bert-jax --worker all', '--command', 'docker', '--net', 'pretrain']),
    ('cloud_tpu/train.sh', TPU, ['queued-resources create', 'tpu-vm ssh', r'supervise\ --attempt\ 0\ --\ pretrain',
                              'queued-resources delete bert-jax-run-b88b97ef --force']),
    ('cloud_tpu/delete.sh', TPU, ['queued-resources delete']),
    ('slurm/pretrain.sbatch', {}, ['srun --kill-on-bad-exit=1 --label', 'supervise --attempt 0 -- pretrain',
                                   'scontrol requeue JOB', 'scontrol update JobId=JOB JobName=run']),
])
def test_dry_run_prints_all_and_runs_nothing(script, env, wanted, forbidden):
  result = run(script, *COMMAND, path=forbidden, DRY_RUN='1', **env)
  assert result.returncode == 0, result.stderr
  assert all(text in result.stderr for text in wanted), result.stderr
  assert not list(forbidden.glob('*.log'))


@pytest.mark.parametrize('command, said', [
    (['pretrain', 'base', '--data', 'd', '--run-dir', 'r', '--batch.siz', '8'], 'did you mean --batch.size'),
    (['pretrain', 'bass', '--data', 'gs://b/d', '--run-dir', 'gs://b/r'], "did you mean 'base'"),
    (['pretrain', 'base', '--run-dir', 'gs://b/r'], 'missing .* --data'), (['pretrain', '--run-dir', 'r'], 'no recipe'),
    (['pretrain', 'base', '--data', 'd', '--run-dir', 'r', '--model.heads', '7'], 'not a multiple of model.heads 7'),
    (['pretrain', 'base', '--data', 'd', '--run-dir', 'r', '--skip-steps', '1:2'], 'rewind-to'),
    (['finetune', 'colla', '--data', 'd', '--run-dir', 'r'], "no task 'colla'"),
    (['finetune', 'cola', '--data', 'd', '--run-dir', 'r', '--epocs', '2'], 'did you mean --epochs')])
def test_a_command_is_read_and_not_started(command, said, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ConfigError, match=said):
    cli.run(['supervise', '--dry-run', '--', *command])
  assert cli.run(['supervise', '--dry-run', '--', 'pretrain', 'base', '--data', 'd', '--run-dir', 'r']) == 0
  assert not list(tmp_path.iterdir())


def test_all_launchers_mean_the_same_by_an_exit_code():
  """Which may pass, and which of several is a start's: of what comes again, else of the first failure."""
  for script in ('shared.sh', 'slurm/pretrain.sbatch'):
    text = (LAUNCH / script).read_text()
    functions = ''.join(re.search(rf'^{name}\(\) \{{.*?^\}}$', text, re.M | re.S)[0] + '\n'
                        for name in ('may_pass', 'code_of'))
    ask = f'{functions}\nfor code in {{0..255}}; do if may_pass $code; then echo $code; fi; done; echo of'
    for codes in ('0 0', '143 2', '13 137 1', '0 7 13', '3 143', '9 8'):
      ask += f'; code_of {codes} || echo none'
    said = subprocess.run(['bash', '-c', ask], capture_output=True, text=True, check=True).stdout
    passing, chosen = said.split('of')
    found = set(map(int, passing.split()))
    assert {*AGAIN, 142, 139} <= found and not found & {0, *ENDS, *MISSING, 125, 130, 255}
    assert chosen.split()[1:] == ['2', '1', '7', '3', '9'] and chosen.split()[0] in ('0', 'none')


def test_every_setting_has_its_reason_beside_it():
  """A comment on its line or on the line above."""
  setting = re.compile(r'export \w+=|^unset |--env |^ENV |- name: [A-Z]|^ +--[a-z][-a-z]*( |$)')
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
  kept = {line[1:] for line in (ROOT / '.dockerignore').read_text().splitlines() if line.startswith('!')}
  packages = {path.parent.name for path in ROOT.glob('*/__init__.py')} - {'tests'}
  files = {'pyproject.toml', 'setup.cfg', 'docs/package.md', 'bert_jax_command.py', 'LICENSE', '*.whl'}
  assert packages | files == kept
  assert all((ROOT / name).exists() for name in kept - {'*.whl'})


def stages() -> list[list[str]]:
  """The instructions of each stage of the Dockerfile."""
  lines = (LAUNCH / 'Dockerfile').read_text().replace('\\\n', '').splitlines()
  found: list[list[str]] = [[]]
  for line in (line for line in lines if line and not line.startswith('#')):
    found += [[]] if line.startswith('FROM') else []
    found[-1].append(line)
  return found


def test_an_edit_installs_nothing_again():
  """Nothing of the source is in the image before what it wants is; that changes with its list alone."""
  _, package, image = stages()
  assert 'COPY . .' in package and 'COPY . .' not in image
  steps = [line for line in image if line.split()[0] in ('COPY', 'RUN')]
  wanted = ['tini', 'useradd', 'COPY --from=package /requirements.txt', '--requirement', '/wheels /wheels', '--no-deps']
  assert len(steps) == len(wanted) and all(text in step for text, step in zip(wanted, steps))


def test_the_image_is_pinned_and_not_roots_and_hears_signals():
  before, package, image = stages()
  assert re.fullmatch(r'ARG BASE=python:3\.\d+\.\d+-slim-[a-z]+', before[0])
  assert package[0] == 'FROM ${BASE} AS package' and image[0] == 'FROM ${BASE}'
  assert 'USER bert' in image and image[-1] == 'ENTRYPOINT ["tini", "--", "bert-jax"]'
  extras = re.search(r'^ARG EXTRAS=(.*)$', '\n'.join(package), re.M)[1].split(',')
  setup = (ROOT / 'setup.cfg').read_text()
  assert all(re.search(rf'^{name} =$', setup, re.M) for name in (*extras, 'gpu', 'gcs', 'beam'))


def test_requirements_of_an_image():
  """As pip would find them for these extras."""
  everything = [packaging.requirements.Requirement(line) for line in importlib.metadata.requires('bert_jax')]
  for extras in (['input', 'tpu'], ['input', 'gpu', 'gcs'], ['input', 'beam'], []):
    wanted = {(item.name, frozenset(item.extras), str(item.specifier)) for item in everything
              if item.marker is None or any(item.marker.evaluate({'extra': extra}) for extra in ('', *extras))}
    found = [packaging.requirements.Requirement(line) for line in requirements.of(extras)]
    assert all(item.marker is None or 'extra' not in str(item.marker) for item in found)
    assert wanted == {(item.name, frozenset(item.extras), str(item.specifier)) for item in found
                      if item.marker is None or item.marker.evaluate()}
  with pytest.raises(ValueError, match='no extra tup: wanted some of .*tpu'):
    requirements.of(['tup'])


@pytest.mark.slow
def test_the_first_stage_by_hand(tmp_path):
  """What the Dockerfile runs to find out what is to be installed, on what .dockerignore lets through."""
  source = tmp_path / 'source'
  source.mkdir()
  for name in ('bert_jax', 'input_pipeline', 'launch'):
    shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
  for name in ('pyproject.toml', 'setup.cfg', 'bert_jax_command.py', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  (source / 'docs').mkdir()
  shutil.copy(ROOT / 'docs/package.md', source / 'docs')
  command, = [line[4:] for line in stages()[1] if line.startswith('RUN')]
  for place in ('/wheels', '/unpacked', '/requirements.txt'):
    command = re.sub(rf'(?<![\w/]){place}\b', f'{tmp_path}{place}', command)
  folder = os.path.dirname(sys.executable)
  env = os.environ | {'PACKAGE': '.', 'EXTRAS': 'input,tpu', 'PATH': f'{folder}:{os.environ["PATH"]}', 'PYTHONPATH': ''}
  subprocess.run(['bash', '-ec', command], cwd=source, env=env, check=True, timeout=300)
  said = (tmp_path / 'requirements.txt').read_text().splitlines()
  assert 'jax[tpu]' in said and any(line.startswith('tensorflow-cpu') for line in said) and len(said) > 15
  wheel, = (tmp_path / 'wheels').iterdir()
  names = subprocess.run(['unzip', '-l', wheel], capture_output=True, text=True, check=True).stdout
  assert 'launch/shared.sh' in names and 'launch/kubernetes/tpu.yaml' in names


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

"""What the tests of launchers share: made-up clouds, and commands of launchers among them."""

import os
import pathlib
import subprocess

from bert_jax.errors import FINAL, GAVE_UP, HUNG, STOPPED, UNSAVED

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / 'launch'
SCRIPTS = sorted([*LAUNCH.rglob('*.sh'), *LAUNCH.rglob('*.sbatch')])
SOURCED = 'common.sh', 'shared.sh'
MANIFESTS = sorted((LAUNCH / 'kubernetes').glob('*.yaml'))
COMMAND = ['pretrain', 'base', '--data', 'gs://b/with space', '--run-dir', 'gs://b/run']
# What `supervise` ends with where the machines shall begin again, and where not; 126, 127: there is no such command.
AGAIN = STOPPED, UNSAVED, HUNG, 7, 13, 128 + 6, 128 + 9, 128 + 15
ENDS = *FINAL, GAVE_UP
MISSING = 126, 127
CLOUDS = 'gcloud', 'kubectl', 'srun', 'scontrol', 'docker'


def run(script, *arguments, path=None, **env):
  """A launcher, which finds programs in `path` first."""
  return subprocess.run(['bash', LAUNCH / script, *arguments], env=environment(path, **env), capture_output=True,
                        text=True, timeout=120)


def environment(path=None, **env) -> dict[str, str]:
  """Of a launcher; without another, `bert-jax` is not here."""
  search = f'{path}:{os.environ["PATH"]}' if path else os.environ['PATH']
  return os.environ | {'PATH': search, 'BERT_JAX': 'bert-jax-that-is-not-here'} | env


def fake(directory: pathlib.Path, name: str, body: str) -> None:
  """A program `name` that writes its arguments to NAME.log, then does `body`."""
  path = directory / name
  path.write_text(f'#!/usr/bin/env bash\necho "$*" >> "{directory}/{name}.log"\n{body}\n')
  path.chmod(0o755)


def calls(directory: pathlib.Path, name: str) -> list[str]:
  log = directory / f'{name}.log'
  return log.read_text().splitlines() if log.exists() else []


def forbid(directory: pathlib.Path) -> pathlib.Path:
  """Clouds that may not be reached."""
  for name in CLOUDS:
    fake(directory, name, 'exit 99')
  return directory


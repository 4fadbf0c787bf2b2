"""Which versions run here: of the project, of what computes, and the commit where it is a checkout."""

import configparser
import contextlib
import functools
import importlib.metadata
import pathlib
import platform
import subprocess

PROJECT = 'bert_jax'
PACKAGES = 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy'
ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 10  # that git may take


def of(package: str) -> str:
  """'' where it is not installed."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return ''


def project() -> str:
  """Of the project: as it is installed, or else as its sources say."""
  written = configparser.ConfigParser()
  with contextlib.suppress(OSError, configparser.Error):
    written.read(ROOT / 'setup.cfg', encoding='utf-8')
  return written.get('metadata', 'version', fallback='') or of(PROJECT)


@functools.cache
def commit() -> str:
  """Of the checkout that runs, with -dirty where files of it were changed; '' where it is none, or git is not here."""
  if not (ROOT / '.git').exists():
    return ''
  asked = ['git', '-C', str(ROOT), 'describe', '--always', '--dirty', '--abbrev=12', '--exclude', '*']
  with contextlib.suppress(OSError, subprocess.SubprocessError):
    return subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS, check=True).stdout.strip()
  return ''


def versions() -> dict[str, str]:
  """{'bert_jax': '0.1.0', 'jax': … 'python': '3.12.1'}; what is not installed is left out."""
  found = {PROJECT: project()} | {name: of(name) for name in PACKAGES} | {'python': platform.python_version()}
  return {name: version for name, version in found.items() if version}

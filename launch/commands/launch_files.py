"""`bert-jax launch-files`: the scripts, manifests and Dockerfile that start a pod, out of the installed package."""

import dataclasses
import importlib.resources
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from typing import Annotated

import tyro

from bert_jax.errors import require
from input_pipeline import storage
from launch.commands import flags

ENDINGS = '.sh', '.sbatch', '.yaml', 'Dockerfile'


@dataclasses.dataclass(frozen=True)
class LaunchFiles:
  """Write the launchers to a folder: cloud_tpu/, kubernetes/, slurm/ and the Dockerfile of their image."""
  directory: Annotated[str, tyro.conf.Positional]
  """Where they go; what they say of themselves goes by the name `launch`. A file that is there and differs is kept."""


def launch_files(argv: list[str]) -> int:
  """Writes all of them, or none where something else is in the way."""
  args = flags.parse(LaunchFiles, argv, 'launch-files')
  directory = storage.local(args.directory).expanduser()
  files = {directory / name: file.read_bytes() for name, file in packaged()}
  storage.probe(directory, 'the folder')
  changed = [str(target) for target, content in files.items()
             if target.is_dir() or (target.exists() and target.read_bytes() != content)]
  require(not changed, f'{", ".join(changed)} differ from what would be written: name another folder, or remove them')
  for target, content in files.items():
    storage.make_folder(target.parent)
    storage.write_whole(target, content)
    if content.startswith(b'#!'):
      target.chmod(0o755)
    print(target)
  return 0


def packaged(folder: Traversable | None = None, before: str = '') -> Iterator[tuple[str, Traversable]]:
  """(name below `launch`, file) of every launcher in the package, in order."""
  for entry in sorted((folder or importlib.resources.files('launch')).iterdir(), key=lambda entry: entry.name):
    if entry.is_dir():
      yield from packaged(entry, f'{before}{entry.name}/')
    elif entry.name.endswith(ENDINGS):
      yield before + entry.name, entry

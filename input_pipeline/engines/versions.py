"""What of a machine decides the bytes of shards: the project's own code, and the packages under it."""

import contextlib
import functools
import hashlib
import importlib.metadata
import pathlib

import input_pipeline

_PACKAGES = ('numpy', 'tokenizers', 'sentencepiece', 'sentencex', 'jieba', 'tensorflow-datasets',
             'warcio', 'resiliparse')


def packages() -> dict[str, str]:
  """The version of each that is installed."""
  found = {}
  for name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found


@functools.cache
def project() -> str:
  """A hash of the code of input_pipeline: machines with the same one do the same."""
  root, digest = pathlib.Path(input_pipeline.__file__).parent, hashlib.sha256()
  for file in sorted(root.rglob('*.py')):
    digest.update(f'{file.relative_to(root).as_posix()} '.encode() + hashlib.sha256(file.read_bytes()).digest())
  return digest.hexdigest()[:16]

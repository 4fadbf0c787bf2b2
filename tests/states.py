"""States of runs that must be the same to the bit: where they are not, what may lead to the cause is said.

Which arrays differ, and whether one of the two still is as it began; where the logs part; which compiled programs were
read from JAX's cache, and how the machine was.
"""

import os
import pathlib
import time
from collections.abc import Iterator

import jax
import numpy as np

from bert_jax import compiled, metrics
from bert_jax.parallel.mesh import path_name

RECENT = 3600  # seconds: entries of the cache that may have been read halfway
FIGURES = 'step', 'kind', 'loss', 'gradient_norm', 'learning_rate', 'skipped_steps'


def named(tree) -> dict[str, np.ndarray]:
  return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(jax.device_get(tree))}


def unmoved(params) -> list[str]:
  """The biases and scales that still are what they began with: zeros, or ones."""
  return [name for name, value in named(params).items()
          if name.endswith(('/bias', '/scale')) and (value == name.endswith('/scale')).all()]


def assert_same(one, other, *runs: pathlib.Path) -> None:
  """Two trees have the same arrays, bit for bit. `runs`: the directories that they are of, for what is said."""
  one, other = named(one), named(other)
  assert one.keys() == other.keys()
  differ = [name for name in one if one[name].dtype != other[name].dtype or one[name].shape != other[name].shape
            or one[name].tobytes() != other[name].tobytes()]
  assert not differ, '\n'.join(
      [f'{len(differ)} of {len(one)} arrays differ', *(difference(name, one[name], other[name]) for name in differ),
       *parting(*runs), *circumstances()])


def difference(name: str, one: np.ndarray, other: np.ndarray) -> str:
  """'encoder/…/bias float32[2, 16]: 32 numbers, by up to 0.001; the second is the same number throughout'"""
  kinds = [f'{value.dtype}{list(value.shape)}' for value in (one, other)]
  if kinds[0] != kinds[1]:
    return f'  {name}: {kinds[0]} and {kinds[1]}'
  apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
  flat = [f'; the {which} is {value.flat[0]} throughout' for which, value in (('first', one), ('second', other))
          if value.size > 1 and (value == value.flat[0]).all()]
  return f'  {name} {kinds[0]}: {np.count_nonzero(apart)} numbers, by up to {apart.max():.3g}{"".join(flat)}'


def parting(*runs: pathlib.Path) -> Iterator[str]:
  """The first lines of their logs that are not the same."""
  lines = [[{name: line.get(name) for name in FIGURES} for line in metrics.read(run)] for run in runs]
  at = next((at for at, found in enumerate(zip(*lines)) if any(line != found[0] for line in found)), None)
  if runs and at is None:
    yield f'the logs of {", ".join(map(str, runs))} are the same'
  elif at is not None:
    yield from (f'{run}: {found[at]}' for run, found in zip(runs, lines))


def circumstances() -> Iterator[str]:
  """JAX's cache, and how busy the machine is."""
  times, folder = compiled.TIMES, jax.config.jax_compilation_cache_dir
  yield (f'{times.programs} programs were compiled by this process or read from {folder}, {times.found} of them read; '
         f'load {os.getloadavg()}')
  for file in sorted(pathlib.Path(folder or '/none').glob(f'jit_train_step-*{compiled.SUFFIX}')):
    if (age := time.time() - file.stat().st_mtime) < RECENT:
      yield f'  {file.name}: {file.stat().st_size} bytes, written {age:.0f} s ago'

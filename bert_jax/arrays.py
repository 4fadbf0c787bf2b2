"""The arrays of a checkpoint: read by Orbax, compared before and after."""

import concurrent.futures
import functools
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec as P

from bert_jax import manifest as manifest_lib, program as program_lib, steps
from bert_jax.errors import CheckpointError, DamageError
from bert_jax.parallel.mesh import path_name
from input_pipeline import storage


def tree_of(state: program_lib.TrainState) -> dict:
  """What of a state is saved: its step is the manifest's."""
  return {'params': state.params, 'opt_state': state.opt_state, 'skipped': state.skipped}


def describe(tree) -> dict[str, str]:
  """{'params/encoder/…': 'float32[2, 16]'}"""
  return {path_name(path): f'{np.dtype(leaf.dtype).name}{list(leaf.shape)}'
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def finite(tree, limit: float = np.inf) -> bool:
  """Whether every number of a tree is one, and none beyond `limit`; a reduction on the devices, whose answer every
  process reads."""
  leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
  meshes = [leaf.sharding.mesh for leaf in leaves if isinstance(getattr(leaf, 'sharding', None), NamedSharding)]
  return not int(strange_counter(NamedSharding(meshes[0], P()) if meshes else None)(leaves, np.float32(limit)))


@functools.cache
def strange_counter(everywhere: NamedSharding | None) -> Callable[[list, np.float32], jax.Array]:
  """Compiled: how many numbers of some arrays are not finite, or beyond a limit."""
  count = lambda leaf, limit: jnp.sum(~(jnp.isfinite(leaf) & (jnp.abs(leaf) <= limit)), dtype=jnp.int32)
  total = lambda leaves, limit: sum((count(leaf, limit) for leaf in leaves), jnp.zeros((), jnp.int32))
  return jax.jit(total, out_shardings=everywhere)


def read_step(step: steps.Step, target: dict, beside: bool = False) -> dict:
  """As `read`; with `beside` the large files of the step are compared with its manifest while they are read, and
  DamageError is raised where they are others, whatever was read."""
  if not beside or step.manifest is None:
    return read(step, target)
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    files = manifest_lib.large(step.directory, step.manifest.files)
    verdict = pool.submit(manifest_lib.check, step.directory, files, quick=True)
    try:
      return read(step, target)
    finally:
      try:
        verdict.result()  # which counts more than an error of who read it
      except OSError as error:
        raise DamageError(str(error)) from error


def read(step: steps.Step, target: dict) -> dict:
  """The arrays of a step, of the tree of `target`. Raises DamageError where they are others, or not finite.

  Orbax would cast to the wanted type silently, and change no value that is damaged: so what is compared is compared
  before.
  """
  try:
    if step.manifest:
      check_arrays(step.manifest.arrays, describe(target))
      found = read_arrays(step.directory / steps.STATE, target)
    else:
      found = read_old(step, target)
  except DamageError:
    raise
  except Exception as error:
    if step.manifest or jax.process_count() > 1:  # its files are sound, so this may pass; or the others restored it
      raise CheckpointError(f'{step.directory} cannot be restored: {first_line(error)}') from error
    raise DamageError(f'it cannot be restored: {first_line(error)}') from error
  if not finite(found):
    raise DamageError('it holds values that are not finite')
  return found


def read_old(step: steps.Step, target: dict) -> dict:
  """A step from before there were manifests: parameters and optimizer's state lie in a folder each."""
  found = {}
  if 'params' in target:
    found['params'] = read_arrays(step.directory / 'params', target['params'])
  if 'opt_state' in target:
    rest = {name: target[name] for name in ('opt_state', 'skipped')}
    found |= read_arrays(step.directory / 'opt_state', rest)
  return found


def read_arrays(directory: storage.Path, target) -> dict:
  """What `target` names of the arrays that Orbax wrote to a folder."""
  reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
  name = os.fspath(storage.absolute(directory))  # Orbax takes no other
  stored = reader.metadata(name).item_metadata.tree if directory.name != steps.STATE else None
  if stored is not None:  # its tree has other names where it has other containers
    found, wanted = describe(stored), describe(target)
    check_arrays(found, {name: kind for name, kind in wanted.items() if name in found})
  arguments = ocp.checkpoint_utils.construct_restore_args(target)
  return reader.restore(name, args=ocp.args.PyTreeRestore(target, restore_args=arguments, partial_restore=True))


def check_arrays(found: dict[str, str], wanted: dict[str, str]) -> None:
  """Raises DamageError for the first array that is missing, or of another type or shape."""
  for name, kind in wanted.items():
    if found.get(name) != kind:
      raise DamageError(f'it holds {name} as {found[name]}, wanted {kind}' if name in found else f'it lacks {name}')


def without_trace(record: logging.LogRecord) -> bool:
  """Takes the traceback from what Orbax logs of an error that it raises too: we tell it in a sentence."""
  if 'orbax' in record.pathname:
    record.exc_info = record.exc_text = None
  return True


def not_of_saves(record: logging.LogRecord) -> bool:
  """Drops what asyncio prints of arrays' writes that failed beside the one that Orbax raises, of one task or of several
  that were gathered."""
  said = record.getMessage()
  trace = ''.join(traceback.format_exception(*record.exc_info)) if record.exc_info else ''
  return not ('exception was never retrieved' in said and 'orbax' in said + trace)


class Hook:
  """A sys.unraisablehook that leaves out what tensorstore prints where a save has failed and its event loop is gone;
  the failure itself is told by who waits for the save."""

  def __init__(self, inner: Callable):
    self.inner = inner

  def __call__(self, raised: Any) -> None:
    if not (isinstance(raised.exc_value, RuntimeError) and str(raised.exc_value) == 'Event loop is closed'):
      self.inner(raised)


def quiet() -> None:
  """No tracebacks of threads that save, from here on."""
  logging.getLogger('absl').addFilter(without_trace)
  logging.getLogger('asyncio').addFilter(not_of_saves)
  if not isinstance(sys.unraisablehook, Hook):
    sys.unraisablehook = Hook(sys.unraisablehook)


def first_line(error: BaseException) -> str:
  return f'{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ""}'

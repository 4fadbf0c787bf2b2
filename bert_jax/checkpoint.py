"""The checkpoints of a run, by Orbax: save, restore on any mesh, retention.

RUN/checkpoints/STEP/ holds params and opt_state (arrays) and meta (JSON). A step is complete once Orbax has written its
marker.
"""

import dataclasses
import os
from collections.abc import Callable

import jax
import numpy as np
import orbax.checkpoint as ocp

from bert_jax import config as cfg, program as program_lib, run_directory
from bert_jax.errors import CheckpointError, require
from bert_jax.model import build
from bert_jax.objectives import Objective
from bert_jax.parallel.mesh import path_name
from input_pipeline import storage


@dataclasses.dataclass(frozen=True)
class Meta:
  """What a checkpoint holds beside arrays; plain JSON."""
  step: int
  minutes: float  # of training, over all resumptions
  window: dict[str, dict[str, float]]  # the sums since the last line of the log: a resumed run logs the same lines
  data_fingerprint: str  # of all that decides the batches
  unsent: tuple[dict, ...] = ()  # lines of the log up to this step that no object holds yet: of runs in a bucket


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A checkpoint's parameters, with what is needed to use them."""
  model: cfg.Model
  objective: Objective  # whose heads `params` has
  params: dict
  tokenizer: Callable  # () -> input_pipeline.vocabulary.tokenizer.Tokenizer; called only for text: it needs a library
  record: run_directory.Record | None = None  # None: the checkpoint is no run's
  step: int | None = None
  fresh: tuple[str, ...] = ()  # parameters that the checkpoint lacked, and that have initial values
  labels: tuple[str, ...] = ()  # the classes of a task, in the order of their scores

  def untrained(self) -> tuple[str, ...]:
    """The heads that no term trained; of a checkpoint of others that has no terms nothing is known."""
    return self.objective.untrained() if self.objective.terms else ()


def manager(run_dir: storage.PathLike, keep: int = 3) -> ocp.CheckpointManager:
  """Saves in the background and keeps the newest few.

  COMMIT_FILE: neither a save nor a deletion that is cut off leaves a step that looks whole.
  """
  mode = ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)
  options = ocp.CheckpointManagerOptions(max_to_keep=keep, atomicity_options=mode, enable_async_checkpointing=True)
  handlers = {'params': ocp.StandardCheckpointHandler(), 'opt_state': ocp.StandardCheckpointHandler(),
              'meta': ocp.JsonCheckpointHandler()}
  directory = storage.absolute(run_dir) / run_directory.CHECKPOINTS
  storage.prepare_for_orbax(directory)
  return ocp.CheckpointManager(os.fspath(directory), options=options, item_handlers=handlers)


def save(checkpoints: ocp.CheckpointManager, state: program_lib.TrainState, meta: Meta) -> None:
  """Begins to save; what it holds is copied before this returns, so the state may be donated.

  Raises CheckpointError, also for the save before this one.
  """
  arrays = {'opt_state': state.opt_state, 'skipped': state.skipped}
  try:
    # force: when to save is decided elsewhere, and Orbax would ask for preemption by another count than the loop
    saved = checkpoints.save(meta.step, force=True, args=ocp.args.Composite(
        params=ocp.args.StandardSave(state.params), opt_state=ocp.args.StandardSave(arrays),
        meta=ocp.args.JsonSave(dataclasses.asdict(meta))))
  except Exception as error:
    raise CheckpointError(
        f'a checkpoint could not be written to {checkpoints.directory}: {first_line(error)}') from error
  if not saved:
    raise CheckpointError(f'step {meta.step} was not saved: {checkpoints.directory} holds step '
                          f'{checkpoints.latest_step()} already')


def finish(checkpoints: ocp.CheckpointManager) -> None:
  """Waits until the last checkpoint is written. Raises CheckpointError."""
  try:
    checkpoints.wait_until_finished()
    checkpoints.check_for_errors()
  except Exception as error:
    raise CheckpointError(
        f'the last checkpoint could not be written to {checkpoints.directory}: {first_line(error)}') from error


def restore(checkpoints: ocp.CheckpointManager,
            abstract: program_lib.TrainState) -> tuple[program_lib.TrainState, Meta] | None:
  """The newest state on the layout of `abstract`, whatever mesh it was saved from; None where nothing was saved.

  Raises CheckpointError.
  """
  step = checkpoints.latest_step()
  if step is None:
    return None
  target = {'params': abstract.params, 'opt_state': {'opt_state': abstract.opt_state, 'skipped': abstract.skipped}}
  saved = _restore(checkpoints, step, target)
  meta = Meta(**saved.meta)
  count = jax.device_put(np.int32(meta.step), abstract.step.sharding)
  return program_lib.TrainState(count, saved.opt_state['skipped'], saved.params, saved.opt_state['opt_state']), meta


def _restore(checkpoints, step: int, target: dict):
  try:
    _check_types(checkpoints, step, target)
    arrays = {name: ocp.args.StandardRestore(tree) for name, tree in target.items()}
    return checkpoints.restore(step, args=ocp.args.Composite(**arrays, meta=ocp.args.JsonRestore()))
  except CheckpointError:
    raise
  except Exception as error:
    raise CheckpointError(f'step {step} of {checkpoints.directory} cannot be restored: {first_line(error)}') from error


def _check_types(checkpoints, step: int, target: dict) -> None:
  """Orbax casts to the wanted dtype silently; a cast state is another state."""
  stored = checkpoints.item_metadata(step)
  for name, tree in target.items():
    types = lambda tree: {path_name(path): leaf.dtype for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    found, wanted = types(stored[name].tree), types(tree)
    for leaf in wanted.keys() & found.keys():
      if found[leaf] != wanted[leaf]:
        raise CheckpointError(f'step {step} of {checkpoints.directory} holds {name} {leaf} as {found[leaf]}, '
                              f'wanted {wanted[leaf]}')


def load(path: storage.PathLike, step: int | None = None) -> Loaded:
  """The parameters of a run's newest step, or of `step`, on one device.

  `path`: RUN or RUN/checkpoints/STEP, of any kind of run. Raises ConfigError, CheckpointError.
  """
  path = storage.path(path)
  if run_directory.is_step(path):
    require(step is None or step == int(path.name),
            f'{path} is step {path.name}, and step {step} was asked for: name one')
    path, step = path.parent.parent, int(path.name)
  record = run_directory.read(path)
  objective = record.config.learns
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  _, shapes, _ = build.describe(record.config.model, objective.heads)
  params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
  with manager(path) as checkpoints:
    steps = checkpoints.all_steps()
    command = 'pretrain' if record.kind == 'pretrained' else 'finetune'
    require(bool(steps), f'{path} has no checkpoint yet: run `bert-jax {command}` on it first')
    step = max(steps) if step is None else step
    require(step in steps, f'{path} has no checkpoint of step {step}; it has {", ".join(map(str, sorted(steps)))}')
    saved = _restore(checkpoints, step, {'params': params})

  def tokenizer():
    from input_pipeline.vocabulary import tokenizer
    return tokenizer.load(path, record.vocabulary.lower_case)

  return Loaded(record.config.model, objective, saved.params, tokenizer, record, step,
                labels=getattr(record.config, 'labels', ()))


def first_line(error: BaseException) -> str:
  return f'{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ""}'

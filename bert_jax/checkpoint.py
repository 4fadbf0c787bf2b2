"""The checkpoints of a run: saved in the background by Orbax, restored on any mesh, only where every byte is as saved.

RUN/checkpoints/STEP/state/ holds parameters and optimizer state as Orbax writes them, STEP/manifest.json all else: see
manifest.py. steps.py tells what in the folder is ours and sound.
"""

import contextlib
import dataclasses
import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from bert_jax import (
    arrays,
    config as cfg,
    distributed,
    manifest as manifest_lib,
    metrics,
    program as program_lib,
    rewind,
    run_directory,
    steps,
)
from bert_jax.errors import CheckpointError, DamageError, NonFiniteError, PeerError, require
from bert_jax.model import build
from bert_jax.objectives import Objective
from input_pipeline import storage
from input_pipeline.errors import StorageError

TRIES = 3  # saves in a row that fail, after which a run ends
ROOM = 1.1  # free space that is wanted on a disk, in sizes of what is saved
LEAVE_SECONDS = 20  # that a run which ends by an error waits for a save
MEET_SECONDS = 1200  # that the processes of a run wait for the slowest one's part of a save
GOING_ON, WRITTEN, FAILED = range(3)  # of a save
NOTHING, REFUSED = -1, -2  # in place of a step


@dataclasses.dataclass(frozen=True)
class Meta:
  """What a checkpoint holds beside arrays; plain JSON."""
  step: int
  minutes: float  # of training, over all resumptions
  window: dict[str, dict[str, float]]  # the sums since the last line of the log: a resumed run logs the same lines
  data_fingerprint: str  # of all that decides the batches
  unsent: tuple[dict, ...] = ()  # lines of the log up to this step that its file, or no object, holds yet
  left_out: rewind.Ranges = ()  # batches that no step reads
  rewinds: tuple[list[int], ...] = ()  # that were done: Rewind.key


def meta_from(fields: dict[str, Any]) -> Meta:
  """From JSON, which knows no tuples."""
  meta = Meta(**fields)
  left_out = tuple((first, end) for first, end in meta.left_out)
  return dataclasses.replace(meta, unsent=tuple(meta.unsent), left_out=left_out, rewinds=tuple(meta.rewinds))


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
  told: Any = None  # of an export of ours: the convert.card.ModelCard of the run that it is from

  def untrained(self) -> tuple[str, ...]:
    """The heads that have initial values: no term trained them, nor did what the run began with.

    Of a checkpoint of others that has no terms nothing is known.
    """
    idle = self.objective.untrained() if self.objective.terms else ()
    origin = self.record.origin if self.record else None
    if origin is None:
      return () if self.told is not None else idle  # an export has no such heads
    fresh = {name.split('/')[0] for name in origin.fresh}
    return tuple(head for head in idle if head in fresh or head in origin.untrained)


class Saving:
  """A save on its way: a thread whose error is kept. It does not hold up the end of the process."""

  def __init__(self, step: int, work: Callable[[], None]):
    self.step, self.error = step, None

    def run() -> None:
      try:
        work()
      except BaseException as error:
        self.error = error

    self.thread = threading.Thread(target=run, name='checkpoint', daemon=True)
    self.thread.start()


class Checkpoints:
  """A run's checkpoints, to restore from and save to; of several processes the first writes all but the arrays.

  As a context manager it ends when the last save is written. Raises CheckpointError there where that failed.
  """

  def __init__(self, run_dir: storage.PathLike, keep: int = 3):
    self.run_dir, self.keep = storage.absolute(run_dir), keep
    self.directory = self.run_dir / run_directory.CHECKPOINTS
    self.saving: Saving | None = None
    self.saves, self.meeting = 0, distributed.Meeting(0)
    self.failures = 0  # saves in a row
    self.there: set[str] | None = None  # names in the folder, once it was looked at
    self.ours: set[int] = set()  # steps of this run, whole when they were saved
    self.pinned: int | None = None  # a step that stays, however old it is
    self.sound: set[int] = set()  # of these, those that this process has restored from or written
    mode = ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)  # renames nothing
    arrays.quiet()
    meet = lambda *, key, timeout_ms: self.meeting.meet(timeout_ms / 1000)  # of the save at hand
    self.orbax = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler(), atomicity_options=mode,
                                       async_options=ocp.options.AsyncOptions(barrier_sync_fn=meet))

  @functools.cached_property
  def fingerprints(self) -> dict[str, str]:
    return run_directory.fingerprints(self.run_dir)

  def all_steps(self) -> list[int]:
    """The steps that were saved whole, by their manifests."""
    return [step.number for step in steps.look(self.run_dir, self.fingerprints) if step.usable]

  def latest_step(self) -> int | None:
    return max(self.all_steps(), default=None)

  def wait(self, seconds: float | None = None) -> None:
    """Waits for the save on its way. Raises CheckpointError where it failed."""
    if (saving := self.saving) is None:
      return
    saving.thread.join(seconds)
    if saving.thread.is_alive():
      return
    self.saving = None
    if saving.error is not None:
      self.failures += 1
      if distributed.is_first():  # a full disk stays full while the half of a step is there
        with contextlib.suppress(OSError, StorageError):
          if steps.look_at(self.directory / str(saving.step), self.fingerprints).kind == steps.UNFINISHED:
            remove(self, saving.step)
      raise CheckpointError(f'the checkpoint of step {saving.step} could not be written to {self.directory}: '
                            f'{arrays.first_line(saving.error)}') from saving.error
    self.failures = 0

  def standing(self) -> str:
    """What this process knows of the newest checkpoint, once the save on its way has ended."""
    try:
      self.wait(LEAVE_SECONDS)
    except CheckpointError as error:
      return str(error)
    if self.saving is not None:
      return f'the checkpoint of step {self.saving.step} was still on its way after {LEAVE_SECONDS} s'
    newest = max(self.sound, default=None)
    return 'no checkpoint was saved' if newest is None else f'the checkpoint of step {newest} is finite'

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind, error, trace) -> None:
    if error is None:
      finish(self)
    elif jax.process_count() == 1 or isinstance(error, NonFiniteError):  # others may wait for what never comes
      try:
        self.wait(LEAVE_SECONDS)
      except CheckpointError as second:
        print(f'bert-jax: {second}', file=sys.stderr, flush=True)
    if self.saving is None:
      self.orbax.close()


def manager(run_dir: storage.PathLike, keep: int = 3) -> Checkpoints:
  """The checkpoints of a run, of which the newest few are kept. Raises DataError where Orbax cannot write there."""
  storage.prepare_for_orbax(run_dir)
  return Checkpoints(run_dir, keep)

# ---------------------------------------------------------------- save


def save(checkpoints: Checkpoints, state: program_lib.TrainState, meta: Meta) -> None:
  """Begins to save; what it holds is copied before this returns, so the state may be donated.

  What fails is told by `failed`, by the next `save`, or at the end by `finish`. Raises NonFiniteError where the state
  is not finite: such a state is never saved.
  """
  failed(checkpoints, wait=True)
  tree = arrays.tree_of(state)
  if not arrays.finite(tree):
    raise NonFiniteError(f'the parameters or the optimizer\'s state are not finite at step {meta.step}, so nothing was '
                         f'saved: {metrics.REMEDY}')
  directory = checkpoints.directory / str(meta.step)
  manifest = manifest_lib.Manifest(meta.step, checkpoints.fingerprints, meta=dataclasses.asdict(meta),
                                   arrays=arrays.describe(tree), code=manifest_lib.version())
  error: Exception | None = None
  checkpoints.saves += 1
  checkpoints.meeting = distributed.Meeting(checkpoints.saves)
  try:
    if distributed.is_first():
      make_room(checkpoints, tree)
      make_way(checkpoints, directory)
      manifest_lib.begin(directory, manifest)
  except Exception as caught:
    error = caught
  if distributed.process_0_says(error is None):
    try:
      checkpoints.orbax.save(os.fspath(directory / steps.STATE), args=ocp.args.PyTreeSave(tree))
    except Exception as caught:
      error = caught
  elif error is None:
    error = CheckpointError('process 0 cannot write')
  checkpoints.saving = Saving(meta.step, functools.partial(complete, checkpoints, directory, manifest, error))


def failed(checkpoints: Checkpoints, wait: bool = False) -> bool:
  """Whether a save has failed since this was asked last, so that the next step is to be saved; it is told.

  Of several processes all ask at the same steps, and have the same answer. Raises CheckpointError where it failed TRIES
  times in a row.
  """
  saving = checkpoints.saving
  if saving is None:
    return False
  if wait or not saving.thread.is_alive():
    saving.thread.join()
  state = GOING_ON if saving.thread.is_alive() else FAILED if saving.error else WRITTEN
  if (agreed := distributed.process_0_tells(state)) == GOING_ON:
    return False
  try:
    checkpoints.wait()
  except CheckpointError as error:
    if agreed != FAILED:
      raise PeerError(f'{error}; process 0 says that it was') from error
    if checkpoints.failures >= TRIES:
      raise
    if distributed.is_first():
      print(f'bert-jax: {error}; trying again', file=sys.stderr, flush=True)
    return True
  if agreed == FAILED:
    raise PeerError(f'process 0 could not write step {saving.step}, and this one did not hear of it')
  return False


def finish(checkpoints: Checkpoints) -> None:
  """Waits until the last checkpoint is written. Raises CheckpointError, on every process."""
  error = None
  try:
    checkpoints.wait()
  except CheckpointError as caught:
    error = caught
  good = distributed.process_0_says(error is None)
  if error or not good:
    raise error or CheckpointError(f'process 0 could not write the last checkpoint to {checkpoints.directory}')


def make_room(checkpoints: Checkpoints, tree) -> None:
  """Raises CheckpointError where the disk has no room for a checkpoint."""
  wanted, free = ROOM * sum(leaf.nbytes for leaf in jax.tree.leaves(tree)), storage.free_bytes(checkpoints.directory)
  if free < wanted:
    raise CheckpointError(f'{free / 1e6:,.1f} MB are free, and a checkpoint wants {wanted / 1e6:,.1f} MB: free some '
                          'space, or lower run.keep_checkpoints')


def make_way(checkpoints: Checkpoints, directory: storage.Path) -> None:
  """Removes the half step of a save that failed; what else stands where a step will be is moved aside, not deleted."""
  if checkpoints.there is None:
    checkpoints.there = steps.names(checkpoints.directory)
  if directory.name in checkpoints.there:
    if steps.look_at(directory, checkpoints.fingerprints).kind == steps.UNFINISHED:
      remove(checkpoints, int(directory.name))
    else:
      place = next(name for number in range(1000) if (name := f'{directory.name}.aside{number or ""}')
                   not in checkpoints.there)
      storage.move(directory, checkpoints.directory / place)
      checkpoints.there.add(place)
      print(f'bert-jax: {directory} was no sound checkpoint: it is {place} now', file=sys.stderr, flush=True)
  checkpoints.there.add(directory.name)


def complete(checkpoints: Checkpoints, directory: storage.Path, manifest: manifest_lib.Manifest,
             error: Exception | None) -> None:
  """What follows in the background: the arrays written, the manifest, and old steps removed.

  Raises on all processes what one of them raises.
  """
  meeting = checkpoints.meeting
  try:
    if error is not None:
      raise error
    checkpoints.orbax.wait_until_finished()
    if distributed.is_first():
      manifest_lib.write(directory, dataclasses.replace(manifest, finished=True, files=manifest_lib.take(directory)))
  except BaseException as caught:
    meeting.fail(caught, MEET_SECONDS)
    raise
  meeting.meet(MEET_SECONDS)
  if not distributed.is_first():
    return
  checkpoints.ours.add(manifest.step)
  checkpoints.sound.add(manifest.step)
  # Only what this process knows to be sound counts as kept: a damaged step is no reason to remove a sound one.
  kept = sorted(checkpoints.sound)[-checkpoints.keep:]
  try:
    for step in sorted(step for step in checkpoints.ours if len(kept) == checkpoints.keep and step < kept[0]):
      if step != checkpoints.pinned:
        remove(checkpoints, step)
  except (OSError, StorageError) as failure:  # the new step is there
    print(f'bert-jax: an old checkpoint could not be removed: {failure}', file=sys.stderr, flush=True)


def remove(checkpoints: Checkpoints, step: int) -> None:
  """Removes a step of ours."""
  manifest_lib.remove(checkpoints.directory / str(step), manifest_lib.Manifest(step, checkpoints.fingerprints))
  for known in (checkpoints.ours, checkpoints.sound):
    known.discard(step)
  (checkpoints.there or set()).discard(str(step))

# ---------------------------------------------------------------- restore


def restore(checkpoints: Checkpoints, abstract: program_lib.TrainState,
            back: rewind.Rewind | None = None) -> tuple[program_lib.TrainState, Meta] | None:
  """The newest sound state on the layout of `abstract`, whatever mesh it was saved from; None where nothing was saved.

  Process 0 looks for it, and all restore the same. A step that is damaged, or not this run's, is told and left as it
  is. What is left of saves that were cut off is removed: so only who trains may ask. `back`: to this step instead,
  once; those after it are removed. Raises DamageError where steps are there and none is sound, ConfigError where there
  is no step to go back to, CheckpointError.
  """
  first = distributed.is_first()
  found, later = steps.look(checkpoints.run_dir, checkpoints.fingerprints) if first else [], []
  if first:
    checkpoints.there = steps.names(checkpoints.directory)
    checkpoints.ours = {step.number for step in found if step.usable}
    for step in found:
      if step.kind == steps.UNFINISHED:
        remove(checkpoints, step.number)
    for name in filter(manifest_lib.is_half, list(checkpoints.there)):
      storage.remove_tree(checkpoints.directory / name)
    if back is not None and not any(step.usable and back.key in rewinds_of(step) for step in found):
      require(back.step in checkpoints.ours, f'there is no checkpoint of step {back.step} to go back to: wanted one of '
              f'{", ".join(map(str, sorted(checkpoints.ours))) or "none"} for --rewind-to')
      found, later = [step for step in found if step.number == back.step], [
          step.number for step in found if step.usable and step.number > back.step]
  rejected: list[steps.Step] = []
  alone = jax.process_count() == 1  # several would not all see alike what is damaged
  search = steps.sound(found, rejected, beside=alone, quick=True)
  target = arrays.tree_of(abstract)
  while True:
    chosen = next(search, None) if first else None
    number = distributed.process_0_tells(chosen.number if chosen else REFUSED if rejected else NOTHING)
    if number == NOTHING:
      return None
    if number == REFUSED:
      raise (steps.refusal(checkpoints.directory, rejected) if first
             else PeerError('process 0 found no sound checkpoint'))
    step = chosen or steps.look_at(checkpoints.directory / str(number), checkpoints.fingerprints)
    try:
      saved, meta = arrays.read_step(step, target, alone), meta_from(steps.meta_of(step))
    except DamageError as error:  # by what all processes see alike
      rejected.append(dataclasses.replace(step, reason=str(error)))
      continue
    if back is not None and back.key not in meta.rewinds:
      meta = dataclasses.replace(meta, left_out=back.left_out(meta.left_out), rewinds=(*meta.rewinds, back.key))
    if first:
      steps.tell(checkpoints.run_dir, step, rejected)
      checkpoints.sound = {number}
      for after in later:
        remove(checkpoints, after)
    count = jax.device_put(np.int32(meta.step), abstract.step.sharding)
    return program_lib.TrainState(count, saved['skipped'], saved['params'], saved['opt_state']), meta


def rewinds_of(step: steps.Step) -> list[list[int]]:
  return steps.meta_of(step).get('rewinds', [])


def load(path: storage.PathLike, step: int | None = None) -> Loaded:
  """The parameters of a run's newest sound step, or of `step`, on one device; of a fine-tuned run the best one's.

  `path`: RUN or RUN/checkpoints/STEP, of any kind of run. Raises ConfigError, DamageError, CheckpointError.
  """
  path = storage.path(path)
  if run_directory.is_step(path):
    require(step is None or step == int(path.name),
            f'{path} is step {path.name}, and step {step} was asked for: name one')
    path, step = path.parent.parent, int(path.name)
  record = run_directory.read(path)
  storage.prepare_for_orbax(path)
  objective = record.config.learns
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  _, shapes, _ = build.describe(record.config.model, objective.heads)
  params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
  best = best_step(path, record) if step is None else None
  try:
    chosen, saved = newest(path, record, best or step, {'params': params})
  except DamageError as error:
    if best is None:
      raise
    print(f'bert-jax: {error}: the newest step is taken', file=sys.stderr, flush=True)
    chosen, saved = newest(path, record, None, {'params': params})

  def tokenizer():
    from input_pipeline.vocabulary import tokenizer
    found = tokenizer.of(path, record.vocabulary)
    require(found.sha256 == record.vocabulary.sha256,
            f'the vocabulary in {path} is not the one that the run began with: put the vocabulary of its data back')
    return found

  return Loaded(record.config.model, objective, saved['params'], tokenizer, record, chosen.number,
                labels=getattr(record.config, 'labels', ()))


def best_step(run_dir: storage.Path, record: run_directory.Record) -> int | None:
  """The step of a fine-tuned run whose evaluation was best, where it is kept; None: the newest is to be taken."""
  if record.kind != 'finetuned':
    return None
  found = metrics.best(run_dir, record.config.best)  # type: ignore[union-attr]
  there = {step.number for step in steps.look(run_dir, run_directory.fingerprints(run_dir)) if step.usable}
  return found[0] if found and found[0] in there else None


def newest(run_dir: storage.Path, record: run_directory.Record, number: int | None,
           target: dict) -> tuple[steps.Step, dict]:
  """The newest sound step, or the one of that number, and what it holds of `target`."""
  found = [step for step in steps.look(run_dir, run_directory.fingerprints(run_dir)) if step.kind != steps.UNFINISHED]
  command = 'pretrain' if record.kind == 'pretrained' else 'finetune'
  require(bool(found), f'{run_dir} has no checkpoint yet: run `bert-jax {command}` on it first')
  if number is not None:
    names = ', '.join(str(step.number) for step in found)
    found = [step for step in found if step.number == number]
    require(bool(found), f'{run_dir} has no checkpoint of step {number}; it has {names}')
  rejected: list[steps.Step] = []
  alone = jax.process_count() == 1
  for step in steps.sound(found, rejected, beside=alone, quick=True):
    try:
      saved = arrays.read_step(step, target, alone)
    except DamageError as error:
      rejected.append(dataclasses.replace(step, reason=str(error)))
      continue
    steps.tell(run_dir, step, rejected)
    return step, saved
  raise steps.refusal(run_dir / run_directory.CHECKPOINTS, rejected)

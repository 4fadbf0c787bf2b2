"""A run's directory and its checkpoints: save, restore on any mesh, retention.

RUN/config.json           what the run is, its data and vocabulary; written once
RUN/vocab.txt, spm.model  the vocabulary, so that the run can be used without its data
RUN/checkpoints/STEP/     params, opt_state (arrays) and meta (JSON): a step is complete once Orbax has written its marker
RUN/metrics.jsonl, tensorboard/, loss.png, export/
"""

import dataclasses
import functools
import json
from collections.abc import Callable

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from bert_jax import config as cfg, step as step_lib
from bert_jax.errors import CheckpointError, DriftError
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline import records

CONFIG, CHECKPOINTS = 'config.json', 'checkpoints'


@dataclasses.dataclass(frozen=True)
class Meta:
  """What a checkpoint holds beside arrays; plain JSON."""
  step: int
  minutes: float  # of training, over all resumptions
  window: dict[str, float]  # the sums since the last line of the log, so that a resumed run logs what an undisturbed one does
  data_fingerprint: str  # of the shards, the vocabulary and the batch settings


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A checkpoint's parameters, with what is needed to use them."""
  model: cfg.Model
  params: dict
  tokenizer: Callable  # () -> input_pipeline.tokenizer.Tokenizer; called only where there is text: it needs a tokenizer library
  run: 'Run | None' = None
  step: int | None = None


@dataclasses.dataclass(frozen=True)
class Run:
  """What config.json says."""
  config: cfg.Config
  data: str  # the directory of the shards
  vocabulary: records.Vocabulary

# ---------------------------------------------------------------- the run directory


def open_run(run_dir: epath.PathLike, config: cfg.Config, data_dir: epath.PathLike, vocabulary: records.Vocabulary,
             shards: epath.PathLike) -> bool:
  """Makes RUN, or checks that it is this run's. Returns whether it was there. Raises DriftError, ConfigError.

  `shards`: the directory in `data_dir`, or it itself, that holds the vocabulary's files.
  A directory that holds anything but a run of ours is never written to.
  """
  run_dir, shards = epath.Path(run_dir), epath.Path(shards)
  if (run_dir / CONFIG).exists():
    old = read_run(run_dir)
    changes = cfg.drift(old.config, config)
    if old.vocabulary != vocabulary:
      changes.append(f'vocabulary: SHA-256 {old.vocabulary.sha256[:12]} -> {vocabulary.sha256[:12]}')
    if changes:
      raise DriftError(f'{run_dir} is a run of another configuration ({"; ".join(changes)}): '
                       'name another --run-dir, or give the settings that it began with')
    return True
  if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
    raise cfg.ConfigError(f'{run_dir} exists and is no run of ours (it has no {CONFIG}): nothing was written; name another --run-dir')
  if jax.process_index() == 0:
    run_dir.mkdir(parents=True, exist_ok=True)
    for name in (records.VOCABULARY, records.SENTENCEPIECE):
      if (shards / name).exists():
        (run_dir / name).write_bytes((shards / name).read_bytes())
    fields = dataclasses.asdict(Run(config, str(data_dir), vocabulary))
    (run_dir / (CONFIG + '.tmp')).write_text(json.dumps(fields, indent=2) + '\n')
    (run_dir / (CONFIG + '.tmp')).rename(run_dir / CONFIG)
  cfg.require((run_dir / CONFIG).exists(), f'process {jax.process_index()} does not see the {CONFIG} that process 0 wrote to {run_dir}: '
              '--run-dir must be on storage that all hosts share, gs:// for one')
  return False


def is_step(path: epath.Path) -> bool:
  """Whether `path` is RUN/checkpoints/STEP."""
  return path.parent.name == CHECKPOINTS and path.name.isdigit()


def run_of(path: epath.Path) -> epath.Path | None:
  """The run directory that `path` is, or that it is a step of; None where it is neither."""
  run_dir = path.parent.parent if is_step(path) else path
  return run_dir if (run_dir / CONFIG).exists() and 'vocabulary' in json.loads((run_dir / CONFIG).read_text()) else None


def read_run(run_dir: epath.PathLike) -> Run:
  """What a run is. Raises ConfigError where there is none."""
  path = epath.Path(run_dir) / CONFIG
  cfg.require(path.exists(), f'{run_dir} is no run directory: it has no {CONFIG}')
  try:
    fields = json.loads(path.read_text())
    return Run(cfg.from_json(cfg.Config, fields['config']), fields['data'], records.Vocabulary(**fields['vocabulary']))
  except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
    raise cfg.ConfigError(f'{path} is damaged: {type(error).__name__}: {error}') from error

# ---------------------------------------------------------------- save and restore


def manager(run_dir: epath.PathLike, keep: int = 3) -> ocp.CheckpointManager:
  """Saves in the background and keeps the newest few.

  COMMIT_FILE: neither a save nor a deletion that is cut off leaves a step that looks whole.
  """
  mode = ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)
  options = ocp.CheckpointManagerOptions(max_to_keep=keep, atomicity_options=mode, enable_async_checkpointing=True)
  handlers = {'params': ocp.StandardCheckpointHandler(), 'opt_state': ocp.StandardCheckpointHandler(), 'meta': ocp.JsonCheckpointHandler()}
  return ocp.CheckpointManager(epath.Path(run_dir).resolve() / CHECKPOINTS, options=options, item_handlers=handlers)


def save(checkpoints: ocp.CheckpointManager, state: step_lib.TrainState, meta: Meta) -> None:
  """Begins to save; what it holds is copied before this returns, so the state may be donated.

  Raises CheckpointError, also for the save before this one.
  """
  arrays = {'opt_state': state.opt_state, 'skipped': state.skipped}
  try:
    # force: when to save is decided elsewhere, and Orbax would ask for preemption by another count than train.Loop
    saved = checkpoints.save(meta.step, force=True, args=ocp.args.Composite(
        params=ocp.args.StandardSave(state.params), opt_state=ocp.args.StandardSave(arrays),
        meta=ocp.args.JsonSave(dataclasses.asdict(meta))))
  except Exception as error:
    raise CheckpointError(f'a checkpoint could not be written to {checkpoints.directory}: {first_line(error)}') from error
  if not saved:
    raise CheckpointError(f'step {meta.step} was not saved: {checkpoints.directory} holds step {checkpoints.latest_step()} already')


def restore(checkpoints: ocp.CheckpointManager, abstract: step_lib.TrainState) -> tuple[step_lib.TrainState, Meta] | None:
  """The newest state on the layout of `abstract`, whatever mesh it was saved from; None where nothing was saved. Raises CheckpointError."""
  step = checkpoints.latest_step()
  if step is None:
    return None
  target = {'params': abstract.params, 'opt_state': {'opt_state': abstract.opt_state, 'skipped': abstract.skipped}}
  saved = _restore(checkpoints, step, target)
  meta = Meta(**saved.meta)
  count = jax.device_put(np.int32(meta.step), abstract.step.sharding)
  return step_lib.TrainState(count, saved.opt_state['skipped'], saved.params, saved.opt_state['opt_state']), meta


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
  """Orbax casts to the wanted dtype without a word; a cast state is another state."""
  stored = checkpoints.item_metadata(step)
  for name, tree in target.items():
    names = lambda tree: {mesh_lib.path_name(path): leaf.dtype for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    found, wanted = names(stored[name].tree), names(tree)
    for leaf in wanted.keys() & found.keys():
      if found[leaf] != wanted[leaf]:
        raise CheckpointError(f'step {step} of {checkpoints.directory} holds {name} {leaf} as {found[leaf]}, wanted {wanted[leaf]}')


def load(path: epath.PathLike, step: int | None = None) -> Loaded:
  """The parameters of a run's newest step, or of `step`, on one device. `path`: RUN or RUN/checkpoints/STEP.

  Raises ConfigError, CheckpointError.
  """
  path = epath.Path(path)
  if is_step(path):
    path, step = path.parent.parent, int(path.name)
  run = read_run(path)
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  _, state = jax.eval_shape(functools.partial(step_lib.create, run.config), jax.random.key(0))
  params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), state.params)
  with manager(path) as checkpoints:
    steps = checkpoints.all_steps()
    cfg.require(bool(steps), f'{path} has no checkpoint yet: run `bert-jax pretrain` on it first')
    step = max(steps) if step is None else step
    cfg.require(step in steps, f'{path} has no checkpoint of step {step}; it has {", ".join(map(str, sorted(steps)))}')
    saved = _restore(checkpoints, step, {'params': params})

  def tokenizer():
    from input_pipeline.vocabulary import tokenizer
    return tokenizer.load(path, run.vocabulary.lower_case)

  return Loaded(run.config.model, saved.params, tokenizer, run, step)


def first_line(error: BaseException) -> str:
  return f'{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ""}'

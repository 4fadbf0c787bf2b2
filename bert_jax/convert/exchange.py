"""Any checkpoint in, any format out: the two tables that the commands go by, and parameters for a run to begin with."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax import checkpoint, metrics, phases, run_directory
from bert_jax.checkpoint import Loaded
from bert_jax.config import Config
from bert_jax.convert import card as card_lib, foreign, google, growing, huggingface, names, programs, proof
from bert_jax.convert.card import ModelCard
from bert_jax.convert.directory import Verify
from bert_jax.errors import ConfigError, require
from bert_jax.fields import flat
from bert_jax.model import build
from bert_jax.model.build import Heads
from bert_jax.model.settings import Model
from bert_jax.objectives import Objective
from bert_jax.parallel.mesh import path_name
from input_pipeline import records, storage
from input_pipeline.errors import DataError

Tell = Callable[[str], object]
silent: Tell = lambda line: None


@dataclasses.dataclass(frozen=True)
class Importer:
  """How one kind of checkpoint is read."""
  recognizes: Callable[[storage.Path], bool]
  read: Callable[[storage.Path, Heads | None], Loaded]
  """(path, wanted heads, None: those it has) -> Loaded; params have None for each array that lacks of the wanted, which
  `fresh` names."""
  what: str
  """For a message: what such a checkpoint is."""


def named(params) -> dict[str, Any]:
  """{'encoder/blocks/query/kernel': array …}"""
  return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(params)}


def read_run(path: storage.Path, heads: Heads | None = None) -> Loaded:
  """A run or one of its steps, with other heads where they are asked for: those that it has, and None for others."""
  loaded = checkpoint.load(path)
  if heads is None:
    return loaded
  shapes = {name: leaf.shape for name, leaf in named(build.describe(loaded.model, heads)[1]).items()}
  arrays = named(loaded.params)
  # A head of another size is another head: all of it is initialised.
  other = {name.split('/')[0] for name, shape in shapes.items() if name not in arrays or arrays[name].shape != shape}
  kept = {name: leaf for name, leaf in arrays.items() if name.split('/')[0] not in other}
  return dataclasses.replace(loaded, objective=Objective({}, heads), params=names.tree(kept, loaded.model, heads),
                             fresh=tuple(name for name in shapes if name not in kept))


IMPORTERS: dict[str, Importer] = {
    'run': Importer(lambda path: run_directory.run_of(path) is not None, read_run,
                    f'a run directory, RUN/{run_directory.CHECKPOINTS}/STEP'),
    huggingface.KIND: Importer(huggingface.is_export, huggingface.read, 'a Hugging Face directory'),
    google.KIND: Importer(lambda path: google.prefix_of(path) is not None, google.read,
                          "the prefix of one of TensorFlow 1 by Google's code, DIR/bert_model.ckpt"),
}


def format_of(path: storage.PathLike) -> str:
  """The key of IMPORTERS that reads a checkpoint. Raises ConfigError where it is none, DataError."""
  path = storage.path(path)
  foreign.check_files(path)
  found = next((name for name, importer in IMPORTERS.items() if importer.recognizes(path)), None)
  if found is None:
    wanted = card_lib.listed([importer.what for importer in IMPORTERS.values()], 'or')
    raise ConfigError(f'{path} is no checkpoint{"" if path.exists() else ", for it does not exist"}: wanted {wanted}')
  return found


def read(path: storage.PathLike, heads: Heads | None = None) -> Loaded:
  """What a checkpoint has; None in place of what it lacks. Raises ConfigError, DataError, CheckpointError."""
  return IMPORTERS[format_of(path)].read(storage.path(path), heads)


def load(path: storage.PathLike, heads: Heads | None = None, seed: int = 0) -> Loaded:
  """A checkpoint ready for use: a run directory, one of its steps, or a directory of another format.

  `heads`: those that are wanted; by default those that it has. What lacks of wanted ones is initialised from `seed` and
  named in `fresh`. Raises ConfigError where it is none, DataError, CheckpointError.
  """
  loaded = read(path, heads)
  if not loaded.fresh:
    return loaded
  lacking = set(loaded.fresh)

  @jax.jit
  def initial(key):
    params = build.build(loaded.model, loaded.objective.heads, key)[1]
    return {name: leaf for name, leaf in named(params).items() if name in lacking}

  arrays = named(loaded.params) | initial(jax.random.key(seed))
  return dataclasses.replace(loaded, params=names.tree(arrays, loaded.model, loaded.objective.heads))

# ---------------------------------------------------------------- parameters to begin with

# What a run may have otherwise than the checkpoint it begins with: how it is computed, and what only training sees.
FREE = ('hidden_dropout', 'attention_dropout', 'initializer_range', 'neighbour_heads', 'dtype', 'attention', 'remat',
        'unroll', 'plain')


@dataclasses.dataclass(frozen=True)
class Initial:
  """Parameters for a run to begin with."""
  params: Any  # host arrays in the tree of build.describe; None where the caller has to initialise
  fresh: tuple[str, ...]  # the names of those
  step: int | None  # of the run that they are from; None of another format
  record: run_directory.Record | None  # of that run
  changes: tuple[str, ...] = ()  # a line for each that made them fit
  untrained: tuple[str, ...] = ()  # heads that it has with initial values


def initial_parameters(path: storage.PathLike, settings: Model, heads: Heads,
                       vocabulary: records.Vocabulary | None = None, tokens: Callable[[], Sequence[str]] | None = None,
                       longer: str | None = None) -> Initial:
  """The parameters that a checkpoint has for a model of these settings and heads, wherever it is from.

  `vocabulary`: that of the data, and `tokens`, () -> its tokens, where it may extend the checkpoint's; `longer`: a key
  of growing.LONGER, where the model may have more positions. Raises ConfigError, by the setting to change, where the
  model or the vocabulary is another; a head that is not there, or is of another size, is no error, but named in
  `fresh`. Raises DataError, CheckpointError.
  """
  before = read(path, heads)
  loaded, changes = growing.grown(path, before, settings, tokens, longer)
  found, wanted = flat(loaded.model, 'model.'), flat(settings, 'model.')
  other = [name for name in wanted if name.removeprefix('model.') not in FREE and found[name] != wanted[name]]
  require(not other, f'{path} does not fit: '
          + '; '.join(f'it has {name} {found[name]}, wanted {wanted[name]}' for name in other)
          + f': set {" ".join(flag(name, found[name]) for name in other)}, or name another checkpoint')
  if loaded.model.vocab_size == before.model.vocab_size:
    check_vocabulary(path, loaded, vocabulary)
  return Initial(jax.tree.map(np.asarray, loaded.params), loaded.fresh, loaded.step, loaded.record, changes,
                 untrained_of(path))


def untrained_of(path: storage.PathLike) -> tuple[str, ...]:
  """The heads of a run that have initial values."""
  run_dir = run_directory.run_of(path)
  if run_dir is None:
    return ()
  record = run_directory.read(run_dir)
  return Loaded(record.config.model, record.config.learns, {}, lambda: None, record).untrained()


def flag(name: str, value) -> str:
  """The flag that gives a setting this value."""
  if isinstance(value, bool):
    group, _, own = name.rpartition('.')
    return f'--{group}.{own if value else f"no-{own}"}'
  return f'--{name} {value}'


def check_vocabulary(path: storage.PathLike, loaded: Loaded, vocabulary: records.Vocabulary | None) -> None:
  """Raises ConfigError where ids would stand for other tokens. Other formats need not have a vocabulary."""
  if vocabulary is None:
    return
  try:
    sha256 = loaded.record.vocabulary.sha256 if loaded.record else loaded.tokenizer().sha256
  except DataError:
    return
  require(sha256 == vocabulary.sha256,
          f'{path} has another vocabulary than the data (SHA-256 {sha256[:12]}, of the data {vocabulary.sha256[:12]}): '
          f'prepare the data with the checkpoint\'s, `bert-jax prepare --vocabulary {path}`')

# ---------------------------------------------------------------- out


def to_huggingface(loaded: Loaded, source: storage.Path, output: storage.Path, layout: str,
                   verify: Verify) -> storage.Path:
  return huggingface.export_checkpoint(output, loaded, card(loaded, source), True, layout, verify)


def to_google(loaded: Loaded, source: storage.Path, output: storage.Path, layout: str, verify: Verify) -> storage.Path:
  return google.export_checkpoint(output, loaded, True, verify, card(loaded, source))


def to_program(format: str, loaded: Loaded, source: storage.Path, output: storage.Path, layout: str,
               verify: Verify) -> storage.Path:
  return programs.export_checkpoint(format, output, loaded, True, verify)


# (checkpoint, where it is from, where to, layout, what is called on the files before they appear) -> where they are
Exporter = Callable[[Loaded, storage.Path, storage.Path, str, Verify], storage.Path]
EXPORTERS: dict[str, Exporter] = {huggingface.KIND: to_huggingface, google.KIND: to_google} | {
    format: functools.partial(to_program, format) for format in programs.FILES}
RUNS: dict[str, proof.Run] = proof.RUNS | programs.RUNS


def export(format: str, source: storage.PathLike, output: storage.PathLike | None = None,
           architecture: str | None = None, layout: str = huggingface.LAYOUTS[0], tell: Tell = silent) -> storage.Path:
  """Writes the checkpoint `source` in `format` to `output`, RUN/export by default, and returns where.

  `architecture`: the class of transformers whose heads go along; `layout`: of huggingface. The files are read again and
  run by another program before they appear; `tell` hears what that found. Raises as `load` and the writers do,
  ConfigError where a head cannot go, CheckpointError where something changed on the way.
  """
  source = storage.path(source)
  if output is None:
    format_of(source)  # says what is wrong with it
    run_dir = run_directory.run_of(source)
    if run_dir is None:
      raise ConfigError(f'{source} is no run directory, so its export has no default place: name one with --output')
    output = run_dir / run_directory.EXPORT
  require(format == huggingface.KIND or layout == huggingface.LAYOUTS[0],
          f'--layout {layout} is of --format {huggingface.KIND}: leave it out')
  storage.probe_export(output)
  loaded = huggingface.shaped(trained(load(source)), architecture, layout)
  proof.check_heads(loaded)

  def verify(path: storage.Path) -> None:
    if format in IMPORTERS:
      tell(proof.equal(loaded, IMPORTERS[format].read(path, loaded.objective.heads)))
    if format in RUNS and (loaded.model.architecture == 'bert' or format in programs.RUNS):
      batch = proof.batch_of(loaded)
      runtime, theirs = RUNS[format](path, loaded, batch)
      tell(proof.check(proof.compare(proof.ours(loaded, batch), theirs, batch), runtime, batch))

  return EXPORTERS[format](loaded, source, storage.path(output), layout, verify)


def trained(loaded: Loaded) -> Loaded:
  """The checkpoint without heads that have initial values: who loads the export sees that they are not there."""
  objective = objective_of(loaded)
  if objective is loaded.objective:
    return loaded
  return dataclasses.replace(loaded, objective=objective, params={
      name: loaded.params[name] for name in ('encoder', *objective.heads)})


def objective_of(loaded: Loaded) -> Objective:
  """What a checkpoint learnt, without heads that have initial values."""
  idle = loaded.untrained()
  if not idle:
    return loaded.objective
  heads = {name: head for name, head in loaded.objective.heads.items() if name not in idle}
  return dataclasses.replace(loaded.objective, heads=heads, huggingface='')


def told_of_run(run_dir: storage.PathLike, step: int) -> list[str]:
  """The sentences of a card on a run's training up to a step, by what the run recorded."""
  record = run_directory.read(run_dir)
  loaded = Loaded(record.config.model, record.config.learns, {}, lambda: None, record, step)
  return card_lib.training(card(loaded, storage.path(run_dir)), objective_of(loaded))


def bring_in(source: storage.PathLike, output: storage.PathLike, tell: Tell = silent) -> storage.Path:
  """Writes a checkpoint of another program as a Hugging Face directory that has only what bert_jax reads of it.

  What is written is read again, run, and compared with another program's run of the source before it appears; `tell`
  hears what that found. Returns where. Raises as `load` does, ConfigError for a run, CheckpointError where something
  changed on the way.
  """
  source, format = storage.path(source), format_of(source)
  require(format in proof.RUNS, f'{source} is {IMPORTERS[format].what}, which every command takes as it is')
  storage.probe_export(output)
  loaded = load(source)
  batch = proof.batch_of(loaded)
  runtime, theirs = proof.RUNS[format](source, loaded, batch)

  def verify(path: storage.Path) -> None:
    again = huggingface.read(path, loaded.objective.heads)
    tell(proof.equal(loaded, again))
    tell(proof.check(proof.compare(proof.ours(again, batch), theirs, batch), runtime, batch))

  return to_huggingface(loaded, source, storage.path(output), huggingface.LAYOUTS[0], verify)


def card(loaded: Loaded, source: storage.Path) -> ModelCard:
  """What the run recorded of its training, or the export told that it is from; nothing of what others trained."""
  record, run_dir = loaded.record, run_directory.run_of(source)
  if record is None or run_dir is None:
    return loaded.told or ModelCard()
  step = loaded.step or 0
  trained = [line for line in metrics.read(run_dir) if line['kind'] == 'train' and line['step'] <= step]
  last = {name: value for name, value in (trained[-1] if trained else {}).items() if name not in ('kind', metrics.TIME)}
  found = dict(run_directory.figures(run_dir))
  copies = found.pop(run_directory.COPIES, None)
  return ModelCard(steps=step, kind=record.kind, longest=longest(record, step),
                   data=data_sentence(record, step), origin=origin_sentence(record),
                   objective=record.config.objective if isinstance(record.config, Config) else '',
                   trained=tuple(name for name in record.config.learns.heads
                                 if name not in record.config.learns.untrained()),
                   training=last, evaluation=found if found.get('step') == step else {}, copies=copies,
                   settings=flat(record.config))


def longest(record: run_directory.Record, step: int) -> int:
  """Tokens of the longest rows up to a step."""
  if not isinstance(record.config, Config):
    return record.config.batch.max_length
  return max((phase.config.batch.sequence_length for phase in phases.phases(record.config) if phase.first < step),
             default=0)


def origin_sentence(record: run_directory.Record) -> str:
  """Where the parameters came from that the run began with."""
  origin = record.origin
  if origin is None:
    return 'It began with random parameters.'
  step = '' if origin.step is None else f', step {origin.step:,}'
  path, untrained = run_directory.trained(origin.checkpoint)
  if untrained:
    return f'It began with random parameters, for the model and the vocabulary of {card_lib.code(str(path))}{step}.'
  heads = tuple(dict.fromkeys(name.split('/')[0] for name in origin.fresh))
  return f'It began with the parameters of {card_lib.code(origin.checkpoint)}{step}' + (
      f', and with random ones of what that lacked: {names.some(heads, 9)}.' if heads else '.')


def data_sentence(record: run_directory.Record, step: int) -> str:
  """On the text or the task, as the run recorded it, and the lengths of the rows up to a step."""
  if not isinstance(record.config, Config):
    return record.text or f'Task: {record.config.task}.'
  seen = [(min(phase.last, step) - phase.first, phase.config.batch.sequence_length)
          for phase in phases.phases(record.config) if phase.first < step]
  lengths = card_lib.listed([f'{count:,} steps on rows of up to {length} tokens' for count, length in seen])
  return f'{record.text} It made {lengths}.'.strip()

"""Pretraining, from top to bottom: program, data, state, the loop. The page to read first.

    objective   objectives.OBJECTIVES[config.objective]   what is predicted, from which heads, with which loss
    model       model.encoder.ENCODERS and its heads      config.model
    optimizer   optimizer.OPTIMIZERS, SCHEDULES           config.optimizer
    data        input_pipeline.batches.loader.Stream      the batch of a step: a function of (shards, seed, step)
    program     program.of(config)                        all of these on a mesh: one jitted step
    run         training.Training                         a run in its directory, as of fine-tuning (finetune.py)
    loop        loop.run                                  the steps
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Generator
from typing import Any

from bert_jax import (
    choices,
    config as cfg,
    distributed,
    evaluate,
    fitting,
    health,
    loop,
    manifest as manifest_lib,
    phases,
    probes,
    program as program_lib,
    rewind,
    run_directory,
    selftest,
    trackers,
    training,
)
from bert_jax.errors import require
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline import records, storage
from input_pipeline.batches.reading import AUTO

# Of reading ahead: a step there takes longer than a thread takes for its batch, and to import TensorFlow takes seconds.
ON_CPU = 'threads'


def train(config: cfg.Config, data_dir: storage.PathLike, run_dir: storage.PathLike, *, devices=None,
          engine: str = AUTO, progress: bool = True, initialize_from: storage.PathLike | None = None,
          longer_positions: str | None = None, stop: Callable[[int], bool] | None = None,
          back: rewind.Rewind | None = None, begun: run_directory.Begun | None = None,
          log_to: str | None = None) -> training.Result:
  """Trains `config` on the shards of `data_dir`, or goes on where `run_dir` stopped.

  `devices`: all of jax.devices() by default. `engine`: what reads ahead, see input_pipeline.batches.reading;
  on CPU devices a thread by default.
  `initialize_from`: a checkpoint whose weights a new run begins with, instead of random ones; where the data's
  vocabulary extends its own, they grow. `longer_positions`: a key of convert.growing.LONGER, how it gets more positions
  than it has. `stop`: asked with the number of each step that is done; where it says so, the run is saved and ends, as
  after a signal. `back`: to an earlier step, and on without some batches. `begun`: how, as a new run records it.
  `log_to`: a key of trackers.TRACKERS, who is told of each line of the log too.
  Raises ConfigError and DataError for bad settings or data before anything is written; CheckpointError; NonFiniteError.
  """
  made = make(config, data_dir, run_dir, devices, engine, progress, initialize_from, longer_positions, back, begun,
              log_to)
  return made.run.run(made.initial, progress, stop)


@dataclasses.dataclass(frozen=True)
class Made:
  """A run that could begin now; nothing of it is written."""
  run: training.Training
  initial: Any  # the parameters of a checkpoint to begin with; None: random ones, or those of the run
  streams: list[tuple[phases.Phase, Any]]
  found: health.Preflight


def make(config: cfg.Config, data_dir: storage.PathLike, run_dir: storage.PathLike, devices=None, engine: str = AUTO,
         progress: bool = True, initialize_from: storage.PathLike | None = None, longer_positions: str | None = None,
         back: rewind.Rewind | None = None, begun: run_directory.Begun | None = None,
         log_to: str | None = None) -> Made:
  """Program, data and weights of a run, checked. Arguments and errors are those of `train`."""
  require(longer_positions is None or initialize_from is not None, f'--longer-positions {longer_positions} changes '
          'nothing without --initialize-from: leave it out')
  trackers.require(log_to)
  is_new = not run_directory.run_of(run_dir)
  require(back is None or not is_new, f'--rewind-to {back and back.step} goes back in a run, and {run_dir} '
          'is none yet: leave it out')
  program_lib.of(choices.by_rule(config, devices), devices)  # before the data is read
  storage.probe(run_dir, '--run-dir', checkpoints=True)
  streams = phases.open_streams(data_dir, config)
  vocabulary, fingerprint = streams[0][1].vocabulary, phases.fingerprint(streams)
  check_vocabulary(config.model, vocabulary, data_dir)
  settled = choices.settle(config, devices, run_dir)
  mesh = program_lib.mesh_of(settled.config, devices)
  lengths = [phase.config.batch.sequence_length for phase in phases.phases(settled.config)]
  config, proof = selftest.proven(settled.config, mesh, lengths)
  program = program_lib.of(config, devices)
  if engine == AUTO and program.mesh.devices.flat[0].platform == 'cpu':
    engine = ON_CPU
  for line in (*settled.lines, *proof) if progress else ():
    training.print_once(f'bert-jax: {line}')
  found = health.preflight(program, streams)
  distributed.agree(cfg.flat(config) | {'the vocabulary': vocabulary.sha256, 'the shards': fingerprint,
                                         'the program': f'bert_jax {manifest_lib.version()}'})
  tokens = lambda: tokens_of(phases.directory(data_dir, config))
  load = lambda path, step, longer: training.initial_from(path, step, program, vocabulary, tokens, longer)
  if is_new:
    check_exportable(data_dir, config, vocabulary)
  begins = initialize_from is not None and is_new
  initial = load(initialize_from, None, longer_positions) if begins else None
  manifests = [stream.manifest for _, stream in streams]
  record = run_directory.Record(config, str(storage.absolute(data_dir)), vocabulary,
                                training.origin_of(initialize_from, initial, longer_positions),
                                phases.text_of(manifests), records.fingerprint(manifests),
                                begun=(begun or run_directory.Begun()).here() if is_new else None)

  def batches(step: int, left_out: rewind.Ranges) -> Generator[loop.HostBatch, None, None]:
    """This process' batches from `step` on, phase after phase."""
    for phase, stream in streams:
      if phase.last > step:
        part = mesh_lib.process_slice(program.mesh)
        for first, end in rewind.spans(max(step, phase.first), phase.last, phase.first, left_out):
          found: Any = stream.batches(first, end, *part, engine=engine)
          with contextlib.closing(found):
            yield from found

  vocabulary_files = run_directory.vocabulary_files(phases.directory(data_dir, config))
  earlier = () if is_new else phases.of_lengths(streams, config, run_directory.lengths(run_dir))
  run = training.Training(
      run_dir, record, vocabulary_files, program, fingerprint, batches, count_tokens,
      probes.beside(evaluate.on_the_way(program, data_dir, config), config,
                    lambda: tokenizer_of(data_dir, config, vocabulary)),
      lambda step: program.flops_per_step(phases.at(config, step).batch),
      [*(phase_text(phase, stream) for phase, stream in streams), *found.lines], load, back=in_phase(back, config),
      warnings=found.warnings, earlier=earlier,
      strange=health.Bands(found, config.optimizer.warmup_steps, config.run.steps).look, log_to=log_to)
  return Made(run, initial, streams, found)


def tokenizer_of(data_dir: storage.PathLike, config: cfg.Config, vocabulary):
  """The tokenizer that the shards were made with."""
  from input_pipeline.vocabulary import tokenizer
  return tokenizer.of(phases.directory(data_dir, config), vocabulary)


def check_exportable(data_dir: storage.PathLike, config: cfg.Config, vocabulary) -> None:
  """Raises DataError for a vocabulary that no export can write: it is better known before the training than after."""
  from bert_jax.convert import tokenizer_files
  with contextlib.suppress(ImportError), warnings.catch_warnings():  # a machine that only trains may lack the libraries
    warnings.simplefilter('ignore')
    tokenizer_files.files(tokenizer_of(data_dir, config, vocabulary), config.model.max_positions)


def in_phase(back: rewind.Rewind | None, config: cfg.Config) -> rewind.Rewind | None:
  """`back` with the beginning of the phase whose batches it leaves out. Raises ConfigError where they are of two."""
  if back is None or back.skip is None:
    return back
  first, end = back.skip
  phase = next((phase for phase in phases.phases(config) if phase.first <= first < phase.last), None)
  every = ' and '.join(f'{phase.first}:{phase.last}' for phase in phases.phases(config))
  require(phase is not None and end <= phase.last,
          f'--skip-steps {first}:{end} is not within one of the run\'s phases: {every}')
  return dataclasses.replace(back, begin=phase.first if phase else 0)


def phase_text(phase: phases.Phase, stream) -> str:
  steps, batch = phase.last - phase.first, phase.config.batch
  epochs = steps * batch.size / stream.rows_per_epoch
  return (f'{steps:,} steps of {batch.size} rows of {batch.sequence_length}: '
          f'{epochs:.1f} epochs of {stream.rows_per_epoch:,} rows')


def count_tokens(batch: loop.HostBatch) -> dict[str, float]:
  """Real tokens; padding is none."""
  return {'tokens': float((batch['pair_ids'] > 0).sum())}


def check_vocabulary(model: cfg.Model, vocabulary, data_dir) -> None:
  """Raises ConfigError where the data's vocabulary is not of the model's size."""
  require(model.vocab_size == vocabulary.size, fitting.misfit_of_vocabulary(model, vocabulary.size, data_dir))


def tokens_of(data_dir: storage.PathLike) -> tuple[str, ...]:
  """The vocabulary of prepared data; the index is the id. Raises DataError."""
  from input_pipeline.vocabulary import tokenizer
  return tokenizer.load(data_dir).tokens

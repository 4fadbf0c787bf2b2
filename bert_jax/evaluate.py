"""Held-out figures: loss and accuracy of each term over a whole split, and the unigram baseline of the same targets.

V vocabulary.
"""

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from bert_jax import (
    checkpoint,
    config as cfg,
    early_stop,
    metrics,
    phases,
    program as program_lib,
    progress as progress_lib,
    run_directory,
)
from bert_jax.errors import require
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline import records, storage
from input_pipeline.batches import loader, shards


def figures(program: program_lib.Program, params, batches: Iterable[dict[str, np.ndarray]], *, count: int = 0,
            unigram: np.ndarray | None = None, keep: Callable[[dict[str, Any]], object] | None = None,
            progress: bool = False, stopped: Callable[[], bool] | None = None) -> dict[str, float]:
  """Figures of the program's objective over `batches`, this process' rows each: mlm_loss, mlm_accuracy, nsp_loss …

  `count`: how many batches there are, for the bar. With `unigram`, log probabilities of the vocabulary [V], also
  unigram_loss: what these cost on the same targets, in nats. `keep`: is given what the terms keep of each batch, of all
  processes, {term: tree of host arrays [rows ...]}. `stopped`: asked after each batch; where it says so, Stopped is
  raised.
  """
  total: dict[str, dict[str, float]] = {}
  baseline = np.zeros(2)
  term = program.objective.token_term()
  with contextlib.closing(progress_lib.Progress(0, count, progress)) as bar:
    for done, batch in enumerate(batches, 1):
      sums, kept = jax.device_get(program.evaluation_step(params, mesh_lib.put_batch(batch, program.mesh)))
      total = metrics.add_sums(total, sums)
      if keep is not None:
        keep(kept)
      if unigram is not None and term is not None:
        labels, weights = term.targets(batch)
        baseline += -(unigram[labels] * weights).sum(), weights.sum()
      bar.to(done)
      if stopped is not None and stopped():
        raise early_stop.Stopped
  found = program.objective.figures(total)
  if unigram is not None and term is not None:
    found['unigram_loss'] = float(baseline[0] / max(baseline[1], 1))
  return found


def open_validation(data_dir: storage.PathLike, config: cfg.Config, verify: str = 'full') -> 'loader.Stream':
  """The validation split; of only one document, without next-sentence pairs, which need two. Raises DataError."""
  path = phases.directory(data_dir, config)
  try:
    return loader.open_split(path, 'validation', config.batch, verify)
  except loader.OneDocument:
    print(f'the validation split of {path} has only one document: no next-sentence figures', file=sys.stderr)
    return loader.open_split(path, 'validation', dataclasses.replace(config.batch, pairs='none'), verify)


def on_the_way(program: program_lib.Program, data_dir: storage.PathLike,
               config: cfg.Config) -> Callable[[program_lib.TrainState, int, Callable[[], bool]], dict]:
  """(state, step, stopped) -> figures over the first run.evaluation_rows rows of the validation split.

  The split is opened once for each row length, before the training where it is evaluated on the way.
  Raises DataError where there is none.
  Masks and pairs are those of the stream's first epoch, so the figures of two steps, and of two runs, compare.
  """
  opened = functools.cache(lambda step_length: open_validation(data_dir, by_length[step_length]))
  by_length = {phase.config.batch.sequence_length: phase.config for phase in phases.phases(config)}
  index, parts = mesh_lib.process_slice(program.mesh)
  for length in by_length if config.run.evaluate_every else ():
    opened(length)

  def evaluate(state, step, stopped):
    batch = phases.at(config, step).batch
    stream = opened(batch.sequence_length)
    rows = stream.evaluation_batches(batch.size, config.run.evaluation_rows, index, parts)
    return figures(program, state.params, rows, stopped=stopped)

  return evaluate


def unigram_log_probabilities(directory: storage.PathLike, config: cfg.Config) -> np.ndarray:  # -> [V]
  """Log frequencies of the training split's tokens, each counted once more, so that none is impossible.

  [SEP] or [CLS] is counted where it is predicted.
  """
  stream = loader.open_split(phases.directory(directory, config), 'train', config.batch, verify='framing')
  counts = stream.token_counts() + 1.0
  term = config.learns.token_term()
  if term is not None and term.ends:
    of_a_piece = {'sep': stream.separators, 'cls': 1}[term.ends]
    counts[getattr(stream.vocabulary, f'{term.ends}_id')] += of_a_piece * int(stream.index.pieces.sum())
  return np.log(counts / counts.sum())


def evaluate(run_dir: storage.PathLike, data_dir: storage.PathLike | None = None, step: int | None = None,
             progress: bool = True) -> dict[str, float]:
  """The figures of a pretraining run's newest checkpoint, or of `step`, on the held-out documents of its data.

  Also written to RUN/evaluation.json. Keys: mlm_loss, mlm_accuracy, nsp_loss, nsp_accuracy (sop_…, lm_… where the
  objective has those terms), unigram_loss, documents, sequences, step.
  Raises ConfigError, DataError, CheckpointError.
  """
  storage.probe(run_directory.run_of(run_dir) or run_dir, 'the run')
  loaded: Any = checkpoint.load(run_dir, step)  # of a run: it has a record and a step
  record = loaded.record
  config, data_dir = phases.at(record.config, loaded.step), data_dir or record.data
  validation = open_validation(data_dir, config)
  require(validation.vocabulary.sha256 == record.vocabulary.sha256,
          f'{data_dir} was prepared with another vocabulary than {run_dir} was trained with: name its own --data')
  program = program_lib.on_one_device(config)
  params = jax.device_put(loaded.params, jax.tree.map(lambda x: x.sharding, program.abstract.params))
  size = config.batch.size
  found = figures(program, params, validation.evaluation_batches(size), count=-(-validation.rows_per_epoch // size),
                  unigram=unigram_log_probabilities(data_dir, config), progress=progress)
  split = validation.manifest.splits['validation']
  found |= {'documents': split.documents, 'sequences': split.pieces, 'step': loaded.step}
  write(run_dir, found, copies_of(record, data_dir, config, validation))
  return found


def copies_of(record: run_directory.Record, data_dir: storage.PathLike, config: cfg.Config,
              validation: 'loader.Stream') -> float | None:
  """The share of the pieces of validation that stand in the text that a run learnt from, word for word or nearly; of
  large data in the part of it that `inspect` reads, too.

  None where that text is not what `data_dir` holds, by its fingerprint, so that they cannot be compared.
  """
  from input_pipeline.inspection import copies, sample
  whole: Any = record.config  # of pretraining, as `config` is, which has one of its phases
  if not record.shards or records.fingerprint(phases.manifests(data_dir, whole)) != record.shards:
    return None
  path, vocabulary = phases.directory(data_dir, config), validation.vocabulary
  train = loader.open_split(path, 'train', config.batch, verify='framing')
  parts = sample.parts_of(shards.read_vocabulary(path, vocabulary), vocabulary)
  found = copies.find(sample.read(train), sample.read(validation), parts)
  return found.exact_share + found.near_share


def write(run_dir: storage.PathLike, found: dict[str, float], copied: float | None) -> None:
  """Writes RUN/evaluation.json. `copied`: the share of what was evaluated on that the run learnt from, where it was
  compared."""
  directory = run_directory.run_of(run_dir) or storage.path(run_dir)
  storage.write_whole(directory / run_directory.FIGURES, json.dumps(found | {run_directory.COPIES: copied}) + '\n')


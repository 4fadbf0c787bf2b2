"""Fine-tuning beside transformers', seed by seed in turns: the same rows, initial weights, recipe and metrics.

R rows, N tokens of all rows, C scores of a row.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bert_jax import finetune, sweep, training
from bert_jax.benchmark import task_huggingface as child, turns
from bert_jax.errors import require
from bert_jax.examples import Split
from bert_jax.tasks.settings import Finetune
from bert_jax.tasks.task import Row
from input_pipeline import storage

PEERS = ('huggingface',)


def compare(config: Finetune, checkpoint: str, data: storage.PathLike, output: storage.Path, seeds: int, *,
            devices=None, progress: bool = True) -> tuple[dict[str, dict[str, Any]], dict[str, float]] | None:
  """({name: {'metric', 'metrics', 'examples_per_second'}} of ours and the peer's, the ratio of their examples/s).

  Both train with AdamW as transformers has it (bias correction, a linear decay after the warmup), and keep the best
  epoch. None where it was asked to stop. Raises ConfigError, DataError.
  """
  optimizer = dataclasses.replace(config.optimizer, name='adamw', schedule='linear')
  job = finetune.prepare(dataclasses.replace(config, optimizer=optimizer), data, checkpoint, output / 'seed-1', devices)
  require(job.config.learns.huggingface == 'BertForSequenceClassification',
          f'--peer huggingface trains BertForSequenceClassification, and the task is {config.task}: leave it out '
          '(--tasks)')
  found: dict[str, list[sweep.Done]] = {'bert_jax': [], **{name: [] for name in PEERS}}
  for number in range(seeds):
    one = sweep.with_seed(job.config, number)
    tuned, figures = finetune.run(job, one, output / f'seed-{number + 1}', progress=progress)
    if tuned.reason == 'signal':
      return None
    found['bert_jax'].append(sweep.Done(sweep.official(one, figures), tuned.examples_per_second))
    found['huggingface'].append(theirs(job, one))
  done = {name: {'metric': config.best, 'metrics': sweep.spreads(runs), 'examples_per_second': sweep.rate(runs)}
          for name, runs in found.items()}
  ratios = [ours.examples_per_second / peer.examples_per_second for ours, peer in zip(*found.values())
            if ours.examples_per_second and peer.examples_per_second]
  return done, turns.spread(ratios) if ratios else {}


def theirs(job: finetune.Job, config: Finetune) -> sweep.Done:
  """The peer's run, in a process of its own, from the weights that our run of that seed begins with."""
  split = job.held_out['validation']
  with tempfile.TemporaryDirectory() as folder:
    write_inputs(pathlib.Path(folder), job, config)
    ended = subprocess.run([sys.executable, '-P', '-m', child.__name__, folder], stdout=subprocess.PIPE, text=True)
    require(ended.returncode == 0, 'the peer ended before it answered: what it printed stands above')
    rate = json.loads(ended.stdout)['examples_per_second']
    with np.load(pathlib.Path(folder) / child.LOGITS) as arrays:
      epochs = [figures_of(split, arrays[str(epoch)]) for epoch in range(config.epochs)]
  return sweep.Done(max(epochs, key=lambda figures: figures[config.best]), rate)


def figures_of(split: Split, logits: np.ndarray) -> dict[str, float]:  # [R C]
  """The official figures of the peer's scores, by our metrics."""
  outputs = [{'task': row if len(row) > 1 else row[0]} for row in logits]
  answers = split.task.answers(split.examples, split.rows, outputs, split.encoding)
  return split.task.metrics(split.examples, answers)


def write_inputs(folder: pathlib.Path, job: finetune.Job, config: Finetune) -> None:
  """What task_huggingface.py reads: a model in transformers' format, its settings, and the rows."""
  import safetensors.numpy

  from bert_jax.convert import huggingface
  steps = -(-len(job.training.rows) // config.batch.size)
  config = config.of_length(steps)
  program = job.program.at_pace(config.optimizer, config.run.steps, config.run.seed)
  params = jax.device_get(training.with_initial_values(job.initial.params, program))
  tensors = huggingface.to_tensors(config.model, config.learns.heads, params)
  settings = huggingface.to_config(config.model, job.source.tokenizer.pad_id, config.learns, config.labels)
  (folder / huggingface.CONFIG).write_text(json.dumps(settings))
  safetensors.numpy.save_file(tensors, folder / huggingface.WEIGHTS, {'format': 'pt'})
  o = config.optimizer
  (folder / child.SETTINGS).write_text(json.dumps({
      'device': 'cuda' if jax.default_backend() == 'gpu' else 'cpu', 'dtype': config.model.computes_in,
      'clip_norm': o.clip_norm, 'weight_decay': o.weight_decay, 'learning_rate': o.peak_learning_rate,
      'betas': [o.b1, o.b2], 'epsilon': o.epsilon, 'warmup_steps': o.warmup_steps, 'steps': config.run.steps,
      'epochs': config.epochs, 'size': config.batch.size, 'seed': config.batch.seed,
      'pad_id': job.source.tokenizer.pad_id, 'classes': len(config.labels)}))
  np.savez(folder / child.ROWS, **flat('train', job.training.rows), **flat('dev', job.held_out['validation'].rows))


def flat(name: str, rows: Sequence[Row]) -> dict[str, Any]:  # -> [N], [N], [R], [R]
  """Rows without padding, one after the other."""
  return {f'{name}/ids': np.concatenate([row.input_ids for row in rows]),
          f'{name}/types': np.concatenate([row.token_type_ids for row in rows]),
          f'{name}/lengths': np.array([len(row.input_ids) for row in rows]),
          f'{name}/labels': np.array([row.targets['label'] for row in rows])}

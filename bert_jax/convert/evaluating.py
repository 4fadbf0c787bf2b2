"""Held-out figures of a checkpoint that is no run: an export, or one of others, on data that is named."""

import dataclasses
import math
from typing import Any

import jax

from bert_jax import config as cfg, evaluate, program as program_lib
from bert_jax.checkpoint import Loaded
from bert_jax.convert import exchange
from bert_jax.errors import require
from bert_jax.objectives import OBJECTIVES
from input_pipeline import records, storage

SHARE = 0.15  # of tokens that are predicted, by which a row's slots are counted


def evaluate_export(path: storage.PathLike, data_dir: storage.PathLike | None, progress: bool = True
                    ) -> dict[str, float]:
  """The figures of its pretraining heads on the validation split of `data_dir`; keys as evaluate.evaluate has them, but
  no step.

  Raises ConfigError where it has no such head, or no data was named, or its vocabulary is another; DataError.
  """
  loaded = exchange.load(path)
  name = objective_of(loaded, path)
  require(data_dir is not None, f'{path} is no run, so that it knows no data of its own: name some with --data')
  assert data_dir is not None
  manifest = records.read_manifest(data_dir)
  require(loaded.tokenizer().sha256 == manifest.vocabulary.sha256,
          f'{data_dir} was prepared with another vocabulary than that of {path}: prepare it with `bert-jax prepare '
          f'--vocabulary {path}`')
  config = config_for(loaded, name, manifest)
  params = exchange.load(path, config.learns.heads).params  # heads that no term reads may lack
  program = program_lib.on_one_device(config)
  validation: Any = evaluate.open_validation(data_dir, config)
  params = jax.device_put(params, jax.tree.map(lambda x: x.sharding, program.abstract.params))
  size = config.batch.size
  found = evaluate.figures(program, params, validation.evaluation_batches(size),
                           count=-(-validation.rows_per_epoch // size),
                           unigram=evaluate.unigram_log_probabilities(data_dir, config), progress=progress)
  split = validation.manifest.splits['validation']
  return found | {'documents': split.documents, 'sequences': split.pieces}


def objective_of(loaded: Loaded, path: storage.PathLike) -> str:
  """What it is asked for: what its export says that it learnt, or what its heads can. Raises ConfigError."""
  if loaded.told is not None and loaded.told.objective in OBJECTIVES:
    return loaded.told.objective
  heads = loaded.objective.heads
  require('masked_tokens' in heads, f'{path} has no head for tokens: `evaluate` wants a run, or an export or import of '
          'BertForPreTraining or BertForMaskedLM; what a task was learnt to is evaluated on the run of `finetune`')
  if loaded.model.causal:
    return 'left_to_right'
  return 'mlm_nsp' if {'pooler', 'pair_classes'} <= set(heads) else 'mlm'


def config_for(loaded: Loaded, objective: str, manifest: records.Manifest) -> cfg.Config:
  """Settings that compute its figures on this data, in float32."""
  length = min(manifest.sequence_length, loaded.model.max_positions)
  wanted = OBJECTIVES[objective].pairs
  pairs = 'google' if manifest.pairs == 'google' else wanted[0] if wanted else 'none'
  batch = cfg.BatchConfig(
      sequence_length=length, predictions=max(1, min(math.ceil(SHARE * length) + 1, length - 3)), pairs=pairs,
      masking=cfg.Masking(share=SHARE if OBJECTIVES[objective].masked else 0.0))
  return cfg.Config(model=dataclasses.replace(loaded.model, dtype='float32'), batch=batch, objective=objective,
                    long=cfg.Long(share=0.0))

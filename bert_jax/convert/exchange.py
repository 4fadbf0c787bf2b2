"""Any checkpoint in, any format out: the two tables that the commands go by."""

import json
from collections.abc import Callable

from etils import epath

from bert_jax import checkpoint, config as cfg, evaluate, metrics, phases
from bert_jax.convert import huggingface, tokenizer_files
from bert_jax.convert.card import ModelCard
from input_pipeline import records


def load(path: epath.PathLike) -> checkpoint.Loaded:
  """A run directory, one of its steps, or a Hugging Face directory. Raises ConfigError where it is none, DataError, CheckpointError."""
  path = epath.Path(path)
  cfg.require(path.is_dir(), f'{path} is no directory: wanted a run directory, RUN/{checkpoint.CHECKPOINTS}/STEP, '
              'or a Hugging Face directory')
  if checkpoint.run_of(path):
    return checkpoint.load(path)
  model, params = huggingface.import_checkpoint(path)
  return checkpoint.Loaded(model, params, lambda: tokenizer_files.load(path))


def to_huggingface(loaded: checkpoint.Loaded, source: epath.Path, output: epath.Path) -> epath.Path:
  return huggingface.export_checkpoint(output, loaded.model, loaded.params, loaded.tokenizer(), card(loaded, source), overwrite=True)


EXPORTERS: dict[str, Callable[[checkpoint.Loaded, epath.Path, epath.Path], epath.Path]] = {'huggingface': to_huggingface}


def export(format: str, source: epath.PathLike, output: epath.PathLike | None = None) -> epath.Path:
  """Writes the checkpoint `source` in `format` to `output`, RUN/export by default. Returns where. Raises as `load` and the writers do."""
  source = epath.Path(source)
  loaded = load(source)
  if output is None:
    cfg.require(loaded.run is not None, f'{source} is no run directory, so its export has no default place: name one with --output')
    output = checkpoint.run_of(source) / 'export'
  return EXPORTERS[format](loaded, source, epath.Path(output))


def card(loaded: checkpoint.Loaded, source: epath.Path) -> ModelCard:
  """What the run's own files say of its training; empty for a checkpoint that is no run's."""
  if loaded.run is None:
    return ModelCard()
  run_dir = checkpoint.run_of(source)
  trained = [line for line in metrics.read(run_dir) if line['kind'] == 'train' and line['step'] <= loaded.step]
  figures = {name: value for name, value in (trained[-1] if trained else {}).items() if name != 'kind'}
  held_out = evaluate.read(run_dir)
  return ModelCard(steps=loaded.step, data=data_sentence(loaded.run), training=figures,
                   evaluation=held_out if held_out.get('step') == loaded.step else {}, settings=cfg.flat(loaded.run.config))


def data_sentence(run: checkpoint.Run) -> str:
  """One sentence on the text, where the data is still there to ask."""
  try:
    manifest = records.read_manifest(phases.directory(run.data, run.config))
  except records.DataError:
    return ''
  split = manifest.splits['train']
  return (f'Text: {json.dumps(manifest.settings.get("input"))}; {split.documents:,} documents, {split.tokens:,} tokens in rows of up to '
          f'{manifest.sequence_length}.')

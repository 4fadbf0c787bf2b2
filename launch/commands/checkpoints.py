"""`bert-jax verify` and `export`: whether a checkpoint is sound, and how it is handed on."""

import dataclasses
import json
from typing import Annotated, Literal

import tyro

from launch.commands import flags


@dataclasses.dataclass(frozen=True)
class Export:
  """Hand a checkpoint on to other software."""
  checkpoint: Annotated[str, tyro.conf.Positional]
  """A run directory, or one of its steps (RUN/checkpoints/STEP)."""
  output: str | None = None
  """A directory for the export; RUN/export by default. One that exists and is no export of ours is left as it is."""
  format: Literal['huggingface'] = 'huggingface'
  """huggingface: config.json, model.safetensors, vocabulary, tokenizer.json and a model card."""


def export(argv: list[str]) -> int:
  """Writes a checkpoint in another format, and prints where."""
  args = flags.parse(Export, argv, 'export')
  from bert_jax.convert import exchange
  print(exchange.export(args.format, args.checkpoint, args.output))
  return 0


@dataclasses.dataclass(frozen=True)
class Verify:
  """Check every file of a run, of prepared data or of an export against what was written down of it."""
  path: Annotated[str, tyro.conf.Positional]
  """A run directory, one of its steps, what `bert-jax prepare` made, or an export."""
  json: bool = False
  """One JSON object on stdout and nothing else there."""


def verify(argv: list[str]) -> int:
  """Prints what is sound; the exit code tells whether all is."""
  args = flags.parse(Verify, argv, 'verify')
  from bert_jax import verify
  from bert_jax.errors import DamageError
  report = verify.verify(args.path)
  print(json.dumps(dataclasses.asdict(report) | {'sound': report.sound}) if args.json else report)
  return 0 if report.sound else DamageError.exit_code

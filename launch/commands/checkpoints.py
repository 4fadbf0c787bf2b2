"""`bert-jax export`: a checkpoint handed on."""

import dataclasses
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

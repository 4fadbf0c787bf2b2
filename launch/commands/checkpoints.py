"""`bert-jax verify`, `import` and `export`: whether a checkpoint is sound, and how it comes in and goes out."""

import dataclasses
from typing import Annotated, Literal

import tyro

from launch.commands import flags


@dataclasses.dataclass(frozen=True)
class Import:
  """Bring a checkpoint of another program in, and show that nothing changed on the way."""
  checkpoint: Annotated[str, tyro.conf.Positional]
  """A Hugging Face or sentence-transformers directory, or the prefix of a checkpoint of Google's code
  (DIR/bert_model.ckpt, with bert_config.json and vocab.txt in DIR)."""
  output: str
  """A directory for what every command takes as a checkpoint; one that exists and is no export of ours is left as it
  is."""


def import_(argv: list[str]) -> int:
  """Writes what bert_jax reads of a checkpoint, and prints where, and how it compares with the source."""
  args = flags.parse(Import, argv, 'import')
  from bert_jax.convert import exchange
  print(exchange.bring_in(args.checkpoint, args.output, print))
  return 0


@dataclasses.dataclass(frozen=True)
class Export:
  """Hand a checkpoint on to other software, and show that nothing changed on the way."""
  checkpoint: Annotated[str, tyro.conf.Positional]
  """A run directory, one of its steps (RUN/checkpoints/STEP), or a checkpoint of another program."""
  output: str | None = None
  """A directory for the export; RUN/export by default. One that exists and is no export of ours is left as it is."""
  format: Literal['huggingface', 'tf1', 'stablehlo', 'savedmodel', 'onnx'] = 'huggingface'
  """huggingface: config.json, model.safetensors, vocabulary, tokenizer.json and a model card. tf1: what the code of
  google-research/bert reads: bert_config.json, bert_model.ckpt and vocab.txt. stablehlo: the forward pass for
  jax.export, for CPU, CUDA and TPU. savedmodel: the same for TensorFlow. onnx: the same as ONNX."""
  architecture: Literal['BertForPreTraining', 'BertForMaskedLM', 'BertModel'] | None = None
  """The class of transformers, which decides the heads that go along; by default that of the checkpoint's heads."""
  layout: Literal['transformers', 'sentence-transformers'] = 'transformers'
  """Of huggingface: sentence-transformers adds modules.json and a pooling by the mean to BertModel."""


def export(argv: list[str]) -> int:
  """Writes a checkpoint in another format, and prints where, and how it compares with the checkpoint."""
  args = flags.parse(Export, argv, 'export')
  from bert_jax.convert import exchange
  print(exchange.export(args.format, args.checkpoint, args.output, args.architecture, args.layout, print))
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
  print(flags.as_json(dataclasses.asdict(report) | {'sound': report.sound}) if args.json else report)
  return 0 if report.sound else DamageError.exit_code

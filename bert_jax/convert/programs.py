"""The forward pass as a program for other runtimes: StableHLO by jax.export, a SavedModel of TensorFlow, and ONNX.

Each takes any number of rows B and of tokens T up to model.max_positions. Where parameters are many they lie beside the
program, so that its size is no limit.
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx

from bert_jax.checkpoint import Loaded
from bert_jax.convert import (
  directory as directory_lib,
  foreign,
  huggingface,
  names,
  onnx_graph,
  onnx_primitives,
  proof,
  tokenizer_files,
)
from bert_jax.errors import ConfigError
from bert_jax.model import build
from bert_jax.parallel.mesh import path_name
from input_pipeline import storage

STABLEHLO, SAVED_MODEL, ONNX = 'stablehlo', 'savedmodel', 'onnx'  # the formats
PROGRAM, PARAMETERS = 'forward.stablehlo', 'parameters.safetensors'
PLATFORMS = 'cpu', 'cuda', 'tpu'
INPUTS = 'input_ids', 'token_type_ids', 'attention_mask'  # int32 [B T]; the mask is 0 where padding is
THEIR_ORDER = 'input_ids', 'attention_mask', 'token_type_ids'  # of transformers' exports to ONNX
OF_BATCH = 'input_ids', 'token_type_ids', 'pair_ids'  # the same, as a batch of ours has them
USE = {
    STABLEHLO: '''import jax, safetensors.numpy
forward = jax.export.deserialize(bytearray(open('forward.stablehlo', 'rb').read()))  # for CPU, CUDA and TPU
parameters = safetensors.numpy.load_file('parameters.safetensors')
outputs = forward.call(parameters, input_ids, token_type_ids, attention_mask)''',
    SAVED_MODEL: '''import tensorflow as tf
model = tf.saved_model.load('.')
outputs = model.forward(input_ids, token_type_ids, attention_mask)''',
    ONNX: '''import onnxruntime
session = onnxruntime.InferenceSession('model.onnx')
inputs = {'input_ids': input_ids, 'token_type_ids': token_type_ids, 'attention_mask': attention_mask}
outputs = dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs)))'''}


def flat(loaded: Loaded) -> dict[str, np.ndarray]:
  """{'encoder/blocks/query/kernel': float32 array …}, in one piece each: safetensors writes views wrongly."""
  return {path_name(path): np.ascontiguousarray(leaf) for path, leaf in jax.tree.leaves_with_path(loaded.params)}


def function(loaded: Loaded) -> Callable:
  """(flat parameters, input_ids, token_type_ids, attention_mask [B T]) -> what proof.forward gives, in float32."""
  model, heads = dataclasses.replace(loaded.model, dtype='float32', attention='xla'), loaded.objective.heads
  graphdef, _, _ = build.describe(model, heads)

  def forward(params, input_ids, token_type_ids, attention_mask):
    batch = {'input_ids': input_ids, 'token_type_ids': token_type_ids, 'pair_ids': attention_mask,
             'position_ids': jax.lax.broadcasted_iota(jnp.int32, input_ids.shape, 1)}
    with jax.default_matmul_precision('float32'):
      return proof.forward(nnx.merge(graphdef, names.tree(params, model, heads)), heads, batch)

  return forward


def export_checkpoint(format: str, directory: storage.PathLike, loaded: Loaded, overwrite: bool = False,
                      verify: directory_lib.Verify | None = None) -> storage.Path:
  """Writes the program, its parameters, the tokenizer, and how to run it. Returns the path.

  Raises ConfigError where `directory` exists (see directory.write) or the vocabulary is not the model's; and as
  `verify` does.
  """
  directory_lib.check(directory, format, overwrite)
  huggingface.check_vocabulary(loaded)
  longest = loaded.model.max_positions
  gives = '\n'.join(f'- {name} {list(shape)}' for name, shape in shapes_of(loaded).items())
  labels = ', '.join(map(foreign.shown, loaded.labels))
  named = f'\n\nClasses, in the order of their scores: {labels}.' if labels else ''
  kind = 'int64' if format == ONNX else 'int32'
  readme = (f'# A BERT encoder as a program ({format})\n\nInputs: {kind} [B T] each, of any number of rows, up to '
            f'{longest} tokens; attention_mask is 1, and 0 where padding is. '
            f'Outputs, float32, by name:\n\n{gives}{named}\n\n```python\n{USE[format]}\n```\n')
  files = tokenizer_files.files(loaded.tokenizer(), longest) | {huggingface.README: readme.encode()}
  return directory_lib.write(directory, format, files | FILES[format](loaded), overwrite, verify)


def symbolic(loaded: Loaded, names: str):
  """(int32 of any number of rows and of tokens, by these two names; the shapes of the parameters)"""
  rows, tokens = jax.export.symbolic_shape(names, constraints=[f'{names.split()[1]} <= {loaded.model.max_positions}'])
  shapes = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in flat(loaded).items()}
  return jax.ShapeDtypeStruct((rows, tokens), jnp.int32), shapes


def shapes_of(loaded: Loaded) -> dict[str, tuple]:
  """{output: its shape, of numbers and of the symbols B and T}"""
  ids, shapes = symbolic(loaded, 'B, T')
  return {name: value.shape for name, value in jax.eval_shape(function(loaded), shapes, ids, ids, ids).items()}


def stablehlo_files(loaded: Loaded) -> dict[str, bytes]:
  params, (ids, shapes) = flat(loaded), symbolic(loaded, 'B, T')
  exported = jax.export.export(jax.jit(function(loaded)), platforms=PLATFORMS)(shapes, ids, ids, ids)
  return {PROGRAM: bytes(exported.serialize()), PARAMETERS: safetensors.numpy.save(params)}


def saved_model_files(loaded: Loaded) -> dict[str, bytes]:
  import tensorflow as tf
  from tensorflow.compiler.tf2xla.python import xla as tf2xla
  params, (ids, shapes) = flat(loaded), symbolic(loaded, 'B, T')
  exported = jax.export.export(jax.jit(function(loaded)), platforms=PLATFORMS)(shapes, ids, ids, ids)
  module = tf.Module()
  variables = module.parameters = {name: tf.Variable(value) for name, value in params.items()}
  sizes = [[d if isinstance(d, int) else None for d in value.shape] for value in exported.out_avals]
  attributes = dict(
      version=exported.calling_convention_version, module=for_tensorflow(exported), Sout=sizes,
      Tout=[value.dtype.name for value in exported.out_avals], platforms=[name.upper() for name in exported.platforms])

  def forward(*ids):
    given = jax.tree.leaves((variables, *ids))
    found = tf2xla.call_module([given[i] for i in exported.module_kept_var_idx], **attributes)
    return jax.tree.unflatten(exported.out_tree, found)

  signature = [tf.TensorSpec([None, None], tf.int32, name=name) for name in INPUTS]
  module.forward = tf.function(forward, signature, autograph=False)
  with tempfile.TemporaryDirectory() as folder:
    tf.saved_model.save(module, folder)
    top = storage.local(folder)
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob('*') if path.is_file()}


def for_tensorflow(exported: jax.export.Exported) -> bytes:
  """The program in a version of StableHLO that the TensorFlow here can read: it is often months behind jax's."""
  from jax.extend.mlir import ir
  from jax.extend.mlir.dialects import stablehlo
  from tensorflow.compiler.mlir.stablehlo import stablehlo as tensorflows
  version = stablehlo.get_smaller_version(stablehlo.get_current_version(), tensorflows.get_current_version())
  with ir.Context() as context:
    stablehlo.register_dialect(context)
    program = stablehlo.deserialize_portable_artifact(context, exported.mlir_module_serialized)
    return stablehlo.serialize_portable_artifact(program, version)


def config_of(loaded: Loaded) -> dict[str, bytes]:
  """config.json, which optimum and transformers.js read beside a model of ONNX, where transformers has such a model."""
  try:
    fields = huggingface.to_config(loaded.model, loaded.tokenizer().pad_id, loaded.objective, loaded.labels)
  except ConfigError:
    return {}
  return {huggingface.CONFIG: huggingface.encode(fields)}


def onnx_files(loaded: Loaded) -> dict[str, bytes]:
  """Made from our own jaxpr, so that each head that runs here can go. jax2onnx does not run on our model as it is (0.17
  and jax 0.10.2), and pip does not install it beside orbax-checkpoint 0.12; torch.onnx knows no model that transformers
  has not.
  """
  params, (ids, shapes) = flat(loaded), symbolic(loaded, 'batch_size, sequence_length')
  closed, outputs = jax.make_jaxpr(function(loaded), return_shape=True)(shapes, ids, ids, ids)
  graph = onnx_graph.Graph(params)
  inputs = {name: graph.tensor(name, ids.shape) for name in INPUTS}
  values = [params[name] for name in sorted(params)] + [graph.cast(inputs[name], np.int32) for name in INPUTS]
  found = {name: graph.whole(value, outputs[name].shape)
           for name, value in zip(sorted(outputs), onnx_primitives.run(graph, closed, values))}
  about = {'max_positions': str(loaded.model.max_positions), 'labels': json.dumps(loaded.labels)}
  return onnx_graph.files(graph, {name: inputs[name] for name in THEIR_ORDER}, found, about) | config_of(loaded)


FILES: dict[str, Callable[[Loaded], dict[str, bytes]]] = {
    STABLEHLO: stablehlo_files, SAVED_MODEL: saved_model_files, ONNX: onnx_files}

# ---------------------------------------------------------------- read again


def run_stablehlo(path: storage.Path, loaded: Loaded, batch: proof.Batch) -> tuple[str, proof.Outputs]:
  """jax.export.deserialize, on the platform of this process."""
  call = jax.export.deserialize(bytearray((path / PROGRAM).read_bytes())).call
  params = safetensors.numpy.load((path / PARAMETERS).read_bytes())
  found = in_parts(lambda ids: jax.device_get(call(params, *ids)), loaded, batch)
  return f'jax.export.deserialize on {jax.default_backend()}, at {PARTS} sizes', found


def run_saved_model(path: storage.Path, loaded: Loaded, batch: proof.Batch) -> tuple[str, proof.Outputs]:
  """tf.saved_model.load, on CPU."""
  import tensorflow as tf
  with storage.on_disk(path) as folder:
    model = tf.saved_model.load(str(folder))
    call = lambda ids: {name: value.numpy() for name, value in model.forward(*map(tf.constant, ids)).items()}
    return f'TensorFlow {tf.__version__}, at {PARTS} sizes', in_parts(call, loaded, batch)


def run_onnx(path: storage.Path, loaded: Loaded, batch: proof.Batch) -> tuple[str, proof.Outputs]:
  """onnxruntime, on CPU."""
  import onnxruntime
  with storage.on_disk(path) as folder:
    session = onnxruntime.InferenceSession(str(folder / onnx_graph.MODEL), providers=['CPUExecutionProvider'])
    outputs = [output.name for output in session.get_outputs()]
    call = lambda ids: dict(zip(outputs, session.run(None, {
        name: value.astype(np.int64) for name, value in zip(INPUTS, ids)})))
    return f'onnxruntime {onnxruntime.__version__}, at {PARTS} sizes', in_parts(call, loaded, batch)


PARTS = 3  # of a batch, each of other numbers of rows and tokens


def in_parts(call: Callable, loaded: Loaded, batch: proof.Batch) -> proof.Outputs:
  """What `call` gives for one row, for two, and for all others, each as long as its longest, put together again."""
  (B, T), shapes = batch['input_ids'].shape, shapes_of(loaded)
  found: dict[str, list[np.ndarray]] = {}
  ends = [0, min(1, B), min(PARTS, B), B]
  for rows in (slice(start, end) for start, end in zip(ends, ends[1:]) if start < end):
    longest = int(batch['pair_ids'][rows].sum(axis=1).max())
    for name, value in call([batch[name][rows, :longest] for name in OF_BATCH]).items():
      value = np.asarray(value)
      if value.ndim > 1 and not isinstance(shapes[name][1], int):  # of tokens
        value = np.pad(value, [(0, 0), (0, T - longest)] + [(0, 0)] * (value.ndim - 2))
      found.setdefault(name, []).append(value)
  return {name: np.concatenate(parts) for name, parts in found.items()}


RUNS: dict[str, proof.Run] = {STABLEHLO: run_stablehlo, SAVED_MODEL: run_saved_model, ONNX: run_onnx}

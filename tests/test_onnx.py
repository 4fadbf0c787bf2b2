"""What JAX computes and what a model of ONNX computes is the same, at any size; and the file is as runtimes want it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import parameters
import pytest
import synthetic

from bert_jax import config as cfg
from bert_jax.checkpoint import Loaded
from bert_jax.convert import exchange, onnx_graph, onnx_primitives
from bert_jax.objectives import OBJECTIVES
from input_pipeline.vocabulary import tokenizer as tokenizer_lib

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

MODEL = cfg.Model(vocab_size=40, hidden_size=12, layers=2, heads=2, intermediate_size=20, max_positions=16)
TABLE = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  folder = tmp_path_factory.mktemp('vocabulary')
  synthetic.write_vocabulary(folder, MODEL.vocab_size)
  return folder


def shares(x):  # [B T 4] -> the same
  return jax.nn.log_softmax(x, axis=-1) + jax.nn.softmax(x, axis=1) + jax.nn.sigmoid(x)


FUNCTIONS = {  # of float32 [B T 4] and int32 [B T] in 0 ... 4
    'parts': lambda x, ids: x[:, 1:, 1:3] * 2 + x[:, :1, 2:],
    'one of each': lambda x, ids: x[..., 0] - x[:, 0, 2][:, None] + x[:, :, -1],
    'joined': lambda x, ids: jnp.concatenate([x, TABLE[None, :1] + 0 * x, jnp.square(x)], axis=-1),
    'rows of a table': lambda x, ids: jnp.take(TABLE, ids, axis=0) + x,
    'columns of a table': lambda x, ids: jnp.asarray(TABLE).T[:, ids],
    'shares': lambda x, ids: shares(x),
    'activations': lambda x, ids: jax.nn.gelu(x) + jax.nn.relu(x) + jax.nn.silu(x) + x**4 + jnp.abs(x)**0.3,
    'sizes': lambda x, ids: x.mean(axis=1) + x.shape[0] * jnp.ones((1, 4)) + jnp.arange(x.shape[1]).max(),
    'places': lambda x, ids: jax.lax.broadcasted_iota(jnp.int32, x.shape, 1) * x + jnp.full(x.shape, 0.5),
    'products': lambda x, ids: jnp.einsum('btd,bsd->bts', x, x) @ x,
    'other products': lambda x, ids: jnp.einsum('btd,bte->de', x, x) + jnp.einsum('btd,d->bt', x, TABLE[0]).max(),
    'choices': lambda x, ids: jnp.where((ids[..., None] > 2) & ~(x < 0) | (x == 1), x, jnp.minimum(-x, 0.25)),
    'orders': lambda x, ids: x.transpose(2, 0, 1).reshape(4, -1).T.reshape(x.shape) + x.max(2, keepdims=True),
    'least': lambda x, ids: x - x.min(axis=1)[:, None],
    'loops': lambda x, ids: jax.lax.scan(lambda h, w: (jnp.tanh(h * w[None, None]), None), x, TABLE)[0],
    'inner functions': lambda x, ids: jax.checkpoint(jax.jit(lambda x: x / jnp.sqrt(1 + x * x)))(x),
}


def converted(function):
  B, T = jax.export.symbolic_shape('B, T', constraints=['T >= 3'])
  shapes = jax.ShapeDtypeStruct((B, T, 4), jnp.float32), jax.ShapeDtypeStruct((B, T), jnp.int32)
  closed, given = jax.make_jaxpr(function, return_shape=True)(*shapes)
  graph = onnx_graph.Graph({})
  x, ids = graph.tensor('x', shapes[0].shape), graph.tensor('ids', shapes[1].shape)
  values = [graph.cast(x, np.float32), graph.cast(ids, np.int32)]
  [value] = onnx_primitives.run(graph, closed, values)
  files = onnx_graph.files(graph, {'x': x, 'ids': ids}, {'out': graph.whole(value, given.shape)}, {})
  model = onnx.load_from_string(files[onnx_graph.MODEL])
  model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT  # of this test only
  onnx.checker.check_model(model, full_check=True)
  return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize('name', FUNCTIONS)
def test_what_heads_may_compute(name):
  session = converted(FUNCTIONS[name])
  rng = np.random.default_rng(1)
  for B, T in ((1, 3), (4, 7), (3, 5)):
    x, ids = rng.normal(size=(B, T, 4)).astype(np.float32), rng.integers(0, 5, (B, T))
    [found] = session.run(None, {'x': x, 'ids': ids})
    wanted = np.asarray(FUNCTIONS[name](jnp.asarray(x), jnp.asarray(ids, jnp.int32)))
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize('function, match', [
    (lambda x, ids: jnp.sort(x), 'the model computes sort, which has no operators'),
    (lambda x, ids: jax.lax.cond(ids.sum() > 0, lambda: x, lambda: -x), 'a branch that depends on the input'),
    (lambda x, ids: jax.lax.scan(lambda h, w: (h, h * w[None, None]), x, TABLE)[1], 'a loop that keeps what each')])
def test_what_has_no_operators_is_named(function, match):
  with pytest.raises(cfg.ConfigError, match=match):
    converted(function)


def loaded_of(vocabulary, objective='mlm_nsp', **changes):
  of = OBJECTIVES[objective]
  model = dataclasses.replace(MODEL, causal=of.causal, right_to_left=of.right_to_left, **changes)
  return Loaded(model, of, parameters.random(model, of.heads), lambda: tokenizer_lib.load(vocabulary))


def test_the_file_is_as_runtimes_want_it(tmp_path, vocabulary, monkeypatch):
  monkeypatch.setattr(exchange, 'load', lambda source: loaded_of(vocabulary, activation='gelu'))
  output = exchange.export('onnx', tmp_path, tmp_path / 'out', 'BertForMaskedLM')
  onnx.checker.check_model(str(output / 'model.onnx'), full_check=True)
  model = onnx.load(output / 'model.onnx')
  assert [entry.version for entry in model.opset_import] == [17] and model.producer_name == 'bert_jax'
  assert {entry.key: entry.value for entry in model.metadata_props} == {'max_positions': '16', 'labels': '[]'}
  dims = lambda value: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
  assert {value.name: dims(value) for value in model.graph.input} == dict.fromkeys(
      ['input_ids', 'attention_mask', 'token_type_ids'], ['batch_size', 'sequence_length'])
  assert all(value.type.tensor_type.elem_type == onnx.TensorProto.INT64 for value in model.graph.input)
  assert {value.name: dims(value) for value in model.graph.output} == {
      'last_hidden_state': ['batch_size', 'sequence_length', 12], 'logits': ['batch_size', 'sequence_length', 40]}
  names = {tensor.name for tensor in model.graph.initializer}
  assert {'encoder/word_embeddings/embedding', 'encoder/blocks/query/kernel/1'} <= names
  assert sum(name.endswith('/embedding') for name in names) == 3  # the decoder has no copy of the table
  assert not any('pair_classes' in name for name in names)
  config = json.loads((output / 'config.json').read_text())
  assert config['architectures'] == ['BertForMaskedLM'] and config['hidden_act'] == 'gelu'


@pytest.mark.parametrize('objective', ['left_to_right', 'right_to_left'])
def test_one_direction(tmp_path, vocabulary, monkeypatch, objective):
  """transformers has no model that reads from right to left; ONNX carries it."""
  monkeypatch.setattr(exchange, 'load', lambda source: loaded_of(vocabulary, objective))
  said = []
  output = exchange.export('onnx', tmp_path, tmp_path / 'out', tell=said.append)
  assert '\nlogits ' in said[0] and 'onnxruntime' in said[0]
  assert (output / 'config.json').exists() == (objective == 'left_to_right')


def test_parameters_beside_a_large_model(tmp_path, vocabulary, monkeypatch):
  monkeypatch.setattr(onnx_graph, 'LARGEST', 1000)
  monkeypatch.setattr(exchange, 'load', lambda source: loaded_of(vocabulary))
  said = []
  output = exchange.export('onnx', tmp_path, tmp_path / 'out', tell=said.append)
  assert 'last_hidden_state' in said[0]
  size = (output / 'model.onnx_data').stat().st_size
  assert size == 4 * 40 * 12 and (output / 'model.onnx').stat().st_size < 100_000
  onnx.checker.check_model(str(output / 'model.onnx'))
  assert set(json.loads((output / 'bert_jax_export.json').read_text())['files']) >= {'model.onnx', 'model.onnx_data'}


def test_another_answer_leaves_nothing(tmp_path, vocabulary, monkeypatch):
  from bert_jax.errors import CheckpointError
  monkeypatch.setattr(exchange, 'load', lambda source: loaded_of(vocabulary))
  monkeypatch.setitem(onnx_primitives.PRIMITIVES, 'tanh', onnx_primitives.elementwise('Sin'))
  with pytest.raises(CheckpointError, match='nothing was written: compared with onnxruntime'):
    exchange.export('onnx', tmp_path, tmp_path / 'out')
  assert not list(tmp_path.iterdir())

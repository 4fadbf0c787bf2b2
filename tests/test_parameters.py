"""Each parameter of each architecture with each objective's heads: where it lies, what it is sent in, what it costs."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from bert_jax import config as cfg, optimizer, program as program_lib, synthetic
from bert_jax.model import encoder, layers
from bert_jax.objectives import OBJECTIVES, PRETRAINING_HEADS, Objective
from bert_jax.parallel import mesh as mesh_lib
from bert_jax.tasks.table import TASKS
from bert_jax.tasks.task import Settings
from launch.plan import costs as hlo_costs

LEARNT = OBJECTIVES | {'classification': TASKS['classification'].objective(('a', 'b', 'c'), Settings()),
                       'regression': TASKS['regression'].objective((), Settings()),
                       'squad': TASKS['squad'].objective((), Settings()),
                       'swag': TASKS['swag'].objective(('0', '1', '2', '3'), Settings()),
                       'tagging': TASKS['tagging'].objective(('O', 'B-X', 'I-X'), Settings())}
FEATURES = {'ner_features': TASKS['ner_features'].objective(('O', 'B-X', 'I-X'), TASKS['ner_features'].settings())}
# Matrices of few columns, whose products run in float32 whatever the rest does: scores of 16 bits would often tie.
WIDE = ('pair_classes/', 'classifier/', 'ends/', 'choice/', 'tags/', 'tagger/')


def named(tree) -> dict:
  return {mesh_lib.path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def program_on(mesh, model: cfg.Model, objective: Objective, settings: cfg.Optimizer | None = None):
  model = dataclasses.replace(model, causal=objective.causal)
  return program_lib.make(model, objective, settings or cfg.Optimizer(), mesh, steps=10_000)


@pytest.fixture(scope='module')
def cube() -> jax.sharding.Mesh:
  return mesh_lib.make_mesh(cfg.MeshShape(data=2, fsdp=2, tensor=2))


@pytest.mark.parametrize('learnt', LEARNT | FEATURES)
@pytest.mark.parametrize('architecture', encoder.ENCODERS)
def test_no_matrix_is_on_every_device_whole(tiny, cube, architecture, learnt):
  """Nor its moments; and each is sent in what its products read it in."""
  model = dataclasses.replace(tiny.model, architecture=architecture, dtype='bfloat16')
  program = program_on(cube, model, (LEARNT | FEATURES)[learnt])
  params, logical, moments = named(program.abstract.params), named(program.logical), named(program.abstract.opt_state)
  assert params.keys() == logical.keys() and any(name.startswith('encoder/') for name in params)
  for name, x in params.items():
    known = logical[name]
    matrix = x.ndim - known.stacked >= 2
    narrow = matrix and not name.startswith(WIDE)
    assert x.dtype == np.float32 and known.dtype == ('bfloat16' if narrow else 'float32'), name
    assert not matrix or math.prod(x.sharding.shard_shape(x.shape)) <= x.size // 2, f'{name} is nowhere shared out'
    assert not known.stacked or x.shape[0] == model.layers, name
    mine = [moment for place, moment in moments.items() if place.endswith('/' + name)]
    assert len(mine) == 2 and all(moment.sharding == x.sharding for moment in mine), name


def test_a_matrix_without_axes_is_an_error_that_names_it(tiny, cube):

  class Gate(nnx.Module):
    def __init__(self, settings, rngs):
      self.kernel = nnx.Param(jnp.zeros((settings.hidden_size, 4)))

  class Short(nnx.Module):
    def __init__(self, settings, rngs):
      self.kernel = nnx.Param(jnp.zeros((settings.hidden_size, 4)), logical=mesh_lib.Logical(('embed',)))

  for head, says in ((Gate, 'None'), (Short, "'embed',")):
    objective = dataclasses.replace(OBJECTIVES['mlm_nsp'], heads=PRETRAINING_HEADS | {'gate': head})
    with pytest.raises(ValueError, match=rf'gate/kernel of shape \(16, 4\) has the logical axes .*{says}'):
      program_on(cube, tiny.model, objective)
  for axes in ((), ('embed',), ('layers', 'embed', None)):
    with pytest.raises(ValueError, match=r'shape \(16, 4\) was given the logical axes'):
      layers.parameter(jnp.zeros((16, 4)), *axes)


# ---------------------------------------------------------------- what an optimizer keeps in another shape


def factored(o, about):
  """Adafactor's second moments: of a matrix [L D F], one number a row and one a column."""
  decay = optax.add_decayed_weights(o.weight_decay, about.decayed)
  return optax.chain(optax.scale_by_factored_rms(min_dim_size_to_factor=2), decay)


@pytest.mark.slow
def test_a_factored_statistic_lies_as_its_own_axes_do(tiny, cube, monkeypatch):
  monkeypatch.setitem(optimizer.OPTIMIZERS, 'factored', factored)
  # Sizes that differ, so that a statistic's shape tells which axes it has.
  model = dataclasses.replace(tiny.model, layers=3, hidden_dropout=0., attention_dropout=0.)
  settings = cfg.Optimizer(name='factored', peak_learning_rate=1e-2, warmup_steps=0)
  program = program_on(cube, model, OBJECTIVES['mlm_nsp'], settings)
  kept = named(program.abstract.opt_state)
  of = lambda kind, name: next(x for place, x in kept.items() if place.endswith(f'{kind}/{name}'))
  kernel = 'encoder/blocks/intermediate/kernel'  # [3 16 32], of which 16 lie along fsdp and 32 along tensor
  rows, columns = of('v_row', kernel), of('v_col', kernel)
  assert {rows.shape, columns.shape} == {(3, 16), (3, 32)}
  axes = {(3, 16): jax.P(None, 'fsdp'), (3, 32): jax.P(None, 'tensor')}
  for statistic in (rows, columns):
    assert statistic.sharding.spec == axes[statistic.shape]
  for x in kept.values():
    assert len(x.sharding.spec) <= x.ndim
  batch = synthetic.batch(64, 16, 16, 4, seed=1)
  one = program_on(mesh_lib.make_mesh(cfg.MeshShape(), jax.devices()[:1]), model, OBJECTIVES['mlm_nsp'], settings)
  states = [on.train_step(on.init(), mesh_lib.put_batch(batch, on.mesh))[0] for on in (program, one)]
  for name, x in named(states[0].opt_state).items():
    assert x.sharding.is_equivalent_to(kept[name].sharding, x.ndim), name
  for name, x in named(states[0].params).items():
    if 'key/bias' not in name:  # whose gradient is rounding alone
      np.testing.assert_allclose(x, named(states[1].params)[name], atol=1e-3, err_msg=name)


# ---------------------------------------------------------------- what a step costs


# Rows of a task hold one example each.
@pytest.mark.parametrize('learnt, packed', [
    *((name, False) for name in LEARNT), *((name, True) for name in OBJECTIVES)])
@pytest.mark.parametrize('architecture', encoder.ENCODERS)
def test_flops_by_the_class_are_those_of_the_program(architecture, learnt, packed):
  """Within 2 %, of a model that is wide enough for its products to count; nothing is computed twice."""
  objective = LEARNT[learnt]
  # A gradient of a bias is a product in the workaround, which is none of the model's.
  model = cfg.Model(architecture=architecture, vocab_size=512, hidden_size=128, layers=2, heads=2,
                    intermediate_size=512, max_positions=64, dtype='float32', remat='none', plain=('add_bias',))
  batch = cfg.BatchConfig(size=4, sequence_length=64, predictions=10, pack=packed, pairs_per_row=3 if packed else 1)
  program = program_on(mesh_lib.make_mesh(cfg.MeshShape(), jax.devices()[:1]), model, objective)
  arrays = synthetic.batch(model.vocab_size, batch.size, batch.sequence_length, batch.predictions, batch.pairs_per_row)
  label = np.zeros(batch.size, np.float32 if learnt == 'regression' else np.int32)
  arrays |= {'label': label, 'weight': np.ones(batch.size, np.float32)}
  arrays |= {'ends': np.zeros((batch.size, 2), np.int32), 'known': np.ones((batch.size, 2), np.float32)}
  arrays |= {'tag': np.zeros(arrays['input_ids'].shape, np.int32), 'first': (arrays['pair_ids'] > 0).astype(np.float32)}
  compiled = program.train_step.lower(program.abstract, arrays).compile()
  costs = hlo_costs.read(compiled.as_text())
  assert costs.endless == () and costs.flops == pytest.approx(program.flops_per_step(batch), rel=.02)

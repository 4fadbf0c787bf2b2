"""A step that comes out differently the second time is found, on one device and on several; a sound one is not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax import checkpoint, config as cfg, program as program_lib, recheck, recipes, train
from bert_jax.errors import ConfigError, CorruptionError
from bert_jax.parallel import mesh as mesh_lib
from input_pipeline.batches import loader
from tests import synthetic

VOCABULARY, STEPS = 64, 6


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return synthetic.write_data(tmp_path_factory.mktemp('recheck') / 'data', vocabulary_size=VOCABULARY, pieces=60,
                              documents=12, sequence_length=16)


def config_of(mesh: cfg.MeshShape, every: int = 3) -> cfg.Config:
  return cfg.Config(
      model=recipes.model_of(1, 64, vocab_size=VOCABULARY, dtype='float32'), mesh=mesh,
      batch=cfg.BatchConfig(size=8, sequence_length=16, predictions=4), optimizer=cfg.Optimizer(warmup_steps=2),
      run=cfg.Run(steps=STEPS, log_every=2, checkpoint_every=2, recheck_every=every))


def flipped(array: jax.Array, device: int) -> jax.Array:
  """The array with one bit of one number turned in the memory of one device, really."""
  parts = []
  for number, shard in enumerate(array.addressable_shards):
    local = np.array(shard.data)
    if number == device:
      local.view(np.uint8).reshape(-1)[1] ^= 1
    parts.append(jax.device_put(local, shard.device))
  return jax.make_array_from_single_device_arrays(array.shape, array.sharding, parts)


class Faulty:
  """A train step whose result has a turned bit, the time `call` that it is made."""

  def __init__(self, step, call: int, leaf: int, device: int):
    self.step, self.call, self.leaf, self.device = step, call, leaf, device

  def __call__(self, state, batch):
    self.call -= 1
    state, report = self.step(state, batch)
    if self.call == 0:
      leaves, tree = jax.tree.flatten(state)
      leaves[self.leaf] = flipped(leaves[self.leaf], self.device)
      state = jax.tree.unflatten(tree, leaves)
    return state, report

  def __getattr__(self, name):
    return getattr(self.step, name)


@pytest.mark.parametrize('mesh, devices', [(cfg.MeshShape(data=1), 1), (cfg.MeshShape(data=2, fsdp=2), 4)])
def test_a_turned_bit_in_either_result_is_found(mesh, devices, data):
  config = config_of(mesh)
  program = program_lib.of(config, jax.devices()[:devices])
  batch = mesh_lib.put_batch(loader.open_split(data, 'train', config.batch).batch(0), program.mesh)
  step, state = program.train_step, program.init()
  again = jax.tree.map(jnp.copy, state)
  after, report = recheck.step(program, state, batch, 1)  # the control
  wanted, other = step(again, batch)
  assert recheck.differences((after, report), (wanted, other), program.mesh) == {}
  leaves = len(jax.tree.leaves(program.abstract))
  for call, leaf, device in ((1, 2, 0), (2, leaves - 1, devices - 1), (1, leaves // 2, devices // 2), (2, 5, 0)):
    vars(program)['train_step'] = Faulty(step, call, leaf, device)
    with pytest.raises(CorruptionError, match='step 7 was done twice .* 1 numbers of 1 arrays'):
      recheck.step(program, program.init(), batch, 7)
  vars(program)['train_step'] = step


def test_it_ends_the_run_and_is_saved_nowhere(data, tmp_path, monkeypatch):
  config, devices = config_of(cfg.MeshShape(data=1)), jax.devices()[:1]
  program = program_lib.of(config, devices)
  monkeypatch.setattr(program_lib, 'of', lambda *_: program)
  monkeypatch.setitem(vars(program), 'train_step', Faulty(program.train_step, 8, 3, 0))  # steps 1 2 3 3 4 5 6 6
  with pytest.raises(CorruptionError, match='step 6') as caught:
    train.train(config, data, tmp_path / 'run', devices=devices, progress=False)
  assert caught.value.exit_code == 13
  with checkpoint.manager(tmp_path / 'run') as checkpoints:
    assert checkpoints.all_steps() == [2, 4]
  monkeypatch.setitem(vars(program), 'train_step', program.train_step.step)
  assert train.train(config, data, tmp_path / 'run', devices=devices, progress=False).reason == 'steps'


def test_what_is_no_number_is_the_same_as_itself(data):
  program = program_lib.of(config_of(cfg.MeshShape(data=1)), jax.devices()[:1])
  state = program.init()
  nan = jax.tree.map(lambda x: x * np.nan if x.dtype == np.float32 else x, state)
  assert recheck.differences(nan, nan, program.mesh) == {}
  zero = lambda sign: jax.tree.map(lambda x: x * np.float32(sign * 0.0) if x.dtype == np.float32 else x, state)
  assert recheck.differences(zero(1), zero(-1), program.mesh)  # 0.0 and -0.0 are other bits


def test_gpus_that_sum_in_any_order_are_refused(monkeypatch):
  class Device:
    platform = 'gpu'
  mesh = dataclasses.make_dataclass('Mesh', ['devices'])(np.array([Device()]))
  monkeypatch.setenv('XLA_FLAGS', '')
  with pytest.raises(ConfigError, match='xla_gpu_deterministic_ops'):
    recheck.check(100, mesh)
  recheck.check(0, mesh)
  monkeypatch.setenv('XLA_FLAGS', '--xla_gpu_deterministic_ops=true')
  recheck.check(100, mesh)

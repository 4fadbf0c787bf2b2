"""A step that comes out differently the second time is found, on one device and on several; a sound one is not."""

import dataclasses

import jax
import numpy as np
import pytest

from bert_jax import checkpoint, config as cfg, program as program_lib, recheck, recipes, train
from bert_jax.errors import ConfigError, CorruptionError
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

  def __init__(self, program: program_lib.Program, call: int, leaf: int, device: int):
    self.step, self.call, self.leaf, self.device = program.train_step, call, leaf, device

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


MESHES = {'one device': (cfg.MeshShape(data=1), 1), 'fsdp': (cfg.MeshShape(data=2, fsdp=2), 4)}


@pytest.mark.parametrize('mesh', MESHES)
def test_a_turned_bit_ends_the_run_and_is_saved_nowhere(mesh, data, tmp_path, monkeypatch):
  shape, devices = MESHES[mesh]
  config, devices = config_of(shape), jax.devices()[:devices]
  program = program_lib.of(config, devices)
  monkeypatch.setattr(program_lib, 'of', lambda *_: program)  # compiled once
  sound = train.train(config, data, tmp_path / 'sound', devices=devices, progress=False)
  assert sound.reason == 'steps'  # the control: steps 3 and 6 were done twice
  plain = train.train(config_of(shape, 0), data, tmp_path / 'plain', devices=devices, progress=False)
  for a, b in zip(jax.tree.leaves(sound.state), jax.tree.leaves(plain.state), strict=True):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
  leaves = len(jax.tree.leaves(program.abstract))
  for number, (call, leaf) in enumerate(((3, 2), (4, leaves - 1), (7, leaves // 2), (8, 5))):  # first or second, of 3, 6
    faulty = Faulty(program, call, leaf, number % len(devices))
    monkeypatch.setitem(vars(program), 'train_step', faulty)
    with pytest.raises(CorruptionError, match='done twice .* 1 numbers of 1 arrays') as caught:
      train.train(config, data, tmp_path / str(number), devices=devices, progress=False)
    monkeypatch.setitem(vars(program), 'train_step', faulty.step)
    assert faulty.call == 0 or call % 2, 'the fault was made'
    assert caught.value.exit_code == 13
    with checkpoint.manager(tmp_path / str(number)) as checkpoints:
      assert checkpoints.all_steps() == ([2] if call < 5 else [2, 4])


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

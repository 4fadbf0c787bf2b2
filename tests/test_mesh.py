"""Meshes: the same losses on every one, state really shared out, one compilation, refusals that name the field."""

import dataclasses
import math
import re
import types

import jax
import numpy as np
import pytest

from bert_jax import config as cfg, objectives, program as program_lib, synthetic
from bert_jax.parallel import collectives, mesh as mesh_lib

STEPS = 20


def train(config, shape, pairs=1):
  """(losses of STEPS steps with dropout, the last state, the jitted step, its compiled text)."""
  shape = cfg.MeshShape(*shape)
  config = dataclasses.replace(config, mesh=shape)
  mesh = mesh_lib.make_mesh(shape, jax.devices()[:shape.data * shape.fsdp * shape.tensor])
  losses = []
  program = program_lib.of(config, list(mesh.devices.flat))
  state, step = program.init(), program.train_step
  for seed in range(STEPS):
    batch = mesh_lib.put_batch(synthetic.batch(64, 16, 16, 4, pairs, seed=seed, shortest=.4), mesh)
    with jax.transfer_guard('disallow'):  # all that a step needs is there
      state, report = step(state, batch)
    terms = report['terms']
    losses.append(float(objectives.loss_of(terms, {term: s['weight'] for term, s in terms.items()})))
  batch = mesh_lib.put_batch(synthetic.batch(64, 16, 16, 4, pairs), mesh)
  return losses, state, step, lambda: step.lower(state, batch).compile().as_text()


@pytest.fixture(scope='module', params=[1, 3], ids=['', 'packed'])
def straight(tiny, request):
  """(pairs of a row, what one device makes of such rows)"""
  return request.param, train(tiny, (1, 1, 1), request.param)


@pytest.mark.parametrize('shape', [(8, 1, 1), (1, 8, 1), (2, 4, 1), (2, 2, 2)])
def test_every_mesh_gives_the_losses_of_one_device(tiny, straight, shape):
  pairs, straight = straight
  losses, state, step, text = train(tiny, shape, pairs)
  np.testing.assert_allclose(losses, straight[0], atol=1e-5)
  assert step._cache_size() == 1 == straight[2]._cache_size()
  _, fsdp, tensor = shape
  moments = state.opt_state[0]
  trees = {'params': state.params['encoder'], 'mu': moments.mu['encoder'], 'nu': moments.nu['encoder']}
  for where, tree in trees.items():
    x = tree['blocks']['query']['kernel']
    assert {shard.data.shape for shard in x.addressable_shards} == {(2, 16 // fsdp, 16 // tensor)}, where
    x = tree['word_embeddings']['embedding']
    assert {math.prod(shard.data.shape) for shard in x.addressable_shards} == {64 * 16 // fsdp}, where
  if shape == (2, 2, 2):
    # Where the partitioner gives up ("involuntary full rematerialization") a device holds the activations of all 256
    # tokens.
    arrays = {tuple(map(int, dims.split(','))) for dims in re.findall(r'(?:f32|pred|u32)\[([0-9,]+)\]', text())}
    assert (64, 16) in arrays  # those of a quarter
    assert not [dims for dims in arrays if math.prod(dims) >= 256 * 16]


def test_fully_sharded_state_of_base_takes_its_share_of_memory():
  state = program_lib.of(cfg.Config(mesh=cfg.MeshShape(data=1, fsdp=8))).abstract
  leaves = jax.tree.leaves(state)
  whole = sum(math.prod(x.shape) for x in leaves)
  shard = sum(math.prod(x.sharding.shard_shape(x.shape)) for x in leaves)
  assert shard < 1.01 * whole / 8 + 3 * 3 * 768 * 12 * 16  # biases and scales are everywhere


def test_every_matrix_is_shared_out_and_moments_lie_as_their_parameters():
  program = program_lib.of(cfg.Config(mesh=cfg.MeshShape(data=2, fsdp=2, tensor=2)))
  state = program.abstract
  logical = {mesh_lib.path_name(path): known for path, known in jax.tree.leaves_with_path(program.logical)}
  used = {axis for known in logical.values() for axis in known.axes if axis not in (None, 'layers')}
  assert used == set(mesh_lib.RULES) - {'batch'}  # the table names axes that exist
  for name, x in {mesh_lib.path_name(path): x for path, x in jax.tree.leaves_with_path(state.params)}.items():
    small = x.ndim - logical[name].stacked < 2
    assert small or any(x.sharding.spec), f'{name} is nowhere shared out'
  for moments in state.opt_state[0]:
    jax.tree.map(lambda p, m: pytest.fail(f'{p} {m}') if p.sharding != m.sharding else None, state.params, moments)


@pytest.mark.parametrize('shape, field', [
    ((3, 1, 1), 'mesh.data 3'), ((-1, 3, 1), 'mesh.fsdp 3'), ((-1, -1, 1), 'mesh.fsdp -1'),
    ((-2, 8, 1), 'mesh.data is -2'), ((-1, 1, 16), 'mesh.tensor 16'), ((2, 2, 1), 'mesh.tensor 1')])
def test_a_mesh_that_does_not_fit_is_refused(shape, field):
  with pytest.raises(cfg.ConfigError, match=field):
    mesh_lib.make_mesh(cfg.MeshShape(*shape))


@pytest.mark.parametrize('shape, sizes', [((-1, 1, 1), (8, 1, 1)), ((2, -1, 1), (2, 4, 1)), ((2, 2, -1), (2, 2, 2))])
def test_minus_one_takes_what_is_left(shape, sizes):
  assert tuple(mesh_lib.make_mesh(cfg.MeshShape(*shape)).shape.values()) == sizes


@pytest.mark.parametrize('shape', [(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 1, 8), (1, 2, 4)])
@pytest.mark.parametrize('processes', [1, 2, 4, 8])
def test_processes_feed_every_row_and_only_sharers_the_same(monkeypatch, shape, processes):
  devices = [types.SimpleNamespace(process_index=i * processes // 8, id=i) for i in range(8)]
  devices = np.array(devices, object).reshape(shape)
  mesh = types.SimpleNamespace(devices=devices, shape=dict(zip(mesh_lib.AXES, shape)))
  parts = []
  for process in range(processes):
    monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
    parts.append(mesh_lib.process_slice(mesh))
  shards = shape[0] * shape[1]
  assert {count for _, count in parts} == {min(shards, processes)}
  count = min(shards, processes)
  assert [index for index, _ in parts] == [process * count // processes for process in range(processes)]


def torus(*sizes, host=(2, 2, 1), slices=1):
  """Stand-ins for the chips of some slices, as a TPU's devices list them: coordinates x y z, host by host."""
  chips = []
  for piece in range(slices):
    for z, y, x in np.ndindex(*reversed(sizes)):
      hosts = [size // h for size, h in zip(sizes, host)]
      process = (z // host[2] * hosts[1] + y // host[1]) * hosts[0] + x // host[0] + piece * math.prod(hosts)
      chips.append(types.SimpleNamespace(
          coords=[x, y, z], core_on_chip=0, slice_index=piece, process_index=process, id=len(chips)))
  return sorted(chips, key=lambda chip: (chip.process_index, chip.id))


def fake_mesh(devices, shape):
  devices = np.array(sorted(devices, key=mesh_lib.position_of), object).reshape(shape)
  return types.SimpleNamespace(devices=devices, shape=dict(zip(mesh_lib.AXES, shape)))


@pytest.mark.parametrize('sizes, shape, rings', [
    ((4, 4, 1), (1, 16, 1), (4, 4)), ((16, 16, 1), (1, 256, 1), (16, 16)), ((4, 4, 4), (1, 64, 1), (4, 4, 4)),
    ((4, 4, 1), (4, 4, 1), (4,)), ((4, 4, 1), (16, 1, 1), (1,)), ((8, 4, 1), (1, 32, 1), (4, 8))])
def test_a_scatter_goes_along_one_axis_of_the_torus_at_a_time(sizes, shape, rings):
  got = collectives.rings(fake_mesh(torus(*sizes), shape))
  assert got == rings or rings == (1,) and math.prod(got) == 1


@pytest.mark.parametrize('sizes', [(2, 4), (2, 2, 2), (8,)])
def test_a_scatter_in_rings_is_the_scatter(sizes):
  mesh = mesh_lib.make_mesh(cfg.MeshShape(data=1, fsdp=8))
  x = jax.random.normal(jax.random.key(0), (8, 16, 3))
  scatter = lambda x: collectives.scatter(x[0], 0, sizes, range(len(sizes)))
  run = mesh_lib.per_device(scatter, mesh, jax.P('fsdp'), jax.P('fsdp'))
  np.testing.assert_allclose(jax.jit(run)(x), x.sum(0), atol=1e-6)


@pytest.mark.parametrize('sizes', [(2, 4), (2, 2, 2), (8,)])
# Parts of 24 are no whole tiles, of 32 at first.
@pytest.mark.parametrize('together, rows', [(False, 24), (True, 24), (True, 32)])
def test_what_is_scattered_is_summed_and_what_is_gathered_is_whole(sizes, together, rows):
  mesh = mesh_lib.make_mesh(cfg.MeshShape(data=1, fsdp=8))
  axes = [1, 0, 1, 1, 2]
  shapes = [(3, 128, 5), (rows, 130), (300, 16), (2, 64), (3, 5, 16)]  # of the third and fourth columns are shared out
  arrays = [jax.random.normal(jax.random.key(i), (8, *shape)) for i, shape in enumerate(shapes)]
  parts = [jax.P(*('fsdp' if i == axis else None for i in range(len(shape)))) for shape, axis in zip(shapes, axes)]

  def local(arrays):
    own = collectives.scatter_all([x[0] for x in arrays], axes, sizes, together)
    return own, [collectives.gather(x, axis, sizes) for x, axis in zip(own, axes)]

  own, gathered = jax.jit(mesh_lib.per_device(local, mesh, jax.P('fsdp'), (parts, jax.P())))(arrays)
  for one, same, x in zip(own, gathered, arrays):
    np.testing.assert_allclose(one, x.sum(0), atol=1e-5)
    np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize('shape, axis', [((3, 16, 5), 1), ((16, 5), 0), ((3, 5, 16), 2)])
def test_what_is_split_and_packed_comes_back(shape, axis):
  x, other = np.arange(math.prod(shape), dtype=np.float32).reshape(shape), np.ones((8, 1000), np.float32)
  shares = collectives.split_shares(x, axis, 8)
  for i, part in enumerate(np.split(x, 8, axis)):  # each row is what one device has
    np.testing.assert_array_equal(collectives.join_shares(shares[i:i + 1], axis), part)
  packed = collectives.pack_runs([other, shares])
  assert packed.shape[0] == 8 and packed.shape[1] == collectives.round_up_to_divisible(packed.shape[1])
  unpacked = collectives.unpack_runs(packed, [other.shape, shares.shape])
  np.testing.assert_array_equal(collectives.join_shares(unpacked[1], axis), x)


@pytest.mark.parametrize('shape', [(300, 64), (2, 16), (30522, 24)])
def test_each_device_finds_its_columns_among_the_runs(shape):
  x = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
  runs = collectives.columns_to_runs(x, 8)
  np.testing.assert_array_equal(collectives.runs_to_columns(runs, shape), x)
  for i, part in enumerate(np.split(x, 8, axis=1)):
    np.testing.assert_array_equal(collectives.runs_to_columns(runs[i:i + 1], part.shape), part)


def test_sizes_are_rounded_up_to_what_has_divisors():
  for n in range(1, 100_000, 7):
    rounded = collectives.round_up_to_divisible(n)
    assert n <= rounded <= n * 33 / 32 and rounded >> max(n.bit_length() - collectives.LEADING_BITS, 0) <= 64


def test_processes_whose_chips_do_not_stand_in_line_feed_every_row_once(monkeypatch):
  mesh = fake_mesh(torus(4, 4, 1), (1, 16, 1))
  parts = []
  for process in range(4):
    monkeypatch.setattr(jax, 'process_index', lambda process=process: process)
    parts.append(mesh_lib.process_slice(mesh))
  assert parts == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_rows_keep_their_numbers_wherever_they_lie():
  mesh = mesh_lib.make_mesh(cfg.MeshShape(data=2, fsdp=2, tensor=2))
  ids = np.arange(24, dtype=np.int32).reshape(8, 3)
  batch = mesh_lib.put_batch({'input_ids': ids}, mesh)
  np.testing.assert_array_equal(batch['input_ids'], ids)
  np.testing.assert_array_equal(batch['row_numbers'], np.arange(8))
  assert {shard.data.shape for shard in batch['input_ids'].addressable_shards} == {(2, 3)}


@pytest.mark.parametrize('devices, slices, rows, sizes', [
    (1, 1, 32, [1, 1, 1]), (8, 1, 256, [1, 8, 1]), (256, 1, 256, [1, 256, 1]), (512, 2, 1024, [2, 256, 1]),
    (512, 1, 1024, [2, 256, 1]), (512, 1, 256, [1, 256, 2]), (6, 1, 36, [1, 6, 1]), (5, 1, 20, [5, 1, 1]),
    (2, 1, 255, [1, 2, 1]), (3, 1, 256, [1, 3, 1]), (5, 1, 256, [5, 1, 1]), (6, 1, 256, [1, 6, 1]),
    (7, 1, 256, [7, 1, 1]), (8, 1, 9, [1, 8, 1]), (8, 2, 12, [2, 4, 1]), (8, 1, 4, [1, 4, 2]), (6, 1, 4, [1, 2, 3]),
    (8, 1, 3, [1, 8, 1]), (5, 1, 4, [5, 1, 1])])
def test_a_mesh_is_chosen(devices, slices, rows, sizes):
  assert mesh_lib.choose_sizes(devices, slices, cfg.Model(), rows) == sizes


def test_what_no_mesh_suits_is_refused():
  with pytest.raises(cfg.ConfigError, match='2 slices.*mesh.data'):
    mesh_lib.make_mesh(cfg.MeshShape(data=1, fsdp=-1), torus(2, 2, 1, slices=2))


def test_constraints_outside_of_a_mesh_do_nothing():
  x = np.ones((3, 5), np.float32)
  assert mesh_lib.constrain(x, 'batch', 'embed') is x

"""Rows that devices, microbatches or processes do not divide: empty ones fill them up, and count for nothing."""

import dataclasses
import functools
import types

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from bert_jax import choices, config as cfg, objectives, program as program_lib, synthetic
from bert_jax.parallel import mesh as mesh_lib

LENGTH, PREDICTIONS, VOCABULARY, STEPS = 16, 4, 64, 4
COUNTS = (1, 2, 3, 5, 6, 7, 8)  # of devices


@hypothesis.settings(deadline=None)
@hypothesis.given(st.integers(1, 500), st.integers(1, 500))
def test_microbatches_are_equal_and_none_is_empty(rows, most):
  count, each = mesh_lib.in_microbatches(rows, most)
  assert count <= most and (count - 1) * each < rows <= count * each and each == -(-rows // most)
  assert mesh_lib.in_microbatches(count * each, most) == (count, each)  # what the step makes of what it is given
  assert rows % most or (count, each) == (most, rows // most)


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(st.sampled_from([(n, 1, 1) for n in COUNTS] + [(1, n, 1) for n in COUNTS] + [(2, 2, 2), (2, 3, 1)]),
                  st.integers(1, 40), st.integers(1, 9))
def test_every_row_is_there_once_and_the_rest_is_empty(shape, rows, microbatches):
  mesh = mesh_lib.make_mesh(cfg.MeshShape(*shape), jax.devices()[:np.prod(shape)])
  values = np.arange(1, 3 * rows + 1, dtype=np.int32).reshape(rows, 3)
  batch = mesh_lib.put_batch({'values': values}, mesh, microbatches)
  numbers, found = np.asarray(batch['row_numbers']), np.asarray(batch['values'])
  np.testing.assert_array_equal(found[np.argsort(numbers)][:rows], values)
  assert not found[np.argsort(numbers)][rows:].any() and sorted(numbers) == list(range(len(numbers)))
  each = mesh_lib.rows_of_device(rows, mesh, microbatches)
  assert len(numbers) == each * mesh_lib.row_shards(mesh)
  if rows % (mesh_lib.row_shards(mesh) * microbatches) == 0:
    assert len(numbers) == rows


@pytest.mark.parametrize('processes, rows', [(3, 8), (4, 10), (4, 5), (7, 3)])
def test_processes_number_their_rows_as_they_stand_in_the_batch(monkeypatch, processes, rows):
  """Each has two devices, and as many rows as any other; the last ones bring empty ones."""
  local, numbers = -(-rows // processes), []
  for process in range(processes):
    monkeypatch.setattr(mesh_lib, 'process_slice', lambda mesh, process=process: (process, processes))
    each = -(-local // 2)
    places = {device: (slice(device * each, (device + 1) * each),) for device in (2 * process, 2 * process + 1)}
    sharding = types.SimpleNamespace(addressable_devices_indices_map=lambda shape, places=places: places)
    monkeypatch.setattr(mesh_lib, 'batch_sharding', lambda mesh, sharding=sharding: sharding)
    monkeypatch.setattr(jax, 'device_put', lambda x, device: x)
    monkeypatch.setattr(jax, 'make_array_from_single_device_arrays', lambda shape, sharding, parts: (shape, parts))
    mesh = types.SimpleNamespace(shape={'data': 2 * processes, 'fsdp': 1, 'tensor': 1})
    shape, parts = mesh_lib.put_batch({'x': np.ones((local, 1))}, mesh)['row_numbers']
    assert shape == (2 * each * processes,) and [len(part) for part in parts] == [each] * 2
    true = range(process * local, (process + 1) * local)
    numbers += [number for part in parts for number in part]
    assert [number for part in parts for number in part][:local] == list(true)
  assert sorted(numbers) == list(range(2 * each * processes))


def changed(tiny, rows, microbatches, objective='mlm_nsp', pairs=1):
  causal = objectives.OBJECTIVES[objective].causal
  kind = (objectives.OBJECTIVES[objective].pairs or ('none',))[0]
  masking = cfg.Masking(share=0.) if causal else tiny.batch.masking
  batch = dataclasses.replace(tiny.batch, size=rows, pairs=kind, masking=masking, pack=pairs > 1, pairs_per_row=pairs)
  model = dataclasses.replace(tiny.model, layers=1, causal=causal, right_to_left=objective == 'right_to_left')
  return dataclasses.replace(tiny, objective=objective, batch=batch, model=model,
                             optimizer=dataclasses.replace(tiny.optimizer, warmup_steps=1),
                             run=dataclasses.replace(tiny.run, microbatches=microbatches))


def train(config, devices: int, pairs: int):
  """Of each step the loss and the gradient's norm, and of an evaluation at the end the sums."""
  program = program_lib.of(config, jax.devices()[:devices])
  state, found, weights = program.init(), [], []
  for seed in range(STEPS):
    batch = synthetic.batch(VOCABULARY, config.batch.size, LENGTH, PREDICTIONS, pairs, seed=seed, shortest=.4)
    state, report = program.train_step(state, mesh_lib.put_batch(batch, program.mesh, program.microbatches))
    terms = report['terms']
    weights.append({name: float(sums['weight']) for name, sums in terms.items()})
    found.append((float(objectives.loss_of(terms, {name: sums['weight'] for name, sums in terms.items()})),
                  float(report['gradient_norm'])))
  sums, _ = program.evaluation_step(state.params, mesh_lib.put_batch(batch, program.mesh))
  found.append((float(objectives.loss_of(sums, {name: of['weight'] for name, of in sums.items()})), 0.))
  return np.array(found), weights, program.mesh


@functools.cache
def straight(config, pairs):
  """What one device makes of it."""
  return train(config, 1, pairs)


def compare(tiny, devices, rows, microbatches, objective='mlm_nsp', pairs=1):
  whole = changed(tiny, rows, 1, objective, pairs)
  want, weights, _ = straight(whole, pairs)
  found, counted, mesh = train(changed(tiny, rows, microbatches, objective, pairs), devices, pairs)
  np.testing.assert_allclose(found, want, atol=1e-5)
  assert counted == weights  # means are over what is there
  assert mesh.size == devices and (mesh_lib.row_shards(mesh) == devices or rows < devices)


@pytest.mark.parametrize('devices, rows, microbatches, pairs', [
    (3, 10, 2, 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((7, 10, 1, 1), (6, 4, 4, 1)))])
def test_the_losses_are_those_of_one_device(tiny, devices, rows, microbatches, pairs):
  """With dropout; padded and packed rows; the last case has fewer rows than devices."""
  compare(tiny, devices, rows, microbatches, pairs=pairs)


def cases():
  """Each objective on each number of devices, with rows and microbatches drawn at random."""
  random = np.random.default_rng(0)
  for objective in objectives.OBJECTIVES:
    for devices in COUNTS:
      microbatches = int(random.choice([1, 1, 2, 3, 4]))
      yield devices, int(random.integers(2, 9)) * microbatches, microbatches, objective, int(random.choice([1, 3]))


@pytest.mark.slow
@pytest.mark.parametrize('devices, rows, microbatches, objective, pairs', list(cases()))
def test_the_losses_of_every_objective_are_those_of_one_device(tiny, devices, rows, microbatches, objective, pairs):
  compare(tiny, devices, rows, microbatches, objective, pairs)


def test_what_was_filled_up_is_told(tiny):
  told = lambda rows, microbatches, devices: choices.told_empty(changed(tiny, rows, microbatches),
                                                                jax.devices()[:devices])
  assert told(16, 2, 8) == told(16, 4, 1) == told(4, 1, 8) == ()  # the last by heads, which it has two of
  assert told(16, 1, 6) == ('rows: 16 over 6 devices: 3 on each, empty ones counted (2)',)
  assert told(16, 8, 3) == ('rows: 16 over 3 devices: 6 times 1 on each, empty ones counted (2)',)
  assert told(3, 1, 7) == ('rows: 3 over 7 devices: 1 on each, empty ones counted (4); devices without '
                           'any: 4, set --batch.size to 7 or more',)
  longer = dataclasses.replace(changed(tiny, 6, 1), long=cfg.Long(share=.5, sequence_length=16, predictions=4, size=4),
                               batch=dataclasses.replace(tiny.batch, size=6, sequence_length=8, predictions=2))
  assert choices.told_empty(longer, jax.devices()[:3]) == (
      'rows: 4 over 3 devices: 2 on each, empty ones counted (2)',)

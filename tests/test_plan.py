"""`bert-jax plan`: figures of steps that TPU's compiler really compiled, against what is known of them beforehand."""

import dataclasses
import importlib.util
import itertools
import json

import jax
import pytest

from bert_jax import chips, config as cfg, phases, program as program_lib, recipes, synthetic
from bert_jax.parallel import mesh as mesh_lib
from launch import cli
from launch.plan import lengths, search as plan_search, step as plan_step, text, topology as topology_lib

tpu = pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='needs the compiler in libtpu')


def on(topology, config, steps=10, **settings):
  devices = topology_lib.devices(topology)
  return plan_step.figures(config, mesh_lib.make_mesh(config.mesh, devices), steps, topology, **settings)


def with_model(config, **changes):
  return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


@pytest.fixture(scope='module')
def planned(tiny):
  """A tiny step for four v5e, two of them sharing a state."""
  config = dataclasses.replace(tiny, mesh=cfg.MeshShape(data=2, fsdp=2))
  return on('v5e:2x2', with_model(config, remat='none'), price=1.5)


@tpu
def test_flops_as_compiled_are_those_of_the_formula(planned, tiny):
  assert planned.flops_formula == tiny.batch.size * tiny.learns.flops_per_row(tiny.model, tiny.batch) / 4
  # The formula leaves out that a TPU looks up rows of tables as small as these by one-hot products, both ways.
  m, rows, T, P = tiny.model, 16 // 4, tiny.batch.sequence_length, tiny.batch.predictions
  lookups = 4 * rows * m.hidden_size * (T * (m.vocab_size + m.max_positions + m.type_vocab_size) + P * T)
  assert planned.flops_compiled == pytest.approx(planned.flops_formula + lookups, rel=0.02)


@tpu
def test_memory_by_kind(planned, tiny):
  abstract = program_lib.of(tiny, jax.devices()[:1]).abstract
  whole = plan_step.device_bytes(abstract.params)
  assert whole / 2 < planned.parameter_bytes < whole  # the larger part of them is shared by two
  assert planned.optimizer_bytes == pytest.approx(2 * planned.parameter_bytes, abs=8)  # two moments
  assert planned.batch_bytes == 16 // 4 * (4 * 16 + 3 * 4 + 3 * 1) * 4
  assert planned.argument_bytes >= planned.parameter_bytes + planned.optimizer_bytes + planned.batch_bytes
  assert planned.fits and planned.argument_bytes <= planned.needed_bytes <= planned.memory_bytes


@tpu
def test_time_and_cost_follow_from_the_cycles(planned):
  chip = chips.chip('TPU v5 lite')
  assert (planned.chips, planned.devices) == (4, 4) and planned.kernels == 0
  assert planned.estimated_step_seconds == planned.estimated_cycles / chip.clock + planned.kernel_seconds
  assert planned.estimated_mfu == pytest.approx(planned.flops_formula / chip.peak / planned.estimated_step_seconds)
  assert planned.tokens_per_day == pytest.approx(16 * 16 * 86400 / planned.estimated_step_seconds)
  assert planned.days == pytest.approx(10 * planned.estimated_step_seconds / 86400)
  assert planned.cost == pytest.approx(planned.days * 24 * 4 * 1.5)
  assert len(planned.dearest) == 10
  assert sum(item['seconds'] for item in planned.dearest) <= planned.estimated_step_seconds
  assert planned.collective_bytes and all(size > 0 for size in planned.collective_bytes.values())


@tpu
def test_a_batch_that_is_too_large_does_not_fit(tiny):
  rows = 2**18
  batch = dataclasses.replace(tiny.batch, size=4 * rows)
  figures = on('v5e:2x2', dataclasses.replace(tiny, batch=batch, mesh=cfg.MeshShape()))
  assert figures.fits is False and figures.needed_bytes > figures.memory_bytes
  assert figures.batch_bytes == rows * (4 * 16 + 3 * 4 + 3 * 1) * 4 < figures.argument_bytes
  assert figures.temporary_bytes > 0
  count = figures.fitting_microbatches
  assert 1 < count < rows and f'would fit    --run.microbatches {count}, ' in text.describe('tiny', vars(figures))


@tpu
@pytest.mark.slow
def test_with_the_microbatches_that_are_named_it_fits(tiny):
  batch = dataclasses.replace(tiny.batch, size=2**20)
  config = dataclasses.replace(tiny, batch=batch, mesh=cfg.MeshShape())
  count = on('v5e:2x2', config).fitting_microbatches
  assert on('v5e:2x2', dataclasses.replace(config, run=dataclasses.replace(config.run, microbatches=count))).fits


def test_the_fewest_microbatches_that_fit(tiny):
  """Of 24 rows a device, 20 bytes of temporaries a row; of the parameters' 40 bytes 80 stay, in 16 bits."""
  mesh = mesh_lib.make_mesh(cfg.MeshShape(data=2, fsdp=4))
  config = with_model(dataclasses.replace(tiny, batch=dataclasses.replace(tiny.batch, size=192)), dtype='bfloat16')
  found = lambda memory, argument=10: plan_step.fitting_microbatches(
      config, mesh, dict(memory_bytes=memory, argument_bytes=argument, temporary_bytes=480), 40)
  assert [found(memory) for memory in (330, 329, 250, 249, 210, 110, 109)] == [2, 3, 3, 4, 4, 24, None]
  assert found(None) is None and found(200, argument=300) is None


@pytest.mark.parametrize('unroll', [1, 2])
def test_a_scan_over_layers_counts_as_much_as_layers_in_a_row(still, unroll):
  config = with_model(still, unroll=unroll, layers=4, remat='none')
  mesh = mesh_lib.make_mesh(cfg.MeshShape(), jax.devices()[:1])
  figures = plan_step.figures(config, mesh, 10)
  # The formula leaves out that the gradients of biases are sums by products, on CPU with eight rows of ones.
  sums = 2 * 8 * 16 * 16 * 4 * (5 * config.model.hidden_size + config.model.intermediate_size)
  formula = config.batch.size * config.learns.flops_per_row(config.model, config.batch)
  assert figures.flops_compiled == pytest.approx(formula + sums, rel=0.01)
  assert figures.estimated_step_seconds is None and figures.fits is None and figures.ideal_step_seconds is None


@pytest.mark.parametrize('flags,message', [
    (['--topology', 'v9:2x2'], 'no topology .v9:2x2.: wanted one of v4:AxBxC .* v5e:AxB'),
    (['--topology', 'v5e:2x2x2'], 'v5e:AxB of up to 256'),
    (['--topology', 'v5e:32x32'], 'v5e:AxB of up to 256'),
    (['--topology', 'v5e'], 'no TPU topology'),
    pytest.param(['--topology', 'v5e:3x3'], 'libtpu knows no topology .v5e:3x3.: .*not divisible', marks=tpu),
    pytest.param(['--topology', 'v5e:2x2', '--mesh.fsdp', '3'], 'mesh.fsdp 3.* 4 devices', marks=tpu),
    pytest.param(['--topology', 'v5e:4x4', '--mesh.tensor', '16'], 'model.heads 12 does not divide over mesh.tensor 16',
                 marks=tpu),
    (['--batch-per-chip', '0'], '--batch-per-chip is 0'), (['--price', '-1'], '--price is -1'),
    (['--slices', '2'], '--slices 2 changes nothing without --topology'), (['--search'], 'name a --topology'),
    (['--price', '1.2'], '--price 1.2 changes nothing on cpu, .*: name a --topology')])
def test_what_cannot_be_planned_is_one_sentence(flags, message):
  with pytest.raises(cfg.ConfigError, match=message) as caught:
    cli.run(['plan', 'base', *flags])
  assert cli.exit_code(caught.value) == 2 and '\n' not in str(caught.value)


def test_without_libtpu_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(cfg.ConfigError, match=r"not installed: pip install 'bert_jax\[tpu\]'"):
    topology_lib.devices('v5e:4x4')


def test_an_unknown_recipe():
  with pytest.raises(cfg.ConfigError, match="no recipe 'bass'"):
    cli.run(['plan', 'bass'])


def test_lengths_of_a_recipe_and_others():
  def shapes(length=None, predictions=None, every=False):
    chosen = lengths.chosen(recipes.recipe('base'), length, predictions, every)
    return [(config.batch.sequence_length, config.batch.predictions, steps) for config, steps in chosen]

  assert shapes() == [(128, 20, 900_000)]
  assert shapes(length=512) == [(512, 77, 100_000)]
  assert shapes(every=True) == [(128, 20, 900_000), (512, 77, 100_000)]
  assert shapes(length=256) == [(256, 39, 1_000_000)]
  assert shapes(length=512, predictions=80) == [(512, 80, 100_000)]


SMALL = ['plan', 'tiny', '--model.dtype', 'float32', '--model.vocab-size', '64', '--model.layers', '1',
         '--model.remat', 'none',
         '--model.hidden-size', '16', '--model.heads', '2', '--model.intermediate-size', '16',
         '--model.max-positions', '32', '--batch.sequence-length', '16', '--batch.predictions', '4',
         '--long.sequence-length', '32', '--long.predictions', '5', '--batch-per-chip', '2']
KEYS = {'fits', 'chips', 'argument_bytes', 'temporary_bytes', 'collectives', 'flops_formula', 'flops_compiled',
        'estimated_step_seconds', 'ideal_step_seconds', 'estimated_mfu', 'compile_seconds'}


def test_variants_are_planned_too(capsys):
  """From left to right the head runs at every token."""
  assert cli.run([*SMALL, '--json']) == cli.run(['plan', 'tiny_left_to_right', *SMALL[2:], '--json']) == 0
  usual, other = (json.loads(line)['flops_compiled'] for line in capsys.readouterr().out.splitlines())
  assert other > usual


def test_json_for_the_devices_of_this_machine(capsys):
  assert cli.run([*SMALL, '--all-lengths', '--json']) == 0
  printed = json.loads(capsys.readouterr().out)
  assert KEYS <= set(printed) and printed['chips'] == 8 and printed['batch'] == 16 and printed['fits'] is None
  assert 1 <= printed['flops_compiled'] / printed['flops_formula'] < 1.2  # in so narrow a model sums for biases show
  assert [item['sequence_length'] for item in printed['others']] == [32]
  assert 1 <= printed['others'][0]['flops_compiled'] / printed['others'][0]['flops_formula'] < 1.2
  assert printed['collective_bytes']['all-reduce'] > 0


@tpu
def test_what_people_read(capsys, monkeypatch, planned):
  monkeypatch.setattr(plan_step, 'figures', lambda *args: planned)
  assert cli.run(['plan', 'tiny', '--topology', 'v5e:2x2', '--all-lengths', '--price', '1.5']) == 0
  printed = capsys.readouterr().out
  for words in ('fits', 'parameters', 'by formula', 'MFU', 'dearest', 'hours for these', 'the whole run: 20 steps',
                'tokens a day'):
    assert words in printed


def fake(config, mesh, steps, topology, price, cache):
  """A machine on which 24 rows fit at a time without recomputation and 96 with; it is fastest with most of them, and on
  4 fsdp."""
  rows, fsdp = config.batch.size // mesh.devices.size / config.run.microbatches, mesh.shape['fsdp']
  fits = rows <= {'none': 24}.get(config.model.remat, 96)
  blank = {field.name: None for field in dataclasses.fields(plan_step.Figures)}
  speed = rows ** 0.5 * (1 if config.model.remat == 'none' else 0.4) * (1.1 if fsdp == 4 else 1)
  return plan_step.Figures(**blank | dict(
      topology=topology, chips=mesh.devices.size, mesh=dict(mesh.shape), remat=config.model.remat,
      batch=config.batch.size, microbatches=config.run.microbatches, fits=fits, needed_bytes=rows * 10**9,
      tokens_per_day=speed * 1e9 if fits else None, estimated_step_seconds=1.0, estimated_mfu=0.5))


def test_search_finds_the_best_in_few_programs(monkeypatch):
  calls = []
  monkeypatch.setattr(plan_step, 'figures', lambda *args: calls.append(args) or fake(*args))
  batch = dataclasses.replace(recipes.recipe('tiny').batch, size=64)
  config = dataclasses.replace(recipes.recipe('tiny'), batch=batch, mesh=cfg.MeshShape(data=-1, fsdp=1))
  config = with_model(config, remat='none')
  best, *others = plan_search.search(config, 10, jax.devices(), 'v5e:2x4', None, tries=12)
  assert (best.batch // 8, best.remat, best.mesh['fsdp']) == (16, 'none', 4)
  assert len(calls) <= 12 and len(others) == plan_search.SHOWN - 1
  assert all(item.tokens_per_day <= best.tokens_per_day for item in others)
  tried = [(args[0].batch.size, args[0].run.microbatches, args[0].model.remat, *args[1].shape.values())
           for args in calls]
  assert len(set(tried)) == len(tried)
  calls.clear()
  assert plan_search.search(config, 10, jax.devices(), 'v5e:2x4', None, tries=1)[0].batch == 64 and len(calls) == 1


def test_search_takes_more_microbatches_where_the_batch_does_not_fit(monkeypatch):
  monkeypatch.setattr(plan_step, 'figures', fake)
  batch = dataclasses.replace(recipes.recipe('tiny').batch, size=8 * 256)
  config = with_model(dataclasses.replace(recipes.recipe('tiny'), batch=batch), remat='full')
  best, *_ = plan_search.search(config, 10, jax.devices(), 'v5e:2x4', None, tries=12)
  assert best.fits and best.batch == 8 * 256 and best.microbatches >= 4


@tpu
@pytest.mark.slow
@pytest.mark.parametrize('topology,devices', [('v4:2x2x1', 4), ('tpu7x:2x2x1', 8), ('v6e:1x1', 1)])
def test_chips_are_not_devices(tiny, topology, devices):
  figures = on(topology, dataclasses.replace(tiny, mesh=cfg.MeshShape()))
  assert (figures.chips, figures.devices) == (min(devices, 4), devices)
  assert 1 <= figures.flops_compiled / figures.flops_formula < 1.3 and figures.fits


@tpu
@pytest.mark.slow
def test_base_on_sixteen_chips(capsys):
  assert cli.run(['plan', 'base', '--topology', 'v5e:4x4', '--batch-per-chip', '64', '--json']) == 0
  printed = json.loads(capsys.readouterr().out)
  assert printed['fits'] and 0.99 < printed['flops_compiled'] / printed['flops_formula'] < 1.15
  assert printed['ideal_step_seconds'] == pytest.approx(22.7e-3, rel=0.01)
  assert sum(printed['collective_bytes'].values()) >= 2 * 110e6  # the gradient of 110 M parameters, in bfloat16


# Where the recipes of the papers are planned: as many chips as their authors had, about.
LARGE = {'large', 'L-24_H-1024_A-16', 'L-12_H-1024_A-16', 'nvidia_phase1', 'nvidia_phase2', 'mlperf', 'roberta_base',
         'roberta_large'}
CHIPS = {'v5e:2x2': 4, 'v5e:4x4': 16, 'v5e:16x16': 256}


def suited(name):
  """The topology for a recipe or a variant of it."""
  size = max((size for size in recipes.RECIPES if f'{name}_'.startswith(f'{size}_')), key=len)
  model = recipes.recipe(size).model
  return 'v5e:16x16' if size in LARGE else 'v5e:4x4' if model.layers * model.hidden_size >= 12 * 768 else 'v5e:2x2'


def test_batches_of_every_recipe_and_variant_divide_over_its_chips():
  for size, variant in itertools.product(recipes.RECIPES, ['', *recipes.VARIANTS]):
    config = recipes.recipe(f'{size}_{variant}' if variant else size)
    for phase in phases.phases(config):
      parts, rows = config.run.microbatches, phase.config.batch.size
      data, fsdp, tensor = mesh_lib.choose_sizes(CHIPS[suited(size)], 1, config.model, rows)
      assert tensor == 1 and rows % (data * fsdp * parts) == 0


# Of masks one will do: they are in the batch, and the step is the same.
TRACED = [variant for variant in recipes.VARIANTS if not variant.startswith('mask')] + ['mask_80_0_20']


@pytest.mark.parametrize('name', [*(f'tiny_{variant}' for variant in TRACED), *recipes.OTHERS])
def test_the_step_of_a_variant_and_of_each_other_recipe_is_traced(name):
  """One layer of it, for the devices of this machine: the state has the same shapes after a step."""
  config = with_model(recipes.recipe(name), layers=1, unroll=1)
  for phase in phases.phases(config):
    program = program_lib.of(phase.config, jax.devices())
    batch = synthetic.abstract(phase.config, program.mesh)
    state, _ = jax.eval_shape(program.train_step, program.abstract, batch)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert shapes(state) == shapes(program.abstract)


# One of each program that differs in kind, and those that need most: one to four minutes each, of a core of its own.
@tpu
@pytest.mark.slow
@pytest.mark.parametrize('name', [
    'tiny', 'tiny_left_to_right', 'tiny_2018', 'L-6_H-768_A-3_mask_80_0_20', 'large', 'nvidia_phase1', 'nvidia_phase2',
    'mlperf', 'roberta_large'])
def test_recipes_fit_their_chips(capsys, name):
  assert cli.run(['plan', name, '--topology', suited(name), '--all-lengths', '--json']) == 0
  first = json.loads(capsys.readouterr().out)
  for printed in (first, *first.get('others', ())):
    assert printed['fits'] and printed['chips'] == CHIPS[suited(name)]
    assert 0.99 < printed['flops_compiled'] / printed['flops_formula'] < 1.3

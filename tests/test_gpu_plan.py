"""`bert-jax plan` for GPUs that are not here, by XLA's own compiler for them (`make test-gpu-plan`)."""

import dataclasses
import importlib.util
import json
import pathlib
import re
import subprocess

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import NamedSharding, PartitionSpec as P

from bert_jax import chips, choices, config as cfg
from bert_jax.model import triton_activation, triton_attention, triton_norm, triton_sums
from bert_jax.parallel import mesh as mesh_lib
from launch import cli
from launch.plan import costs as hlo_costs, gpus, plan as plan_lib, step as plan_step, topology as topology_lib

pytestmark = [pytest.mark.gpu_plan, pytest.mark.filterwarnings('ignore:Error reading persistent compilation cache')]

ROWS = 256


def on(topology, config, **settings):
  devices = topology_lib.devices(topology)
  return plan_step.figures(config, mesh_lib.make_mesh(config.mesh, devices), 10, topology, **settings)


def compiled(function, *shapes, dtype=jnp.bfloat16):
  """The schedule of a program for one RTX 4090."""
  one = mesh_lib.make_mesh(cfg.MeshShape(), topology_lib.devices('rtx4090:1'))
  arguments = [jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(one, P())) for shape in shapes]
  return hlo_costs.read(jax.jit(function).lower(*arguments).compile(gpus.OPTIONS).as_text()).schedule


@pytest.mark.parametrize('name', ['h100:1', 'rtx4090:1'])
def test_tiny_is_planned(name, capsys):
  """What people read, and what programs read, of one and the same compiled program."""
  flags = ['plan', 'tiny', '--topology', name, '--batch-per-chip', '64', '--model.unroll', '2', '--price', '2']
  assert cli.run([*flags, '--json']) == 0
  printed = json.loads(capsys.readouterr().out)
  chip = chips.GPUS[name.partition(':')[0]]
  assert printed['device_kind'] == chip.gpu.kind and printed['fits'] and printed['memory_bytes'] == chip.room
  assert 1 <= printed['flops_compiled'] / printed['flops_formula'] < 1.1
  kinds = [printed['roofline'][kind] for kind in ('products', 'other', 'custom')]
  assert sum(kind['seconds'] for kind in kinds) == pytest.approx(printed['estimated_step_seconds'])
  assert sum(kind['bytes'] for kind in kinds) == printed['bytes_moved'] > 2 * printed['parameter_bytes']
  assert printed['estimated_step_seconds'] > printed['ideal_step_seconds'] / 0.75
  assert printed['days'] == pytest.approx(printed['estimated_step_seconds'] * 900_000 / 86_400)
  assert printed['cost'] == pytest.approx(printed['days'] * 24 * 2) and not printed['collectives']
  assert cli.run(flags) == 0
  read = capsys.readouterr().out
  for words in ('at least, by a roofline', '75% of the peak', 'dearest, by name:', 'kept', 'for the chip-hours'):
    assert words in read


def test_what_a_product_and_a_pass_do_is_known_beforehand():
  product, gelu = compiled(lambda x, y: jax.nn.gelu(x @ y), (4096, 2048), (2048, 4096)).launches[-2:]
  assert (product.kind, product.flops) == ('products', 2 * 4096 * 2048 * 4096)
  assert product.bytes == 2 * (2 * 4096 * 2048 + 4096 * 4096)
  assert gelu.kind == 'other' and gelu.bytes == pytest.approx(2 * 2 * 4096 * 4096, rel=1e-3)


def test_a_loop_reads_and_writes_its_own_layer_of_a_stack():
  def layers(stack, x):
    return jax.lax.scan(lambda x, w: (jnp.sin(x * w), x), x, stack)

  found = compiled(layers, (24, 1024, 1024), (1024, 1024)).launches
  inside = sum(item.bytes * item.times for item in found if item.times == 24)
  assert 24 * 4 * 2 * 1024**2 <= inside <= 24 * 6 * 2 * 1024**2  # of the stack as a whole it would be 24 times as much


def test_pallas_kernels_are_custom_with_the_bytes_of_their_operands():
  def double(x_ref, o_ref):
    o_ref[...] = x_ref[...] * 2

  call = pl.pallas_call(double, out_shape=jax.ShapeDtypeStruct((128, 128), jnp.bfloat16),
                        compiler_params=triton.CompilerParams(num_warps=4))
  kernel, = (item for item in compiled(call, (128, 128)).launches if item.kind == 'custom')
  assert (kernel.times, kernel.flops, kernel.bytes) == (1, 0, 2 * 2 * 128 * 128)


def test_two_hosts_send_gradients(tiny):
  figures = on('h100:2x2', dataclasses.replace(tiny, mesh=cfg.MeshShape(data=4)))
  assert (figures.chips, figures.devices, figures.mesh['data']) == (4, 4, 4)
  assert figures.collective_bytes['all-reduce'] >= figures.parameter_bytes > 0
  assert figures.exposed_collective_seconds > 0


def test_as_few_microbatches_as_fit(tiny, monkeypatch, tmp_path):
  """On a card so small that the whole batch does not fit: what is chosen does, and the next fewer does not."""
  config = choices.with_model(choices.with_microbatches(tiny, 'auto'), layers=1)
  config = dataclasses.replace(config, batch=dataclasses.replace(tiny.batch, size=ROWS))
  whole = on('rtx3070:1', choices.with_microbatches(config, 1), cache=tmp_path)
  room = whole.argument_bytes + (whole.needed_bytes - whole.argument_bytes) // 3
  monkeypatch.setattr(chips, 'gpu_share', lambda: room / choices.FILLED / chips.GPUS['rtx3070'].memory)
  planned, = plan_lib.of_lengths([(config, 10)], plan_lib.Place('rtx3070:1', 1, None, tmp_path), None)
  count = planned.figures.microbatches
  assert planned.microbatches_chosen and planned.figures.fits and count > 1
  assert planned.figures.needed_bytes <= room
  fewer = max(other for other in range(1, count) if ROWS % other == 0)
  assert on('rtx3070:1', choices.with_microbatches(config, fewer), cache=tmp_path).needed_bytes > room


def spilled(function, *arrays, folder) -> dict[str, int]:
  """Bytes a thread that each of our kernels puts aside for want of registers on an H100, by ptxas."""
  one = mesh_lib.make_mesh(cfg.MeshShape(), topology_lib.devices('h100:1'))
  arguments = [jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(one, P())) for shape, dtype in arrays]
  jax.jit(function).lower(*arguments).compile(gpus.OPTIONS | {'xla_dump_to': str(folder)})
  found = {}
  for text in folder.glob('*.ptx'):
    said = subprocess.run([ptxas(), '--verbose', '--gpu-name=sm_90a', text, '--output-file', folder / 'binary'],
                          capture_output=True, text=True)
    for name, words in re.findall(r"Compiling entry function '(\w+)'(.*?)Used", said.stderr, re.DOTALL):
      if name.endswith('_kernel'):
        found[name] = int(re.search(r'(\d+) bytes spill stores', words)[1])
  return found


def ptxas() -> str:
  folders = importlib.util.find_spec('nvidia').submodule_search_locations
  return str(next(path for folder in folders for path in pathlib.Path(folder).glob('*/bin/ptxas')))


@pytest.mark.parametrize('T, H, K', [(128, 12, 64), (512, 16, 64), (64, 12, 64), (512, 8, 128), (384, 8, 80)])
def test_attention_spills_no_registers(T, H, K, tmp_path):
  """Where it did, it took three times as long on an H200 as its bytes should."""
  def both(qkv, bias, pairs, numbers, seeds, g):
    def of(qkv, bias):
      sums, = triton_sums.rows_of((bias,), (triton_attention.backward_programs(B, T, K, 2),))
      return triton_attention.attention(qkv, bias, sums, pairs, numbers, triton_attention.bounds(pairs, K, 2), seeds, 0,
                                        .1, 0)
    value, pull = jax.vjp(of, qkv, bias)
    return value, pull(g)
  B, wide = 4, jnp.bfloat16
  shapes = (((B, T, 3, H, K), wide), ((3, H, K), jnp.float32), ((B, T), jnp.int32), ((B, T), jnp.uint32),
            ((3,), jnp.uint32), ((B, T, H, K), wide))
  assert spilled(both, *shapes, folder=tmp_path) == {'forward_kernel': 0, 'backward_kernel': 0, 'sum_kernel': 0}


def test_what_follows_products_spills_no_registers(tmp_path):
  """And they multiply by what Hopper multiplies by, many rows at once."""
  N, D, F, wide = 512, 1024, 4096, jnp.bfloat16
  none = {'forward_kernel': 0, 'backward_kernel': 0, 'sum_kernel': 0}

  def norm(h, x, vectors, numbers, seeds, g):
    def of(h, x, vectors):
      sums, = triton_sums.rows_of((vectors,), ((triton_norm.backward_programs(N),),))
      return triton_norm.add_norm(h, x, vectors, sums, numbers, seeds, 1, .1, 1e-12)
    value, pull = jax.vjp(of, h, x, vectors)
    return value, pull((g, g))

  def feed_forward(x, first, bias, second, g):
    def of(x, first, bias, second):
      sums, = triton_sums.rows_of((bias,), ((triton_activation.backward_programs(N),),))
      return triton_activation.feed_forward(x, first, bias, sums, second, 'gelu')
    value, pull = jax.vjp(of, x, first, bias, second)
    return value, pull(g)

  shapes = ((N, D), wide), ((N, D), wide), ((3, D), jnp.float32), ((N,), jnp.uint32), ((3,), jnp.uint32), ((N, D), wide)
  assert spilled(norm, *shapes, folder=tmp_path / 'norm') == none
  shapes = ((N, D), wide), ((D, F), wide), ((F,), wide), ((F, D), wide), ((N, D), wide)
  assert spilled(feed_forward, *shapes, folder=tmp_path / 'feed_forward') == none
  text = ''.join(path.read_text() for path in (tmp_path / 'feed_forward').glob('*.ptx'))
  for name in ('forward_kernel', 'backward_kernel'):
    assert 'wgmma.mma_async' in text[text.index(f'entry {name}'):].partition('\n}')[0]

"""Reading compiled programs, which XLA compiled for the CPU and for TPUs: what is counted is known beforehand."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from bert_jax import chips
from launch.plan import collectives as collective_lib, costs as hlo_costs, hlo, topology as topology_lib

pytestmark = pytest.mark.filterwarnings('ignore:Error reading persistent compilation cache')
tpu = pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='needs the compiler in libtpu')


def shaped(mesh, spec, *shape, dtype=jnp.bfloat16):
  return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def line_of(devices):
  return Mesh(np.array(devices), 'x')


@functools.cache
def tpus(topology):
  return line_of(topology_lib.devices(topology))


def costs_of(function, *arguments):
  return hlo_costs.read(jax.jit(function).lower(*arguments).compile().as_text())


def test_flops_of_loops_in_loops_count_every_trip():
  def nested(x, w):
    inner = lambda x, _: (jnp.tanh(x @ w), None)
    return jax.lax.scan(lambda x, _: (jax.lax.scan(inner, x, length=3)[0], None), x, length=5)[0]
  x = jax.ShapeDtypeStruct((32, 64), jnp.float32)
  assert costs_of(nested, x, jax.ShapeDtypeStruct((64, 64), jnp.float32)).flops == 15 * 2 * 32 * 64 * 64


def test_a_loop_without_a_known_end_counts_once_and_is_named():
  x = jax.ShapeDtypeStruct((4, 4), jnp.float32)
  costs = costs_of(lambda x: jax.lax.while_loop(lambda x: jnp.sum(x) < 1e3, lambda x: x @ x, x), x)
  assert costs.flops == 2 * 4**3 and len(costs.endless) == 1


def test_loops_that_the_compiler_made_count_by_their_unsigned_limit():
  text = '''
%body (p: (u32[], f32[4,4])) -> (u32[], f32[4,4]) {
  %p = (u32[]{:T(128)}, f32[4,4]{1,0}) parameter(0)
  %x = f32[4,4]{1,0} get-tuple-element(%p), index=1
  %d = f32[4,4]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %t = (u32[]{:T(128)}, f32[4,4]{1,0}) tuple(%p, %d)
}

%condition (q: (u32[], f32[4,4])) -> pred[] {
  %limit = u32[] constant(22)
  %q = (u32[]{:T(128)}, f32[4,4]{1,0}) parameter(0)
  %i = u32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %c = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (a: f32[4,4]) -> f32[4,4] {
  %a = f32[4,4]{1,0} parameter(0)
  %zero = u32[] constant(0)
  %s = (u32[]{:T(128)}, f32[4,4]{1,0}) tuple(%zero, %a)
  ROOT %w = (u32[]{:T(128)}, f32[4,4]{1,0}) while(%s), condition=%condition, body=%body
}
'''
  costs = hlo_costs.read(text)
  assert costs.flops == 22 * 2 * 4**3 and costs.endless == ()


@tpu
def test_batched_products_count_once_though_tpus_compile_them_to_dilated_convolutions():
  mesh = tpus('v5e:2x2')
  B, T, H, K = 2, 128, 4, 64
  q = shaped(mesh, P(), B, T, H, K)
  forward = lambda q, k: jnp.einsum('bthk,bshk->bhts', q, k)
  assert costs_of(forward, q, q).flops == 2 * B * H * T * T * K
  backward = jax.grad(lambda q, k: jnp.sum(jnp.square(forward(q, k))), (0, 1))
  assert costs_of(backward, q, q).flops == 3 * 2 * B * H * T * T * K


def test_convolutions_count_no_padding_and_no_holes():
  x, w = jax.ShapeDtypeStruct((2, 10, 10, 3), jnp.float32), jax.ShapeDtypeStruct((3, 3, 3, 8), jnp.float32)
  same = functools.partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding='SAME',
                           dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  assert hlo.pairs(10, 3, 10, 1, 1, 1, 1) == 28  # 30, less one tap over each edge
  assert costs_of(same, x, w).flops == 2 * 2 * 3 * 8 * 28**2
  assert hlo.pairs(4, 1, 7, 0, 1, 2, 1) == 4  # every second place is a hole


@pytest.mark.parametrize('kind,whole', [('all-reduce', 1), ('all-gather', 8), ('reduce-scatter', 1), ('all-to-all', 1)])
def test_collectives_are_found_with_their_bytes_and_trips(kind, whole):
  operation = {'all-reduce': lambda x: jax.lax.psum(x, 'x') / 8,
               'all-gather': lambda x: x + jnp.sum(jax.lax.all_gather(x * 2, 'x')),
               'reduce-scatter': lambda x: x + jnp.sum(jax.lax.psum_scatter(x * 2, 'x', tiled=True)),
               'all-to-all': lambda x: jax.lax.all_to_all(x, 'x', 0, 1, tiled=True).reshape(x.shape)}[kind]
  mesh = line_of(jax.devices())
  loop = lambda x: jax.lax.fori_loop(0, 5, lambda _, x: operation(x), x)
  costs = costs_of(jax.shard_map(loop, mesh=mesh, in_specs=P('x'), out_specs=P('x'), check_vma=False),
                   shaped(mesh, P('x'), 8 * 512, 256, dtype=jnp.float32))
  found = [item for item in costs.collectives if item.kind == kind and item.bytes >= collective_lib.LARGE]
  assert sum(item.bytes for item in found) == costs.collective_bytes()[kind] == 5 * whole * 512 * 256 * 4
  assert {item.devices for item in found} == {8} and {item.times for item in found} == {5}


def test_a_gather_around_a_loop_counts_once_though_its_steps_are_in_the_loop():
  text = '''HloModule m, is_scheduled=true

%step (p: f32[4,8]) -> f32[16,8] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %part = f32[16,8]{1,0} all-gather(%p), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}, STEP
}

%start (p.1: f32[4,8]) -> f32[16,8] {
  %p.1 = f32[4,8]{1,0} parameter(0)
  ROOT %begin = f32[16,8]{1,0} all-gather(%p.1), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}, STEP
}

%body (s: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %s = (s32[], f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%s), index=1
  %go = f32[16,8]{1,0} fusion(%x), kind=kCustom, calls=%step
  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%i, %x)
}

%condition (c: (s32[], f32[4,8])) -> pred[] {
  %c = (s32[], f32[4,8]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%c), index=0
  %limit = s32[] constant(24)
  ROOT %less = pred[] compare(%j, %limit), direction=LT
}

ENTRY %main (a: f32[4,8]) -> (s32[], f32[4,8]) {
  %a = f32[4,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %first = f32[16,8]{1,0} fusion(%a), kind=kCustom, calls=%start
  %init = (s32[], f32[4,8]{1,0}) tuple(%zero, %a)
  ROOT %w = (s32[], f32[4,8]{1,0}) while(%init), condition=%condition, body=%body, TRIPS
}
'''
  text = text.replace('TRIPS', 'backend_config={"known_trip_count":{"n":"24"}}')
  mark = 'frontend_attributes={chain_id="1"}, backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}'
  gather, = hlo_costs.read(text.replace('STEP', mark)).collectives
  assert (gather.times, gather.bytes, gather.asynchronous) == (1, 16 * 8 * 4, True)


def test_what_crosses_between_slices_is_found():
  text = '''HloModule m, is_scheduled=true

ENTRY %main (a: bf16[4,8,128]) -> bf16[4,8,128] {
  %a = bf16[4,8,128]{2,1,0} parameter(0)
  %t = token[] after-all()
  %send = (bf16[4,8,128]{2,1,0}, u32[], token[]) send(%a, %t), channel_id=3, is_host_transfer=true, HANDLER
  %recv = (bf16[4,8,128]{2,1,0}, u32[], token[]) recv(%t), channel_id=2, is_host_transfer=true, HANDLER
  %sent = token[] send-done(%send), channel_id=3, is_host_transfer=true
  %got = (bf16[4,8,128]{2,1,0}, token[]) recv-done(%recv), channel_id=2, is_host_transfer=true
  ROOT %b = bf16[4,8,128]{2,1,0} get-tuple-element(%got), index=0
}
'''
  handler = 'frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime"}'
  costs = hlo_costs.read(text.replace('HANDLER', handler))
  assert costs.collective_bytes() == {collective_lib.BETWEEN_SLICES: 2 * 4 * 8 * 128}
  assert costs.collectives[0].asynchronous
  assert sum(size for _, size in costs.unestimated) == 0


@pytest.mark.parametrize('written,members', [
    ('replica_groups={{0,1,2},{3,4,5}}', (0, 1, 2)), ('replica_groups=[2,4]<=[8]', (0, 1, 2, 3)),
    ('replica_groups=[4,2]<=[2,4]T(1,0)', (0, 4)),
    ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", (0, 2, 4, 6)),
    ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", tuple(range(8))),
    ("replica_groups=mesh['axis_0'=2,'axis_1'=3,'axis_2'=2], device_ids=([2,6]T(1,0)) {'axis_1'}, dimensions={2}",
     (0, 1, 2)),
    ("replica_groups=mesh['a'=8] {'a':(1)2}", (0, 4)), ("replica_groups=mesh['a'=8] {'a':(4)2}", (0, 1)),
    ('replica_groups={}', ()), ('source_target_pairs={{0,1}}', ())])
def test_groups_in_every_notation(written, members):
  assert collective_lib.group(f', channel_id=1, {written}, use_global_device_ids=true') == members


@tpu
def test_a_gather_that_runs_beside_products_is_asynchronous_and_counts_once():
  mesh = tpus('v5e:2x2')

  def body(w, x, y):
    gathered = jax.lax.all_gather(w, 'x', axis=0, tiled=True)
    for _ in range(3):
      x = jnp.tanh(x @ y)
    return jax.lax.psum(x @ gathered, 'x')

  call = jax.shard_map(body, mesh=mesh, in_specs=(P('x'), P('x'), P()), out_specs=P(), check_vma=False)
  costs = costs_of(call, shaped(mesh, P('x'), 2048, 1024), shaped(mesh, P('x'), 4 * 1024, 2048),
                   shaped(mesh, P(), 2048, 2048))
  gather, = (item for item in costs.collectives if item.kind == 'all-gather')
  assert gather.asynchronous and gather.bytes == 2 * 2048 * 1024 and gather.devices == 4
  total, = (item for item in costs.collectives if item.kind == 'all-reduce')
  assert not total.asynchronous and total.bytes == 2 * 1024 * 1024
  assert costs.flops == 2 * 1024 * 2048 * (3 * 2048 + 1024)


@tpu
@pytest.mark.parametrize('topology', ['v5e:2x2', *(pytest.param(name, marks=pytest.mark.slow)
                                                   for name in ('v4:2x2x1', 'v5p:2x2x1', 'v6e:2x2', 'tpu7x:2x2x1'))])
def test_cycles_at_the_clock_come_near_the_peak_for_a_large_product(topology):
  mesh = tpus(topology)
  devices = list(mesh.devices.flat)
  chip, each = chips.chip(devices[0].device_kind), len(devices) // topology_lib.chip_count(devices)
  x = shaped(line_of(devices[:1]), P(), 4096, 4096)
  costs = costs_of(jnp.matmul, x, x)
  rate = costs.flops / (costs.cycles / chip.clock)
  assert costs.flops == 2 * 4096**3
  assert 0.8 < rate / (chip.peak / each) <= 1.001


@tpu
def test_kernels_are_found_in_loops_with_their_own_estimate_or_as_attention():
  mesh = tpus('v5e:2x2')

  def double(x_ref, o_ref):
    o_ref[...] = x_ref[...] * 2

  def call(x):
    kernel = pl.pallas_call(double, out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype), name='double',
                            cost_estimate=pl.CostEstimate(flops=10**9, bytes_accessed=1, transcendentals=0))
    return jax.lax.fori_loop(0, 7, lambda _, x: kernel(x), x)

  costs = costs_of(call, shaped(line_of(mesh.devices.flat[:1]), P(), 256, 512))
  kernel, = costs.kernels
  assert (kernel.times, kernel.flops, kernel.bytes) == (7, 10**9, 2 * 256 * 512 * 2) and costs.flops == 7 * 10**9
  assert kernel.seconds(peak=2e12, memory_rate=1e12) == pytest.approx(1e-3)  # by its FLOPs at half the peak
  assert kernel.seconds(peak=2e18, memory_rate=1e9) == pytest.approx(5.24288e-4)  # by its bytes


@pytest.mark.parametrize('quote', [r'\22', r'\"', '"'])
def test_a_kernel_for_gpus_tells_its_flops_in_its_metadata(quote):
  """The operations of one run, in whichever way a compiler writes the quotes."""
  told = f'{{{quote}flops{quote}: {quote}223{quote}}}'
  text = """HloModule m
ENTRY %main (a: bf16[8,64]) -> bf16[8,64] {
  %a = bf16[8,64]{1,0} parameter(0)
  ROOT %k = bf16[8,64]{1,0} custom-call(%a), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="ours"} CONFIG
}""".replace(' CONFIG', f', backend_config={{grid_x = 1 : i32, serialized_metadata = "{told}"}}')
  kernel, = hlo_costs.read(text).kernels
  assert (kernel.flops, kernel.bytes, kernel.op_name) == (223, 2 * 2 * 8 * 64, 'ours')


def test_attention_kernels_without_an_estimate_are_counted_from_their_operands():
  def module(operands, results):
    shape = 'bf16[4,8,128,64]{3,2,1,0}'
    lines = [f'  %p{i} = {shape} parameter({i})' for i in range(operands)]
    result = shape if results == 1 else f'({", ".join([shape] * results)})'
    names = ', '.join(f'%p{i}' for i in range(operands))
    call = f'  ROOT %c = {result} custom-call({names}), custom_call_target="tpu_custom_call"'
    return '\n'.join(['ENTRY %main (x: f32[]) -> f32[] {', *lines, call, '}'])
  product = 2 * 4 * 8 * 128 * 128 * 64
  assert hlo_costs.read(module(3, 1)).kernels[0].flops == 2 * product
  assert hlo_costs.read(module(5, 3)).kernels[0].flops == 5 * product


def test_a_fusion_that_runs_beside_others_counts_once_and_as_any_other():
  """jax 0.11 starts fusions on GPUs so: fusion-start takes the operands, and repeats them in its result."""
  program = '''
%part (stack: bf16[24,8,128], i: s32[], x: bf16[8,128]) -> bf16[24,8,128] {
  %stack = bf16[24,8,128]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %x = bf16[8,128]{1,0} parameter(2)
  %b = bf16[1,8,128]{2,1,0} bitcast(%x)
  ROOT %u = bf16[24,8,128]{2,1,0} dynamic-update-slice(%stack, %b, %i, %i, %i)
}

ENTRY %main (stack: bf16[24,8,128], i: s32[], x: bf16[8,128]) -> bf16[24,8,128] {
  %stack.1 = bf16[24,8,128]{2,1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %x.1 = bf16[8,128]{1,0} parameter(2)
  FUSION
}
'''
  plain = 'ROOT %f = bf16[24,8,128]{2,1,0} fusion(%stack.1, %i.1, %x.1), kind=kLoop, calls=%part'
  beside = '''%s = ((bf16[24,8,128]{2,1,0}, s32[], bf16[8,128]{1,0}), bf16[24,8,128]{2,1,0}, u32[]) ''' \
      '''fusion-start(%stack.1, %i.1, %x.1), kind=kLoop, calls=%part
  ROOT %d = bf16[24,8,128]{2,1,0} fusion-done(%s)'''
  launches = [hlo_costs.read(program.replace('FUSION', text)).schedule.launches for text in (plain, beside)]
  assert len(launches[1]) == 1 and launches[1][0].bytes == launches[0][0].bytes < 3 * 8 * 128 * 2

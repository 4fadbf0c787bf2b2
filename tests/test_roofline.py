"""What GPUs' programs move and take, from texts whose kernels are known beforehand; what is known of GPUs."""

import importlib.util
import json

import pytest

from bert_jax import chips
from bert_jax.errors import ConfigError
from launch import cli, without_gpu
from launch.plan import costs as hlo_costs, gpus, roofline, text, topology as topology_lib

H100, RTX_3090 = chips.GPUS['h100'], chips.GPUS['rtx3090']


def launches(*lines, computations=''):
  """Of a program whose entry has these lines."""
  program = '\n'.join([computations, 'ENTRY %main (a: f32[]) -> f32[] {', *(f'  {line}' for line in lines), '}'])
  return hlo_costs.read(program).schedule.launches


STACK = '''
%body (stack: bf16[24,8,128], i: s32[], x: bf16[8,128]) -> f32[8,128] {
  %stack = bf16[24,8,128]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %x = bf16[8,128]{1,0} parameter(2)
  %zero = s32[] constant(0)
  FUSED
}
'''
OPERANDS = ('%stack.1 = bf16[24,8,128]{2,1,0} parameter(0)', '%i.1 = s32[] parameter(1)',
            '%x.1 = bf16[8,128]{1,0} parameter(2)')
PART = 8 * 128 * 2  # bytes of a layer


@pytest.mark.parametrize('fused,shape,wanted', [
    # a slice, as it is or widened first, reads the slice
    ('ROOT %s = bf16[1,8,128]{2,1,0} dynamic-slice(%stack, %i, %zero, %zero)', 'bf16[1,8,128]', 2 * PART),
    ('%w = f32[24,8,128]{2,1,0} convert(%stack)\n'
     '  ROOT %s = f32[1,8,128]{2,1,0} dynamic-slice(%w, %i, %zero, %zero)',
     'f32[1,8,128]', 3 * PART),
    # two of them the sum of both, all of it once
    ('%s = bf16[1,8,128]{2,1,0} slice(%stack)\n  %r = bf16[1,8,128]{2,1,0} slice(%stack)\n'
     '  ROOT %t = bf16[1,8,128]{2,1,0} add(%s, %r)', 'bf16[1,8,128]', 3 * PART),
    ('%s = bf16[1,8,128]{2,1,0} slice(%stack)\n  %c = bf16[24,8,128]{2,1,0} negate(%stack)\n'
     '  ROOT %t = (bf16[1,8,128], bf16[24,8,128]) tuple(%s, %c)', '(bf16[1,8,128], bf16[24,8,128])', 49 * PART),
    # an update in its operand's place writes the update; of what is computed first, all of it
    ('%b = bf16[1,8,128]{2,1,0} bitcast(%x)\n'
     '  ROOT %u = bf16[24,8,128]{2,1,0} dynamic-update-slice(%stack, %b, %i, %zero, %zero)',
     'bf16[24,8,128]', 2 * PART),
    ('%b = bf16[1,8,128]{2,1,0} bitcast(%x)\n  %n = bf16[24,8,128]{2,1,0} negate(%stack)\n'
     '  ROOT %u = bf16[24,8,128]{2,1,0} dynamic-update-slice(%n, %b, %i, %zero, %zero)',
     'bf16[24,8,128]', 49 * PART),
    # rows that are gathered; what is read once though it is repeated
    ('ROOT %g = bf16[2,128]{1,0} gather(%stack, %i)', 'bf16[2,128]', 2 * 2 * 128 * 2),
    ('ROOT %r = bf16[24,8,128]{2,1,0} broadcast(%x)', 'bf16[24,8,128]', 25 * PART)])
def test_a_fusion_moves_what_its_parts_need(fused, shape, wanted):
  call = f'ROOT %f = {shape} fusion(%stack.1, %i.1, %x.1), kind=kLoop, calls=%body'
  found, = launches(*OPERANDS, call, computations=STACK.replace('FUSED', fused))
  assert found.bytes - wanted in (0, 4) and (found.kind, found.flops, found.times) == ('other', 0, 1)


LOOP = '''
%dots (p: bf16[16,32], q: bf16[32,8]) -> bf16[16,8] {
  %p = bf16[16,32]{1,0} parameter(0)
  %q = bf16[32,8]{1,0} parameter(1)
  %inner = f32[16,8]{1,0} fusion(%p, %q), kind=kCustom, calls=%deeper
  ROOT %n = bf16[16,8]{1,0} convert(%inner)
}

%deeper (r: bf16[16,32], s: bf16[32,8]) -> f32[16,8] {
  %r = bf16[16,32]{1,0} parameter(0)
  %s = bf16[32,8]{1,0} parameter(1)
  ROOT %d = f32[16,8]{1,0} dot(%r, %s), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%step (t: (s32[], bf16[16,32], bf16[32,8])) -> (s32[], bf16[16,32], bf16[32,8]) {
  %t = (s32[], bf16[16,32]{1,0}, bf16[32,8]{1,0}) parameter(0)
  %a = bf16[16,32]{1,0} get-tuple-element(%t), index=1
  %b = bf16[32,8]{1,0} get-tuple-element(%t), index=2
  %g = bf16[16,8]{1,0} fusion(%a, %b), kind=kCustom, calls=%dots
  ROOT %o = (s32[], bf16[16,32]{1,0}, bf16[32,8]{1,0}) tuple(%t)
}

%more (u: (s32[], bf16[16,32], bf16[32,8])) -> pred[] {
  ROOT %u = pred[] constant(true)
}
'''


def test_products_count_in_loops_and_within_what_is_fused():
  found, = launches('%z = (s32[], bf16[16,32], bf16[32,8]) parameter(0)',
                    'ROOT %w = (s32[], bf16[16,32], bf16[32,8]) while(%z), condition=%more, body=%step, '
                    'backend_config={"known_trip_count":{"n":"24"}}', computations=LOOP)
  assert (found.kind, found.times, found.flops) == ('products', 24, 2 * 16 * 8 * 32)
  assert found.bytes == 2 * (16 * 32 + 32 * 8 + 16 * 8)


def test_products_of_a_library_count_without_the_room_that_they_work_in():
  found, = launches('%a = bf16[16,32]{1,0} parameter(0)', '%b = bf16[32,8]{1,0} parameter(1)',
                    'ROOT %c = (bf16[16,8]{1,0}, s8[4194304]{0}) custom-call(%a, %b), '
                    'custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{'
                    '"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}')
  assert (found.kind, found.flops, found.bytes) == ('products', 2 * 16 * 8 * 32, 2 * (16 * 32 + 32 * 8 + 16 * 8))


@pytest.mark.parametrize('target', ['__gpu$xla.gpu.triton', '__cudnn$fmhaSoftmax'])
def test_attention_counts_by_its_operands(target):
  """[B T H K], as many products as the gradients that a kernel gives want."""
  def flops(operands, results):
    shape = 'bf16[4,128,8,64]{3,2,1,0}'
    lines = [f'%p{i} = {shape} parameter({i})' for i in range(operands)]
    result = ', '.join(['bf16[4,8,128,64]{3,1,2,0}'] * results + ['f32[4,8,128]{2,1,0}', 'u8[0]{0}'])
    names = ', '.join(f'%p{i}' for i in range(operands))
    found, = launches(*lines, f'ROOT %c = ({result}) custom-call({names}), custom_call_target="{target}"')
    assert found.kind == 'custom'
    assert found.bytes == (operands + results) * 2 * 4 * 128 * 8 * 64 + 4 * 4 * 8 * 128
    return found.flops / (2 * 4 * 8 * 128 * 128 * 64)

  assert [flops(3, 1), flops(5, 3), flops(5, 1), flops(5, 2)] == [2, 5, 3, 4]


def test_a_kernel_takes_the_longer_of_its_flops_and_its_bytes():
  of = lambda kind, flops, size: roofline.Launch('x', kind, 1, flops, size).seconds(H100) - roofline.LAUNCH
  assert of('products', 989e12, 0) == of('custom', 989e12, 0) == pytest.approx(1 / 0.75)
  assert of('products', 989e9, 3.35e12) == of('other', 0, 3.35e12) == pytest.approx(1 / 0.9)


MOVED = 450 * 10**6  # bytes that two devices of a host take 1 ms for


def schedule(groups, sync='false'):
  return hlo_costs.read(f'''
ENTRY %main (a: f32[]) -> f32[] {{
  %a = u8[{MOVED}]{{0}} parameter(0)
  %b = u8[{MOVED}]{{0}} parameter(1)
  %s = u8[{MOVED}]{{0}} all-reduce-start(%a), replica_groups={groups}, backend_config={{"is_sync":{sync}}}
  %n = u8[{MOVED}]{{0}} negate(%b)
  ROOT %d = u8[{MOVED}]{{0}} all-reduce-done(%s)
}}
''')


def test_what_runs_beside_a_collective_hides_it():
  costs = schedule('{{0,1},{2,3}}')
  beside, = costs.schedule.launches
  assert costs.collectives[0].asynchronous and not schedule('{{0,1},{2,3}}', 'true').collectives[0].asynchronous
  assert costs.schedule.exposed(H100, [0, 0, 1, 1]) == pytest.approx(1e-3 - beside.seconds(H100))
  # Across two hosts each sends by its own adapter; rings of four by those of two GPUs.
  assert schedule('{{0,2},{1,3}}').schedule.exposed(H100, [0, 0, 1, 1]) == pytest.approx(9e-3 - beside.seconds(H100))
  assert schedule('{}').schedule.exposed(H100, [0, 0, 1, 1]) == pytest.approx(
      2 * 9e-3 / 2 - beside.seconds(H100))
  assert schedule('{{0,2},{1,3}}').schedule.exposed(RTX_3090, [0, 0, 1, 1]) is None


@pytest.mark.parametrize('kind,name', [
    ('NVIDIA H100 80GB HBM3', 'h100'), ('NVIDIA H100 PCIe', 'h100-pcie'), ('NVIDIA A100-SXM4-80GB', 'a100-80g'),
    ('NVIDIA A100-PCIE-40GB', 'a100-40g'), ('NVIDIA A100 80GB PCIe', 'a100-80g'), ('NVIDIA L4', 'l4'),
    ('NVIDIA H200 141GB HBM3e', 'h200'), ('NVIDIA GeForce RTX 4090', 'rtx4090'),
    *((kind, None) for kind in (
        'NVIDIA L40S', 'NVIDIA GeForce RTX 4090 Laptop GPU', 'NVIDIA GeForce RTX 3070 Ti', 'NVIDIA GeForce RTX 4090 D',
        'NVIDIA A100-SXM4-80GB MIG 1g.10gb', 'NVIDIA A10', 'cpu'))])
def test_chips_by_the_names_that_drivers_give_them(kind, name):
  assert chips.chip(kind) is (name and chips.GPUS[name])


@pytest.mark.parametrize('given,share', [({}, 0.75), ({'XLA_PYTHON_CLIENT_MEM_FRACTION': '.92'}, 0.92),
                                         ({'XLA_CLIENT_MEM_FRACTION': 'much'}, 0.75)])
def test_a_program_has_the_share_of_a_gpu_that_jax_takes(monkeypatch, given, share):
  for name in chips.SHARE:
    monkeypatch.delenv(name, raising=False)
  for name, value in given.items():
    monkeypatch.setenv(name, value)
  assert H100.room == int(share * H100.memory) and chips.CHIPS['TPU v5e'].room == 15.75 * chips.GIB


def test_the_list_has_every_chip_with_its_figures(capsys):
  assert cli.run(['plan', '--list-topologies']) == 0
  lines = capsys.readouterr().out.splitlines()
  clouds = next(number for number, line in enumerate(lines) if line.startswith('Or by a name of a cloud'))
  assert clouds == 1 + len(topology_lib.GENERATIONS) + len(chips.GPUS)
  assert any(line.split()[:5] == ['h100:[HOSTSx]DEVICES', 'NVIDIA', 'H100', '80GB', 'HBM3'] for line in lines)
  assert cli.run(['plan', 'tiny', '--list-topologies', '--json']) == 0
  rows = json.loads(capsys.readouterr().out)
  assert all(value for row in rows for name, value in row.items() if name != 'clouds')


@pytest.mark.parametrize('name,message', [
    ('h100', 'no GPU topology .h100.: wanted one of b200:.HOSTSx.DEVICES, h200'), ('h100:0', 'no GPU topology'),
    ('h100:2x0', 'no GPU'), ('h100:17', '16 devices'), ('h100:9999x8', 'up to 1,024 hosts'), ('h100:2x2x2', 'no GPU'),
    ('rtx4091:1', 'no topology .rtx4091:1.: .* of GPUs b200')])
def test_what_is_no_topology_is_one_sentence(name, message):
  with pytest.raises(ConfigError, match=message):
    topology_lib.devices(name)


def test_slices_are_of_tpus():
  with pytest.raises(ConfigError, match='--slices 2 is for TPUs: GPUs of several hosts are h100:HOSTSxDEVICES'):
    topology_lib.devices('h100:8', 2)


def test_without_the_plugin_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ConfigError, match=r"h100:8 needs XLA's compiler .*: pip install 'bert_jax\[gpu-plan\]'$"):
    topology_lib.devices('h100:8')


@pytest.mark.parametrize('said', ['cuDNN is not detected.', 'cuDNN not found.'])
def test_without_cudnn_it_is_named(said):
  with pytest.raises(ConfigError, match='h100:1 uses cuDNN.s attention.*nvidia-cudnn-cu12, or set --model.attention'):
    with gpus.without_cudnn('h100:1'):
      raise RuntimeError(said)
  with pytest.raises(RuntimeError, match='another'), gpus.without_cudnn('h100:1'):
    raise RuntimeError('another')


@pytest.mark.parametrize('plugin,driver,wanted', [(True, False, 'cpu'), (True, True, None), (False, False, None)])
def test_a_plugin_without_a_driver_is_kept_quiet(monkeypatch, tmp_path, plugin, driver, wanted):
  monkeypatch.delenv('JAX_PLATFORMS')
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: plugin or None)
  monkeypatch.setattr(without_gpu, 'DEVICES', (str(tmp_path / 'nvidia[0-9]*'),))
  monkeypatch.setattr(without_gpu.without_tpu, 'DEVICES', ())
  if driver:
    (tmp_path / 'nvidia0').touch()
  without_gpu.keep_quiet()
  assert without_gpu.os.environ.get('JAX_PLATFORMS') == wanted


def test_people_read_what_was_assumed(monkeypatch):
  costs = schedule('{{0,1},{2,3}}')
  of_kind = {kind: costs.schedule.of_kind(kind, H100) for kind in roofline.KINDS}
  printed = '\n'.join(' '.join(row) for row in text.by_roofline(dict(
      estimated_step_seconds=2e-3, ideal_step_seconds=1e-3, estimated_mfu=0.5, exposed_collective_seconds=None,
      roofline=roofline.ASSUMED | of_kind)))
  for words in ('2.00 times that', '75% of the peak, 90% of the memory rate, 1.5 µs a launch',
                'other 1 kernels', 'it is not known how fast hosts'):
    assert words in printed

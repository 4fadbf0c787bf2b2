"""The second opinion of a plan for TPU: what a kernel multiplies, moves and computes element by element."""

import pytest

from bert_jax import chips
from launch.plan import costs, opinion, text

N = 1024
CHIP = chips.Chip(1e12, memory_rate=1e9, clock=1e9, vector=1e10)
PROGRAM = f"""HloModule m
%slices (p: f32[8,{N}], i: s32[]) -> f32[{N}] {{
  %p = f32[8,{N}]{{1,0:T(8,128)}} parameter(0)
  %i = s32[] parameter(1)
  %z = s32[] constant(0)
  %s = f32[1,{N}]{{1,0:T(8,128)}} dynamic-slice(%p, %i, %z), dynamic_slice_sizes={{1,{N}}}
  ROOT %b = f32[{N}]{{0}} bitcast(%s)
}}
%light (p: f32[8,{N}], i: s32[], q: f32[{N}]) -> f32[{N}] {{
  %p = f32[8,{N}]{{1,0:T(8,128)}} parameter(0)
  %i = s32[] parameter(1)
  %q = f32[{N}]{{0:T(1024)S(1)}} parameter(2)
  %part = f32[{N}]{{0}} fusion(%p, %i), kind=kLoop, calls=%slices
  %t = f32[{N}]{{0}} tanh(%part)
  ROOT %sum = f32[{N}]{{0}} add(%t, %q)
}}
ENTRY %main (a: f32[8,{N}], i: s32[], w: f32[{N},{N}]) -> f32[8,{N}] {{
  %a = f32[8,{N}]{{1,0:T(8,128)}} parameter(0)
  %i = s32[] parameter(1)
  %w = f32[{N},{N}]{{1,0:T(8,128)S(1)}} parameter(2)
  %near = f32[{N}]{{0:T(1024)S(1)}} copy-done(%i)
  %f = f32[{N}]{{0:T(1024)}} fusion(%a, %i, %near), kind=kLoop, calls=%light, LIGHT
  %g = s32[{N}]{{0}} sort(%a), metadata={{op_name="told by nobody"}}
  ROOT %d = f32[8,{N}]{{1,0:T(8,128)}} dot(%a, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}, PRODUCT
}}"""
for name, cycles in (('light', 2_000_000), ('product', 100_000)):
  told = f'metadata={{op_name="{name}"}}, backend_config={{"estimated_cycles":"{cycles}"}}'
  PROGRAM = PROGRAM.replace(name.upper(), told)


def test_what_a_kernel_does():
  """A part of a stack counts as the part, within a fusion of a fusion too; what lies in the fast memory moves for
  nothing; tanh takes one unit of four."""
  light, product = costs.read(PROGRAM).works
  assert (light.op_name, light.flops, light.bytes, light.operations) == ('light', 0, 2 * 4 * N + 4, 5 * N)
  assert (product.op_name, product.flops, product.operations) == ('product', 2 * 8 * N * N, 0)
  assert product.bytes == 2 * 4 * 8 * N and (light.cycles, product.cycles) == (2_000_000, 100_000)


def test_the_longest_counts_and_the_greatest_difference_comes_first():
  found = opinion.of(costs.read(PROGRAM).works, CHIP, 1)
  moved, multiplied = (2 * 4 * N + 4) / .9e9, 2 * 8 * N * N / 1e12
  product = max(multiplied, 2 * 4 * 8 * N / .9e9)
  assert found['seconds'] == pytest.approx(moved + product) and found['limits']['vector'] == 0
  assert [item['op_name'] for item in found['differ']] == ['light', 'product']
  assert found['differ'][0] == dict(op_name='light', seconds=2e-3, least=pytest.approx(moved))
  assert opinion.of(costs.read(PROGRAM).works, CHIP, 2)['seconds'] == pytest.approx(2 * found['seconds'])
  lines = [f'{name} {line}' for name, line in text.second_opinion(found)]
  assert 'by a roofline: products' in lines[0] and '2.00 ms by cycles, 0.01 ms least: light' in lines[1]


def test_a_program_without_cycles_has_none():
  assert costs.read(PROGRAM.replace('estimated_cycles', 'other')).works == ()

"""Names that clouds have for machines and slices stand for topologies that plans know, or near ones are listed."""

import importlib.util
import re
import types

import pytest

from bert_jax import chips
from bert_jax.errors import ConfigError
from launch import cli
from launch.plan import clouds, plan, topology


@pytest.mark.parametrize('name, wanted', [
    ('v5litepod-16', 'v5e:4x4'), ('v5e-16', 'v5e:4x4'), ('v5litepod-256', 'v5e:16x16'), ('v6e-8', 'v6e:2x4'),
    ('v4-8', 'v4:2x2x1'), ('v5p-32', 'v5p:2x2x4'), ('tpu7x-8', 'tpu7x:2x2x1'),  # cores, two a chip
    ('ct5lp-hightpu-4t', 'v5e:2x2'),
    ('a2-highgpu-8g', 'a100-40g:8'), ('a2-ultragpu-8g', 'a100-80g:8'), ('a3-highgpu-8g', 'h100:8'),
    ('a3-ultragpu-8g', 'h200:8'), ('a4-highgpu-8g', 'b200:8'), ('g2-standard-48', 'l4:4'),
    ('p4d.24xlarge', 'a100-40g:8'), ('p5.48xlarge', 'h100:8'),
    ('a3-highgpu-8g:2', 'h100:2x8'), ('Standard_ND96isr_H100_v5', 'h100:8'),
    ('v5e:4x4', 'v5e:4x4'), ('h100-pcie:1', 'h100-pcie:1'), ('v9:2x2', 'v9:2x2'), ('h100', 'h100')])
def test_names(name, wanted):
  assert clouds.topology(name) == wanted


@pytest.mark.parametrize('name, said', [
    ('v5e-17', r'number counts chips, .* did you mean v5e-4 or v5e-8 or v5e-16\?'),
    ('v5p-20', r'number counts cores, 2 a chip, .* did you mean v5p-8 or v5p-16 or v5p-32\?'),
    ('a3-highgpu-9g', 'did you mean a3-highgpu-8g'), ('p5.48xlrage', 'did you mean p5.48xlarge'),
    ('a3-highgpu-8g:x', 'did you mean'), ('g5.12xlarge', 'A10G, of which plans have no figures'), ('v3-8', 'TPU v3')])
def test_what_is_not_there_lists_near_ones(name, said, capsys):
  with pytest.raises(ConfigError, match=said):
    clouds.topology(name)
  with pytest.raises(ConfigError, match=said):
    cli.run(['plan', 'tiny', '--topology', name])


def test_every_name_is_of_a_topology_that_is_known():
  names = clouds.names()
  assert len(names) == len(set(names)) > 100
  for name in names:
    generation, _, shape = clouds.topology(name).partition(':')
    if generation in chips.GPUS:
      assert 0 < int(shape) <= 16
    else:
      sides, most = topology.GENERATIONS[generation]
      chip_count = 1
      for side in shape.split('x'):
        chip_count *= int(side)
      assert len(shape.split('x')) == sides and chip_count <= most
      if number := re.fullmatch(r'\w+-(\d+)', name):
        cores = 2 if generation in ('v4', 'v5p', 'tpu7x') else 1
        assert chip_count * cores == int(number[1])
  assert not set(names) & set(chips.GPUS)


def test_they_are_listed(capsys):
  assert cli.run(['plan', '--list-topologies']) == 0
  said = ' '.join(capsys.readouterr().out.split())
  assert 'v5p-N, N cores, 2 a chip: 8, 16,' in said and 'a3-highgpu-8g (8)' in said
  assert all(name in said for name in clouds.GPU_MACHINES)


def test_a_plan_takes_them(capsys, monkeypatch):
  """It is made of the topology, and a line says which that is."""
  planned = lambda found, where, rows: [types.SimpleNamespace(to_json=lambda: {'topology': where.topology})]
  monkeypatch.setattr(plan, 'of_lengths', planned)
  assert cli.run(['plan', 'tiny', '--topology', 'v5litepod-4', '--json']) == 0
  captured = capsys.readouterr()
  assert 'v5litepod-4 is v5e:2x2' in captured.err and captured.out == '{"topology": "v5e:2x2"}\n'


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='needs the compiler in libtpu')
@pytest.mark.parametrize('name, devices', [('v5litepod-8', 8), ('v5p-16', 8), ('tpu7x-8', 8), ('v4-16', 8)])
def test_the_compiler_knows_them(name, devices):
  assert len(topology.devices(clouds.topology(name))) == devices

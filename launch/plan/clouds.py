"""What clouds call their machines and slices, as topologies of `bert-jax plan`.

Sources: Google's TPUs, cloud.google.com/tpu/docs, "TPU configurations" of each generation (v4, v5p: counted in cores,
of which a chip has two; so is tpu7x in github.com/AI-Hypercomputer/accelerator-microbenchmarks); its machines with
TPUs, cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus; with GPUs, docs.cloud.google.com/compute/docs/gpus.
Amazon's, docs.aws.amazon.com/ec2/latest/instancetypes/ac.html. Microsoft's,
learn.microsoft.com/azure/virtual-machines/sizes.
"""

import dataclasses
import difflib
import math
import re

from bert_jax import chips
from bert_jax.errors import ConfigError, require


@dataclasses.dataclass(frozen=True)
class Slices:
  """The slices of a generation of TPUs that a cloud calls by a number."""
  names: tuple[str, ...]  # before the number
  generation: str  # of a topology
  cores: int  # in which the number counts a chip
  shapes: tuple[str, ...]

  def by_number(self) -> dict[int, str]:
    """The shape that each number stands for."""
    return {math.prod(map(int, shape.split('x'))) * self.cores: shape for shape in self.shapes}

  @property
  def counted(self) -> str:
    return 'chips' if self.cores == 1 else f'cores, {self.cores} a chip'


FLAT = '1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16'
CUBES = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8', '8x8x16', '8x16x16', '16x16x16')
SLICES = (
    Slices(('v4',), 'v4', 2, (*CUBES[:8], '8x8x12', '8x8x16', '8x16x16')),
    Slices(('v5litepod', 'v5e'), 'v5e', 1, FLAT), Slices(('v6e',), 'v6e', 1, FLAT),
    Slices(('v5p',), 'v5p', 2, (*CUBES, '16x16x24')), Slices(('tpu7x',), 'tpu7x', 2, CUBES))

A100, A100_80G, H100, H200, B200, L4 = 'a100-40g', 'a100-80g', 'h100', 'h200', 'b200', 'l4'
TPU_MACHINES = {  # Google's, as GKE has them; several of them are a slice, which is named by its own topology
    'ct4p-hightpu-4t': 'v4:2x2x1', 'ct5p-hightpu-4t': 'v5p:2x2x1', 'ct5lp-hightpu-1t': 'v5e:1x1',
    'ct5lp-hightpu-4t': 'v5e:2x2', 'ct5lp-hightpu-8t': 'v5e:2x4', 'ct6e-standard-1t': 'v6e:1x1',
    'ct6e-standard-4t': 'v6e:2x2', 'ct6e-standard-8t': 'v6e:2x4', 'tpu7x-standard-4t': 'tpu7x:2x2x1'}
GPU_MACHINES = {  # GPU and how many
    **{f'a2-highgpu-{n}g': (A100, n) for n in (1, 2, 4, 8)}, 'a2-megagpu-16g': (A100, 16),
    **{f'a2-ultragpu-{n}g': (A100_80G, n) for n in (1, 2, 4, 8)},
    **{f'a3-highgpu-{n}g': (H100, n) for n in (1, 2, 4, 8)}, 'a3-megagpu-8g': (H100, 8), 'a3-edgegpu-8g': (H100, 8),
    'a3-ultragpu-8g': (H200, 8), 'a4-highgpu-8g': (B200, 8),
    **{f'g2-standard-{n}': (L4, 1) for n in (4, 8, 12, 16, 32)}, 'g2-standard-24': (L4, 2), 'g2-standard-48': (L4, 4),
    'g2-standard-96': (L4, 8),
    'p4d.24xlarge': (A100, 8), 'p4de.24xlarge': (A100_80G, 8), 'p5.4xlarge': (H100, 1), 'p5.48xlarge': (H100, 8),
    'p5e.48xlarge': (H200, 8), 'p5en.48xlarge': (H200, 8), 'p6-b200.48xlarge': (B200, 8),
    **{f'g6.{size}': (L4, 1) for size in ('xlarge', '2xlarge', '4xlarge', '8xlarge', '16xlarge')},
    'g6.12xlarge': (L4, 4), 'g6.24xlarge': (L4, 4), 'g6.48xlarge': (L4, 8),
    'standard_nd96asr_v4': (A100, 8), 'standard_nd96amsr_a100_v4': (A100_80G, 8), 'standard_nd96isr_h100_v5': (H100, 8),
    'standard_nd96isr_h200_v5': (H200, 8)}
OTHERS = {  # what clouds have and plans have no figures of, by the beginning of their names
    'g5.': 'A10G', 'g6e.': 'L40S', 'g4dn.': 'T4', 'p3.': 'V100', 'p3dn.': 'V100', 'v2-': 'TPU v2', 'v3-': 'TPU v3',
    'n1-': 'T4, P100 or V100', 'g4-': 'RTX PRO 6000', 'a4x-': 'GB200'}
MACHINE = re.compile(r'[a-z0-9]+([-_.][a-z0-9]+)+')  # what the name of one looks like


def topology(name: str) -> str:
  """The topology that a cloud's name stands for: 'v5e:4x4' of 'v5litepod-16', 'h100:2x8' of 'a3-highgpu-8g:2', which
  are two machines. Any other name as it is, where it has a topology's form. Raises ConfigError."""
  machine, colon, count = name.lower().partition(':')
  if machine in GPU_MACHINES and (not colon or re.fullmatch('[1-9][0-9]*', count)):
    gpu, each = GPU_MACHINES[machine]
    return f'{gpu}:{count}x{each}' if colon else f'{gpu}:{each}'
  if not colon:
    if machine in TPU_MACHINES:
      return TPU_MACHINES[machine]
    for slices in SLICES:
      prefix, dash, number = machine.rpartition('-')
      if dash and prefix in slices.names and number.isdecimal():
        return of_slices(prefix, slices, int(number))
  other = next((what for start, what in OTHERS.items() if machine.startswith(start)), None)
  require(other is None, f'{name} is a machine with {other}, of which plans have no figures; `bert-jax plan '
          '--list-topologies` has what they have')
  if MACHINE.fullmatch(machine) and machine not in chips.GPUS:
    near = difflib.get_close_matches(machine, names(), 3, 0.6)
    raise ConfigError(f'there is no machine or slice {name!r} of a cloud that is known here: '
                      + (f'did you mean {" or ".join(near)}? ' if near else '')
                      + '`bert-jax plan --list-topologies` has all')
  return name


def of_slices(prefix: str, slices: Slices, number: int) -> str:
  """Of the number of chips or cores that the name says."""
  by_number = slices.by_number()
  if number not in by_number:
    near = sorted(by_number, key=lambda known: abs(known - number))[:3]
    raise ConfigError(f'there is no {prefix}-{number}, whose number counts {slices.counted}, and is one of '
                      f'{", ".join(map(str, sorted(by_number)))}: did you mean '
                      + ' or '.join(f'{prefix}-{known}' for known in sorted(near)) + '? A slice of another shape '
                      f'is {slices.generation}:{"x".join("ABC"[:slices.shapes[0].count("x") + 1])}')
  return f'{slices.generation}:{by_number[number]}'


def names() -> list[str]:
  """All that are known."""
  of_tpus = [f'{name}-{number}' for slices in SLICES for name in slices.names for number in slices.by_number()]
  return [*of_tpus, *TPU_MACHINES, *GPU_MACHINES]


def of(generation: str) -> list[str]:
  """The names of a generation of TPUs, or of a GPU, for people: of slices what their number counts."""
  slices = [f'{name}-N, N {item.counted}: {", ".join(map(str, item.by_number()))}'
            for item in SLICES if item.generation == generation for name in item.names]
  tpus = [name for name, found in TPU_MACHINES.items() if found.partition(':')[0] == generation]
  return [*slices, *tpus, *(f'{name} ({count})' for name, (gpu, count) in GPU_MACHINES.items() if gpu == generation)]

"""What known chips can do at best."""

import dataclasses
import os
import re

MIB, GIB = 2**20, 2**30
# What says which share of a GPU's memory JAX takes, and what it is where nothing does
# (docs.jax.dev/en/latest/gpu_memory_allocation.html).
SHARE, USUAL_SHARE = ('XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION'), 0.75


@dataclasses.dataclass(frozen=True)
class Gpu:
  """What XLA's compiler for GPUs asks of one, beside what a Chip has."""
  kind: str  # jax's device_kind
  capability: str  # CUDA's compute capability
  cores: int  # streaming multiprocessors
  cache: int  # bytes, level 2
  network: float | None = None  # bytes/s to other hosts, a chip; None: not known of machines with this one


@dataclasses.dataclass(frozen=True)
class Chip:
  """What one chip can do at best; None where nothing here needs it."""
  peak: float  # dense bfloat16 FLOP/s, added up in float32
  memory: float | None = None  # bytes; of a TPU those that a program can have
  memory_rate: float | None = None  # bytes/s
  interconnect: float | None = None  # bytes/s that leave the chip over all its links
  clock: float | None = None  # Hz
  gpu: Gpu | None = None
  vector: float | None = None  # operations/s of a TPU's vector unit, element by element in float32

  @property
  def room(self) -> int | None:
    """Bytes that a program can have."""
    return None if self.memory is None else int(self.memory * (gpu_share() if self.gpu else 1))


# By jax's device_kind.
# peak, memory_rate: the vendors' data sheets (cloud.google.com/tpu/docs: a page for each generation).
# memory: what TPU's compiler says is available where a program needs more ("exceeds available HBM (15.75G)").
# interconnect: links x one-way rate of each (jax-ml.github.io/scaling-book, "How to think about TPUs"; TPU7x: half of
# the 1.2 TB/s both ways of its page).
# clock: the peak over the FLOP of a cycle, 2 for each cell of 4 matrix units of 128 x 128 (v5e; its 1.5 GHz are in the
# scaling-book too), of 8 such (v4, v5p), of 4 of 256 x 256 (v6e), of 8 such (TPU7x). By it the compiler's cycles for a
# product of 4,096^3 come to 97 % of the peak on v5e, 89 % on v4, 96 % on v5p, 87 % on v6e and 83 % on TPU7x: half or
# twice as many units would not do.
# vector: 8 x 128 lanes of 4 units in each core (scaling-book, "How to think about TPUs"), at that clock; v4, v5p and
# TPU7x have two cores.
_LANES = 8 * 128 * 4
_V4 = Chip(275e12, 30.75 * GIB, 1.23e12, 6 * 45e9, 1.05e9, vector=2 * _LANES * 1.05e9)
_V5E = Chip(197e12, 15.75 * GIB, 0.82e12, 4 * 45e9, 1.5e9, vector=_LANES * 1.5e9)
_V5P = Chip(459e12, 95.74 * GIB, 2.76e12, 6 * 90e9, 1.75e9, vector=2 * _LANES * 1.75e9)
_V6E = Chip(918e12, 31.25 * GIB, 1.64e12, 4 * 90e9, 1.75e9, vector=_LANES * 1.75e9)
_V7X = Chip(2307e12, 2 * 94.75 * GIB, 7.4e12, 600e9, 2.2e9, vector=2 * _LANES * 2.2e9)

# NVIDIA's.
# peak, memory_rate: the data sheets of A100, H100, H200, L4 and of DGX B200 (half of what they say "with sparsity");
# for GeForce the whitepapers of the architectures Ada and GA102 ("Peak BF16 Tensor TFLOPS with FP32 Accumulate").
# memory: what the driver says there is: from XLA's own specs (openxla/xla, xla/backends/gpu/target_config/specs), from
# nvidia-smi of L4, RTX 4090, RTX 3090 and RTX 3070.
# interconnect: one way of NVLink (half of the data sheets' sum of both), of PCI Express where the card has no NVLink or
# only a bridge to one other: 32 GB/s in its generation 4, 64 in 5.
# clock, cores, cache, capability: XLA's specs; of L4 and GeForce the whitepapers.
# network: an adapter for each GPU as in DGX: 200 Gb/s beside A100, 400 Gb/s since.
_H100 = Chip(989e12, 84_942_979_072, 3.35e12, 450e9, 1.98e9, Gpu('NVIDIA H100 80GB HBM3', '9.0', 132, 50 * MIB, 50e9))
_H100_PCIE = Chip(756e12, 84_942_979_072, 2.04e12, 64e9, 1.755e9, Gpu('NVIDIA H100 PCIe', '9.0', 114, 50 * MIB))
_H200 = Chip(989e12, 151_397_597_184, 4.8e12, 450e9, 1.98e9, Gpu('NVIDIA H200', '9.0', 132, 50 * MIB, 50e9))
_B200 = Chip(2250e12, 191_514_411_008, 7.67e12, 900e9, 1.965e9, Gpu('NVIDIA B200', '10.0', 148, 132_644_864, 50e9))
_A100_40G = Chip(312e12, 42_331_013_120, 1.555e12, 300e9, 1.41e9,
                 Gpu('NVIDIA A100-SXM4-40GB', '8.0', 108, 40 * MIB, 25e9))
_A100_80G = Chip(312e12, 85_100_068_864, 2.039e12, 300e9, 1.41e9,
                 Gpu('NVIDIA A100-SXM4-80GB', '8.0', 108, 40 * MIB, 25e9))
_L4 = Chip(121e12, 23_034 * MIB, 0.3e12, 32e9, 2.04e9, Gpu('NVIDIA L4', '8.9', 58, 48 * MIB))
_RTX_4090 = Chip(165.2e12, 24_564 * MIB, 1.008e12, 32e9, 2.52e9,
                 Gpu('NVIDIA GeForce RTX 4090', '8.9', 128, 72 * MIB))
_RTX_3090 = Chip(71e12, 24_576 * MIB, 0.936e12, 32e9, 1.695e9, Gpu('NVIDIA GeForce RTX 3090', '8.6', 82, 6 * MIB))
_RTX_3070 = Chip(40.6e12, 8_192 * MIB, 0.448e12, 32e9, 1.725e9, Gpu('NVIDIA GeForce RTX 3070', '8.6', 46, 4 * MIB))
GPUS = {  # by the name of a topology
    'b200': _B200, 'h200': _H200, 'h100': _H100, 'h100-pcie': _H100_PCIE, 'a100-80g': _A100_80G, 'a100-40g': _A100_40G,
    'l4': _L4, 'rtx4090': _RTX_4090, 'rtx3090': _RTX_3090, 'rtx3070': _RTX_3070}
CHIPS = {
    'TPU v2': Chip(46e12), 'TPU v3': Chip(123e12), 'TPU v4': _V4,
    'TPU v5 lite': _V5E, 'TPU v5e': _V5E, 'TPU v5p': _V5P, 'TPU v5': _V5P,
    'TPU v6 lite': _V6E, 'TPU v6e': _V6E, 'TPU7x': _V7X,
    **{chip.gpu.kind: chip for chip in GPUS.values() if chip.gpu},
    'NVIDIA A100': _A100_40G, 'NVIDIA A100 80GB': _A100_80G, 'NVIDIA A100-PCIE-80GB': _A100_80G, 'NVIDIA H100': _H100,
    'Tesla V100': Chip(125e12),
}
OTHERS = re.compile(r' (Ti|SUPER|D|Laptop|Max-Q)\b|MIG')  # after a GPU's name: another one, or a part of it


def chip(device_kind: str) -> Chip | None:
  """The chip, or None where it is not known: a CPU, say. The longest name that `device_kind` begins with counts."""
  names = [name for name in CHIPS if re.match(rf'{re.escape(name)}(?![0-9A-Za-z])', device_kind)]
  name = max(names, key=len, default='')
  return None if not name or OTHERS.search(device_kind, len(name)) else CHIPS[name]


def peak(device_kind: str) -> float | None:
  """FLOP/s of one chip, or None where it is not known."""
  found = chip(device_kind)
  return found.peak if found else None


def gpu_share() -> float:
  """The share of a GPU's memory that JAX takes."""
  given = next((os.environ[name] for name in SHARE if os.environ.get(name)), None)
  try:
    return float(given) if given else USUAL_SHARE
  except ValueError:
    return USUAL_SHARE

"""What known chips can do at best."""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """What one chip can do at best; None where nothing here needs it."""
  peak: float  # dense bfloat16 FLOP/s
  memory: float | None = None  # bytes that a program can have
  memory_rate: float | None = None  # bytes/s
  interconnect: float | None = None  # bytes/s that leave the chip over all its links
  clock: float | None = None  # Hz


# By jax's device_kind.
# peak, memory_rate: the vendors' data sheets (cloud.google.com/tpu/docs: a page for each generation).
# memory: what TPU's compiler says is available where a program needs more ("exceeds available HBM (15.75G)").
# interconnect: links x one-way rate of each (jax-ml.github.io/scaling-book, "How to think about TPUs"; TPU7x: half of
# the 1.2 TB/s both ways of its page).
# clock: the peak over the FLOP of a cycle, 2 for each cell of 4 matrix units of 128 x 128 (v5e; its 1.5 GHz are in the
# scaling-book too), of 8 such (v4, v5p), of 4 of 256 x 256 (v6e), of 8 such (TPU7x). By it the compiler's cycles for a
# product of 4,096^3 come to 97 % of the peak on v5e, 89 % on v4, 96 % on v5p, 87 % on v6e and 83 % on TPU7x: half or
# twice as many units would not do.
_V4 = Chip(275e12, 30.75 * GIB, 1.23e12, 6 * 45e9, 1.05e9)
_V5E = Chip(197e12, 15.75 * GIB, 0.82e12, 4 * 45e9, 1.5e9)
_V5P = Chip(459e12, 95.74 * GIB, 2.76e12, 6 * 90e9, 1.75e9)
_V6E = Chip(918e12, 31.25 * GIB, 1.64e12, 4 * 90e9, 1.75e9)
_V7X = Chip(2307e12, 2 * 94.75 * GIB, 7.4e12, 600e9, 2.2e9)
CHIPS = {
    'TPU v2': Chip(46e12), 'TPU v3': Chip(123e12), 'TPU v4': _V4,
    'TPU v5 lite': _V5E, 'TPU v5e': _V5E, 'TPU v5p': _V5P, 'TPU v5': _V5P,
    'TPU v6 lite': _V6E, 'TPU v6e': _V6E, 'TPU7x': _V7X,
    'NVIDIA A100': Chip(312e12), 'NVIDIA H100': Chip(989e12), 'NVIDIA H200': Chip(989e12),
    'NVIDIA B200': Chip(2250e12), 'Tesla V100': Chip(125e12),
}


def chip(device_kind: str) -> Chip | None:
  """The chip, or None where it is not known: a CPU, say. The longest name that `device_kind` begins with counts."""
  names = [name for name in CHIPS if device_kind.startswith(name)]
  return CHIPS[max(names, key=len)] if names else None


def peak(device_kind: str) -> float | None:
  """FLOP/s of one chip, or None where it is not known."""
  found = chip(device_kind)
  return found.peak if found else None

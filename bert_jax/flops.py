"""The floating point operations of a step, counted from its matrix products, and what known chips can do.

T tokens of a row, P masked positions of a row, D hidden, F feed-forward, V vocabulary, L layers.
"""

import dataclasses

from bert_jax.config import Config

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """What one chip can do at best; None where nothing here needs it."""
  peak: float  # dense bfloat16 FLOP/s
  memory: float | None = None  # bytes that a program can have
  memory_rate: float | None = None  # bytes/s
  interconnect: float | None = None  # bytes/s that leave the chip over all its links
  clock: float | None = None  # Hz


# By jax's device_kind. peak, memory_rate: the vendors' data sheets (cloud.google.com/tpu/docs: a page for each generation). memory: what
# TPU's compiler says is available where a program needs more ("exceeds available HBM (15.75G)"). interconnect: links x one-way rate of each
# (jax-ml.github.io/scaling-book, "How to think about TPUs"; TPU7x: half of the 1.2 TB/s both ways of its page).
# clock: the peak over the FLOP of a cycle, 2 for each cell of 4 matrix units of 128 x 128 (v5e; its 1.5 GHz are in the scaling-book too),
# of 8 such (v4, v5p), of 4 of 256 x 256 (v6e), of 8 such (TPU7x). By it the compiler's cycles for a product of 4,096^3 come to 97 % of the
# peak on v5e, 89 % on v4, 96 % on v5p, 87 % on v6e and 83 % on TPU7x: half or twice as many units would not do.
_V4 = Chip(275e12, 30.75 * GIB, 1.23e12, 6 * 45e9, 1.05e9)
_V5E = Chip(197e12, 15.75 * GIB, 0.82e12, 4 * 45e9, 1.5e9)
_V5P = Chip(459e12, 95.74 * GIB, 2.76e12, 6 * 90e9, 1.75e9)
_V6E = Chip(918e12, 31.25 * GIB, 1.64e12, 4 * 90e9, 1.75e9)
_V7X = Chip(2307e12, 2 * 94.75 * GIB, 7.4e12, 600e9, 2.2e9)
CHIPS = {
    'TPU v2': Chip(46e12), 'TPU v3': Chip(123e12), 'TPU v4': _V4, 'TPU v5 lite': _V5E, 'TPU v5e': _V5E, 'TPU v5p': _V5P, 'TPU v5': _V5P,
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
  return found and found.peak


def per_row(config: Config) -> float:
  """FLOP of one row's forward and backward pass, as this program runs it without recomputation.

  Forward, a product of [m k] and [k n] being 2 m k n: each layer has four D x D projections and two D x F products on T tokens, and
  two products of T x T with D for attention; the MLM head has D x D and D x V on P positions alone; the pooler D x D on [CLS]. Backward
  costs twice the forward pass. Embedding lookups, LayerNorm, softmax, GELU and the optimizer are left out, as is usual for MFU.
  """
  m, T, P = config.model, config.batch.sequence_length, config.batch.predictions
  D, F = m.hidden_size, m.intermediate_size
  layer = 2 * T * (4 * D * D + 2 * D * F) + 4 * T * T * D
  head = 2 * P * (D * D + D * m.vocab_size) + 2 * config.batch.pairs_per_row * D * D
  return 3.0 * (m.layers * layer + head)


def per_step(config: Config) -> float:
  """FLOP of one step on the whole global batch."""
  return config.batch.size * per_row(config)

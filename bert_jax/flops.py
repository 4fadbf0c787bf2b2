"""The floating point operations of a step, counted from its matrix products, and the peaks of known chips.

T tokens of a row, P masked positions of a row, D hidden, F feed-forward, V vocabulary, L layers.
"""

from bert_jax.config import Config

# Dense bfloat16 peak of one chip in FLOP/s, by jax's device_kind. Sources: the vendors' data sheets.
PEAKS = {
    'TPU v2': 46e12, 'TPU v3': 123e12, 'TPU v4': 275e12, 'TPU v5 lite': 197e12, 'TPU v5e': 197e12, 'TPU v5p': 459e12, 'TPU v5': 459e12,
    'TPU v6 lite': 918e12, 'TPU v6e': 918e12, 'TPU7x': 2307e12,
    'NVIDIA A100': 312e12, 'NVIDIA H100': 989e12, 'NVIDIA H200': 989e12, 'NVIDIA B200': 2250e12, 'Tesla V100': 125e12,
}


def peak(device_kind: str) -> float | None:
  """FLOP/s of one chip, or None where it is not known: of a CPU, say. The longest name that `device_kind` begins with counts."""
  names = [name for name in PEAKS if device_kind.startswith(name)]
  return PEAKS[max(names, key=len)] if names else None


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

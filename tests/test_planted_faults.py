"""Faults that a kernel for GPUs might have, planted one by one: the test that each run makes sees each, by any seed."""

import functools
import inspect
import textwrap

import pytest
from jax.experimental import pallas as pl

from bert_jax import selftest
from bert_jax.config import Model
from bert_jax.model import triton_activation, triton_attention, triton_norm, triton_sums
from bert_jax.model.attention import Place

GPU = Place('gpu')
MODEL = Model(vocab_size=64, hidden_size=32, layers=1, heads=2, intermediate_size=64, max_positions=64,
              dtype='bfloat16', attention='triton')
MEASURE = selftest.value_and_gradient.__wrapped__
TOKENS, SEEDS = 64, 10  # three pairs of 21 or 22 tokens, and padding
BLOCKS = triton_attention.Blocks(32, 16, 4, 2)  # so that a row has several of each kind

# {fault: (module, function, what stands there once, what stands there instead)}
A, N, G, S = triton_attention, triton_norm, triton_activation, triton_sums
KEYS, SEEN = "column(keys['places'])", "row(queries['ids']) == column(keys['ids'])"
OF_PAIR = "row(queries['ids']) == "
ENDS, SLOPES = 'return dropped, weights * (products - sums)', 'inner - mean - unit * slope'
SUMS, ONLY = 'old + new.sum(axis=0)', 'jnp.where(i < steps - 1, 1, 0) * '
PRODUCT, PART = 'total + dot(triton.load(a.at[:, at]), right)', 'rows[number], ROWS)'
RESULT = 'out * before[:, None] + dot(weights.astype(qkv.dtype), read(qkv, at, K, 2))'
of_16_bits = lambda text: f'({text}).astype(jnp.bfloat16).astype(jnp.float32)'
FAULTS = {
    # Who sees whom.
    'the last key of each block is hidden': (A, 'Head.masks', SEEN, f'({SEEN}) & ({KEYS} % 16 != 15)'),
    'the first key of each block is hidden': (A, 'Head.masks', SEEN, f'({SEEN}) & ({KEYS} % 16 != 0)'),
    'one key at the edge of a block is hidden': (A, 'Head.masks', SEEN, f'({SEEN}) & ({KEYS} != 31)'),
    'all see one key': (A, 'Head.masks', SEEN, f'({SEEN}) | ({KEYS} == 24)'),
    'a pair sees the first key of the next': (A, 'Head.masks', SEEN, f'({SEEN}) | ({OF_PAIR}1) & ({KEYS} == 22)'),
    'a pair sees the last key before it': (A, 'Head.masks', SEEN, f'({SEEN}) | ({OF_PAIR}3) & ({KEYS} == 42)'),
    'a pair sees a key of padding': (A, 'Head.masks', SEEN, f'({SEEN}) | ({OF_PAIR}1) & ({KEYS} == 63)'),
    'all see all': (A, 'Head.masks', SEEN, f'({SEEN}) | True'),
    # A block that is left out.
    'all but the first block': (A, 'ranges', 'jnp.where(of, at, -1).max(-1) + 1', 'jnp.full_like(least, 16)'),
    'the last block of a pair, where it is not full': (A, 'Head.steps', 'end + (step - 1)', 'end'),
    'the last step of the sums of rows': (N, 'backward_kernel', SUMS, f'old + {ONLY}new.sum(axis=0)'),
    'the last step of all sums': (S, 'sum_kernel', f'pl.cdiv({PART}', f'pl.cdiv({PART} - 1'),
    'the last row of all sums': (S, 'sum_kernel', '< rows[number]', '< rows[number] - 1'),
    'the last columns of all sums': (S, 'sum_kernel', '< columns[number])', '< columns[number] - COLUMNS)'),
    'the last step of a product': (G, 'product', 'D // step', 'D // step - 1'),
    'the last rows of a bias': (G, 'backward_kernel', 'gradient.sum(axis=0)', 'gradient[:8].sum(axis=0)'),
    # A scale that is left out, or slightly wrong.
    'no scale of scores': (A, 'forward_kernel', 'LOG2_E * K**-0.5', 'LOG2_E'),
    'scores 5 % too large': (A, 'forward_kernel', 'LOG2_E * K**-0.5', '1.05 * LOG2_E * K**-0.5'),
    "no scale of the keys' gradient": (A, 'backward_kernel', '* of_queries) * np.float32(K**-0.5)', '* of_queries)'),
    "no scale of the queries' gradient": (A, 'backward_kernel', '(dq * np.float32(K**-0.5), dk', '(dq, dk'),
    'weights 5 % too large': (A, 'weights_and_slopes', ENDS, 'return dropped * 1.05, weights * (products - sums)'),
    'no scale of what is kept': (A, 'forward_kernel', 'np.float32(1 - rate)', 'np.float32(1)'),
    'no scale of what is kept, to values': (A, 'backward_kernel', 'dv *= np.float32(1 / (1 - rate))', ''),
    'no scale of what is kept, to scores': (A, 'weights_and_slopes', 'products * np.float32(1 / (1 - rate))',
                                            'products'),
    'no scale of what is kept of rows': (N, 'drop', 'x * np.float32(1 / (1 - rate))', 'x'),
    'no scale of LayerNorm': (N, 'forward_kernel', 'off * scale + shift', 'off + shift'),
    'no scale of LayerNorm on the way back': (N, 'backward_kernel', 'above * scale', 'above'),
    # A term that is left out.
    'no mean in the gradient of LayerNorm': (N, 'backward_kernel', SLOPES, 'inner - unit * slope'),
    'no slope in the gradient of LayerNorm': (N, 'backward_kernel', SLOPES, 'inner - mean'),
    'one of two gradients that meet': (N, 'backward_kernel', ' + read(more.at[rows, :], inside)', ''),
    'another gradient of the shift': (N, 'backward_kernel', '(inner, above * unit, above)',
                                      '(inner, above * unit, inner)'),
    'no sums in the gradient of weights': (A, 'weights_and_slopes', ENDS, 'return dropped, weights * products'),
    'no biases': (A, 'read_bias', 'return row.astype(jnp.float32)', 'return 0 * row.astype(jnp.float32)'),
    'no bias of queries on the way back': (A, 'backward_kernel', 'their_q.T) + of_own_k[:, None]', 'their_q.T)'),
    'no bias of values on the way back': (A, 'backward_kernel', ' + along(their_g, of_values)[None, :]', ''),
    "no bias of queries in the keys' gradient": (A, 'backward_kernel', 'dk + sums[:, None] * of_queries', 'dk'),
    "no slope of the activation's gate": (G, 'backward_kernel', 'above * slope',
                                          'above * (value / (with_bias(triton.load(h), bias) + 1e-9))'),
    'no bias before the activation': (G, 'forward_kernel', 'with_bias(made, bias)', 'made.astype(jnp.float32)'),
    'no bias before the activation on the way back': (G, 'backward_kernel', 'with_bias(triton.load(h), bias)',
                                                      'triton.load(h).astype(jnp.float32)'),
    'no activation where its gradient is': (G, 'backward_kernel', 'value.astype(h.dtype)', 'triton.load(h)'),
    # Another mask on the way back.
    'another seed for attention': (A, 'backward_kernel', 'seeds[0]', 'seeds[0] + np.uint32(1)'),
    "another head's mask": (A, 'backward_kernel', 'pl.program_id(2).astype(jnp.uint32)', 'jnp.uint32(0)'),
    'another seed for rows': (N, 'backward_kernel', 'drop(inner, seeds, ', 'drop(inner, [seeds[0] + np.uint32(1)], '),
    'the numbers of other rows': (N, 'backward_kernel', 'numbers[rows]', 'numbers[rows] + np.uint32(1)'),
    'another rate': (N, 'backward_kernel', 'numbers[rows], rate', 'numbers[rows], rate * .9'),
    # Sums in 16 bits.
    'the result': (A, 'forward_kernel', RESULT, of_16_bits(RESULT)),
    'the sum of exponentials': (A, 'forward_kernel', 'jnp.log(sums)', f'jnp.log({of_16_bits("sums")})'),
    "the keys' gradient": (A, 'backward_kernel', 'return dk + dot(slopes, their_q)',
                           f'return {of_16_bits("dk + dot(slopes, their_q)")}'),
    "the queries' gradient": (A, 'backward_kernel', 'dq + dot(slopes.astype(dtype), k)',
                              of_16_bits('dq + dot(slopes.astype(dtype), k)')),
    'the sums of rows': (N, 'backward_kernel', SUMS, of_16_bits(SUMS)),
    'a product': (G, 'product', PRODUCT, of_16_bits(PRODUCT)),
    'the mean of LayerNorm': (N, 'forward_kernel', 'total.sum(axis=1)', of_16_bits('total.sum(axis=1)')),
}


def plant(monkeypatch, fault: str):
  """Writes a function of a module again, with the fault."""
  module, path, right, wrong = FAULTS[fault]
  *holder, name = path.split('.')
  holder = functools.reduce(getattr, holder, module)
  source = textwrap.dedent(inspect.getsource(getattr(holder, name)))
  assert source.count(right) == 1, f'{path} has {source.count(right)} times {right!r}'
  made = {}
  exec(source.replace(right, wrong), vars(module), made)
  monkeypatch.setattr(holder, name, made[name])


@functools.cache
def plain(model, place):
  """Of plain JAX, compiled once for all faults."""
  return MEASURE(model, place)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
  ours = functools.cache(MEASURE)
  monkeypatch.setattr(selftest, 'value_and_gradient',
                      lambda model, place: (plain if model.attention == 'xla' else ours)(model, place))
  monkeypatch.setattr(pl, 'pallas_call', functools.partial(pl.pallas_call, interpret=True))
  monkeypatch.setattr(selftest, 'LEAST_TOKENS', 0)
  monkeypatch.setattr(triton_attention, 'WHOLE', 0)
  monkeypatch.setattr(triton_norm, 'PROGRAMS', 8)
  for name in ('ROWS', 'COLUMNS'):
    monkeypatch.setattr(triton_sums, name, 4)
  for name in ('FORWARD', 'BACKWARD'):
    monkeypatch.setattr(triton_attention, name, BLOCKS)
    monkeypatch.setattr(triton_activation, name, triton_activation.Blocks(32, 32, 16, 4, 2))


def missed(seeds) -> list[int]:
  """The seeds by which the test finds nothing."""
  return [seed for seed in range(seeds)
          if all(item.passed for item in selftest.findings(MODEL, GPU, TOKENS, seed=seed))]


@pytest.mark.parametrize('fault', FAULTS)
def test_each_fault_changes_one_place(monkeypatch, fault):
  """Or nothing would be planted, and nothing shown."""
  plant(monkeypatch, fault)


@pytest.mark.parametrize('fault, seeds', [
    (fault, 2) if fault == 'one key at the edge of a block is hidden' else
    pytest.param(fault, SEEDS, marks=pytest.mark.slow) for fault in FAULTS])
def test_no_seed_misses_a_fault(monkeypatch, fault, seeds):
  plant(monkeypatch, fault)
  assert not missed(seeds)

"""Attention: the reference written out, both sides seen, nothing across pairs or of padding, dropout on the weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.pallas import tpu as pltpu

from bert_jax import config as cfg, phases, recipes, selftest, synthetic
from bert_jax.model import build, encoder as encoder_lib, pallas_attention
from bert_jax.model.attention import Place, attend, attend_cudnn, choose_implementation
from bert_jax.model.dropout import keep_mask

B, T, H, K = 2, 12, 3, 4
NUMBERS = jnp.arange(B * T, dtype=jnp.uint32).reshape(B, T)
PAIRS = np.array([[1] * 12, [1] * 5 + [2] * 4 + [0] * 3], np.int32)


@pytest.fixture(scope='module')
def qkv():
  return [jax.random.normal(key, (B, T, H, K)) for key in jax.random.split(jax.random.key(0), 3)]


def weights_of(q, k, pairs):  # -> [B H T T]
  """Softmax of scaled scores over the equal pair ids, in float64 and one token at a time."""
  q, k = np.asarray(q, np.float64), np.asarray(k, np.float64)
  weights = np.zeros((B, H, T, T))
  for b, h, t in np.ndindex(B, H, T):
    seen = np.flatnonzero(pairs[b] == pairs[b, t])
    scores = np.array([q[b, t, h] @ k[b, s, h] for s in seen]) / np.sqrt(K)
    weights[b, h, t, seen] = np.exp(scores) / np.exp(scores).sum()
  return weights


@pytest.mark.parametrize('implementation', ['xla'])
def test_attention_is_the_formula(qkv, implementation):
  q, k, v = qkv
  got = attend(q, k, v, jnp.asarray(PAIRS), NUMBERS, implementation=implementation)
  want = np.einsum('BHTS,BSHK->BTHK', weights_of(q, k, PAIRS), np.asarray(v, np.float64))
  np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize('implementation', ['xla'])
def test_influence_is_of_the_own_pair_and_of_both_sides(qkv, implementation):
  q, k, v = qkv
  of = lambda k, v: attend(q, k, v, jnp.asarray(PAIRS), NUMBERS, implementation=implementation)
  for t in range(T):
    pull = jax.grad(lambda k, v, t=t: of(k, v)[1, t].sum(), (0, 1))
    influence = [np.abs(g[1]).sum((1, 2)) > 0 for g in pull(k, v)]
    for seen in influence:
      np.testing.assert_array_equal(seen, PAIRS[1] == PAIRS[1, t])


def test_dropout_falls_on_the_weights(qkv):
  q, k, v = qkv
  seed = jnp.uint32(7)
  got = attend(q, k, v, jnp.asarray(PAIRS), NUMBERS, rate=.25, seed=seed)
  numbers = np.asarray(NUMBERS)[:, None, :, None] * H + np.arange(H)[:, None, None]
  kept = np.asarray(keep_mask(jnp.asarray(numbers, jnp.uint32), T, .25, seed))
  want = np.einsum('BHTS,BSHK->BTHK', weights_of(q, k, PAIRS) * kept / .75, np.asarray(v, np.float64))
  np.testing.assert_allclose(got, want, atol=2e-6)
  arguments = q, k, v, jnp.asarray(PAIRS), NUMBERS
  np.testing.assert_array_equal(attend(*arguments, rate=.25), attend(*arguments))


def test_softmax_of_bfloat16_is_in_float32(qkv):
  """Scores whose difference bfloat16 cannot hold at their size still weigh differently."""
  one = jnp.ones((1, 2, 1, 256), jnp.bfloat16)
  k = one.at[0, 1, 0, 0].set(2.)  # scores 16 and 16.0625
  v = jnp.stack([jnp.zeros(256), jnp.ones(256)])[None, :, None].astype(jnp.bfloat16)
  got = float(attend(one, k, v, jnp.ones((1, 2), jnp.int32), NUMBERS[:1, :2])[0, 0, 0, 0])
  assert got == pytest.approx(1 / (1 + np.exp(-1 / 16)), abs=.004) and got > .51


@pytest.fixture(scope='module')
def kernel_case():
  """Rows of one register's length: padding, two pairs, heads of 64, several of them a program."""
  pairs = np.where(np.arange(128) < 50, 1, np.where(np.arange(128) < 100, 2, 0)).astype(np.int32)
  arrays = [jax.random.normal(key, (2, 128, 4, 64)) for key in jax.random.split(jax.random.key(1), 4)]
  numbers = jnp.arange(1000, 1256, dtype=jnp.uint32).reshape(2, 128)
  return arrays, jnp.asarray(np.stack([pairs, np.ones_like(pairs)])), numbers


@pytest.mark.parametrize('direction, rate', [(0, .1), (1, 0.), (-1, .1)])
def test_the_kernel_for_tpu_is_the_reference_in_value_and_gradient(kernel_case, direction, rate):
  """The same dropout mask too; 2e-6 in float32."""
  (q, k, v, g), pairs, numbers = kernel_case

  def run(implementation):
    of = lambda *qkv: attend(*qkv, pairs, numbers, rate=rate, seed=jnp.uint32(3_000_000_007), direction=direction,
                             implementation=implementation)
    result, pull = jax.vjp(of, q, k, v)
    return result, *pull(g)
  with pltpu.force_tpu_interpret_mode():
    got = run('pallas')
  for x, y in zip(got, run('xla')):
    np.testing.assert_allclose(x, y, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['bfloat16', 'float32'])
def test_a_layer_by_the_kernel_for_tpu_passes_the_test_that_each_run_makes(dtype, monkeypatch):
  """Without remat, which does not go together with this interpreter."""
  model = cfg.Model(vocab_size=64, hidden_size=128, layers=1, heads=2, intermediate_size=256, max_positions=128,
                    dtype=dtype, remat='none')
  monkeypatch.setattr(selftest, 'LEAST_TOKENS', 0)
  selftest.value_and_gradient.cache_clear()
  with pltpu.force_tpu_interpret_mode():
    report = selftest.run(model, Place('tpu'), [128])
  selftest.value_and_gradient.cache_clear()
  assert not report.failures and len(report.findings) > 80


def test_the_kernel_on_a_share_of_the_heads_drops_as_on_all(kernel_case):
  (q, k, v, _), pairs, numbers = kernel_case
  # No other axis: the interpreter calls back, and the compiler lets no callback be within axes that are not all manual.
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ('tensor',), axis_types=(jax.sharding.AxisType.Auto,))
  of = lambda *arrays: attend(*arrays, rate=.1, seed=jnp.uint32(7), implementation='pallas')
  with pltpu.force_tpu_interpret_mode(), jax.set_mesh(mesh):
    got = jax.jit(of)(q, k, v, pairs, numbers)
  np.testing.assert_allclose(got, attend(q, k, v, pairs, numbers, rate=.1, seed=jnp.uint32(7)), atol=2e-6)


def test_the_kernel_is_chosen_for_what_it_can_do():
  model, cpu, gpu, tpu = cfg.Model(dtype='bfloat16'), Place('cpu'), Place('gpu'), Place('tpu')
  assert choose_implementation(model, tpu, 512) == choose_implementation(model, tpu, 128) == 'pallas'
  assert [choose_implementation(model, *place) for place in ((cpu, 128), (tpu, 100), (tpu, 2048))] == ['xla'] * 3
  assert choose_implementation(model, Place('tpu', tensor=2), 128) == 'xla'
  with pytest.raises(cfg.ConfigError, match='--model.attention auto'):
    choose_implementation(dataclasses.replace(model, attention='pallas'), cpu, 128)
  split = Place('gpu', tensor=2)  # heads over devices, for which ours is not made
  assert choose_implementation(model, split, 128) == 'xla'  # dropout, which the library's kernel does not draw
  assert choose_implementation(dataclasses.replace(model, attention_dropout=0.), split, 128) == 'cudnn'
  with pytest.raises(cfg.ConfigError, match='no attention dropout'):
    choose_implementation(dataclasses.replace(model, attention='cudnn'), gpu, 128)
  for tokens, width, head_width in ((128, 768, 64), (512, 1024, 64), (512, 128, 64), (256, 384, 96)):
    columns = pallas_attention.block_width(tokens, width, head_width)
    assert width % columns == 0 and columns % 128 == 0 and columns % head_width == 0


def test_attention_is_chosen_for_each_row_length_of_one_model(monkeypatch):
  """One encoder that stands on a TPU: rows of 128 and 512 go through the kernel, those of 2,048 are too long for it."""
  model = recipes.model_of(1, 128, vocab_size=64, max_positions=2048)
  encoder = build.describe(model, {}, Place('tpu'))[0]
  params = build.describe(model, {})[1]
  seen = []
  attend = lambda q, *_, implementation, **others: seen.append((q.shape[1], implementation)) or q
  monkeypatch.setattr(encoder_lib, 'attend', attend)
  for length in (128, 512, 2048):
    batch = synthetic.batch(64, 1, length, 4)
    jax.eval_shape(lambda params, batch: nnx.merge(encoder, params).encoder(batch), params, batch)
  assert set(seen) == {(128, 'pallas'), (512, 'pallas'), (2048, 'xla')}


def test_two_phases_of_one_run_attend_as_their_rows_want():
  config = recipes.recipe('base')
  config = dataclasses.replace(config, model=dataclasses.replace(config.model, max_positions=2048),
                               long=dataclasses.replace(config.long, sequence_length=2048, predictions=307))
  found = [phase.config for phase in phases.phases(config)]
  assert [choose_implementation(of.model, Place('tpu'), of.batch.sequence_length) for of in found] == ['pallas', 'xla']


@pytest.mark.parametrize('direction', [1, -1])
def test_a_causal_token_sees_itself_and_those_on_one_side_in_its_pair(qkv, direction):
  q, k, v = qkv
  for t in range(T):
    def out(k, v, t=t):
      return attend(q, k, v, jnp.asarray(PAIRS), NUMBERS, direction=direction)[1, t].sum()

    pull = jax.grad(out, (0, 1))
    of_k, of_v = (np.abs(g[1]).sum((1, 2)) > 0 for g in pull(k, v))
    seen = (PAIRS[1] == PAIRS[1, t]) & ((np.arange(T) <= t) if direction > 0 else (np.arange(T) >= t))
    np.testing.assert_array_equal(of_v, seen)
    assert not of_k[~seen].any()


@pytest.mark.parametrize('direction', [0, 1, -1])
def test_the_library_sees_the_same_tokens(qkv, direction):
  """All but cuDNN itself, which runs on NVIDIA GPUs alone: its call with jax.nn's own implementation."""
  arguments = (*qkv, jnp.asarray(PAIRS), NUMBERS)
  got = attend_cudnn(*arguments, 0., None, direction, implementation='xla')
  np.testing.assert_allclose(got, attend(*arguments, direction=direction), atol=2e-6)

"""The kernels for NVIDIA GPUs, by Pallas' interpreter: value and gradient are plain JAX's, and nothing leaks."""

import dataclasses
import functools
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import pallas as pl

from bert_jax import choices, config as cfg, optimizer, program, selftest, synthetic
from bert_jax.config import ConfigError, Model
from bert_jax.model import build, encoder, triton, triton_activation, triton_attention, triton_norm, triton_sums
from bert_jax.model.attention import Place, attend, choose_implementation, elsewhere
from bert_jax.model.dropout import dropout
from bert_jax.model.layers import ACTIVATIONS, activate, normalize_plainly

SEED = jnp.uint32(3_000_000_007)
GPU = Place('gpu')
BESIDE = selftest.BESIDE


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
  selftest.value_and_gradient.cache_clear()
  monkeypatch.setattr(pl, 'pallas_call', functools.partial(pl.pallas_call, interpret=True))
  monkeypatch.setattr(selftest, 'LEAST_TOKENS', 0)  # as few as there can be: the interpreter is slow
  monkeypatch.setattr(selftest, 'BESIDE', {})
  yield
  selftest.value_and_gradient.cache_clear()


def pairs_of(B: int, T: int, seed: int) -> np.ndarray:
  """Rows of up to four pairs and padding, a row that is full, and one of padding alone."""
  rng = np.random.default_rng(seed)
  rows = np.ones((B, T), np.int32)
  for row in rows[:-2]:
    cuts = np.sort(rng.choice(np.arange(1, T), 4, replace=False))
    row[:] = (np.searchsorted(cuts, np.arange(T), side='right') + 1) % 5
  rows[-1] = 0
  return rows


def summed(vector, *count):
  """The rows of sums whose gradient is the vector's."""
  return triton_sums.rows_of((vector,), (count,))[0]


def both(T, K, direction, rate, pairs, H=2):
  """(kernel's, plain JAX's): value and the gradients of queries, keys and values."""
  B = len(pairs)
  q, k, v, g = (jax.random.normal(key, (B, T, H, K)) for key in jax.random.split(jax.random.key(1), 4))
  numbers = jnp.arange(1000, 1000 + B * T, dtype=jnp.uint32).reshape(B, T)

  def run(implementation, *qkv):
    of = lambda *qkv: attend(*qkv, jnp.asarray(pairs), numbers, rate=rate, seed=SEED, direction=direction,
                             implementation=implementation)
    result, pull = jax.vjp(of, *qkv)
    return result, *pull(g)
  return [jax.jit(functools.partial(run, implementation))(q, k, v) for implementation in ('triton', 'xla')]


@pytest.mark.parametrize('T, K, direction, rate, step', [
    (64, 64, 0, .1, 64), (64, 16, 0, 0., 16), (48, 24, 1, .2, 16), (128, 32, -1, .1, 32), (96, 64, 0, .5, 32)])
def test_attention(monkeypatch, T, K, direction, rate, step):
  """One block a row and several, blocks of other pairs among them; heads that fill no power of 2."""
  if step < T:
    monkeypatch.setattr(triton_attention, 'WHOLE', 0)
    blocks = triton_attention.Blocks(2 * step, step, 4, 2)
    monkeypatch.setattr(triton_attention, 'FORWARD', blocks)
    monkeypatch.setattr(triton_attention, 'BACKWARD', dataclasses.replace(blocks, own=step))
  for got, want in zip(*both(T, K, direction, rate, pairs_of(4, T, T))):
    np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize('T, K', [(512, 64), (2048, 128), (384, 80)])
def test_attention_of_long_rows(T, K):
  for got, want in zip(*both(T, K, 0, .1, pairs_of(3, T, T), H=1)):
    np.testing.assert_allclose(got, want, atol=4e-6)


@pytest.mark.parametrize('own, step', [(16, 16), (32, 16), (16, 32)])
def test_only_blocks_of_the_own_pairs_are_walked_through(own, step):
  """The range of a block covers all that its tokens see, and of contiguous pairs nothing else."""
  pairs = pairs_of(6, 96, own)
  found = np.asarray(triton_attention.ranges(jnp.asarray(pairs), own))
  for b, i in itertools.product(range(len(pairs)), range(96 // own)):
    seen = np.flatnonzero(np.isin(pairs[b], pairs[b, i * own:(i + 1) * own]))
    assert (found[b, i] == (seen[0], seen[-1] + 1)).all()


def test_the_bounds_of_large_blocks_are_those_of_the_small_ones_in_them():
  pairs = jnp.asarray(pairs_of(6, 256, 0))
  found = triton_attention.bounds(pairs, 64, 2)
  assert [len(of[0]) for of in found] == [2, 4]
  for of, size in zip(found, (128, 64)):
    np.testing.assert_array_equal(of, triton_attention.ranges(pairs, size))


def test_biases_count_as_if_they_had_been_added():
  """The keys' bias has no influence, as each query's scores move by one number."""
  B, T, H, K = 2, 32, 2, 16
  pairs, rate = jnp.asarray(pairs_of(B + 1, T, 3)[:B]), .2
  qkv, g = jax.random.normal(jax.random.key(0), (B, T, 3, H, K)), jax.random.normal(jax.random.key(1), (B, T, H, K))
  bias = jax.random.normal(jax.random.key(2), (3, H, K))
  numbers = jnp.arange(B * T, dtype=jnp.uint32).reshape(B, T)

  def ours(qkv, bias):
    sums = summed(bias, *triton_attention.backward_programs(B, T, K, 4))
    return triton_attention.attention(qkv, bias, sums, pairs, numbers, triton_attention.bounds(pairs, K, 4),
                                      jnp.stack([SEED, SEED + 1]), 1, rate, 0)

  def plain(qkv, bias):
    q, k, v = ((qkv + bias[None, None])[:, :, i] for i in range(3))
    return attend(q, k, v, pairs, numbers, rate=rate, seed=SEED + 1)

  for of, tolerance in ((lambda f: f(qkv, bias), 2e-6), (lambda f: jax.vjp(f, qkv, bias)[1](g)[0], 4e-6),
                        (lambda f: jax.vjp(f, qkv, bias)[1](g)[1], 1e-5)):
    np.testing.assert_allclose(of(jax.jit(ours)), of(jax.jit(plain)), atol=tolerance)


@pytest.mark.parametrize('D, rate', [(48, .1), (64, 0.)])
def test_what_follows_a_product(D, rate):
  """The same masks as dropout's; both results get a gradient."""
  N = 24
  h, x, g, more = (jax.random.normal(key, (N, D)) for key in jax.random.split(jax.random.key(0), 4))
  vectors, numbers = jax.random.normal(jax.random.key(5), (3, D)), jnp.arange(7, 7 + N, dtype=jnp.uint32)
  seeds = jnp.stack([SEED + 1, SEED])

  def plain(h, x, vectors):
    dropped = dropout(h + vectors[0][None], numbers[:, None], rate, SEED)
    y = normalize_plainly(dropped + x, 1e-12, 'float32') * vectors[1][None] + vectors[2][None]
    return y, y

  def ours(h, x, vectors):
    sums = summed(vectors, triton_norm.backward_programs(N))
    return triton_norm.add_norm(h, x, vectors, sums, numbers, seeds, 1, rate, 1e-12)

  (got, pull), (want, pull_plain) = (jax.vjp(f, h, x, vectors) for f in (ours, plain))
  for a, b in zip((*got, *pull((g, more))), (*want, *pull_plain((g, more)))):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize('activation, N, D, F, blocks', [
    ('gelu', 64, 32, 96, 16), ('gelu_tanh', 48, 48, 64, 32), ('gelu', 32, 16, 16, 128)])
def test_feed_forward(monkeypatch, activation, N, D, F, blocks):
  """Of several blocks along each axis, or one; in 32 bits it is plain JAX's, in 16 as near to it as plain JAX is."""
  for name in ('FORWARD', 'BACKWARD'):
    small = dataclasses.replace(getattr(triton_activation, name), rows=blocks, columns=blocks, step=16)
    monkeypatch.setattr(triton_activation, name, small)
  keys = jax.random.split(jax.random.key(0), 5)
  arrays = [jax.random.normal(key, shape) * shape[0]**-.5 ** (len(shape) - 1) for key, shape in zip(
      keys, ((N, D), (D, F), (F,), (F, D), (N, D)))]
  arrays[0] = arrays[0] * N**.5

  def both(f, dtype):
    *given, g = (array.astype(dtype) for array in arrays)
    value, pull = jax.vjp(f, *given)
    return [np.asarray(x, np.float64) for x in (value, *pull(g))]

  def ours(x, first, bias, second):
    return triton_activation.feed_forward(x, first, bias, summed(bias, triton_activation.backward_programs(N)), second,
                                          activation)

  plain = lambda x, first, bias, second: activate(activation, x @ first + bias[None]) @ second
  exact = both(lambda x, first, bias, second: ACTIVATIONS[activation](x @ first + bias[None]) @ second, 'float32')
  for got, want in zip(both(ours, 'float32'), exact):
    np.testing.assert_allclose(got, want, atol=2e-6 * np.abs(want).max())
  for got, theirs, want in zip(both(ours, 'bfloat16'), both(plain, 'bfloat16'), exact):
    off = lambda mine, want=want: np.linalg.norm(mine - want) / np.linalg.norm(want)
    assert off(got) < 1.2 * off(theirs) + 2**-10


def test_widths_that_no_block_divides_are_left_to_the_compiler():
  assert triton_activation.supported(48, 768, 3072) and triton_activation.supported(16, 1024, 4096)
  assert not triton_activation.supported(48, 24, 96) and not triton_activation.supported(48, 32, 72)


@pytest.mark.parametrize('shapes, counts', [
    (((512, 3, 100), (7, 64), (64, 2, 5)), ((512,), (7,), (64, 2))), (((130, 64), (1, 65)), ((130,), (1,))),
    (((3, 7),), ((3,),))])
def test_rows_of_sums_are_added_up(shapes, counts):
  """Of several vectors at once; more rows than a step takes, fewer, one; columns that fill no program."""
  rows = [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]
  vectors = tuple(jnp.ones(shape[len(count):], jnp.float32) for shape, count in zip(shapes, counts))
  zeros, pull = jax.vjp(lambda vectors: triton_sums.rows_of(vectors, counts), vectors)
  assert [x.shape for x in zeros] == list(shapes) and not any(map(np.any, zeros))
  for got, given, count in zip(pull(tuple(rows))[0], rows, counts):
    np.testing.assert_allclose(got, np.asarray(given, np.float64).sum(axis=tuple(range(len(count)))), atol=2e-5)


def test_gradients_in_few_kernels_are_the_same_and_so_is_their_norm():
  random = np.random.default_rng(0)
  shapes = (), (3,), (2, 700), (400, 400), (3, 300, 200), (1 << 18,)
  tree = {str(shape): random.normal(size=shape).astype(np.float32) for shape in shapes}
  want = np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in tree.values()))
  norm, same = jax.jit(optimizer.in_few_kernels)(tree)
  np.testing.assert_allclose(norm, want, rtol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, same, tree)
  large = {'one': tree[str((400, 400))]}
  np.testing.assert_allclose(optimizer.in_few_kernels(large)[0], np.linalg.norm(large['one']), rtol=1e-6)


def small(**changes) -> Model:
  usual = dict(vocab_size=64, hidden_size=32, layers=2, heads=2, intermediate_size=64, max_positions=64)
  return Model(**usual | changes)


@pytest.mark.parametrize('dtype, changes', [
    ('bfloat16', {}), *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ('float32', {}), ('float32', {'causal': True}),
        ('bfloat16', {'hidden_dropout': 0., 'attention_dropout': 0.})))])
def test_a_layer_by_the_kernels_passes_the_test_that_each_run_makes(dtype, changes):
  report = selftest.run(small(dtype=dtype, attention='triton', **changes), GPU, [32])
  assert not report.failures and len(report.findings) > 30
  counted = [item for item in report.findings if item.what in selftest.COUNTED]
  assert len(counted) == 4 and not any(item.error for item in counted)


@pytest.mark.parametrize('T, seeds, changes', [
    (32, 3, {}), *(pytest.param(T, 25, changes, marks=pytest.mark.slow) for T, changes in (
        (64, {'hidden_size': 96, 'heads': 3, 'intermediate_size': 192, 'causal': True}),
        (16, {'hidden_size': 24, 'heads': 1, 'intermediate_size': 48, 'hidden_dropout': 0., 'attention_dropout': 0.}),
        (32, {'hidden_size': 24, 'heads': 3, 'intermediate_size': 48, 'hidden_dropout': .3, 'attention_dropout': 0.}),
        (48, {'hidden_size': 32, 'heads': 1, 'activation': 'gelu_tanh', 'attention_dropout': .3})))])
def test_no_seed_is_a_false_alarm(monkeypatch, T, seeds, changes):
  """Of narrow models, whose few numbers round least evenly: parameters, rows, dropout and gradients drawn again."""
  model = small(**{'dtype': 'bfloat16', 'attention': 'triton'} | changes)
  if seeds > 3:
    monkeypatch.setattr(selftest, 'BESIDE', BESIDE)
  for seed in range(seeds):
    found = list(selftest.findings(model, GPU, T, seed=seed))
    assert found and all(item.passed for item in found), [item.text() for item in found if not item.passed]


@pytest.mark.parametrize('off, passes', [('rounding', True), ('longer', False), ('other', False)])
def test_what_is_longer_by_2_percent_is_no_rounding(off, passes):
  """A scale that is slightly wrong hides among the rounding of 16 bits, but for its direction."""
  rng = np.random.default_rng(0)
  true = rng.normal(size=(4, 256)).astype(np.float32)
  noise = lambda size: true + size * rng.normal(size=true.shape).astype(np.float32)
  mine = {'rounding': noise(.012), 'longer': noise(.004) * np.float32(1.02), 'other': true[::-1]}[off]
  sides = [(found, {'scale': found}) for found in (mine, noise(.004), true)]
  found = list(selftest.compared(32, 'packed', 'bfloat16', *sides))
  assert len(found) == 4 and all(item.passed == passes for item in found if 'length' in item.what or off == 'rounding')


def test_no_parameter_can_be_left_out_unseen():
  """No bias is 0 and no scale 1, and scores differ: a kernel that forgets one of them gives another result."""
  params = selftest.parameters(small(), jax.random.key(0))
  for leaf in jax.tree.leaves(params):
    assert not np.isin(leaf, (0, 1)).any() and np.std(leaf) > .1


@pytest.mark.parametrize('error', [NotImplementedError, TypeError, LookupError])
def test_a_kernel_that_cannot_be_compiled_is_told(monkeypatch, error):
  def refuse(*_, **__):
    raise error('no such chip')
  monkeypatch.setattr(triton_norm.pl, 'pallas_call', refuse)
  report = selftest.run(small(dtype='bfloat16', attention='triton'), GPU, [32])
  assert report.failures == [f'{error.__name__}: no such chip']


def test_a_kernel_that_reads_nothing_does_not_pass():
  """Where a changed token changes nothing at all, no pair is shown to be apart from others."""
  batch, nothing = synthetic.batch(64, 2, 32, 1, pairs=2), lambda ids: np.ones((2, 32, 4))
  assert selftest.leaks(batch, 64, nothing) == 2 * 256
  assert selftest.unseen(batch, small(), nothing, np.random.default_rng(0)) == 2 * 4


@pytest.mark.parametrize('causal, right_to_left', [(False, False), (True, False), (True, True)])
def test_who_is_seen_and_who_is_not(causal, right_to_left):
  """By a stand-in for attention, whose output is the mean of all that a token sees; with one key more or less."""
  batch, at = synthetic.batch(64, 2, 48, 1, pairs=3, shortest=.6, seed=3), np.arange(48)
  model = small(causal=causal, right_to_left=right_to_left)
  pairs = batch['pair_ids']
  sees = (pairs[:, :, None] == pairs[:, None]) & ((at[:, None] - at[None]) * model.direction >= 0)

  def found(mask):
    values = np.sin(np.arange(64 * 8).reshape(64, 8)) + 2
    hidden = lambda ids: values[ids] + mask.astype(float) @ values[ids] / np.maximum(mask.sum(-1), 1)[..., None]
    return selftest.leaks(batch, 64, hidden), selftest.unseen(batch, model, hidden, np.random.default_rng(0))

  assert found(sees) == (0, 0)
  for row, column in itertools.product((4, 20, 40), (5, 18, 46)):
    more = sees.copy()
    more[0, row, column] = True
    assert (found(more)[0] > 0) == (pairs[0, row] != pairs[0, column])
  for key in (0, 15, 16, 31, 32, 47):
    less = sees & ((at[None] != key) | (at[:, None] == key))[None]
    lost = (sees & ~less & (pairs > 0)[:, None]).sum(axis=(1, 2)).max() >= selftest.LEAST_SEEN
    assert (found(less)[1] > 0) == lost


def test_who_failed_is_not_chosen_again_when_a_run_is_evaluated():
  assert [elsewhere(name) for name in ('xla', 'auto', 'triton', 'pallas', 'cudnn')] == ['xla', *['auto'] * 4]
  config = cfg.Config(model=small(attention='xla'), batch=cfg.BatchConfig(size=2, sequence_length=32, predictions=4))
  assert program.on_one_device(config).model.attention == 'xla'


def test_where_the_kernel_is_chosen(monkeypatch):
  model = Model(dtype='bfloat16')
  assert choose_implementation(model, GPU, 128) == choose_implementation(model, GPU, 16) == 'triton'
  assert choose_implementation(model, GPU, 100) == 'xla'
  assert choose_implementation(dataclasses.replace(model, dtype='float32'), GPU, 128) == 'xla'
  assert choose_implementation(dataclasses.replace(model, dtype='float32', attention='triton'), GPU, 128) == 'triton'
  assert choose_implementation(model, Place('gpu', tensor=2), 128) == 'xla'
  monkeypatch.setattr(triton, 'AVAILABLE', False)
  assert choose_implementation(model, GPU, 128) == 'xla'
  with pytest.raises(ConfigError, match='triton an NVIDIA GPU'):
    choose_implementation(dataclasses.replace(model, attention='triton'), Place('tpu'), 128)


@pytest.mark.parametrize('left, fails', [(0, True), pytest.param(None, False, marks=pytest.mark.slow)])
def test_a_run_whose_kernels_fail_attends_in_plain_jax_or_ends_where_that_does_not_fit(monkeypatch, left, fails):
  """One warning, and the setting that it went on with; on good kernels one line."""
  config = cfg.Config(model=small(dtype='bfloat16'), batch=cfg.BatchConfig(size=2, sequence_length=32, predictions=4))
  card = types.SimpleNamespace(platform='gpu', device_kind='a card')
  mesh = types.SimpleNamespace(devices=np.array([card]), shape={'tensor': 1})
  same, lines = selftest.proven(config, mesh, [32])
  assert same is config and len(lines) == 1 and 'comparisons of our kernels with plain JAX passed' in lines[0]
  selftest.value_and_gradient.cache_clear()
  real = triton_attention.weights_and_slopes
  monkeypatch.setattr(triton_attention, 'weights_and_slopes', lambda *arrays: [x * 1.05 for x in real(*arrays)])
  monkeypatch.setattr(choices, 'spare_bytes', lambda config, _: left if config.model.attention == 'xla' else 1)
  with pytest.warns(UserWarning, match='this run attends in plain JAX'):
    if fails:
      with pytest.raises(ConfigError, match=r'without it the step does not fit into a device: set --run\.microbatches'):
        selftest.proven(config, mesh, [32])
    else:
      config, lines = selftest.proven(config, mesh, [32])
      assert config.model.attention == 'xla' and not lines


def test_the_layers_of_another_architecture_are_its_own_on_a_gpu_too(monkeypatch):
  """Their attention goes through the kernel; what else they do is not left out."""
  class Twice(encoder.Block):
    def __call__(self, x, *others):
      return 2 * super().__call__(x, *others)

  class TwiceEncoder(encoder.BertEncoder):
    block = staticmethod(lambda settings, rngs: Twice(settings, rngs))

  monkeypatch.setitem(encoder.ENCODERS, 'twice', TwiceEncoder)
  batch = {key: jnp.asarray(value) for key, value in synthetic.batch(64, 2, 32, 1, pairs=2, shortest=.5).items()}
  model = small(dtype='float32', architecture='twice')
  params = build.build(model, {}, jax.random.key(0))[1]
  graphdefs = (build.describe(dataclasses.replace(model, attention=name), {}, GPU)[0] for name in ('triton', 'xla'))
  got, want = (nnx.merge(graphdef, params).encoder(batch) for graphdef in graphdefs)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_workaround_that_is_left_out_leaves_out_the_fused_layers(monkeypatch):
  """`model.plain` is about what these do in one kernel: it must not be taken and ignored."""
  def refuse(*_):
    raise AssertionError('a fused layer')
  monkeypatch.setattr(encoder.triton_layer, 'apply', refuse)
  batch = {key: jnp.asarray(value) for key, value in synthetic.batch(64, 1, 32, 1).items()}

  def run(**changes):
    graphdef, params, _ = build.describe(small(dtype='float32', attention='triton', **changes), {}, GPU)
    return jax.eval_shape(lambda params: nnx.merge(graphdef, params).encoder(batch), params)

  assert run(plain=('normalize',)).shape == (1, 32, 32)
  with pytest.raises(AssertionError, match='a fused layer'):
    run()

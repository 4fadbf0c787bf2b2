"""The encoder: published sizes, initial values, padding, pairs, both uses of the table, dropout, recomputation."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bert_jax import config as cfg, objectives, synthetic
from bert_jax.model import attention, build as build_lib, encoder as encoder_lib, layers
from bert_jax.objectives import PRETRAINING_HEADS
from bert_jax.parallel import mesh

BASE, LARGE = cfg.Model(), cfg.Model(hidden_size=1024, layers=24, heads=16, intermediate_size=4096)


def build(config, seed=0):
  make = jax.jit(lambda key: build_lib.build(config, PRETRAINING_HEADS, key)[1])
  return build_graph(config), make(jax.random.key(seed))


def build_graph(config):
  return build_lib.describe(config, PRETRAINING_HEADS)[0]


def named(params):
  return {mesh.path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}


@pytest.mark.parametrize('config, with_heads, without', [
    (BASE, 110_106_428, 109_482_240), (LARGE, 336_226_108, 335_141_888),
    (dataclasses.replace(BASE, vocab_size=28996), None, 108_310_272),
    (dataclasses.replace(BASE, vocab_size=21_128), None, 102_267_648),
    (dataclasses.replace(BASE, vocab_size=119_547), None, 177_853_440)])
def test_published_parameter_counts(config, with_heads, without):
  params = build_lib.describe(config, PRETRAINING_HEADS)[1]
  assert with_heads in (None, build_lib.parameter_count(params))
  heads = ('masked_tokens', 'pair_classes')
  assert sum(x.size for name, x in named(params).items() if not name.startswith(heads)) == without


def test_initial_values():
  _, params = build(cfg.Model(vocab_size=2000, hidden_size=128, layers=2, heads=2, intermediate_size=256))
  for name, x in named(params).items():
    x = np.asarray(x)
    assert x.dtype == np.float32, name
    if name.endswith(('kernel', 'embedding')):
      count = x.size
      assert np.abs(x).max() <= .04 + 1e-8, name  # cut at two sigma ...
      assert abs(x.std() / (.02 * .8796) - 1) < 4 / math.sqrt(count), name  # ... without making up for it
      assert abs(x.mean()) < 4 * .02 / math.sqrt(count), name
    else:
      assert (x == (1 if name.endswith('scale') else 0)).all(), name
  parts = ('query', 'key', 'value', 'attention_output')
  draws = [np.asarray(params['encoder']['blocks'][part]['kernel'][layer]) for part in parts for layer in (0, 1)]
  for i, a in enumerate(draws):
    assert all(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < .05 for b in draws[:i])



@pytest.mark.parametrize('heads', [2, 4])
def test_neighbour_heads_begin_by_looking_at_neighbours_and_all_else_at_random(heads):
  model = cfg.Model(vocab_size=50, hidden_size=128, layers=2, heads=heads, intermediate_size=256, neighbour_heads=2,
                    initializer_range=.08)
  _, params = build(model)
  encoder = params['encoder']
  ids = np.random.default_rng(0).integers(0, 50, 60)
  x = encoder['word_embeddings']['embedding'][ids] + encoder['position_embeddings']['embedding'][100:160]
  x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
  of_heads = lambda part: (x @ encoder['blocks'][part]['kernel'][0]).reshape(60, heads, -1)
  scores = jnp.einsum('THK,SHK->HTS', of_heads('query'), of_heads('key')) * (heads / 128)**.5
  weights = jax.nn.softmax(scores)
  for head, distance in ((0, -1), (1, 1)):
    assert jnp.diagonal(weights[head], distance).mean() > .9
  assert all(jnp.diagonal(weights[head], distance).mean() < .1 for head in range(2, heads) for distance in (-1, 0, 1))
  _, plain = build(dataclasses.replace(model, neighbour_heads=0))
  changed = {name for name, x in named(params).items() if (named(plain)[name] != x).any()}
  assert changed == {'encoder/position_embeddings/embedding', *(f'encoder/blocks/{part}/kernel' for part in
                                                                ('query', 'key'))}
  for part in ('query', 'key'):  # the second layer, and the other heads
    a, b = (tree['encoder']['blocks'][part]['kernel'] for tree in (params, plain))
    assert (a[1] == b[1]).all() and (a[0, :, 256 // heads:] == b[0, :, 256 // heads:]).all()

def test_layer_norm_has_the_epsilon_of_bert():
  norm = layers.LayerMaker(dataclasses.replace(BASE, dtype='float32'), nnx.Rngs(0)).norm
  x = jax.random.normal(jax.random.key(0), (4, 768)) * 1e-5 + 1.
  np.testing.assert_allclose(norm()(x).std(-1), 1, atol=.02)  # a variance of 1e-10; a fast variance would lose it
  np.testing.assert_allclose(norm()(1e-3 * x).std(-1), .01, atol=.002)  # one of 1e-16: sqrt(1e-16 / 1e-12)


def test_activations():
  xs = np.linspace(-6, 6, 101)
  exact = [x * .5 * (1 + math.erf(x / math.sqrt(2))) for x in xs]
  tanh = [x * .5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + .044715 * x**3))) for x in xs]
  np.testing.assert_allclose(layers.ACTIVATIONS['gelu'](jnp.asarray(xs, jnp.float32)), exact, atol=2e-6)
  np.testing.assert_allclose(layers.ACTIVATIONS['gelu_tanh'](jnp.asarray(xs, jnp.float32)), tanh, atol=2e-6)
  assert np.abs(np.subtract(exact, tanh)).max() > 1e-4


@pytest.mark.parametrize('terms', [layers.ORIGINAL, layers.NEAR_EXACT])
def test_the_gradient_by_hand_is_that_of_the_formula(terms):
  formula = lambda x: x * (0.5 + 0.5 * jnp.tanh(x * sum(
      term * jnp.minimum(x * x, 40)**power for power, term in enumerate(terms))))
  xs = jnp.asarray([*np.linspace(-7, 7, 997), -3e38, -1e20, 0, 1e20, 3e38], jnp.float32)
  by_hand, derived = (jax.vmap(jax.grad(f))(xs) for f in (lambda x: layers.gelu_by_tanh(x, terms), formula))
  np.testing.assert_allclose(by_hand[:-5], derived[:-5], atol=2e-6)  # float32 rounds each term
  np.testing.assert_array_equal(by_hand[-5:], [0, 0, .5, 1, 1])


def test_in_16_bits_the_exact_activation_is_within_what_they_round():
  numbers = (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)  # all of bfloat16
  xs = numbers[np.isfinite(numbers) & (np.abs(numbers) > 1e-30)].astype(float)
  exact = np.array([x * .5 * (1 + math.erf(x / math.sqrt(2))) for x in xs])
  off, near = np.abs(np.asarray(layers.NARROW['gelu'](jnp.asarray(xs, jnp.float32))) - exact), np.abs(xs) < 3
  assert off[xs < 30].max() < 6.3e-5 and (off[near] / np.abs(exact[near])).max() < 2.0**-9 / 3
  narrow = layers.activate('gelu', jnp.asarray(xs, jnp.bfloat16))
  assert narrow.dtype == jnp.bfloat16
  narrow = np.asarray(narrow.astype(jnp.float32))
  np.testing.assert_allclose(narrow, exact, rtol=2.0**-8, atol=6.3e-5)
  assert layers.activate('gelu', jnp.float32(-3.9)) == layers.gelu(jnp.float32(-3.9))


def test_bias_gradient_is_the_sum_of_rows():
  x, bias, g = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(5, 7), (7,), (5, 7)]))
  y, pull = jax.vjp(layers.add_bias, x, bias)
  np.testing.assert_allclose(y, x + bias[None])
  np.testing.assert_array_equal(pull(g)[0], g)
  np.testing.assert_allclose(pull(g)[1], g.sum(0), atol=1e-6)


@pytest.fixture(scope='module')
def setup(still):
  """(graphdef, params, padded batch, encode(params, batch) -> hidden)."""
  graphdef, params = build(still.model)
  batch = synthetic.batch(64, 4, 16, 4, seed=1, shortest=.4)
  assert (batch['pair_ids'] == 0).any()
  return graphdef, params, batch, jax.jit(lambda params, batch: nnx.merge(graphdef, params).encoder(batch))


def test_padding_has_no_influence(setup):
  _, params, batch, encode = setup
  real = batch['pair_ids'] > 0
  change = lambda name, value: np.where(real, batch[name], value).astype(np.int32)
  values = {'input_ids': 33, 'token_type_ids': 1, 'position_ids': 15}
  other = batch | {name: change(name, value) for name, value in values.items()}
  a, b = np.asarray(encode(params, batch)), np.asarray(encode(params, other))
  np.testing.assert_array_equal(a[real], b[real])
  assert (a[~real] != b[~real]).any()


def test_padding_has_no_gradient(setup):
  graphdef, params, batch, _ = setup
  real = batch['pair_ids'] > 0
  batch = batch | {'input_ids': np.where(real, np.maximum(batch['input_ids'], 6), 5).astype(np.int32),
                   'position_ids': np.where(real, np.minimum(batch['position_ids'], 14), 15).astype(np.int32)}

  @jax.jit
  @jax.grad
  def grad(params):
    model = nnx.merge(graphdef, params)
    hidden = model.encoder(batch)
    noise = jax.random.normal(jax.random.key(3), hidden.shape) * real[..., None]
    return (hidden * noise).sum() + model.pooler(hidden, batch['cls_positions']).sum()

  grads = grad(params)
  words, positions = (grads['encoder'][f'{kind}_embeddings']['embedding'] for kind in ('word', 'position'))
  assert not np.any(words[5]) and not np.any(positions[15])
  for table, name in ((words, 'input_ids'), (positions, 'position_ids')):
    assert np.abs(table).sum(1)[np.unique(batch[name][real])].min() > 0


@pytest.mark.parametrize('name, limit', [('input_ids', 64), ('token_type_ids', 2), ('position_ids', 16)])
def test_words_segments_and_positions_matter_to_every_token_of_the_pair(setup, name, limit):
  _, params, batch, encode = setup
  other = batch[name].copy()
  other[:, 2] = (other[:, 2] + 1) % limit
  changed = np.abs(np.asarray(encode(params, batch) - encode(params, batch | {name: other}))).max(-1) > 0
  np.testing.assert_array_equal(changed, batch['pair_ids'] > 0)


def test_predictions_are_at_masked_positions_alone_and_tied_to_the_table(setup):
  graphdef, params, batch, _ = setup
  hidden = jax.random.normal(jax.random.key(0), (4, 16, 16))

  @jax.jit
  def predict(params, hidden):
    model = nnx.merge(graphdef, params)
    mlm = model.masked_tokens(hidden, batch['masked_lm_positions'], model.encoder.word_embeddings)
    return mlm, model.pair_classes(model.pooler(hidden, batch['cls_positions']))
  mlm, nsp = predict(params, hidden)
  assert mlm.shape == (16, 64) and nsp.shape == (4, 1, 2)
  used = np.zeros((4, 16, 1), bool)
  np.put_along_axis(used, batch['masked_lm_positions'][..., None], True, axis=1)
  np.testing.assert_array_equal(mlm, predict(params, jnp.where(used, hidden, 9.))[0])
  table = params['encoder']['word_embeddings']['embedding']
  other = jax.tree.map(lambda x: x, params)
  other['encoder']['word_embeddings']['embedding'] = table.at[11].add(1.)
  changed = np.abs(predict(other, hidden)[0] - mlm).max(0) > 0
  assert np.flatnonzero(changed).tolist() == [11]


@pytest.fixture(scope='module')
def gradients(tiny):
  """config changes -> (loss, gradients) of one batch with dropout, from the same parameters."""
  params = build(tiny.model)[1]
  batch = synthetic.batch(64, 4, 16, 4, pairs=2, seed=1)

  @functools.cache
  def of(**changes):
    graphdef = build_graph(dataclasses.replace(tiny.model, **changes))

    @jax.jit
    @jax.value_and_grad
    def grad(params, key):
      objective = objectives.OBJECTIVES['mlm_nsp']
      sums, _ = objectives.term_sums(objective, nnx.merge(graphdef, params), batch, key)
      return objectives.loss_of(sums, objectives.totals(objective, batch))
    return grad(params, jax.random.key(0))
  return of


def test_recomputing_and_unrolling_change_no_gradient(gradients):
  """With dropout on: what is computed again draws the same masks."""
  loss, grads = gradients()
  for changes in ({'remat': 'full'}, {'remat': 'none', 'unroll': 2}):
    other_loss, others = gradients(**changes)
    assert float(loss) == pytest.approx(float(other_loss), abs=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, others)
  assert all(np.any(x) for name, x in named(grads).items() if 'key/bias' not in name)  # a key's bias moves no softmax


def test_bfloat16_keeps_float32_parameters_and_a_close_loss(gradients):
  (loss, _), (narrow, grads) = gradients(), gradients(dtype='bfloat16')
  assert float(loss) != float(narrow) and float(loss) == pytest.approx(float(narrow), abs=.02)
  assert narrow.dtype == jnp.float32 and all(x.dtype == jnp.float32 for x in jax.tree.leaves(grads))


def test_every_place_of_dropout_has_its_own_seed(tiny, monkeypatch):
  model = nnx.merge(*build(dataclasses.replace(tiny.model, remat='none')))
  batch = synthetic.batch(64, 2, 16, 4)
  drawn = []
  record = lambda x, numbers, rate, seed: drawn.append((rate, seed)) or x
  monkeypatch.setattr(encoder_lib, 'dropout', record)
  monkeypatch.setattr(attention, 'dropout', record)
  with jax.disable_jit():  # the scan as a loop of known numbers
    model.encoder(batch, jax.random.key(0))
    model.encoder(batch, jax.random.key(1))
    places, seeds = len(drawn) // 2, {int(seed) for _, seed in drawn}
    drawn.clear()
    model.encoder(batch)
  assert places == 1 + 3 * tiny.model.layers and len(seeds) == 2 * places
  assert [seed for _, seed in drawn] == [None] * places


def test_dropout_is_on_where_there_is_a_seed(tiny, setup):
  graphdef, (_, params, batch, plain) = build_graph(tiny.model), setup
  encode = jax.jit(lambda params, seed: nnx.merge(graphdef, params).encoder(batch, seed))
  a, b, c = (encode(params, key) for key in (None, jax.random.key(0), jax.random.key(1)))
  np.testing.assert_allclose(a, plain(params, batch), atol=1e-6)
  assert np.abs(a - b).max() > .1 and np.abs(b - c).max() > .1

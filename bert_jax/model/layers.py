"""The layers that encoder and heads are made of: products with a bias, LayerNorm, embedding tables, activations.

B rows, T tokens, N = B T tokens of all rows, P positions of a row, D and E widths, V rows of a table, L layers.

Every parameter is made by `parameter`, with its logical axes. Some gradients are written by hand, because a compiler
does badly what it derives: docs/performance.md says which, what each gains, and how `model.plain` turns it off.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from bert_jax.model.lookup import by_platform, take_rows
from bert_jax.parallel.mesh import Logical

BIAS_ROWS = 8  # of ones: XLA turns a product with a single row back into a sum


def gelu(x):
  """Exact GELU; jax.nn.gelu goes through erfc, which costs five times as much on CPU."""
  return x * 0.5 * (1 + jax.lax.erf(x * np.asarray(2**-0.5, x.dtype)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gelu_by_tanh(x, terms):
  """x (1/2 + 1/2 tanh(x p(x^2))), where `terms` are the coefficients of p, of x^2 to the power 0, 1 …"""
  return x * (0.5 + 0.5 * jnp.tanh(x * _polynomial(_square(x), terms)))


def gelu_and_slope(x, terms):
  """(`gelu_by_tanh`, its derivative) by hand: what JAX derives evaluates more terms, which counts where the vector unit
  decides (TPU v6e, 7x)."""
  square = _square(x)
  t = jnp.tanh(x * _polynomial(square, terms))
  slope = _polynomial(square, [(2 * power + 1) * term for power, term in enumerate(terms)])
  return x * (0.5 + 0.5 * t), 0.5 + 0.5 * t + 0.5 * x * (1 - t * t) * slope


# The error function of 32 bits as a quotient of polynomials of x^2, the highest power first, where |x| is at most ENDS:
# XLA's own (openxla/xla, xla/hlo/builder/lib/math.cc Erf32), for kernels that it does not compile.
ENDS = 3.832506856900711
ABOVE = 0.00022905065861350646, 0.0034082910107109506, 0.050955695062380861, 0.18520832239976145, 1.128379143519084
BELOW = (-1.1791602954361697e-7, 0.000023547966471313185, 0.0010179625278914885, 0.014070470171167667,
         0.11098505178285362, 0.49746925110067538, 1.0)


def exact_gelu_and_slope(x):  # float32
  """(`gelu`, its derivative)"""
  z = jnp.clip(x * 2**-0.5, -ENDS, ENDS)
  whole = 0.5 + 0.5 * z * (_polynomial(z * z, ABOVE[::-1]) / _polynomial(z * z, BELOW[::-1]))
  return x * whole, whole + x * jnp.exp(x * x * -0.5) * (2 * np.pi)**-0.5


def value_and_slope(activation: str, x, dtype):
  """(`activate`, its derivative) of x in float32, for a result in `dtype`: what kernels for GPUs read."""
  exact = jnp.dtype(dtype).itemsize > 2 and activation == 'gelu'
  return exact_gelu_and_slope(x) if exact else gelu_and_slope(x, TERMS[activation])


gelu_by_tanh.defvjp(lambda x, terms: (gelu_by_tanh(x, terms), x),
                    lambda terms, x, g: (g * gelu_and_slope(x, terms)[1],))


def _square(x):
  """x^2, at most 40: from there on tanh is 1, and a polynomial of more would turn."""
  return jnp.minimum(x * x, 40)


def _polynomial(x, terms):
  total = terms[-1]
  for term in reversed(terms[:-1]):
    total = total * x + term
  return total


# google-research/bert modeling.py gelu; and one that is within 6.2e-5 of the exact GELU: where |x| < 3, within a third
# of what 16 bits round.
ORIGINAL, NEAR_EXACT = ((2 / np.pi)**0.5, 0.044715 * (2 / np.pi)**0.5), (0.797143, 0.0373293328, -0.000394503801)
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    'gelu_tanh': lambda x: gelu_by_tanh(x, ORIGINAL), 'gelu': gelu}
TERMS = {'gelu_tanh': ORIGINAL, 'gelu': NEAR_EXACT}  # of each in 16 bits
NARROW: dict[str, Callable[[jax.Array], jax.Array]] = {  # of values of 16 bits
    'gelu': lambda x: gelu_by_tanh(x, NEAR_EXACT)}
# What `model.plain` can turn off, each a workaround for a compiler.
WORKAROUNDS = ('normalize', 'product', 'add_bias', 'lookup', 'one_of_each')


def wide(dtype):
  """What sums, scores and statistics are computed in: float32, or float64 where a proof asks for it."""
  return jnp.promote_types(dtype, jnp.float32)


def activate(activation: str, x):
  """The activation, evaluated in float32 whatever its input is in; of 16 bits by what is as exact there, and cheap."""
  function = NARROW.get(activation, ACTIVATIONS[activation]) if x.dtype.itemsize == 2 else ACTIVATIONS[activation]
  return function(x.astype(wide(x.dtype))).astype(x.dtype)


def parameter(value: jax.Array, *axes: str | None, dtype='float32') -> nnx.Param:
  """A parameter with a logical axis (or None) for each of its own: parallel/mesh.py lays it out by them.

  `dtype`: what the layer's products read it in; it is sent between devices so, and kept in float32. Raises ValueError.
  """
  if len(axes) != value.ndim:
    raise ValueError(
        f'a parameter of shape {value.shape} was given the logical axes {axes}: wanted one for each of its own')
  return nnx.Param(value, logical=Logical(axes, jnp.dtype(dtype).name))


def stacked(make, count: int, rngs: nnx.Rngs):
  """`count` layers made by make(rngs) as one module of stacks [L ...] of parameters; each is initialised by itself."""
  stack = jax.vmap(make)(rngs.split(count))
  for variable in jax.tree.leaves(stack, is_leaf=lambda leaf: isinstance(leaf, nnx.Param)):
    logical = variable.get_metadata().get('logical')
    if logical is not None:  # what was made without axes is refused by its name: build.describe
      variable.set_metadata(logical=dataclasses.replace(logical, axes=('layers', *logical.axes)))
  return stack


def normalize_plainly(x, epsilon, dtype):  # [... D] float32 -> [... D] dtype
  """(x - mean) / standard deviation, statistics in the type of x."""
  return _normalize(x, epsilon, dtype)[0]


normalize = jax.custom_vjp(normalize_plainly, nondiff_argnums=(1, 2))
# Its backward pass needs the result, rounded to `dtype`, and one number a row. What JAX derives (jax 0.10.2) keeps x in
# float32, 4 bytes an element more, and reads it twice. The gain on TPU is not measured by itself; on CPU there is none
# beyond the noise. `bert-jax plan large --topology v5e:16x16 --batch-per-chip 32 --sequence-length 512`, with and
# without `--model.plain normalize`, shows its part of the temporaries.


def _normalize(x, epsilon, dtype):
  mean = x.mean(axis=-1, keepdims=True)
  if jnp.dtype(dtype).itemsize == 2:
    # As a difference, so that one pass has both: float32 loses less by it than 16 bits lost of what x is the sum of.
    variance = jnp.maximum(jnp.square(x).mean(axis=-1, keepdims=True) - jnp.square(mean), 0)
  else:
    variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
  scale = jax.lax.rsqrt(variance + epsilon)
  normalized = checkpoint_name(((x - mean) * scale).astype(dtype), 'normalized')
  return normalized, (normalized, checkpoint_name(scale[..., 0], 'scale'))


def _normalize_backward(epsilon, dtype, residuals, g):
  normalized, scale = (r.astype(wide(dtype)) for r in residuals)
  g = g.astype(scale.dtype)
  inner = g - g.mean(axis=-1, keepdims=True) - normalized * (g * normalized).mean(axis=-1, keepdims=True)
  return (inner * scale[..., None],)


normalize.defvjp(_normalize, _normalize_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x, kernel, tag):  # [N D], [D E] -> [N E]
  """x @ kernel. Its backward pass reads x by the name `tag`, the forward pass x itself.

  Where both read the named x, jax.checkpoint (jax 0.10.2) copies it first. The gain is not measured by itself: see
  `bert-jax plan base --topology v5e:4x4 --batch-per-chip 64`, with and without `--model.plain product`.
  """
  return x @ kernel


product.defvjp(lambda x, kernel, tag: (x @ kernel, (checkpoint_name(x, tag), kernel)),
               lambda tag, kept, g: (g @ kept[1].T, kept[0].T @ g))


def add_bias_plainly(x, bias):  # [... V], [V] -> [... V]
  return x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


add_bias = jax.custom_vjp(add_bias_plainly)
# Its gradient adds up the rows by a product with ones. As a sum, XLA (libtpu 0.0.42) reads the gradient once more, at a
# quarter of the memory's rate; that is not measured by itself. On CPU (jaxlib 0.10.2) a sum is slow where rows are
# wide: [640, 30522] takes 78 ms as a sum, 2.5 as a product; no difference for [4096, 1024].
# `bert-jax benchmark step mini --batch.size 32 --model.dtype float32`, with and without `--model.plain add_bias`.


def sum_rows(g):  # [N V] -> [V]
  product = lambda g: (jnp.ones((BIAS_ROWS, len(g)), g.dtype) @ g)[0]
  # There XLA makes one product of several, for which it copies what they read.
  return by_platform(product, product, g, gpu=lambda g: g.sum(axis=0, dtype=wide(g.dtype)).astype(g.dtype))


def _add_bias_backward(_, g):
  return g, sum_rows(g.reshape(-1, g.shape[-1]))


add_bias.defvjp(lambda x, bias: (add_bias_plainly(x, bias), None), _add_bias_backward)


class Linear(nnx.Module):
  """x W + b in `dtype`."""

  def __init__(self, inputs: int, outputs: int, axes: tuple[str | None, str | None], *, dtype, initializer, plain=(),
               rngs: nnx.Rngs):
    self.dtype, self.plain = jnp.dtype(dtype), tuple(plain)
    self.kernel = parameter(initializer(rngs.params(), (inputs, outputs), jnp.float32), *axes, dtype=dtype)
    self.bias = parameter(jnp.zeros((outputs,), jnp.float32), None if axes[1] == 'embed' else axes[1])

  def __call__(self, x, keep: str = ''):  # [... D] -> [... E]
    """`keep`: the name by which a rematerialisation policy is told to keep x [N D]."""
    return self.biased(self.unbiased(x, keep))

  def unbiased(self, x, keep: str = ''):  # [... D] -> [... E]
    """x W"""
    x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
    if keep and 'product' in self.plain:
      x = checkpoint_name(x, keep)
    return product(x, kernel, keep) if keep and 'product' not in self.plain else x @ kernel

  def biased(self, y):  # [... E] -> [... E]
    """y + b"""
    return (add_bias_plainly if 'add_bias' in self.plain else add_bias)(y, self.bias[...].astype(self.dtype))


class LayerNorm(nnx.Module):
  """arXiv:1607.06450; statistics in float32."""

  def __init__(self, width: int, epsilon: float, dtype, plain=()):
    self.epsilon, self.dtype, self.plain = epsilon, jnp.dtype(dtype), tuple(plain)
    self.scale = parameter(jnp.ones((width,), jnp.float32), None)
    self.bias = parameter(jnp.zeros((width,), jnp.float32), None)

  def __call__(self, x, residual=None):  # [... D] -> [... D]
    x = x.astype(wide(self.dtype))
    x = x if residual is None else x + residual.astype(x.dtype)
    x = (normalize_plainly if 'normalize' in self.plain else normalize)(x, self.epsilon, self.dtype)
    across = (1,) * (x.ndim - 1) + (-1,)
    return (x * self.scale[...].reshape(across) + self.bias[...].reshape(across)).astype(self.dtype)


class Embedding(nnx.Module):
  """A table of vectors."""

  def __init__(self, size: int, width: int, *, dtype, initializer, plain=(), rngs: nnx.Rngs):
    self.dtype, self.plain = jnp.dtype(dtype), tuple(plain)
    # 30,522 rows divide by nothing: the width is shared out.
    self.embedding = parameter(initializer(rngs.params(), (size, width), jnp.float32), None, 'embed', dtype=dtype)

  def table(self):  # -> [V D]
    return self.embedding[...].astype(self.dtype)

  def __call__(self, ids):  # [B T] -> [N D]
    ids = jnp.asarray(ids).reshape(-1)
    return self.table()[ids] if 'lookup' in self.plain else take_rows(self.table(), ids)


def at_positions(x, positions, plain=()):  # [B T D], [B P] -> [B P D]
  """The vectors at these positions of each row."""
  take = (lambda row, at: row[at]) if 'lookup' in plain else take_rows
  return jax.vmap(take)(x, jnp.asarray(positions))


class LayerMaker:
  """The kinds of layer of one model, initialised as BERT's are: linear, norm, embedding."""

  def __init__(self, settings, rngs: nnx.Rngs):
    # cut at two sigma, as tf.truncated_normal_initializer (modeling.py create_initializer)
    normal = jax.nn.initializers.truncated_normal(settings.initializer_range)
    shared = dict(dtype=settings.computes_in, initializer=normal, plain=settings.plain, rngs=rngs)
    self.linear: Callable[..., Linear] = functools.partial(Linear, **shared)
    self.norm: Callable[..., LayerNorm] = functools.partial(
        LayerNorm, settings.hidden_size, settings.layer_norm_epsilon, settings.computes_in, settings.plain)
    self.embedding: Callable[..., Embedding] = functools.partial(Embedding, width=settings.hidden_size, **shared)

"""Self-attention inside each pair of a row: one signature, several implementations.

B rows, T tokens, H heads, K head width.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from bert_jax.errors import require
from bert_jax.model import pallas_attention, triton_attention
from bert_jax.model.dropout import dropout
from bert_jax.model.layers import wide
from bert_jax.parallel.mesh import per_head_group


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a program will run, as far as that decides how it attends."""
  platform: str = 'cpu'  # of its devices: 'cpu', 'gpu' or 'tpu'
  tensor: int = 1  # devices that share out the heads: the mesh axis of that name


ONE_CPU = Place()  # where nothing else is said: plain JAX, which runs everywhere


def is_seen(T: int, direction: int) -> jax.Array:  # -> [T T] bool
  """Which tokens each one sees: in `direction` 1 those up to itself, -1 those from itself on."""
  return (jnp.arange(T)[:, None] - jnp.arange(T)[None]) * direction >= 0


def weigh(q, k, pair_ids, direction):  # [B T H K] x 2, [B T] -> [B H T T]
  """The attention weights: softmax(q k' / sqrt K) over the tokens that are seen; scores and softmax in float32."""
  scores = jnp.einsum('BTHK,BSHK->BHTS', q, k, preferred_element_type=wide(q.dtype)) * q.shape[-1]**-0.5
  same = pair_ids[:, None, :, None] == pair_ids[:, None, None, :]  # [B 1 T S]
  if direction:
    same &= is_seen(q.shape[1], direction)[None, None]
  return jax.nn.softmax(jnp.where(same, scores, -1e9), axis=-1).astype(q.dtype)


def attend_xla(q, k, v, pair_ids, token_numbers, rate, seed, direction):
  """Attention in plain JAX. [B T H K] x 3, [B T] -> [B T H K]"""
  H = q.shape[2]
  weights = checkpoint_name(weigh(q, k, pair_ids, direction), 'weights')
  heads = jnp.arange(H, dtype=jnp.uint32)[None, :, None, None]
  of_weights = token_numbers[:, None, :, None] * jnp.uint32(H) + heads  # [B H T 1]
  return jnp.einsum('BHTS,BSHK->BTHK', dropout(weights, of_weights, rate, seed), v)


def attend_pallas(q, k, v, pair_ids, token_numbers, rate, seed, direction):
  """The kernel for TPU, on each device's own heads."""
  rate, seed = (0.0, jnp.zeros((), jnp.uint32)) if seed is None else (rate, seed)
  kernel = functools.partial(pallas_attention.attend_heads, rate=rate, direction=direction, all_heads=q.shape[2])
  return per_head_group(kernel, heads=3)(q, k, v, pair_ids, token_numbers, seed)


def attend_cudnn(q, k, v, pair_ids, token_numbers, rate, seed, direction, implementation='cudnn'):
  """NVIDIA's fused kernel, as jax.nn offers it: without dropout, in 16 bits."""
  del token_numbers, seed, rate  # `choose_implementation` refuses dropout
  same = pair_ids[:, None, :, None] == pair_ids[:, None, None, :]
  if direction < 0:  # the library knows only the other one
    same &= is_seen(q.shape[1], direction)[None, None]
  return jax.nn.dot_product_attention(q, k, v, mask=same, is_causal=direction > 0, implementation=implementation)


IMPLEMENTATIONS = {  # auto: `choose_implementation` decides
    'xla': attend_xla, 'pallas': attend_pallas, 'triton': triton_attention.attend, 'cudnn': attend_cudnn,
    'auto': attend_xla}


def choose_implementation(settings, place: Place, tokens: int) -> str:
  """The implementation for rows of `tokens`, of the model `settings` (settings.Model), at that place.

  Raises ConfigError. libtpu 0.0.42's partitioner aborts on the kernel where heads are shared out.
  """
  width, gpu = settings.hidden_size // settings.heads, place.platform in ('gpu', 'cuda')
  fits = {
      'pallas': (place.platform == 'tpu' and place.tensor == 1
                 and pallas_attention.supported(tokens, settings.heads, width)),
      'triton': gpu and place.tensor == 1 and triton_attention.supported(tokens, width),
      'cudnn': (gpu and settings.attention_dropout == 0 and settings.computes_in == 'bfloat16' and tokens % 64 == 0)}
  if settings.attention == 'auto':  # float32 is faster by XLA's products, which round to 19 bits on their way
    slow = ('triton',) if settings.computes_in != 'bfloat16' else ()
    return next((name for name, fit in fits.items() if fit and name not in slow), 'xla')
  found = (f'{place.platform}, rows of {tokens} tokens, attention dropout {settings.attention_dropout}, '
           f'{settings.computes_in}, mesh.tensor {place.tensor}')
  wanted = (f'pallas wants TPU, a multiple of {pallas_attention.LANES} tokens, at most {pallas_attention.LONGEST}, and '
            f'mesh.tensor 1; triton an NVIDIA GPU, a multiple of {triton_attention.LEAST} tokens, heads of at most '
            f'{triton_attention.WIDEST}, and mesh.tensor 1; cudnn an NVIDIA GPU, a multiple of 64, no attention '
            'dropout, and bfloat16')
  require(fits.get(settings.attention, True),
          f'model.attention {settings.attention!r} is not for {found}: {wanted}; set --model.attention auto')
  return settings.attention


def elsewhere(name: str) -> str:
  """The setting for what reads a run's model, maybe on another chip: plain JAX stays, as a kernel may have failed."""
  return name if name == 'xla' else 'auto'


def attend(q: jax.Array, k: jax.Array, v: jax.Array, pair_ids: jax.Array, token_numbers: jax.Array, *,
           rate: float = 0.0, seed: jax.Array | None = None, direction: int = 0,
           implementation: str = 'xla') -> jax.Array:
  """softmax(q k' / sqrt K) v over the tokens that have the same pair id. [B T H K] x 3, [B T] x 2 -> [B T H K]

  Padding (pair id 0) attends only to padding, so it has no influence on any token, nor they on it. `direction`: 1,
  nothing is seen of later tokens; -1, of earlier ones. Dropout of `rate` falls on the attention weights where `seed`
  is given (google-research/bert modeling.py attention_layer), by the tokens' `token_numbers` (uint32).
  """
  return IMPLEMENTATIONS[implementation](q, k, v, pair_ids, token_numbers, rate, seed, direction)

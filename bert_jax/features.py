"""What the layers make of texts: states of tokens as BERT's extract_features.py writes them, or vectors of whole texts.

B rows, T tokens, t tokens of one text, N tokens of all texts, D hidden, n texts.
"""

import dataclasses
import functools
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.errors import require
from bert_jax.model import build
from bert_jax.model.heads import Pooler
from bert_jax.rows import BATCH_ROWS, WINDOW_TOKENS, Output, Pace, Placed, Row, Text, in_batches, windows

LAST_LAYERS = 4  # extract_features.py --layers -1,-2,-3,-4
HELD = 1 << 26  # numbers of token states that are held at a time: 256 MB
DECIMALS = 6  # extract_features.py


@dataclasses.dataclass(frozen=True)
class Features:
  """What is made of one text."""
  tokens: list[str]  # [t], with [CLS] and [SEP]
  layers: dict[int, np.ndarray]  # by the layer's number as it was asked for: float32 [t D]; pooled, [D]


def mean_of_tokens(model, hidden, batch):  # [B T D], {[B T]} -> [B D]
  real = (batch['pair_ids'] > 0).astype(hidden.dtype)[..., None]
  return (hidden * real).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1)


def pooler_of_first(model, hidden, batch):  # [B T D], {[B T]} -> [B D]
  return model.pooler(hidden, jnp.zeros((len(hidden), 1), jnp.int32))[:, 0]


# By name: (model, hidden states [B T D], batch) -> what is returned of each text, and the heads that this reads.
POOLING: dict[str, tuple[Callable[..., jax.Array], build.Heads]] = {
    'mean': (mean_of_tokens, {}), 'cls': (lambda model, hidden, batch: hidden[:, 0], {}),
    'pooled': (pooler_of_first, {'pooler': Pooler}),
    'none': (lambda model, hidden, batch: hidden, {})}


@functools.cache
def states(layers: tuple[int, ...], pooling: str) -> Output:
  """The states of these layers, pooled: a tuple of float32 [B D], or [B T D], one for each."""
  pool, heads = POOLING[pooling]

  def of(model, batch):
    every = model.encoder(batch, every_layer=True) if layers != (-1,) else model.encoder(batch)[None]
    return tuple(pool(model, every[layer].astype(jnp.float32), batch).astype(jnp.float32) for layer in layers)

  return Output(of, tuple(heads.items()))


def features(encoders: Sequence[Placed], texts: Iterable[Text], layers: Sequence[int] | None = None,
             pooling: str = 'none', *, batch_size: int = BATCH_ROWS, truncate: bool = False,
             progress: bool = False) -> Iterator[Features]:
  """Of each text, or pair of texts, its tokens and the states of `layers`, in their order; texts may be endless.

  `encoders`: of several, the states of a layer are joined, those of the first one in front. They must have the same
  tokenizer. `layers`: -1 is the last one; by default the last four, or of pooled vectors the last one. `pooling`: a key
  of POOLING; 'pooled' is of the last layer. Raises ConfigError, DataError.
  """
  wanted = check(encoders, layers, pooling)
  width = sum(encoder.settings.hidden_size for encoder in encoders) * len(wanted)
  most = HELD // width if pooling == 'none' else WINDOW_TOKENS
  tokenizer = encoders[0].tokenizer
  limited = min(encoders, key=lambda encoder: encoder.settings.max_positions)
  with in_batches(batch_size, progress, 'text') as pace:
    of_others = dataclasses.replace(pace, done=lambda more: None)  # a text is done once
    for window in windows(limited.rows(texts, truncate), lambda row: len(row[0]), most):
      found = [of_rows(encoder, window, wanted, pooling, pace if encoder is encoders[-1] else of_others)
               for encoder in encoders]
      for (ids, _), *parts in zip(window, *found):
        joined = (np.concatenate(part, axis=-1) if len(part) > 1 else part[0] for part in zip(*parts))
        yield Features([tokenizer.tokens[i] for i in ids], dict(zip(wanted, joined)))


def of_rows(encoder: Placed, rows: Sequence[Row], layers: tuple[int, ...], pooling: str,
            pace: Pace) -> list[tuple[np.ndarray, ...]]:  # -> [t D] or [D] each
  """The states of `layers` for each row, without those of padding."""
  found = encoder.in_order(states(layers, pooling), rows, pace)
  if pooling != 'none':
    return found
  return [tuple(part[:len(ids)].copy() for part in parts) for (ids, _), parts in zip(rows, found)]


def check(encoders: Sequence[Placed], layers: Sequence[int] | None, pooling: str) -> tuple[int, ...]:
  """The layers that are wanted. Raises ConfigError where these encoders have them not, or cannot be joined."""
  require(pooling in POOLING, f'pooling is {pooling!r}: wanted one of {", ".join(POOLING)}')
  least = min(encoder.settings.layers for encoder in encoders)
  if layers is None:
    layers = tuple(-number for number in range(1, 1 + (min(LAST_LAYERS, least) if pooling == 'none' else 1)))
  for layer in layers:
    require(-least <= layer < least,
            f'layers has {layer}, and the encoder has {least} layers: wanted -1, the last, to {-least}')
  require(len(layers) > 0, 'layers is empty: wanted one at least, such as -1, the last')
  require(len(set(layers)) == len(layers), f'layers is {", ".join(map(str, layers))}: wanted each once')
  require(pooling != 'pooled' or tuple(layers) == (-1,),
          "pooling 'pooled' is made of the last layer: wanted layers -1, or pooling 'cls' or 'mean'")
  for encoder in encoders:
    check_heads(encoder, POOLING[pooling][1])
    require(encoder.tokenizer.sha256 == encoders[0].tokenizer.sha256
            and encoder.tokenizer.lower_case == encoders[0].tokenizer.lower_case
            and encoder.tokenizer.rules == encoders[0].tokenizer.rules,
            'the encoders to join have different tokenizers: wanted two that were trained on the same data')
  return tuple(layers)


def check_heads(encoder: Placed, heads: build.Heads) -> None:
  """Raises ConfigError where a head that pooling reads is not there or was not trained."""
  for head in heads:
    require(encoder.has(head), (
        f'this run did not train its {head}' if head in encoder.loaded.untrained() else
        f'this checkpoint has no {head}') + ": use pooling 'cls' or 'mean'")

# ---------------------------------------------------------------- files


def json_line(number: int, found: Features) -> str:
  """One line as extract_features.py writes it; of a pooled text `layers` stand where it has `features`."""
  layers = {layer: np.round(values.astype(np.float64), DECIMALS).tolist() for layer, values in found.layers.items()}
  if next(iter(found.layers.values())).ndim == 1:
    rest: dict = {'layers': [{'index': layer, 'values': values} for layer, values in layers.items()]}
  else:
    rest = {'features': [
        {'token': token, 'layers': [{'index': layer, 'values': values[i]} for layer, values in layers.items()]}
        for i, token in enumerate(found.tokens)]}
  return json.dumps({'linex_index': number} | rest, ensure_ascii=False)


def check_file(kind: str, layers: Sequence[int] | None, pooling: str) -> None:
  """Raises ConfigError where a file of this ending cannot hold what `features` gives of these."""
  require(kind != '.npy' or pooling != 'none' and len(layers or (-1,)) == 1, 'a .npy file holds one array: wanted '
          '--pooling and one of --layers, or .npz or .safetensors')


def arrays(found: Sequence[Features]) -> dict[str, np.ndarray]:
  """{'layer_-1': [n D]}, float32; of token states [N D], with 'offsets' [n + 1] int64: where each text begins in N."""
  layers = found[0].layers if found else {}
  if all(values.ndim == 1 for values in layers.values()):
    return {f'layer_{layer}': np.stack([one.layers[layer] for one in found]) for layer in layers}
  offsets = np.cumsum([0, *(len(one.tokens) for one in found)], dtype=np.int64)
  return {f'layer_{layer}': np.concatenate([one.layers[layer] for one in found]) for layer in layers} | {
      'offsets': offsets}


def as_npy(found: Sequence[Features]) -> bytes:
  """One array, of pooled texts and one layer. Raises ConfigError for any other."""
  named = arrays(found)
  require(len(named) == 1, f'a .npy file holds one array, and these features are {len(named)}: wanted pooled texts of '
          'one layer, or .npz or .safetensors')
  file = io.BytesIO()
  np.save(file, next(iter(named.values())))
  return file.getvalue()


def as_npz(found: Sequence[Features]) -> bytes:
  file = io.BytesIO()
  np.savez(file, **arrays(found))  # type: ignore[arg-type]
  return file.getvalue()


def as_safetensors(found: Sequence[Features]) -> bytes:
  from safetensors import numpy
  return numpy.save(arrays(found))


# By a file's ending: the bytes of all features at once.
FILES: dict[str, Callable[[Sequence[Features]], bytes]] = {
    '.npy': as_npy, '.npz': as_npz, '.safetensors': as_safetensors}

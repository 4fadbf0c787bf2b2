"""A checkpoint as what turns texts into vectors: what `bert_jax.load` returns.

B rows, T tokens, t tokens of one text, D hidden, n texts.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec as P

from bert_jax import checkpoint, fill_mask as fill
from bert_jax.convert import exchange
from bert_jax.errors import require
from bert_jax.fill_mask import Candidates, rounded_up, short
from bert_jax.model import build
from bert_jax.model.attention import Place
from bert_jax.model.heads import Pooler
from bert_jax.model.settings import Model
from bert_jax.parallel import mesh as mesh_lib
from bert_jax.tasks.sentences import truncate_pair
from input_pipeline import storage
from input_pipeline.vocabulary.tokenizer import Tokenizer

SHORTEST = 16  # the least that T is rounded up to: one compilation serves many texts
Text = str | tuple[str, str]  # a pair is [CLS] A [SEP] B [SEP]


def load(path: storage.PathLike, *, dtype: Literal['float32', 'bfloat16'] = 'float32',
         devices: Sequence[jax.Device] | None = None,
         mesh: jax.sharding.Mesh | None = None) -> 'TextEncoder':
  """The encoder of a checkpoint: a run directory, one of its steps (RUN/checkpoints/STEP), or a Hugging Face directory
  of a BERT.

  `dtype`: what it computes in; parameters stay float32. `devices`, or all those of `mesh`: rows are shared out over
  them, and each holds all parameters; by default the first device of this process.

  Raises ConfigError where `path` is no checkpoint or the devices cannot be used, DataError where its files are damaged
  or are of no BERT, CheckpointError where a run's arrays cannot be read.
  """
  require(devices is None or mesh is None, 'both devices and mesh were given: wanted one of them')
  chosen = list(mesh.devices.flat if mesh is not None else jax.local_devices()[:1] if devices is None else devices)
  require(bool(chosen) and all(device.process_index == jax.process_index() for device in chosen),
          f'{len(chosen)} devices were given, wanted one at least, all of this process: jax.local_devices()')
  loaded = exchange.load(path)
  rows = mesh_lib.make_mesh(mesh_lib.MeshShape(data=-1), chosen)
  params = jax.device_put(dict(loaded.params), NamedSharding(rows, P()))
  # How it was trained is not how it is used.
  settings = dataclasses.replace(loaded.model, dtype=dtype, attention='auto')
  return TextEncoder(dataclasses.replace(loaded, model=settings, params=params), rows)


@dataclasses.dataclass(frozen=True, eq=False)
class TextEncoder:
  """Texts to vectors. Made by `load`."""
  loaded: checkpoint.Loaded = dataclasses.field(repr=False)
  mesh: jax.sharding.Mesh

  @property
  def settings(self) -> Model:
    """The model's settings: hidden_size is D, max_positions the longest T."""
    return self.loaded.model

  @property
  def params(self) -> dict[str, Any]:
    """The parameters: {'encoder': …, 'pooler': … and other heads}, float32 arrays. What `apply` takes."""
    return self.loaded.params

  @functools.cached_property
  def tokenizer(self) -> Tokenizer:
    """The checkpoint's tokenizer. Raises DataError where it has none, ConfigError where it is not the model's."""
    tokenizer = self.loaded.tokenizer()
    require(len(tokenizer.tokens) == self.settings.vocab_size,
            f'the vocabulary has {len(tokenizer.tokens)} tokens, the model '
            f'{self.settings.vocab_size}: put the vocabulary that it was trained with in the directory')
    return tokenizer

  @functools.cached_property
  def apply(self) -> Callable[[Any, Mapping[str, Any]], jax.Array]:
    """apply(params, batch) -> last hidden states [B T D], in `dtype`: a pure function, for your own jit, vmap or grad.

    `batch` is what `batch` makes, on the host or on devices. Padding has no influence on other tokens; its own states
    mean nothing. Products are as precise as jax.default_matmul_precision says.
    """
    return functools.partial(hidden_states, self.settings, self._place)

  @property
  def _place(self) -> Place:
    return Place(self.mesh.devices.flat[0].platform)

  def ids(self, texts: Sequence[Text],
          truncate: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:  # -> ([t], [t]) int32 of each
    """Token ids of each text with [CLS] and [SEP], and their types: 1 for a second text.

    Raises ConfigError where a text is too long and not `truncate`, which cuts the end of the longer one of a pair.
    """
    tokenizer, limit = self.tokenizer, self.settings.max_positions
    for text in texts:
      two = isinstance(text, list | tuple) and len(text) == 2 and all(isinstance(part, str) for part in text)
      require(isinstance(text, str) or two, f'{text!r} is no text, nor a pair of texts')
    pairs = [(text,) if isinstance(text, str) else text for text in texts]
    require(self.settings.type_vocab_size > 1 or all(len(pair) == 1 for pair in pairs),
            f'this model knows no pairs of texts: its type_vocab_size is {self.settings.type_vocab_size}')
    encoded = iter(tokenizer.encode([part for pair in pairs for part in pair]))
    found = []
    for pair in pairs:
      parts = [list(next(encoded)) for _ in pair]
      around = 1 + len(parts)  # [CLS] and [SEP]s
      used = sum(map(len, parts)) + around
      require(truncate or used <= limit,
              f'{short(pair[0])!r} has {used} tokens with [CLS] and [SEP], and the model takes {limit} '
              '(model.max_positions): shorten it, or pass truncate=True')
      truncate_pair(parts[0], parts[1] if len(parts) == 2 else [], limit - around)
      tokens = [tokenizer.cls_id] + [token for part in parts for token in (*part, tokenizer.sep_id)]
      types = [0] + [number for number, part in enumerate(parts) for _ in range(len(part) + 1)]
      found.append((np.array(tokens, np.int32), np.array(types, np.int32)))
    return found

  def batch(self, texts: Sequence[Text], truncate: bool = False, length: int | None = None) -> dict[str, np.ndarray]:
    """Model inputs of these texts, or pairs of texts: int32 arrays [B T] on the host.

    input_ids, token_type_ids, position_ids, and pair_ids (1: a token, 0: padding). T is `length`, or the longest text's
    rounded up to a power of two. Raises ConfigError where a text is longer than that or than the model takes and not
    `truncate`.
    """
    require(not isinstance(texts, str), 'texts is one text: wanted a sequence of them')
    rows = self.ids(texts, truncate)
    longest = max((len(ids) for ids, _ in rows), default=1)
    T = rounded_up(longest, SHORTEST, self.settings.max_positions) if length is None else length
    require(longest <= T <= self.settings.max_positions, f'length is {T}: wanted {longest}, the longest text\'s, to '
            f'{self.settings.max_positions}, the most that the model takes')
    return self._pad(rows, len(rows), T)

  def _pad(self, rows, B: int, T: int) -> dict[str, np.ndarray]:  # -> {[B T]}
    batch = {name: np.zeros((B, T), np.int32) for name in ('token_type_ids', 'position_ids', 'pair_ids')}
    batch['input_ids'] = np.full((B, T), self.tokenizer.pad_id, np.int32)
    for i, (ids, types) in enumerate(rows):
      batch['input_ids'][i, :len(ids)], batch['token_type_ids'][i, :len(ids)] = ids, types
      batch['position_ids'][i, :len(ids)], batch['pair_ids'][i, :len(ids)] = np.arange(len(ids)), 1
    return batch

  @overload
  def encode(self, texts: Sequence[Text], pooling: Literal['mean', 'cls', 'pooled'] = ..., *, batch_size: int = ...,
             truncate: bool = ..., progress: bool = ...) -> np.ndarray: ...

  @overload
  def encode(self, texts: Sequence[Text], pooling: Literal['none'], *, batch_size: int = ..., truncate: bool = ...,
             progress: bool = ...) -> list[np.ndarray]: ...

  def encode(self, texts: Sequence[Text], pooling: str = 'mean', *, batch_size: int = 32, truncate: bool = False,
             progress: bool = False) -> np.ndarray | list[np.ndarray]:
    """Vectors of texts, or of pairs of texts: float32 [n D]; with pooling 'none' a list of n arrays [t D], with [CLS]
    and [SEP].

    `pooling`: 'mean' of a text's tokens; 'cls', the first token's; 'pooled', the pooler's tanh layer on it; 'none'.
    `truncate`: cut texts that are too long, where they would be an error. `progress`: draw a bar. Texts run sorted by
    length, padded to powers of two: compiled once for each length, and for fewer rows than `batch_size`.

    Raises ConfigError for a text that is too long, an unknown pooling, or a checkpoint whose pooler was not trained.
    """
    require(not isinstance(texts, str), 'texts is one text: wanted a sequence of them')
    require(pooling in POOLING, f'pooling is {pooling!r}: wanted one of {", ".join(POOLING)}')
    require(batch_size >= 1, f'batch_size is {batch_size}: wanted at least 1')
    heads = POOLING[pooling][1]
    self._check_heads(heads)
    params = {name: self.params[name] for name in ('encoder', *heads)}
    rows = self.ids(texts, truncate)
    batches = list(self._batches(rows, batch_size))
    if progress:
      import tqdm
      batches = tqdm.tqdm(batches, unit='batch')
    found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(rows)
    for part, size, length in batches:
      batch = mesh_lib.put_batch(self._pad([rows[i] for i in part], size, length), self.mesh)
      vectors = np.asarray(jax.device_get(pooled_states(self.settings, self.mesh, pooling, params, batch)))
      for i, vector in zip(part, vectors):
        found[i] = vector[:len(rows[i][0])] if pooling == 'none' else vector
    if pooling == 'none':
      return found
    return np.stack(found) if found else np.zeros((0, self.settings.hidden_size), np.float32)

  def _batches(self, rows, batch_size: int):
    """(which texts, rows B, tokens T) of each batch, the shortest texts first."""
    devices = self.mesh.size
    groups: dict[int, list[int]] = {}
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i][0])):
      groups.setdefault(rounded_up(len(rows[i][0]), SHORTEST, self.settings.max_positions), []).append(i)
    for length, members in groups.items():
      size = rounded_up(len(members), 1, batch_size)
      for start in range(0, len(members), size):
        yield members[start:start + size], -(-size // devices) * devices, length

  def _check_heads(self, heads: build.Heads) -> None:
    for head in heads:
      lacking = head not in self.params or any(name.startswith(f'{head}/') for name in self.loaded.fresh)
      require(not lacking, f"this checkpoint has no {head}: use pooling 'cls' or 'mean'")
      require(head not in self.loaded.untrained(),
              f"this run did not train its {head}: use pooling 'cls' or 'mean'")

  @overload
  def fill_mask(self, text: str, top_k: int = ...) -> list[Candidates]: ...

  @overload
  def fill_mask(self, text: list[str] | tuple[str, ...], top_k: int = ...) -> list[list[Candidates]]: ...

  def fill_mask(self, text, top_k=5):
    """For each [MASK] of a text its likeliest tokens, [(token, probability) …]; of several texts a list of these.

    Raises ConfigError where a text has no [MASK] or is too long, or the checkpoint has no trained head for masked
    tokens.
    """
    loaded = dataclasses.replace(self.loaded, tokenizer=lambda: self.tokenizer)
    found = fill.fill_mask(loaded, [text] if isinstance(text, str) else text, top_k)
    return found[0] if isinstance(text, str) else found

# ---------------------------------------------------------------- on a batch


def hidden_states(settings: Model, place: Place, params, batch):  # {[B T]} -> [B T D]
  """The last hidden states, without dropout. Pure: parameters and batch are arguments."""
  graphdef, _, _ = build.describe(settings, {}, place)
  return nnx.merge(graphdef, {'encoder': params['encoder']}).encoder(batch)


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


@functools.partial(jax.jit, static_argnames=('settings', 'mesh', 'pooling'))
def pooled_states(settings: Model, mesh: jax.sharding.Mesh, pooling: str, params,
                  batch):  # {[B T]} -> [B D], or [B T D]
  """What `encode` returns for a batch, in float32: each device works through its own rows."""
  pool, heads = POOLING[pooling]
  graphdef, _, _ = build.describe(settings, heads, Place(mesh.devices.flat[0].platform))

  def local(params, batch):
    model = nnx.merge(graphdef, params)
    with jax.default_matmul_precision(settings.dtype):  # float32 is no TF32 here: who wants speed asks for bfloat16
      return pool(model, model.encoder(batch).astype(jnp.float32), batch).astype(jnp.float32)

  rows = jax.tree.map(lambda x: mesh_lib.spec('batch'), batch)
  return mesh_lib.per_device(local, mesh, (P(), rows), mesh_lib.spec('batch'))(params, batch)

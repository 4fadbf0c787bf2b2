"""A checkpoint in use: texts become rows, rows become batches by length, and results come back in the texts' order.

B rows of a batch, T tokens they are padded to, t tokens of one row, n rows.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec as P

from bert_jax import checkpoint, memory
from bert_jax.errors import require
from bert_jax.model import build
from bert_jax.model.attention import Place, elsewhere
from bert_jax.model.settings import Model
from bert_jax.parallel import mesh as mesh_lib
from bert_jax.tasks.sentences import truncate_pair
from input_pipeline.vocabulary.tokenizer import Tokenizer

BATCH_ROWS = 64  # that run together where nothing else is said
SHORTEST = 16  # the least that T is rounded up to
AHEAD = 2  # batches that are computed while the next is made
TOGETHER = 256  # texts that the tokenizer is given at once
WINDOW_TOKENS = 1 << 18  # of the rows that are held and sorted by length at a time

Text = str | tuple[str, str]  # a pair is [CLS] A [SEP] B [SEP]
Row = tuple[np.ndarray, np.ndarray]  # token ids with [CLS] and [SEP], and their types [t] int32
Item = TypeVar('Item')


@dataclasses.dataclass(frozen=True)
class Output:
  """What is computed of each row, and what it reads: compiled once for each output, model, mesh, and size of batch."""
  of: Callable[[Any, Mapping[str, Any]], Any]
  """(model, batch of one device) -> a tree of arrays [B ...]"""
  heads: tuple[tuple[str, Callable[[Model, nnx.Rngs], nnx.Module]], ...] = ()
  """As in build.Heads, by name."""


@dataclasses.dataclass(frozen=True)
class Pace:
  """How one stream of rows is worked through."""
  batch_size: int
  done: Callable[[int], object]
  """Called with how many more are done."""
  sizes: dict[int, int] = dataclasses.field(default_factory=dict)
  """{T: B} of the batches so far: what was compiled is used again."""


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
  """A checkpoint whose parameters lie on the devices where it is used. Made by `place`."""
  loaded: checkpoint.Loaded = dataclasses.field(repr=False)
  mesh: jax.sharding.Mesh

  @property
  def settings(self) -> Model:
    """The model's settings: hidden_size is D, max_positions the longest T."""
    return self.loaded.model

  @property
  def params(self) -> dict[str, Any]:
    """The parameters: {'encoder': …, 'pooler': … and other heads}, float32 arrays."""
    return self.loaded.params

  @functools.cached_property
  def tokenizer(self) -> Tokenizer:
    """The checkpoint's tokenizer. Raises DataError where it has none, ConfigError where it is not the model's."""
    tokenizer = self.loaded.tokenizer()
    require(len(tokenizer.tokens) == self.settings.vocab_size,
            f'the vocabulary has {len(tokenizer.tokens)} tokens, the model '
            f'{self.settings.vocab_size}: put the vocabulary that it was trained with in the directory')
    return tokenizer

  def ids(self, texts: Sequence[Text], truncate: bool = False) -> list[Row]:
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
    encoded = iter(tokenizer.marked.encode([part for pair in pairs for part in pair]))
    found = []
    for pair in pairs:
      parts = [list(next(encoded)) for _ in pair]
      around = 1 + len(parts)  # [CLS] and [SEP]s
      if not truncate:
        check_length(pair[0], sum(map(len, parts)) + around, limit)
      truncate_pair(parts[0], parts[1] if len(parts) == 2 else [], limit - around)
      tokens = [tokenizer.cls_id] + [token for part in parts for token in (*part, tokenizer.sep_id)]
      types = [0] + [number for number, part in enumerate(parts) for _ in range(len(part) + 1)]
      found.append((np.array(tokens, np.int32), np.array(types, np.int32)))
    return found

  def rows(self, texts: Iterable[Text], truncate: bool = False) -> Iterator[Row]:
    """`ids`, of texts that need not be there all at once."""
    texts = iter(texts)
    while part := list(itertools.islice(texts, TOGETHER)):
      yield from self.ids(part, truncate)

  def pad(self, rows: Sequence[Row], B: int, T: int) -> dict[str, np.ndarray]:  # -> {[B T]}
    """Model inputs of these rows; unused places are padding."""
    batch = {name: np.zeros((B, T), np.int32) for name in ('token_type_ids', 'position_ids', 'pair_ids')}
    batch['input_ids'] = np.full((B, T), self.tokenizer.pad_id, np.int32)
    for i, (ids, types) in enumerate(rows):
      t = len(ids)
      batch['input_ids'][i, :t], batch['token_type_ids'][i, :t], batch['pair_ids'][i, :t] = ids, types, 1
    batch['position_ids'][:] = np.arange(T, dtype=np.int32) * batch['pair_ids']
    return batch

  def has(self, head: str) -> bool:
    """Whether the checkpoint has this head, trained as far as is known."""
    fresh = any(name.startswith(f'{head}/') for name in self.loaded.fresh)
    return head in self.params and not fresh and head not in self.loaded.untrained()

  def run(self, output: Output, lengths: Sequence[int] | np.ndarray, make: Callable[[Sequence[int], int, int], Mapping],
          pace: Pace) -> Iterator[tuple[list[int], Any]]:
    """(numbers of rows, their outputs, a tree of host arrays [rows ...]) of each batch, the shortest rows first.

    `lengths`: of the rows. `make`: (numbers of rows, B, T) -> their batch, a tree of host arrays [B ...].
    """
    params = {name: self.params[name] for name in ('encoder', *(name for name, _ in output.heads))}
    on_devices = lambda batch: mesh_lib.put_batch(batch, self.mesh)
    pending: collections.deque = collections.deque()
    with memory.of_rows(pace.batch_size):
      for members, B, T in self._batches(lengths, pace):
        pending.append((members, outputs(output, self.settings, self.mesh, params, on_devices(make(members, B, T)))))
        if len(pending) > AHEAD:
          yield _fetched(*pending.popleft())
      while pending:
        yield _fetched(*pending.popleft())

  def in_order(self, output: Output, rows: Sequence[Row], pace: Pace) -> list[Any]:  # -> n trees of host arrays
    """The output of each row."""
    found: list[Any] = [None] * len(rows)
    make = lambda members, B, T: self.pad([rows[i] for i in members], B, T)
    for members, results in self.run(output, [len(ids) for ids, _ in rows], make, pace):
      for place, i in enumerate(members):
        found[i] = jax.tree.map(lambda x, place=place: x[place], results)
      pace.done(len(members))
    return found

  def _batches(self, lengths: Sequence[int] | np.ndarray, pace: Pace) -> Iterator[tuple[list[int], int, int]]:
    """(which rows, B, T) of each batch."""
    distinct, which = np.unique(np.asarray(lengths, np.int64), return_inverse=True)
    padded = np.array([padded_length(int(t), self.settings.max_positions) for t in distinct], np.int64)[which]
    devices = self.mesh.size
    for T in np.unique(padded).tolist():
      members = np.flatnonzero(padded == T).tolist()
      size = max(pace.sizes.get(T, 0), rounded_up(len(members), 1, pace.batch_size))
      pace.sizes[T] = size = -(-size // devices) * devices
      for start in range(0, len(members), size):
        yield members[start:start + size], size, T


def place(loaded: checkpoint.Loaded, mesh: jax.sharding.Mesh,
          dtype: Literal['float32', 'bfloat16'] = 'float32') -> Placed:
  """A checkpoint on a mesh whose devices share out rows, each with all parameters. How it was trained is not how it is
  used."""
  params = jax.device_put(dict(loaded.params), NamedSharding(mesh, P()))
  settings = dataclasses.replace(loaded.model, dtype=dtype, attention=elsewhere(loaded.model.attention))
  return Placed(dataclasses.replace(loaded, model=settings, params=params), mesh)


def mesh_of(devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
  """A mesh of these devices for rows; by default of the first of this process."""
  return mesh_lib.make_mesh(mesh_lib.MeshShape(data=-1), jax.local_devices()[:1] if devices is None else devices)


def windows(rows: Iterable[Item], size: Callable[[Item], int], most: int = WINDOW_TOKENS) -> Iterator[list[Item]]:
  """Runs of rows of up to `most` in size together, one row at least: what is held at a time."""
  window: list[Item] = []
  used = 0
  for row in rows:
    if window and used + size(row) > most:
      yield window
      window, used = [], 0
    window.append(row)
    used += size(row)
  if window:
    yield window


@contextlib.contextmanager
def in_batches(batch_size: int, progress: bool, unit: str, total: int | None = None) -> Iterator[Pace]:
  """The pace of one stream; with `progress`, a bar on stderr that counts in `unit`. Raises ConfigError."""
  require(batch_size >= 1, f'batch_size is {batch_size}: wanted at least 1')
  if not progress:
    yield Pace(batch_size, lambda more: None)
    return
  import tqdm
  with tqdm.tqdm(total=total, unit=unit, dynamic_ncols=True) as bar:
    yield Pace(batch_size, bar.update)


def padded_length(tokens: int, most: int) -> int:
  """What rows of so many tokens are padded to: 16, 24, 32, 48, 64, 96 … `most`. A few compilations serve all texts."""
  whole = rounded_up(tokens, SHORTEST, most)
  between = whole * 3 // 4
  return between if SHORTEST < between and tokens <= between else whole


def rounded_up(size: int, least: int, most: int) -> int:
  """The next power of two, between `least` and `most`."""
  return min(max(least, 1 << (size - 1).bit_length()), most)


def check_length(text: str, tokens: int, limit: int) -> None:
  """Raises ConfigError where a text has more tokens than the model takes."""
  require(tokens <= limit, f'{named(text)} has {tokens} tokens with [CLS] and [SEP], and the model takes {limit} '
          '(model.max_positions): shorten it, or truncate where that is offered (--truncate, truncate=True)')


def named(text: str) -> str:
  """The beginning of a text, after its file and line where it knows them (input_pipeline/text/given.py)."""
  place = getattr(text, 'place', '')
  return (f'{place}: ' if place else '') + repr(str(short(text)))


def short(text: str, limit: int = 60) -> str:
  return text if len(text) <= limit else text[:limit - 1] + '…'

# ---------------------------------------------------------------- on a batch


@functools.partial(jax.jit, static_argnames=('output', 'settings', 'mesh'))
def outputs(output: Output, settings: Model, mesh: jax.sharding.Mesh, params, batch):  # {[B ...]} -> tree of [B ...]
  """What `output` is of a batch, without dropout: each device works through its own rows."""
  graphdef, _, _ = build.describe(settings, dict(output.heads), Place(mesh.devices.flat[0].platform))

  def local(params, batch):
    # float32 is no TF32 here: who wants speed asks for bfloat16
    with jax.default_matmul_precision(settings.computes_in):
      return output.of(nnx.merge(graphdef, params), batch)

  rows = jax.tree.map(lambda x: mesh_lib.spec('batch'), batch)
  return mesh_lib.per_device(local, mesh, (P(), rows), mesh_lib.spec('batch'))(params, batch)


def _fetched(members: list[int], found) -> tuple[list[int], Any]:
  return members, jax.tree.map(lambda x: np.asarray(x)[:len(members)], jax.device_get(found))

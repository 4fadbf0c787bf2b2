"""A checkpoint as what turns texts into vectors: what `bert_jax.load` returns.

B rows, T tokens, t tokens of one text, D hidden, n texts.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, overload

import jax
import numpy as np
from flax import nnx

from bert_jax import features as feature, fill_mask as fill, next_sentence as following, rows as row, score as scoring
from bert_jax.convert import exchange
from bert_jax.errors import require
from bert_jax.features import Features
from bert_jax.fill_mask import Candidates
from bert_jax.model import build
from bert_jax.model.attention import Place
from bert_jax.model.settings import Model
from bert_jax.rows import SHORTEST, Placed, Text, rounded_up
from input_pipeline import storage


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
  placed = row.place(exchange.load(path), row.mesh_of(chosen), dtype)
  return TextEncoder(placed.loaded, placed.mesh)


class TextEncoder(Placed):
  """Texts to vectors. Made by `load`."""

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
    return self.pad(rows, len(rows), T)

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
    layers = feature.check([self], (-1,), pooling)
    rows = self.ids(texts, truncate)
    with row.in_batches(batch_size, progress, 'text', len(rows)) as pace:
      found = [vectors for vectors, in feature.of_rows(self, rows, layers, pooling, pace)]
    if pooling == 'none':
      return found
    return np.stack(found) if found else np.zeros((0, self.settings.hidden_size), np.float32)

  def features(self, texts: Iterable[Text], layers: Sequence[int] | None = None, pooling: str = 'none', *,
               batch_size: int = row.BATCH_ROWS, truncate: bool = False, progress: bool = False) -> Iterator[Features]:
    """Of each text, or pair of texts, its tokens and the states of `layers`: bert_jax/features.py `features`, which
    also joins two encoders."""
    return feature.features([self], texts, layers, pooling, batch_size=batch_size, truncate=truncate, progress=progress)

  def score(self, sentences: Sequence[str], unit: Literal['token', 'word'] = 'token', *,
            batch_size: int = row.BATCH_ROWS, progress: bool = False) -> np.ndarray:  # -> [n] float64
    """The pseudo-log-likelihood of each sentence in nats: each token masked by itself, or, of 'word', with those that
    follow in its word. Of a model that reads in one direction, the log-likelihood.

    Raises ConfigError where the checkpoint was not trained to predict tokens, or a sentence is too long.
    """
    require(not isinstance(sentences, str), 'sentences is one text: wanted a sequence of them')
    found = scoring.score(self, sentences, unit, batch_size=batch_size, progress=progress)
    return np.array([one.score for one in found])

  def next_sentence(self, pairs: Sequence[tuple[str, str]], *, batch_size: int = row.BATCH_ROWS,
                    truncate: bool = False, progress: bool = False) -> np.ndarray:  # -> [n] float64
    """The probability that the second text of each pair follows the first.

    Raises ConfigError where the checkpoint was not trained to tell, or a pair is too long and not `truncate`.
    """
    found = following.next_sentence(self, pairs, batch_size=batch_size, truncate=truncate, progress=progress)
    return np.array(list(found))

  @overload
  def fill_mask(self, text: str, top_k: int = ...) -> list[Candidates]: ...

  @overload
  def fill_mask(self, text: list[str] | tuple[str, ...], top_k: int = ...) -> list[list[Candidates]]: ...

  def fill_mask(self, text, top_k=5):
    """For each [MASK] of a text its likeliest tokens, [(token, probability) …]; of several texts a list of these.

    Raises ConfigError where a text has no [MASK] or is too long, or the checkpoint has no trained head for masked
    tokens.
    """
    found = list(fill.fill_mask(self, [text] if isinstance(text, str) else text, top_k))
    return found[0] if isinstance(text, str) else found

# ---------------------------------------------------------------- on a batch


def hidden_states(settings: Model, place: Place, params, batch):  # {[B T]} -> [B T D]
  """The last hidden states, without dropout. Pure: parameters and batch are arguments."""
  graphdef, _, _ = build.describe(settings, {}, place)
  return nnx.merge(graphdef, {'encoder': params['encoder']}).encoder(batch)

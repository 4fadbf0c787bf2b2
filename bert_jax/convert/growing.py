"""A checkpoint's parameters for a larger vocabulary, or for more or fewer positions, so that training can go on.

V tokens, N new ones, P positions, D hidden.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.checkpoint import Loaded
from bert_jax.convert.assemble import OF_VOCABULARY
from bert_jax.errors import ConfigError, require
from bert_jax.model.settings import Model
from bert_jax.parallel.mesh import path_name
from input_pipeline.vocabulary import extending

POSITIONS = 'encoder/position_embeddings/embedding'


def repeated(rows: np.ndarray, count: int) -> np.ndarray:  # [P D] -> [count D]
  """The rows again and again: tokens near each other have the positions that were learnt (arXiv:2004.05150 section 5).
  """
  return rows[np.arange(count) % len(rows)]


def interpolated(rows: np.ndarray, count: int) -> np.ndarray:  # [P D] -> [count D]
  """Rows on straight lines between the old ones, the first and the last of which stay the ends, as a vision
  transformer's for larger images (arXiv:2010.11929 section 3.2, in one dimension)."""
  places = np.linspace(0, len(rows) - 1, count)
  below = np.minimum(places.astype(int), max(len(rows) - 2, 0))
  share = (places - below).astype(rows.dtype)[:, None]
  return rows[below] * (1 - share) + rows[np.minimum(below + 1, len(rows) - 1)] * share


# By name: (rows [P D], how many there shall be, more than P) -> as many.
LONGER: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {'repeat': repeated, 'interpolate': interpolated}


def grown(path: Any, loaded: Loaded, wanted: Model, tokens: Callable[[], Sequence[str]] | None,
          longer: str | None) -> tuple[Loaded, tuple[str, ...]]:
  """The checkpoint with the vocabulary and the positions of `wanted`, where it has others; and a line for each change.

  `tokens`: () -> those of the data, which must begin with the checkpoint's; None: the vocabulary stays. `longer`: a key
  of LONGER, for more positions; fewer are the first of them. Raises ConfigError.
  """
  loaded, first = with_tokens(path, loaded, wanted.vocab_size, tokens) if tokens else (loaded, ())
  loaded, second = with_positions(path, loaded, wanted.max_positions, longer)
  return loaded, first + second


def with_tokens(path: Any, loaded: Loaded, size: int,
                tokens: Callable[[], Sequence[str]]) -> tuple[Loaded, tuple[str, ...]]:
  """Each new token begins as the mean of those that the old vocabulary splits it into, as does the bias of its score.
  """
  if size <= loaded.model.vocab_size:
    return loaded, ()
  tokenizer, new = loaded.tokenizer(), tokens()
  old = tokenizer.tokens
  if (differs := extending.first_difference(old, new)) is not None:
    raise ConfigError(f'{path} has another vocabulary than the data, which does not extend it: the id {differs} is '
                      f'{old[differs]!r} there and {new[differs]!r} in the data; extend it with `bert-jax vocabulary '
                      f'--extend {path}`, or prepare the data with the checkpoint\'s, `bert-jax prepare --vocabulary '
                      f'{path}`')
  require(tokenizer.kind == 'wordpiece', f'{path} has a {tokenizer.kind} vocabulary: wanted WordPiece, which can grow')
  ids = {token: i for i, token in enumerate(old)}
  of_new = [extending.pieces(token, ids, tokenizer.unk_id) for token in new[len(old):]]
  mean = lambda rows: np.stack(  # [V …] -> [N …], in 64 bits, as a sum of 32 may be more than they hold
      [rows[found].mean(axis=0, dtype=np.float64).astype(rows.dtype) for found in of_new])
  larger = replaced(loaded, OF_VOCABULARY, lambda rows: np.concatenate([rows, mean(rows)]), vocab_size=len(new))
  return larger, (f'{len(old):,} tokens become {len(new):,}: each new one begins as the mean of its old pieces',)


def with_positions(path: Any, loaded: Loaded, count: int, longer: str | None) -> tuple[Loaded, tuple[str, ...]]:
  have = loaded.model.max_positions
  if longer is not None and longer not in LONGER:
    raise ConfigError(f'--longer-positions is {longer!r}: wanted one of {", ".join(LONGER)}')
  require(longer is None or count > have, f'--longer-positions {longer} changes nothing: {path} has {have} positions, '
          f'and model.max_positions is {count}: leave it out')
  if count == have:
    return loaded, ()
  if count < have:
    return replaced(loaded, (POSITIONS,), lambda rows: rows[:count], max_positions=count), (
        f'of {have:,} positions the first {count:,} stay',)
  if longer is None:
    raise ConfigError(f'{path} has {have} positions, and model.max_positions is {count}: choose how they become more, '
                      f'--longer-positions {" or ".join(LONGER)}, or set --model.max-positions {have}')
  return replaced(loaded, (POSITIONS,), lambda rows: LONGER[longer](rows, count), max_positions=count), (
      f'{have:,} positions become {count:,}: {longer}',)


def replaced(loaded: Loaded, names: Sequence[str], change: Callable[[np.ndarray], np.ndarray], **settings) -> Loaded:
  """The checkpoint with other parameters of these names, where it has them, and these settings."""
  params = jax.tree.map_with_path(
      lambda path, leaf: change(np.asarray(leaf)) if path_name(path) in names else leaf, loaded.params)
  return dataclasses.replace(loaded, params=params, model=dataclasses.replace(loaded.model, **settings))

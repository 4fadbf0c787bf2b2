"""The part of a split that is read: all of it, or, where it is large, some windows of whole blocks, chosen by a hash.

Pieces are shuffled over the corpus, so any window is a fair sample of it.

Letters: T tokens of a window, V vocabulary.
"""

import dataclasses
import unicodedata
from collections.abc import Sequence

import numpy as np

from input_pipeline import random, records
from input_pipeline.batches import loader, shards

SAMPLE_TOKENS = 1 << 23  # of a split that are read, at most by one window more
_UNKNOWN = '\ue000'  # stands for [UNK], whose brackets are none of the text's
_SOLID = '\u2e80'  # from here on scripts are written without spaces


@dataclasses.dataclass(frozen=True)
class Sample:
  windows: tuple[shards.Window, ...]
  share: float  # of the tokens of the split


def chosen(stream: loader.Stream, most_tokens: int = SAMPLE_TOKENS) -> tuple[list[int], float]:
  """The numbers of windows of a split, in an order that only their number decides, until there are so many tokens; and
  the share of the tokens of the split."""
  order = random.permutation(random.key(0, 'inspection'), len(stream.window_rows))
  tokens = np.cumsum(np.add.reduceat(stream.index.tokens, stream.window_bounds[:-1])[order])
  count = min(int(np.searchsorted(tokens, most_tokens)) + 1, len(order))
  return order[:count].tolist(), int(tokens[count - 1]) / int(tokens[-1])


def read(stream: loader.Stream, most_tokens: int = SAMPLE_TOKENS) -> Sample:
  """The windows that are chosen."""
  numbers, share = chosen(stream, most_tokens)
  return Sample(tuple(map(stream.read_window, numbers)), share)


@dataclasses.dataclass(frozen=True)
class Parts:
  """What each token stands for in a text."""
  names: list[str]  # [V] as the vocabulary has them
  texts: list[str]  # [V] with a space in front where a word starts; in place V: the end of a piece
  special: np.ndarray  # [V] bool


def parts_of(tokens: list[str], vocabulary: records.Vocabulary) -> Parts:
  """WordPiece does not keep whether a space stood beside a sign such as `{`: here there is none."""
  special = np.zeros(len(tokens), bool)
  special[[vocabulary.pad_id, vocabulary.unk_id, vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id]] = True
  if vocabulary.kind == 'sentencepiece':
    texts = [token.replace('▁', ' ') for token in tokens]
  else:
    texts = [token[2:] if token.startswith('##') and len(token) > 2 else
             token if len(token) == 1 and (not token.isalnum() or token >= _SOLID) else f' {token}' for token in tokens]
  for place in np.flatnonzero(special):
    texts[place] = f' {tokens[place]}'
  texts[vocabulary.unk_id] = f' {_UNKNOWN}'
  return Parts(tokens, [*texts, '\n'], special)


def text_of(window: shards.Window, parts: Parts) -> str:
  """The text of a window, a piece a line."""
  ends = window.sentence_starts[window.piece_starts[1:]]
  return join(np.insert(window.tokens.astype(np.int32), ends, len(parts.names)), parts)


def join(ids: np.ndarray | Sequence[int], parts: Parts) -> str:
  return ''.join(map(parts.texts.__getitem__, np.asarray(ids).tolist()))


def readable(text: str) -> str:
  return text.replace(_UNKNOWN, '[UNK]').strip()


def is_letter(character: str) -> bool:
  return unicodedata.category(character).startswith('L')

"""Tokens that are found in a text as they are written: special ones where a model is used, and those that were added.

A corpus or its shards never name a special token: `[MASK]` there is six characters. Where a trained model is used, all
programs that read its files take it for the token, and so it is here.
Letters: S texts, T tokens.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline.records import Added

Encode = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]  # [S] -> int32 [T], tokens of each text [S]


def of(special: Sequence[tuple[str, int]], added: Sequence[Added]) -> tuple[Added, ...]:
  """All of them by their ids: the special ones as `added` has them, or of the usual kind."""
  listed = {token.content for token in added}
  usual = [Added(content, i) for content, i in special if content not in listed]
  return tuple(sorted([*added, *usual], key=lambda token: token.id))


def add(library, marks: Sequence[Added]):
  """A copy of the `tokenizers.Tokenizer` that finds these, which it gives the ids that they have."""
  import tokenizers
  copy = tokenizers.Tokenizer.from_str(library.to_str())
  for token in marks:
    found = tokenizers.AddedToken(token.content, single_word=token.single_word, lstrip=token.lstrip,
                                  rstrip=token.rstrip, normalized=token.normalized, special=token.special)
    (copy.add_special_tokens if token.special else copy.add_tokens)([found])
  return copy


def finding(marks: Sequence[Added], library, encode: Encode) -> Encode:
  """`encode`, but texts in which one of the marks may stand are given to `library`, which finds them."""
  if not marks:
    return encode
  pattern = re.compile('|'.join(re.escape(token.content) for token in marks))
  # After the rules for characters any text may hold it.
  everywhere = any(token.normalized for token in marks)

  def find(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    which = [everywhere or pattern.search(text) is not None for text in texts]
    if not any(which):
      return encode(texts)
    ids, lengths = encode([text for text, marked in zip(texts, which) if not marked])
    plain = iter(np.split(ids, np.cumsum(lengths)[:-1]) if len(lengths) else ())
    found = [np.array(library.encode(valid(text), add_special_tokens=False).ids, np.int32) if marked else next(plain)
             for text, marked in zip(texts, which)]
    return np.concatenate(found, dtype=np.int32), np.fromiter(map(len, found), np.int64, len(found))

  return find


def between(marks: Sequence[Added], encode: Encode) -> Encode:
  """`encode` for what stands between the marks: for rules that no library has, and marks of the usual kind."""
  ids_of = {token.content: token.id for token in marks}
  pattern = re.compile('(' + '|'.join(map(re.escape, ids_of)) + ')')

  def find(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    parts = [pattern.split(text) for text in texts]
    ids, lengths = encode([part for found in parts for part in found[::2]])
    plain = iter(np.split(ids, np.cumsum(lengths)[:-1]) if len(lengths) else ())
    rows = [np.concatenate([np.array([ids_of[part]], np.int32) if i % 2 else next(plain)
                            for i, part in enumerate(found)]) for found in parts]
    return (np.concatenate(rows, dtype=np.int32) if rows else ids), np.fromiter(map(len, rows), np.int64, len(rows))

  return find


def valid(text: str) -> str:
  """The text as UTF-8 has it: a lone surrogate, which JSON can bring, is '?'."""
  return text if text.isascii() else text.encode('utf-8', 'replace').decode()

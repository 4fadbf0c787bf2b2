"""What is said of a word that names nothing: what it may have meant, and what there is."""

import difflib
from collections.abc import Collection, Iterable


def unknown(kind: str, word: str, known: Collection[str]) -> str:
  """'there is no command 'pretrian'; did you mean 'pretrain'?', or else which there are."""
  close = closest(word, known)
  hint = f'; did you mean {close!r}?' if close else f': wanted one of {listed(known)}'
  return f'there is no {kind} {word!r}{hint}'


def closest(word: str, known: Collection[str]) -> str | None:
  """What of it is written nearly so; None: nothing is."""
  return next(iter(difflib.get_close_matches(word, known, 1)), None)


def listed(names: Iterable[str]) -> str:
  return ', '.join(names)

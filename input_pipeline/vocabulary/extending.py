"""A larger WordPiece vocabulary that keeps every id of another: new tokens are joined from those that split a corpus.

Each old token is spelled as one character, so that byte-pair encoding (arXiv:1508.07909), which joins characters to
tokens, joins tokens to longer ones. Since WordPiece takes the longest token that matches, none of these is there yet.
"""

import collections
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO

import numpy as np

from input_pipeline import records, storage
from input_pipeline.vocabulary import tokenizer

INSIDE = '##'  # before a token that goes on with a word
FIRST_CHARACTER = 0x10000  # of token 0: none from there on is a space
LINES_TOGETHER = 1 << 12


def load(path: storage.PathLike) -> tokenizer.Tokenizer:
  """The WordPiece tokenizer of vocab.txt, a run, one of its steps, a Hugging Face directory, or the prefix of a TF1
  checkpoint. Raises DataError."""
  path = storage.path(path)
  if path.parent.name == 'checkpoints' and path.name.isdigit():  # RUN/checkpoints/STEP
    path = path.parent.parent
  elif not path.exists() and path.name.endswith('.ckpt'):  # DIR/bert_model.ckpt
    path = path.parent
  found = tokenizer.load(path)
  if found.kind != 'wordpiece':
    raise records.DataError(f'--extend {path} is a {found.kind} vocabulary: wanted WordPiece, since new pieces of '
                            'another would change how old ones split a text')
  return found


def extend(lines: Iterator[str], old: tokenizer.Tokenizer, size: int,
           alphabet: Callable[[collections.Counter, bool], Mapping[str, int]]) -> bytes:
  """A vocab.txt of `size` tokens that begins with the old ones; the same for the same lines.

  `alphabet`: (count of each character, lower case) -> the characters to know, the most frequent first, and whether each
  is 2 tokens (c and ##c) or 1. Those that the old vocabulary lacks come next, then what is joined. Raises DataError
  where `size` is no more than there is, or the corpus is too small for it.
  """
  room = size - len(old.tokens)
  if room <= 0:
    raise records.DataError(f'--size {size:,}: the vocabulary to extend has {len(old.tokens):,} tokens already; wanted '
                            'more')
  with tempfile.TemporaryFile('w+', encoding='utf-8', errors='replace', newline='') as spool:
    characters: collections.Counter = collections.Counter()
    for line in lines:
      characters.update(line)
      spool.write(line + '\n')
    known = set(old.tokens)
    letters = [token for c, cost in alphabet(characters, old.lower_case).items()
               for token in (c, INSIDE + c)[:cost] if token not in known]
    tokens = joined(spool, [*old.tokens, *letters[:room // 2]], size, old.lower_case)
    more = room // 2 + size - len(tokens)
    if len(tokens) < size and len(letters) > room // 2:
      tokens = joined(spool, [*old.tokens, *letters[:more]], size, old.lower_case)
  if len(tokens) != size:
    raise records.DataError(f'--size {size:,}: the corpus gives only {len(tokens):,} tokens; choose a --size up to '
                            'that, or give more text')
  return ('\n'.join(tokens) + '\n').encode()


def joined(spool: TextIO, tokens: Sequence[str], size: int, lower_case: bool) -> list[str]:
  """`tokens`, and up to `size` of what is most often split into two of them that follow each other in a word."""
  import tokenizers
  splits = tokenizer.wordpiece(('\n'.join(tokens) + '\n').encode(), storage.path('vocab.txt'), lower_case)
  library = tokenizers.Tokenizer(tokenizers.models.BPE())
  library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  trainer = tokenizers.trainers.BpeTrainer(
      vocab_size=size, min_frequency=2, show_progress=False, special_tokens=[],
      initial_alphabet=[chr(FIRST_CHARACTER + i) for i in range(len(tokens))])
  library.train_from_iterator(spelled(spool, splits), trainer)
  ids = library.get_vocab()
  spellings = sorted((spelling for spelling in ids if len(spelling) > 1), key=lambda spelling: ids[spelling])
  return [*tokens, *(text_of([tokens[ord(c) - FIRST_CHARACTER] for c in spelling]) for spelling in spellings)]


def text_of(pieces: Sequence[str]) -> str:
  """The token that these make together."""
  return pieces[0] + ''.join(piece.removeprefix(INSIDE) for piece in pieces[1:])


def spelled(spool: TextIO, splits: tokenizer.Tokenizer) -> Iterator[str]:
  """Lines in which each token is one character, and spaces stand between words; an unknown word joins nothing."""
  spool.seek(0)
  while lines := [line for _, line in zip(range(LINES_TOGETHER), spool)]:
    ids, _ = splits.encode_flat(lines)
    starts = np.flatnonzero(~splits.is_continuation[ids])
    yield np.insert(ids + FIRST_CHARACTER, starts, ord(' ')).astype('<u4').tobytes().decode('utf-32-le')


def first_difference(old: Sequence[str], new: Sequence[str]) -> int | None:
  """The first id of `old` that is another token in `new`, or none; None: `new` extends `old`."""
  return next((i for i, token in enumerate(old) if i >= len(new) or new[i] != token), None)


def pieces(token: str, ids: Mapping[str, int], unknown: int) -> list[int]:
  """The ids of the tokens that `token` is split into, as WordPiece splits a word or, of a ##token, the rest of one."""
  inside = token.startswith(INSIDE) and len(token) > len(INSIDE)
  text, at = token[len(INSIDE):] if inside else token, 0
  found: list[int] = []
  while at < len(text):
    before = INSIDE if inside or found else ''
    end = next((end for end in range(len(text), at, -1) if before + text[at:end] in ids), None)
    if end is None:
      return [unknown]
    found.append(ids[before + text[at:end]])
    at = end
  return found

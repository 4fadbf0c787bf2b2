"""A larger WordPiece vocabulary that keeps every id of another: new tokens are joined from those that split a corpus.

Each old token is spelled as one character, so that byte-pair encoding (arXiv:1508.07909), which joins characters to
tokens, joins tokens to longer ones. Since WordPiece takes the longest token that matches, none of these is there yet.
"""

import collections
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from input_pipeline import records, storage
from input_pipeline.vocabulary import counting, tokenizer

INSIDE = '##'  # before a token that goes on with a word
FIRST_CHARACTER = 0x10000  # of token 0: none from there on is a space
WORDS_TOGETHER = 1 << 14


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


def extend(counted: counting.Counted, old: tokenizer.Tokenizer, size: int,
           alphabet: Callable[[collections.Counter, bool], tuple[Mapping[str, int], object]]) -> bytes:
  """A vocab.txt of `size` tokens that begins with the old ones; the same for the same words.

  `alphabet`: (count of each character, lower case) -> the characters to know, the most frequent first, and whether each
  is 2 tokens (c and ##c) or 1. Those that the old vocabulary lacks come next, then what is joined. Raises DataError
  where `size` is no more than there is, or the corpus is too small for it.
  """
  room = room_in(old, size)
  known = set(old.tokens)
  letters = [token for c, cost in alphabet(counted.characters, old.lower_case)[0].items()
             for token in (c, INSIDE + c)[:cost] if token not in known]
  tokens = joined(counted.words, [*old.tokens, *letters[:room // 2]], size, old.lower_case)
  more = room // 2 + size - len(tokens)
  if len(tokens) < size and len(letters) > room // 2:
    tokens = joined(counted.words, [*old.tokens, *letters[:more]], size, old.lower_case)
  if len(tokens) != size:
    raise records.DataError(f'--size {size:,}: the corpus gives only {len(tokens):,} tokens; choose a --size up to '
                            'that, or give more text')
  return ('\n'.join(tokens) + '\n').encode()


def room_in(old: tokenizer.Tokenizer, size: int) -> int:
  """How many tokens can be added. Raises DataError for none."""
  if size <= len(old.tokens):
    raise records.DataError(f'--size {size:,}: the vocabulary to extend has {len(old.tokens):,} tokens already; wanted '
                            'more')
  return size - len(old.tokens)


def joined(words: Mapping[str, int], tokens: Sequence[str], size: int, lower_case: bool) -> list[str]:
  """`tokens`, and up to `size` of what is most often split into two of them that follow each other in a word."""
  import tokenizers
  splits = tokenizer.wordpiece(('\n'.join(tokens) + '\n').encode(), storage.path('vocab.txt'), lower_case)
  library = tokenizers.Tokenizer(tokenizers.models.BPE())
  library.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  trainer = tokenizers.trainers.BpeTrainer(
      vocab_size=size, min_frequency=2, show_progress=False, special_tokens=[],
      initial_alphabet=[chr(FIRST_CHARACTER + i) for i in range(len(tokens))])
  library.train_from_iterator(counting.repeated(spelled(words, splits)), trainer)
  ids = library.get_vocab()
  spellings = sorted((spelling for spelling in ids if len(spelling) > 1), key=lambda spelling: ids[spelling])
  return [*tokens, *(text_of([tokens[ord(c) - FIRST_CHARACTER] for c in spelling]) for spelling in spellings)]


def text_of(pieces: Sequence[str]) -> str:
  """The token that these make together."""
  return pieces[0] + ''.join(piece.removeprefix(INSIDE) for piece in pieces[1:])


def spelled(words: Mapping[str, int], splits: tokenizer.Tokenizer) -> dict[str, int]:
  """Words in which each token is one character, with their counts; an unknown word joins nothing."""
  found: collections.Counter = collections.Counter()
  every = iter(words)
  while some := [*itertools.islice(every, WORDS_TOGETHER)]:
    ids, sizes = splits.encode_flat(some)
    text, ends = (ids + FIRST_CHARACTER).astype('<u4').tobytes().decode('utf-32-le'), np.cumsum(sizes).tolist()
    for word, start, end in zip(some, [0, *ends], ends):
      found[text[start:end]] += words[word]
  return found


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

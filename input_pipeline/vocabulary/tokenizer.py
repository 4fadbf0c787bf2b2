"""WordPiece and SentencePiece by one small interface, with a cache of words before the library.

Text never yields a special token: '[MASK]' inside a document is six characters of text. Ids are the library's own
(tests/test_tokenizer.py), however they are found (word_cache.py).
Letters: V vocabulary, T tokens of a text.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline import records, storage
from input_pipeline.vocabulary import beside, original_rules, word_cache

PAD, UNK, CLS, SEP, MASK = SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
# original tokenization.py: a longer word is [UNK]; Hugging Face's default is 100, so exports carry this one
MAX_WORD = 200
_SPACE = '▁'
# Tokens, and the share of them, that may be no text of their vocabulary's kind: 'NASA' in one of lower case.
_STRAY, _STRAY_SHARE = 2, 0.01
_ALIASES = {PAD: '<pad>', UNK: '<unk>'}  # in ALBERT's spm.model


def load(path: storage.PathLike, lower_case: bool | None = None, rules: str = records.LIBRARY) -> 'Tokenizer':
  """A tokenizer from vocab.txt (WordPiece), spm.model (SentencePiece), or a directory that holds one of them.

  `lower_case` None: as the files beside it say (beside.py), or else its tokens. `rules`: one of records.RULES, by which
  a WordPiece splits text. Raises DataError.
  """
  path = storage.path(path)
  if path.is_dir():
    found = [path / name for name in (records.SENTENCEPIECE, records.VOCABULARY) if (path / name).exists()]
    if not found:
      raise records.DataError(
          f'{path} holds neither {records.VOCABULARY} nor {records.SENTENCEPIECE}: name a file with --vocabulary')
    path = found[0]
  if not path.exists():
    raise records.DataError(f'--vocabulary {path}: there is no such file; make one with `bert-jax vocabulary`')
  data = path.read_bytes()
  if rules not in records.RULES:
    raise records.DataError(f'rules is {rules!r:.40}: wanted one of {", ".join(records.RULES)}')
  if path.suffix != '.model':
    return wordpiece(data, path, lower_case, rules)
  if rules != records.LIBRARY:
    raise records.DataError(f'--rules {rules}: {path} is a SentencePiece model, and the original had WordPiece only: '
                            'name a vocab.txt, or leave --rules out')
  return _sentencepiece(data, path, lower_case)


def wordpiece(data: bytes, path: storage.Path, lower_case: bool | None, rules: str = records.LIBRARY) -> 'Tokenizer':
  """The tokenizer of the content of a vocab.txt; `path` is what errors call it, and where `lower_case` is looked up."""
  try:
    lines = data.decode('utf-8-sig').removesuffix('\n').split('\n')
  except UnicodeDecodeError as error:
    raise records.DataError(f'{path} is not UTF-8 (byte {error.start}): wanted one token a line') from error
  tokens = [line.removesuffix('\r') for line in lines] if data.strip() else []
  special = _special_ids(tokens, path, {})
  if lower_case is None:
    lower_case = _told_lower_case(path, data, tokens, accents=True)
  library = wordpiece_library(tokens, lower_case)
  of_word = {records.LIBRARY: _encode_word, records.GOOGLE: _encode_word_as_google}[rules]
  cache = word_cache.WordCache(functools.partial(of_word, library, lower_case))
  encode = functools.partial(word_cache.encode, cache, lower_case)
  if rules == records.GOOGLE and lower_case:
    encode = lambda texts: word_cache.encode(cache, True, [original_rules.settle_case(text) for text in texts])
  return Tokenizer('wordpiece', tuple(tokens), lower_case, *special, encode_flat=encode, cache=cache, rules=rules,
                   offsets=functools.partial(_wordpiece_offsets, library))


def wordpiece_library(tokens: Sequence[str], lower_case: bool, max_word: int = MAX_WORD):
  """The `tokenizers.Tokenizer` that is BERT's WordPiece; it knows no special tokens, so none are found inside text."""
  import tokenizers
  library = tokenizers.Tokenizer(tokenizers.models.WordPiece(
      {token: i for i, token in enumerate(tokens)}, unk_token=UNK, max_input_chars_per_word=max_word))
  library.normalizer = tokenizers.normalizers.BertNormalizer(
      clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lower_case)
  library.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  library.decoder = tokenizers.decoders.WordPiece()
  return library


def _encode_word(library, lower_case: bool, word: str) -> list[int]:
  # most words: no rule but lower-casing applies, and only the model takes a quarter of the time
  if word.isascii() and word.isalnum():
    return [token.id for token in library.model.tokenize(word.lower() if lower_case else word)]
  return library.encode(word, add_special_tokens=False).ids


def _encode_word_as_google(library, lower_case: bool, word: str) -> list[int]:
  words = [word.lower() if lower_case else word] if word.isascii() and word.isalnum() else original_rules.words(
      word, lower_case)
  return [token.id for part in words for token in library.model.tokenize(part)]


def _wordpiece_offsets(library, text: str) -> np.ndarray:
  offsets = library.encode(text.encode('utf-8', 'replace').decode(), add_special_tokens=False).offsets
  return np.array([start for start, _ in offsets], np.int64)


def _sentencepiece(data: bytes, path: storage.Path, lower_case: bool | None) -> 'Tokenizer':
  import sentencepiece
  library = sentencepiece.SentencePieceProcessor()
  try:
    library.LoadFromSerializedProto(data)
  except RuntimeError as error:
    raise records.DataError(f'{path} is not a SentencePiece model: {error}') from error
  tokens = [library.IdToPiece(i) for i in range(library.GetPieceSize())]
  special = _special_ids(tokens, path, _ALIASES)
  if not all(library.IsControl(i) or library.IsUnknown(i) for i in special):
    data = _with_control_symbols(data, special)
    library.LoadFromSerializedProto(data)
  if lower_case is None:
    lower_case = _told_lower_case(path, data, tokens, accents=False)
  encode_flat = functools.partial(_encode_sentencepiece, library, lower_case)
  return Tokenizer('sentencepiece', tuple(tokens), lower_case, *special, encode_flat=encode_flat,
                   offsets=functools.partial(_sentencepiece_offsets, library, lower_case), model=data)


def _with_control_symbols(data: bytes, ids: Sequence[int]) -> bytes:
  """The model, but it finds none of these ids in text, as it would where [CLS] is a symbol of the user's."""
  from sentencepiece import sentencepiece_model_pb2 as proto
  model = proto.ModelProto.FromString(data)
  for i in ids:
    if model.pieces[i].type != proto.ModelProto.SentencePiece.UNKNOWN:
      model.pieces[i].type = proto.ModelProto.SentencePiece.CONTROL
  return model.SerializeToString()


def _encode_sentencepiece(library, lower_case: bool, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  # No cache: the library's search runs over the whole text, so that a word's pieces can depend on its neighbours.
  ids = library.Encode([(text.lower() if lower_case else text).encode('utf-8', 'replace').decode() for text in texts],
                       num_threads=1)
  return np.array(list(itertools.chain.from_iterable(ids)), np.int32), np.array(list(map(len, ids)), np.int64)


def _sentencepiece_offsets(library, lower_case: bool, text: str) -> np.ndarray:
  # Lower-casing may lengthen a text ('İ'); places are those of `text` itself.
  sizes = [len(character.lower()) if lower_case else 1 for character in text]
  origin = np.append(np.repeat(np.arange(len(text)), sizes), len(text))
  data = (text.lower() if lower_case else text).encode('utf-8', 'replace')
  # the character of each byte
  of_byte = np.append(np.cumsum(np.frombuffer(data, np.uint8) & 0xC0 != 0x80) - 1, len(origin) - 1)
  pieces = library.Encode(data.decode(), out_type='proto').pieces
  # '▁' is the space in front
  return origin[of_byte[[piece.end - len(data[piece.begin:piece.end].lstrip()) for piece in pieces]]]


def _special_ids(tokens: list[str], path: storage.Path, aliases: dict[str, str]) -> list[int]:
  """The ids of the five special tokens; also finds what makes a vocabulary unusable. Raises DataError."""
  if not tokens:
    raise records.DataError(f'{path} is empty: wanted one token a line, with {", ".join(SPECIAL)} among them')
  ids = {}
  for i, token in enumerate(tokens):
    if token in ids and token:
      raise records.DataError(
          f'{path} has {token!r} twice, in lines {ids[token] + 1} and {i + 1}: wanted each token once')
    ids[token] = i
  missing = [token for token in SPECIAL if token not in ids and aliases.get(token) not in ids]
  if missing:
    raise records.DataError(f'{path} has no {", ".join(missing)}: a BERT vocabulary needs {", ".join(SPECIAL)}; '
                            'make one with `bert-jax vocabulary`')
  return [ids[token] if token in ids else ids[aliases[token]] for token in SPECIAL]


def _told_lower_case(path: storage.Path, data: bytes, tokens: Sequence[str], accents: bool) -> bool:
  said = beside.lower_case(path, data, sha256_of(tokens))
  return not is_cased(tokens, accents) if said is None else said


def is_cased(tokens: Sequence[str], accents: bool) -> bool:
  """Whether more than a few tokens cannot stand in text that is lower-cased and, with `accents`, has lost its accents.

  Accents tell where a script has no capitals: without them Hindi has no vowels, and Korean no syllables.
  """
  texts = [token for token in tokens if not _is_bracketed(token)]
  with_case = [text for text in texts if text.lower() != text.upper()]
  found = [(sum(text != text.lower() for text in with_case), len(with_case))]
  if accents:
    from tokenizers import normalizers
    strip = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True,
                                       lowercase=False).normalize_str
    others = [text for text in texts if not text.isascii() and text.lower() == text.upper()]
    found.append((sum(text != strip(text) for text in others), len(others)))
  return any(changed > max(_STRAY, _STRAY_SHARE * count) for changed, count in found)


def _is_bracketed(token: str) -> bool:
  """[MASK], [unused7], <pad>: names rather than text."""
  return len(token) > 2 and (token[0] + token[-1]) in ('[]', '<>')


def _vocab_txt(tokens: Sequence[str]) -> bytes:
  return ('\n'.join(tokens) + '\n').encode()


def sha256_of(tokens: Sequence[str]) -> str:
  return hashlib.sha256(_vocab_txt(tokens)).hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """A vocabulary and its use. Attributes: kind 'wordpiece' or 'sentencepiece'; tokens [V], where the index is the id.
  """
  kind: str
  tokens: tuple[str, ...]
  lower_case: bool
  pad_id: int
  unk_id: int
  cls_id: int
  sep_id: int
  mask_id: int
  # texts -> ids [T], lengths
  encode_flat: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]] = dataclasses.field(repr=False)
  # text -> where in it each of its tokens begins [T]; slow
  offsets: Callable[[str], np.ndarray] = dataclasses.field(repr=False)
  model: bytes | None = dataclasses.field(default=None, repr=False)  # spm.model
  # the ids of words; of WordPiece only
  cache: word_cache.WordCache | None = dataclasses.field(default=None, repr=False)
  rules: str = records.LIBRARY  # by which text is split: one of records.RULES

  def encode(self, texts: Sequence[str]) -> list[np.ndarray]:  # -> a list of [T] int32
    """The ids of each text, without [CLS] and [SEP]."""
    ids, lengths = self.encode_flat(texts)
    ends = np.cumsum(lengths).tolist()
    return [ids[start:end] for start, end in zip([0, *ends], ends)]

  def decode(self, ids: Sequence[int]) -> str:
    """Readable text: pieces joined to words."""
    tokens = [self.tokens[i] for i in ids]
    if self.kind == 'sentencepiece':
      return ''.join(f' {token} ' if _is_bracketed(token) else token for token in tokens).replace(_SPACE, ' ').strip()
    return ''.join(token[2:] if continues else f' {token}'
                   for token, continues in zip(tokens, self.is_continuation[ids])).strip()

  @functools.cached_property
  def is_continuation(self) -> np.ndarray:  # [V] bool
    """Which tokens go on with the word before them."""
    if self.kind == 'sentencepiece':
      return np.array([not token.startswith(_SPACE) and not _is_bracketed(token) for token in self.tokens])
    return np.array([token.startswith('##') and len(token) > 2 for token in self.tokens])

  @property
  def vocab_txt(self) -> bytes:
    return _vocab_txt(self.tokens)

  @functools.cached_property
  def sha256(self) -> str:
    return sha256_of(self.tokens)

  @property
  def record(self) -> records.Vocabulary:
    """What the manifest of shards says of this vocabulary."""
    return records.Vocabulary(
        kind=self.kind, size=len(self.tokens), sha256=self.sha256, lower_case=self.lower_case, pad_id=self.pad_id,
        unk_id=self.unk_id, cls_id=self.cls_id, sep_id=self.sep_id, mask_id=self.mask_id, rules=self.rules)

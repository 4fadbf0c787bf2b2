"""WordPiece and SentencePiece by one small interface, with a cache of words before the library.

The text of a corpus never yields a special token: '[MASK]' inside a document is six characters of text. Where a model
is used (`Tokenizer.marked`), it is the token, as it is for every program that reads an export. Ids are the library's
own, as an export carries it (tests/test_same_ids.py), however they are found (word_cache.py).
Letters: V vocabulary, T tokens of a text.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from input_pipeline import records, storage
from input_pipeline.vocabulary import beside, marks as marks_lib, original_rules, others, unigram, word_cache

PAD, UNK, CLS, SEP, MASK = SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
MAX_WORD = records.MAX_WORD
_SPACE = unigram.SPACE
# Tokens, and the share of them, that may be no text of their vocabulary's kind: 'NASA' in one of lower case.
_STRAY, _STRAY_SHARE = 2, 0.01
_ALIASES = {PAD: '<pad>', UNK: '<unk>'}  # in ALBERT's spm.model


def load(path: storage.PathLike, lower_case: bool | None = None, rules: str = records.LIBRARY,
         splitting: records.Splitting | None = None) -> 'Tokenizer':
  """A tokenizer from vocab.txt (WordPiece), spm.model (SentencePiece), or a directory that holds one of them, or a
  tokenizer.json in the place of both.

  `lower_case`, `splitting` None: as the files beside it say (beside.py, others.py), or else its tokens. `rules`: one of
  records.RULES, by which a WordPiece splits text. Raises DataError, by name, for a rule that ours does not have.
  """
  path = storage.path(path)
  if rules not in records.RULES:
    raise records.DataError(f'rules is {rules!r:.40}: wanted one of {", ".join(records.RULES)}')
  said = others.Said(is_unigram=True) if splitting else others.read(path)
  if path.is_dir():
    path = _file_of(path, said)
  if not path.exists():
    raise records.DataError(f'--vocabulary {path}: there is no such file; make one with `bert-jax vocabulary`')
  splitting = splitting or said.splitting
  lower_case = said.lower_case if lower_case is None else lower_case
  data, library_path = path.read_bytes(), path.parent / records.TOKENIZER
  if path.suffix == '.model':
    _only_wordpiece(rules, path)
    found = _sentencepiece(data, path, lower_case, splitting)
    if not said.is_unigram or not library_path.exists():
      return found
    fields = others.object_of(library_path)
    return found if unigram.same(found.library, fields) else _of_library(
        library_path, fields, lower_case, rules, splitting)
  if path == library_path:
    if said.is_unigram:
      return _of_library(path, others.object_of(path), lower_case, rules, splitting)
    data = _vocab_txt(said.tokens or ())
  found = wordpiece(data, path, lower_case, rules, splitting)
  if said.tokens is not None and said.tokens != found.tokens:
    raise records.DataError(f'{library_path} has another vocabulary than {path.name}: remove the wrong one')
  if said.tokens is not None:
    unigram.check_layout(others.object_of(library_path), library_path, found.cls_id, found.sep_id)
  return found


def of(path: storage.PathLike, vocabulary: records.Vocabulary) -> 'Tokenizer':
  """The tokenizer of shards, or of a run, which record what it is. Raises DataError."""
  return load(path, vocabulary.lower_case, vocabulary.rules, vocabulary.splitting)


def _file_of(directory: storage.Path, said: others.Said) -> storage.Path:
  """The file that holds a directory's vocabulary. Raises DataError."""
  names = [name for name in (records.SENTENCEPIECE, records.TOKENIZER, records.VOCABULARY)
           if (directory / name).exists()]
  if names and names[0] == records.TOKENIZER and not said.is_unigram and records.VOCABULARY in names:
    names = [records.VOCABULARY]
  if not names:
    raise records.DataError(f'{directory} holds neither {records.VOCABULARY} nor {records.SENTENCEPIECE}, nor a '
                            f'{records.TOKENIZER}: name a file with --vocabulary')
  return directory / names[0]


def _only_wordpiece(rules: str, path: storage.Path) -> None:
  if rules != records.LIBRARY:
    raise records.DataError(f'--rules {rules}: {path} is a SentencePiece model, and the original had WordPiece only: '
                            'name a vocab.txt, or leave --rules out')


def wordpiece(data: bytes, path: storage.Path, lower_case: bool | None, rules: str = records.LIBRARY,
              splitting: records.Splitting | None = None) -> 'Tokenizer':
  """The tokenizer of the content of a vocab.txt; `path` is what errors call it, and where `lower_case` is looked up."""
  try:
    lines = data.decode('utf-8-sig').removesuffix('\n').split('\n')
  except UnicodeDecodeError as error:
    raise records.DataError(f'{path} is not UTF-8 (byte {error.start}): wanted one token a line') from error
  tokens = [line.removesuffix('\r') for line in lines] if data.strip() else []
  splitting = splitting or records.Splitting()
  tokens = _with_added(tokens, splitting)
  special = _special_ids(tokens, path, {})
  if lower_case is None:
    lower_case = _told_lower_case(path, data, tokens, accents=True)
  if rules == records.GOOGLE:
    _check_google(splitting, path)
  library = wordpiece_library(tokens, lower_case, splitting)
  of_word = {records.LIBRARY: _encode_word, records.GOOGLE: _encode_word_as_google}[rules]
  cache = word_cache.WordCache(functools.partial(of_word, library, lower_case))
  if not splitting.ideographs:
    cache.cut_at = word_cache.CUT_AT_MARKS
  encode = functools.partial(word_cache.encode, cache, lower_case)
  if rules == records.GOOGLE and lower_case:
    encode = lambda texts: word_cache.encode(cache, True, [original_rules.settle_case(text) for text in texts])
  return _found('wordpiece', tokens, lower_case, special, splitting, rules, library, encode, _wordpiece_offsets, cache)


def _with_added(tokens: list[str], splitting: records.Splitting) -> list[str]:
  """The tokens, and those after them that their own rules do not know, where the file has not listed them as well."""
  outside = [token.content for token in splitting.added if not token.known]
  return tokens if outside and tokens[-len(outside):] == outside else [*tokens, *outside]


def _check_google(splitting: records.Splitting, path: storage.Path) -> None:
  """Raises DataError where the rules beside a vocabulary are not those that the original has."""
  usual, found = dataclasses.asdict(records.Splitting()), dataclasses.asdict(splitting)
  other = [name for name in usual if name != 'max_word' and found[name] != usual[name]]
  if other:
    raise records.DataError(f'--rules {records.GOOGLE}: the files beside {path} say {other[0]} '
                            f'{str(found[other[0]]):.60}, which the original has not: leave --rules out')


def _found(kind: str, tokens: Sequence[str], lower_case: bool, special: Sequence[int], splitting: records.Splitting,
           rules: str, library, encode: marks_lib.Encode, offsets: Callable, cache: word_cache.WordCache | None,
           guarded=None, **more) -> 'Tokenizer':
  """A tokenizer and, as its `marked`, the one that finds special tokens as well. `guarded`: the library that splits the
  text of a corpus, where its own rules would find special tokens there."""
  if splitting.strip_accents == lower_case:
    splitting = dataclasses.replace(splitting, strip_accents=None)
  marks = marks_lib.of([(tokens[i], i) for i in special], splitting.added)
  always = [token for token in splitting.added if token.id not in special]
  made = []
  for found in (always, marks):
    own = guarded if guarded is not None and found is always else library
    finder = marks_lib.add(own, found) if found else own
    if rules == records.GOOGLE:
      encode_flat = marks_lib.between(found, encode) if found else encode
    else:
      encode_flat = marks_lib.finding(found, finder, functools.partial(encode, own) if guarded is not None else encode)
    made.append(Tokenizer(kind, tuple(tokens), lower_case, *special, encode_flat=encode_flat, cache=cache, rules=rules,
                          offsets=functools.partial(offsets, finder), splitting=splitting, library=library,
                          marks=marks, **more))
  return dataclasses.replace(made[0], _marked=made[1])


def wordpiece_library(tokens: Sequence[str], lower_case: bool, splitting: records.Splitting | None = None):
  """The `tokenizers.Tokenizer` that is BERT's WordPiece; it knows no special tokens, so none are found inside text."""
  import tokenizers
  rules = splitting or records.Splitting()
  outside = {token.content for token in rules.added if not token.known}
  library = tokenizers.Tokenizer(tokenizers.models.WordPiece(
      {token: i for i, token in enumerate(tokens) if token not in outside}, unk_token=UNK,
      max_input_chars_per_word=rules.max_word))
  library.normalizer = tokenizers.normalizers.BertNormalizer(
      clean_text=True, handle_chinese_chars=rules.ideographs, strip_accents=rules.strip_accents, lowercase=lower_case)
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
  offsets = library.encode(marks_lib.valid(text), add_special_tokens=False).offsets
  return np.array([start for start, _ in offsets], np.int64)


def _sentencepiece(data: bytes, path: storage.Path, lower_case: bool | None,
                   splitting: records.Splitting) -> 'Tokenizer':
  import sentencepiece
  model = sentencepiece.SentencePieceProcessor()
  try:
    model.LoadFromSerializedProto(data)
  except RuntimeError as error:
    raise records.DataError(f'{path} is not a SentencePiece model: {error}') from error
  tokens = [model.IdToPiece(i) for i in range(model.GetPieceSize())]
  tokens = _with_added(tokens, splitting)
  special = _special_ids(tokens, path, _ALIASES)
  if lower_case is None:
    lower_case = _told_lower_case(path, data, tokens, accents=False)
  library = unigram.of_model(data, path, lower_case, special)
  cache = word_cache.WordCache(lambda word: library.encode(word, add_special_tokens=False).ids, cut_at=None)
  encode = functools.partial(unigram.encode, library, cache if unigram.by_words(library) else None)
  return _found('sentencepiece', tokens, lower_case, special, splitting, records.LIBRARY, library, encode,
                unigram.offsets, cache, model=data)


def _of_library(path: storage.Path, fields: dict, lower_case: bool | None, rules: str,
                splitting: records.Splitting) -> 'Tokenizer':
  """The tokenizer of a unigram's tokenizer.json, by its own rules; `lower_case` is what others call it."""
  _only_wordpiece(rules, path)
  library, tokens = unigram.of_library(fields, path), unigram.tokens_of(fields, path)
  tokens = _with_added(tokens, splitting)
  special = _special_ids(tokens, path, _ALIASES)
  unigram.check_layout(fields, path, *special[2:4])
  if lower_case is None:
    lower_case = library.normalizer is not None and library.normalizer.normalize_str('A').endswith('a')
  encode = lambda used, texts: unigram.encode(used, None, texts)
  return _found('sentencepiece', tokens, lower_case, special, splitting, records.LIBRARY, library, encode,
                unigram.offsets, None, guarded=unigram.guarded(library, [tokens[i] for i in special]),
                own=path.read_bytes())


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
  said = beside.lower_case(path, data)
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
  # the tokenizers.Tokenizer of its rules, which knows no special tokens
  library: Any = dataclasses.field(repr=False)
  marks: tuple[records.Added, ...] = dataclasses.field(repr=False)  # what `marked` finds as it is written
  model: bytes | None = dataclasses.field(default=None, repr=False)  # spm.model
  own: bytes | None = dataclasses.field(default=None, repr=False)  # the tokenizer.json in the place of spm.model
  # the ids of words
  cache: word_cache.WordCache | None = dataclasses.field(default=None, repr=False)
  rules: str = records.LIBRARY  # by which text is split: one of records.RULES
  splitting: records.Splitting = records.Splitting()
  _marked: 'Tokenizer | None' = dataclasses.field(default=None, repr=False)

  @property
  def marked(self) -> 'Tokenizer':
    """The same, for the texts that a trained model is used on: special tokens are found as they are written."""
    return self._marked or self

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
  def strips_accents(self) -> bool:
    """Whether accents are dropped from text."""
    told = self.splitting.strip_accents
    return self.kind == 'wordpiece' and (self.lower_case if told is None else told)

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
        unk_id=self.unk_id, cls_id=self.cls_id, sep_id=self.sep_id, mask_id=self.mask_id, rules=self.rules,
        splitting=self.splitting)

  @property
  def files(self) -> dict[str, bytes]:
    """{name: content}: what shards and runs keep of it."""
    found = {records.VOCABULARY: self.vocab_txt, records.SENTENCEPIECE: self.model, records.TOKENIZER: self.own}
    return {name: data for name, data in found.items() if data is not None}

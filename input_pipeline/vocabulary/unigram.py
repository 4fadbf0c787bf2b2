"""A SentencePiece unigram model as a `tokenizers.Tokenizer`: what finds our ids is what an export carries.

Its normalizer.cc replaces the longest match of its table, the library's Precompiled only the first of a character with
its marks, and loses those: so marks are held apart while the table is applied, and joined to their letters after it.
"""

import base64
import json
import re
from collections.abc import Sequence

import numpy as np

from input_pipeline import storage
from input_pipeline.errors import DataError
from input_pipeline.vocabulary import marks, word_cache

SPACE = '▁'
UNFINDABLE = ' '  # a piece that ends so matches no text, in which spaces have become ▁ by then
_APART = '\ufdd0'  # no character; no table has it
# Between a character and what Unicode counts to it; the library cannot put anything before the first.
_JOINED = r'(?<=.)(?=[\p{M}\n\u200c\u200d])'
_FLAGS = 'normalizer', 'pre_tokenizer', 'model'  # the parts of tokenizer.json that decide on ids


def of_model(data: bytes, path: storage.Path, lower_case: bool, special: Sequence[int]):
  """The library's tokenizer of spm.model; none of the `special` ids comes from text.

  Raises DataError, by name, for what the library does otherwise.
  """
  import tokenizers
  from sentencepiece import sentencepiece_model_pb2 as proto
  from tokenizers import Regex, decoders, normalizers, pre_tokenizers
  model = proto.ModelProto.FromString(data)
  trainer, rules, piece = model.trainer_spec, model.normalizer_spec, proto.ModelProto.SentencePiece
  if trainer.model_type != proto.TrainerSpec.UNIGRAM:
    kind = proto.TrainerSpec.ModelType.Name(trainer.model_type)
    raise DataError(f'{path} is a SentencePiece model of the type {kind}: wanted UNIGRAM, which '
                    '`bert-jax vocabulary --kind sentencepiece` makes; no other can be exported with the same ids')
  for name, found, wanted in (('escape_whitespaces', rules.escape_whitespaces, True),
                              ('treat_whitespace_as_suffix', trainer.treat_whitespace_as_suffix, False)):
    if found != wanted:
      raise DataError(f'{path} has {name} {found}: wanted {wanted}, since no other can be exported with the same ids')
  top = max((p.score for p in model.pieces if p.type == piece.NORMAL), default=0.0)

  def entry(i, p):
    if p.type == piece.USER_DEFINED and i not in special:
      return p.piece, top * len(p.piece.encode()) - 0.1
    hidden = p.type in (piece.CONTROL, piece.UNUSED, piece.UNKNOWN) and i not in special
    return p.piece + UNFINDABLE * hidden, p.score

  unknown = next(i for i in special if model.pieces[i].type == piece.UNKNOWN)
  library = tokenizers.Tokenizer(tokenizers.models.Unigram(
      [entry(i, p) for i, p in enumerate(model.pieces)], unk_id=unknown, byte_fallback=trainer.byte_fallback))
  steps: list = [normalizers.Lowercase()] if lower_case else []
  if rules.precompiled_charsmap:
    steps += [normalizers.Replace(Regex(_JOINED), _APART), normalizers.Precompiled(rules.precompiled_charsmap),
              normalizers.Replace(_APART, '')]
    steps += [normalizers.NFC()] if _composes(data) else []
  if rules.remove_extra_whitespaces:
    steps += [normalizers.Replace(Regex('^ +| +$'), ''), normalizers.Replace(Regex(' {2,}'), ' ')]
  if rules.add_dummy_prefix:
    steps.append(normalizers.Prepend(SPACE))
  steps.append(normalizers.Replace(' ', SPACE))
  if rules.remove_extra_whitespaces:
    steps.append(normalizers.Replace(Regex(f'{SPACE}+$'), ''))
  library.normalizer = normalizers.Sequence(steps)
  metaspace = pre_tokenizers.Metaspace(
      SPACE, prepend_scheme='never', split=trainer.split_by_whitespace and rules.remove_extra_whitespaces)
  library.pre_tokenizer = pre_tokenizers.Sequence([metaspace, _cut([model.pieces[i].piece for i in special])])
  library.decoder = decoders.Metaspace(SPACE, prepend_scheme='always')
  return library


def _composes(data: bytes) -> bool:
  """Whether the model's table joins a letter and its marks, as NFKC does."""
  import sentencepiece
  processor = sentencepiece.SentencePieceProcessor()
  processor.LoadFromSerializedProto(data)
  return processor.Normalize('e\u0301').endswith('é')


def _cut(names: Sequence[str]):
  """What cuts the name of a special token in two, where text spells it, or comes to it by its rules."""
  from tokenizers import Regex, pre_tokenizers
  spelled = '|'.join(f'{re.escape(name[0])}(?={re.escape(name[1:])})' for name in names if len(name) > 1)
  return pre_tokenizers.Split(Regex(spelled), 'isolated')


def guarded(library, names: Sequence[str]):
  """A copy of a library's tokenizer that finds no token of these names in text."""
  import tokenizers
  copy = tokenizers.Tokenizer.from_str(library.to_str())
  first = [] if copy.pre_tokenizer is None else [copy.pre_tokenizer]
  copy.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([*first, _cut(names)])
  return copy


def of_library(fields: dict, path: storage.Path):
  """The library's tokenizer of a tokenizer.json, without its special tokens and what it puts around a text.

  Raises DataError where the library cannot read it.
  """
  import tokenizers
  bare = dict(fields) | {'added_tokens': [], 'post_processor': None, 'truncation': None, 'padding': None}
  try:
    return tokenizers.Tokenizer.from_str(json.dumps(bare))
  except Exception as error:  # the library raises no other kind
    raise DataError(f'{path} cannot be read by the tokenizers library ({str(error):.200}): fetch it again') from error


def tokens_of(fields: dict, path: storage.Path) -> list[str]:
  """The pieces of a unigram's tokenizer.json. Raises DataError."""
  found = fields['model'].get('vocab')
  if not isinstance(found, list) or not all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], str)
                                            for p in found):
    raise DataError(f'{path} is damaged: wanted model.vocab to be a list of pieces with their scores')
  return [token.removesuffix(UNFINDABLE) if len(token) > 1 else token for token, _ in found]


def check_layout(fields: dict, path: storage.Path, cls: int, sep: int) -> None:
  """Raises DataError where a tokenizer.json puts anything but [CLS] A [SEP] B [SEP] around texts."""
  import tokenizers
  if fields.get('post_processor') is None:
    return
  try:
    library = tokenizers.Tokenizer.from_str(json.dumps(dict(fields) | {'truncation': None, 'padding': None}))
  except Exception as error:  # the library raises no other kind
    raise DataError(f'{path} cannot be read by the tokenizers library ({str(error):.200}): fetch it again') from error
  first, second = (library.encode(text, add_special_tokens=False).ids for text in 'ab')
  row = library.encode('a', 'b')
  types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
  if row.ids != [cls, *first, sep, *second, sep] or row.type_ids != types:
    raise DataError(f'{path} has a post_processor that puts other tokens or types around texts: wanted [CLS] A [SEP] '
                    'B [SEP] of the types 0 and 1, as BERT has them')


def same(library, fields: dict) -> bool:
  """Whether a tokenizer.json gives the ids that `library` gives."""
  ours = json.loads(library.to_str())
  return all(ours[name] == fields.get(name) for name in _FLAGS)


def by_words(library) -> bool:
  """Whether the ids of a text are those of its words, one after the other."""
  parts = json.loads(library.to_str())
  steps = {step['type']: step for step in parts['normalizer']['normalizers']}
  table = base64.b64decode(steps['Precompiled']['precompiled_charsmap']) if 'Precompiled' in steps else b''
  # Each word has its sign of a space in front, which stands for nothing else.
  return 'Prepend' in steps and parts['pre_tokenizer']['pretokenizers'][0]['split'] and SPACE.encode() not in table


def encode(library, cache: word_cache.WordCache | None, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  # [S] -> int32 [T], [S]
  """Ids of all texts and their numbers. Without a cache: a word's pieces can depend on what stands beside it."""
  of = lambda text: np.array(library.encode(text, add_special_tokens=False).ids, '<i4').tobytes()
  found = [of(text) if cache is None or SPACE in text or '\n' in text
           else b''.join([cache[word] for word in text.split(' ') if word]) for text in map(marks.valid, texts)]
  return np.frombuffer(b''.join(found), '<i4'), np.fromiter(map(len, found), np.int64, len(found)) // 4


def offsets(library, text: str) -> np.ndarray:  # -> [T]
  """Where in the text each piece begins, after the space in front of it."""
  text = marks.valid(text)
  found = library.encode(text, add_special_tokens=False).offsets
  return np.array([end - len(text[start:end].lstrip()) for start, end in found], np.int64)

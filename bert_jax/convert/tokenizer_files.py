"""A vocabulary as the files that Hugging Face's AutoTokenizer reads, giving the same ids, and back."""

import dataclasses
import json
import tempfile
import warnings
from collections.abc import Sequence

from bert_jax.convert import foreign
from input_pipeline import records, storage
from input_pipeline.errors import DataError
from input_pipeline.vocabulary import tokenizer as tokenizer_lib
from input_pipeline.vocabulary.tokenizer import CLS, MASK, PAD, SEP, SPECIAL, UNK, Tokenizer

TOKENIZER, SETTINGS, SPECIAL_MAP = 'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'
OF_SENTENCES = 'sentence_bert_config.json'  # of sentence-transformers
BERTS = 'Bert', 'DistilBert', 'Electra'  # whose tokenizers in transformers are the same
_SPACE = '▁'
_UNFINDABLE = ' '  # a piece that ends so matches no text, in which spaces have become ▁ by then


def files(tokenizer: Tokenizer, max_length: int) -> dict[str, bytes]:
  """{name: content} of the vocabulary, tokenizer.json, tokenizer_config.json and special_tokens_map.json.

  The class is PreTrainedTokenizerFast, which takes tokenizer.json as it is: transformers' BertTokenizer would build its
  own, with words over 100 characters unknown instead of over 200. Raises DataError for a SentencePiece model that is
  not a unigram.
  """
  if tokenizer.rules != records.LIBRARY:
    warnings.warn(f'{TOKENIZER} splits text by the rules of the tokenizers library, and this checkpoint was trained by '
                  f'those of {tokenizer.rules}: they differ in rare characters (docs/fidelity.md)', stacklevel=2)
  special = {'unk_token': UNK, 'sep_token': SEP, 'pad_token': PAD, 'cls_token': CLS, 'mask_token': MASK}
  named = dict(zip((UNK, SEP, PAD, CLS, MASK),
                   (tokenizer.unk_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.cls_id, tokenizer.mask_id)))
  special = {role: tokenizer.tokens[named[token]] for role, token in special.items()}  # ALBERT's names differ
  library = (_unigram(tokenizer, set(special.values())) if tokenizer.kind == 'sentencepiece'
             else tokenizer_lib.wordpiece_library(tokenizer.tokens, tokenizer.lower_case))
  settings = special | {
      'tokenizer_class': 'PreTrainedTokenizerFast', 'model_max_length': max_length,
      'do_lower_case': tokenizer.lower_case,
      'model_input_names': ['input_ids', 'token_type_ids', 'attention_mask'], 'clean_up_tokenization_spaces': False}
  vocabulary = ({records.SENTENCEPIECE: tokenizer.model} if tokenizer.model is not None
                else {records.VOCABULARY: tokenizer.vocab_txt})
  encode = lambda value: (json.dumps(value, indent=2, ensure_ascii=False) + '\n').encode()
  return vocabulary | {TOKENIZER: _finish(library, tokenizer, special), SETTINGS: encode(settings),
                       SPECIAL_MAP: encode(special)}


def _finish(library, tokenizer: Tokenizer, special: dict[str, str]) -> bytes:
  """tokenizer.json: the library's rules with the special tokens and the layout [CLS] A [SEP] B [SEP] around them."""
  import tokenizers
  library.add_special_tokens(sorted(special.values(), key=tokenizer.tokens.index))
  cls, sep = special['cls_token'], special['sep_token']
  library.post_processor = tokenizers.processors.TemplateProcessing(
      single=f'{cls}:0 $A:0 {sep}:0', pair=f'{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1',
      special_tokens=[(cls, tokenizer.cls_id), (sep, tokenizer.sep_id)])
  wanted = {token: tokenizer.tokens.index(token) for token in special.values()}
  found = {token: library.token_to_id(token) for token in wanted}
  if found != wanted or library.get_vocab_size() != len(tokenizer.tokens):
    raise DataError(f'the vocabulary cannot be written as {TOKENIZER}: its special tokens would get the ids {found}, '
                            f'of {library.get_vocab_size()}; wanted {wanted}, of {len(tokenizer.tokens)}')
  return library.to_str(pretty=False).encode()


def _unigram(tokenizer: Tokenizer, special: set[str]):
  """The `tokenizers.Tokenizer` that does what a SentencePiece unigram model does (its normalizer.cc, unigram_model.cc).

  Two rare differences are the library's and stay: equally likely splits ('ww w', 'w ww') are chosen between by
  rounding, and a combining mark after a character that NFKC replaces is lost.
  """
  import tokenizers
  from sentencepiece import sentencepiece_model_pb2 as proto
  from tokenizers import Regex, decoders, normalizers, pre_tokenizers
  model = proto.ModelProto.FromString(tokenizer.model)
  trainer, rules, piece = model.trainer_spec, model.normalizer_spec, proto.ModelProto.SentencePiece
  before = rules.escape_whitespaces and not trainer.treat_whitespace_as_suffix
  if trainer.model_type != proto.TrainerSpec.UNIGRAM or not before:
    raise DataError('only a SentencePiece unigram model with ▁ before words can be exported to Hugging Face: train the '
                            'vocabulary with `bert-jax vocabulary --kind sentencepiece`')
  top = max((p.score for p in model.pieces if p.type == piece.NORMAL), default=0.0)

  def entry(p):
    if p.type == piece.USER_DEFINED:
      return p.piece, top * len(p.piece.encode()) - 0.1
    hidden = p.type in (piece.CONTROL, piece.UNUSED, piece.UNKNOWN) and p.piece not in special
    return p.piece + _UNFINDABLE * hidden, p.score

  library = tokenizers.Tokenizer(tokenizers.models.Unigram(
      [entry(p) for p in model.pieces], unk_id=tokenizer.unk_id, byte_fallback=trainer.byte_fallback))
  steps: list = [normalizers.Lowercase()] if tokenizer.lower_case else []
  if rules.precompiled_charsmap:
    steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
  if rules.remove_extra_whitespaces:
    steps += [normalizers.Replace(Regex('^ +| +$'), ''), normalizers.Replace(Regex(' {2,}'), ' ')]
  if rules.add_dummy_prefix:
    steps.append(normalizers.Prepend(_SPACE))
  steps.append(normalizers.Replace(' ', _SPACE))
  if rules.remove_extra_whitespaces:
    steps.append(normalizers.Replace(Regex(f'{_SPACE}+$'), ''))
  library.normalizer = normalizers.Sequence(steps)
  library.pre_tokenizer = pre_tokenizers.Metaspace(
      _SPACE, prepend_scheme='never', split=trainer.split_by_whitespace and rules.remove_extra_whitespaces)
  library.decoder = decoders.Metaspace(_SPACE, prepend_scheme='always')
  return library


def load(directory: storage.PathLike) -> Tokenizer:
  """The tokenizer of a Hugging Face directory, of Google's, of data, or of a run; the files beside it say of its rules.

  Raises DataError where there is no vocabulary, and, by its name, for a rule that ours does not have.
  """
  directory = storage.path(directory)
  foreign.check_files(directory)
  if (directory / records.MANIFEST).exists():
    vocabulary = records.read_manifest(directory).vocabulary
    return tokenizer_lib.load(directory, vocabulary.lower_case, vocabulary.rules)
  lower_case, tokens = _rules(directory)
  if any((directory / name).exists() for name in (records.SENTENCEPIECE, records.VOCABULARY)):
    tokenizer = tokenizer_lib.load(directory, lower_case)
    if tokens is not None and tokens != list(tokenizer.tokens):
      raise DataError(f'{directory / TOKENIZER} has another vocabulary than {records.VOCABULARY}: remove the wrong one')
    return tokenizer
  if tokens is None:
    raise DataError(f'{directory} holds neither {records.VOCABULARY} nor {records.SENTENCEPIECE}, nor a {TOKENIZER} of '
                    'a WordPiece')
  with tempfile.TemporaryDirectory() as folder:
    path = storage.path(folder) / records.VOCABULARY
    path.write_text('\n'.join(tokens) + '\n')
    return tokenizer_lib.load(path, lower_case)

# ---------------------------------------------------------------- the rules of others


@dataclasses.dataclass(frozen=True)
class Rules:
  """What tokenizer_config.json says of the rules; None: nothing."""
  do_lower_case: bool | None = None
  strip_accents: bool | None = None
  tokenize_chinese_chars: bool | None = None
  do_basic_tokenize: bool | None = None
  never_split: tuple[str, ...] | None = None
  tokenizer_class: str | None = None


@dataclasses.dataclass(frozen=True)
class Normalizer:
  """Of tokenizer.json."""
  type: str
  clean_text: bool = True
  handle_chinese_chars: bool = True
  strip_accents: bool | None = None
  lowercase: bool = True


@dataclasses.dataclass(frozen=True)
class WordPiece:
  """Of tokenizer.json."""
  type: str
  vocab: dict
  unk_token: str = UNK
  continuing_subword_prefix: str = '##'


def _rules(directory: storage.Path) -> tuple[bool | None, list[str] | None]:
  """(whether upper case goes, None where nothing says so; the tokens of tokenizer.json, if it is of a WordPiece)."""
  said, tokens, path = Rules(), None, directory / SETTINGS
  if path.exists():
    said = foreign.typed(Rules, foreign.read_object(path), path)
  lower_case = said.do_lower_case
  library = foreign.read_object(directory / TOKENIZER) if (directory / TOKENIZER).exists() else {}
  if (directory / records.SENTENCEPIECE).exists():
    return lower_case, None
  allowed = {'do_basic_tokenize': (None, True), 'tokenize_chinese_chars': (None, True), 'never_split': (None, ()),
             'strip_accents': (None, lower_case)}
  if not library:
    allowed['tokenizer_class'] = None, 'PreTrainedTokenizerFast', *(f'{kind}Tokenizer{fast}' for kind in BERTS
                                                                   for fast in ('', 'Fast'))
  for name, values in allowed.items():
    _require(getattr(said, name) in values, path, name, getattr(said, name), values)
  if library:
    tokens, found = _of_library(library, directory / TOKENIZER)
    _require(lower_case in (None, found), path, 'do_lower_case', lower_case, (f'{found}, as {TOKENIZER} has',))
    lower_case = found
  path = directory / OF_SENTENCES
  if path.exists() and foreign.read_object(path).get('do_lower_case') is True:
    _require(lower_case is not False, path, 'do_lower_case', True, (False,))
  return lower_case, tokens


def _of_library(library: dict, path: storage.Path) -> tuple[list[str], bool]:
  """The tokens of a tokenizer.json and whether upper case goes, if its rules are BERT's."""
  part = lambda name: library[name] if isinstance(library.get(name), dict) else {'type': str(library.get(name))}
  for name, kind in (('model', 'WordPiece'), ('normalizer', 'BertNormalizer'), ('pre_tokenizer', 'BertPreTokenizer')):
    _require(part(name).get('type') == kind, path, f'{name}.type', part(name).get('type'), (kind,))
  rules, model = foreign.typed(Normalizer, part('normalizer'), path), foreign.typed(WordPiece, part('model'), path)
  for name, values in {'clean_text': (True,), 'handle_chinese_chars': (True,),
                       'strip_accents': (None, rules.lowercase)}.items():
    _require(getattr(rules, name) in values, path, f'normalizer.{name}', getattr(rules, name), values)
  _require(model.unk_token == UNK, path, 'model.unk_token', model.unk_token, (UNK,))
  _require(model.continuing_subword_prefix == '##', path, 'model.continuing_subword_prefix',
           model.continuing_subword_prefix, ('##',))
  if (not all(type(i) is int for i in model.vocab.values())
      or sorted(model.vocab.values()) != list(range(len(model.vocab)))):
    raise DataError(f'{path} is damaged: wanted model.vocab to give each token an id, from 0 without gaps')
  added = library.get('added_tokens', [])
  if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
    raise DataError(f'{path} is damaged: wanted added_tokens to be a list of tokens')
  for token in added:
    content, i = token.get('content'), token.get('id')
    _require(isinstance(content, str) and content in SPECIAL and model.vocab.get(content) == i, path, 'added_tokens',
             f'{content} as {i}', (f'{", ".join(SPECIAL)} with their ids',))
  return sorted(model.vocab, key=model.vocab.__getitem__), rules.lowercase


def _require(fine: bool, path: storage.Path, name: str, found, wanted: Sequence) -> None:
  """Raises DataError for a rule that is not one of the `wanted`."""
  if not fine:
    shown = ' or '.join(dict.fromkeys('nothing' if value is None else str(value) for value in wanted))
    raise DataError(f'{path} has {name} {foreign.shown(found)}, which bert_jax cannot do: wanted {shown}')

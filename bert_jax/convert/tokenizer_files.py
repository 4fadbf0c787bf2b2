"""A vocabulary as the files that Hugging Face's AutoTokenizer reads, giving the same ids, and back."""

import json
import tempfile

from input_pipeline import records, storage
from input_pipeline.errors import DataError
from input_pipeline.vocabulary import tokenizer as tokenizer_lib
from input_pipeline.vocabulary.tokenizer import CLS, MASK, PAD, SEP, UNK, Tokenizer

TOKENIZER, SETTINGS, SPECIAL_MAP = 'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json'
_SPACE = '▁'
_UNFINDABLE = ' '  # a piece that ends so matches no text, in which spaces have become ▁ by then


def files(tokenizer: Tokenizer, max_length: int) -> dict[str, bytes]:
  """{name: content} of the vocabulary, tokenizer.json, tokenizer_config.json and special_tokens_map.json.

  The class is PreTrainedTokenizerFast, which takes tokenizer.json as it is: transformers' BertTokenizer would build its
  own, with words over 100 characters unknown instead of over 200. Raises DataError for a SentencePiece model that is
  not a unigram.
  """
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
  """The tokenizer of a Hugging Face directory, of data, or of a run; of upper case the files beside it tell.

  Raises DataError where there is no vocabulary.
  """
  directory = storage.path(directory)
  lower_case = _lower_case(directory)
  if any((directory / name).exists() for name in (records.SENTENCEPIECE, records.VOCABULARY)):
    return tokenizer_lib.load(directory, lower_case)
  model = _section(directory / TOKENIZER, 'model')
  if model.get('type') != 'WordPiece':
    raise DataError(f'{directory} holds neither {records.VOCABULARY} nor {records.SENTENCEPIECE}, nor a {TOKENIZER} of '
                    'a WordPiece')
  ids = model.get('vocab')
  if not isinstance(ids, dict) or sorted(ids.values(), key=repr) != sorted(range(len(ids)), key=repr):
    raise DataError(f'{directory / TOKENIZER} is damaged: wanted model.vocab to give each token an id, from 0 without '
                    'gaps')
  with tempfile.TemporaryDirectory() as folder:
    path = storage.path(folder) / records.VOCABULARY
    path.write_text('\n'.join(sorted(ids, key=ids.__getitem__)) + '\n')
    return tokenizer_lib.load(path, lower_case)


def _lower_case(directory: storage.Path) -> bool | None:
  """What the directory says of upper case; None: nothing."""
  if (directory / records.MANIFEST).exists():
    return records.read_manifest(directory).vocabulary.lower_case
  said = _read(directory / SETTINGS).get('do_lower_case')
  said = _section(directory / TOKENIZER, 'normalizer').get('lowercase') if said is None else said
  if not isinstance(said, bool | None):
    raise DataError(f'{directory} says {said!r} of lower case ({SETTINGS} do_lower_case, or {TOKENIZER}): wanted true '
                    'or false')
  return said


def _section(path: storage.Path, name: str) -> dict:
  """An object in the object that a file holds; {} where there is none."""
  value = _read(path).get(name)
  return value if isinstance(value, dict) else {}


def _read(path: storage.Path) -> dict:
  if not path.exists():
    return {}
  try:
    value = json.loads(path.read_text())
  except (ValueError, OSError, RecursionError) as error:
    raise DataError(f'{path} is damaged: {error}') from error
  return value if isinstance(value, dict) else {}

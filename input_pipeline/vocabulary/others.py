"""What tokenizer.json and tokenizer_config.json of Hugging Face say of a vocabulary: taken over, or refused by name."""

import dataclasses
import typing

from input_pipeline import records, storage
from input_pipeline.errors import DataError
from input_pipeline.foreign import check_file, read_object, shown
from input_pipeline.vocabulary import beside

SETTINGS, ADDED, MODEL = 'tokenizer_config.json', 'added_tokens.json', 'config.json'
OF_SENTENCES = 'sentence_bert_config.json'  # of sentence-transformers
BERTS = 'Bert', 'DistilBert', 'Electra'  # whose tokenizers in transformers are the same
STANDARD = records.VOCABULARY, records.SENTENCEPIECE, records.TOKENIZER  # the names by which those files mean them
SPECIAL = '[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'
MAX_WORD = 100  # of BertTokenizer of transformers, where no tokenizer.json says it
KINDS = 'WordPiece', 'Unigram'


@dataclasses.dataclass(frozen=True)
class Said:
  """What files say of the vocabulary that they lie beside; None: nothing."""
  lower_case: bool | None = None
  splitting: records.Splitting = records.Splitting()
  tokens: tuple[str, ...] | None = None  # of tokenizer.json, if it is of a WordPiece
  is_unigram: bool = False  # whether tokenizer.json is of a SentencePiece unigram


@dataclasses.dataclass(frozen=True)
class Settings:
  """Of tokenizer_config.json."""
  do_lower_case: bool | None = None
  strip_accents: bool | None = None
  tokenize_chinese_chars: bool | None = None
  do_basic_tokenize: bool | None = None
  never_split: tuple | None = None
  tokenizer_class: str | None = None
  added_tokens_decoder: dict | None = None


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
  unk_token: str = '[UNK]'
  continuing_subword_prefix: str = '##'
  max_input_chars_per_word: int = MAX_WORD


def read(path: storage.Path) -> Said:
  """What the files of the directory `path`, or those beside the file, say. Raises DataError, by name, for a rule that
  ours does not have."""
  directory = path if path.is_dir() else path.parent
  if directory != path and path.name not in STANDARD:
    return Said()  # of a file with a name of its own, they say nothing
  for name in (records.SENTENCEPIECE, records.VOCABULARY):
    file = directory / name
    if file.exists() and (lower_case := beside.lower_case(file, file.read_bytes())) is not None:
      return Said(lower_case)
  if (recorded := beside.recorded(directory)) is not None:
    return Said(recorded.lower_case, recorded.splitting, is_unigram=(directory / records.TOKENIZER).exists())
  return _read(directory)


def object_of(path: storage.Path) -> dict:
  """A tokenizer.json; its `model` is an object. Raises DataError."""
  fields = read_object(path)
  if not isinstance(fields.get('model'), dict):
    raise DataError(f'{path} is damaged: wanted model to be an object')
  return fields


def _read(directory: storage.Path) -> Said:
  path, library_path = directory / SETTINGS, directory / records.TOKENIZER
  said = _typed(Settings, read_object(path), path) if path.exists() else Settings()
  library = object_of(library_path) if library_path.exists() else {}
  kind = library['model'].get('type') if library else None
  if kind == 'Unigram':
    added = _added(library, library['model'].get('vocab'), library_path)
    return Said(said.do_lower_case, records.Splitting(added=added), is_unigram=True)
  if not library and (directory / records.SENTENCEPIECE).exists():
    return Said(said.do_lower_case, records.Splitting(added=_listed(directory, said, None)))
  allowed = {'do_basic_tokenize': (None, True), 'never_split': (None, ())}
  if not library:
    allowed['tokenizer_class'] = None, 'PreTrainedTokenizerFast', *(f'{name}Tokenizer{fast}' for name in BERTS
                                                                   for fast in ('', 'Fast'))
  for name, values in allowed.items():
    _require(getattr(said, name) in values, path, name, getattr(said, name), values)
  found = _of_wordpiece(library, said, library_path, path) if library else _of_files(directory, said)
  sentences = directory / OF_SENTENCES
  if sentences.exists() and read_object(sentences).get('do_lower_case') is True:
    _require(found.lower_case is not False, sentences, 'do_lower_case', True, (False,))
  return found


def _of_files(directory: storage.Path, said: Settings) -> Said:
  """Where there is no tokenizer.json."""
  vocabulary, model = directory / records.VOCABULARY, directory / MODEL
  of_transformers = model.exists() and 'model_type' in read_object(model) and (
      said.tokenizer_class != 'PreTrainedTokenizerFast')
  check_file(vocabulary)
  tokens = vocabulary.read_bytes().decode('utf-8', 'replace').split('\n') if vocabulary.exists() else []
  count = len(tokens) - (tokens[-1:] == [''])
  return Said(said.do_lower_case, records.Splitting(
      said.strip_accents, said.tokenize_chinese_chars is not False,
      MAX_WORD if of_transformers else records.MAX_WORD, _listed(directory, said, count)))


def _of_wordpiece(library: dict, said: Settings, path: storage.Path, settings: storage.Path) -> Said:
  """Of a tokenizer.json whose rules are BERT's."""
  part = lambda name: library[name] if isinstance(library.get(name), dict) else {'type': str(library.get(name))}
  _require(part('model').get('type') == 'WordPiece', path, 'model.type', part('model').get('type'), KINDS)
  for name, kind in (('normalizer', 'BertNormalizer'), ('pre_tokenizer', 'BertPreTokenizer')):
    _require(part(name).get('type') == kind, path, f'{name}.type', part(name).get('type'), (kind,))
  rules, model = _typed(Normalizer, part('normalizer'), path), _typed(WordPiece, part('model'), path)
  _require(rules.clean_text, path, 'normalizer.clean_text', rules.clean_text, (True,))
  _require(model.unk_token == '[UNK]', path, 'model.unk_token', model.unk_token, ('[UNK]',))
  _require(model.continuing_subword_prefix == '##', path, 'model.continuing_subword_prefix',
           model.continuing_subword_prefix, ('##',))
  _require(model.max_input_chars_per_word > 0, path, 'model.max_input_chars_per_word',
           model.max_input_chars_per_word, (1,))
  for name, theirs, ours in (('do_lower_case', said.do_lower_case, rules.lowercase),
                             ('strip_accents', said.strip_accents, rules.strip_accents),
                             ('tokenize_chinese_chars', said.tokenize_chinese_chars, rules.handle_chinese_chars)):
    alike = theirs in (None, ours) or (name == 'strip_accents' and ours is None and theirs == rules.lowercase)
    _require(alike, settings, name, theirs, (f'{ours}, as {records.TOKENIZER} has',))
  if (not all(type(i) is int for i in model.vocab.values())
      or sorted(model.vocab.values()) != list(range(len(model.vocab)))):
    raise DataError(f'{path} is damaged: wanted model.vocab to give each token an id, from 0 without gaps')
  tokens = sorted(model.vocab, key=model.vocab.__getitem__)
  added = _added(library, tokens, path)
  strip = None if rules.strip_accents == rules.lowercase else rules.strip_accents
  return Said(rules.lowercase, records.Splitting(strip, rules.handle_chinese_chars, model.max_input_chars_per_word,
                                                 added), (*tokens, *(t.content for t in added if not t.known)))

# ---------------------------------------------------------------- added tokens


def _added(library: dict, vocabulary, path: storage.Path) -> tuple[records.Added, ...]:
  """The added tokens of a tokenizer.json, but special ones of the usual kind. Raises DataError."""
  listed = library.get('added_tokens') or []
  if not isinstance(listed, list) or not all(isinstance(token, dict) for token in listed):
    raise DataError(f'{path} is damaged: wanted added_tokens to be a list of tokens')
  if not isinstance(vocabulary, list):
    raise DataError(f'{path} is damaged: wanted model.vocab to be a list of pieces with their scores')
  names = [token if isinstance(token, str) else token[0] if isinstance(token, list) and token else ''
           for token in vocabulary]
  return _checked(listed, {name: i for i, name in enumerate(names)}, len(names), path)


def _listed(directory: storage.Path, said: Settings, count: int | None) -> tuple[records.Added, ...]:
  """Those that tokenizer_config.json, or added_tokens.json of old, names after the `count` tokens of vocab.txt."""
  path = directory / SETTINGS
  if said.added_tokens_decoder is not None:
    tokens = said.added_tokens_decoder
    if not all(isinstance(i, str) and i.isascii() and i.isdigit() and isinstance(token, dict)
               for i, token in tokens.items()):
      raise DataError(f'{path} is damaged: wanted added_tokens_decoder to name tokens by their ids')
    listed = [token | {'id': int(i)} for i, token in tokens.items()]
  elif (directory / ADDED).exists():
    path = directory / ADDED
    listed = [{'id': i, 'content': content, 'special': content in SPECIAL, 'normalized': content not in SPECIAL}
              for content, i in read_object(path).items()]
  else:
    return ()
  if count is None:
    _require(all(token.get('content') in SPECIAL for token in listed), path, 'added tokens', 'other than special ones',
             (f'a {records.TOKENIZER} beside',))
    return ()
  lines = (directory / records.VOCABULARY).read_text(errors='replace').split('\n')[:count]
  return _checked(listed, {token: i for i, token in enumerate(lines)}, count, path)


def _checked(listed: list[dict], ids: dict[str, int], count: int, path: storage.Path) -> tuple[records.Added, ...]:
  fields = {field.name for field in dataclasses.fields(records.Added)} - {'known'}
  found = []
  for token in sorted(listed, key=lambda token: token['id'] if type(token.get('id')) is int else -1):
    given = {name: value for name, value in token.items() if name in fields}
    content, i = given.get('content'), given.get('id')
    fine = isinstance(content, str) and content and type(i) is int and all(
        isinstance(given.get(name, False), bool) for name in fields - {'content', 'id'})
    after = count + sum(not one.known for one in found)
    wanted_id = ids.get(content, after) if isinstance(content, str) else after
    _require(bool(fine) and i == wanted_id, path, 'added_tokens', f'{content} as {i}',
             (f'{wanted_id}, in its place or after the vocabulary without gaps',))
    one = records.Added(**(given | {'known': content in ids}))
    usual = content in SPECIAL or content in ('<pad>', '<unk>')
    if not usual or one != records.Added(content, i):
      found.append(one)
  return tuple(found)

# ---------------------------------------------------------------- checks


def _typed(kind, fields: dict, path: storage.Path):
  """The dataclass `kind` from those of a file's fields that it knows. Raises DataError where one has another type."""
  values = {}
  for name, hint in typing.get_type_hints(kind).items():
    if name in fields:
      value = tuple(fields[name]) if isinstance(fields[name], list) else fields[name]
      if not isinstance(value, hint):
        names = {bool: 'True or False', str: 'text', int: 'a whole number', dict: 'an object', tuple: 'a list'}
        kinds = ' or '.join(names[part] for part in typing.get_args(hint) or (hint,) if part in names)
        raise DataError(f'{path} cannot be used: {name} is {shown(value)}, wanted {kinds}')
      values[name] = value
  return kind(**values)


def _require(fine: bool, path: storage.Path, name: str, found, wanted_values) -> None:
  """Raises DataError for a rule that is not one of the `wanted_values`."""
  if not fine:
    listed = ' or '.join(dict.fromkeys('nothing' if value is None else str(value) for value in wanted_values))
    raise DataError(f'{path} has {name} {shown(found)}, which bert_jax cannot do: wanted {shown(listed, 200)}')

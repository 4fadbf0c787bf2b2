"""The shard format, and the only file that knows it: blocks of pieces in TFRecords, and the manifest beside them.

A *piece* is a run of whole sentences of one document, at most what one row of a batch holds, without special tokens. A
*block* is one TFRecord record: a tf.train.Example that holds up to `PIECES_PER_BLOCK` pieces as flat arrays, so that a
token costs two bytes, reading is sequential, and nothing is parsed per token. Reading needs only NumPy.

Letters: N pieces of a block, S its sentences, T its tokens.
"""

import dataclasses
import hashlib
import json
import struct
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import numpy as np

from input_pipeline import foreign, storage
from input_pipeline.errors import DataError

FORMAT = 'bert_jax pieces'
VERSION = 1
PIECES_PER_BLOCK = 256
MANIFEST = 'manifest.json'
VOCABULARY = 'vocab.txt'  # one token a line, for both kinds of vocabulary
SENTENCEPIECE = 'spm.model'
TOKENIZER = 'tokenizer.json'  # of the tokenizers library: in the place of spm.model where there is none
DATASET_NAME = 'pieces'  # tfds: pieces-train.tfrecord-00000-of-00004
PAIRS = ('dynamic', 'google')  # made by the loader, epoch by epoch; or by `prepare`, once, by the original's procedure
# original tokenization.py: a longer word is [UNK]; Hugging Face's default is 100, so exports carry this one
MAX_WORD = 200
RULES = LIBRARY, GOOGLE = 'library', 'google'  # of splitting text: of `tokenizers`; of the original (original_rules.py)
# Drawn by the loader, epoch by epoch; or by `prepare`, once, by the original's procedure, of tokens or of whole words.
MASKS = DYNAMIC, GOOGLE, GOOGLE_WORDS = 'dynamic', 'google', 'google_words'


@dataclasses.dataclass(frozen=True)
class Column:
  """What a column of a block holds."""
  per: str  # piece, sentence or token: it has one value for each
  dtype: str | None  # in the shards, little-endian; None: id_dtype of the vocabulary
  bits: bool = False  # eight values a byte, by np.packbits: 1 0 1 1 0 0 0 0 1 are the bytes 0b10110000 0b10000000
  when: Callable[['Manifest'], bool] | None = None  # whether data with this manifest has the column; None: always


@dataclasses.dataclass(frozen=True)
class Block:
  """The pieces of one record, as flat arrays. No other list of a piece's columns exists: all code goes by COLUMNS."""
  # The ids of all tokens, without special ones [T].
  input_ids: Annotated[np.ndarray, Column('token', None)]
  # Tokens of each sentence [S].
  sentence_lengths: Annotated[np.ndarray, Column('sentence', '<u2')]
  # Sentences of each piece [N].
  piece_sentences: Annotated[np.ndarray, Column('piece', '<u2')]
  # The document of each piece: the low 31 bits of SHA-256 of its id [N].
  document_ids: Annotated[np.ndarray, Column('piece', '<i4')]
  # Only in static pairs: 1 = random [N]; such a piece has two "sentences", A and B.
  next_sentence_labels: Annotated[np.ndarray | None,
                                  Column('piece', '<u2', when=lambda data: data.pairs == 'google')] = None
  # Whether each token starts a word [T / 8]; only with --words.
  word_starts: Annotated[np.ndarray | None,
                         Column('token', 'u1', bits=True, when=lambda data: data.words != 'none')] = None
  # Only with static masks: whether each token is to be predicted [T / 8], and the id that stands in its place [T].
  predicted: Annotated[np.ndarray | None,
                       Column('token', 'u1', bits=True, when=lambda data: data.masks != DYNAMIC)] = None
  shown_ids: Annotated[np.ndarray | None, Column('token', None, when=lambda data: data.masks != DYNAMIC)] = None


COLUMNS: dict[str, Column] = {
    name: hint.__metadata__[0] for name, hint in typing.get_type_hints(Block, include_extras=True).items()}


@dataclasses.dataclass(frozen=True)
class Shard:
  file: str
  records: int
  pieces: int
  tokens: int
  bytes: int
  sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
  documents: int
  pieces: int
  sentences: int
  tokens: int
  unknown_tokens: int
  shards: tuple[Shard, ...]


@dataclasses.dataclass(frozen=True)
class Added:
  """A token that is found in a text as it is written, before any rule: [SEP], or one that somebody added."""
  content: str
  id: int
  single_word: bool = False  # only where no letter stands beside it
  lstrip: bool = False  # takes the white space before it along
  rstrip: bool = False
  normalized: bool = False  # is found after the rules for characters, so that <USER> is <user>
  special: bool = True
  known: bool = True  # whether the vocabulary's own rules can give it as well


@dataclasses.dataclass(frozen=True)
class Splitting:
  """What a vocabulary's rules have otherwise than BERT's own."""
  strip_accents: bool | None = None  # None: where the text is lower-cased
  ideographs: bool = True  # each Chinese character is a word
  max_word: int = MAX_WORD  # characters; a longer word is [UNK]
  added: tuple[Added, ...] = ()  # special tokens of the usual kind are not listed


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  kind: str  # wordpiece or sentencepiece
  size: int
  sha256: str  # of vocab.txt
  lower_case: bool
  pad_id: int
  unk_id: int
  cls_id: int
  sep_id: int
  mask_id: int
  rules: str = LIBRARY  # one of RULES
  splitting: Splitting = Splitting()


@dataclasses.dataclass(frozen=True)
class Manifest:
  sequence_length: int
  pairs: str  # one of PAIRS
  vocabulary: Vocabulary
  splits: dict[str, Split]
  settings: dict  # every setting of `prepare`, as JSON
  counts: dict[str, int]  # what the source held and what was dropped: pages, redirects, empty, duplicates …
  packages: dict[str, str]  # versions of what made the data
  format: str = FORMAT
  version: int = VERSION
  words: str = 'none'  # what stored the words' starts beside the tokens: none (the vocabulary tells), or jieba
  masks: str = DYNAMIC  # one of MASKS


def shard_name(split: str, index: int, count: int) -> str:
  return f'{DATASET_NAME}-{split}.tfrecord-{index:05d}-of-{count:05d}'


def id_dtype(vocabulary_size: int) -> np.dtype:
  return np.dtype('<u2') if vocabulary_size <= 2**16 else np.dtype('<i4')


def columns_of(data: 'Manifest') -> dict[str, Column]:
  """The columns of data with these `pairs`, `words`, `masks`: a manifest's, or of the settings that are to make it."""
  return {name: column for name, column in COLUMNS.items() if column.when is None or column.when(data)}


def document_number(document_id: str) -> int:
  """A document's id as 31 bits: two documents that share them are only never paired as negatives."""
  return int.from_bytes(hashlib.sha256(document_id.encode()).digest()[:4], 'big') & 0x7FFFFFFF

# ---------------------------------------------------------------- manifest


def write_manifest(directory: storage.PathLike, manifest: Manifest) -> None:
  text = json.dumps(dataclasses.asdict(manifest), indent=2, sort_keys=True, ensure_ascii=False)
  (storage.path(directory) / MANIFEST).write_text(text + '\n')


def fingerprint(manifests: Iterable[Manifest]) -> str:
  """SHA-256 of all that data holds, whatever it is called and wherever it lies."""
  content = [[manifest.vocabulary.sha256, {name: [shard.sha256 for shard in split.shards]
                                           for name, split in manifest.splits.items()}] for manifest in manifests]
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def vocabulary_of(fields: dict) -> Vocabulary:
  """A vocabulary from its JSON. Raises TypeError where it is none."""
  splitting = dict(fields.get('splitting', {}))
  splitting['added'] = tuple(Added(**token) for token in splitting.get('added', ()))
  return Vocabulary(**(fields | {'splitting': Splitting(**splitting)}))


def read_manifest(directory: storage.PathLike) -> Manifest:
  """Raises DataError where there is no manifest, or not one of this format and version."""
  path = storage.path(directory) / MANIFEST
  foreign.check_kind(path)
  try:
    fields = json.loads(path.read_text())
    if fields.get('format') != FORMAT or fields.get('version') != VERSION:
      raise DataError(f'{path} has format {fields.get("format")!r} version {fields.get("version")!r}; '
                      f'wanted {FORMAT!r} version {VERSION}: run `bert-jax prepare` again')
    splits = {
        name: Split(**(split | {'shards': tuple(Shard(**shard) for shard in split['shards'])}))
        for name, split in fields['splits'].items()}
    return Manifest(**(fields | {'splits': splits, 'vocabulary': vocabulary_of(fields['vocabulary'])}))
  except DataError:
    raise
  except (FileNotFoundError, NotADirectoryError) as error:
    raise DataError(f'{directory} holds no {MANIFEST}, so it is not finished data of `bert-jax prepare`: '
                    'name such a directory with --data') from error
  except (ValueError, TypeError, KeyError, AttributeError, UnicodeDecodeError, RecursionError) as error:
    raise DataError(f'{path} is damaged ({type(error).__name__}: {error}): run `bert-jax prepare` again') from error

# ---------------------------------------------------------------- blocks


def block_features(block: Block) -> dict[str, bytes]:
  """The features of a block's tf.train.Example: each one bytes value, little-endian."""
  arrays = {name: getattr(block, name) for name in COLUMNS}
  return {name: array.astype(array.dtype.newbyteorder('<')).tobytes() for name, array in arrays.items()
          if array is not None}


def decode_block(record: bytes | memoryview, dtype: np.dtype) -> Block:
  """A block from a serialized tf.train.Example; `dtype` is `id_dtype` of the vocabulary. Raises DataError."""
  features = parse_example(record)
  try:
    block = Block(**{name: np.frombuffer(features[name], column.dtype or dtype)
                     for name, column in COLUMNS.items() if column.when is None or name in features})
  except (KeyError, ValueError) as error:
    raise DataError(f'a record is not a block of pieces: {type(error).__name__} {error}') from error
  if int(block.sentence_lengths.sum(dtype=np.int64)) != len(block.input_ids):
    raise DataError(f'a block of pieces contradicts itself: its lengths do not add up to {len(block.input_ids)} tokens')
  counts = {'piece': len(block.piece_sentences), 'sentence': int(block.piece_sentences.sum(dtype=np.int64)),
            'token': len(block.input_ids)}
  for name, column in COLUMNS.items():
    count, values = counts[column.per], getattr(block, name)
    wanted = -(-count // 8) if column.bits else count
    if values is not None and len(values) != wanted:
      raise DataError(f'a block of pieces contradicts itself: {name} has {len(values)} '
                      f'{"bytes" if column.bits else "values"}; wanted '
                      f'{wanted}, a {"bit" if column.bits else "value"} for each {column.per} ({count})')
  return block


def encode_block(block: Block) -> bytes:
  """A block as a serialized tf.train.Example, each feature one bytes value; as TensorFlow writes it, keys sorted."""
  features = [_field(1, name.encode()) + _field(2, _field(1, _field(1, value)))
              for name, value in sorted(block_features(block).items())]
  return _field(1, b''.join(_field(1, feature) for feature in features))


def _field(number: int, value: bytes) -> bytes:
  """A length-delimited field of a protocol buffer message."""
  length, size = bytearray(), len(value)
  while size > 0x7F:
    length.append(size & 0x7F | 0x80)
    size >>= 7
  return bytes([number << 3 | 2]) + length + bytes([size]) + value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
  value = shift = 0
  while True:
    byte = data[at]
    at += 1
    value |= (byte & 0x7F) << shift
    if byte < 0x80:
      return value, at
    shift += 7


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
  """The length-delimited fields of a protocol buffer message: all that a tf.train.Example of bytes has."""
  at = 0
  while at < len(data):
    tag, at = _varint(data, at)
    if tag & 7 != 2:
      raise DataError(f'a record is not a tf.train.Example of bytes: wire type {tag & 7}')
    length, at = _varint(data, at)
    if at + length > len(data):
      raise DataError('a record is not a tf.train.Example: a field ends after the record')
    yield tag >> 3, data[at:at + length]
    at += length


def parse_example(record: bytes | memoryview) -> dict[str, memoryview]:
  """{name: first bytes value} of a serialized tf.train.Example, without protobuf or TensorFlow."""
  values = {}
  try:
    for _, features in _fields(memoryview(record)):
      for _, entry in _fields(features):
        pair = dict(_fields(entry))  # 1: the name, 2: the Feature
        value = next((v for _, bytes_list in _fields(pair[2]) for _, v in _fields(bytes_list)), memoryview(b''))
        values[bytes(pair[1]).decode()] = value
  except (IndexError, KeyError, UnicodeDecodeError) as error:
    raise DataError(f'a record is not a tf.train.Example: {type(error).__name__} {error}') from error
  return values

# ---------------------------------------------------------------- framing


def frame(payload: bytes) -> bytes:
  """A record of a TFRecord file: length and payload, each with its checksum (tensorflow's record_writer.cc)."""
  length = struct.pack('<Q', len(payload))
  return b''.join([length, _checksum(length), payload, _checksum(payload)])


def _checksum(data: bytes) -> bytes:
  try:
    import google_crc32c  # here, as reading shards needs only NumPy
  except ImportError as error:
    raise DataError(f"writing shards needs google-crc32c ({error}): pip install 'bert_jax[text]'") from error
  crc = google_crc32c.value(data)
  return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)  # crc32c.h, Mask


def frame_spans(data: memoryview, name: str) -> list[tuple[int, int]]:
  """(start, length) of every record's payload in a TFRecord file, from its framing only.

  The checksums of the framing are not read: the manifest's SHA-256 of the whole file covers them. Lengths are checked
  before use, so a hostile length is an error and not a crash. Raises DataError.
  """
  spans, at = [], 0
  while at < len(data):
    if at + 12 > len(data):
      raise DataError(f'{name} is truncated: {len(data) - at} bytes are left for a header of 12 at byte {at}')
    length, = struct.unpack_from('<Q', data, at)
    if at + 16 + length > len(data):
      raise DataError(
          f'{name} is truncated or damaged: the record at byte {at} claims {length} bytes, {len(data) - at} are left')
    spans.append((at + 12, length))
    at += 16 + length
  return spans

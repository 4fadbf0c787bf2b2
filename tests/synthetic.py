"""Small shards of made-up pieces, written as `bert-jax prepare` writes them: a helper of the tests.

By default no two tokens of a split are the same, so a test can tell from a batch alone where every token came from.
"""

import hashlib
import json

import numpy as np
from etils import epath

from input_pipeline import random, records

SPECIALS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')


def vocabulary_tokens(size: int) -> list[str]:
  """Every fourth ordinary token continues a word."""
  return [*SPECIALS, *(f'##t{i}' if i % 4 == 3 else f'T{i}' for i in range(len(SPECIALS), size))]


def make_pieces(count: int, documents: int, room: int, rng: np.random.Generator, mean_sentence: int = 20):
  """[(document id, sentence lengths)]: runs of sentences of up to `room` tokens, one in five ends early."""
  pieces = []
  for i in range(count):
    sentences, used, limit = [], 0, room if rng.random() > .2 else int(rng.integers(2, room + 1))
    while True:
      length = int(min(rng.integers(2, 2 * mean_sentence), room))
      if sentences and used + length > limit:
        break
      sentences.append(length)
      used += length
    pieces.append((records.document_number(f'document {i * documents // count}'), sentences))
  return [pieces[i] for i in rng.permutation(count)]


def steady_pieces(count: int, documents: int, room: int):
  """As make_pieces, from NumPy's stable bit streams: for golden values."""
  draws = random.below(random.bits(random.key(0, 'pieces'), 0, 9 * count), room // 2).reshape(count, 9)
  pieces = []
  for number, *lengths in draws.tolist():
    ends = np.cumsum([2 + length // 2 for length in lengths])
    pieces.append((records.document_number(f'document {number * documents // room}'),
                   [2 + length // 2 for length in lengths][:max(1, int(np.searchsorted(ends, room, side='right')))]))
  return pieces


def make_block(pieces, ids: np.ndarray, static: bool = False) -> records.Block:
  lengths = [length for _, sentences in pieces for length in sentences]
  return records.Block(
      input_ids=ids, sentence_lengths=np.array(lengths, '<u2'),
      piece_sentences=np.array([len(sentences) for _, sentences in pieces], '<u2'),
      document_ids=np.array([document for document, _ in pieces], '<i4'),
      next_sentence_labels=np.arange(len(pieces)).astype('<u2') % 2 if static else None)


def write_shard(path: epath.Path, blocks: list[records.Block]) -> records.Shard:
  data = b''.join(records.frame(records.encode_block(block)) for block in blocks)
  path.write_bytes(data)
  return records.Shard(path.name, len(blocks), sum(len(b.piece_sentences) for b in blocks),
                       sum(len(b.input_ids) for b in blocks), len(data), hashlib.sha256(data).hexdigest())


def write_vocabulary(directory: epath.Path, size: int) -> records.Vocabulary:
  data = ('\n'.join(vocabulary_tokens(size)) + '\n').encode()
  (directory / records.VOCABULARY).write_bytes(data)
  return records.Vocabulary('wordpiece', size, hashlib.sha256(data).hexdigest(), True, 0, 1, 2, 3, 4)


def make_ids(total: int, vocabulary_size: int | None, rng: np.random.Generator) -> np.ndarray:
  """Running numbers, so that no token comes twice, or random ones of a vocabulary of that size."""
  if vocabulary_size is None:
    return np.arange(len(SPECIALS), len(SPECIALS) + total)
  return rng.integers(len(SPECIALS), vocabulary_size, total)


def write_data(directory, *, pieces: int = 600, documents: int = 50, shards: int = 3, sequence_length: int = 64,
               block: int = 64, vocabulary_size: int | None = None, pairs: str = 'dynamic',
               splits: tuple[str, ...] = ('train',), seed: int = 0, made: list | None = None, ids=None) -> epath.Path:
  """Writes DATA and returns its path. Blocks are dealt to shards in order.

  `made`, [(document, sentence lengths)], replaces the pieces, and `ids`, a function count -> ids, the tokens.
  """
  rng = np.random.default_rng(seed)
  directory = epath.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  split_fields, size = {}, vocabulary_size or 0
  contents = {}
  for split in splits:
    items = made or make_pieces(pieces, documents, sequence_length - 3, rng)
    if pairs == 'google':
      items = [(document, [s[0], sum(s[1:])] if len(s) > 1 else [s[0] - 1, 1]) for document, s in items]
    total = sum(sum(sentences) for _, sentences in items)
    contents[split] = items, make_ids(total, vocabulary_size, rng) if ids is None else ids(total)
    size = max(size, int(contents[split][1].max(initial=0)) + 1)
  dtype = records.id_dtype(size)
  for split, (items, ids) in contents.items():
    blocks, at = [], 0
    for start in range(0, len(items), block):
      part = items[start:start + block]
      tokens = sum(sum(sentences) for _, sentences in part)
      blocks.append(make_block(part, ids[at:at + tokens].astype(dtype), pairs == 'google'))
      at += tokens
    ends = np.arange(1, shards + 1) * len(blocks) // shards
    starts = [0, *ends[:-1]]
    written = tuple(write_shard(directory / records.shard_name(split, i, shards), blocks[a:b])
                    for i, (a, b) in enumerate(zip(starts, ends)))
    split_fields[split] = records.Split(len({d for d, _ in items}), len(items), sum(len(s) for _, s in items),
                                        len(ids), 0, written)
  records.write_manifest(directory, records.Manifest(
      sequence_length, pairs, write_vocabulary(directory, size), split_fields, settings={}, counts={}, packages={}))
  return directory


def rewrite_manifest(directory, change) -> None:
  """`change` edits the manifest's JSON object in place."""
  path = epath.Path(directory) / records.MANIFEST
  fields = json.loads(path.read_text())
  change(fields)
  path.write_text(json.dumps(fields))


def write_probed(directory, vocabulary_size: int):
  """What probes read: pairs.jsonl, of minimal pairs, and train.jsonl and validation.jsonl, whose classes are a word."""
  directory, draw = epath.Path(directory), np.random.default_rng(0)
  words = [token for token in vocabulary_tokens(vocabulary_size) if token.startswith('T')]
  text = lambda: ' '.join(draw.choice(words, 5))
  written = lambda lines: ''.join(json.dumps(line) + '\n' for line in lines)
  (directory / 'pairs.jsonl').write_text(written({'sentence_good': text(), 'sentence_bad': text()} for _ in range(9)))
  for split in ('train', 'validation'):
    lines = ({'text': f'{text()} {words[i % 2]}', 'label': 'ab'[i % 2]} for i in range(30))
    (directory / f'{split}.jsonl').write_text(written(lines))
  return directory

"""A small corpus of text, its data, and what its shards hold, for the tests of the way from text to shards."""

import json
import os
import pathlib
import random
from collections.abc import Iterator

import numpy as np

from input_pipeline import records
from input_pipeline.prepare import corpus, settings
from input_pipeline.vocabulary import tokenizer

WORDS = 'one two three four five six seven eight nine ten eleven twelve'.split()
TOKENS = [*tokenizer.SPECIAL, *WORDS, *(f'##{c}' for c in 'abcdefghijklmnopqrstuvwxyz'), *'abcdefghijklmnopqrstuvwxyz',
          '.', ',']


def text_of(number: int) -> str:
  draw = random.Random(number)
  return '\n'.join(' '.join(draw.choices([*WORDS, 'nineteen'], k=draw.randint(1, 25))) + '.'
                   for _ in range(draw.randint(1, 30)))


def make(folder: pathlib.Path) -> tuple[settings.Prepare, records.Manifest]:
  """A corpus of 300 documents, 10 of them twice, and the data of one worker."""
  (folder / 'corpus.txt').write_text('\n\n'.join(text_of(i % 290) for i in range(300)))
  (folder / 'vocab.txt').write_text('\n'.join(TOKENS) + '\n')
  prepare = settings.Prepare(
      str(folder / 'corpus.txt'), str(folder / 'vocab.txt'), str(folder / 'data'), sequence_length=32, shards=3,
      validation_share=0.1)
  return prepare, corpus.prepare(prepare, progress=False)


def write(draw: random.Random, folder: pathlib.Path) -> str:
  """Files of documents, some of them twice under other ids, and what `--input` calls them."""
  written = [str, str.upper, lambda text: text.replace('\n', '\r\n')]
  texts = [draw.choice(written)(draw.choice(['', 'one', 'one.', *map(text_of, range(12)),
                                             '\n'.join(map(text_of, range(60)))]))
           for _ in range(draw.choice([1, 3, 4, 8, 30]))]
  named = []
  for number in range(draw.randint(1, 3)):
    path = folder / f'{number}.jsonl'
    own = draw.choices(texts, k=draw.choice([0, 1, len(texts), 2 * len(texts)]))
    path.write_text(''.join(json.dumps({'id': draw.choice([None, draw.randint(0, 40)]), 'text': text}) + '\n'
                            for text in own))
    (folder / f'link-{number}.jsonl').symlink_to(path)
    weight = draw.choice(['', '', '=0.5', '=2.5'])
    own = draw.choice([[path], [path], [path, path], [path, folder / f'link-{number}.jsonl'],
                       [folder / f'*{number}.jsonl', path]])
    named += [f'{name}{weight}' for name in own]
  return ','.join(map(str, named)) + ','


def blocks(prepare: settings.Prepare, manifest: records.Manifest, split: str) -> Iterator[records.Block]:
  dtype = records.id_dtype(manifest.vocabulary.size)
  for shard in manifest.splits[split].shards:
    data = memoryview(open(os.path.join(prepare.output, shard.file), 'rb').read())
    for start, length in records.frame_spans(data, shard.file):
      yield records.decode_block(data[start:start + length], dtype)


def all_pieces(prepare: settings.Prepare, manifest: records.Manifest, split: str) -> Iterator[tuple[int, list[tuple]]]:
  """(document, sentences as tuples of ids) of every piece, in order."""
  for block in blocks(prepare, manifest, split):
    found = iter(np.split(block.input_ids, np.cumsum(block.sentence_lengths)[:-1]))
    for document, count in zip(block.document_ids, block.piece_sentences):
      yield int(document), [tuple(next(found).tolist()) for _ in range(count)]

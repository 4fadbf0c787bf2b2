"""Documents with the same tokens end as one, however they are written; where ids repeat, the text parts the splits."""

import collections
import json
import random
import unicodedata

import corpora
import hypothesis
import pytest
from hypothesis import given, strategies as st

from input_pipeline import counts, records
from input_pipeline.batches import loader
from input_pipeline.prepare import corpus, settings
from input_pipeline.text import sources
from input_pipeline.vocabulary import tokenizer

WRITTEN = {
    'as it is': str, 'capitals': str.upper,
    'line ends': lambda text: text.replace('\n', '\r\n'),
    'spaces': lambda text: text.replace(' ', '  ').replace('\n', ' \n'),
    'mark of byte order': lambda text: f'\ufeff{text}',
    'decomposed': lambda text: unicodedata.normalize('NFD', text),
    'wide spaces': lambda text: text.replace(' ', '\xa0'),
    'paragraphs': lambda text: text.replace('\n', '\n\n'),
    'one line': lambda text: text.replace('\n', ' ')}


def town(number: int) -> str:
  return f'The café {corpora.WORDS[number % 12]} of {number} lies on a river.\nIt has {37 * number} people.\nOn Friday.'


def prepare(folder, documents: list[dict], name='data', **chosen) -> tuple[settings.Prepare, records.Manifest]:
  (folder / f'{name}.jsonl').write_text('\n'.join(map(json.dumps, documents)))
  letters = 'abcdefghijklmnopqrstuvwxyz0123456789'
  (folder / 'vocab.txt').write_text('\n'.join([*tokenizer.SPECIAL, *letters, *(f'##{c}' for c in letters), '.']) + '\n')
  made = settings.Prepare(str(folder / f'{name}.jsonl'), str(folder / 'vocab.txt'), str(folder / name), **{
      'sequence_length': 32, 'validation_share': 0.3, **chosen})
  return made, corpus.prepare(made, progress=False)


def ids_by_split(made: settings.Prepare, manifest: records.Manifest) -> dict[str, collections.Counter]:
  """How often each document's tokens stand in each split."""
  found = {}
  for split in manifest.splits:
    tokens = collections.defaultdict(list)
    for document, piece in corpora.all_pieces(made, manifest, split):
      tokens[document].append(piece)
    found[split] = collections.Counter(tuple(sorted(map(str, pieces))) for pieces in tokens.values())
  return found


@pytest.mark.parametrize('kind', WRITTEN)
def test_a_document_that_is_written_in_two_ways_is_one(tmp_path, kind):
  texts = [WRITTEN[kind](town(i)) for i in range(40)] + [town(i) for i in range(60)]
  made, manifest = prepare(tmp_path, [{'id': i, 'text': text} for i, text in enumerate(texts)])
  assert (manifest.counts['documents'], manifest.counts['duplicates']) == (60, 40)
  train, validation = ids_by_split(made, manifest).values()
  assert not train & validation and max((train + validation).values()) == 1


@hypothesis.settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from([*WRITTEN]), st.sampled_from([None, 'a', 'b', 1, 2, 3])),
                min_size=3, max_size=40),
       st.integers(0, 100))
def test_no_two_documents_have_the_same_tokens(tmp_path_factory, drawn, seed):
  """And neither the order of the documents nor the number of workers changes what stays."""
  documents = [{'text': WRITTEN[kind](town(number))} | ({} if id_ is None else {'id': id_})
               for number, kind, id_ in drawn]
  distinct = len({number for number, _, _ in drawn})
  folder, draw = tmp_path_factory.mktemp('corpus'), random.Random(seed)
  found = []
  for name in ('a', 'b'):
    try:
      made, manifest = prepare(folder, documents, name, shards=1)
    except records.DataError as error:
      assert distinct < 2 or 'holds out all' in str(error)
      return
    assert sum(split.documents for split in manifest.splits.values()) == distinct
    assert not counts.documents(manifest).unexplained
    found.append([shard.sha256 for split in manifest.splits.values() for shard in split.shards])
    draw.shuffle(documents)
  assert found[0] == found[1]


@pytest.mark.parametrize('ids', [['wiki', 'books', 'news'], ['same'], [None, 'same']])
@pytest.mark.parametrize('pairs', records.PAIRS)
def test_ids_that_repeat(tmp_path, monkeypatch, ids, pairs):
  """The splits are of the size that was asked for, pairs are of different documents, and it is said."""
  monkeypatch.setattr(sources, 'CHUNK_BYTES', 1500)
  documents = [{'id': ids[i % len(ids)], 'text': town(i)} for i in range(200)]
  found = []
  for workers in (1, 2):
    made, manifest = prepare(tmp_path, documents, f'data{workers}', validation_share=0.1, pairs=pairs, workers=workers)
    repeated = sum(document['id'] is not None for document in documents)
    assert manifest.counts['repeated_ids'] == repeated
    assert [text.partition(', so')[0] for text in counts.warnings(manifest)] == [
        f'{repeated} documents have an id that others have too']
    assert 8 < manifest.splits['validation'].documents < 36
    for name, split in manifest.splits.items():
      assert split.documents == len({document for document, _ in corpora.all_pieces(made, manifest, name)})
    found.append([shard.sha256 for split in manifest.splits.values() for shard in split.shards])
    if pairs == 'dynamic':
      loader.open_split(made.output, 'train', loader.BatchConfig(sequence_length=32, predictions=5)).rows(0, 10)
  assert found[0] == found[1]


def test_an_id_that_repeats_moves_no_document_with_one_of_its_own(tmp_path):
  own = [{'id': i, 'text': town(i)} for i in range(100)]
  before = ids_by_split(*prepare(tmp_path, own, 'before'))
  after = ids_by_split(*prepare(tmp_path, [*own, *({'id': 'same', 'text': town(i)} for i in range(100, 130))], 'after'))
  assert all(before[split] <= after[split] for split in before)


def test_a_weight_takes_of_documents_with_one_id_as_many_as_it_says(tmp_path):
  documents = [{'id': 'same', 'text': town(i)} for i in range(300)]
  (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, documents)))
  taken = len(list(sources.documents(f'{tmp_path}/a.jsonl=0.3,')))
  assert 60 < taken < 120

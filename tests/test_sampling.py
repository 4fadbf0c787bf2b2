"""What --limit draws does not depend on files, order or chunks, is of the size that was asked for, and is a sample."""

import collections
import json
import os
import random

import corpora
import numpy as np
import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from input_pipeline import records
from input_pipeline.prepare import corpus, settings
from input_pipeline.text import document, sampling, sources
from input_pipeline.vocabulary import training


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=30), max_size=6), st.integers(1, 40))
def test_the_smallest_of_parts_are_those_of_all(parts, limit):
  arrays = [np.array(part, '<u8') for part in parts]
  wanted = sorted({number for part in parts for number in part})[:limit]
  assert sampling.smallest(arrays, limit).tolist() == wanted
  halves = [sampling.smallest(arrays[:3], limit), sampling.smallest(arrays[3:], limit)]
  assert sampling.smallest(halves, limit).tolist() == wanted
  bound = sampling.below(np.array(wanted, '<u8'), limit)
  assert sum(number < bound for number in {number for part in parts for number in part}) == len(wanted)


def test_the_smallest_of_many_parts_take_little_room(monkeypatch):
  monkeypatch.setattr(sampling, '_HELD', 100)
  draw = np.random.default_rng(0)
  keys = draw.integers(0, 2**64, 20_000, np.uint64)
  assert sampling.smallest(np.split(keys, 400), 150).tolist() == np.unique(keys)[:150].tolist()


def write(folder, documents: list[tuple], files: int, draw: random.Random) -> str:
  draw.shuffle(documents)
  for number in range(files):
    (folder / f'{number}.jsonl').write_text(''.join(
        json.dumps({'id': id_, 'text': text}) + '\n' for id_, text in documents[number::files]))
  return ','.join(str(folder / f'{number}.jsonl') for number in range(files))


@hypothesis_settings(deadline=None, max_examples=20)
@given(st.integers(0, 60), st.integers(2, 80), st.integers(0, 3), st.integers(0, 2**20))
def test_a_sample_is_of_documents_and_not_of_files(tmp_path_factory, count, limit, seed, order):
  folder, draw = tmp_path_factory.mktemp('sample'), random.Random(order)
  documents = [(number % 50, corpora.text_of(number % 50)) for number in range(count)]
  found = set()
  for files in (1, 3):
    parts = sources.mixture(write(folder, documents, files, draw))
    drawn = list(sampling.documents(parts, limit, None, seed))
    assert len(set(drawn)) == min(limit, 50, count)  # copies come along
    assert all(drawn.count(one) == 1 + (int(one.id) + 50 < count) for one in set(drawn))
    found.add(frozenset(drawn))
  assert len(found) == 1


def test_each_document_is_drawn_alike_and_another_seed_draws_others():
  documents = [document.Document(str(number), '', 'A text.') for number in range(4000)]
  keys = np.array([[sampling.key(one, seed) for one in documents] for seed in (0, 1)], np.float64) / 2**64
  assert abs(keys.mean() - 0.5) < 0.02 and abs(np.corrcoef(keys)[0, 1]) < 0.05
  assert abs((keys[0][:2000] < 0.1).mean() - 0.1) < 0.025  # of those that come first as many as of the others


def prepare(folder, input: str, name: str, **chosen) -> records.Manifest:
  (folder / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  return corpus.prepare(settings.Prepare(input, str(folder / 'vocab.txt'), str(folder / name), sequence_length=32,
                                         **chosen), progress=False)


def test_the_first_and_a_sample_are_other_data(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, 'CHUNK_BYTES', 3000)
  input = write(tmp_path, [(number, corpora.text_of(number)) for number in range(60)], 1, random.Random(0))
  first, drawn = prepare(tmp_path, input, 'first', first=9), prepare(tmp_path, input, 'drawn', limit=9)
  assert first.counts['documents'] == drawn.counts['documents'] == 9 and first.splits != drawn.splits
  assert drawn.counts['beyond_limit'] == 51 and drawn.counts['pages'] == 60 and first.counts['pages'] < 30
  assert prepare(tmp_path, input, 'first', first=9, workers=2) == first
  with pytest.raises(records.DataError, match='first holds data of other settings .first: 9 there, None asked for'):
    prepare(tmp_path, input, 'first', limit=9)


def test_settings_that_do_not_go_together(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  with pytest.raises(records.DataError, match='--limit draws from all documents and --first takes the first'):
    prepare(tmp_path, 'sample', 'data', limit=9, first=9)
  with pytest.raises(records.DataError, match='--limit reads the text twice, and --input .*pipe can be read only once'):
    prepare(tmp_path, str(tmp_path / 'pipe'), 'data', limit=9)
  with pytest.raises(records.DataError, match=r'--limit is 8388609: .* at most 8,388,608'):
    prepare(tmp_path, 'sample', 'data', limit=sampling.MOST + 1)


def test_a_weight_comes_before_the_sample(tmp_path):
  input = write(tmp_path, [(number, corpora.text_of(number)) for number in range(60)], 1, random.Random(0))
  counts = prepare(tmp_path, f'{input}=0.5,', 'data', limit=9).counts
  assert counts['documents'] == 9 and counts['left_out'] + counts['beyond_limit'] == 51 and counts['left_out'] > 15


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=30), st.integers(1, 40), st.integers(0, 9))
def test_lines_are_those_of_whole_documents_that_a_hash_draws(drawn, most, order):
  documents = [document.Document(f'{place}', '', '\n'.join(f'Line {line} of {number}.' for line in range(lines)))
               for place, (number, lines) in enumerate(drawn)]
  found = list(sampling.lines(documents, 0, most))
  shuffled = random.Random(order).sample(documents, len(documents))
  assert collections.Counter(sampling.lines(shuffled, 0, most)) == collections.Counter(found)
  every = [line for one in documents for line in one.text.split('\n') if line]
  assert list(sampling.lines(documents, 0)) == every
  if len(every) <= most:
    assert found == every
  else:
    assert len(found) <= max(most, 5) and found


def test_a_vocabulary_of_a_sample(tmp_path):
  made = []
  for files in (1, 4):
    input = write(tmp_path, [(number, corpora.text_of(number)) for number in range(60)], files, random.Random(files))
    training.train_from(training.VocabularySettings(input, str(tmp_path / f'{files}.txt'), size=50, limit=20))
    made.append((tmp_path / f'{files}.txt').read_text())
  assert made[0] == made[1]
  with pytest.raises(records.DataError, match='holds no text'):
    (tmp_path / 'empty.jsonl').write_text('{"text": " "}')
    training.train_from(training.VocabularySettings(str(tmp_path / 'empty.jsonl'), str(tmp_path / 'no.txt'), limit=2))

"""Processes, Beam and Ray give the same manifest and shards, byte for byte, or the same sentence, for any corpus."""

import dataclasses
import functools
import json
import pathlib
import random
import re
import shutil

import corpora
import pytest

from input_pipeline import records
from input_pipeline.prepare import beam_near, corpus, near_duplicates, on_ray, portions, ray_plan, settings, spreading
from input_pipeline.text import sampling, sources

# What is compared with one process: the settings of each.
OTHERS = {'two processes': {'workers': 2}, 'Beam': {'engine': 'beam'}, 'Beam, two workers': {'engine': 'beam'},
          'Ray, two nodes': {'engine': 'ray'}}
LOG = re.compile(r' \(more in [^ ]*\)$')
WRONG = ('1 document with text', '0 documents with text', 'holds out all', 'lower --shards', 'with the weights')


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A place for a corpus, whose text travels in small chunks, so that there are many runs; files are divided."""
  monkeypatch.setattr(sources, 'CHUNK_BYTES', 1500)
  monkeypatch.setattr(sources, 'SECTION_BYTES', 4000)
  sizes = functools.partial(ray_plan.Sizes, run=3000, value=20_000, fan=2, least=1, part_tokens=900)
  monkeypatch.setattr(on_ray, 'Sizes', sizes)
  (tmp_path / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  return tmp_path


def made_by(engine: str, folder: pathlib.Path, input: str, arguments=(), **chosen) -> dict[str, bytes] | str:
  """The files that an engine writes, or the sentence by which it refuses."""
  output = folder / 'data' / engine.replace(' ', '-')
  shutil.rmtree(output, ignore_errors=True)
  prepare = settings.Prepare(input, str(folder / 'vocab.txt'), str(output), sequence_length=32, **chosen,
                             **OTHERS.get(engine, {}))
  try:
    corpus.prepare(prepare, progress=False, arguments=arguments)
  except records.DataError as error:
    assert not output.exists() and '\n' not in str(error)
    return LOG.sub('', str(error))
  finally:
    assert not [path.name for path in output.parent.glob('.*')]
  return {path.name: path.read_bytes() for path in output.iterdir()}


def same_by(other, folder: pathlib.Path, input: str, **chosen) -> dict[str, bytes] | str:
  """What one process makes, and the other engine too, byte for byte."""
  first = made_by('one process', folder, input, **chosen)
  engine, arguments = other
  second = made_by(engine, folder, input, arguments, **chosen)
  if isinstance(first, str) or isinstance(second, str):
    assert second == first
  else:
    assert second.keys() == first.keys() and [name for name in first if second[name] != first[name]] == []
  return first


@pytest.mark.parametrize('seed', range(10))
def test_random_corpora(other, folder, seed):
  draw = random.Random(seed)
  input = corpora.write(draw, folder)
  made = same_by(other, folder, input, validation_share=draw.choice([0, 0.1, 0.3, 0.5]),
                     shards=draw.choice([None, None, 2]), seed=seed)
  assert not isinstance(made, str) or any(sentence in made for sentence in WRONG), made


@pytest.mark.parametrize('seed', [2, 6])
def test_random_corpora_on_a_cluster(on_cluster, folder, seed):
  test_random_corpora(on_cluster, folder, seed)


def write_near_copies(draw: random.Random, folder: pathlib.Path) -> str:
  """Documents of which many are a little changed, some several times, some copied; ids that repeat; empty ones."""
  texts = [corpora.text_of(number) for number in range(draw.choice([1, 5, 15]))] + ['', 'one.']
  lines = []
  for number in range(draw.choice([3, 40, 120])):
    words = draw.choice(texts).split(' ')
    for _ in range(draw.choice([0, 1, 1, 2, 5])):
      words[draw.randrange(len(words))] = draw.choice(['one', 'two', 'nineteen'])
    lines.append(json.dumps({'id': draw.choice([number, draw.randint(0, 40)]), 'text': ' '.join(words)}) + '\n')
  place = draw.randint(0, len(lines))
  (folder / 'a.jsonl').write_text(''.join(lines[:place]))
  (folder / 'b.jsonl').write_text(''.join(lines[place:]))
  return f'{folder}/a.jsonl,{folder}/b.jsonl'


@pytest.mark.parametrize('seed', [0, 2, 3])
def test_near_duplicates_of_random_corpora(other, folder, seed, monkeypatch):
  """By rows of documents in one part and in many: the same ones go."""
  draw = random.Random(2000 + seed)
  monkeypatch.setattr(beam_near, 'PART_BYTES', draw.choice([10_000, 32 << 20]))
  made = same_by(other, folder, write_near_copies(draw, folder), near_duplicates=draw.choice([0.5, 0.8]), seed=seed,
                 validation_share=draw.choice([0, 0.3]))
  assert manifest_of(made)['counts']['near_duplicates'] > 0


def test_near_duplicates_on_a_cluster(on_cluster, folder, monkeypatch):
  test_near_duplicates_of_random_corpora(on_cluster, folder, 3, monkeypatch)


def test_near_duplicates_of_one_template(other, folder, monkeypatch):
  """What many documents share a band with is in several slices."""
  draw, cut = random.Random(5), []
  def cuts(some, part_bytes, cuts=near_duplicates.cuts):
    cut.append(cuts(some, part_bytes))
    return cut[-1]
  monkeypatch.setattr(beam_near, 'PART_BYTES', 10_000)
  monkeypatch.setattr(on_ray, 'Sizes', functools.partial(on_ray.Sizes, value=10_000))
  monkeypatch.setattr(near_duplicates, 'cuts', cuts)
  lines = []
  for number in range(200):
    words = corpora.text_of(7 if number % 4 else number).split(' ')
    for _ in range(draw.choice([1, 2, 5])):
      words[draw.randrange(len(words))] = draw.choice(['one', 'two', 'nineteen'])
    lines.append(json.dumps({'id': number, 'text': ' '.join(words)}))
  (folder / 'a.jsonl').write_text('\n'.join(lines))
  counts = manifest_of(same_by(other, folder, str(folder / 'a.jsonl'), near_duplicates=0.9))['counts']
  assert counts['near_duplicates'] > 20
  assert sum(map(len, cut)) > 20 or other[0] != 'Beam'  # whose workers are this process; on Ray cuts are the same


def test_near_duplicates_of_one_template_on_a_cluster(on_cluster, folder, monkeypatch):
  test_near_duplicates_of_one_template(on_cluster, folder, monkeypatch)


@pytest.mark.parametrize('limit', [25, 10_000])
def test_a_sample_is_the_same_by_every_engine(other, folder, limit):
  """And what is drawn of it, whatever the files and their order; a document that is there often is drawn once."""
  lines = [json.dumps({'id': number % 40, 'text': corpora.text_of(number % 40)}) for number in range(120)]
  (folder / 'a.jsonl').write_text('\n'.join(lines[:70]))
  (folder / 'b.jsonl').write_text('\n'.join(lines[70:]))
  made = same_by(other, folder, f'{folder}/a.jsonl,{folder}/b.jsonl', limit=limit, validation_share=0., seed=limit)
  counts = manifest_of(made)['counts']
  assert counts['documents'] == min(limit, 40) and counts['duplicates'] == 2 * min(limit, 40)
  assert counts.get('beyond_limit', 0) == 120 - 3 * min(limit, 40)
  random.Random(limit).shuffle(lines)
  (folder / 'all.jsonl').write_text('\n'.join(lines))
  again = made_by('one process', folder, f'{folder}/all.jsonl', limit=limit, validation_share=0., seed=limit)
  assert [made[name] for name in made if 'train' in name] == [again[name] for name in again if 'train' in name]


@pytest.mark.parametrize('seed', range(3))
def test_samples_of_random_corpora(other, folder, seed):
  """Of weights, repeated ids and texts, empty files: as many as there are, or some of them."""
  draw = random.Random(1000 + seed)
  made = same_by(other, folder, corpora.write(draw, folder), validation_share=draw.choice([0, 0.3]), seed=seed,
                 limit=draw.choice([2, 5, 20, 10**6]))
  assert not isinstance(made, str) or any(sentence in made for sentence in WRONG), made


@pytest.mark.parametrize('seed', [1, 2])
def test_samples_of_random_corpora_on_a_cluster(on_cluster, folder, seed, monkeypatch):
  monkeypatch.setattr(sampling, '_HELD', 3)
  test_samples_of_random_corpora(on_cluster, folder, seed)
  test_a_sample_is_the_same_by_every_engine(on_cluster, folder, 25)


def test_one_text_many_times(other, folder):
  """In one run and in many: what stays is the one of the smallest rank."""
  draw = random.Random(3)
  lines = [json.dumps({'id': number, 'text': corpora.text_of(7 if draw.random() < 0.9 else number)})
           for number in range(200)]
  (folder / 'a.jsonl').write_text('\n'.join(lines))
  counts = manifest_of(same_by(other, folder, str(folder / 'a.jsonl'), validation_share=0.2))['counts']
  assert 160 < counts['duplicates'] == 200 - counts['documents']


def test_a_shard_of_many_portions(other, folder, monkeypatch):
  """--shards that asks for fewer than the usual size: each is merged in portions, and these part by part."""
  (folder / 'a.txt').write_text('\n\n'.join(map(corpora.text_of, range(40))))
  monkeypatch.setattr(sources, 'CHUNK_BYTES', 9000)
  whole = made_by('one process', folder, str(folder / 'a.txt'), shards=1, validation_share=0.3)
  monkeypatch.setattr(portions, 'TOKENS', 2000)
  monkeypatch.setattr(portions, 'PART_TOKENS', 300)
  made = same_by(other, folder, str(folder / 'a.txt'), shards=1, validation_share=0.3)
  assert manifest_of(made)['splits']['train']['tokens'] > 3 * 2000
  assert made == whole


@pytest.mark.parametrize('value, least', [(0, 0), (2000, 10**9), (20_000, 10**9)])
def test_many_shards(other, folder, monkeypatch, value, least):
  """In one round, and in two by few slices and bundles or by many."""
  (folder / 'a.txt').write_text('\n\n'.join(map(corpora.text_of, range(60))))
  monkeypatch.setattr(spreading, 'LEAST', 0)
  whole = made_by('one process', folder, str(folder / 'a.txt'), shards=40, validation_share=0.3)
  monkeypatch.setattr(spreading, 'LEAST', least)
  monkeypatch.setattr(spreading, 'VALUE', value)
  monkeypatch.setattr(portions, 'TOKENS', 50)  # several portions of a shard
  assert same_by(other, folder, str(folder / 'a.txt'), shards=40, validation_share=0.3) == whole
  assert len(manifest_of(whole)['splits']['train']['shards']) == 40


@pytest.mark.parametrize('on_cluster', [pytest.param('Beam, two workers', marks=pytest.mark.beam)], indirect=True)
def test_many_shards_on_a_cluster(on_cluster, folder):
  (folder / 'a.txt').write_text('\n\n'.join(map(corpora.text_of, range(60))))
  assert records.MANIFEST in same_by(on_cluster, folder, str(folder / 'a.txt'), shards=20, validation_share=0.3)


def test_ids_that_repeat(other, folder):
  lines = [json.dumps({'id': number % 3, 'text': corpora.text_of(number)}) for number in range(90)]
  (folder / 'a.jsonl').write_text('\n'.join([*lines, json.dumps({'id': 9, 'text': corpora.text_of(5)})]))
  made = manifest_of(same_by(other, folder, str(folder / 'a.jsonl'), validation_share=0.2))
  assert (made['counts']['duplicates'], made['counts']['repeated_ids']) in ((1, 90), (1, 89))
  assert 8 < made['splits']['validation']['documents'] < 32


def manifest_of(made: dict[str, bytes]) -> dict:
  return json.loads(made[records.MANIFEST])


def test_many_documents_at_the_threshold(other, folder):
  """Which documents are held out, and which duplicate stays, hang on the order of ranks: 400 texts under two ids."""
  lines = [json.dumps({'id': number, 'text': corpora.text_of(number % 400)[:300]}) for number in range(800)]
  (folder / 'a.jsonl').write_text('\n'.join(lines))
  splits = manifest_of(same_by(other, folder, str(folder / 'a.jsonl'), validation_share=0.3))['splits']
  assert splits['train']['documents'] + splits['validation']['documents'] == 400
  assert 160 < splits['validation']['documents'] < 250  # of two ids the smaller counts: 1 - 0.7² of the texts


@pytest.mark.parametrize('count, held', [(3, 1), (8, 2)])
def test_at_least_two_documents_are_held_out_or_one_of_three(other, folder, count, held):
  (folder / 'a.txt').write_text('\n\n'.join(map(corpora.text_of, range(count))))
  splits = manifest_of(same_by(other, folder, str(folder / 'a.txt'), validation_share=0.001))['splits']
  assert (splits['train']['documents'], splits['validation']['documents']) == (count - held, held)


def test_a_file_that_is_named_twice_is_read_once(other, folder, capsys):
  a, link, hard = folder / 'a.text', folder / 'b.text', folder / 'c.text'
  a.write_text('\n\n'.join(map(corpora.text_of, range(30))))
  link.symlink_to(a)
  hard.hardlink_to(a)
  once = same_by(other, folder, str(a))
  counts = manifest_of(once)['counts']
  assert (counts['pages'], counts['documents'], counts['duplicates']) == (30, 30, 0)
  for again in (f'{a},{a}', f'{folder}/?.text,{folder}/a*', f'{link},{hard}'):
    capsys.readouterr()
    made = same_by(other, folder, again)
    assert {name: data for name, data in made.items() if name != records.MANIFEST} == {
        name: data for name, data in once.items() if name != records.MANIFEST}
    assert manifest_of(made)['counts'] == counts
    said = capsys.readouterr().err
    assert re.search(r'--input names .* (2|4) times( \(also as .*\))?: each is read once', said), said


def test_weights_that_contradict_are_refused(other, folder):
  (folder / 'a.txt').write_text('\n\n'.join(map(corpora.text_of, range(30))))
  (folder / 'b.txt').write_bytes((folder / 'a.txt').read_bytes())
  found = same_by(other, folder, f'{folder}/a.txt=2,{folder}/?.txt')
  assert 'a.txt with the weights 2 and 1' in found
  # another file of the same text: its first copy stays
  copied = same_by(other, folder, f'{folder}/b.txt=2,{folder}/a.txt')
  assert manifest_of(copied)['counts']['duplicates'] == 30


def test_an_empty_train_split_is_an_error(other, folder):
  """Of three documents at least one is held out; where their ranks are all in the lower half, a share of 0.5 holds out
  all."""
  for number in range(100):
    lines = [json.dumps({'id': 3 * number + place, 'text': corpora.text_of(place)}) for place in range(3)]
    (folder / 'a.jsonl').write_text('\n'.join(lines))
    made = made_by('one process', folder, str(folder / 'a.jsonl'), validation_share=0.5)
    if isinstance(made, str):
      break
    assert manifest_of(made)['splits']['train']['pieces']
  else:
    raise AssertionError('no three documents were all held out')
  assert 'holds out all 3 documents' in made
  assert same_by(other, folder, str(folder / 'a.jsonl'), validation_share=0.5) == made


def test_google_pairs_of_a_split_of_one_document_are_refused(folder):
  (folder / 'a.txt').write_text('\n\n'.join(map(corpora.text_of, range(3))))
  found = made_by('one process', folder, str(folder / 'a.txt'), validation_share=0.001, pairs='google')
  assert 'the validation split holds one document' in found
  assert records.MANIFEST in made_by('one process', folder, str(folder / 'a.txt'), validation_share=0., pairs='google')


@pytest.mark.parametrize('change, message', [
    ({'dupe_factor': 5}, '--dupe-factor has no effect: it needs --pairs google'),
    ({'engine': 'beam', 'workers': 4}, '--workers does not go with --engine beam'),
    ({'engine': 'beam', 'first': 9}, '--first does not go with --engine beam'),
    ({'engine': 'beam', 'pairs': 'google'}, '--pairs does not go with --engine beam'),
    ({'engine': 'ray', 'workers': 4}, '--workers does not go with --engine ray'),
    ({'engine': 'ray', 'first': 9}, '--first does not go with --engine ray'),
    ({'engine': 'dask'}, '--engine dask: wanted one of processes, beam, ray'),
    ({'pairs': 'foo'}, '--pairs foo: wanted one of dynamic, google'),
    ({'format': 'pdf'}, '--format pdf: wanted one of mediawiki'),
    ({'words': 'foo'}, '--words'), ({'seed': 2**63}, '--seed')])
def test_what_would_have_no_effect_is_refused(change, message):
  with pytest.raises(records.DataError, match=message):
    settings.Prepare('corpus.txt', 'vocab.txt', 'data', **change)
  assert dataclasses.replace(settings.Prepare('corpus.txt', 'vocab.txt', 'data', pairs='google'), dupe_factor=5)

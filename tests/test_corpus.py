"""Shards hold every token once, do not depend on workers, are published whole, and an unusable corpus leaves
nothing."""

import collections
import dataclasses
import hashlib
import os

import corpora
import numpy as np
import pytest
from hypothesis import given, strategies as st

from input_pipeline import records
from input_pipeline.engines import staging
from input_pipeline.prepare import corpus, pieces, stages
from input_pipeline.text import formats, sentences, sources
from input_pipeline.vocabulary import tokenizer


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  return corpora.make(tmp_path_factory.mktemp('corpus'))


def test_every_sentence_of_every_document_once(made):
  prepare, manifest = made
  vocabulary = tokenizer.load(prepare.vocabulary)
  wanted = collections.Counter()
  texts = {d.text: d for d in sources.documents(prepare.input)}
  for document in texts.values():
    for ids in vocabulary.encode(sentences.split(document.text)):
      wanted.update([(records.document_number(document.id), token) for token in ids.tolist()])
  found = collections.Counter()
  for split in manifest.splits:
    for document, piece in corpora.all_pieces(prepare, manifest, split):
      found.update((document, token) for sentence in piece for token in sentence)
      assert 2 <= sum(map(len, piece)) <= prepare.sequence_length - 3
  assert found.total() == wanted.total() - manifest.counts['dropped_tokens']
  assert not found - wanted
  assert (manifest.counts['documents'], manifest.counts['duplicates']) == (290, 10)


def test_the_manifest_tells_the_truth(made):
  prepare, manifest = made
  assert records.read_manifest(prepare.output) == manifest
  for name, split in manifest.splits.items():
    found = list(corpora.blocks(prepare, manifest, name))
    assert split.pieces == sum(len(block.document_ids) for block in found)
    assert split.pieces == sum(shard.pieces for shard in split.shards)
    assert split.tokens == sum(len(block.input_ids) for block in found)
    assert split.sentences == sum(len(block.sentence_lengths) for block in found)
    assert split.documents == len(np.unique(np.concatenate([block.document_ids for block in found])))
    assert split.unknown_tokens == sum(int((block.input_ids == 1).sum()) for block in found)
    for shard in split.shards:
      data = open(os.path.join(prepare.output, shard.file), 'rb').read()
      assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
      assert len(records.frame_spans(memoryview(data), '')) == shard.records
  assert manifest.vocabulary.sha256 == hashlib.sha256(open(os.path.join(prepare.output, 'vocab.txt'),
                                                           'rb').read()).hexdigest()
  assert sum(split.documents for split in manifest.splits.values()) == manifest.counts['documents']


GOLDEN = {  # SHA-256 of each shard: a change of them is a change of everyone's data
    'dynamic': ['1de4a019b736cd24', '9853585a33d1cbf0', 'bf3130ae8f1aba01', 'f07a7cedda0342b2'],
    'google': ['25e6131ff5237435', '6fa149a91abaa013', '74c630ce65d0042f', 'e9bdae5f6b3d6dd7']}


@pytest.mark.parametrize('pairs', records.PAIRS)
def test_shards_are_those_that_they_always_were(made, tmp_path, pairs):
  chosen = {'dupe_factor': 3} if pairs == 'google' else {}
  prepare = dataclasses.replace(made[0], output=str(tmp_path / 'data'), pairs=pairs, **chosen)
  splits = corpus.prepare(prepare, progress=False).splits
  assert [shard.sha256[:16] for split in splits.values() for shard in split.shards] == GOLDEN[pairs]


def test_splits_share_no_document_and_shuffle_all(made):
  prepare, manifest = made
  documents = {name: [document for document, _ in corpora.all_pieces(prepare, manifest, name)]
               for name in manifest.splits}
  assert not set(documents['train']) & set(documents['validation'])
  neighbours = np.mean(np.diff(documents['train']) == 0)
  assert neighbours < 0.05  # in the order of the source nearly all neighbours are of one document


def test_workers_and_chunks_leave_no_trace(made, tmp_path, monkeypatch):
  prepare, manifest = made
  monkeypatch.setattr(sources, 'CHUNK_BYTES', 10_000)
  for workers in (1, 2, 3):
    other = dataclasses.replace(prepare, output=str(tmp_path / f'data{workers}'), workers=workers)
    assert corpus.prepare(other, progress=False).splits == manifest.splits


def test_tfds_reads_it(made):
  tfds = pytest.importorskip('tensorflow_datasets')
  prepare, manifest = made
  for split in manifest.splits:
    read = [example['input_ids'].numpy()
            for example in tfds.builder_from_directory(prepare.output).as_dataset(split=split)]
    ours = [block.input_ids for block in corpora.blocks(prepare, manifest, split)]
    assert len(read) == len(ours) and all(map(np.array_equal, sorted(read, key=bytes), sorted(ours, key=bytes)))


def test_a_second_run_finds_the_data_and_others_are_refused(made, tmp_path):
  prepare, manifest = made
  before = os.stat(os.path.join(prepare.output, records.MANIFEST)).st_mtime_ns
  assert corpus.prepare(dataclasses.replace(prepare, workers=2), progress=False) == manifest
  assert os.stat(os.path.join(prepare.output, records.MANIFEST)).st_mtime_ns == before
  with pytest.raises(records.DataError, match='sequence_length: 32 there, 64 asked for'):
    corpus.prepare(dataclasses.replace(prepare, sequence_length=64), progress=False)
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'thesis.txt').write_text('years of work')
  for overwrite in (False, True):
    with pytest.raises(records.DataError, match='was not made by'):
      corpus.prepare(dataclasses.replace(prepare, output=str(tmp_path / 'mine'), overwrite=overwrite), progress=False)
  assert (tmp_path / 'mine' / 'thesis.txt').read_text() == 'years of work'


def test_overwrite_replaces_our_data_and_leftovers_of_the_dead_go(made, tmp_path):
  prepare, _ = made
  again = dataclasses.replace(prepare, output=str(tmp_path / 'data'))
  corpus.prepare(again, progress=False)
  dead = tmp_path / f'.data.{staging.socket.gethostname()}.999999999.partial'
  dead.mkdir()
  replaced = corpus.prepare(dataclasses.replace(again, seed=1, overwrite=True), progress=False)
  assert records.read_manifest(tmp_path / 'data') == replaced
  assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_documents_that_are_added_move_no_other(made, tmp_path):
  prepare, manifest = made
  more = [corpora.text_of(i) for i in range(1000, 1100)]
  (tmp_path / 'more.txt').write_text('\n\n'.join([*more, open(prepare.input).read()]))
  more = dataclasses.replace(prepare, input=str(tmp_path / 'more.txt'), output=str(tmp_path / 'data'))
  after = corpus.prepare(more, progress=False)
  for split in ('train', 'validation'):
    before = {document for document, _ in corpora.all_pieces(prepare, manifest, split)}
    assert before <= {document for document, _ in corpora.all_pieces(more, after, split)}


@pytest.mark.parametrize('texts, pairs, message', [
    ([], 'dynamic', '0 documents with text'), (['One only.\nIt has two lines.'], 'google', '1 document with text'),
    (['Same.'] * 3, 'google', '2 duplicates')])
def test_too_small_a_corpus_leaves_nothing(made, tmp_path, texts, pairs, message):
  (tmp_path / 'corpus.txt').write_text('\n\n'.join(texts))
  with pytest.raises(records.DataError, match=message):
    corpus.prepare(dataclasses.replace(made[0], input=str(tmp_path / 'corpus.txt'), output=str(tmp_path / 'data'),
                                       pairs=pairs), progress=False)
  assert [path.name for path in tmp_path.iterdir()] == ['corpus.txt']


@pytest.mark.parametrize('count, held', [(1, 0), (2, 0), (3, 1), (4, 2), (9, 2)])
def test_tiny_corpora_have_both_splits(made, tmp_path, count, held):
  (tmp_path / 'corpus.txt').write_text('\n\n'.join(corpora.text_of(i) for i in range(count)))
  tiny = dataclasses.replace(
      made[0], input=str(tmp_path / 'corpus.txt'), output=str(tmp_path / 'data'), validation_share=0.001, shards=None)
  splits = corpus.prepare(tiny, progress=False).splits
  assert splits['train'].documents == count - held
  assert (splits['validation'].documents if held else 0) == held


@pytest.mark.parametrize('change, message', [
    ({'sequence_length': 4}, '--sequence-length is 4'), ({'validation_share': 0.9}, '--validation-share'),
    ({'workers': 0}, '--workers'), ({'language': 'english!'}, '--language'), ({'shards': 0}, '--shards')])
def test_settings_that_cannot_work(made, change, message):
  with pytest.raises(records.DataError, match=message):
    dataclasses.replace(made[0], **change)


def test_more_shards_than_pieces(made, tmp_path):
  with pytest.raises(records.DataError, match='lower --shards'):
    corpus.prepare(dataclasses.replace(made[0], output=str(tmp_path / 'data'), shards=9999), progress=False)


@given(st.lists(st.integers(1, 20), max_size=40), st.integers(2, 20))
def test_grouping_is_greedy_and_loses_nothing(lengths, target):
  counts = pieces.group(lengths, 20, target)
  assert sum(counts) == len(lengths) and all(counts)
  sizes = [int(part.sum()) for part in np.split(np.array(lengths, int), np.cumsum(counts)[:-1])] if counts else []
  assert all(size <= 20 for size in sizes)
  for size, count, last in zip(sizes, counts, np.cumsum(counts)):
    assert size <= target or count == 1 or 1 in lengths[last - count:last]


def test_a_long_sentence_is_cut_between_words(made):
  vocabulary = tokenizer.load(made[0].vocabulary)
  text = 'one zzz ' * 50
  rules = pieces.Rules(sequence_length=16, language='en', short_piece_share=0, seed=0)
  document = formats.Document('1', '', text)
  found = pieces.of_document(document, *pieces.encode([document], vocabulary, rules), vocabulary, rules)
  assert found['input_ids'].tolist() == vocabulary.encode([text])[0].tolist()
  starts = np.cumsum(found['sentence_lengths']) - found['sentence_lengths']
  assert not vocabulary.is_continuation[found['input_ids'][starts]].any()


def test_short_pieces_are_the_share_of_documents_that_was_asked_for():
  targets = np.array([pieces.target_length(base, 125, 0.1)
                      for base in np.random.default_rng(0).integers(0, 2**63, 20_000).tolist()])
  assert abs((targets < 125).mean() - 0.1) < 0.01
  assert targets.min() == 2 and abs(targets[targets < 125].mean() - 63) < 3


def test_a_weight_takes_documents_so_often(made, tmp_path):
  prepare, manifest = made
  mixed = dataclasses.replace(prepare, input=f'{prepare.input}=1.5,', output=str(tmp_path / 'data'))
  after = corpus.prepare(mixed, progress=False)
  times = collections.Counter(document for document, _ in corpora.all_pieces(mixed, after, 'train'))
  once = collections.Counter(document for document, _ in corpora.all_pieces(prepare, manifest, 'train'))
  assert times.keys() == once.keys()
  twice = np.mean([times[document] > 1.4 * once[document] for document in once if once[document] > 3])
  assert 0.35 < twice < 0.65


def test_an_interrupted_run_goes_on(made, tmp_path, monkeypatch):
  prepare, manifest = made
  monkeypatch.setattr(sources, 'CHUNK_BYTES', 5_000)
  again = dataclasses.replace(prepare, output=str(tmp_path / 'data'))
  make_run, calls = stages.make_run, []

  def interrupted(*arguments):
    calls.append(1)
    if len(calls) == 4:
      raise KeyboardInterrupt
    return make_run(*arguments)

  monkeypatch.setattr(stages, 'make_run', interrupted)
  with pytest.raises(KeyboardInterrupt):
    corpus.prepare(again, progress=False)
  assert not (tmp_path / 'data').exists()
  assert corpus.prepare(again, progress=False).splits == manifest.splits
  chunks = len(list(sources.chunks(sources.mixture(prepare.input), 5_000)))
  assert len(calls) == chunks + 1  # three chunks were not made again
  assert [path.name for path in tmp_path.iterdir()] == ['data']

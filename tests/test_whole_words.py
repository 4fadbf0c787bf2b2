"""Chinese whole words on their way: kept from text to shards however they are made, masked whole and never cut."""

import dataclasses
import gzip
import json
import pathlib

import corpora
import numpy as np
import pytest

from input_pipeline import random, records
from input_pipeline.batches import loader, masking, pairs, shards
from input_pipeline.batches.loader import BatchConfig
from input_pipeline.batches.masking import Masking
from input_pipeline.prepare import corpus, settings
from input_pipeline.text import sentences, sources, word_boundaries
from input_pipeline.vocabulary import tokenizer

jieba = pytest.importorskip('jieba', reason="jieba is not installed: pip install 'bert_jax[chinese]'")
DATA = pathlib.Path(__file__).parents[2] / 'shared/data'
ARTICLES, VOCABULARY = DATA / 'wikipedia/zhwiki_articles_64.jsonl.gz', DATA / 'vocab/bert-base-chinese-vocab.txt'
needs_data = pytest.mark.skipif(not (ARTICLES.exists() and VOCABULARY.exists()), reason='../shared/data is not here')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Settings and manifests of the same text without and with words."""
  if not (ARTICLES.exists() and VOCABULARY.exists()):
    pytest.skip('../shared/data is not here')
  folder = tmp_path_factory.mktemp('zh')
  with gzip.open(ARTICLES, 'rt') as file, (folder / 'corpus.jsonl').open('w') as out:
    for line, _ in zip(file, range(12)):
      document = json.loads(line)
      out.write(json.dumps({'id': document['id'], 'text': document['text'][:3000]}, ensure_ascii=False) + '\n')
  plain = settings.Prepare(str(folder / 'corpus.jsonl'), str(VOCABULARY), str(folder / 'plain'), sequence_length=64,
                           language='zh', shards=2)
  chinese = dataclasses.replace(plain, output=str(folder / 'chinese'), words='jieba')
  return [(one, corpus.prepare(one, progress=False)) for one in (plain, chinese)]


def test_ids_are_the_same_and_only_the_words_are_new(made):
  """But where a sentence is longer than a row, it is cut between words."""
  (plain, plain_manifest), (chinese, manifest) = made
  assert (plain_manifest.words, manifest.words, manifest.settings['words']) == ('none', 'jieba', 'jieba')
  assert 'words' not in plain_manifest.settings and 'jieba' in manifest.packages
  for split in manifest.splits:
    before, after = (list(corpora.blocks(*one, split)) for one in made)
    assert all(block.word_starts is None and 'word_starts' not in records.block_features(block) for block in before)
    assert all(len(block.word_starts) == -(-len(block.input_ids) // 8) for block in after)
    counts = [np.bincount(np.concatenate([block.input_ids for block in blocks])) for blocks in (before, after)]
    assert np.array_equal(*counts)


def test_data_without_long_sentences_differs_by_the_words_alone(made, tmp_path):
  wide = [dataclasses.replace(prepare, sequence_length=512, output=str(tmp_path / prepare.words))
          for prepare, _ in made]
  manifests = [corpus.prepare(prepare, progress=False) for prepare in wide]
  for split in manifests[0].splits:
    for before, after in zip(*(corpora.blocks(*one, split) for one in zip(wide, manifests)), strict=True):
      features = records.block_features(after)
      assert len(features.pop('word_starts')) == -(-len(after.input_ids) // 8)
      assert features == records.block_features(before)


def bits_of(block):
  return np.unpackbits(block.word_starts, count=len(block.input_ids)).astype(bool)


def sentences_of(prepare, manifest):
  """{(ids of a sentence): its word starts} over all shards."""
  found = {}
  for split in manifest.splits:
    for block in corpora.blocks(prepare, manifest, split):
      ends = np.cumsum(block.sentence_lengths)[:-1]
      parts = zip(np.split(block.input_ids, ends), np.split(bits_of(block), ends))
      found |= {tuple(ids.tolist()): bits for ids, bits in parts}
  return found


def test_the_stored_words_are_jiebas(made):
  """Against words that are tokenized one by one: that gives the sentence's tokens wherever none lies in two words."""
  prepare, manifest = made[1]
  vocabulary = tokenizer.load(prepare.vocabulary)
  stored, compared = sentences_of(prepare, manifest), 0
  for line in open(prepare.input):
    texts = sentences.split(json.loads(line)['text'], 'zh')
    for text, ids in zip(texts, vocabulary.encode(texts)):
      parts = vocabulary.encode(jieba.lcut(text))
      if tuple(ids.tolist()) in stored and np.array_equal(np.concatenate(parts), ids):
        wanted = np.concatenate([np.arange(len(part)) == 0 for part in parts])
        assert np.array_equal(stored[tuple(ids.tolist())], wanted), text
        compared += 1
  assert compared > .5 * len(stored) > 100  # the rest is parts of long sentences, and Latin names
  share = np.concatenate(list(stored.values())).mean()
  assert .5 < share < .75  # most words have one character or two


def test_workers_and_chunks_leave_no_trace(made, tmp_path, monkeypatch):
  prepare, manifest = made[1]
  monkeypatch.setattr(sources, 'CHUNK_BYTES', 40_000)
  for workers in (1, 2):
    other = dataclasses.replace(prepare, output=str(tmp_path / f'data{workers}'), workers=workers)
    assert corpus.prepare(other, progress=False).splits == manifest.splits


@pytest.mark.beam
def test_beam_makes_the_same_shards(made, tmp_path):
  prepare, manifest = made[1]
  found = corpus.prepare(dataclasses.replace(prepare, output=str(tmp_path / 'data'), engine='beam'))
  assert (found.splits, found.words) == (manifest.splits, 'jieba')


def test_tfds_reads_them(made):
  tfds = pytest.importorskip('tensorflow_datasets')
  prepare, manifest = made[1]
  read = [example['word_starts'].numpy()
          for example in tfds.builder_from_directory(prepare.output).as_dataset(split='train')]
  ours = [block.word_starts for block in corpora.blocks(prepare, manifest, 'train')]
  assert all(array.dtype == np.uint8 for array in read)
  assert sorted(array.tobytes() for array in read) == sorted(array.tobytes() for array in ours)


def test_static_pairs_keep_them(made, tmp_path):
  prepare, manifest = made[1]
  static = dataclasses.replace(prepare, output=str(tmp_path / 'data'), pairs='google', dupe_factor=1, limit=8)
  vocabulary, documents = tokenizer.load(prepare.vocabulary), []
  for line, _ in zip(open(prepare.input), range(8)):
    texts = sentences.split(json.loads(line)['text'], 'zh')
    ids, lengths = vocabulary.encode_flat(texts)
    documents.append((ids.astype('<u2').tobytes(), word_boundaries.by_jieba(texts, vocabulary, ids, lengths)))
  found = sentences_of(static, corpus.prepare(static, progress=False))
  assert len(found) > 50
  for segment, bits in found.items():
    data = np.array(segment, '<u2').tobytes()
    places = [(starts, text.find(data)) for text, starts in documents]
    fits = [np.array_equal(starts[at // 2:at // 2 + len(bits)], bits) for starts, at in places
            if at >= 0 and at % 2 == 0]
    assert any(fits) or not fits
  config = BatchConfig(sequence_length=64, predictions=10, pairs='google', masking=Masking(unit='word'))
  assert loader.open_split(static.output, 'train', config).batch(0)['masked_lm_weights'].sum() > 32


def chosen_and_words(stream, first, last):
  """Of the rows of one window: what is predicted, where words start, each pair's number, all [B T]; the pairs."""
  epoch, window, begin, end = next(stream.spans(first, last))
  arrangement = stream.arrangement(epoch, window)
  batch, placed = stream.laid_out(arrangement, begin, end)
  shape = batch['input_ids'].shape
  starts, pair = np.ones(shape, bool), np.full(shape, -1)
  for m, (row, start, a, b) in enumerate(zip(placed.row, placed.start, placed.a_length, placed.b_length)):
    for at, source, count in ((start + 1, placed.a_start[m], a), (start + a + 2, placed.b_start[m], b)):
      assert np.array_equal(batch['input_ids'][row, at:at + count], arrangement.tokens[source:source + count])
      starts[row, at + 1:at + count] = arrangement.word_starts[source + 1:source + count]
      pair[row, at:at + count] = m
  chosen = np.zeros(shape, bool)
  masks = stream.rows(first, first + end - begin)
  row, slot = np.nonzero(masks['masked_lm_weights'])
  chosen[row, masks['masked_lm_positions'][row, slot]] = True
  return chosen, starts, pair, placed


@pytest.mark.parametrize('pack', [False, True])
def test_masks_are_unions_of_words_by_the_originals_rule(made, pack):
  config = BatchConfig(sequence_length=64, predictions=14 if pack else 10, pack=pack, pairs_per_row=4 if pack else 1,
                       masking=Masking(unit='word'))
  stream = loader.open_split(made[1][0].output, 'train', config)
  chosen, starts, pair, placed = chosen_and_words(stream, 0, 200)
  word = np.cumsum(starts.ravel())
  share = np.bincount(word, chosen.ravel())[1:] / np.bincount(word)[1:]
  assert set(np.unique(share)) == {0, 1}
  assert (np.bincount(word)[1:][share == 1] > 1).sum() > 50  # words of several tokens are among them
  if pack:
    return  # there a row's slots may be fewer than its pairs want
  wanted = np.minimum(masking.prediction_count(placed.length, .15, 10), placed.a_length + placed.b_length)
  length, owner = np.bincount(word)[1:], pair.ravel()[np.flatnonzero(starts.ravel())]
  for m in range(len(wanted)):
    left = wanted[m] - length[(owner == m) & (share == 1)].sum()
    others = length[(owner == m) & (share == 0)]
    assert left >= 0 and (not left or others.min() > left)  # only what would exceed the number was skipped


def test_spans_begin_with_words(made):
  config = BatchConfig(sequence_length=64, predictions=10, masking=Masking(unit='span'))
  chosen, starts, _, placed = chosen_and_words(loader.open_split(made[1][0].output, 'train', config), 0, 200)
  begins = chosen & ~np.pad(chosen, ((0, 0), (1, 0)))[:, :-1]
  assert starts[begins].mean() > .97
  assert chosen.sum() == masking.prediction_count(placed.length, .15, 10).sum()


def test_a_piece_is_cut_between_words():
  starts = np.arange(64 * 20) % 4 == 0  # words of four tokens; the vocabulary knows of none
  window = shards.Window(np.arange(64 * 20), np.arange(65) * 20, np.arange(65), np.arange(64), None, starts)
  cut = pairs.draw_cuts(window, random.bits(1, 0, 64), np.zeros(64 * 20, bool))
  assert not (cut % 4).any() and len(np.unique(cut)) == 4
  made = pairs.exchange(window, 1, 61, np.zeros(64 * 20, bool))
  assert starts[made.b_start].all()


@needs_data
def test_a_sentence_longer_than_a_row_is_cut_between_words(tmp_path):
  text = '数学家们研究语言模型的概率结构以及空间等概念' * 6
  (tmp_path / 'corpus.txt').write_text('\n\n'.join(text[at:] for at in (0, 4, 6, 8)))
  prepare = settings.Prepare(str(tmp_path / 'corpus.txt'), str(VOCABULARY), str(tmp_path / 'data'), sequence_length=16,
                             language='zh', words='jieba', short_piece_share=0)
  manifest = corpus.prepare(prepare, progress=False)
  vocabulary = tokenizer.load(VOCABULARY)
  parts = [''.join(vocabulary.tokens[i] for i in ids) for ids in sentences_of(prepare, manifest)]
  assert len(parts) > 10 and max(map(len, parts)) <= 13
  first_characters = '数', '研', '语', '模', '概', '结', '以', '空'  # of words
  assert all(not part.endswith(first_characters) for part in parts)

# ---------------------------------------------------------------- faults


def test_word_starts_of_a_wrong_length_are_found(made):
  prepare, manifest = made[1]
  block = next(corpora.blocks(prepare, manifest, 'train'))
  tf = pytest.importorskip('tensorflow')

  def record(block):
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                for name, value in records.block_features(block).items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

  assert np.array_equal(records.decode_block(record(block), np.dtype('<u2')).word_starts, block.word_starts)
  for wrong in (block.word_starts[:-1], np.append(block.word_starts, block.word_starts[:1])):
    with pytest.raises(records.DataError, match=f'{len(wrong)} bytes; wanted {len(block.word_starts)}'):
      records.decode_block(record(dataclasses.replace(block, word_starts=wrong)), np.dtype('<u2'))
  with pytest.raises(records.DataError, match="words='none'"):
    shards.check_block(block, dataclasses.replace(manifest, words='none'), 'framing')
  with pytest.raises(records.DataError, match="words='jieba'"):
    shards.check_block(dataclasses.replace(block, word_starts=None), manifest, 'framing')

"""Data sets that TFDS itself has built are named, read and told from others; what is wrong with one is a sentence."""

import pathlib

import corpora
import numpy as np
import pytest

from bert_jax.tasks import glue, sentences, tables
from input_pipeline import records, storage
from input_pipeline.prepare import corpus, settings
from input_pipeline.text import data_sets, sources

tfds = pytest.importorskip('tensorflow_datasets')
WIKI40B = ('\n_START_ARTICLE_\nA Title\n_START_PARAGRAPH_\nFirst one._NEWLINE_Second one.\n_START_SECTION_\nA heading\n'
           '_START_PARAGRAPH_\nThird one.\n_START_SECTION_\nAn empty section')


def build(folder, name, examples, features=None, version='1.0.0', config=None) -> str:
  """Has TFDS make a data set of one or more splits {'train': [example, …]}; returns its folder."""

  class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version(version)
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

    def _info(self):
      kinds = features or {key: tfds.features.Text() for key in next(iter(examples.values()))[0]}
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(kinds), disable_shuffling=True)

    def _split_generators(self, manager):
      return {split: enumerate(made) for split, made in examples.items()}

    def _generate_examples(self):
      raise NotImplementedError

  Made.name = name
  builder = Made(data_dir=folder)
  builder.download_and_prepare()
  return str(builder.data_dir)


def read(name):
  return [(document.title, document.text) for document in sources.documents(name)]


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """A folder that TFDS looks into, with data sets of two configs."""
  folder = tmp_path_factory.mktemp('tensorflow_datasets')
  for config in ('20230601.en', 'de'):
    texts = [{'title': f'{config} {i}', 'text': f'Text {i} in {config}.'} for i in range(10)]
    build(folder, 'small_wiki', {'train': texts, 'test': texts[:1]}, config=config)
  tfds.core.add_data_dir(folder)
  return folder


@pytest.mark.parametrize('name, count', [
    ('small_wiki/20230601.en', 10), ('small_wiki/20230601.en:1.0.0', 10), ('small_wiki/20230601.en:1.*.*:test', 1),
    ('small_wiki/20230601.en:test', 1), ('small_wiki/20230601.en:train[:20%]', 2),
    ('small_wiki/20230601.en:1.0.0:train[2:5]+test', 4)])
def test_a_name_has_a_config_a_version_and_a_split(home, name, count):
  found = read(f'tfds:{name}')
  assert len(found) == count and found[0][1].endswith(' in 20230601.en.')


@pytest.mark.parametrize('split, count', [('', 10), (':test', 1), (':train[8:]', 2), (':train+test', 11)])
def test_a_folder_has_a_split(home, monkeypatch, split, count):
  folder = home / 'small_wiki/de/1.0.0'
  monkeypatch.chdir(home)
  for name in (folder, 'small_wiki/de/1.0.0', './small_wiki/de/1.0.0', f'file://{folder}'):
    assert len(read(f'tfds:{name}{split}')) == count
  assert len(sources.mixture(f'tfds:{folder}{split},tfds:file://{folder}{split}')) == 1  # they are one


def test_a_folder_of_a_bucket_is_cut_at_the_right_colon():
  for folder in ('memory://bucket/wiki/1.0.0', 'memory://bucket'):
    (storage.path(folder) / 'dataset_info.json').write_bytes(b'{}')
    assert data_sets.reference(f'tfds:{folder}') == data_sets.Reference(None, folder, 'train')
    assert data_sets.reference(f'tfds:{folder}:train[:10%]') == data_sets.Reference(None, folder, 'train[:10%]')
  with pytest.raises(records.DataError, match='memory://bucket/none holds no data set'):
    data_sets.reference('tfds:memory://bucket/none:test')


@pytest.mark.parametrize('name, said', [
    ('none_such', 'none_such'), ('small_wiki/fr', 'fr'), ('small_wiki/de:2.0.0', '2.0.0'),
    ('small_wiki/de:other', "'other'.*train"), ('small_wiki/de:train[a:b]', 'split'), ('', 'wanted tfds:NAME'),
    ('two words', 'wanted tfds:NAME'), ('/none/such', '/none/such holds no data set')])
def test_what_is_not_there_is_a_sentence(home, name, said):
  with pytest.raises(records.DataError, match=said) as caught:
    sources.mixture(f'tfds:{name}')
  assert '\n' not in str(caught.value)


def test_a_sequence_of_texts_is_the_lines_of_one_document(tmp_path):
  kinds = {'text': tfds.features.Sequence(tfds.features.Text()), 'id': np.int64}
  texts = [['One.', 'Two.'], ['Alone.'], []]
  folder = build(tmp_path, 'lines', {'train': [{'text': text, 'id': i} for i, text in enumerate(texts)]}, kinds)
  found = list(sources.documents(f'tfds:{folder}'))
  assert [(document.id, document.text) for document in found] == [('0', 'One.\nTwo.'), ('1', 'Alone.')]


@pytest.mark.parametrize('kind, value', [
    (lambda: tfds.features.Sequence(tfds.features.Sequence(tfds.features.Text())), [['a'], ['b', 'c']]),
    (lambda: tfds.features.Sequence({'part': tfds.features.Text()}), [{'part': 'a'}]),
    (lambda: tfds.features.Translation(['en', 'de']), {'en': 'a', 'de': 'b'}), (lambda: np.int64, 3)])
def test_what_is_no_text_is_refused(tmp_path, kind, value):
  folder = build(tmp_path, 'odd', {'train': [{'text': value}]}, {'text': kind()})
  with pytest.raises(records.DataError, match='wanted a text, or a sequence of texts'):
    sources.mixture(f'tfds:{folder}')


def test_without_a_text_its_features_are_named(tmp_path):
  with pytest.raises(records.DataError, match='has the features label: wanted one named text'):
    sources.mixture(f'tfds:{build(tmp_path, "odd", {"train": [{"label": "a"}]})}')


def test_the_markers_of_wiki40b_are_structure(tmp_path):
  empty = '\n_START_ARTICLE_\nOnly a title\n'
  folder = build(tmp_path, 'wiki40b', {'train': [{'text': text} for text in (WIKI40B, empty, 'A _NEWLINE_ in prose.')]})
  assert read(f'tfds:{folder}') == [('A Title', 'First one.\nSecond one.\nThird one.'), ('', 'A _NEWLINE_ in prose.')]


def test_bytes_that_are_no_utf8_are_a_sentence(tmp_path):
  folder = build(tmp_path, 'latin', {'train': [{'text': 'Good.'}, {'text': b'B\xe4d.'}]})
  with pytest.raises(records.DataError, match='not UTF-8: byte 0xe4 at byte 1 of a text of example 1'):
    read(f'tfds:{folder}')


def test_a_truncated_record_is_a_sentence(tmp_path):
  folder = build(tmp_path, 'short', {'train': [{'text': f'Text {i}.'} for i in range(5)]})
  [shard] = pathlib.Path(folder).glob('*.tfrecord*')
  shard.write_bytes(shard.read_bytes()[:-9])
  with pytest.raises(records.DataError, match='truncated or damaged') as caught:
    read(f'tfds:{folder}')
  assert '\n' not in str(caught.value) and '{{' not in str(caught.value)
  shard.unlink()
  with pytest.raises(records.DataError, match='short-train.tfrecord'):
    sources.mixture(f'tfds:{folder}')


def test_other_content_under_the_same_name_is_noticed(tmp_path):
  texts = [{'text': corpora.text_of(i)} for i in range(40)]
  folder = pathlib.Path(build(tmp_path / 'a', 'mine', {'train': texts}))
  (tmp_path / 'vocab.txt').write_text('\n'.join(corpora.TOKENS) + '\n')
  prepare = settings.Prepare(f'tfds:{folder}', str(tmp_path / 'vocab.txt'), str(tmp_path / 'data'), sequence_length=32)
  made = corpus.prepare(prepare, progress=False)
  assert corpus.prepare(prepare, progress=False) == made  # the same data is kept
  other = pathlib.Path(build(tmp_path / 'b', 'mine', {'train': texts[1:] + [{'text': 'Other.'}]}))
  folder.rename(tmp_path / 'before')
  other.rename(folder)
  with pytest.raises(records.DataError, match='holds data of other settings .*contents'):
    corpus.prepare(prepare, progress=False)
  [stamp] = [part.stamp for part in sources.mixture(f'tfds:{tmp_path / "before"}')]
  assert made.settings['contents'] == [stamp.content]  # wherever it lies

# ---------------------------------------------------------------- examples of tasks


@pytest.fixture(scope='module')
def examples_of_tasks(tmp_path_factory):
  """glue/mrpc and glue/mnli as TFDS has them."""
  folder = tmp_path_factory.mktemp('tasks')
  text, classes = tfds.features.Text(), tfds.features.ClassLabel
  mrpc = [{'sentence1': f'"a {i}', 'sentence2': f'b {i}\n', 'label': i % 2, 'idx': i} for i in range(40)]
  unlabelled = [example | {'label': -1} for example in mrpc[:3]]
  of = {'sentence1': text, 'sentence2': text, 'label': classes(names=['not_equivalent', 'equivalent']), 'idx': np.int32}
  pairs = build(folder, 'mrpc', {'train': mrpc, 'validation': mrpc[:4], 'test': unlabelled}, of)
  mnli = [{'premise': f'a {i}', 'hypothesis': f'b {i}', 'label': i % 3, 'idx': i} for i in range(5)]
  of = {'premise': text, 'hypothesis': text, 'label': classes(names=['entailment', 'neutral', 'contradiction']),
        'idx': np.int32}
  parts = {'train': mnli, 'validation_matched': mnli[:2], 'validation_mismatched': mnli[2:], 'test_matched': mnli[:1]}
  return pairs, build(folder, 'mnli', parts, of)


def read_task(task, name, split):
  part = task.find(name, split, task.settings())
  return None if part is None else task.read(part, task.settings())


def test_the_examples_of_a_task(examples_of_tasks, capfd):
  mrpc, mnli = (f'tfds:{name}' for name in examples_of_tasks)
  task = glue.TASKS['mrpc']
  train = read_task(task, mrpc, 'train')
  assert [(e.text, e.text_pair, e.label, e.index) for e in train[:2]] == [
      ('"a 0', 'b 0\n', '0', '0'), ('"a 1', 'b 1\n', '1', '1')]
  assert len(train) == 40 and len(read_task(task, mrpc, 'validation')) == 4
  assert [e.label for e in read_task(task, mrpc, 'test')] == [None] * 3
  own = glue.TASKS['mnli']
  assert [len(read_task(own, mnli, split) or ()) for split in own.files] == [5, 2, 3, 1, 0, 0]
  assert [e.label for e in read_task(own, mnli, 'validation_mismatched')] == ['contradiction', 'entailment', 'neutral']
  words = read_task(sentences.CLASSIFICATION, mrpc, 'train')
  assert [e.label for e in words[:2]] == ['not_equivalent', 'equivalent'] and words[0].text_pair == 'b 0\n'
  assert "'sentence1', with 'sentence2', the label 'label'" in capfd.readouterr().err
  one = [read_task(sentences.CLASSIFICATION, f'{mrpc}:train', split) for split in ('train', 'validation')]
  assert sum(map(len, one)) == 40 and all(one)  # a split that is named is divided


def test_what_is_wrong_with_the_examples_of_a_task_is_named(examples_of_tasks):
  mrpc, mnli = (f'tfds:{name}' for name in examples_of_tasks)
  for name in ('train', 'validation'):
    with pytest.raises(records.DataError, match="mnli.*no column '#1 String' or 'sentence1'.*'premise'"):
      read_task(glue.TASKS['mrpc'], mnli, name)
  with pytest.raises(records.DataError, match="mrpc.*no column 'premise'"):
    task = sentences.CLASSIFICATION
    own = tables.Columns(text_column='premise')
    task.read(task.find(mrpc, 'train', own), own)
  with pytest.raises(records.DataError, match='--data tfds:no_such_set'):
    read_task(glue.TASKS['mrpc'], 'tfds:no_such_set', 'train')

"""A trained vocabulary has its special tokens first, is the same on every run, and is written whole or not at all."""

import random

import pytest

from input_pipeline import records
from input_pipeline.vocabulary import tokenizer, training as vocabulary

WORDS = ('the quick brown fox jumps over a lazy dog while seven wizards boxed quietly beneath vast jade mountains '
         'reading walking reader').split()


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  draw = random.Random(0)
  path = tmp_path_factory.mktemp('corpus') / 'corpus.txt'
  path.write_text('\n\n'.join(' '.join(draw.choices(WORDS, k=30)) + '. [MASK] Élan!' for _ in range(200)))
  return path


@pytest.mark.parametrize('kind, size, name', [('wordpiece', 120, 'vocab.txt'), ('sentencepiece', 60, 'spm.model')])
def test_both_kinds(corpus, tmp_path, kind, size, name):
  settings = vocabulary.VocabularySettings(str(corpus), str(tmp_path / name), kind, size)
  made = vocabulary.train_from(settings)
  first = (tmp_path / name).read_bytes()
  assert made.kind == kind and len(made.tokens) == size and made.lower_case
  assert made.tokens[:5] == tokenizer.SPECIAL
  assert (made.pad_id, made.unk_id, made.cls_id, made.sep_id, made.mask_id) == (0, 1, 2, 3, 4)
  assert not {0, 2, 3, 4} & set(made.encode(['the [MASK] [CLS] [SEP] [PAD] fox'])[0].tolist())
  text = 'the quick wizards reading'
  assert made.decode(made.encode([text])[0]) == text
  continues = made.is_continuation[made.encode([text])[0]]
  assert (~continues).sum() == 4 and not continues[0]
  with pytest.raises(records.DataError, match='--overwrite'):
    vocabulary.train_from(settings)
  vocabulary.train_from(vocabulary.VocabularySettings(str(corpus), str(tmp_path / name), kind, size, overwrite=True))
  assert (tmp_path / name).read_bytes() == first
  assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize('kind, name', [('wordpiece', 'vocab.txt'), ('sentencepiece', 'spm.model')])
def test_a_size_the_corpus_cannot_fill(corpus, tmp_path, kind, name):
  for size in (12, 50_000):
    with pytest.raises(records.DataError, match='--size'):
      vocabulary.train_from(vocabulary.VocabularySettings(str(corpus), str(tmp_path / name), kind, size))
  assert not list(tmp_path.iterdir())


def test_bad_settings(corpus, tmp_path):
  (tmp_path / 'empty.txt').write_text('\n\n')
  for source, output, message in ((tmp_path / 'empty.txt', 'vocab.txt', 'no text'),
                                  (corpus, 'vocab.model', 'ends in .txt')):
    with pytest.raises(records.DataError, match=message):
      vocabulary.train_from(vocabulary.VocabularySettings(str(source), str(tmp_path / output), 'wordpiece', 100))


@pytest.mark.parametrize('change, message', [
    ({'limit': 0}, '--limit 0: wanted at least 1'), ({'size': 5}, '--size 5'),
    ({'kind': 'bpe'}, '--kind bpe: wanted one of wordpiece, sentencepiece')])
def test_settings_that_cannot_work(change, message):
  with pytest.raises(records.DataError, match=message):
    vocabulary.VocabularySettings('corpus.txt', 'vocab.txt', **change)


def test_weights_of_a_mix_count(tmp_path):
  """A word that is frequent enough only because its source is taken so often becomes a token."""
  (tmp_path / 'a.txt').write_text('\n\n'.join(f'{word} zebra{"s" * (i % 2)}' for i, word in enumerate(WORDS * 3)))
  (tmp_path / 'b.txt').write_text('xylophone')
  for weight, wanted in (('', False), ('=50', True)):
    made = vocabulary.train_from(vocabulary.VocabularySettings(
        f'{tmp_path}/a.txt,{tmp_path}/b.txt{weight}', str(tmp_path / 'vocab.txt'), size=90, overwrite=True))
    assert ('xylophone' in made.tokens) == wanted

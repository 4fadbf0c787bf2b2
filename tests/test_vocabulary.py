"""A trained vocabulary has its special tokens first, is the same on every run, and is written whole or not at all.

It has every frequent character of any script, and no token that can stand nowhere.
"""

import bz2
import dataclasses
import json
import random
import re

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from input_pipeline import records
from input_pipeline.text import sources
from input_pipeline.vocabulary import counting, tokenizer, training as vocabulary

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
  settings = vocabulary.VocabularySettings(str(corpus), str(tmp_path / name), kind, size, lower_case=True)
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
  vocabulary.train_from(dataclasses.replace(settings, overwrite=True))
  assert (tmp_path / name).read_bytes() == first
  assert sorted(path.name for path in tmp_path.iterdir()) == [name, f'{name}.json']


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
    ({'limit': 0}, '--limit is 0: wanted a whole number or nothing, at least 1'), ({'size': 5}, '--size is 5'),
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

# ---------------------------------------------------------------- counting

ODD = 'aeBÉßİıΣς́ͅ\u200b\u200d\xad\x1c\x85\xa0\u2028\u3000一가가ﬁ😀\t\r\x7f\ufffd\ud800.,!-’    '


def fed(lines: list[str], lower_case: bool) -> dict[str, int]:
  """The words that the library's trainer counts of lines by itself."""
  import tokenizers
  library = tokenizer.wordpiece_library([tokenizer.UNK], lower_case)
  trainer = tokenizers.trainers.BpeTrainer(vocab_size=1, show_progress=False, min_frequency=2)
  library.model = tokenizers.models.BPE()
  library.train_from_iterator((line.encode('utf-8', 'replace').decode() for line in lines), trainer)
  return json.loads(trainer.__getstate__())['BpeTrainer']['words']


@hypothesis_settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.booleans())
def test_words_are_those_that_the_library_counts(seed, lower_case):
  draw = random.Random(seed)
  lines = [''.join(draw.choices(ODD, k=draw.randint(0, 60))) for _ in range(draw.randint(1, 20))] + mixed_text(seed)
  counted = counting.of_lines(lines, lower_case)
  assert dict(counted.words) == fed(lines, lower_case)
  spaced = ' '.join(counting.repeated({'a': 3, 'b': 2 * counting._AT_ONCE + 1})).split()
  assert sorted(spaced) == ['a'] * 3 + ['b'] * (2 * counting._AT_ONCE + 1)


@pytest.mark.parametrize('chosen', [{'size': 300}, {'size': 200, 'limit': 30}, {'size': 340, 'extend': 'old.txt'}])
def test_the_vocabulary_is_the_same_by_any_number_of_processes(chosen, tmp_path, monkeypatch):
  """However the text is divided, with weights, in several formats."""
  monkeypatch.chdir(tmp_path)
  texts = ['\n'.join(mixed_text(seed)[:6]) for seed in range(90)]
  (tmp_path / 'a.txt').write_text('\r\n\r\n'.join(texts[:50]))
  (tmp_path / 'b.txt.bz2').write_bytes(b''.join(bz2.compress(f'{text}\n\n'.encode()) for text in texts[50:80]))
  (tmp_path / 'c.txt').write_text(texts[80])
  vocabulary.train_from(vocabulary.VocabularySettings('a.txt', 'old.txt', size=210))

  def made(**more) -> bytes:
    vocabulary.train_from(vocabulary.VocabularySettings(
        'a.txt,b.txt.bz2=2.5,c.txt', 'vocab.txt', overwrite=True, **chosen, **more))
    return (tmp_path / 'vocab.txt').read_bytes()

  whole = made()
  monkeypatch.setattr(sources, 'CHUNK_BYTES', 900)
  monkeypatch.setattr(sources, 'SECTION_BYTES', 4000)
  assert whole == made() == made(workers=3)


@pytest.mark.parametrize('chosen, message', [
    ({'kind': 'sentencepiece'}, '--workers 2 with --kind sentencepiece, which is trained by one process'),
    ({'first': 9}, '--workers 2 with --first')])
def test_what_one_process_does_is_refused_to_more(chosen, message):
  with pytest.raises(records.DataError, match=message):
    vocabulary.VocabularySettings('corpus.txt', 'vocab.txt', workers=2, **chosen)

# ---------------------------------------------------------------- any script

HAN = [chr(c) for c in range(0x4e00, 0x4e00 + 400)]
SCRIPTS = {'latin': [chr(c) for c in range(97, 123)], 'han': HAN, 'kana': [chr(c) for c in range(0x3041, 0x3090)],
           'cyrillic': [chr(c) for c in range(0x430, 0x450)], 'punctuation': list('.,;。、！')}


def mixed_text(seed: int) -> list[str]:
  """Sentences of one to three scripts, whose characters are as unevenly frequent as those of a language."""
  draw = random.Random(seed)
  letters = [c for script in draw.sample(sorted(SCRIPTS), draw.randint(1, 3)) for c in SCRIPTS[script]]
  weights = [1 / (1 + place) for place in range(len(letters))]
  draw.shuffle(letters)
  return [' '.join(''.join(draw.choices(letters, weights, k=draw.randint(1, 9))) for _ in range(draw.randint(1, 40)))
          for _ in range(draw.randint(1, 30))]


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(6, 2000))
def test_the_size_that_the_message_advises_works_at_once(seed, size):
  lines = mixed_text(seed)
  try:
    made = vocabulary.train_wordpiece(counting.of_lines(lines, True), size, True)
  except records.DataError as error:
    size = int(re.search(r'(?:needs|gives only) ([\d,]+) tokens', str(error))[1].replace(',', ''))
    made = vocabulary.train_wordpiece(counting.of_lines(lines, True), size, True)
  tokens = made.decode().split('\n')[:-1]
  assert len(tokens) == len(set(tokens)) == size and tuple(tokens[:5]) == tokenizer.SPECIAL
  assert not [token for token in tokens if token.startswith('##') and token[2:3] in (*HAN, *SCRIPTS['punctuation'])]


def test_every_character_of_chinese_text_that_there_is_room_for(tmp_path):
  draw = random.Random(1)
  (tmp_path / 'zh.txt').write_text('\n\n'.join(''.join(draw.choices(HAN, k=300)) + ' abc abd' for _ in range(20)))
  made = vocabulary.train_from(vocabulary.VocabularySettings(
      str(tmp_path / 'zh.txt'), str(tmp_path / 'vocab.txt'), size=416))
  assert set(HAN) <= set(made.tokens)
  assert made.unk_id not in made.encode([''.join(HAN)])[0]


def test_sentencepiece_sees_all_of_a_line_whose_script_changes(tmp_path):
  line = 'the quick brown fox jumps ' * 200 + '今天天气很好我们去公园' * 400
  assert ''.join(vocabulary._short([line])) == line
  assert max(len(part.encode()) for part in vocabulary._short([line])) <= 4000
  (tmp_path / 'a.txt').write_text('\n\n'.join([line] * 3))
  made = vocabulary.train_from(vocabulary.VocabularySettings(
      str(tmp_path / 'a.txt'), str(tmp_path / 'spm.model'), 'sentencepiece', size=41))
  assert set('今天气很好我们去公园') <= set(''.join(made.tokens))

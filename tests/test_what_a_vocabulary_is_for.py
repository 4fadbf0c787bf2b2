"""What a vocabulary is for is told by the files beside it, or else by its tokens; unknown text is refused."""

import dataclasses
import json
import random
import re

import pytest
from hypothesis import given, strategies as st

from input_pipeline import counts, records
from input_pipeline.prepare import corpus, settings
from input_pipeline.vocabulary import beside, tokenizer, training as vocabulary

WORDS = 'the quick brown fox jumps over a lazy dog while seven wizards boxed quietly'.split()
HINDI = ['अपने पोस्ट ऑफिस में भर्ती है।', 'यहाँ नदी के केनारे एक पुराना नगर है।', 'वह कुछ केताबें पढ़ता है और गाँव में रहता है।']
KOREAN = ['이 마을은 강가에 있다.', '사람들이 시장에서 책을 읽는다.', '오래된 다리가 있다.']
GERMAN = ['Der Ort liegt am Fluss, ältere Brücken gibt es nicht.', 'Er liest Bücher aus Köln.', 'Über Öl spricht Änne.']


@pytest.mark.parametrize('text, cased', [(HINDI, True), (HINDI, False), (KOREAN, True), (KOREAN, False), (GERMAN, True),
                                         (GERMAN, False), (['今天天气很好。', 'nice day'], False)])
@pytest.mark.parametrize('kind, name', [('wordpiece', 'vocab.txt'), ('sentencepiece', 'spm.model')])
def test_prepare_knows_what_a_vocabulary_is_for(tmp_path, text, cased, kind, name):
  """By its settings, and, where these are lost, by its tokens."""
  (tmp_path / 'a.jsonl').write_text('\n'.join(
      json.dumps({'id': i, 'text': '\n'.join([*text[i % len(text):], str(i)])}) for i in range(30)))
  train = vocabulary.VocabularySettings(str(tmp_path / 'a.jsonl'), str(tmp_path / name), kind, 3000, not cased)
  with pytest.raises(records.DataError) as refused:
    vocabulary.train_from(train)
  size = re.search(r'gives only ([\d,]+)', str(refused.value))[1].replace(',', '')
  vocabulary.train_from(dataclasses.replace(train, size=int(size)))
  for lost in (False, True):
    if lost:
      (tmp_path / f'{name}.json').unlink()
    prepare = settings.Prepare(str(tmp_path / 'a.jsonl'), train.output, str(tmp_path / f'data{lost}'))
    manifest = corpus.prepare(prepare, progress=False)
    assert not sum(split.unknown_tokens for split in manifest.splits.values())
    if kind == 'wordpiece':  # the model of SentencePiece folds case by itself
      assert manifest.vocabulary.lower_case != cased
  assert tokenizer.load(tmp_path / 'dataTrue').lower_case == manifest.vocabulary.lower_case


def test_settings_of_another_vocabulary_do_not_count(tmp_path):
  tokens = [*tokenizer.SPECIAL, *'abcABC']
  (tmp_path / 'vocab.txt').write_text('\n'.join(tokens) + '\n')
  beside.write(tmp_path / 'vocab.txt', (tmp_path / 'vocab.txt').read_bytes(), lower_case=True)
  assert tokenizer.load(tmp_path / 'vocab.txt').lower_case
  assert not tokenizer.load(tmp_path / 'vocab.txt', lower_case=False).lower_case
  (tmp_path / 'vocab.txt').write_text('\n'.join([*tokens, 'D']) + '\n')
  assert not tokenizer.load(tmp_path / 'vocab.txt').lower_case
  (tmp_path / 'tokenizer_config.json').write_text('{"do_lower_case": true}')
  assert tokenizer.load(tmp_path / 'vocab.txt').lower_case and tokenizer.load(tmp_path).lower_case
  (tmp_path / 'tokenizer_config.json').write_text('{"do_lower_case": true, "strip_accents": false}')
  assert tokenizer.load(tmp_path).splitting.strip_accents is False


@given(st.integers(3, 3000), st.integers(0, 2), st.integers(0, 2))
def test_a_few_strays_do_not_tell_what_a_vocabulary_is_for(count, capitals, accents):
  """But more than one in a hundred tokens of their kind do."""
  tokens = [*(f'w{i}' for i in range(count)), *(chr(0x4e00 + i) for i in range(count)), 'é', '[MASK]', '[unused1]']
  strays = [*['NASA', '##SA'][:capitals], *['में', 'が'][:accents]]
  assert not tokenizer.is_cased([*tokens, *strays], accents=True)
  more = count // 99 + 3
  assert tokenizer.is_cased([*tokens, *(f'T{i}' for i in range(more))], accents=True)
  syllables = [chr(0xac00 + i) for i in range(more)]
  assert tokenizer.is_cased([*tokens, *syllables], accents=True)
  assert not tokenizer.is_cased([*tokens, *syllables], accents=False)


@pytest.mark.parametrize('unknown, message', [(0, None), (3, '3.0% of the tokens'), (6, '6.0% of the tokens')])
def test_unknown_text_is_refused(tmp_path, unknown, message):
  draw = random.Random(0)
  (tmp_path / 'a.txt').write_text('\n\n'.join(
      ' '.join([*draw.choices(WORDS, k=100 - unknown), *['日'] * unknown]) for _ in range(40)))
  (tmp_path / 'vocab.txt').write_text('\n'.join([*tokenizer.SPECIAL, *WORDS]))
  prepare = settings.Prepare(str(tmp_path / 'a.txt'), str(tmp_path / 'vocab.txt'), str(tmp_path / 'data'))
  if unknown > 5:
    with pytest.raises(records.DataError, match=f'{message} are unknown .* pass --lower-case or --no-lower-case'):
      corpus.prepare(prepare, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.txt', 'vocab.txt']
    return
  said = counts.warnings(corpus.prepare(prepare, progress=False))
  assert len(said) == 2 and all(text.startswith(message) for text in said) if message else not said


def test_documents_that_are_all_unknown_are_not_said_to_be_the_same(tmp_path):
  (tmp_path / 'a.jsonl').write_text('\n'.join(json.dumps({'id': i, 'text': HINDI[i % 3]}) for i in range(9)))
  (tmp_path / 'vocab.txt').write_text('\n'.join([*tokenizer.SPECIAL, *WORDS]))
  with pytest.raises(records.DataError, match='100.0% of the tokens are unknown'):
    corpus.prepare(settings.Prepare(str(tmp_path / 'a.jsonl'), str(tmp_path / 'vocab.txt'), str(tmp_path / 'data')),
                   progress=False)

"""Sentences keep every word, and end where a reader would end them."""

import time

import pytest
from hypothesis import given, settings, strategies as st

from input_pipeline import records
from input_pipeline.text import sentences


def test_abbreviations_and_decimals_do_not_end_sentences():
  text = 'Dr. Smith paid 3.50 dollars. He left.\nA new paragraph without a stop\nThe end.'
  assert sentences.split(text) == ['Dr. Smith paid 3.50 dollars.', 'He left.', 'A new paragraph without a stop',
                                   'The end.']


def test_chinese():
  assert sentences.split('今天天气很好。我们去公园。', 'zh') == ['今天天气很好。', '我们去公园。']


def test_nothing_but_white_space_is_dropped():
  text = 'One two.  Three? Four!\n\n \t\nfive; "Six." Seven'
  found = sentences.split(text)
  assert ''.join(''.join(found).split()) == ''.join(text.split())
  assert all(sentence == sentence.strip() != '' for sentence in found)
  assert sentences.split(' \n\t\n') == []


def test_text_that_makes_sentencex_panic(capfd):
  for space in '\x85\xa0\u2009\u3000':
    assert ''.join(''.join(sentences.split(f'Paul W{space}. Bunyan.')).split()) == 'PaulW.Bunyan.'
  assert not capfd.readouterr().err  # where a panic is told of


def test_a_panic_leaves_the_line_whole(monkeypatch):
  class PanicException(BaseException):
    pass

  def panics(language, line):
    raise PanicException('end byte index 2 is not a char boundary')

  monkeypatch.setattr('sentencex.segment', panics)
  assert sentences.split('One. Two.\nThree.') == ['One. Two.', 'Three.']


def test_a_language_must_look_like_one():
  with pytest.raises(records.DataError, match='--language'):
    sentences.check_language('English')


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(['今天天气很好。', '「今日は。」', 'He left. ', 'x' * 5000, '“', '…', '\u0301', '\x85',
                                 '\u3000', 'Dr. W\x85. ', '. ', '(a. B.) ', ' ']), min_size=1, max_size=8),
       st.sampled_from(['en', 'zh', 'hi']))
def test_no_character_of_a_long_line_is_lost(parts, language):
  line = ''.join(parts) * (40_000 // len(''.join(parts)) + 1)
  assert ''.join(''.join(sentences.split(line, language)).split()) == ''.join(line.split())


def test_a_long_line_is_cut_into_the_sentences_that_it_has():
  own = [f'Town number {i} lies on a river.' for i in range(5000)]
  assert sentences.split(' '.join(own)) == own
  assert sentences.split('今天天气很好。' * 20_000, 'zh') == ['今天天气很好。'] * 20_000
  assert sentences.split('a' * 100_000) == ['a' * 100_000]


@pytest.mark.parametrize('text', ['今天天气很好。我们去公园。', '“', '。', 'x', "'", '\u0301', '。」', 'ก', '!? '])
def test_time_is_bounded_by_the_length(text):
  begun = time.process_time()
  sentences.split((text * 350_000)[:350_000], 'zh')
  assert time.process_time() - begun < 10

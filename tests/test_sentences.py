"""Sentences keep every word, and end where a reader would end them."""

import pytest

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


def test_text_that_makes_sentencex_panic():
  for space in '\xa0\u2009\u3000':
    assert ''.join(''.join(sentences.split(f'Paul W{space}. Bunyan.')).split()) == 'PaulW.Bunyan.'


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

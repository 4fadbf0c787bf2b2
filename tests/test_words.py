"""Chinese words: jieba's, found again among the tokens of either kind of vocabulary, in silence."""

import os
import pathlib
import subprocess
import sys

import pytest

from input_pipeline import records
from input_pipeline.prepare import settings
from input_pipeline.text import word_boundaries
from input_pipeline.vocabulary import tokenizer, training as vocabulary

pytest.importorskip('jieba', reason="jieba is not installed: pip install 'bert_jax[chinese]'")
TEXT = '使用语言模型来预测下一个词的概率。数学家们研究数量、结构以及空间等概念。'
TOKENS = [*tokenizer.SPECIAL, *sorted(set(TEXT)), *'手机全角和恤。，.%t3', 'iphone', 'na', '##ive', '14',
          '１', '##２', 'ａ', '##ｂ']


def shown(text, vocabulary):
  """The tokens of a text, with a gap where a word starts."""
  ids, lengths = vocabulary.encode_flat([text])
  starts = word_boundaries.by_jieba([text], vocabulary, ids, lengths)
  assert starts[0]
  return ''.join(f' {vocabulary.tokens[i]}' if start else vocabulary.tokens[i] for i, start in zip(ids, starts)).split()


@pytest.mark.parametrize('text, wanted', [
    (TEXT[:17], '使用 语言 模型 来 预测 下 一个 词 的 概率 。'),
    # lower case, accents and ## inside of what jieba calls three words
    ('IPhone手机和Naïve', 'iphone 手机 和 na##ive'),
    ('，ＡＢ全角１２ 3.14%', '， ａ##ｂ 全角 １##２ 3.14%'),
    ('T恤和手\u200b机', 't恤 和 手机'),  # of two scripts; a zero-width space
    ('龘龘犇手机', '[UNK][UNK][UNK] 手机')])
def test_words_of_tokens(tmp_path, text, wanted):
  (tmp_path / 'vocab.txt').write_text('\n'.join(dict.fromkeys(TOKENS)) + '\n')
  assert shown(text, tokenizer.load(tmp_path / 'vocab.txt')) == wanted.split()


def test_pieces_of_sentencepiece(tmp_path):
  (tmp_path / 'corpus.txt').write_text('\n\n'.join([TEXT, 'İstanbul ΟΔΟΣ 手机 naïve'] * 20))
  made = vocabulary.train_from(
      vocabulary.VocabularySettings(str(tmp_path / 'corpus.txt'), str(tmp_path / 'spm.model'), 'sentencepiece', 56,
                                    lower_case=True))
  for text, wanted in ((TEXT[:17], '▁使用 语言 模型 来 预测 下 一个 词 的 概率 。'),
                       ('手机 naïve手机', '▁手机 ▁naïve 手机')):
    assert shown(text, made) == wanted.split()
  assert shown('İİ  手机手机', made)[1:] == ['▁手机', '手机']  # lower-casing makes four characters of two


def test_it_is_silent_and_leaves_nothing(tmp_path):
  program = ("from input_pipeline.text import word_boundaries; "
             "assert word_boundaries.boundaries('数学是利用').tolist() == [True, False, True, True, False, True]")
  done = subprocess.run([sys.executable, '-c', program], env=os.environ | {'TMPDIR': str(tmp_path)},
                        capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[1])
  assert (done.returncode, done.stdout, done.stderr, list(tmp_path.iterdir())) == (0, '', '', [])


def test_without_jieba_the_error_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'jieba', None)
  with pytest.raises(records.DataError, match=r"pip install 'bert_jax\[chinese\]'"):
    settings.Prepare('corpus.txt', 'vocab.txt', 'data', words='jieba')
  settings.Prepare('corpus.txt', 'vocab.txt', 'data')
